// The norms' entries; arguments and launch shapes are in norm.h.
#include "norm.h"

using namespace fastflow;

#define ENTRIES(NAME, T) \
    FASTFLOW_ENTRY moments_##NAME(NormSizes s, const T* x, float* partial) { \
        moments(here(), s, x, partial); \
    } \
    FASTFLOW_ENTRY layer_norm_##NAME(NormSizes s, const T* x, const float* partial, T* y) { \
        layer_norm(here(), s, x, partial, y); \
    } \
    FASTFLOW_ENTRY layer_norm_sums_##NAME(NormSizes s, const T* x, const T* dy, const float* partial, \
                                                      float* sums) { \
        layer_norm_sums(here(), s, x, dy, partial, sums); \
    } \
    FASTFLOW_ENTRY layer_norm_backward_##NAME(NormSizes s, const T* x, const T* dy, \
                                                          const float* partial, const float* sums, T* dx) { \
        layer_norm_backward(here(), s, x, dy, partial, sums, dx); \
    } \
    FASTFLOW_ENTRY standardise_##NAME(int batch, int channels, int positions, long long x_image, \
                                                  const T* x, const float* statistics, T* y) { \
        standardise(here(), batch, channels, positions, x_image, x, statistics, y); \
    }

ENTRIES(f32, float)
ENTRIES(f16, f16)
ENTRIES(bf16, bf16)
