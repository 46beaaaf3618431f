// What differs between the compilers that build these kernels, in one place: NVIDIA's nvcc, CoreX's clang++
// (`__ILUVATAR__`), and a plain C++ compiler, for which host.h runs every thread of a launch on the CPU.
//
// The build passes SSD_WARP, the lanes of a warp (64 on BI-V100, 32 on NVIDIA). Kernels use nothing beyond what all
// three have: barriers, one 32-bit shuffle, 32-bit atomics on shared memory, single-precision arithmetic. 16-bit floats
// are converted by integer arithmetic (numbers.h): CoreX's own bf16 conversion has been reported not to round to even.
#pragma once

#ifndef SSD_WARP
#error "SSD_WARP, the lanes of a warp, must be given by the build"
#endif
#if defined(__ILUVATAR__) && SSD_WARP != 64
#error "this compiler builds for hardware with 64 lanes a warp: SSD_WARP must be 64"
#endif

constexpr int WARP = SSD_WARP;
constexpr int BLOCK = 256;  // threads a block, everywhere; one thread a digit of the radix select (block.h)
static_assert(WARP > 0 && (WARP & (WARP - 1)) == 0 && BLOCK % WARP == 0, "a block holds whole warps");

#if defined(__CUDACC__)

#include <cuda_runtime.h>

using Stream = cudaStream_t;

// All lanes of the warp take part. Should a compiler for 64 lanes take a 32-bit mask, this is cut to all ones again.
__device__ inline unsigned shuffle_down(unsigned value, int delta) {
    return __shfl_down_sync(WARP == 64 ? ~0ull : 0xffffffffu, value, delta, WARP);
}

// Starts kernel(args...) on grid_x * grid_y blocks; the value is 0 or the runtime's error code.
#define LAUNCH(kernel, grid_x, grid_y, stream, ...) \
    (kernel<<<dim3(grid_x, grid_y), BLOCK, 0, static_cast<Stream>(stream)>>>(__VA_ARGS__), \
     static_cast<int>(cudaGetLastError()))

#else

#include "host.h"

#endif
