// One instruction set's kernel: compiled once per set, with its flags and -DSCAN_VARIANT=<name>.
// Spreads the tasks over threads and adds up what several tasks contribute to.
#include "backward.h"
#include "convolution.h"

#define SCAN_JOIN(a, b) a##b
#define SCAN_NAME(prefix, variant) SCAN_JOIN(prefix, variant)

namespace {

// Into how many tasks a batch entry is cut: no more than keep the threads busy, since a task that
// spans all channels walks through memory in order.
inline int64_t tasks_per_entry(const ScanProblem& p) {
    if (p.batch % p.threads == 0) return 1;
    return groups(p) < p.threads ? groups(p) : p.threads;
}

inline Task make_task(const ScanProblem& p, int64_t index) {
    const int64_t parts = tasks_per_entry(p), part = index % parts;
    const int64_t first = groups(p) * part / parts * kGroup, last = groups(p) * (part + 1) / parts * kGroup;
    return {p, index / parts, first, last < p.channels ? last : p.channels};
}

// grad_B or grad_C of one batch entry: the sum over the groups of channels, gathered in the first.
inline void sum_groups(const ScanProblem& p, int64_t b, const ScanTensor& target, float* partial) {
    const int64_t padded = round_up(p.states, kStates);
    const View<float> out = view<float>(p, target, b);
    for (int64_t t = first_valid(p, b); t < last_valid(p, b); t++) {
        float *sum = partial + t * padded, *row = out.data + t * out.time;
        for (int64_t g = 1; g < groups(p); g++)
            for (int64_t n = 0; n < padded; n++) sum[n] += sum[g * p.steps * padded + n];
        for (int64_t n = 0; n < p.states; n++) row[n * out.row] = sum[n];
    }
    clear_padding(p, target, b, 0, p.states);
}

// The gradients that have no batch dimension: the sum over the batch, for one channel.
inline void sum_batch(const ScanProblem& p, int64_t d, const Partials* partials) {
    const int64_t padded = round_up(p.states, kStates), block = d / kBlock, lane = d % kBlock;
    float sum_D = 0.0f, sum_bias = 0.0f;
    for (int64_t b = 0; b < p.batch; b++) {
        sum_D += partials[b].grad_D[d];
        sum_bias += partials[b].grad_delta_bias[d];
    }
    p.grad_D[d] = sum_D, p.grad_delta_bias[d] = sum_bias;
    for (int64_t n = 0; n < p.states; n++) {
        float sum = 0.0f;
        for (int64_t b = 0; b < p.batch; b++) sum += partials[b].grad_A[(block * padded + n) * kBlock + lane];
        p.grad_A[d * p.states + n] = sum;
    }
}

// Convolutions: one task per batch entry and, where threads would idle, per part of the channels.
template <int (*function)(const ConvolutionTask&)> inline int convolve(const ConvolutionProblem& p) {
    const int64_t vectors = (p.channels + W - 1) / W;
    const int64_t parts = p.batch % p.threads == 0 ? 1 : (vectors < p.threads ? vectors : p.threads);
    const int64_t tasks = p.batch * parts;
    int failed = 0;
#pragma omp parallel for num_threads(p.threads) schedule(dynamic) reduction(| : failed) if (p.threads > 1)
    for (int64_t i = 0; i < tasks; i++) {
        const FlushDenormals flush;
        const int64_t part = i % parts, first = vectors * part / parts * W, last = vectors * (part + 1) / parts * W;
        failed |= function({p, i / parts, first, last < p.channels ? last : p.channels});
    }
    return failed;
}

} // namespace

extern "C" int SCAN_NAME(convolution_forward_, SCAN_VARIANT)(const ConvolutionProblem* problem) {
    return convolve<convolution_forward>(*problem);
}

extern "C" int SCAN_NAME(convolution_backward_, SCAN_VARIANT)(const ConvolutionProblem* problem) {
    return convolve<convolution_backward>(*problem);
}

extern "C" int SCAN_NAME(scan_forward_, SCAN_VARIANT)(const ScanProblem* problem) {
    const ScanProblem& p = *problem;
    const int64_t tasks = p.batch * tasks_per_entry(p);
    int failed = 0;
#pragma omp parallel for num_threads(p.threads) schedule(dynamic) reduction(| : failed) if (p.threads > 1)
    for (int64_t i = 0; i < tasks; i++) {
        const FlushDenormals flush;
        failed |= scan_forward(make_task(p, i));
    }
    return failed;
}

extern "C" int SCAN_NAME(scan_backward_, SCAN_VARIANT)(const ScanProblem* problem) {
    const ScanProblem& p = *problem;
    const int64_t tasks = p.batch * tasks_per_entry(p), padded = round_up(p.states, kStates);
    const int64_t channels = groups(p) * kGroup, summed = groups(p) * p.steps * padded;
    const int64_t own = channels * (padded + 2), size = round_up(own + 2 * summed, W);
    Scratch scratch(p.batch * size), table(p.batch * int64_t(sizeof(Partials) / sizeof(float)));
    if (scratch.failed() || table.failed()) return kOutOfMemory;
    Partials* partials = (Partials*)table.floats(0);
    for (int64_t b = 0; b < p.batch; b++) {
        float *first = scratch.floats(0) + b * size, *vectors = first + channels * padded;
        memset(first, 0, own * sizeof(float));
        partials[b] = {first, vectors, vectors + channels, first + own, first + own + summed};
    }
    int failed = 0;
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
    {
        const FlushDenormals flush;
#pragma omp for schedule(dynamic) reduction(| : failed)
        for (int64_t i = 0; i < tasks; i++) {
            const Task task = make_task(p, i);
            failed |= scan_backward(task, partials[task.b]);
        }
#pragma omp for schedule(static) nowait
        for (int64_t b = 0; b < p.batch; b++) {
            sum_groups(p, b, p.grad_B, partials[b].grad_B);
            sum_groups(p, b, p.grad_C, partials[b].grad_C);
        }
#pragma omp for schedule(static)
        for (int64_t d = 0; d < p.channels; d++) sum_batch(p, d, partials);
    }
    return failed;
}
