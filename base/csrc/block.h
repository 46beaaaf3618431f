// What the threads of a block do together: sum, scan, largest key, the k largest of many keys, sort.
// Every function is called by all threads of the block, and calls may follow one another without a barrier between.
#pragma once

#include "numbers.h"

__device__ inline u32 shuffle_down(u32 value, int delta, u32) { return shuffle_down(value, delta); }
__device__ inline float shuffle_down(float value, int delta, float) {
    return from_bits(shuffle_down(to_bits(value), delta));
}
__device__ inline u64 shuffle_down(u64 value, int delta, u64) {
    u64 high = shuffle_down(static_cast<u32>(value >> 32), delta), low = shuffle_down(static_cast<u32>(value), delta);
    return high << 32 | low;
}

struct Sum {
    template <class T>
    __device__ T operator()(T a, T b) const {
        return a + b;
    }
};
struct Largest {
    template <class T>
    __device__ T operator()(T a, T b) const {
        return a > b ? a : b;
    }
};

// Combines one value of each thread; all threads get the result. The order is fixed: the same bits in every run.
template <class T, class Combine>
__device__ T block_reduce(T value, Combine combine) {
    __shared__ T partial[BLOCK / WARP];
    for (int delta = WARP / 2; delta > 0; delta /= 2) value = combine(value, shuffle_down(value, delta, T()));
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = value;
    __syncthreads();
    T result = partial[0];
    for (int warp = 1; warp < BLOCK / WARP; ++warp) result = combine(result, partial[warp]);
    __syncthreads();
    return result;
}

// Sum of the values of this thread and of all threads after it.
__device__ inline u32 block_suffix_sum(u32 value) {
    __shared__ u32 totals[BLOCK / WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int delta = 1; delta < WARP; delta *= 2) {
        u32 other = shuffle_down(value, delta);
        if (lane + delta < WARP) value += other;
    }
    if (lane == 0) totals[warp] = value;
    __syncthreads();
    for (int later = warp + 1; later < BLOCK / WARP; ++later) value += totals[later];
    __syncthreads();
    return value;
}

// The least of the k largest of key(0..n-1). Needs 1 <= k < number of keys that are not 0; these must all differ.
//
// Radix select: eight bits a pass from the top. A pass counts the digits of the keys that begin with what is known, and
// the digit is the one at which the count from above reaches k. It ends when all keys with the prefix are wanted:
// scores spread over many bit patterns need about four passes of the eight.
template <class Key>
__device__ u64 select_largest(Key key, int n, u32 k) {
    static_assert(BLOCK == 256, "one thread a digit");
    __shared__ u32 counts[BLOCK], digit, digit_count, digit_rank;
    u64 prefix = 0;
    for (int shift = 56;; shift -= 8) {
        counts[threadIdx.x] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += BLOCK) {
            u64 mine = key(i);
            bool begins = shift == 56 || mine >> (shift + 8) == prefix;
            if (mine != 0 && begins) atomicAdd(&counts[mine >> shift & 255], 1u);
        }
        __syncthreads();
        u32 count = counts[threadIdx.x], from_above = block_suffix_sum(count);
        if (from_above >= k && from_above - count < k) {
            digit = threadIdx.x;
            digit_count = count;
            digit_rank = k - (from_above - count);
        }
        __syncthreads();
        prefix = prefix << 8 | digit;
        k = digit_rank;
        if (digit_count == k) return prefix << shift;  // `digit` is written again two barriers from here
    }
}

// The least key to take so that the k largest of key(0..n-1) are taken: 1 (every key but 0) when there are no more than k.
template <class Key>
__device__ u64 threshold_of_largest(Key key, int n, u32 k) {
    u32 count = 0;
    for (int i = threadIdx.x; i < n; i += BLOCK) count += key(i) != 0;
    if (block_reduce(count, Sum()) <= k) return 1;
    return k == 0 ? ~0ull : select_largest(key, n, k);
}

// Writes the k largest of key(0..n-1) to shared memory `sorted`, largest first, and returns how many there are.
// `sorted` holds the next power of two of k. Bitonic sort of the padded list.
template <class Key>
__device__ int take_largest(Key key, int n, u32 k, u64* sorted) {
    __shared__ u32 taken;
    u64 threshold = threshold_of_largest(key, n, k);
    if (threadIdx.x == 0) taken = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += BLOCK) {
        u64 mine = key(i);
        if (mine >= threshold) sorted[atomicAdd(&taken, 1u)] = mine;
    }
    __syncthreads();
    int count = static_cast<int>(taken), size = 1;
    while (size < count) size *= 2;
    for (int i = count + threadIdx.x; i < size; i += BLOCK) sorted[i] = 0;
    __syncthreads();
    for (int width = 2; width <= size; width *= 2)
        for (int step = width / 2; step > 0; step /= 2) {
            for (int i = threadIdx.x; i < size; i += BLOCK) {
                int partner = i ^ step;
                if (partner > i) {
                    u64 a = sorted[i], b = sorted[partner];
                    if ((a < b) == ((i & width) == 0)) {
                        sorted[i] = b;
                        sorted[partner] = a;
                    }
                }
            }
            __syncthreads();
        }
    return count;
}
