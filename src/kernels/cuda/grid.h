// Where a thread stands, and sums over its block. On a GPU these are CUDA's own; in host C++ the same bodies
// run on threads with a barrier (tests/cuda_host), so that indices and reductions are checked without a GPU.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define FASTFLOW_FN __device__ __forceinline__
// The bound on threads keeps the registers of a block within a multiprocessor's.
#define FASTFLOW_ENTRY extern "C" __global__ __launch_bounds__(512) void
#else
#define FASTFLOW_FN inline
#endif

namespace fastflow {

// Threads side by side along the positions of one channel: a warp. Fewer on the host, where a thread is dear.
#ifdef __CUDACC__
constexpr int LANES = 32;
#else
constexpr int LANES = 4;
#endif

// One thread's place in a one-dimensional grid of one-dimensional blocks.
struct Here {
    long long block, blocks;
    int thread, threads;
    // Memory of the block; how much each kernel needs is said at its body.
    void* shared;
#ifndef __CUDACC__
    void (*wait)(void*);
    void* team;
#endif

    FASTFLOW_FN void sync() const {
#ifdef __CUDACC__
        __syncthreads();
#else
        wait(team);
#endif
    }

    // Position among all threads of the grid, and their number.
    FASTFLOW_FN long long index() const { return block * threads + thread; }
    FASTFLOW_FN long long all() const { return blocks * threads; }
};

#ifdef __CUDACC__
// `shared` is dynamic: its size is part of the launch.
__device__ __forceinline__ Here here() {
    extern __shared__ __align__(16) unsigned char fastflow_shared[];
    return Here{blockIdx.x, gridDim.x, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), fastflow_shared};
}
#endif

template <class A>
FASTFLOW_FN A least(A a, A b) {
    return a < b ? a : b;
}

FASTFLOW_FN long long ceil_div(long long a, long long b) { return (a + b - 1) / b; }

// The sum of one value a thread, given to every thread; always added in the same order. The number of threads
// must be a power of two. Needs shared memory for one A a thread.
template <class A>
FASTFLOW_FN A block_sum(const Here& here, A value) {
    A* shared = static_cast<A*>(here.shared);
    here.sync();
    shared[here.thread] = value;
    here.sync();
    for (int half = here.threads / 2; half > 0; half /= 2) {
        if (here.thread < half) shared[here.thread] += shared[here.thread + half];
        here.sync();
    }
    return shared[0];
}

// A thread's place in a tile of LANES vectors of N positions of one image: blocks = batch * ceil(positions / (LANES * N)),
// threads a multiple of LANES. Groups of LANES threads share the channels.
template <int N>
struct Tile {
    int group, groups;
    long long image;
    // Of the thread's own vector: its first position, and how many of it exist.
    int first, count;

    FASTFLOW_FN Tile(const Here& here, int positions) {
        group = here.thread / LANES;
        groups = here.threads / LANES;
        const int tiles = (positions + LANES * N - 1) / (LANES * N);
        image = here.block / tiles;
        first = static_cast<int>(here.block % tiles) * LANES * N + here.thread % LANES * N;
        count = first < positions ? least(N, positions - first) : 0;
    }
};

// Sums over the groups of a tile, position by position, always added in the groups' order. The first group has them
// afterwards. Needs shared memory for N floats a thread.
template <int N>
FASTFLOW_FN void sum_groups(const Here& here, const Tile<N>& tile, float (&sum)[N]) {
    float* parts = static_cast<float*>(here.shared);
    for (int i = 0; i < N; ++i) parts[here.thread * N + i] = sum[i];
    here.sync();
    if (tile.group > 0) return;
    for (int i = 0; i < N; ++i) {
        sum[i] = 0.0f;
        for (int g = 0; g < tile.groups; ++g) sum[i] += parts[(g * LANES + here.thread) * N + i];
    }
}

// Row sums of partial[rows][columns] in f64, row after row: one thread a column.
FASTFLOW_FN void sum_rows(const Here& here, int rows, int columns, const float* partial, float* total) {
    for (long long column = here.index(); column < columns; column += here.all()) {
        double sum = 0.0;
        for (int row = 0; row < rows; ++row) sum += partial[static_cast<long long>(row) * columns + column];
        total[column] = static_cast<float>(sum);
    }
}

}  // namespace fastflow
