// The backward scan of one task. Each chunk is run forward again from its saved boundary state,
// keeping the decays and the decayed states; then the adjoint runs through it from its end.
#pragma once
#include "forward.h"

namespace {

SCAN_INLINE int64_t groups(const ScanProblem& p) { return (p.channels + kGroup - 1) / kGroup; }

// One batch entry's terms of the sums over the batch, and of the sums over the groups of channels.
struct Partials {
    float *grad_A;                   // [block of channels][padded states][W]
    float *grad_D, *grad_delta_bias; // [block of channels][W]
    float *grad_B, *grad_C;          // [group][step in scan order][padded states]
};

// Tiles of one chunk and one block of channels, [step][W].
struct ChunkTiles {
    float *delta, *slope, *u, *grad_y; // activated step sizes, their derivative, inputs, dL/dy before the gate
    float *grad_z, *y;                 // dL/dz without its factor y; y before the gate
    float *sum_B, *sum_A;              // with G = dL/dh: sum_n G B, and sum_n G exp(delta A) h_before A log2(e)
};

// What the loop over states reads, all of it from the first of its kStates states on.
struct StateBlock {
    const Vec* rates;
    const float *B, *C; // [step][stride]
    int stride, steps;
    Vec *decay, *decayed;    // exp(delta A) and exp(delta A) h_before, [step][kStates]
    Vec *lanes_B, *lanes_C;  // terms of grad_B and grad_C, per lane, [step][stride]
};

inline void replay_chunk(const StateBlock& s, Vec (&h)[kStates], const ChunkTiles& tile) {
    for (int t = 0; t < s.steps; t++) {
        const Vec dt = load(tile.delta + t * W), input = dt * load(tile.u + t * W);
        const float *B = s.B + t * s.stride, *C = s.C + t * s.stride;
        Vec *decay = s.decay + t * kStates, *decayed = s.decayed + t * kStates;
        Vec even = load(tile.y + t * W), odd{};
#pragma GCC unroll 8
        for (int n = 0; n < kStates; n += 2) {
            decay[n] = exp2(dt * s.rates[n]), decay[n + 1] = exp2(dt * s.rates[n + 1]);
            decayed[n] = decay[n] * h[n], decayed[n + 1] = decay[n + 1] * h[n + 1];
            h[n] = decayed[n] + input * B[n], h[n + 1] = decayed[n + 1] + input * B[n + 1];
            even += h[n] * C[n], odd += h[n + 1] * C[n + 1];
        }
        store(tile.y + t * W, even + odd);
    }
}

// Last step first. `carried` is exp(delta A) dL/dh of the step after, per state.
template <bool kFirst>
inline void adjoint_chunk(const StateBlock& s, Vec* carried, const ChunkTiles& tile, float* grad_A) {
    Vec g[kStates], gA[kStates];
    for (int n = 0; n < kStates; n++) g[n] = carried[n], gA[n] = load(grad_A + n * W);
    for (int t = s.steps - 1; t >= 0; t--) {
        const Vec dt = load(tile.delta + t * W), input = dt * load(tile.u + t * W), dy = load(tile.grad_y + t * W);
        const float *B = s.B + t * s.stride, *C = s.C + t * s.stride;
        const Vec *decay = s.decay + t * kStates, *decayed = s.decayed + t * kStates;
        Vec *lanes_B = s.lanes_B + t * s.stride, *lanes_C = s.lanes_C + t * s.stride;
        Vec sum_B = load(tile.sum_B + t * W), sum_A = load(tile.sum_A + t * W);
#pragma GCC unroll 8
        for (int n = 0; n < kStates; n++) {
            const Vec h = decayed[n] + input * B[n], grad_h = g[n] + dy * C[n], r = grad_h * decayed[n];
            lanes_C[n] = kFirst ? dy * h : lanes_C[n] + dy * h;
            lanes_B[n] = kFirst ? grad_h * input : lanes_B[n] + grad_h * input;
            sum_B += grad_h * B[n];
            sum_A += r * s.rates[n];
            gA[n] += r * dt;
            g[n] = grad_h * decay[n];
        }
        store(tile.sum_B + t * W, sum_B), store(tile.sum_A + t * W, sum_A);
    }
    for (int n = 0; n < kStates; n++) carried[n] = g[n], store(grad_A + n * W, gA[n]);
}

// out = y silu(z): turn grad_y from dL/dout into dL/dy and grad_z from z into dL/dz / y.
inline void differentiate_gate(const ChunkTiles& tile, int steps) {
    for (int t = 0; t < steps; t++) {
        const Vec z = load(tile.grad_z + t * W), s = sigmoid(z), g = load(tile.grad_y + t * W);
        store(tile.grad_z + t * W, g * s * (1.0f + z * (1.0f - s)));
        store(tile.grad_y + t * W, g * z * s);
    }
}

inline void load_chunk(const Task& task, int64_t block, int64_t chunk, const ChunkTiles& tile) {
    const ScanProblem& p = task.p;
    const int length = task.length(chunk);
    task.load_block(p.u, block, chunk, tile.u);
    task.load_block(p.delta, block, chunk, tile.delta);
    task.load_block(p.grad_out, block, chunk, tile.grad_y);
    activate_steps(p, task.load_vector(p.delta_bias, block), length, tile.delta, tile.slope);
    if (p.z.data) {
        task.load_block(p.z, block, chunk, tile.grad_z);
        differentiate_gate(tile, length);
    }
    const Vec skip = task.load_vector(p.D, block);
    for (int t = 0; t < length; t++) {
        store(tile.y + t * W, skip * load(tile.u + t * W));
        store(tile.sum_B + t * W, Vec{}), store(tile.sum_A + t * W, Vec{});
    }
}

// The gradients of u, delta and z from the sums over the states.
inline void store_chunk(const Task& task, int64_t block, int64_t chunk, const ChunkTiles& tile, float* partial_D,
                        float* partial_bias) {
    const ScanProblem& p = task.p;
    const Vec skip = task.load_vector(p.D, block);
    Vec grad_D = load(partial_D), grad_bias = load(partial_bias);
    for (int t = 0; t < task.length(chunk); t++) {
        const Vec u = load(tile.u + t * W), dy = load(tile.grad_y + t * W), sum_B = load(tile.sum_B + t * W);
        const Vec grad_delta = (u * sum_B + load(tile.sum_A + t * W) * kLn2) * load(tile.slope + t * W);
        grad_D += dy * u;
        grad_bias += grad_delta;
        store(tile.u + t * W, load(tile.delta + t * W) * sum_B + skip * dy);
        store(tile.delta + t * W, grad_delta);
        if (p.z.data) store(tile.grad_z + t * W, load(tile.grad_z + t * W) * load(tile.y + t * W));
    }
    store(partial_D, grad_D), store(partial_bias, grad_bias);
    task.store_block(p.grad_u, block, chunk, tile.u);
    task.store_block(p.grad_delta, block, chunk, tile.delta);
    if (p.z.data) task.store_block(p.grad_z, block, chunk, tile.grad_z);
}

// sums[i] = the sum of the lanes of vectors[i]: each round halves the vectors and puts two into one.
inline void sum_lanes(const Vec* vectors, int count, float* sums) {
    for (int i = 0; i < count; i += W) {
        Vec rows[W];
        const int here = count - i < W ? count - i : W;
        for (int k = 0; k < W; k++) rows[k] = k < here ? vectors[i + k] : Vec{};
        for (int half = W / 2; half > 0; half /= 2)
            for (int k = 0; k < half; k++)
                rows[k] = zip_low(rows[k], rows[k + half]) + zip_high(rows[k], rows[k + half]);
        store_channels(sums + i, here, rows[0]);
    }
}

inline int scan_backward(const Task& task, const Partials& partial) {
    const ScanProblem& p = task.p;
    const int states = int(p.states), padded = task.padded_states();
    const int64_t blocks = task.blocks(), block0 = task.channel0 / W, blocks_per_group = kGroup / W;
    Scratch scratch(2 * blocks * padded * W + kChunk * (8 * W + 2 * padded + 2 * kStates * W + 2 * padded * W));
    if (scratch.failed()) return kOutOfMemory;
    Vec *rates = scratch.vectors(blocks * padded), *carried = scratch.vectors(blocks * padded);
    float* t[8];
    for (float*& tile : t) tile = scratch.floats(kChunk * W);
    const ChunkTiles tile{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]};
    float *B = scratch.floats(kChunk * padded), *C = scratch.floats(kChunk * padded);
    Vec *decay = scratch.vectors(kChunk * kStates), *decayed = scratch.vectors(kChunk * kStates);
    Vec *lanes_B = scratch.vectors(kChunk * padded), *lanes_C = scratch.vectors(kChunk * padded);
    load_rates(task, rates);
    for (int64_t i = 0; i < blocks * padded; i++) carried[i] = Vec{};

