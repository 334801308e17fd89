// The optimizer's step without the host in between: the arithmetic of src/training/device.rs. Whether a step is
// taken, and how far, is decided on the device.
#pragma once

#include "number.h"

namespace fastflow {

// partial[block] = the block's part of the sum of squares. Shared: a double a thread.
FASTFLOW_FN void sum_squares(const Here& here, int size, const float* values, double* partial) {
    double sum = 0.0;
    for (long long i = here.index(); i < size; i += here.all()) sum += static_cast<double>(values[i]) * values[i];
    sum = block_sum(here, sum);
    if (here.thread == 0) partial[here.block] = sum;
}

// Tensors of one launch; a kernel's arguments may take 4 KB.
constexpr int MANY = 96;
// Blocks of each tensor, and parts of its sum of squares.
constexpr int PARTS = 64;

struct Gradients {
    int count;
    int size[MANY];
    const float* values[MANY];
};

// The thread's place among the blocks of its tensor.
FASTFLOW_FN Here within_tensor(Here here) {
    here.block %= PARTS;
    here.blocks = PARTS;
    return here;
}

// partial[tensor][PARTS], as above. count * PARTS blocks. Shared: a double a thread.
FASTFLOW_FN void sum_squares_of_each(const Here& here, const Gradients& all, double* partial) {
    const int tensor = static_cast<int>(here.block / PARTS);
    sum_squares(within_tensor(here), all.size[tensor], all.values[tensor], partial + tensor * PARTS);
}

// What a step is decided by, kept on the device and read back now and then.
enum Control { FACTOR = 0, LOSS_SUM = 1, NORM_SUM = 2, STEPS = 3, REFUSED = 4, LAST_LOSS = 5, LAST_NORM = 6, CONTROLS = 7 };

// control[FACTOR]: what the gradients, sums over `images`, are to be multiplied by; NaN refuses the step, for a loss
// or norm that is not finite, and every step after it. One block. Shared: a double a thread.
FASTFLOW_FN void decide(const Here& here, int parts, double images, double clip, const double* squares,
                        const double* loss, double* control) {
    double sum = 0.0;
    for (int i = here.thread; i < parts; i += here.threads) sum += squares[i];
    const double norm = sqrt(block_sum(here, sum)) / images;
    if (here.thread > 0) return;
    if (control[REFUSED] > 0.0) return;
    control[LAST_LOSS] = *loss;
    control[LAST_NORM] = norm;
    // Infinities and NaN give NaN.
    if ((*loss - *loss) + (norm - norm) != 0.0) {
        control[REFUSED] = 1.0;
        control[FACTOR] = static_cast<double>(NAN);
        return;
    }
    control[FACTOR] = (clip > 0.0 && norm > clip ? clip / norm : 1.0) / images;
    control[LOSS_SUM] += *loss;
    control[NORM_SUM] += norm;
    control[STEPS] += 1.0;
}

struct AdamStep {
    float beta1, beta2, decay, rate, inverse2, epsilon;
};

// moments: first[size], second[size].
FASTFLOW_FN void adam(const Here& here, const AdamStep& s, int size, const double* control, const float* gradient,
                      float* moments, float* parameter) {
    const float factor = static_cast<float>(control[FACTOR]);
    if (factor != factor) return;
    for (long long i = here.index(); i < size; i += here.all()) {
        const float g = gradient[i] * factor + s.decay * parameter[i];
        const float first = s.beta1 * moments[i] + (1.0f - s.beta1) * g;
        const float second = s.beta2 * moments[size + i] + (1.0f - s.beta2) * g * g;
        moments[i] = first;
        moments[size + i] = second;
        parameter[i] -= s.rate * first / (sqrtf(second) * s.inverse2 + s.epsilon);
    }
}

struct Parameters {
    Gradients gradients;
    float* moments[MANY];
    float* values[MANY];
};
// As src/kernels/adam/cuda.rs has them.
static_assert(sizeof(Parameters) == 2696 && sizeof(AdamStep) == 24, "the sizes that Rust passes");

// count * PARTS blocks.
FASTFLOW_FN void adam_of_each(const Here& here, const AdamStep& s, const Parameters& all, const double* control) {
    const int tensor = static_cast<int>(here.block / PARTS);
    const Gradients& gradients = all.gradients;
    adam(within_tensor(here), s, gradients.size[tensor], control, gradients.values[tensor], all.moments[tensor],
         all.values[tensor]);
}

}  // namespace fastflow
