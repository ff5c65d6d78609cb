// Parallel depthwise causal convolutions and SiLU, forward and backward: out_k = silu(bias_k + weights_k * x).
//
// Loops, outermost first: chunk of time, vector block of channels, kernel, step, tap. All kernels read one tile of x,
// which holds the kernels' history before the chunk, and add to one tile of grad_x.
#pragma once
#include "tile.h"

namespace {

struct ConvolutionTask {
    const ConvolutionProblem& p;
    int64_t b, channel0, channel1;

    int64_t blocks() const { return (channel1 - channel0 + W - 1) / W; }
    int64_t first_channel(int64_t block) const { return channel0 + block * W; }
    int rows(int64_t block) const {
        const int64_t left = channel1 - first_channel(block);
        return left < W ? int(left) : W;
    }
    int history() const {
        int64_t widest = 1;
        for (int64_t k = 0; k < p.kernels; k++) widest = p.widths[k] > widest ? p.widths[k] : widest;
        return int(widest) - 1;
    }
    // Channels of a block from step t on, in the order in which the convolution looks back.
    template <class Element> View<Element> part(const ConvolutionTensor& x, int64_t block, int64_t t) const {
        Element* data = (Element*)x.data + b * x.stride_batch + first_channel(block);
        if (p.reverse) return View<Element>{data + (p.steps - 1) * x.stride_time, 1, -x.stride_time}.from(0, t);
        return View<Element>{data, 1, x.stride_time}.from(0, t);
    }
    void load(const ConvolutionTensor& x, int64_t block, int64_t t, int steps, float* tile) const {
        p.bfloat16 ? load_part(part<Bfloat16>(x, block, t), rows(block), steps, tile)
                   : load_part(part<float>(x, block, t), rows(block), steps, tile);
    }
    template <class Element> void load_part(const View<Element>& x, int rows, int steps, float* tile) const {
        load_tile(x, rows, steps, tile);
        for (int t = 0; t < steps; t++) prefetch(x.data + t * x.time + W);
    }
    // Steps before 0 are left out: they are nobody's.
    void store(const ConvolutionTensor& x, int64_t block, int64_t t, int steps, const float* tile) const {
        const int64_t skip = t < 0 ? -t : 0;
        if (skip >= steps) return;
        p.bfloat16 ? store_tile(part<Bfloat16>(x, block, t + skip), rows(block), int(steps - skip), tile + skip * W)
                   : store_tile(part<float>(x, block, t + skip), rows(block), int(steps - skip), tile + skip * W);
    }
    // x from `history` steps before t on; steps before 0 are zero.
    void load_with_history(int64_t block, int64_t t, int steps, int history, float* tile) const {
        const int64_t missing = t < history ? history - t : 0;
        memset(tile, 0, missing * W * sizeof(float));
        load(p.x, block, t - history + missing, int(steps + history - missing), tile + missing * W);
    }
    Vec vector(const float* x, int64_t block) const { return load_channels(x + first_channel(block), rows(block)); }
};

// A kernel width that is known when compiling keeps weights and sums in registers; 0 stands for any other.
constexpr int kMaxTaps = 64;

template <int kWidth> struct Taps {
    const int width;
    Vec weights[kWidth ? kWidth : kMaxTaps], bias;

    Taps(const ConvolutionTask& task, int64_t k, int64_t block) : width(kWidth ? kWidth : int(task.p.widths[k])) {
        for (int j = 0; j < count(); j++) weights[j] = task.vector(task.p.weights[k] + j * task.p.channels, block);
        bias = task.vector(task.p.biases[k], block);
    }
    int count() const { return kWidth ? kWidth : width; }
    // `x` points at the oldest step that the kernel sees.
    Vec convolve(const float* x) const {
        Vec sum = bias;
        for (int j = 0; j < count(); j++) sum += weights[j] * ::load(x + j * W);
        return sum;
    }
};

template <int kWidth>
inline void convolve_forward(const ConvolutionTask& task, int64_t k, int64_t block, int steps, const float* x, float* y) {
    const Taps<kWidth> taps(task, k, block);
    for (int t = 0; t < steps; t++) {
        const Vec sum = taps.convolve(x + t * W);
        store(y + t * W, sum * sigmoid(sum));
    }
}

// sums: the gradients of the taps, then of the bias. x and grad_x point at the oldest step that the kernel sees.
template <int kWidth>
inline void convolve_backward(const ConvolutionTask& task, int64_t k, int64_t block, int steps, const float* x,
                              const float* grad, float* grad_x, Vec* sums) {
    const Taps<kWidth> taps(task, k, block);
    Vec totals[(kWidth ? kWidth : kMaxTaps) + 1];
    for (int j = 0; j <= taps.count(); j++) totals[j] = sums[j];
    for (int t = 0; t < steps; t++) {
        const Vec sum = taps.convolve(x + t * W), s = sigmoid(sum);
        const Vec slope = load(grad + t * W) * (s + sum * s * (1.0f - s));
        for (int j = 0; j < taps.count(); j++) {
            totals[j] += slope * load(x + (t + j) * W);
            float* target = grad_x + (t + j) * W;
            store(target, load(target) + taps.weights[j] * slope);
        }
        totals[taps.count()] += slope;
    }
    for (int j = 0; j <= taps.count(); j++) sums[j] = totals[j];
}

#define CONVOLUTION_BY_WIDTH(function, ...)                                                                            \
    switch (task.p.widths[k]) {                                                                                        \
    case 1: function<1>(__VA_ARGS__); break;                                                                           \
    case 2: function<2>(__VA_ARGS__); break;                                                                           \
    case 3: function<3>(__VA_ARGS__); break;                                                                           \
    case 4: function<4>(__VA_ARGS__); break;                                                                           \
    case 8: function<8>(__VA_ARGS__); break;                                                                           \
    default: function<0>(__VA_ARGS__);                                                                                 \
    }

inline int convolution_forward(const ConvolutionTask& task) {
    const ConvolutionProblem& p = task.p;
    const int history = task.history();
    Scratch scratch((2 * kChunk + history) * W);
    if (scratch.failed()) return kOutOfMemory;
    float *x = scratch.floats((kChunk + history) * W), *y = scratch.floats(kChunk * W);
    for (int64_t t = 0; t < p.steps; t += kChunk) {
        const int steps = p.steps - t < kChunk ? int(p.steps - t) : kChunk;
        for (int64_t block = 0; block < task.blocks(); block++) {
            task.load_with_history(block, t, steps, history, x);
            for (int64_t k = 0; k < p.kernels; k++) {
                const float* oldest = x + (history + 1 - p.widths[k]) * W;
                CONVOLUTION_BY_WIDTH(convolve_forward, task, k, block, steps, oldest, y)
                task.store(p.out[k], block, t, steps, y);
            }
        }
    }
    return 0;
}

inline int convolution_backward(const ConvolutionTask& task) {
    const ConvolutionProblem& p = task.p;
    const int history = task.history();
    int64_t sums_per_block = 0;
    for (int64_t k = 0; k < p.kernels; k++) sums_per_block += p.widths[k] + 1;
    const int64_t carried = task.blocks() * history * W, summed = task.blocks() * sums_per_block;
    Scratch scratch((3 * kChunk + 2 * history) * W + carried + summed * W);
    if (scratch.failed()) return kOutOfMemory;
    float *x = scratch.floats((kChunk + history) * W), *grad = scratch.floats(kChunk * W);
    float *grad_x = scratch.floats((kChunk + history) * W), *carry = scratch.floats(carried);
    Vec* sums = scratch.vectors(summed);
    memset(carry, 0, carried * sizeof(float));
    for (int64_t i = 0; i < summed; i++) sums[i] = Vec{};

    for (int64_t t = 0; t < p.steps; t += kChunk) {
        const int steps = p.steps - t < kChunk ? int(p.steps - t) : kChunk;
        for (int64_t block = 0; block < task.blocks(); block++) {
            // The last steps before the chunk still receive from inside it.
            float* unfinished = carry + block * history * W;
            memcpy(grad_x, unfinished, history * W * sizeof(float));
            memset(grad_x + history * W, 0, steps * W * sizeof(float));
            task.load_with_history(block, t, steps, history, x);
            Vec* own = sums + block * sums_per_block;
            for (int64_t k = 0; k < p.kernels; own += p.widths[k++] + 1) {
                const int64_t oldest = (history + 1 - p.widths[k]) * W;
                task.load(p.grad_out[k], block, t, steps, grad);
                CONVOLUTION_BY_WIDTH(convolve_backward, task, k, block, steps, x + oldest, grad, grad_x + oldest, own)
            }
            task.store(p.grad_x, block, t - history, steps, grad_x);
            memcpy(unfinished, grad_x + steps * W, history * W * sizeof(float));
        }
    }
    for (int64_t block = 0; block < task.blocks(); block++) {
        task.store(p.grad_x, block, p.steps - history, history, carry + block * history * W);
        const Vec* own = sums + block * sums_per_block;
        for (int64_t k = 0; k < p.kernels; own += p.widths[k++] + 1) {
            const int64_t first = task.first_channel(block);
            for (int64_t j = 0; j < p.widths[k]; j++)
                store_channels(p.grad_weights[k] + (task.b * p.widths[k] + j) * p.channels + first, task.rows(block),
                               own[j]);
            store_channels(p.grad_biases[k] + task.b * p.channels + first, task.rows(block), own[p.widths[k]]);
        }
    }
    return 0;
}

} // namespace
