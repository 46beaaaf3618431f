// Geometry of boxes, operation for operation as ssd/boxes.py computes it, so that ties fall alike. Built without fused
// multiply-add for the same reason.
#pragma once

#include "numbers.h"

struct Box {
    float left, top, right, bottom;
};

__device__ inline Box to_box(float4 ltrb) { return {ltrb.x, ltrb.y, ltrb.z, ltrb.w}; }

// 0 where all four sides are finite, else not a number.
__device__ inline float zero_if_finite(Box box) {
    return (box.left - box.left) + (box.top - box.top) + (box.right - box.right) + (box.bottom - box.bottom);
}

// Whether a ground truth counts: a class, four finite sides, and an area. The rest of a row is padding.
__device__ inline bool is_real(Box box, i64 label) {
    return label > 0 && zero_if_finite(box) == 0 && box.right > box.left && box.bottom > box.top;
}

// Intersection over union; 0 where there is nothing to divide by or a coordinate is not a number.
__device__ inline float overlap(Box a, Box b) {
    float width = fmaxf(fminf(a.right, b.right) - fmaxf(a.left, b.left), 0.0f);
    float height = fmaxf(fminf(a.bottom, b.bottom) - fmaxf(a.top, b.top), 0.0f);
    float both = width * height;
    float either = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top) - both;
    return either > 0 ? both / either : 0.0f;
}

// What the network regresses to turn the default box (x, y, w, h) into `truth`: 4 floats.
__device__ inline void write_offsets(Box truth, float4 anchor, float epsilon, float* offset) {
    float width = anchor.z + epsilon, height = anchor.w + epsilon;
    offset[0] = 10.0f * ((truth.left + truth.right) * 0.5f - anchor.x) / width;
    offset[1] = 10.0f * ((truth.top + truth.bottom) * 0.5f - anchor.y) / height;
    offset[2] = 5.0f * logf((truth.right - truth.left) / width + epsilon);
    offset[3] = 5.0f * logf((truth.bottom - truth.top) / height + epsilon);
}

// The box that regressed offsets name.
__device__ inline float4 decode(const float* offset, float4 anchor) {
    float x = offset[0] / 10.0f * anchor.z + anchor.x, y = offset[1] / 10.0f * anchor.w + anchor.y;
    float half_width = expf(offset[2] / 5.0f) * anchor.z * 0.5f, half_height = expf(offset[3] / 5.0f) * anchor.w * 0.5f;
    return {x - half_width, y - half_height, x + half_width, y + half_height};
}
