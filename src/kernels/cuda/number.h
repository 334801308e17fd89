// Storage types f32, f16 and bf16; arithmetic is f32. Values move in 16-byte accesses where addresses allow.
#pragma once

#include "grid.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace fastflow {

#ifdef __CUDACC__

typedef __half f16;
typedef __nv_bfloat16 bf16;
FASTFLOW_FN float widen(float value) { return value; }
FASTFLOW_FN float widen(f16 value) { return __half2float(value); }
FASTFLOW_FN float widen(bf16 value) { return __bfloat162float(value); }
FASTFLOW_FN void narrow(float value, float& to) { to = value; }
FASTFLOW_FN void narrow(float value, f16& to) { to = __float2half_rn(value); }
FASTFLOW_FN void narrow(float value, bf16& to) { to = __float2bfloat16_rn(value); }

#else

struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;
};

FASTFLOW_FN uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

FASTFLOW_FN float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

FASTFLOW_FN float widen(float value) { return value; }
FASTFLOW_FN float widen(bf16 value) { return bits_float(static_cast<uint32_t>(value.bits) << 16); }

FASTFLOW_FN float widen(f16 value) {
    const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
    const float sign = value.bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexpf(static_cast<float>(fraction), -24);
    return sign * ldexpf(static_cast<float>(1024 + fraction), exponent - 25);
}

FASTFLOW_FN void narrow(float value, float& to) { to = value; }

// Round to nearest, ties to even; NaN stays one.
FASTFLOW_FN void narrow(float value, bf16& to) {
    const uint32_t bits = float_bits(value);
    const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
    to.bits = static_cast<uint16_t>((value != value ? bits | 0x400000 : rounded) >> 16);
}

FASTFLOW_FN void narrow(float value, f16& to) {
    const uint16_t sign = static_cast<uint16_t>(float_bits(value) >> 16 & 0x8000);
    const float size = fabsf(value);
    int exponent;
    frexpf(size, &exponent);
    if (value != value) {
        to.bits = sign | 0x7e00;
    } else if (size >= 65520.0f) {
        to.bits = sign | 0x7c00;
    } else if (size < 6.103515625e-5f) {
        to.bits = static_cast<uint16_t>(sign | static_cast<int>(rintf(ldexpf(size, 24))));
    } else {
        // The fraction's carry moves into the exponent by itself.
        const int fraction = static_cast<int>(rintf(ldexpf(size, 11 - exponent))) - 1024;
        to.bits = static_cast<uint16_t>(sign | (((exponent + 14) << 10) + fraction));
    }
}

#endif

// How many values one 16-byte access moves.
template <class T>
constexpr int WIDE = 16 / static_cast<int>(sizeof(T));

struct alignas(16) Raw {
    uint32_t words[4];
};

// Whether 16-byte accesses reach every WIDE<T>-th value behind `pointer`, if strides are multiples too.
template <class T>
FASTFLOW_FN bool aligned(const T* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// `count` values as f32, zeros behind them; `wide` says that the address is aligned.
template <class T>
FASTFLOW_FN void load(float (&to)[WIDE<T>], const T* from, int count, bool wide) {
    T values[WIDE<T>];
    if (wide && count == WIDE<T>) {
        const Raw raw = *reinterpret_cast<const Raw*>(from);
        memcpy(values, &raw, sizeof raw);
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int i = 0; i < WIDE<T>; ++i) to[i] = widen(values[i]);
    } else {
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int i = 0; i < WIDE<T>; ++i) to[i] = i < count ? widen(from[i]) : 0.0f;
    }
}

template <class T>
FASTFLOW_FN void store(T* to, const float (&from)[WIDE<T>], int count, bool wide) {
    T values[WIDE<T>];
    for (int i = 0; i < WIDE<T>; ++i) narrow(from[i], values[i]);
    if (wide && count == WIDE<T>) {
        Raw raw;
        memcpy(&raw, values, sizeof raw);
        *reinterpret_cast<Raw*>(to) = raw;
    } else {
#ifdef __CUDACC__
#pragma unroll
#endif
        for (int i = 0; i < WIDE<T>; ++i)
            if (i < count) to[i] = values[i];
    }
}

}  // namespace fastflow
