// A GPU's grid on host threads: blocks one after another, a block's threads at once with a barrier. Memory that a
// kernel should have written but did not holds NaN.
#pragma once

#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "grid.h"
#include "number.h"

using namespace fastflow;

// Runs `body` for every thread of every block; shared memory of `bytes`, guarded behind its end.
inline void launch(long long blocks, int threads, size_t bytes, const std::function<void(const Here&)>& body) {
    const size_t doubles = (bytes + 7) / 8;
    std::vector<double> shared(doubles + 8);
    std::barrier<> barrier(threads);
    auto wait = [](void* team) { static_cast<std::barrier<>*>(team)->arrive_and_wait(); };
    auto run = [&](int thread) {
        for (long long block = 0; block < blocks; ++block) {
            if (thread == 0) std::fill(shared.begin(), shared.end(), NAN);
            barrier.arrive_and_wait();
            body(Here{block, blocks, thread, threads, shared.data(), wait, &barrier});
            barrier.arrive_and_wait();
        }
    };
    std::vector<std::thread> team;
    for (int thread = 0; thread < threads; ++thread) team.emplace_back(run, thread);
    for (auto& thread : team) thread.join();
    for (size_t i = doubles; i < shared.size(); ++i) {
        if (shared[i] == shared[i]) {
            fprintf(stderr, "shared memory overrun\n");
            exit(3);
        }
    }
}

// An array whose first value is `shift` values behind a 16-byte boundary, with NaN on both sides.
template <class T>
struct Array {
    std::vector<Raw> memory;
    size_t size;
    T* data;

    Array(size_t size, int shift) : memory((size + 64) * sizeof(T) / sizeof(Raw) + 2), size(size) {
        T* start = reinterpret_cast<T*>(memory.data());
        for (size_t i = 0; i < memory.size() * sizeof(Raw) / sizeof(T); ++i) put(start[i], NAN);
        data = start + 16 / sizeof(T) + shift;
    }

    static void put(float& to, float value) { to = value; }
    static void put(f16& to, float value) { narrow(value, to); }
    static void put(bf16& to, float value) { narrow(value, to); }
    static void put(double& to, float value) { to = value; }
    static void put(unsigned& to, float value) { to = value == value ? static_cast<unsigned>(value) : ~0u; }
};

// The next array of standard input: a count (u64) and as many f32.
template <class T>
Array<T> read(int shift) {
    uint64_t count = 0;
    if (fread(&count, 8, 1, stdin) != 1) exit(4);
    std::vector<float> values(count);
    if (fread(values.data(), 4, count, stdin) != count) exit(4);
    Array<T> array(count, shift);
    for (size_t i = 0; i < count; ++i) Array<T>::put(array.data[i], values[i]);
    return array;
}

inline float get(float value) { return value; }
inline float get(double value) { return static_cast<float>(value); }
inline float get(f16 value) { return widen(value); }
inline float get(bf16 value) { return widen(value); }

template <class T>
void write(const Array<T>& array) {
    std::vector<float> values(array.size);
    for (size_t i = 0; i < array.size; ++i) values[i] = get(array.data[i]);
    const uint64_t count = array.size;
    fwrite(&count, 8, 1, stdout);
    fwrite(values.data(), 4, count, stdout);
    // Neither side may have been written to.
    if (get(array.data[-1]) == get(array.data[-1]) || get(array.data[array.size]) == get(array.data[array.size])) {
        fprintf(stderr, "written outside an array\n");
        exit(3);
    }
}

// The command line: kernel, type, threads, shift, then the kernel's own numbers.
struct Arguments {
    std::string kernel, type;
    int threads, shift;
    std::vector<double> numbers;
    mutable size_t next = 0;

    double real() const { return numbers.at(next++); }
    int whole() const { return static_cast<int>(real()); }
};
