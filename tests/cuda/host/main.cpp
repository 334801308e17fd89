// Runs one kernel's body on arrays from standard input and writes its outputs: see ../host.rs, which compares them
// with the CPU side. The launch shapes are those of src/kernels/cuda/*.rs.
#include "harness.h"

#include "adam.h"
#include "conv.h"
#include "coupling.h"
#include "map.h"
#include "norm.h"

template <class T>
static void coupling_cases(const Arguments& arguments) {
    CouplingSizes s{};
    s.batch = arguments.whole();
    s.channels = arguments.whole();
    s.positions = arguments.whole();
    s.x_image = arguments.whole();
    s.a_image = 2LL * s.active() * s.positions;
    s.dy_image = static_cast<long long>(s.channels) * s.positions;
    s.clamp = static_cast<float>(arguments.real());
    const int shift = arguments.shift, threads = arguments.threads;
    const long long tiles = ceil_div(s.positions, LANES * WIDE<T>);
    const size_t values = static_cast<size_t>(s.batch) * s.channels * s.positions;
    if (arguments.kernel == "forward") {
        auto x = read<T>(shift), a = read<T>(shift);
        auto affine = read<float>(0);
        auto permutation = read<unsigned>(0);
        Array<T> y(values, shift);
        Array<float> log_det(static_cast<size_t>(s.batch) * s.positions, 0);
        launch(s.batch * tiles, threads, threads * WIDE<T> * sizeof(float), [&](const Here& here) {
            coupling_forward(here, s, x.data, a.data, affine.data, permutation.data, y.data, log_det.data);
        });
        write(y), write(log_det);
    } else if (arguments.kernel == "backward") {
        const int span = arguments.whole(), with_map = arguments.whole();
        const float constant = static_cast<float>(arguments.real());
        auto x = read<T>(shift), a = read<T>(shift), dy = read<T>(shift);
        auto affine = read<float>(0);
        auto permutation = read<unsigned>(0);
        auto map = read<float>(0);
        const long long chunks = ceil_div(s.batch * ceil_div(s.positions, WIDE<T>), span);
        Array<T> dx(values, shift), da(static_cast<size_t>(s.batch) * s.a_image, shift);
        Array<float> partial(chunks * 2 * s.channels, 0), total(2 * s.channels, 0);
        launch(chunks * s.channels, threads, threads * sizeof(float), [&](const Here& here) {
            coupling_backward(here, s, span, x.data, a.data, affine.data, permutation.data, dy.data,
                              with_map ? map.data : nullptr, constant, dx.data, da.data, partial.data);
        });
        launch(2, threads, 0, [&](const Here& here) {
            sum_rows(here, static_cast<int>(chunks), 2 * s.channels, partial.data, total.data);
        });
        write(dx), write(da), write(total);
    } else if (arguments.kernel == "undo") {
        auto y = read<T>(shift);
        auto affine = read<float>(0);
        auto permutation = read<unsigned>(0);
        Array<T> u(values, shift);
        launch(3, threads, 0,
               [&](const Here& here) { undo_affine(here, s, y.data, affine.data, permutation.data, u.data); });
        write(u);
    } else if (arguments.kernel == "uncouple") {
        auto u = read<T>(shift), a = read<T>(shift);
        Array<T> x(values, shift);
        launch(3, threads, 0, [&](const Here& here) { uncouple(here, s, u.data, a.data, x.data); });
        write(x);
    } else if (arguments.kernel == "accumulate") {
        auto sum = read<T>(shift), term = read<T>(shift);
        const int size = s.passive() * s.positions;
        launch(3, threads, 0, [&](const Here& here) {
            accumulate(here, s.batch, size, s.x_image, static_cast<long long>(size), sum.data, term.data);
        });
        write(sum);
    }
}

template <class T>
static void norm_cases(const Arguments& arguments) {
    NormSizes s{};
    s.batch = arguments.whole();
    s.size = arguments.whole();
    s.x_image = arguments.whole();
    s.dy_image = s.size;
    s.chunk = arguments.whole();
    s.eps = 1e-5f;
    const int channels = arguments.whole();
    const int shift = arguments.shift, threads = arguments.threads;
    const long long blocks = static_cast<long long>(s.batch) * s.chunks();
    const size_t shared = threads * sizeof(double);
    auto x = read<T>(shift);
    Array<T> y(static_cast<size_t>(s.batch) * s.size, shift);
    Array<float> partial(blocks * 2, 0);
    if (arguments.kernel == "standardise") {
        auto statistics = read<float>(0);
        launch(3, threads, 0, [&](const Here& here) {
            standardise(here, s.batch, channels, s.size / channels, s.x_image, x.data, statistics.data, y.data);
        });
        write(y);
        return;
    }
    launch(blocks, threads, shared, [&](const Here& here) { moments(here, s, x.data, partial.data); });
    if (arguments.kernel == "layer-norm") {
        launch(blocks, threads, shared,
               [&](const Here& here) { layer_norm(here, s, x.data, partial.data, y.data); });
    } else {
        auto dy = read<T>(shift);
        Array<float> sums(blocks * 2, 0);
        launch(blocks, threads, shared,
               [&](const Here& here) { layer_norm_sums(here, s, x.data, dy.data, partial.data, sums.data); });
        launch(blocks, threads, shared, [&](const Here& here) {
            layer_norm_backward(here, s, x.data, dy.data, partial.data, sums.data, y.data);
        });
    }
    write(y);
}

