// Every access to memory of a host build, looked at: what a comparison of results cannot see.
//
// The compiler's instrumentation for its thread sanitizer (-fsanitize=thread) calls a function before each load and store.
// The sanitizer's own library is not linked; the functions stand here. It would need real threads, and would have to be in
// the process before Python is; and it knows neither blocks nor what is shared memory. Here barriers are known exactly, so
// the order in which threads happen to run does not matter: of all accesses that a launch makes, each pair without a barrier
// between is found, in every run alike. A launch stops with BAD_ACCESS before
//   - a race: two threads of a block access one element between the same two barriers, at least one of them writes, and not
//     both atomically; or two blocks of a launch do so, whatever lies between;
//   - an access outside of every tensor that the call was given (ssd_host_tensors), or to another thread's stack;
//   - a read of shared memory that no thread of the block has written.
// Shared memory is the writable part of this library, without the shim's own state.
#pragma once

#include <link.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#define NOT_CHECKED __attribute__((no_sanitize("thread"), visibility("hidden")))

#pragma GCC visibility push(hidden)
namespace shadow {

using host::world;

constexpr unsigned SEVERAL = BLOCK;  // in place of a thread's number

// Who touched an element last, and in which interval (World::interval); all 0 is never.
struct Cell {
    unsigned written, writer, read, reader;
    unsigned first_read;  // the first of this launch
    bool atomically;      // how it was written
};

struct Region {
    uintptr_t first = 0, end = 0;
    size_t element_bytes = 1;
    Cell* cells = nullptr;  // one an element
};
constexpr int MOST_TENSORS = 64;
inline Region tensors[MOST_TENSORS];
inline int n_tensors = 0;
inline Region shared, image;
inline bool busy = false;

NOT_CHECKED inline bool is_in(const void* memory, size_t bytes, uintptr_t at) {
    return at - reinterpret_cast<uintptr_t>(memory) < bytes;
}

// What is wrong with an access to one element, in words, or null. Notes the access otherwise.
NOT_CHECKED inline const char* judge(Cell& cell, bool in_shared, bool writes) {
    unsigned me = world.running, now = world.interval;
    auto by_another = [=](unsigned when, unsigned who) __attribute__((no_sanitize("thread"))) {
        bool other_thread = when == now && who != me;
        return other_thread || (!in_shared && when >= world.of_launch && when < world.of_block);
    };
    if (in_shared && !writes && cell.written < world.of_block) return "that no thread of its block has written";
    if (by_another(cell.written, cell.writer) && !(world.atomic && cell.atomically))
        return "that another thread wrote, with no barrier between: a race";
    bool read = by_another(cell.read, cell.reader) || by_another(cell.first_read, me);
    if (writes && read) return "that another thread read, with no barrier between: a race";
    if (writes) {
        cell.writer = cell.written == now && cell.writer != me ? SEVERAL : me;
        cell.written = now;
        cell.atomically = world.atomic;
    } else if (!world.atomic) {  // the write that follows says it all
        if (cell.first_read < world.of_launch) cell.first_read = now;
        cell.reader = cell.read == now && cell.reader != me ? SEVERAL : me;
        cell.read = now;
    }
    return nullptr;
}

// Ends the launch, with its reason in World::text. region: null outside of all.
NOT_CHECKED inline void stop(const Region* region, size_t element, const char* verb, const char* problem) {
    int length = snprintf(world.text, sizeof world.text, "kernel %s, thread %d of block (%d, %d) %s ", world.kernel,
                          world.running, world.block_index.x, world.block_index.y, verb);
    char *end = world.text + length, place[64] = "memory";
    if (region == &shared) snprintf(place, sizeof place, "shared memory");
    else if (region) snprintf(place, sizeof place, "element %zu of tensor %zu of the call", element, region - tensors + 1);
    snprintf(end, sizeof world.text - length, "%s %s", place, problem);
    busy = false;
    host::wait(host::STOPPED);
}

// Whether memory is a thread's own: its stack, the kernel's arguments, and what the shim keeps.
NOT_CHECKED inline bool is_private(uintptr_t at) {
    return is_in(world.fibers[world.running].stack.get(), host::STACK_BYTES, at) || is_in(&world, sizeof world, at) ||
           is_in(world.closure, world.closure_bytes, at);
}

NOT_CHECKED inline void look_at(uintptr_t at, size_t bytes, bool writes) {
    const char* verb = writes ? "writes" : "reads";
    Region* region = at >= shared.first && at < shared.end ? &shared : nullptr;
    for (int i = 0; i < n_tensors; ++i)
        if (at >= tensors[i].first && at + bytes <= tensors[i].end) region = &tensors[i];
    if (!region) {
        if (at >= image.first && at < image.end) return;  // a constant
        return stop(nullptr, 0, verb, "outside of every tensor of the call");
    }
    size_t first = (at - region->first) / region->element_bytes, last = (at + bytes - 1 - region->first) / region->element_bytes;
    for (size_t i = first; i <= last; ++i)
        if (const char* problem = judge(region->cells[i], region == &shared, writes)) stop(region, i, verb, problem);
}

// What the compiler's calls come to. What that is made of may be instrumented as well: `busy` passes it by.
NOT_CHECKED inline void touch(void* address, size_t bytes, bool writes) {
    if (!world.in_fiber || busy) return;
    busy = true;
    uintptr_t at = reinterpret_cast<uintptr_t>(address);
    if (!is_private(at)) look_at(at, bytes, writes);
    busy = false;
}

// Notes where this library's memory lies, if `module` is this library.
inline int find_image(dl_phdr_info* module, size_t, void*) {
    Region all, writable;
    for (int i = 0; i < module->dlpi_phnum; ++i) {
        const auto& part = module->dlpi_phdr[i];
        if (part.p_type != PT_LOAD) continue;
        uintptr_t first = module->dlpi_addr + part.p_vaddr, end = first + part.p_memsz;
        if (all.first == 0) all.first = first;
        all.end = end;
        if (is_in(reinterpret_cast<void*>(first), end - first, reinterpret_cast<uintptr_t>(&world)))
            writable.first = first, writable.end = end;
    }
    if (writable.first == 0) return 0;
    image = all;
    shared = writable;
    shared.cells = static_cast<Cell*>(calloc(shared.end - shared.first, sizeof(Cell)));
    return 1;
}

}  // namespace shadow
#pragma GCC visibility pop

