// The serial launch shim: CUDA's execution model on one CPU core, so that tests execute kernels where no device is.
//
// Every thread of a block is a fiber with a stack of its own. A fiber runs until it meets a shuffle or a barrier, alone: it
// is as far ahead of its warp as a lane can be. ssd_host_order chooses which block, warp and lane goes next. What this shows:
//   - a barrier or shuffle that not all threads reach ends the launch with error DIVERGED (on hardware: a hang);
//   - a result that depends on the order of blocks, warps or lanes: it differs between two orders;
//   - a wrong warp size: WARP lanes exchange values and no others.
// A build with SSD_CHECKED looks at every access as well: see shadow.h.
// Shared memory is static memory, one block at a time; a mutex keeps launches of two Python threads apart.
// Fibers are created by makecontext and switched by _setjmp/_longjmp, which unlike swapcontext makes no system call.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

// Hidden, with their static variables: else libraries of 32 and of 64 lanes in one process share their shared memory.
#define __global__ __attribute__((visibility("hidden")))
#define __device__ __attribute__((visibility("hidden")))
#define __shared__ static
#define __restrict__ __restrict

using Stream = void*;

struct alignas(16) float4 {
    float x, y, z, w;
};

#pragma GCC visibility push(hidden)
namespace host {

struct Index {
    int x = 0, y = 0;
};

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE, STOPPED };
enum Error { DIVERGED = 1, BAD_ACCESS = 2 };
enum Order { ASCENDING, DESCENDING, ROUND_ROBIN, RANDOM };  // RANDOM and above are seeds
constexpr int STACK_BYTES = 128 * 1024;
constexpr int WARPS = BLOCK / WARP;

struct Fiber {
    State state = DONE;
    bool started = false;
    int shuffles = 0;        // how many this thread has been through: picks the slot, see shuffle_down
    unsigned slots[2] = {};  // what it offers to its warp
    jmp_buf resume;
    ucontext_t entry;
    std::unique_ptr<char[]> stack;
    void* fake_stack = nullptr;
};

// All that the shim keeps, in one place: shadow.h tells it from the kernels' shared memory.
struct World {
    Fiber fibers[BLOCK];
    jmp_buf scheduler;
    int running = 0;
    bool in_fiber = false;
    Index thread_index, block_index;
    void (*body)(const void*) = nullptr;  // the launch's kernel with its arguments, and where these are
    const void* closure = nullptr;
    size_t closure_bytes = 0;
    const char* kernel = "";
    int order = ASCENDING;
    unsigned long long random = 0;
    bool atomic = false;      // the access that follows is part of an atomic operation
    unsigned interval = 0;    // number of the stretch between two barriers of a block; never used twice
    unsigned of_launch = 0;   // the launch's first, and the block's first
    unsigned of_block = 0;
    char text[512] = "";      // what was wrong with an access
#ifdef __SANITIZE_ADDRESS__
    const void* scheduler_stack = nullptr;
    size_t scheduler_bytes = 0;
    void* scheduler_fake = nullptr;
#endif
};
inline World world;
inline std::mutex one_launch;

// The address sanitizer is told of every change of stack.
#ifdef __SANITIZE_ADDRESS__
inline void leave_scheduler(Fiber& to) {
    __sanitizer_start_switch_fiber(&world.scheduler_fake, to.stack.get(), STACK_BYTES);
}
inline void enter_scheduler() { __sanitizer_finish_switch_fiber(world.scheduler_fake, nullptr, nullptr); }
inline void leave_fiber(Fiber& from) {
    __sanitizer_start_switch_fiber(&from.fake_stack, world.scheduler_stack, world.scheduler_bytes);
}
inline void enter_fiber(Fiber& to) {
    __sanitizer_finish_switch_fiber(to.fake_stack, &world.scheduler_stack, &world.scheduler_bytes);
}
#else
inline void leave_scheduler(Fiber&) {}
inline void enter_scheduler() {}
inline void leave_fiber(Fiber&) {}
inline void enter_fiber(Fiber&) {}
#endif

// --- fibers ----------------------------------------------------------------------------------------------------------

__attribute__((noinline)) inline void wait(State state) {
    Fiber& self = world.fibers[world.running];
    self.state = state;
    leave_fiber(self);
    if (_setjmp(self.resume) == 0) _longjmp(world.scheduler, 1);
    enter_fiber(world.fibers[world.running]);
}

inline void fiber_main() {
    enter_fiber(world.fibers[world.running]);
    for (;;) {
        world.body(world.closure);
        wait(DONE);
    }
}