template <class T>
static void epilogue_cases(const Arguments& arguments) {
    const int batch = arguments.whole(), channels = arguments.whole(), positions = arguments.whole();
    const int relu = arguments.whole(), second = arguments.whole();
    const long long second_image = arguments.whole();
    const int shift = arguments.shift, threads = arguments.threads;
    const size_t values = static_cast<size_t>(batch) * channels * positions;
    auto x = read<T>(shift), bias = read<T>(0), other = read<T>(shift);
    if (arguments.kernel == "epilogue") {
        launch(3, threads, 0, [&](const Here& here) {
            epilogue(here, batch, channels, positions, relu, second_image, x.data, bias.data,
                     second ? other.data : nullptr, x.data);
        });
        write(x);
        return;
    }
    const int span = arguments.whole();
    const long long chunks = ceil_div(batch * ceil_div(positions, WIDE<T>), span);
    Array<T> masked(values, shift);
    Array<float> partial(chunks * channels, 0), total(channels, 0);
    launch(chunks * channels, threads, threads * sizeof(float), [&](const Here& here) {
        epilogue_backward(here, batch, channels, positions, span, static_cast<long long>(channels) * positions,
                          second_image, x.data, second ? other.data : nullptr, masked.data, partial.data);
    });
    launch(2, threads, 0, [&](const Here& here) {
        sum_rows(here, static_cast<int>(chunks), channels, partial.data, total.data);
    });
    write(masked), write(total);
}

template <class T>
static void patch_cases(const Arguments& arguments) {
    ConvSizes s{};
    for (int* field : {&s.batch, &s.channels, &s.in_h, &s.in_w, &s.kernel_h, &s.kernel_w, &s.stride, &s.padding,
                       &s.out_h, &s.out_w})
        *field = arguments.whole();
    s.x_image = arguments.whole();
    const size_t columns = static_cast<size_t>(s.batch) * s.channels * s.kernel_h * s.kernel_w * s.out_h * s.out_w;
    auto x = read<T>(arguments.shift);
    const bool forward = arguments.kernel == "patches";
    Array<T> y(forward ? columns : static_cast<size_t>(s.batch) * s.channels * s.in_h * s.in_w, 0);
    launch(3, arguments.threads, 0, [&](const Here& here) {
        if (forward)
            patches(here, s, x.data, y.data);
        else
            patches_backward(here, s, x.data, y.data);
    });
    write(y);
}

template <class T>
static void pool_case(const Arguments& arguments) {
    const int planes = arguments.whole(), height = arguments.whole(), width = arguments.whole();
    auto x = read<T>(arguments.shift);
    Array<T> y(static_cast<size_t>(planes) * ((height + 1) / 2) * ((width + 1) / 2), 0);
    launch(3, arguments.threads, 0,
           [&](const Here& here) { max_pool(here, planes, height, width, x.data, y.data); });
    write(y);
}

template <class T>
static void map_cases(const Arguments& arguments) {
    const int threads = arguments.threads, kind = arguments.whole(), batch = arguments.whole();
    if (arguments.kernel == "positions") {
        const int channels = arguments.whole(), positions = arguments.whole();
        const long long z_image = arguments.whole();
        auto z = read<T>(arguments.shift);
        Array<float> map(static_cast<size_t>(batch) * positions, 0);
        launch(batch * ceil_div(positions, LANES * WIDE<T>), threads, threads * WIDE<T> * sizeof(float),
               [&](const Here& here) { position_map(here, kind, channels, positions, z_image, z.data, map.data); });
        write(map);
        return;
    }
    MapSizes s{};
    s.kind = kind, s.batch = batch, s.height = arguments.whole(), s.width = arguments.whole();
    s.scale_count = arguments.whole(), s.region = arguments.whole();
    std::vector<Array<T>> latents;
    for (int k = 0; k < s.scale_count; ++k) {
        Scale& scale = s.scales[k];
        scale.channels = arguments.whole(), scale.height = arguments.whole(), scale.width = arguments.whole();
        scale.shift = static_cast<float>(arguments.real()), scale.factor = static_cast<float>(arguments.real());
        scale.z_image = static_cast<long long>(scale.channels) * scale.height * scale.width;
        latents.push_back(read<T>(arguments.shift));
        scale.z = reinterpret_cast<unsigned long long>(latents.back().data);
    }
    Array<float> out(static_cast<size_t>(batch) * s.height * s.width, 0);
    const size_t shared = (TILE * TILE + s.region + std::max(threads, s.region)) * sizeof(float);
    launch(batch * ceil_div(s.height, TILE) * ceil_div(s.width, TILE), threads, shared,
           [&](const Here& here) { anomaly_map<T>(here, s, out.data); });
    write(out);
}

