// One flow step's affine coupling with global affine and channel permutation, in one pass over memory each way:
// the arithmetic of src/kernels/coupling (its page has the formulas).
#pragma once

#include "number.h"

namespace fastflow {

constexpr float SUBNET_SCALE = 0.1f;

// Images of x and a are contiguous; their distances (in values) are free.
struct CouplingSizes {
    int batch, channels, positions;
    float clamp;
    long long x_image, a_image, dy_image;

    FASTFLOW_FN int active() const { return channels / 2; }
    FASTFLOW_FN int passive() const { return channels - channels / 2; }
};

// Some positions of one image, as many as one 16-byte access moves.
struct Vector {
    int image, first, count;
};

template <class T>
FASTFLOW_FN Vector vector_at(long long index, int positions) {
    const int vectors = (positions + WIDE<T> - 1) / WIDE<T>;
    const int image = static_cast<int>(index / vectors);
    const int first = static_cast<int>(index % vectors) * WIDE<T>;
    return Vector{image, first, least(WIDE<T>, positions - first)};
}

// Whether rows of `positions` values in images this far apart can be read 16 bytes at a time.
template <class T>
FASTFLOW_FN bool wide_rows(const T* start, int positions, long long image) {
    return aligned(start) && positions % WIDE<T> == 0 && image % WIDE<T> == 0;
}

// Block: a Tile<WIDE<T>>. Shared: WIDE<T> floats a thread. affine: scale[channels], offset[channels].
template <class T>
FASTFLOW_FN void coupling_forward(const Here& here, const CouplingSizes& s, const T* x, const T* a,
                                  const float* affine, const unsigned* permutation, T* y, float* log_det) {
    constexpr int N = WIDE<T>;
    const Tile<N> tile(here, s.positions);
    const int count = tile.count;
    const long long y_image = static_cast<long long>(s.channels) * s.positions;
    const bool wide = wide_rows(x, s.positions, s.x_image) && wide_rows(a, s.positions, s.a_image) &&
                      wide_rows(y, s.positions, y_image);
    x += tile.image * s.x_image + tile.first;
    a += tile.image * s.a_image + tile.first;
    y += tile.image * y_image + tile.first;
    float sum[N] = {};
    for (int output = tile.group; count > 0 && output < s.channels; output += tile.groups) {
        const int input = static_cast<int>(permutation[output]);
        const float scale = affine[input], offset = affine[s.channels + input];
        float value[N];
        load(value, x + static_cast<long long>(input) * s.positions, count, wide);
        if (input >= s.passive()) {
            const long long k = input - s.passive();
            float shift[N], log_s[N];
            load(log_s, a + k * s.positions, count, wide);
            load(shift, a + (s.active() + k) * s.positions, count, wide);
            for (int i = 0; i < N; ++i) {
                log_s[i] = s.clamp * tanhf(SUBNET_SCALE * log_s[i]);
                value[i] = value[i] * expf(log_s[i]) + SUBNET_SCALE * shift[i];
                sum[i] += log_s[i];
            }
        }
        for (int i = 0; i < N; ++i) value[i] = value[i] * scale + offset;
        store(y + static_cast<long long>(output) * s.positions, value, count, wide);
    }
    sum_groups(here, tile, sum);
    if (tile.group > 0) return;
    for (int i = 0; i < count; ++i) log_det[tile.image * s.positions + tile.first + i] = sum[i];
}

// Gradients at the same inputs. Block: output channel block % channels of chunk block / channels; a chunk is
// `span` vectors of the batch's positions. dlog_det is a map [batch][positions], or null and then `constant`
// everywhere. partial[chunk][2 channels]: gradients of scale and offset, for sum_rows. Shared: a float a thread.
template <class T>
FASTFLOW_FN void coupling_backward(const Here& here, const CouplingSizes& s, int span, const T* x, const T* a,
                                   const float* affine, const unsigned* permutation, const T* dy,
                                   const float* dlog_det, float constant, T* dx, T* da, float* partial) {
    constexpr int N = WIDE<T>;
    const int output = static_cast<int>(here.block % s.channels);
    const long long chunk = here.block / s.channels;
    const int input = static_cast<int>(permutation[output]);
    const float scale = affine[input];
    const long long dx_image = static_cast<long long>(s.channels) * s.positions;
    const long long da_image = 2LL * s.active() * s.positions;
    const bool wide = wide_rows(x, s.positions, s.x_image) && wide_rows(a, s.positions, s.a_image) &&
                      wide_rows(dy, s.positions, s.dy_image) && wide_rows(dx, s.positions, dx_image) &&
                      wide_rows(da, s.positions, da_image);
    const long long end = least((chunk + 1) * span, s.batch * ceil_div(s.positions, N));
    float dscale = 0.0f, doffset = 0.0f;
    for (long long v = chunk * span + here.thread; v < end; v += here.threads) {
        const Vector at = vector_at<T>(v, s.positions);
        const long long row = static_cast<long long>(input) * s.positions + at.first;
        float in[N], dout[N], u[N];
        load(in, x + at.image * s.x_image + row, at.count, wide);
        load(dout, dy + at.image * s.dy_image + static_cast<long long>(output) * s.positions + at.first, at.count,
             wide);
        if (input < s.passive()) {
            for (int i = 0; i < N; ++i) u[i] = in[i];
            for (int i = 0; i < N; ++i) in[i] = dout[i] * scale;
        } else {
            const long long k = input - s.passive();
            const long long s_row = k * s.positions + at.first, t_row = (s.active() + k) * s.positions + at.first;
            float ds[N], dt[N];
            load(ds, a + at.image * s.a_image + s_row, at.count, wide);
            load(dt, a + at.image * s.a_image + t_row, at.count, wide);
            for (int i = 0; i < N; ++i) {
                const float given = dlog_det == nullptr || i >= at.count
                                        ? constant
                                        : dlog_det[static_cast<long long>(at.image) * s.positions + at.first + i];
                const float tanh_s = tanhf(SUBNET_SCALE * ds[i]), factor = expf(s.clamp * tanh_s);
                const float du = dout[i] * scale, scaled = in[i] * factor;
                u[i] = scaled + SUBNET_SCALE * dt[i];
                in[i] = du * factor;
                dt[i] = SUBNET_SCALE * du;
                ds[i] = SUBNET_SCALE * s.clamp * (1.0f - tanh_s * tanh_s) * (du * scaled + given);
            }
            store(da + at.image * da_image + s_row, ds, at.count, wide);
            store(da + at.image * da_image + t_row, dt, at.count, wide);
        }
        store(dx + at.image * dx_image + row, in, at.count, wide);
        // dout is zero behind the last position.
        for (int i = 0; i < N; ++i) {
            dscale += dout[i] * u[i];
            doffset += dout[i];
        }
    }
    dscale = block_sum(here, dscale);
    doffset = block_sum(here, doffset);
    if (here.thread == 0) {
        partial[chunk * 2 * s.channels + input] = dscale;
        partial[chunk * 2 * s.channels + s.channels + input] = doffset;
    }
}

// Undoes permutation, offset and scale. Threads of the grid share the vectors of y.
template <class T>
FASTFLOW_FN void undo_affine(const Here& here, const CouplingSizes& s, const T* y, const float* affine,
                             const unsigned* permutation, T* u) {
    const long long u_image = static_cast<long long>(s.channels) * s.positions;
    const bool wide = wide_rows(y, s.positions, s.x_image) && wide_rows(u, s.positions, u_image);
    const long long vectors = s.channels * ceil_div(s.positions, WIDE<T>);
    for (long long v = here.index(); v < s.batch * vectors; v += here.all()) {
        const Vector at = vector_at<T>(v % vectors, s.positions);
        const int output = at.image, input = static_cast<int>(permutation[output]);
        const long long image = v / vectors;
        float value[WIDE<T>];
        load(value, y + image * s.x_image + static_cast<long long>(output) * s.positions + at.first, at.count, wide);
        for (int i = 0; i < WIDE<T>; ++i) value[i] = (value[i] - affine[s.channels + input]) / affine[input];
        store(u + image * u_image + static_cast<long long>(input) * s.positions + at.first, value, at.count, wide);
    }
}

// Undoes the coupling of u, whose first channels made `a`.
template <class T>
FASTFLOW_FN void uncouple(const Here& here, const CouplingSizes& s, const T* u, const T* a, T* x) {
    const long long x_image = static_cast<long long>(s.channels) * s.positions;
    const bool wide = wide_rows(u, s.positions, s.x_image) && wide_rows(a, s.positions, s.a_image) &&
                      wide_rows(x, s.positions, x_image);
    const long long vectors = s.channels * ceil_div(s.positions, WIDE<T>);
    for (long long v = here.index(); v < s.batch * vectors; v += here.all()) {
        const Vector at = vector_at<T>(v % vectors, s.positions);
        const int channel = at.image;
        const long long image = v / vectors, row = static_cast<long long>(channel) * s.positions + at.first;
        float value[WIDE<T>];
        load(value, u + image * s.x_image + row, at.count, wide);
        if (channel >= s.passive()) {
            const long long k = channel - s.passive();
            float log_s[WIDE<T>], shift[WIDE<T>];
            load(log_s, a + image * s.a_image + k * s.positions + at.first, at.count, wide);
            load(shift, a + image * s.a_image + (s.active() + k) * s.positions + at.first, at.count, wide);
            for (int i = 0; i < WIDE<T>; ++i) {
                value[i] -= SUBNET_SCALE * shift[i];
                value[i] *= expf(-s.clamp * tanhf(SUBNET_SCALE * log_s[i]));
            }
        }
        store(x + image * x_image + row, value, at.count, wide);
    }
}

// sum += term, image by image; `size` values each.
template <class T>
FASTFLOW_FN void accumulate(const Here& here, int batch, int size, long long sum_image, long long term_image, T* sum,
                            const T* term) {
    const bool wide = wide_rows(sum, size, sum_image) && wide_rows(term, size, term_image);
    const long long vectors = batch * ceil_div(size, WIDE<T>);
    for (long long v = here.index(); v < vectors; v += here.all()) {
        const Vector at = vector_at<T>(v, size);
        T* to = sum + at.image * sum_image + at.first;
        float value[WIDE<T>], more[WIDE<T>];
        load(value, to, at.count, wide);
        load(more, term + at.image * term_image + at.first, at.count, wide);
        for (int i = 0; i < WIDE<T>; ++i) value[i] += more[i];
        store(to, value, at.count, wide);
    }
}

}  // namespace fastflow
