// The part of cuDNN that src/kernels/conv/cudnn.rs calls: convolutions of f32 images, forward and both gradients, through
// patches. The heuristics name algorithms that sum in no fixed order first, so that whoever takes those is seen.

#include "memory.h"
#include "rounding.h"
#include <thread>
#include <vector>

namespace {

enum { SUCCESS = 0, BAD_PARAM = 2000 };
enum { FLOAT = 0, NCHW = 0, FMA_MATH = 3 };

struct Tensor {
    int n, c, h, w;
    int n_stride, c_stride, h_stride, w_stride;

    size_t at(int i, int j, int y, int x) const {
        return (size_t)i * n_stride + (size_t)j * c_stride + (size_t)y * h_stride + (size_t)x * w_stride;
    }
    size_t bytes() const { return (at(n - 1, c - 1, h - 1, w - 1) + 1) * sizeof(float); }
};

struct Convolution { int pad_h, pad_w, stride_h, stride_w, math; };

struct Found { int algorithm, status; float time; size_t memory; int determinism, math, reserved[3]; };

size_t workspace(int algorithm) { return 512 * algorithm; }

struct Algorithm { int number; bool deterministic; };

int heuristics(const Convolution& conv, std::vector<Algorithm> algorithms, int asked, int* count, Found* found) {
    *count = std::min(asked, (int)algorithms.size());
    for (int i = 0; i < *count; i++) {
        auto [number, deterministic] = algorithms[i];
        found[i] = {number, SUCCESS, 1.0f + i, workspace(number), deterministic, conv.math, {}};
    }
    return SUCCESS;
}

// Calls f(i) for 0 <= i < count on two threads.
template <class F> void in_parallel(int count, F f) {
    auto part = [&](int start, int end) { for (int i = start; i < end; i++) f(i); };
    std::thread other(part, 0, count / 2);
    part(count / 2, count);
    other.join();
}

// One call's sizes, and the values that every direction reads.
struct Call {
    const Convolution& conv;
    const Tensor &x, &w, &y;

    int positions() const { return y.h * y.w; }
    int patch() const { return w.c * w.h * w.w; }
    float value(const float* values, size_t at) const { return conv.math == FMA_MATH ? values[at] : to_tf32(values[at]); }

    bool fits() const {
        bool channels = w.c == x.c && y.c == w.n && y.n == x.n;
        return channels && (x.h + 2 * conv.pad_h - w.h) / conv.stride_h + 1 == y.h &&
               (x.w + 2 * conv.pad_w - w.w) / conv.stride_w + 1 == y.w;
    }

    // f(position, row of x, column of x) for each position that sees the image under kernel row p, column q.
    template <class F> void seen(int p, int q, F f) const {
        for (int i = 0; i < y.h; i++)
            for (int j = 0; j < y.w; j++) {
                int row = i * conv.stride_h + p - conv.pad_h, column = j * conv.stride_w + q - conv.pad_w;
                if (row >= 0 && column >= 0 && row < x.h && column < x.w) f(i * y.w + j, row, column);
            }
    }

    // [patch, positions] of one image.
    std::vector<float> patches(const float* images, int image) const {
        std::vector<float> all((size_t)patch() * positions());
        in_parallel(x.c, [&](int c) {
            for (int p = 0; p < w.h; p++)
                for (int q = 0; q < w.w; q++) {
                    float* to = &all[((size_t)(c * w.h + p) * w.w + q) * positions()];
                    seen(p, q, [&](int at, int row, int column) { to[at] = value(images, x.at(image, c, row, column)); });
                }
        });
        return all;
    }

    // [output channels, patch]
    std::vector<float> weights(const float* values) const {
        std::vector<float> all((size_t)w.n * patch());
        for (int k = 0; k < w.n; k++)
            for (int i = 0; i < patch(); i++)
                all[(size_t)k * patch() + i] = value(values, w.at(k, i / (w.h * w.w), i / w.w % w.h, i % w.w));
        return all;
    }

    // [output channels, positions] of one image.
    std::vector<float> outputs(const float* values, int image) const {
        std::vector<float> all((size_t)y.c * positions());
        for (int k = 0; k < y.c; k++)
            for (int i = 0; i < positions(); i++)
                all[(size_t)k * positions() + i] = value(values, y.at(image, k, i / y.w, i % y.w));
        return all;
    }