static void score_cases(const Arguments& arguments) {
    const int batch = arguments.whole();
    if (arguments.kernel == "upsample") {
        const int height = arguments.whole(), width = arguments.whole();
        const int out_h = arguments.whole(), out_w = arguments.whole();
        auto maps = read<float>(arguments.shift);
        Array<float> out(static_cast<size_t>(batch) * out_h * out_w, 0);
        launch(3, arguments.threads, 0, [&](const Here& here) {
            upsample(here, batch, height, width, out_h, out_w, static_cast<long long>(height) * width, maps.data,
                     out.data);
        });
        write(out);
        return;
    }
    const int size = arguments.whole(), k = arguments.whole();
    auto maps = read<float>(0);
    Array<float> scores(batch, 0);
    launch(batch, arguments.threads, arguments.threads * sizeof(double),
           [&](const Here& here) { image_score(here, size, k, maps.data, scores.data); });
    write(scores);
}

// Three steps of two parameters, one behind the other in memory, on three gradients, each with its loss.
static void adam_case(const Arguments& arguments) {
    AdamStep s{};
    const int size = arguments.whole(), first = size / 3;
    const double images = arguments.real(), clip = arguments.real(), learning_rate = arguments.real();
    s.beta1 = 0.9f, s.beta2 = 0.999f, s.epsilon = 1e-8f;
    s.decay = static_cast<float>(arguments.real());
    auto parameter = read<float>(0);
    auto losses = read<double>(0);
    Array<float> moments(2 * size, 0);
    std::fill(moments.data, moments.data + 2 * size, 0.0f);
    Array<double> control(CONTROLS, 0);
    std::fill(control.data, control.data + CONTROLS, 0.0);
    const int threads = arguments.threads;
    for (int step = 1; step <= 3; ++step) {
        auto gradient = read<float>(0);
        const Gradients gradients{2, {first, size - first}, {gradient.data, gradient.data + first}};
        const Parameters all{gradients, {moments.data, moments.data + 2 * first}, {parameter.data, parameter.data + first}};
        Array<double> squares(2 * PARTS, 0);
        s.rate = static_cast<float>(learning_rate / (1.0 - pow(0.9, step)));
        s.inverse2 = static_cast<float>(1.0 / sqrt(1.0 - pow(0.999, step)));
        launch(2 * PARTS, threads, threads * sizeof(double),
               [&](const Here& here) { sum_squares_of_each(here, gradients, squares.data); });
        launch(1, threads, threads * sizeof(double), [&](const Here& here) {
            decide(here, 2 * PARTS, images, clip, squares.data, losses.data + step - 1, control.data);
        });
        launch(2 * PARTS, threads, 0, [&](const Here& here) { adam_of_each(here, s, all, control.data); });
    }
    write(parameter), write(control);
}

template <class T>
static void run(const Arguments& arguments) {
    const std::string& kernel = arguments.kernel;
    if (kernel == "forward" || kernel == "backward" || kernel == "undo" || kernel == "uncouple" ||
        kernel == "accumulate")
        coupling_cases<T>(arguments);
    else if (kernel == "layer-norm" || kernel == "layer-norm-backward" || kernel == "standardise")
        norm_cases<T>(arguments);
    else if (kernel == "epilogue" || kernel == "epilogue-backward")
        epilogue_cases<T>(arguments);
    else if (kernel == "patches" || kernel == "patches-backward")
        patch_cases<T>(arguments);
    else if (kernel == "pool")
        pool_case<T>(arguments);
    else if (kernel == "positions" || kernel == "anomaly-map")
        map_cases<T>(arguments);
    else if (kernel == "upsample" || kernel == "score")
        score_cases(arguments);
    else if (kernel == "adam")
        adam_case(arguments);
}

int main(int count, char** texts) {
    if (count < 5) return 2;
    Arguments arguments{texts[1], texts[2], atoi(texts[3]), atoi(texts[4]), {}};
    for (int i = 5; i < count; ++i) arguments.numbers.push_back(atof(texts[i]));
    if (arguments.type == "f32") run<float>(arguments);
    if (arguments.type == "f16") run<f16>(arguments);
    if (arguments.type == "bf16") run<bf16>(arguments);
    return 0;
}
