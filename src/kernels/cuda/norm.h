// LayerNorm of each image over all its values with its backward, and per-channel standardising: the arithmetic
// of src/kernels/norm.rs.
#pragma once

#include "coupling.h"

namespace fastflow {

// `size` values an image, cut into chunks of `chunk` values (a multiple of WIDE<T>), one block each.
struct NormSizes {
    int batch, size, chunk;
    float eps;
    long long x_image, dy_image;

    FASTFLOW_FN int chunks() const { return (size + chunk - 1) / chunk; }
};

// Calls f(vector's first value, count) for this thread's vectors of a chunk.
template <class T, class F>
FASTFLOW_FN void each_vector(const Here& here, const NormSizes& s, int chunk, F f) {
    const int end = least((chunk + 1) * s.chunk, s.size);
    for (int first = chunk * s.chunk + here.thread * WIDE<T>; first < end; first += here.threads * WIDE<T>)
        f(first, least(WIDE<T>, end - first));
}

// Blocks: batch * chunks. partial[image][chunk] = the chunk's mean and its squared deviations from it.
// Shared: a float a thread.
template <class T>
FASTFLOW_FN void moments(const Here& here, const NormSizes& s, const T* x, float* partial) {
    const int chunk = static_cast<int>(here.block % s.chunks());
    x += here.block / s.chunks() * s.x_image;
    const bool wide = wide_rows(x, WIDE<T>, s.x_image);
    const float n = static_cast<float>(least(s.chunk, s.size - chunk * s.chunk));
    float sum = 0.0f;
    each_vector<T>(here, s, chunk, [&](int first, int count) {
        float value[WIDE<T>];
        load(value, x + first, count, wide);
        for (int i = 0; i < WIDE<T>; ++i) sum += value[i];
    });
    const float mean = block_sum(here, sum) / n;
    float squares = 0.0f;
    each_vector<T>(here, s, chunk, [&](int first, int count) {
        float value[WIDE<T>];
        load(value, x + first, count, wide);
        for (int i = 0; i < count; ++i) squares += (value[i] - mean) * (value[i] - mean);
    });
    squares = block_sum(here, squares);
    if (here.thread == 0) {
        partial[here.block * 2] = mean;
        partial[here.block * 2 + 1] = squares;
    }
}

struct Moments {
    float mean, inverse;
};

// Mean and 1 / sqrt(variance + eps) of one image, from all its chunks (Chan's formula, in f64).
// Shared: a double a thread.
FASTFLOW_FN Moments image_moments(const Here& here, const NormSizes& s, long long image, const float* partial) {
    partial += image * s.chunks() * 2;
    double sum = 0.0;
    for (int chunk = here.thread; chunk < s.chunks(); chunk += here.threads)
        sum += static_cast<double>(partial[2 * chunk]) * least(s.chunk, s.size - chunk * s.chunk);
    const double mean = block_sum(here, sum) / s.size;
    double squares = 0.0;
    for (int chunk = here.thread; chunk < s.chunks(); chunk += here.threads) {
        const double away = partial[2 * chunk] - mean;
        squares += partial[2 * chunk + 1] + away * away * least(s.chunk, s.size - chunk * s.chunk);
    }
    const double variance = block_sum(here, squares) / s.size;
    return Moments{static_cast<float>(mean), static_cast<float>(1.0 / sqrt(variance + static_cast<double>(s.eps)))};
}

// Blocks: batch * chunks. Shared: a double a thread.
template <class T>
FASTFLOW_FN void layer_norm(const Here& here, const NormSizes& s, const T* x, const float* partial, T* y) {
    const long long image = here.block / s.chunks();
    const Moments m = image_moments(here, s, image, partial);
    x += image * s.x_image;
    y += image * s.size;
    const bool wide = wide_rows(x, WIDE<T>, s.x_image) && aligned(y);
    each_vector<T>(here, s, static_cast<int>(here.block % s.chunks()), [&](int first, int count) {
        float value[WIDE<T>];
        load(value, x + first, count, wide);
        for (int i = 0; i < WIDE<T>; ++i) value[i] = (value[i] - m.mean) * m.inverse;
        store(y + first, value, count, wide);
    });
}

// Blocks: batch * chunks. sums[image][chunk] = sum of dy and of dy (x - mean). Shared: a double a thread.
template <class T>
FASTFLOW_FN void layer_norm_sums(const Here& here, const NormSizes& s, const T* x, const T* dy, const float* partial,
                                 float* sums) {
    const long long image = here.block / s.chunks();
    const float mean = image_moments(here, s, image, partial).mean;
    x += image * s.x_image;
    dy += image * s.dy_image;
    const bool wide = aligned(x) && aligned(dy);
    float sum = 0.0f, dot = 0.0f;
    each_vector<T>(here, s, static_cast<int>(here.block % s.chunks()), [&](int first, int count) {
        float value[WIDE<T>], dout[WIDE<T>];
        load(value, x + first, count, wide);
        load(dout, dy + first, count, wide);
        for (int i = 0; i < WIDE<T>; ++i) {
            sum += dout[i];
            dot += (value[i] - mean) * dout[i];
        }
    });
    sum = block_sum(here, sum);
    dot = block_sum(here, dot);
    if (here.thread == 0) {
        sums[here.block * 2] = sum;
        sums[here.block * 2 + 1] = dot;
    }
}

// Blocks: batch * chunks. Shared: a double a thread.
template <class T>
FASTFLOW_FN void layer_norm_backward(const Here& here, const NormSizes& s, const T* x, const T* dy,
                                     const float* partial, const float* sums, T* dx) {
    const long long image = here.block / s.chunks();
    const Moments m = image_moments(here, s, image, partial);
    double sum = 0.0, dot = 0.0;
    for (int chunk = here.thread; chunk < s.chunks(); chunk += here.threads) {
        sum += sums[(image * s.chunks() + chunk) * 2];
        dot += sums[(image * s.chunks() + chunk) * 2 + 1];
    }
    const float dy_mean = static_cast<float>(block_sum(here, sum) / s.size);
    const float slope = static_cast<float>(block_sum(here, dot) * m.inverse * m.inverse / s.size);
    x += image * s.x_image;
    dy += image * s.dy_image;
    dx += image * s.size;
    const bool wide = aligned(x) && aligned(dy) && aligned(dx);
    each_vector<T>(here, s, static_cast<int>(here.block % s.chunks()), [&](int first, int count) {
        float value[WIDE<T>], dout[WIDE<T>];
        load(value, x + first, count, wide);
        load(dout, dy + first, count, wide);
        for (int i = 0; i < WIDE<T>; ++i) value[i] = m.inverse * (dout[i] - dy_mean - (value[i] - m.mean) * slope);
        store(dx + first, value, count, wide);
    });
}

// (x - mean[c]) / std[c]; statistics: mean[channels], std[channels].
template <class T>
FASTFLOW_FN void standardise(const Here& here, int batch, int channels, int positions, long long x_image, const T* x,
                             const float* statistics, T* y) {
    const long long y_image = static_cast<long long>(channels) * positions;
    const bool wide = wide_rows(x, positions, x_image) && wide_rows(y, positions, y_image);
    const long long vectors = channels * ceil_div(positions, WIDE<T>);
    for (long long v = here.index(); v < batch * vectors; v += here.all()) {
        const Vector at = vector_at<T>(v % vectors, positions);
        const int channel = at.image;
        const long long image = v / vectors, row = static_cast<long long>(channel) * positions + at.first;
        const float mean = statistics[channel], factor = 1.0f / statistics[channels + channel];
        float value[WIDE<T>];
        load(value, x + image * x_image + row, at.count, wide);
        for (int i = 0; i < WIDE<T>; ++i) value[i] = (value[i] - mean) * factor;
        store(y + image * y_image + row, value, at.count, wide);
    }
}

}  // namespace fastflow