    void forward(const float* images, const float* kernel, float* out) const {
        auto flat = weights(kernel);
        for (int image = 0; image < x.n; image++) {
            auto all = patches(images, image);
            in_parallel(y.c, [&](int k) {
                std::vector<float> sums(positions());
                for (int r = 0; r < patch(); r++)
                    for (int i = 0; i < positions(); i++) sums[i] += flat[(size_t)k * patch() + r] * all[(size_t)r * positions() + i];
                for (int i = 0; i < positions(); i++) out[y.at(image, k, i / y.w, i % y.w)] = sums[i];
            });
        }
    }

    void input_gradient(const float* kernel, const float* dy, float* dx) const {
        auto flat = weights(kernel);
        for (int image = 0; image < x.n; image++) {
            auto given = outputs(dy, image);
            in_parallel(x.c, [&](int c) {
                std::vector<float> plane((size_t)x.h * x.w), sums(positions());
                for (int p = 0; p < w.h; p++)
                    for (int q = 0; q < w.w; q++) {
                        std::fill(sums.begin(), sums.end(), 0.0f);
                        int r = (c * w.h + p) * w.w + q;
                        for (int k = 0; k < y.c; k++)
                            for (int i = 0; i < positions(); i++)
                                sums[i] += flat[(size_t)k * patch() + r] * given[(size_t)k * positions() + i];
                        seen(p, q, [&](int at, int row, int column) { plane[(size_t)row * x.w + column] += sums[at]; });
                    }
                for (int i = 0; i < x.h * x.w; i++) dx[x.at(image, c, i / x.w, i % x.w)] = plane[i];
            });
        }
    }

    void weight_gradient(const float* images, const float* dy, float* dw) const {
        std::vector<float> sums((size_t)w.n * patch());
        for (int image = 0; image < x.n; image++) {
            auto all = patches(images, image), given = outputs(dy, image);
            in_parallel(w.n, [&](int k) {
                for (int r = 0; r < patch(); r++) {
                    float sum = 0;
                    for (int i = 0; i < positions(); i++) sum += given[(size_t)k * positions() + i] * all[(size_t)r * positions() + i];
                    sums[(size_t)k * patch() + r] += sum;
                }
            });
        }
        for (int k = 0; k < w.n; k++)
            for (int i = 0; i < patch(); i++)
                dw[w.at(k, i / (w.h * w.w), i / w.w % w.h, i % w.w)] = sums[(size_t)k * patch() + i];
    }
};

// What all three ask of their arguments; 0 where they can go on.
int prepare(const Call& call, const void* x, const void* w, const void* y, const float* alpha, const float* beta,
            int algorithm, void* work, size_t bytes) {
    const Tensor &in = call.x, &kernel = call.w;
    trace("convolution: %d x %d x %d x %d by %d x %d x %d\n", in.n, in.c, in.h, in.w, kernel.n, kernel.h, kernel.w);
    if (!call.fits() || *alpha != 1 || *beta != 0 || bytes < workspace(algorithm)) return BAD_PARAM;
    check("cuDNN's x", x, call.x.bytes());
    check("cuDNN's w", w, call.w.bytes());
    check("cuDNN's y", y, call.y.bytes());
    check("cuDNN's workspace", work, workspace(algorithm));
    memset(work, 0xff, workspace(algorithm));
    return SUCCESS;
}

} // namespace