    for (int64_t chunk = task.chunks() - 1; chunk >= 0; chunk--) {
        const int length = task.length(chunk), count = length * padded;
        if (length == 0) continue;
        load_scalars(task.part<float>(p.B, 0, chunk), states, padded, length, B);
        load_scalars(task.part<float>(p.C, 0, chunk), states, padded, length, C);
        for (int64_t k = 0; k < blocks; k++) {
            load_chunk(task, k, chunk, tile);
            for (int n0 = 0; n0 < padded; n0 += kStates) {
                const int64_t first = k * padded + n0;
                const StateBlock block{rates + first, B + n0,       C + n0, padded, length, decay, decayed,
                                       lanes_B + n0,  lanes_C + n0};
                Vec h[kStates]{};
                for (int n = 0; n < kStates && n0 + n < states; n++)
                    h[n] = load_channels(task.boundary_state(chunk, n0 + n, k), task.rows(k));
                replay_chunk(block, h, tile);
                float* grad_A = partial.grad_A + (block0 * padded + first) * W;
                k % blocks_per_group == 0 ? adjoint_chunk<true>(block, carried + first, tile, grad_A)
                                          : adjoint_chunk<false>(block, carried + first, tile, grad_A);
            }
            store_chunk(task, k, chunk, tile, partial.grad_D + (block0 + k) * W,
                        partial.grad_delta_bias + (block0 + k) * W);
            if ((k + 1) % blocks_per_group == 0 || k + 1 == blocks) {
                const int64_t group = (block0 + k) / blocks_per_group;
                const int64_t offset = (group * p.steps + task.begin(chunk)) * padded;
                sum_lanes(lanes_B, count, partial.grad_B + offset);
                sum_lanes(lanes_C, count, partial.grad_C + offset);
            }
        }
    }
    const ScanTensor gradients[] = {p.grad_u, p.grad_delta, p.grad_z};
    for (const ScanTensor& gradient : gradients)
        if (gradient.data) clear_padding(p, gradient, task.b, task.channel0, task.channel1 - task.channel0);
    return 0;
}

} // namespace
