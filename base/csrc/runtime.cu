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

extern "C" const char* ssd_error_text(int error) {
    return error == host::DIVERGED ? "threads of a block wait at different barriers" : "unknown error";
}

// Threads of a block run in ascending (0) or descending (1) order between barriers; results must not differ.
extern "C" void ssd_host_order(int descending) { host::descending = descending != 0; }

#endif
