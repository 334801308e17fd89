// The optimizer's entries; arguments and launch shapes are in adam.h.
#include "adam.h"

using namespace fastflow;

FASTFLOW_ENTRY sum_squares_f32(int size, const float* values, double* partial) {
    sum_squares(here(), size, values, partial);
}

FASTFLOW_ENTRY decide_f64(int parts, double images, double clip, const double* squares, const double* loss,
                                      double* control) {
    decide(here(), parts, images, clip, squares, loss, control);
}

FASTFLOW_ENTRY adam_f32(AdamStep s, const double* control, const float* gradient, float* moments, float* parameter) {
    adam(here(), s, control, gradient, moments, parameter);
}