// The tensors that kernels may touch from now on: addresses, bytes, and bytes of an element. Whether they are few enough.
extern "C" bool ssd_host_tensors(int count, void* const* first, const size_t* bytes, const size_t* element_bytes) {
    using namespace shadow;
    if (image.first == 0) dl_iterate_phdr(find_image, nullptr);
    while (n_tensors > 0) free(tensors[--n_tensors].cells);
    for (; n_tensors < count && n_tensors < MOST_TENSORS; ++n_tensors) {
        Region& tensor = tensors[n_tensors];
        tensor.first = reinterpret_cast<uintptr_t>(first[n_tensors]);
        tensor.end = tensor.first + bytes[n_tensors];
        tensor.element_bytes = element_bytes[n_tensors];
        tensor.cells = static_cast<Cell*>(calloc(bytes[n_tensors] / tensor.element_bytes + 1, sizeof(Cell)));
    }
    return n_tensors == count;
}

// What the compiler calls.
extern "C" {
#define SSD_ACCESS(bytes)                                                                                              \
    NOT_CHECKED void __tsan_read##bytes(void* at) { shadow::touch(at, bytes, false); }                                \
    NOT_CHECKED void __tsan_write##bytes(void* at) { shadow::touch(at, bytes, true); }                                \
    NOT_CHECKED void __tsan_unaligned_read##bytes(void* at) { shadow::touch(at, bytes, false); }                      \
    NOT_CHECKED void __tsan_unaligned_write##bytes(void* at) { shadow::touch(at, bytes, true); }
SSD_ACCESS(1)
SSD_ACCESS(2)
SSD_ACCESS(4)
SSD_ACCESS(8)
SSD_ACCESS(16)
NOT_CHECKED void __tsan_read_range(void* at, unsigned long bytes) { shadow::touch(at, bytes, false); }
NOT_CHECKED void __tsan_write_range(void* at, unsigned long bytes) { shadow::touch(at, bytes, true); }
NOT_CHECKED void __tsan_vptr_update(void**, void*) {}
NOT_CHECKED void __tsan_func_entry(void*) {}
NOT_CHECKED void __tsan_func_exit() {}
NOT_CHECKED void __tsan_init() {}
}
