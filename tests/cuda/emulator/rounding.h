// TF32: what tensor cores keep of an f32.
#pragma once
#include "thread.h"

// To the nearest value with 10 bits of mantissa, even where two are as near.
inline float to_tf32(float value) {
    if (!std::isfinite(value)) return value;
    uint32_t all = bits<uint32_t>(value);
    return bits<float>((all + 0xfff + (all >> 13 & 1)) & ~0x1fffu);
}
