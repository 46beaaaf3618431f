// Op `encode` (ssd/ops/encode.py has the contract): match ground truth with default boxes, write offsets and labels.
//
// Two launches and no matrix of overlaps: a block for each ground truth finds its best default box, then a thread for each
// default box finds its best ground truth and lets the former override it, in order. Overlaps are computed twice, each is
// a dozen operations; the matrix would be N x 8,732 floats an image, written and read.
#include "block.h"
#include "boxes.h"

__global__ void best_defaults(const float4* boxes, const i64* labels, const float4* defaults, int* best, int n_boxes,
                              int n_defaults) {
    i64 box = static_cast<i64>(blockIdx.y) * n_boxes + blockIdx.x;
    Box truth = to_box(boxes[box]);
    u64 mine = 0;
    for (int d = threadIdx.x; d < n_defaults; d += BLOCK)
        mine = Largest()(mine, make_key(overlap(truth, to_box(defaults[d])), d));
    mine = block_reduce(mine, Largest());
    if (threadIdx.x == 0) best[box] = is_real(truth, labels[box]) ? static_cast<int>(key_index(mine)) : -1;
}

__global__ void assign_defaults(const float4* boxes, const i64* labels, const float4* defaults, const float4* defaults_xywh,
                                const int* best, float* offsets, i64* out_labels, int n_boxes, int n_defaults,
                                float criteria, float epsilon) {
    int d = blockIdx.x * BLOCK + threadIdx.x;
    if (d >= n_defaults) return;
    i64 first = static_cast<i64>(blockIdx.y) * n_boxes;
    Box anchor = to_box(defaults[d]);
    float most = -1;
    int matched = -1, claimed = -1;
    for (int n = 0; n < n_boxes; ++n) {
        if (best[first + n] < 0) continue;
        float iou = overlap(to_box(boxes[first + n]), anchor);
        if (iou > most) {  // ties: the lowest ground truth
            most = iou;
            matched = n;
        }
        if (best[first + n] == d) claimed = n;  // of several with one best default the last wins
    }
    bool positive = claimed >= 0 || most > criteria;
    if (claimed >= 0) matched = claimed;
    float offset[4] = {};
    if (positive) write_offsets(to_box(boxes[first + matched]), defaults_xywh[d], epsilon, offset);
    out_labels[static_cast<i64>(blockIdx.y) * n_defaults + d] = positive ? labels[first + matched] : 0;
    for (int k = 0; k < 4; ++k) offsets[(static_cast<i64>(blockIdx.y) * 4 + k) * n_defaults + d] = offset[k];
}

// boxes (B, N, 4) float32 ltrb, labels (B, N) int64, defaults (D, 4) float32 in both forms; best (B, N) int32 is workspace.
// Writes offsets (B, 4, D) float32 and out_labels (B, D) int64. 0 or the runtime's error code.
extern "C" int ssd_encode(const float* boxes, const i64* labels, const float* defaults, const float* defaults_xywh,
                          int* best, float* offsets, i64* out_labels, int batch, int n_boxes, int n_defaults,
                          float criteria, float epsilon, void* stream) {
    const float4 *box = reinterpret_cast<const float4*>(boxes), *ltrb = reinterpret_cast<const float4*>(defaults);
    const float4* xywh = reinterpret_cast<const float4*>(defaults_xywh);
    int error = 0;
    if (n_boxes > 0) error = LAUNCH(best_defaults, n_boxes, batch, stream, box, labels, ltrb, best, n_boxes, n_defaults);
    if (error != 0) return error;
    return LAUNCH(assign_defaults, blocks_for(n_defaults), batch, stream, box, labels, ltrb, xywh, best, offsets,
                  out_labels, n_boxes, n_defaults, criteria, epsilon);
}
