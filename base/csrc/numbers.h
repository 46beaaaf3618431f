// Numbers as bits: single precision in a radix-sortable form, and bf16/fp16 converted by integer arithmetic.
#pragma once

#include "dialect.h"

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i64 = long long;

__device__ inline u32 to_bits(float value) {
    u32 bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

__device__ inline float from_bits(u32 bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// A key that sorts by `value` (not negative), largest first, and among equals by `index`, lowest first. Keys of different
// indices differ, so "the k largest" is one set on every device. No key is 0 for value > 0 or index < 2**32 - 1.
__device__ inline u64 make_key(float value, u32 index) {
    return static_cast<u64>(to_bits(value) & 0x7fffffffu) << 32 | static_cast<u32>(~index);
}
__device__ inline float key_value(u64 key) { return from_bits(static_cast<u32>(key >> 32)); }
__device__ inline u32 key_index(u64 key) { return ~static_cast<u32>(key); }

// Element types of tensors. `load` and `store` are the only access to them; arithmetic is single precision.
struct Bf16 {
    u16 bits;
};
struct Fp16 {
    u16 bits;
};

__device__ inline float load(float value) { return value; }

__device__ inline float load(Bf16 value) { return from_bits(static_cast<u32>(value.bits) << 16); }

__device__ inline float load(Fp16 value) {
    u32 sign = static_cast<u32>(value.bits & 0x8000) << 16, exponent = value.bits >> 10 & 31, mantissa = value.bits & 1023;
    if (exponent == 0) {  // zero and subnormals: multiples of 2**-24
        float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
        return sign ? -magnitude : magnitude;
    }
    if (exponent == 31) return from_bits(sign | 0x7f800000u | mantissa << 13);  // infinity, not a number
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

__device__ inline void store(float& to, float value) { to = value; }

// Round to nearest, ties to even, as IEEE 754 and torch do.
__device__ inline void store(Bf16& to, float value) {
    u32 bits = to_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        to.bits = static_cast<u16>(bits >> 16 | 0x40);  // stays not a number
    else
        to.bits = static_cast<u16>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

__device__ inline void store(Fp16& to, float value) {
    u32 bits = to_bits(value), sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        bits = 0x7e00u;  // not a number
    else if (bits >= 0x477ff000u)
        bits = 0x7c00u;  // 65520 and more round to infinity
    else if (bits < 0x38800000u)
        bits = to_bits(from_bits(bits) + 0.5f) - 0x3f000000u;  // below 2**-14: 0.5's last place is 2**-24, as fp16's here
    else
        bits = (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1)) >> 13;
    to.bits = static_cast<u16>(sign | bits);
}

// Calls `call(T())` with the element type a tensor has: 0 float, 1 bf16, 2 fp16.
template <class Call>
int with_type(int dtype, Call call) {
    if (dtype == 0) return call(float());
    return dtype == 1 ? call(Bf16()) : call(Fp16());
}

inline int blocks_for(i64 threads) { return static_cast<int>((threads + BLOCK - 1) / BLOCK); }
