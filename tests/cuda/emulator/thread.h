// What translated kernels (translate.py) see of the emulated GPU, and the arithmetic of PTX that C++ lacks.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

// Why a thread stopped.
enum State { DONE, BARRIER, SHUFFLE, RUNNABLE };

struct Dim { uint32_t x, y, z; };

// What a thread gives to and takes from a shuffle, and which of the kernel's shuffles it is at.
struct Exchange { uint32_t value, lane_mask, clamp, members, place; };

// Bytes of a thread's registers and memory and of a block's static shared memory, and how many threads a block may have.
struct Shape { size_t registers, local, shared, most_threads; };

// Addresses from `start` up to `end`.
struct Range {
    uint64_t start, end;
    bool holds(uint64_t at, uint64_t size) const { return at >= start && at <= end && size <= end - at; }
};

// A thread's place, and its memory.
struct Thread {
    Dim tid, ntid, ctaid, nctaid;
    uint8_t* local;
    uint8_t* shared;
    // Where shared memory begins whose size the launch says, and how large all of it is.
    uint64_t dynamic, shared_size;
    // The allocation that was accessed last.
    Range last;
    // The allocation that holds these bytes, if any does.
    bool (*find)(uint64_t at, uint64_t size, Range& found);
    const char* kernel;

    [[noreturn]] void fail(const char* what) const {
        fprintf(stderr, "emulated GPU: %s: block %u, thread %u: %s\n", kernel, ctaid.x, tid.x, what);
        abort();
    }
    uint8_t* in_global(uint64_t at, uint64_t size) {
        if (at % size) fail("a misaligned access");
        bool known = last.holds(at, size);
        if (!known && !find(at, size, last)) fail("an access outside every allocation");
        return (uint8_t*)at;
    }
    uint8_t* in_shared(uint64_t offset, uint64_t size) const {
        if (offset % size) fail("a misaligned access of shared memory");
        if (size > shared_size || offset > shared_size - size) fail("an access behind the shared memory");
        return shared + offset;
    }
};

template <class To, class From> To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

template <class T> T shift_left(T value, uint32_t by) {
    return by >= 8 * sizeof(T) ? 0 : (T)((std::make_unsigned_t<T>)value << by);
}

template <class T> T shift_right(T value, uint32_t by) {
    if (by < 8 * sizeof(T)) return value >> by;
    return value < 0 ? (T)-1 : 0;
}

// A GPU divides by zero without a fault.
template <class T> T divide(T a, T b) { return b == 0 ? (T)-1 : a / b; }
template <class T> T remainder_of(T a, T b) { return b == 0 ? a : a % b; }

template <class T> T saturate(T value) { return std::isnan(value) ? 0 : std::min(std::max(value, (T)0), (T)1); }

inline float round_down(double exact) {
    float rounded = (float)exact;
    return rounded > exact ? std::nextafter(rounded, -INFINITY) : rounded;
}

template <class Integer, class Float> Integer to_integer(Float value) {
    using Limits = std::numeric_limits<Integer>;
    if (std::isnan(value)) return 0;
    if (value <= (Float)Limits::min()) return Limits::min();
    return value >= (Float)Limits::max() ? Limits::max() : (Integer)value;
}
