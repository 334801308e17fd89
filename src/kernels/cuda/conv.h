// What stands around a convolution's product: its epilogue with backward, patches and their adjoint for the
// build without cuDNN, and the ResNet stem's pool. The arithmetic of src/kernels/conv.
#pragma once

#include "coupling.h"

namespace fastflow {

// y = x + bias[c] + residual, then ReLU if `relu`; x and y [batch][channels][positions] may be the same memory.
// `bias` and `residual` may be null.
template <class T>
FASTFLOW_FN void epilogue(const Here& here, int batch, int channels, int positions, int relu, long long residual_image,
                          const T* x, const T* bias, const T* residual, T* y) {
    const long long image = static_cast<long long>(channels) * positions;
    const bool wide = wide_rows(x, positions, image) && wide_rows(y, positions, image) &&
                      (residual == nullptr || wide_rows(residual, positions, residual_image));
    const long long vectors = channels * ceil_div(positions, WIDE<T>);
    for (long long v = here.index(); v < batch * vectors; v += here.all()) {
        const Vector at = vector_at<T>(v % vectors, positions);
        const int channel = at.image;
        const long long b = v / vectors, row = static_cast<long long>(channel) * positions + at.first;
        const float add = bias == nullptr ? 0.0f : widen(bias[channel]);
        float value[WIDE<T>], more[WIDE<T>] = {};
        load(value, x + b * image + row, at.count, wide);
        if (residual != nullptr) load(more, residual + b * residual_image + row, at.count, wide);
        for (int i = 0; i < WIDE<T>; ++i) {
            value[i] = value[i] + add + more[i];
            // A NaN stays one.
            if (relu && value[i] < 0.0f) value[i] = 0.0f;
        }
        store(y + b * image + row, value, at.count, wide);
    }
}

// The epilogue's backward: masked = dy where output > 0 (everywhere if output is null; not written if masked is
// null), and partial[chunk][channels], the bias's gradient, for sum_rows. Block: channel block % channels of chunk
// block / channels, which is `span` vectors. Shared: a float a thread.
template <class T>
FASTFLOW_FN void epilogue_backward(const Here& here, int batch, int channels, int positions, int span,
                                   long long dy_image, long long output_image, const T* dy, const T* output, T* masked,
                                   float* partial) {
    const int channel = static_cast<int>(here.block % channels);
    const long long chunk = here.block / channels;
    const long long image = static_cast<long long>(channels) * positions;
    const bool wide = wide_rows(dy, positions, dy_image) &&
                      (output == nullptr || wide_rows(output, positions, output_image)) &&
                      (masked == nullptr || wide_rows(masked, positions, image));
    const long long end = least((chunk + 1) * span, batch * ceil_div(positions, WIDE<T>));
    float sum = 0.0f;
    for (long long v = chunk * span + here.thread; v < end; v += here.threads) {
        const Vector at = vector_at<T>(v, positions);
        const long long row = static_cast<long long>(channel) * positions + at.first;
        float value[WIDE<T>];
        load(value, dy + at.image * dy_image + row, at.count, wide);
        if (output != nullptr) {
            float out[WIDE<T>];
            load(out, output + at.image * output_image + row, at.count, wide);
            for (int i = 0; i < WIDE<T>; ++i)
                if (!(out[i] > 0.0f)) value[i] = 0.0f;
        }
        for (int i = 0; i < WIDE<T>; ++i) sum += value[i];
        if (masked != nullptr) store(masked + at.image * image + row, value, at.count, wide);
    }
    sum = block_sum(here, sum);
    if (here.thread == 0) partial[chunk * channels + channel] = sum;
}

struct ConvSizes {
    int batch, channels, in_h, in_w, kernel_h, kernel_w, stride, padding, out_h, out_w;
    long long x_image;
};

// columns[batch][channels * kernel_h * kernel_w][out_h * out_w]: the input under every kernel element.
template <class T>
FASTFLOW_FN void patches(const Here& here, const ConvSizes& s, const T* x, T* columns) {
    const long long plane = static_cast<long long>(s.out_h) * s.out_w;
    const long long rows = static_cast<long long>(s.channels) * s.kernel_h * s.kernel_w;
    for (long long i = here.index(); i < s.batch * rows * plane; i += here.all()) {
        const int position = static_cast<int>(i % plane);
        const int row = static_cast<int>(i / plane % rows);
        const long long image = i / plane / rows;
        const int kx = row % s.kernel_w, ky = row / s.kernel_w % s.kernel_h;
        const int channel = row / s.kernel_w / s.kernel_h;
        const int iy = position / s.out_w * s.stride + ky - s.padding;
        const int ix = position % s.out_w * s.stride + kx - s.padding;
        const bool inside = iy >= 0 && iy < s.in_h && ix >= 0 && ix < s.in_w;
        T zero;
        narrow(0.0f, zero);
        columns[i] =
            inside ? x[image * s.x_image + (static_cast<long long>(channel) * s.in_h + iy) * s.in_w + ix] : zero;
    }
}

// The adjoint: every input element adds up, in a fixed order, the columns it went into.
template <class T>
FASTFLOW_FN void patches_backward(const Here& here, const ConvSizes& s, const T* columns, T* dx) {
    const long long plane = static_cast<long long>(s.out_h) * s.out_w;
    const int taps = s.kernel_h * s.kernel_w, in_plane = s.in_h * s.in_w;
    const long long all = static_cast<long long>(s.batch) * s.channels * in_plane;
    for (long long i = here.index(); i < all; i += here.all()) {
        const int iy = static_cast<int>(i % in_plane) / s.in_w, ix = static_cast<int>(i % in_plane) % s.in_w;
        // Image and channel follow one another in both tensors.
        const T* rows = columns + i / in_plane * taps * plane;
        float sum = 0.0f;
        for (int ky = 0; ky < s.kernel_h; ++ky) {
            const int y = iy + s.padding - ky;
            if (y < 0 || y % s.stride != 0 || y / s.stride >= s.out_h) continue;
            for (int kx = 0; kx < s.kernel_w; ++kx) {
                const int x = ix + s.padding - kx;
                if (x < 0 || x % s.stride != 0 || x / s.stride >= s.out_w) continue;
                sum += widen(rows[(ky * s.kernel_w + kx) * plane + y / s.stride * s.out_w + x / s.stride]);
            }
        }
        narrow(sum, dx[i]);
    }
}

// Max-pool 3x3, stride 2, padding 1 that never wins; `planes` = batch * channels, contiguous.
template <class T>
FASTFLOW_FN void max_pool(const Here& here, int planes, int height, int width, const T* x, T* y) {
    const int out_h = (height + 1) / 2, out_w = (width + 1) / 2;
    const long long out_plane = static_cast<long long>(out_h) * out_w;
    for (long long i = here.index(); i < planes * out_plane; i += here.all()) {
        const T* plane = x + i / out_plane * height * width;
        const int top = 2 * static_cast<int>(i % out_plane / out_w), left = 2 * static_cast<int>(i % out_plane % out_w);
        float largest = -INFINITY;
        for (int r = top > 0 ? top - 1 : 0; r < least(height, top + 2); ++r) {
            for (int c = left > 0 ? left - 1 : 0; c < least(width, left + 2); ++c) {
                const float value = widen(plane[r * width + c]);
                if (value > largest || value != value) largest = value;
                if (largest != largest) break;
            }
            if (largest != largest) break;
        }
        narrow(largest, y[i]);
    }
}

}  // namespace fastflow
