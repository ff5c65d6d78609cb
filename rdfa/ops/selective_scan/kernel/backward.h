// The backward scan of one task. Each chunk is run forward again from its saved boundary state,
// keeping the decays and the decayed states; then the adjoint runs through it from its end.
#pragma once
#include "forward.h"

namespace {

SCAN_INLINE int64_t groups(const ScanProblem& p) { return (p.channels + kGroup - 1) / kGroup; }

// One batch entry's terms of the sums over the batch, and of the sums over the groups of channels.
struct Partials {
    float *grad_A;                   // [block of channels][padded states][channel of the block]
    float *grad_D, *grad_delta_bias; // [channel]
    float *grad_B, *grad_C;          // [group][step in scan order][padded states]
};

// Tiles of one chunk and one block of channels, [step][kBlock].
struct ChunkTiles {
    float *delta, *slope, *u, *input;  // activated step sizes, their derivative, u, delta u
    float *grad_y, *grad_z, *y;        // dL/dy before the gate; dL/dz without its factor y; y before the gate
    float *sum_B, *sum_A;              // with G = dL/dh: sum_n G B, and sum_n G exp(delta A) h_before A log2(e)
};

// What the loops over states read, all of it from the first of their kStates states on.
struct StateBlock {
    const Wide* rates;
    const float *B, *C; // [step][stride]
    int stride, steps;
    Wide *decay, *decayed;  // exp(delta A) and exp(delta A) h_before, [step][kStates]
    Vec *lanes_B, *lanes_C; // terms of grad_B, and of grad_C without the last input's, per lane, [step][stride]
};

// The structs are passed by value: their pointers then stay in registers.
inline void replay_chunk(StateBlock s, const Wide (&start)[kStates], ChunkTiles tile, const Ahead& ahead, int turn,
                         int turns) {
    Wide h[kStates];
    for (int n = 0; n < kStates; n++) h[n] = start[n];
    for (int t = 0; t < s.steps; t++) {
        ahead.ask(t, turn, turns);
        const Wide dt = load_wide(tile.delta + t * kBlock), input = load_wide(tile.input + t * kBlock);
        Wide y = load_wide(tile.y + t * kBlock);
#pragma GCC unroll 8
        for (int n = 0; n < kStates; n++) {
            const Wide decay = exp2(dt * s.rates[n]), decayed = decay * h[n];
            s.decay[t * kStates + n] = decay, s.decayed[t * kStates + n] = decayed;
            h[n] = decayed + input * s.B[t * s.stride + n];
            y += h[n] * s.C[t * s.stride + n];
        }
        store(tile.y + t * kBlock, y);
    }
}

// Last step first. `carried` is exp(delta A) dL/dh of the step after, per state.
template <bool kFirst> inline void adjoint_chunk(StateBlock s, Wide* carried, ChunkTiles tile, Wide* grad_A) {
    Wide g[kStates], gA[kStates];
    for (int n = 0; n < kStates; n++) g[n] = carried[n], gA[n] = grad_A[n];
    for (int t = s.steps - 1; t >= 0; t--) {
        const Wide dt = load_wide(tile.delta + t * kBlock), input = load_wide(tile.input + t * kBlock);
        const Wide dy = load_wide(tile.grad_y + t * kBlock);
        Wide sum_B = load_wide(tile.sum_B + t * kBlock), sum_A = load_wide(tile.sum_A + t * kBlock);
#pragma GCC unroll 8
        for (int n = 0; n < kStates; n++) {
            const Wide grad_h = g[n] + dy * s.C[t * s.stride + n], decayed = s.decayed[t * kStates + n];
            const Wide r = grad_h * decayed;
            Vec &lane_B = s.lanes_B[t * s.stride + n], &lane_C = s.lanes_C[t * s.stride + n];
            lane_B = kFirst ? sum(grad_h * input) : lane_B + grad_h.a * input.a + grad_h.b * input.b;
            lane_C = kFirst ? sum(dy * decayed) : lane_C + dy.a * decayed.a + dy.b * decayed.b;
            sum_B += grad_h * s.B[t * s.stride + n];
            sum_A += r * s.rates[n];
            gA[n] += r * dt;
            g[n] = grad_h * s.decay[t * kStates + n];
        }
        store(tile.sum_B + t * kBlock, sum_B), store(tile.sum_A + t * kBlock, sum_A);
    }
    for (int n = 0; n < kStates; n++) carried[n] = g[n], grad_A[n] = gA[n];
}

// `lanes_y` gathers sum_d dL/dy delta u: the term of the last input in grad_C, which is B times this for every state.
inline void load_chunk(const Task& task, int64_t block, int64_t chunk, const ChunkTiles& tile, Vec* lanes_y, bool first) {
    const ScanProblem& p = task.p;
    task.load_block(p.u, block, chunk, tile.u);
    task.load_block(p.delta, block, chunk, tile.delta);
    task.load_block(p.grad_out, block, chunk, tile.grad_y);
    if (p.z.data) task.load_block(p.z, block, chunk, tile.grad_z);
    const Wide bias = task.load_vector(p.delta_bias, block), skip = task.load_vector(p.D, block);
    for (int t = 0; t < task.length(chunk); t++) {
        const int i = t * kBlock;
        const Wide u = load_wide(tile.u + i);
        Wide dt = load_wide(tile.delta + i) + bias, slope = splat_wide(1.0f), dy = load_wide(tile.grad_y + i);
        if (p.softplus) softplus(dt, dt, slope);
        if (p.z.data) { // out = y silu(z)
            const Wide z = load_wide(tile.grad_z + i), s = sigmoid(z);
            store(tile.grad_z + i, dy * s * (z * (1.0f - s) + 1.0f));
            dy = dy * z * s;
        }
        const Wide input = dt * u;
        store(tile.delta + i, dt), store(tile.slope + i, slope), store(tile.input + i, input);
        store(tile.grad_y + i, dy), store(tile.y + i, skip * u);
        store(tile.sum_B + i, splat_wide(0.0f)), store(tile.sum_A + i, splat_wide(0.0f));
        lanes_y[t] = (first ? Vec{} : lanes_y[t]) + sum(dy * input);
    }
}

// The gradients of u, delta and z from the sums over the states.
inline void store_chunk(const Task& task, int64_t block, int64_t chunk, const ChunkTiles& tile, float* partial_D,
                        float* partial_bias) {
    const ScanProblem& p = task.p;
    const Wide skip = task.load_vector(p.D, block);
    Wide grad_D = load_wide(partial_D), grad_bias = load_wide(partial_bias);
    for (int i = 0; i < task.length(chunk) * kBlock; i += kBlock) {
        const Wide u = load_wide(tile.u + i), dy = load_wide(tile.grad_y + i), sum_B = load_wide(tile.sum_B + i);
        const Wide grad_delta = (u * sum_B + load_wide(tile.sum_A + i) * kLn2) * load_wide(tile.slope + i);
        grad_D += dy * u;
        grad_bias += grad_delta;
        store(tile.u + i, load_wide(tile.delta + i) * sum_B + skip * dy);
        store(tile.delta + i, grad_delta);
        if (p.z.data) store(tile.grad_z + i, load_wide(tile.grad_z + i) * load_wide(tile.y + i));
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
    const int64_t blocks = task.blocks(), block0 = task.channel0 / kBlock, blocks_per_group = kGroup / kBlock;
    Scratch scratch(2 * blocks * padded * kBlock +
                    kChunk * (9 * kBlock + 2 * padded + 2 * kStates * kBlock + 2 * padded * W + W + 1));
    if (scratch.failed()) return kOutOfMemory;
    Wide *rates = scratch.wides(blocks * padded), *carried = scratch.wides(blocks * padded);
    float* t[9];
    for (float*& tile : t) tile = scratch.floats(kChunk * kBlock);
    const ChunkTiles tile{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8]};
    float *B = scratch.floats(kChunk * padded), *C = scratch.floats(kChunk * padded), *sum_y = scratch.floats(kChunk);
    Wide *decay = scratch.wides(kChunk * kStates), *decayed = scratch.wides(kChunk * kStates);
    Vec *lanes_B = scratch.vectors(kChunk * padded), *lanes_C = scratch.vectors(kChunk * padded);
    Vec* lanes_y = scratch.vectors(kChunk);
    const ScanTensor inputs[] = {p.u, p.delta, p.grad_out, p.z}, gradients[] = {p.grad_u, p.grad_delta, p.grad_z};
    load_rates(task, rates);
    for (int64_t i = 0; i < blocks * padded; i++) carried[i] = splat_wide(0.0f);

    for (int64_t chunk = task.chunks() - 1; chunk >= 0; chunk--) {
        const int length = task.length(chunk);
        if (length == 0) continue;
        load_scalars(task.part<float>(p.B, 0, chunk), states, padded, length, B);
        load_scalars(task.part<float>(p.C, 0, chunk), states, padded, length, C);
        for (int64_t k = 0; k < blocks; k++) {
            const int64_t next = k + 1 < blocks ? k + 1 : 0, next_chunk = next ? chunk : chunk - 1;
            Ahead ahead;
            for (const ScanTensor& x : gradients) ahead.add(task, x, k, chunk);
            for (const ScanTensor& x : inputs) ahead.add(task, x, next, next_chunk);
            ahead.add_boundary_states(task, next, next_chunk);

            const int64_t group = (block0 + k) / blocks_per_group;
            const int64_t offset = (group * p.steps + task.begin(chunk)) * padded;
            float *grad_B = partial.grad_B + offset, *grad_C = partial.grad_C + offset;
            const bool first = k % blocks_per_group == 0, last = (k + 1) % blocks_per_group == 0 || k + 1 == blocks;
            if (last) ahead.add(grad_B, padded * sizeof(float), (char*)grad_C - (char*)grad_B);

            load_chunk(task, k, chunk, tile, lanes_y, first);
            for (int n0 = 0; n0 < padded; n0 += kStates) {
                const int64_t at = k * padded + n0;
                const StateBlock block{rates + at, B + n0, C + n0, padded, length, decay, decayed, lanes_B + n0,
                                       lanes_C + n0};
                Wide h[kStates]{};
                for (int n = 0; n < kStates && n0 + n < states; n++)
                    h[n] = task.load_vector(task.boundary_state(chunk, n0 + n), k);
                replay_chunk(block, h, tile, ahead, n0 / kStates, padded / kStates);
                Wide* grad_A = (Wide*)partial.grad_A + block0 * padded + at;
                first ? adjoint_chunk<true>(block, carried + at, tile, grad_A)
                      : adjoint_chunk<false>(block, carried + at, tile, grad_A);
            }
            store_chunk(task, k, chunk, tile, partial.grad_D + (block0 + k) * kBlock,
                        partial.grad_delta_bias + (block0 + k) * kBlock);
            if (last) {
                sum_lanes(lanes_B, length * padded, grad_B);
                sum_lanes(lanes_C, length * padded, grad_C);
                sum_lanes(lanes_y, length, sum_y);
                for (int t = 0; t < length; t++)
                    for (int n = 0; n < padded; n++) grad_C[t * padded + n] += B[t * padded + n] * sum_y[t];
            }
        }
    }
    for (const ScanTensor& gradient : gradients)
        if (gradient.data) clear_padding(p, gradient, task.b, task.channel0, task.channel1 - task.channel0);
    return 0;
}

} // namespace
