// The optimizer's entries; arguments and launch shapes are in adam.h.
#include "adam.h"

using namespace fastflow;

FASTFLOW_ENTRY sum_squares_f32(const __grid_constant__ Gradients all, double* partial) {
    sum_squares_of_each(here(), all, partial);
}

FASTFLOW_ENTRY decide_f64(int parts, double images, double clip, const double* squares, const double* loss,
                                      double* control) {
    decide(here(), parts, images, clip, squares, loss, control);
}

FASTFLOW_ENTRY adam_f32(AdamStep s, const __grid_constant__ Parameters all, const double* control) {
    adam_of_each(here(), s, all, control);
}
