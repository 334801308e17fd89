// The entries around convolutions; arguments and launch shapes are in conv.h.
#include "conv.h"

using namespace fastflow;

#define ENTRIES(NAME, T) \
    FASTFLOW_ENTRY epilogue_##NAME(int batch, int channels, int positions, int relu, \
                                               long long residual_image, const T* x, const T* bias, const T* residual, \
                                               T* y) { \
        epilogue(here(), batch, channels, positions, relu, residual_image, x, bias, residual, y); \
    } \
    FASTFLOW_ENTRY epilogue_backward_##NAME(int batch, int channels, int positions, int span, \
                                                        long long dy_image, long long output_image, const T* dy, \
                                                        const T* output, T* masked, float* partial) { \
        epilogue_backward(here(), batch, channels, positions, span, dy_image, output_image, dy, output, masked, \
                          partial); \
    } \
    FASTFLOW_ENTRY patches_##NAME(ConvSizes s, const T* x, T* columns) { patches(here(), s, x, columns); } \
    FASTFLOW_ENTRY patches_backward_##NAME(ConvSizes s, const T* columns, T* dx) { \
        patches_backward(here(), s, columns, dx); \
    } \
    FASTFLOW_ENTRY max_pool_##NAME(int planes, int height, int width, const T* x, T* y) { \
        max_pool(here(), planes, height, width, x, y); \
    }

ENTRIES(f32, float)
ENTRIES(f16, f16)
ENTRIES(bf16, bf16)
