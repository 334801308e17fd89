// The coupling's entries; arguments and launch shapes are in coupling.h.
#include "coupling.h"

using namespace fastflow;

FASTFLOW_ENTRY sum_rows_f32(int rows, int columns, const float* partial, float* total) {
    sum_rows(here(), rows, columns, partial, total);
}

#define ENTRIES(NAME, T) \
    FASTFLOW_ENTRY coupling_forward_##NAME(CouplingSizes s, const T* x, const T* a, const float* affine, \
                                                       const unsigned* permutation, T* y, float* log_det) { \
        coupling_forward(here(), s, x, a, affine, permutation, y, log_det); \
    } \
    FASTFLOW_ENTRY coupling_backward_##NAME( \
        CouplingSizes s, int span, const T* x, const T* a, const float* affine, const unsigned* permutation, \
        const T* dy, const float* dlog_det, float constant, T* dx, T* da, float* partial) { \
        coupling_backward(here(), s, span, x, a, affine, permutation, dy, dlog_det, constant, dx, da, partial); \
    } \
    FASTFLOW_ENTRY undo_affine_##NAME(CouplingSizes s, const T* y, const float* affine, \
                                                  const unsigned* permutation, T* u) { \
        undo_affine(here(), s, y, affine, permutation, u); \
    } \
    FASTFLOW_ENTRY uncouple_##NAME(CouplingSizes s, const T* u, const T* a, T* x) { \
        uncouple(here(), s, u, a, x); \
    } \
    FASTFLOW_ENTRY accumulate_##NAME(int batch, int size, long long sum_image, long long term_image, \
                                                 T* sum, const T* term) { \
        accumulate(here(), batch, size, sum_image, term_image, sum, term); \
    }

ENTRIES(f32, float)
ENTRIES(f16, f16)
ENTRIES(bf16, bf16)
