// From latents to anomaly maps and image scores: the arithmetic of src/kernels/map and of the detector's scoring.
#pragma once

#include "number.h"

namespace fastflow {

// src/kernels/map's statistics over the channels at a position.
enum Kind { NLL = 0, EXPONENTIAL = 1, PROBABILITY = 2 };

FASTFLOW_FN float term(int kind, float z) { return kind == PROBABILITY ? expf(-0.5f * z * z) : z * z; }

FASTFLOW_FN float statistic(int kind, float sum, int channels) {
    const float mean = sum / static_cast<float>(channels);
    if (kind == PROBABILITY) return -mean;
    return kind == NLL ? 0.5f * mean : -expf(-0.5f * mean);
}

// map[batch][positions]. Block: a Tile<WIDE<T>>. Shared: WIDE<T> floats a thread.
template <class T>
FASTFLOW_FN void position_map(const Here& here, int kind, int channels, int positions, long long z_image, const T* z,
                              float* map) {
    constexpr int N = WIDE<T>;
    const Tile<N> tile(here, positions);
    const bool wide = aligned(z) && positions % N == 0 && z_image % N == 0;
    z += tile.image * z_image + tile.first;
    float sum[N] = {};
    for (int c = tile.group; tile.count > 0 && c < channels; c += tile.groups) {
        float value[N];
        load(value, z + static_cast<long long>(c) * positions, tile.count, wide);
        for (int i = 0; i < N; ++i) sum[i] += term(kind, value[i]);
    }
    sum_groups(here, tile, sum);
    if (tile.group > 0) return;
    for (int i = 0; i < tile.count; ++i) {
        map[tile.image * positions + tile.first + i] = statistic(kind, sum[i], channels);
    }
}

// The two sources of one output coordinate and the second one's weight (align_corners=False).
struct Tap {
    int first, second;
    float weight;
};

FASTFLOW_FN Tap tap(int i, int input, int output) {
    const float scale = static_cast<float>(input) / static_cast<float>(output);
    float source = (static_cast<float>(i) + 0.5f) * scale - 0.5f;
    if (source < 0.0f) source = 0.0f;
    const int first = least(static_cast<int>(source), input - 1);
    float weight = source - static_cast<float>(first);
    weight = weight < 0.0f ? 0.0f : (weight > 1.0f ? 1.0f : weight);
    return Tap{first, least(first + 1, input - 1), weight};
}

// The value between four sources; `upper` and `lower` start at column `left`.
FASTFLOW_FN float blend(const Tap& row, const Tap& column, const float* upper, const float* lower, int left) {
    const int first = column.first - left, second = column.second - left;
    const float above = (1.0f - column.weight) * upper[first] + column.weight * upper[second];
    const float below = (1.0f - column.weight) * lower[first] + column.weight * lower[second];
    return (1.0f - row.weight) * above + row.weight * below;
}

constexpr int MAX_SCALES = 8;
// Sides of the output's tile that one block computes.
constexpr int TILE = 32;

// One scale's latents z[batch][channels][height][width], images z_image values apart; `factor` multiplies its map
// after `shift` was taken off.
struct Scale {
    unsigned long long z;
    long long z_image;
    int channels, height, width;
    float shift, factor;
};

struct MapSizes {
    Scale scales[MAX_SCALES];
    int scale_count, kind, batch, height, width, region;
};

// out[batch][height][width] = sum over the scales of factor * (resampled map - shift), straight from the latents.
// Block: one TILE x TILE tile of one image. The low-resolution positions under a tile are reduced over channels
// first (threads share positions and channels), then resampled. `region` is the largest number of those positions.
// Shared floats: TILE * TILE + region + max(threads, region).
template <class T>
FASTFLOW_FN void anomaly_map(const Here& here, const MapSizes& s, float* out) {
    float* tile = static_cast<float*>(here.shared);
    float* local = tile + TILE * TILE;
    float* parts = local + s.region;
    const int tiles_x = (s.width + TILE - 1) / TILE, tiles_y = (s.height + TILE - 1) / TILE;
    const long long image = here.block / (tiles_x * tiles_y);
    const int y0 = static_cast<int>(here.block / tiles_x % tiles_y) * TILE;
    const int x0 = static_cast<int>(here.block % tiles_x) * TILE;
    const int rows_out = least(TILE, s.height - y0), columns_out = least(TILE, s.width - x0);
    for (int i = here.thread; i < TILE * TILE; i += here.threads) tile[i] = 0.0f;
    for (int k = 0; k < s.scale_count; ++k) {
        const Scale& scale = s.scales[k];
        const int top = tap(y0, scale.height, s.height).first, left = tap(x0, scale.width, s.width).first;
        const int rows = tap(y0 + rows_out - 1, scale.height, s.height).second - top + 1;
        const int columns = tap(x0 + columns_out - 1, scale.width, s.width).second - left + 1;
        const int positions = rows * columns, groups = positions < here.threads ? here.threads / positions : 1;
        const T* z = reinterpret_cast<const T*>(scale.z) + image * scale.z_image +
                     static_cast<long long>(top) * scale.width + left;
        const long long plane = static_cast<long long>(scale.height) * scale.width;
        for (int i = here.thread; i < positions * groups; i += here.threads) {
            const int position = i % positions;
            const T* at = z + position / columns * scale.width + position % columns;
            float sum = 0.0f;
            for (int c = i / positions; c < scale.channels; c += groups) sum += term(s.kind, widen(at[c * plane]));
            parts[i] = sum;
        }
        here.sync();
        for (int i = here.thread; i < positions; i += here.threads) {
            float sum = 0.0f;
            for (int g = 0; g < groups; ++g) sum += parts[g * positions + i];
            local[i] = statistic(s.kind, sum, scale.channels);
        }
        here.sync();
        for (int i = here.thread; i < rows_out * columns_out; i += here.threads) {
            const Tap row = tap(y0 + i / columns_out, scale.height, s.height);
            const Tap column = tap(x0 + i % columns_out, scale.width, s.width);
            const float *upper = local + (row.first - top) * columns, *lower = local + (row.second - top) * columns;
            const float value = blend(row, column, upper, lower, left);
            tile[i] += (value - scale.shift) * scale.factor;
        }
    }
    for (int i = here.thread; i < rows_out * columns_out; i += here.threads)
        out[(image * s.height + y0 + i / columns_out) * s.width + x0 + i % columns_out] = tile[i];
}

// Bilinear resampling of maps[batch][height][width] to out[batch][out_h][out_w].
FASTFLOW_FN void upsample(const Here& here, int batch, int height, int width, int out_h, int out_w,
                          long long map_image, const float* maps, float* out) {
    for (long long i = here.index(); i < static_cast<long long>(batch) * out_h * out_w; i += here.all()) {
        const Tap column = tap(static_cast<int>(i % out_w), width, out_w);
        const Tap row = tap(static_cast<int>(i / out_w % out_h), height, out_h);
        const float* map = maps + i / out_w / out_h * map_image;
        out[i] = blend(row, column, map + row.first * width, map + row.second * width, 0);
    }
}

// Bits whose order as unsigned numbers is the order of the floats (Rust's total_cmp).
FASTFLOW_FN uint32_t order_key(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

FASTFLOW_FN float key_value(uint32_t key) {
    const uint32_t bits = key >> 31 ? key & 0x7fffffffu : ~key;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// scores[image] = mean of the k largest of the image's `size` values (k = 1: the largest). Block: one image. The
// k-th largest is found bit by bit, by counting. Shared: a double a thread.
FASTFLOW_FN void image_score(const Here& here, int size, int k, const float* maps, float* scores) {
    maps += here.block * size;
    uint32_t bound = 0;
    for (int bit = 31; bit >= 0; --bit) {
        const uint32_t candidate = bound | 1u << bit;
        int count = 0;
        for (int i = here.thread; i < size; i += here.threads) count += order_key(maps[i]) >= candidate;
        if (block_sum(here, count) >= k) bound = candidate;
    }
    int above = 0;
    double sum = 0.0;
    for (int i = here.thread; i < size; i += here.threads) {
        if (order_key(maps[i]) > bound) {
            above += 1;
            sum += static_cast<double>(maps[i]);
        }
    }
    above = block_sum(here, above);
    sum = block_sum(here, sum);
    if (here.thread == 0)
        scores[here.block] = static_cast<float>((sum + (k - above) * static_cast<double>(key_value(bound))) / k);
}

}  // namespace fastflow
