// Op `detect` (ssd/ops/detect.py has the contract): decode, threshold, the best of each class, NMS, the best of all.
//
// Three launches, all images and classes at once: a thread for each default box (softmax statistics, decoded box); a block
// for each image and class (candidates by radix select, sorted, suppressed in shared memory); a block for each image (the
// best of what the classes kept). Every candidate is a 64-bit key of score, default box and class (numbers.h, make_key), so
// that equal scores have one order: lowest default box, then lowest class.
#include "block.h"
#include "boxes.h"

constexpr int MOST_KEPT = 512;  // candidates a class and detections an image: what shared memory is reserved for

template <class T>
__global__ void decode_boxes(const T* locations, const T* logits, const float4* defaults_xywh, float4* boxes,
                             float* most_of, float* sum_of, int n_classes, int n_defaults) {
    int d = blockIdx.x * BLOCK + threadIdx.x;
    if (d >= n_defaults) return;
    i64 image = blockIdx.y, row = image * n_defaults + d;
    float offset[4], most = load(logits[image * n_classes * n_defaults + d]), sum = 0;
    for (int k = 0; k < 4; ++k) offset[k] = load(locations[(image * 4 + k) * n_defaults + d]);
    boxes[row] = decode(offset, defaults_xywh[d]);
    for (int c = 1; c < n_classes; ++c) most = fmaxf(most, load(logits[(image * n_classes + c) * n_defaults + d]));
    for (int c = 0; c < n_classes; ++c) sum += expf(load(logits[(image * n_classes + c) * n_defaults + d]) - most);
    most_of[row] = most;
    sum_of[row] = sum + zero_if_finite(to_box(boxes[row]));  // not a number passes no threshold
}

// Grid: classes without background, images. Writes max_candidates keys for each, 0 where nothing is left.
template <class T>
__global__ void suppress(const T* logits, const float4* boxes, const float* most_of, const float* sum_of, u64* kept,
                         int n_classes, int n_defaults, float score_threshold, float nms_overlap, int max_candidates) {
    __shared__ u64 candidates[MOST_KEPT];
    __shared__ Box box[MOST_KEPT];
    __shared__ bool alive[MOST_KEPT];
    i64 image = blockIdx.y, first = image * n_defaults;
    int c = blockIdx.x + 1;
    const T* column = logits + (image * n_classes + c) * n_defaults;
    auto candidate = [=](int d) {
        float score = expf(load(column[d]) - most_of[first + d]) / sum_of[first + d];
        return score > score_threshold ? make_key(score, static_cast<u32>(d) * n_classes + c) : 0;
    };
    int count = take_largest(candidate, n_defaults, max_candidates, candidates);
    for (int i = threadIdx.x; i < count; i += BLOCK) {
        box[i] = to_box(boxes[first + key_index(candidates[i]) / n_classes]);
        alive[i] = true;
    }
    __syncthreads();
    for (int i = 0; i < count; ++i) {
        if (!alive[i]) continue;  // all threads read the same: nobody writes alive[i] any more
        for (int j = i + 1 + threadIdx.x; j < count; j += BLOCK)
            if (overlap(box[i], box[j]) >= nms_overlap) alive[j] = false;
        __syncthreads();
    }
    u64* out = kept + (image * (n_classes - 1) + blockIdx.x) * max_candidates;
    for (int i = threadIdx.x; i < max_candidates; i += BLOCK) out[i] = i < count && alive[i] ? candidates[i] : 0;
}

// Grid: images. Zeros from counts[image] on.
__global__ void best_of_image(const u64* kept, const float4* boxes, float4* out_boxes, float* scores, i64* labels,
                              i64* counts, int n_kept, int n_classes, int n_defaults, int max_detections) {
    __shared__ u64 best[MOST_KEPT];
    i64 image = blockIdx.x;
    auto candidate = [=](int i) { return kept[image * n_kept + i]; };
    int count = take_largest(candidate, n_kept, max_detections, best);
    for (int i = threadIdx.x; i < max_detections; i += BLOCK) {
        i64 at = image * max_detections + i;
        u32 index = i < count ? key_index(best[i]) : 0;
        out_boxes[at] = i < count ? boxes[image * n_defaults + index / n_classes] : float4{0, 0, 0, 0};
        scores[at] = i < count ? key_value(best[i]) : 0.0f;
        labels[at] = i < count ? index % n_classes : 0;
    }
    if (threadIdx.x == 0) counts[image] = count;
}

extern "C" int ssd_detect_most_kept() { return MOST_KEPT; }

// locations (B, 4, D) and logits (B, C, D) of element type `dtype`, defaults_xywh (D, 4) float32. Workspace: decoded
// (B, D, 4), most and sum (B, D) float32, kept (B, C - 1, max_candidates) 64 bit. Writes boxes (B, K, 4), scores (B, K)
// float32, labels (B, K) and counts (B,) int64 with K = max_detections. 0 or the runtime's error code.
extern "C" int ssd_detect(const void* locations, const void* logits, const float* defaults_xywh, float* decoded,
                          float* most, float* sum, u64* kept, float* boxes, float* scores, i64* labels, i64* counts,
                          int batch, int n_classes, int n_defaults, float score_threshold, float nms_overlap,
                          int max_candidates, int max_detections, int dtype, void* stream) {
    float4 *all = reinterpret_cast<float4*>(decoded), *out = reinterpret_cast<float4*>(boxes);
    const float4* xywh = reinterpret_cast<const float4*>(defaults_xywh);
    int error = with_type(dtype, [=](auto zero) {
        using T = decltype(zero);
        const T *location = static_cast<const T*>(locations), *logit = static_cast<const T*>(logits);
        int failed = LAUNCH(decode_boxes<T>, blocks_for(n_defaults), batch, stream, location, logit, xywh, all, most, sum,
                            n_classes, n_defaults);
        if (failed != 0) return failed;
        return LAUNCH(suppress<T>, n_classes - 1, batch, stream, logit, all, most, sum, kept, n_classes, n_defaults,
                      score_threshold, nms_overlap, max_candidates);
    });
    if (error != 0) return error;
    return LAUNCH(best_of_image, batch, 1, stream, kept, all, out, scores, labels, counts,
                  (n_classes - 1) * max_candidates, n_classes, n_defaults, max_detections);
}