// Runs thread `index` until it waits.
__attribute__((noinline)) inline void run(int index) {
    Fiber& fiber = world.fibers[index];
    world.running = index;
    world.thread_index.x = index;
    leave_scheduler(fiber);
    if (_setjmp(world.scheduler) == 0) {
        world.in_fiber = true;
        if (fiber.started) _longjmp(fiber.resume, 1);
        fiber.started = true;
        setcontext(&fiber.entry);
    }
    world.in_fiber = false;
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

// --- who goes next ---------------------------------------------------------------------------------------------------

// A number below n, from the seed on.
inline int draw(int n) {
    world.random = world.random * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<int>((world.random >> 33) % static_cast<unsigned>(n));
}

// 0..n-1 in the order in which blocks, or lanes of a warp, have their turn.
inline void put_in_order(std::vector<int>& places) {
    std::iota(places.begin(), places.end(), 0);
    if (world.order == DESCENDING) std::reverse(places.begin(), places.end());
    for (int i = static_cast<int>(places.size()) - 1; world.order >= RANDOM && i > 0; --i)
        std::swap(places[i], places[draw(i + 1)]);
}

// Which of `count` warps that can go on does so; `turn` counts the turns.
inline int next_warp(int count, int turn) {
    if (world.order == DESCENDING) return count - 1;
    if (world.order == ROUND_ROBIN) return turn % count;
    return world.order >= RANDOM ? draw(count) : 0;
}

// Lets threads [first, first + count) go on when all of them wait for the same thing; whether they did.
inline bool release(int first, int count, State state) {
    for (int i = first; i < first + count; ++i)
        if (world.fibers[i].state != state) return false;
    for (int i = first; i < first + count; ++i) world.fibers[i].state = READY;
    return true;
}

inline bool stopped() { return world.text[0] != 0; }

// Runs all threads until each has ended or waits for a barrier. Shuffles need only the warp: after one, another warp may
// have its turn.
inline void run_to_barrier(std::vector<int>& warps, std::vector<int>& lanes) {
    warps.resize(WARPS);
    std::iota(warps.begin(), warps.end(), 0);
    for (int turn = 0; !warps.empty() && !stopped(); ++turn) {
        int place = next_warp(static_cast<int>(warps.size()), turn), first = warps[place] * WARP;
        put_in_order(lanes);
        for (int lane : lanes)
            if (world.fibers[first + lane].state == READY && !stopped()) run(first + lane);
        if (!release(first, WARP, AT_SHUFFLE)) warps.erase(warps.begin() + place);
    }
}

// One block to its end: 0, or what is wrong: its threads wait for each other in vain, or one made a bad access.
inline int run_block() {
    std::vector<int> warps, lanes(WARP);
    world.of_block = ++world.interval;
    for (Fiber& fiber : world.fibers) prepare(fiber);
    do {
        run_to_barrier(warps, lanes);
        ++world.interval;
    } while (release(0, BLOCK, AT_BARRIER));
    if (!stopped() && release(0, BLOCK, DONE)) return 0;
    for (Fiber& fiber : world.fibers) fiber.started = false;  // abandoned where they stand; the next launch starts anew
    return stopped() ? BAD_ACCESS : DIVERGED;
}

template <class Kernel>
int launch(const char* name, int grid_x, int grid_y, const Kernel& kernel) {
    std::lock_guard<std::mutex> guard(one_launch);
    world.body = [](const void* closure) { (*static_cast<const Kernel*>(closure))(); };
    world.closure = &kernel;
    world.closure_bytes = sizeof kernel;
    world.kernel = name;
    world.text[0] = 0;
    world.of_launch = world.interval + 1;
    std::vector<int> blocks(static_cast<size_t>(grid_x) * grid_y);
    put_in_order(blocks);
    for (int block : blocks) {
        world.block_index.x = block % grid_x;
        world.block_index.y = block / grid_x;
        if (int error = run_block()) return error;
    }
    return 0;
}

}  // namespace host
#pragma GCC visibility pop

#define threadIdx host::world.thread_index
#define blockIdx host::world.block_index
#define LAUNCH(kernel, grid_x, grid_y, stream, ...) \
    host::launch(#kernel, grid_x, grid_y, [=] { (void)(stream), kernel(__VA_ARGS__); })

__device__ inline void __syncthreads() { host::wait(host::AT_BARRIER); }

// Two slots in turn: a thread that runs ahead to its next shuffle does not overwrite what others have yet to read.
__device__ inline unsigned shuffle_down(unsigned value, int delta) {
    host::Fiber* fibers = host::world.fibers;
    int self = host::world.running, slot = fibers[self].shuffles++ & 1;
    fibers[self].slots[slot] = value;
    host::wait(host::AT_SHUFFLE);
    int from = self % WARP + delta < WARP ? self + delta : self;
    return fibers[from].slots[slot];
}

#ifdef SSD_CHECKED
extern "C" __device__ void __tsan_read4(void*);
extern "C" __device__ void __tsan_write4(void*);
#else
__device__ inline void __tsan_read4(void*) {}
__device__ inline void __tsan_write4(void*) {}
#endif

// The accesses are announced here and not by the compiler, so that they stay between the two marks.
__device__ __attribute__((noinline, no_sanitize("thread"))) inline unsigned atomicAdd(unsigned* address, unsigned value) {
    host::world.atomic = true;
    __tsan_read4(address);
    __tsan_write4(address);
    host::world.atomic = false;
    unsigned old = *address;
    *address = old + value;
    return old;
}
