// Op `loss` (ssd/ops/loss.py has the contract): softmax cross-entropy, smooth-L1 and 3:1 hard-negative mining.
//
// Forward: a thread for each default box reads its column of logits twice (largest, then sum of exponentials; neighbouring
// threads read neighbouring addresses) and keeps cross-entropy, the largest logit and the sum's logarithm; then a block for
// each image counts positives, finds the mined negatives by radix select (8,732 scores are never sorted) and adds up.
// Backward: one pass, a thread for each default box, reading the logits of those that counted once more. Single precision
// inside, whatever the tensors hold.
#include "block.h"

template <class T>
__global__ void loss_rows(const T* logits, const i64* labels, float* entropy, float* most_of, float* log_sum,
                          int n_classes, int n_defaults) {
    int d = blockIdx.x * BLOCK + threadIdx.x;
    if (d >= n_defaults) return;
    i64 row = static_cast<i64>(blockIdx.y) * n_defaults + d;
    const T* column = logits + static_cast<i64>(blockIdx.y) * n_classes * n_defaults + d;
    float most = load(column[0]), sum = 0;
    for (int c = 1; c < n_classes; ++c) most = fmaxf(most, load(column[static_cast<i64>(c) * n_defaults]));
    for (int c = 0; c < n_classes; ++c) sum += expf(load(column[static_cast<i64>(c) * n_defaults]) - most);
    most_of[row] = most;  // not added to log_sum: of a sum in thousands float32 keeps 1e-4, and gradients need 1e-7
    log_sum[row] = logf(sum);
    entropy[row] = log_sum[row] - (load(column[labels[row] * n_defaults]) - most);
}

__device__ inline float smooth_l1(float difference) {
    float size = fabsf(difference);
    return size < 1 ? 0.5f * size * size : size - 0.5f;
}

// One block an image. `taken` becomes 1 where cross-entropy counts: positives and mined negatives. Products instead of
// branches: 0 * NaN is NaN, so that a broken output is never masked.
template <class T>
__global__ void loss_images(const T* locations, const float* offsets, const i64* labels, const float* entropy,
                            unsigned char* taken, int* positives, float* loss, int n_defaults, int negative_ratio) {
    i64 image = blockIdx.x, first = image * n_defaults;
    u32 count = 0;
    for (int d = threadIdx.x; d < n_defaults; d += BLOCK) count += labels[first + d] > 0;
    count = block_reduce(count, Sum());
    auto negative = [=](int d) { return labels[first + d] > 0 ? 0 : make_key(entropy[first + d], d); };
    u64 threshold = threshold_of_largest(negative, n_defaults, count * negative_ratio);
    float sum = 0;
    for (int d = threadIdx.x; d < n_defaults; d += BLOCK) {
        bool positive = labels[first + d] > 0, counts = positive || negative(d) >= threshold;
        taken[first + d] = counts;
        float distance = 0;
        for (int k = 0; k < 4; ++k) {
            i64 at = (image * 4 + k) * n_defaults + d;
            distance += smooth_l1(load(locations[at]) - offsets[at]);
        }
        sum += distance * (positive ? 1.0f : 0.0f) + entropy[first + d] * (counts ? 1.0f : 0.0f);
    }
    sum = block_reduce(sum, Sum());
    if (threadIdx.x == 0) {
        positives[image] = static_cast<int>(count);
        loss[image] = sum / static_cast<float>(count == 0 ? 1 : count);
    }
}

template <class T>
__global__ void loss_gradients(const T* locations, const T* logits, const float* offsets, const i64* labels,
                               const float* most_of, const float* log_sum, const unsigned char* taken,
                               const int* positives, const float* loss_gradient, T* location_gradient,
                               T* logit_gradient, int n_classes, int n_defaults) {
    int d = blockIdx.x * BLOCK + threadIdx.x;
    if (d >= n_defaults) return;
    i64 image = blockIdx.y, row = image * n_defaults + d, label = labels[row];
    float scale = positives[image] == 0 ? 0.0f : loss_gradient[image] / static_cast<float>(positives[image]);
    for (int k = 0; k < 4; ++k) {
        i64 at = (image * 4 + k) * n_defaults + d;
        float difference = load(locations[at]) - offsets[at];
        float slope = difference >= 1 ? 1.0f : difference <= -1 ? -1.0f : difference;
        store(location_gradient[at], (label > 0 ? scale : 0.0f) * slope);
    }
    float factor = taken[row] ? scale : 0.0f, most = most_of[row], log_total = log_sum[row];
    bool zero = factor == 0 && log_total - log_total == 0;  // most boxes: their logits need not be read
    for (int c = 0; c < n_classes; ++c) {
        i64 at = (image * n_classes + c) * n_defaults + d;
        float share = zero ? 0.0f : expf((load(logits[at]) - most) - log_total) - (c == label ? 1.0f : 0.0f);
        store(logit_gradient[at], factor * share);
    }
}

// locations (B, 4, D) and logits (B, C, D) of element type `dtype`, offsets (B, 4, D) float32, labels (B, D) int64.
// Writes loss (B,), and for the backward pass most and log_sum (B, D) float32, taken (B, D) uint8, positives (B,) int32.
// entropy (B, D) float32 is workspace. 0 or the runtime's error code.
extern "C" int ssd_loss_forward(const void* locations, const void* logits, const float* offsets, const i64* labels,
                                float* entropy, float* most, float* log_sum, unsigned char* taken, int* positives,
                                float* loss, int batch, int n_classes, int n_defaults, int negative_ratio, int dtype,
                                void* stream) {
    return with_type(dtype, [=](auto zero) {
        using T = decltype(zero);
        const T *location = static_cast<const T*>(locations), *logit = static_cast<const T*>(logits);
        int error = LAUNCH(loss_rows<T>, blocks_for(n_defaults), batch, stream, logit, labels, entropy, most, log_sum,
                           n_classes, n_defaults);
        if (error != 0) return error;
        return LAUNCH(loss_images<T>, batch, 1, stream, location, offsets, labels, entropy, taken, positives, loss,
                      n_defaults, negative_ratio);
    });
}

// What ssd_loss_forward read and kept, and loss_gradient (B,) float32. Writes both gradients, in the tensors' types.
extern "C" int ssd_loss_backward(const void* locations, const void* logits, const float* offsets, const i64* labels,
                                 const float* most, const float* log_sum, const unsigned char* taken,
                                 const int* positives, const float* loss_gradient, void* location_gradient,
                                 void* logit_gradient, int batch, int n_classes, int n_defaults, int dtype, void* stream) {
    return with_type(dtype, [=](auto zero) {
        using T = decltype(zero);
        return LAUNCH(loss_gradients<T>, blocks_for(n_defaults), batch, stream, static_cast<const T*>(locations),
                      static_cast<const T*>(logits), offsets, labels, most, log_sum, taken, positives, loss_gradient,
                      static_cast<T*>(location_gradient), static_cast<T*>(logit_gradient), n_classes, n_defaults);
    });
}
