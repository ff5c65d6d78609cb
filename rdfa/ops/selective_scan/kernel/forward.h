// The forward scan of one task: one batch entry, a range of channels.
//
// Loops, outermost first: chunk of time, vector block of channels, block of states, step, state.
// A block's states stay in registers for the chunk; there is no horizontal sum anywhere.
#pragma once
#include "tile.h"

namespace {

SCAN_INLINE int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

struct Task {
    const ScanProblem& p;
    int64_t b, channel0, channel1; // channel0 is a multiple of kGroup

    int64_t chunks() const { return (p.steps + kChunk - 1) / kChunk; }
    int64_t blocks() const { return (channel1 - channel0 + W - 1) / W; }
    int padded_states() const { return int(round_up(p.states, kStates)); }
    int64_t first_channel(int64_t block) const { return channel0 + block * W; }
    int rows(int64_t block) const {
        const int64_t left = channel1 - first_channel(block);
        return left < W ? int(left) : W;
    }
    // The valid steps of a chunk: `length` of them from `begin` on, in scan order.
    int64_t begin(int64_t chunk) const {
        const int64_t first = first_valid(p, b), start = chunk * kChunk;
        return first > start ? first : start;
    }
    int length(int64_t chunk) const {
        const int64_t last = last_valid(p, b), end = (chunk + 1) * kChunk;
        const int64_t left = (last < end ? last : end) - begin(chunk);
        return left > 0 ? int(left) : 0;
    }
    float* boundary_state(int64_t chunk, int n, int64_t block) const {
        return p.boundary_states + ((b * chunks() + chunk) * p.states + n) * p.channels + first_channel(block);
    }

    // The part of a tensor that belongs to a chunk's valid steps, from `row` on.
    template <class Element> View<Element> part(const ScanTensor& x, int64_t row, int64_t chunk) const {
        return view<Element>(p, x, b).from(row, begin(chunk));
    }
    void load_block(const ScanTensor& x, int64_t block, int64_t chunk, float* tile) const {
        const int64_t row = first_channel(block);
        x.bfloat16 ? load_tile(part<Bfloat16>(x, row, chunk), rows(block), length(chunk), tile)
                   : load_tile(part<float>(x, row, chunk), rows(block), length(chunk), tile);
    }
    void store_block(const ScanTensor& x, int64_t block, int64_t chunk, const float* tile) const {
        const int64_t row = first_channel(block);
        x.bfloat16 ? store_tile(part<Bfloat16>(x, row, chunk), rows(block), length(chunk), tile)
                   : store_tile(part<float>(x, row, chunk), rows(block), length(chunk), tile);
    }
    Vec load_vector(const float* x, int64_t block) const {
        return load_channels(x ? x + first_channel(block) : nullptr, rows(block));
    }
};

// rates[block][n] = log2(e) A[:, n], so that exp(delta A) = 2^(delta rate); 0 in the padding.
inline void load_rates(const Task& task, Vec* rates) {
    const int states = int(task.p.states), padded = task.padded_states();
    for (int64_t block = 0; block < task.blocks(); block++) {
        const float* A = task.p.A + task.first_channel(block) * states;
        for (int n = 0; n < padded; n++) {
            Vec& rate = rates[block * padded + n] = Vec{};
            for (int k = 0; n < states && k < task.rows(block); k++) rate[k] = A[k * states + n] * kLog2e;
        }
    }
}

// The step sizes: delta[t] = softplus(delta[t] + bias), and its slope where one is asked for.
inline void activate_steps(const ScanProblem& p, Vec bias, int steps, float* delta, float* slope) {
    for (int t = 0; t < steps; t++) {
        const Vec x = load(delta + t * W) + bias;
        Vec value = x, derivative = splat(1.0f);
        if (p.softplus) softplus(x, value, derivative);
        store(delta + t * W, value);
        if (slope) store(slope + t * W, derivative);
    }
}

// h = exp(delta A) h + delta u B, y += C h over one chunk, for kStates states kept in registers.
inline void scan_chunk(const Vec* rates, Vec* state, const float* delta, const float* u, const float* B, const float* C,
                       int stride, int steps, float* y) {
    Vec h[kStates];
    for (int n = 0; n < kStates; n++) h[n] = state[n];
    for (int t = 0; t < steps; t++) {
        const Vec dt = load(delta + t * W), input = dt * load(u + t * W);
        Vec even = load(y + t * W), odd{};
#pragma GCC unroll 8
        for (int n = 0; n < kStates; n += 2) {
            h[n] = exp2(dt * rates[n]) * h[n] + input * B[t * stride + n];
            h[n + 1] = exp2(dt * rates[n + 1]) * h[n + 1] + input * B[t * stride + n + 1];
            even += h[n] * C[t * stride + n];
            odd += h[n + 1] * C[t * stride + n + 1];
        }
        store(y + t * W, even + odd);
    }
    for (int n = 0; n < kStates; n++) state[n] = h[n];
}

inline int scan_forward(const Task& task) {
    const ScanProblem& p = task.p;
    const int states = int(p.states), padded = task.padded_states();
    const int64_t blocks = task.blocks();
    Scratch scratch(2 * blocks * padded * W + kChunk * (4 * W + 2 * padded));
    if (scratch.failed()) return kOutOfMemory;
    Vec *rates = scratch.vectors(blocks * padded), *state = scratch.vectors(blocks * padded);
    float *u = scratch.floats(kChunk * W), *delta = scratch.floats(kChunk * W), *z = scratch.floats(kChunk * W);
    float *y = scratch.floats(kChunk * W), *B = scratch.floats(kChunk * padded), *C = scratch.floats(kChunk * padded);
    load_rates(task, rates);
    for (int64_t i = 0; i < blocks * padded; i++) state[i] = Vec{};

    for (int64_t chunk = 0; chunk < task.chunks(); chunk++) {
        const int length = task.length(chunk);
        load_scalars(task.part<float>(p.B, 0, chunk), states, padded, length, B);
        load_scalars(task.part<float>(p.C, 0, chunk), states, padded, length, C);
        for (int64_t k = 0; k < blocks; k++) {
            Vec* h = state + k * padded;
            for (int n = 0; p.boundary_states && n < states; n++)
                store_channels(task.boundary_state(chunk, n, k), task.rows(k), h[n]);
            task.load_block(p.u, k, chunk, u);
            task.load_block(p.delta, k, chunk, delta);
            activate_steps(p, task.load_vector(p.delta_bias, k), length, delta, nullptr);
            const Vec skip = task.load_vector(p.D, k);
            for (int t = 0; t < length; t++) store(y + t * W, skip * load(u + t * W));
            for (int n = 0; n < padded; n += kStates)
                scan_chunk(rates + k * padded + n, h + n, delta, u, B + n, C + n, padded, length, y);
            if (p.z.data) {
                task.load_block(p.z, k, chunk, z);
                for (int t = 0; t < length; t++) {
                    const Vec gate = load(z + t * W);
                    store(y + t * W, load(y + t * W) * (gate * sigmoid(gate)));
                }
            }
            task.store_block(p.out, k, chunk, y);
        }
    }
    clear_padding(p, p.out, task.b, task.channel0, task.channel1 - task.channel0);
    return 0;
}

} // namespace
