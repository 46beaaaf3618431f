// The serial launch shim: CUDA's execution model on one CPU core, so that tests execute kernels where no device is.
//
// Every thread of a block is a fiber with a stack of its own. A fiber runs until it meets a shuffle, then the next one of
// its warp; a warp runs until all its threads are at a barrier, then the next warp. What this shows:
//   - a barrier or shuffle that not all threads reach ends the launch with error DIVERGED (on hardware: a hang);
//   - a missing barrier: a warp runs as far ahead of the others as barriers let it, in ascending or, after
//     ssd_host_order(1), in descending order, and a result that depends on the order is a race;
//   - a wrong warp size: WARP lanes exchange values and no others.
// Shared memory is static memory, one block at a time; a mutex keeps launches of two Python threads apart.
// Fibers are created by makecontext and switched by _setjmp/_longjmp, which unlike swapcontext makes no system call.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __shared__ static
#define __restrict__ __restrict

using Stream = void*;

struct alignas(16) float4 {
    float x, y, z, w;
};

namespace host {

struct Index {
    int x = 0, y = 0;
};
inline Index thread_index, block_index;

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };
constexpr int DIVERGED = 1;
constexpr int STACK_BYTES = 128 * 1024;

struct Fiber {
    State state = DONE;
    bool started = false;
    int shuffles = 0;          // how many this thread has been through: picks the slot, see shuffle_down
    unsigned slots[2] = {};    // what it offers to its warp
    jmp_buf resume;
    ucontext_t entry;
    std::unique_ptr<char[]> stack;
    void* fake_stack = nullptr;
};

inline Fiber fibers[BLOCK];
inline jmp_buf scheduler;
inline ucontext_t scheduler_context;
inline int running = 0;
inline bool descending = false;
inline std::function<void()> body;
inline std::mutex one_launch;

// The address sanitizer is told of every change of stack.
#ifdef __SANITIZE_ADDRESS__
inline const void* scheduler_stack = nullptr;
inline size_t scheduler_bytes = 0;
inline void* scheduler_fake = nullptr;
inline void leave_scheduler(Fiber& to) {
    __sanitizer_start_switch_fiber(&scheduler_fake, to.stack.get(), STACK_BYTES);
}
inline void enter_scheduler() { __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr); }
inline void leave_fiber(Fiber& from) {
    __sanitizer_start_switch_fiber(&from.fake_stack, scheduler_stack, scheduler_bytes);
}
inline void enter_fiber(Fiber& to) {
    __sanitizer_finish_switch_fiber(to.fake_stack, &scheduler_stack, &scheduler_bytes);
}
#else
inline void leave_scheduler(Fiber&) {}
inline void enter_scheduler() {}
inline void leave_fiber(Fiber&) {}
inline void enter_fiber(Fiber&) {}
#endif

__attribute__((noinline)) inline void wait(State state) {
    Fiber& self = fibers[running];
    self.state = state;
    leave_fiber(self);
    if (_setjmp(self.resume) == 0) _longjmp(scheduler, 1);
    enter_fiber(fibers[running]);
}

inline void fiber_main() {
    enter_fiber(fibers[running]);
    for (;;) {
        body();
        wait(DONE);
    }
}

// Runs thread `index` until it waits.
__attribute__((noinline)) inline void run(int index) {
    Fiber& fiber = fibers[index];
    running = index;
    thread_index.x = index;
    leave_scheduler(fiber);
    if (_setjmp(scheduler) == 0) {
        if (fiber.started) _longjmp(fiber.resume, 1);
        fiber.started = true;
        setcontext(&fiber.entry);
    }
    enter_scheduler();
}

inline void prepare(Fiber& fiber) {
    if (!fiber.stack) fiber.stack.reset(new char[STACK_BYTES]);
    if (!fiber.started) {
        getcontext(&fiber.entry);
        fiber.entry.uc_stack.ss_sp = fiber.stack.get();
        fiber.entry.uc_stack.ss_size = STACK_BYTES;
        fiber.entry.uc_link = nullptr;
        fiber.fake_stack = nullptr;
        makecontext(&fiber.entry, fiber_main, 0);
    }
    fiber.state = READY;
    fiber.shuffles = 0;
}

// Lets threads [first, first + count) go on when all of them wait for the same thing; whether they did.
inline bool release(int first, int count, State state) {
    for (int i = first; i < first + count; ++i)
        if (fibers[i].state != state) return false;
    for (int i = first; i < first + count; ++i) fibers[i].state = READY;
    return true;
}

// Runs the threads [first, first + WARP) until each has ended or waits for other warps: shuffles need only the warp.
inline void run_warp(int first) {
    do {
        for (int i = 0; i < WARP; ++i) {
            int index = first + (descending ? WARP - 1 - i : i);
            if (fibers[index].state == READY) run(index);
        }
    } while (release(first, WARP, AT_SHUFFLE));
}

// One block to its end: 0, or DIVERGED when its threads wait for each other in vain.
inline int run_block() {
    for (Fiber& fiber : fibers) prepare(fiber);
    do {
        for (int i = 0; i < BLOCK; i += WARP) run_warp(descending ? BLOCK - WARP - i : i);
    } while (release(0, BLOCK, AT_BARRIER));
    if (release(0, BLOCK, DONE)) return 0;
    for (Fiber& fiber : fibers) fiber.started = false;  // abandoned where they stand; the next launch starts anew
    return DIVERGED;
}

inline int launch(int grid_x, int grid_y, std::function<void()> kernel) {
    std::lock_guard<std::mutex> guard(one_launch);
    body = std::move(kernel);
    int error = 0;
    for (block_index.y = 0; block_index.y < grid_y; ++block_index.y)
        for (block_index.x = 0; block_index.x < grid_x; ++block_index.x)
            if ((error = run_block()) != 0) return error;
    return error;
}

}  // namespace host

#define threadIdx host::thread_index
#define blockIdx host::block_index
#define LAUNCH(kernel, grid_x, grid_y, stream, ...) \
    host::launch(grid_x, grid_y, [=] { (void)(stream), kernel(__VA_ARGS__); })

inline void __syncthreads() { host::wait(host::AT_BARRIER); }

// Two slots in turn: a thread that runs ahead to its next shuffle does not overwrite what others have yet to read.
inline unsigned shuffle_down(unsigned value, int delta) {
    int self = host::running, slot = host::fibers[self].shuffles++ & 1;
    host::fibers[self].slots[slot] = value;
    host::wait(host::AT_SHUFFLE);
    int from = self % WARP + delta < WARP ? self + delta : self;
    return host::fibers[from].slots[slot];
}

inline unsigned atomicAdd(unsigned* address, unsigned value) {
    unsigned old = *address;
    *address += value;
    return old;
}
