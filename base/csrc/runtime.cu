// What the loader asks of a built library before it trusts it, and the text of an error code.
#include "dialect.h"

extern "C" int ssd_warp() { return WARP; }

#if defined(__CUDACC__)

// Lanes of a warp on `device`, or minus the runtime's error code.
extern "C" int ssd_device_warp(int device) {
    int lanes = 0;
    cudaError_t error = cudaDeviceGetAttribute(&lanes, cudaDevAttrWarpSize, device);
    return error == cudaSuccess ? lanes : -static_cast<int>(error);
}

extern "C" const char* ssd_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

#else

extern "C" int ssd_device_warp(int) { return WARP; }

#ifdef SSD_CHECKED
#include "shadow.h"
#endif

extern "C" const char* ssd_error_text(int error) {
    if (error == host::BAD_ACCESS) return host::world.text;
    return error == host::DIVERGED ? "threads of a block wait at different barriers" : "unknown error";
}

// Who has the next turn wherever a device promises nothing: blocks, warps, lanes. 0 ascending, 1 descending, 2 warps by
// turns, 3 and more: drawn, every launch anew, from this seed. Results must not differ.
extern "C" void ssd_host_order(int order) {
    host::world.order = order;
    host::world.random = static_cast<unsigned>(order);
}

#endif