extern "C" {

int cudnnCreate(void** handle) { return *handle = &device, SUCCESS; }
int cudnnDestroy(void*) { return SUCCESS; }
int cudnnSetStream(void*, void*) { return SUCCESS; }

int cudnnCreateTensorDescriptor(Tensor** made) { return *made = new Tensor{}, SUCCESS; }
int cudnnDestroyTensorDescriptor(Tensor* tensor) { return delete tensor, SUCCESS; }
int cudnnSetTensor4dDescriptorEx(Tensor* tensor, int kind, int n, int c, int h, int w, int n_stride, int c_stride,
                                 int h_stride, int w_stride) {
    *tensor = {n, c, h, w, n_stride, c_stride, h_stride, w_stride};
    return kind == FLOAT ? SUCCESS : BAD_PARAM;
}
int cudnnSetTensor4dDescriptor(Tensor* tensor, int format, int kind, int n, int c, int h, int w) {
    if (format != NCHW) return BAD_PARAM;
    return cudnnSetTensor4dDescriptorEx(tensor, kind, n, c, h, w, c * h * w, h * w, w, 1);
}
int cudnnCreateFilterDescriptor(Tensor** made) { return cudnnCreateTensorDescriptor(made); }
int cudnnDestroyFilterDescriptor(Tensor* filter) { return cudnnDestroyTensorDescriptor(filter); }
int cudnnSetFilter4dDescriptor(Tensor* filter, int kind, int format, int k, int c, int h, int w) {
    return cudnnSetTensor4dDescriptor(filter, format, kind, k, c, h, w);
}
int cudnnCreateConvolutionDescriptor(Convolution** made) { return *made = new Convolution{}, SUCCESS; }
int cudnnDestroyConvolutionDescriptor(Convolution* conv) { return delete conv, SUCCESS; }
int cudnnSetConvolution2dDescriptor(Convolution* conv, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h,
                                    int dilation_w, int, int kind) {
    *conv = {pad_h, pad_w, stride_h, stride_w, 0};
    return kind == FLOAT && dilation_h == 1 && dilation_w == 1 ? SUCCESS : BAD_PARAM;
}
int cudnnSetConvolutionMathType(Convolution* conv, int math) { return conv->math = math, SUCCESS; }

int cudnnGetConvolutionForwardAlgorithm_v7(void*, Tensor*, Tensor*, Convolution* conv, Tensor*, int asked, int* count,
                                           Found* found) {
    return heuristics(*conv, {{1, true}, {0, true}}, asked, count, found);
}
int cudnnGetConvolutionBackwardDataAlgorithm_v7(void*, Tensor*, Tensor*, Convolution* conv, Tensor*, int asked, int* count,
                                                Found* found) {
    return heuristics(*conv, {{0, false}, {4, true}, {1, true}}, asked, count, found);
}
int cudnnGetConvolutionBackwardFilterAlgorithm_v7(void*, Tensor*, Tensor*, Convolution* conv, Tensor*, int asked, int* count,
                                                  Found* found) {
    return heuristics(*conv, {{3, false}, {0, false}, {1, true}}, asked, count, found);
}
int cudnnGetConvolutionForwardWorkspaceSize(void*, Tensor*, Tensor*, Convolution*, Tensor*, int algorithm, size_t* bytes) {
    return *bytes = workspace(algorithm), SUCCESS;
}
int cudnnGetConvolutionBackwardDataWorkspaceSize(void*, Tensor*, Tensor*, Convolution*, Tensor*, int algorithm,
                                                 size_t* bytes) {
    return *bytes = workspace(algorithm), algorithm == 0 ? BAD_PARAM : SUCCESS;
}
int cudnnGetConvolutionBackwardFilterWorkspaceSize(void*, Tensor*, Tensor*, Convolution*, Tensor*, int algorithm,
                                                   size_t* bytes) {
    return *bytes = workspace(algorithm), algorithm == 0 || algorithm == 3 ? BAD_PARAM : SUCCESS;
}

int cudnnConvolutionForward(void*, const float* alpha, Tensor* x, const float* images, Tensor* w, const float* kernel,
                            Convolution* conv, int algorithm, void* work, size_t bytes, const float* beta, Tensor* y,
                            float* out) {
    Busy busy(device);
    Call call{*conv, *x, *w, *y};
    int answer = prepare(call, images, kernel, out, alpha, beta, algorithm, work, bytes);
    if (answer == SUCCESS) call.forward(images, kernel, out);
    return answer;
}
int cudnnConvolutionBackwardData(void*, const float* alpha, Tensor* w, const float* kernel, Tensor* y, const float* dy,
                                 Convolution* conv, int algorithm, void* work, size_t bytes, const float* beta, Tensor* x,
                                 float* dx) {
    Busy busy(device);
    Call call{*conv, *x, *w, *y};
    int answer = prepare(call, dx, kernel, dy, alpha, beta, algorithm, work, bytes);
    if (answer == SUCCESS) call.input_gradient(kernel, dy, dx);
    return answer;
}
int cudnnConvolutionBackwardFilter(void*, const float* alpha, Tensor* x, const float* images, Tensor* y, const float* dy,
                                   Convolution* conv, int algorithm, void* work, size_t bytes, const float* beta, Tensor* w,
                                   float* dw) {
    Busy busy(device);
    Call call{*conv, *x, *w, *y};
    int answer = prepare(call, images, dw, dy, alpha, beta, algorithm, work, bytes);
    if (answer == SUCCESS) call.weight_gradient(images, dy, dw);
    return answer;
}

} // extern "C"
