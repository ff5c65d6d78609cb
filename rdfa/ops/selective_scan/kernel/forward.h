// The forward scan of one task: one batch entry, a range of channels.
//
// Loops, outermost first: chunk of time, block of channels, block of states, step, state.
// A block's states stay in registers for the chunk; there is no horizontal sum anywhere.
#pragma once
#include "tile.h"

namespace {

SCAN_INLINE int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

constexpr int kBlock = 2 * W; // channels of a block: one Wide

struct Task {
    const ScanProblem& p;
    int64_t b, channel0, channel1; // channel0 is a multiple of kGroup

    int64_t chunks() const { return (p.steps + kChunk - 1) / kChunk; }
    int64_t blocks() const { return (channel1 - channel0 + kBlock - 1) / kBlock; }
    int padded_states() const { return int(round_up(p.states, kStates)); }
    int64_t first_channel(int64_t block, int half = 0) const { return channel0 + block * kBlock + half * W; }
    // Channels of half a block: from W down to none.
    int rows(int64_t block, int half) const {
        const int64_t left = channel1 - first_channel(block, half);
        return left < 0 ? 0 : left < W ? int(left) : W;
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
    float* boundary_state(int64_t chunk, int n) const { // of all channels
        return p.boundary_states + ((b * chunks() + chunk) * p.states + n) * p.channels;
    }

    // The part of a tensor that belongs to a chunk's valid steps, from `row` on.
    template <class Element> View<Element> part(const ScanTensor& x, int64_t row, int64_t chunk) const {
        return view<Element>(p, x, b).from(row, begin(chunk));
    }
    template <class Element> void load_part(const ScanTensor& x, int64_t block, int64_t chunk, float* tile) const {
        for (int half = 0; half < 2; half++)
            load_tile(part<Element>(x, first_channel(block, half), chunk), rows(block, half), length(chunk),
                      tile + half * W, kBlock);
    }
    template <class Element> void store_part(const ScanTensor& x, int64_t block, int64_t chunk, const float* tile) const {
        for (int half = 0; half < 2; half++)
            store_tile(part<Element>(x, first_channel(block, half), chunk), rows(block, half), length(chunk),
                       tile + half * W, kBlock);
    }
    void load_block(const ScanTensor& x, int64_t block, int64_t chunk, float* tile) const {
        x.bfloat16 ? load_part<Bfloat16>(x, block, chunk, tile) : load_part<float>(x, block, chunk, tile);
    }
    void store_block(const ScanTensor& x, int64_t block, int64_t chunk, const float* tile) const {
        x.bfloat16 ? store_part<Bfloat16>(x, block, chunk, tile) : store_part<float>(x, block, chunk, tile);
    }
    // A per-channel vector; zero without one.
    Wide load_vector(const float* x, int64_t block) const {
        if (!x) return splat_wide(0.0f);
        x += first_channel(block);
        return {load_channels(x, rows(block, 0)), load_channels(x + W, rows(block, 1))};
    }
    void store_vector(float* x, int64_t block, Wide v) const {
        x += first_channel(block);
        store_channels(x, rows(block, 0), v.a), store_channels(x + W, rows(block, 1), v.b);
    }
};

// What the next block of channels will need from memory. The loops over states ask for some of it at every step: asked
// for all at once, it would fill the processor's queue of misses.
class Ahead {
    static constexpr int kMost = 9, kLine = 64;
    struct Tile {
        const char* first;
        int64_t step, line;
    } tiles[kMost];
    int count = 0;

    template <class Element> void add_part(const View<Element>& x) {
        const int64_t row = x.row * sizeof(Element), time = x.time * sizeof(Element);
        if (x.row == 1) return add(x.data, time, kLine);
        add(x.time > 0 ? x.data : x.data + (kChunk - 1) * x.time, 2 * row, row);
    }

public:
    // Two cache lines at every step, `line` bytes apart.
    void add(const void* first, int64_t step, int64_t line) { tiles[count++] = {(const char*)first, step, line}; }
    void add(const Task& task, const ScanTensor& x, int64_t block, int64_t chunk) {
        if (!x.data || chunk < 0 || chunk >= task.chunks()) return;
        const int64_t row = task.first_channel(block);
        x.bfloat16 ? add_part(task.part<Bfloat16>(x, row, chunk)) : add_part(task.part<float>(x, row, chunk));
    }
    void add_boundary_states(const Task& task, int64_t block, int64_t chunk) {
        if (!task.p.boundary_states || chunk < 0 || chunk >= task.chunks()) return;
        add(task.boundary_state(chunk, 0) + task.first_channel(block), task.p.channels * sizeof(float), kLine);
    }
    // Each of the `turns` loops over the steps asks for its share.
    SCAN_INLINE void ask(int t, int turn, int turns) const {
#pragma GCC unroll 1
        for (int i = turn; i < count; i += turns) {
            prefetch(tiles[i].first + t * tiles[i].step);
            prefetch(tiles[i].first + t * tiles[i].step + tiles[i].line);
        }
    }
};

// rates[block][n] = log2(e) A[:, n], so that exp(delta A) = 2^(delta rate); 0 in the padding.
inline void load_rates(const Task& task, Wide* rates) {
    const int states = int(task.p.states), padded = task.padded_states();
    for (int64_t block = 0; block < task.blocks(); block++)
        for (int n = 0; n < padded; n++)
            for (int half = 0; half < 2; half++) {
                const float* A = task.p.A + task.first_channel(block, half) * states;
                Vec rate{};
                for (int k = 0; n < states && k < task.rows(block, half); k++) rate[k] = A[k * states + n] * kLog2e;
                store((float*)(rates + block * padded + n) + half * W, rate);
            }
}

// h = exp(delta A) h + input B, y += C h over one chunk, for kStates states kept in registers.
inline void scan_chunk(const Wide* rates, Wide* state, const float* delta, const float* input, const float* B,
                       const float* C, int stride, int steps, float* y, const Ahead& ahead, int turn, int turns) {
    Wide h[kStates];
    for (int n = 0; n < kStates; n++) h[n] = state[n];
    for (int t = 0; t < steps; t++) {
        ahead.ask(t, turn, turns);
        const Wide dt = load_wide(delta + t * kBlock), in = load_wide(input + t * kBlock);
        Wide sum = load_wide(y + t * kBlock);
#pragma GCC unroll 8
        for (int n = 0; n < kStates; n++) {
            h[n] = exp2(dt * rates[n]) * h[n] + in * B[t * stride + n];
            sum += h[n] * C[t * stride + n];
        }
        store(y + t * kBlock, sum);
    }
    for (int n = 0; n < kStates; n++) state[n] = h[n];
}

inline int scan_forward(const Task& task) {
    const ScanProblem& p = task.p;
    const int states = int(p.states), padded = task.padded_states();
    const int64_t blocks = task.blocks();
    Scratch scratch(2 * blocks * padded * kBlock + kChunk * (4 * kBlock + 2 * padded));
    if (scratch.failed()) return kOutOfMemory;
    Wide *rates = scratch.wides(blocks * padded), *state = scratch.wides(blocks * padded);
    float *input = scratch.floats(kChunk * kBlock), *delta = scratch.floats(kChunk * kBlock);
    float *z = scratch.floats(kChunk * kBlock), *y = scratch.floats(kChunk * kBlock);
    float *B = scratch.floats(kChunk * padded), *C = scratch.floats(kChunk * padded);
    const ScanTensor inputs[] = {p.u, p.delta, p.z};
    load_rates(task, rates);
    for (int64_t i = 0; i < blocks * padded; i++) state[i] = splat_wide(0.0f);

    for (int64_t chunk = 0; chunk < task.chunks(); chunk++) {
        const int length = task.length(chunk);
        load_scalars(task.part<float>(p.B, 0, chunk), states, padded, length, B);
        load_scalars(task.part<float>(p.C, 0, chunk), states, padded, length, C);
        for (int64_t k = 0; k < blocks; k++) {
            const int64_t next = k + 1 < blocks ? k + 1 : 0, next_chunk = next ? chunk : chunk + 1;
            Ahead ahead;
            ahead.add(task, p.out, k, chunk);
            ahead.add_boundary_states(task, next, next_chunk);
            for (const ScanTensor& x : inputs) ahead.add(task, x, next, next_chunk);

            Wide* h = state + k * padded;
            for (int n = 0; p.boundary_states && n < states; n++)
                task.store_vector(task.boundary_state(chunk, n), k, h[n]);
            task.load_block(p.u, k, chunk, input);
            task.load_block(p.delta, k, chunk, delta);
            const Wide bias = task.load_vector(p.delta_bias, k), skip = task.load_vector(p.D, k);
            for (int i = 0; i < length * kBlock; i += kBlock) {
                const Wide u = load_wide(input + i);
                Wide dt = load_wide(delta + i) + bias, slope;
                if (p.softplus) softplus(dt, dt, slope);
                store(delta + i, dt), store(input + i, dt * u), store(y + i, skip * u);
            }
            for (int n = 0; n < padded; n += kStates)
                scan_chunk(rates + k * padded + n, h + n, delta, input, B + n, C + n, padded, length, y, ahead, n / kStates,
                           padded / kStates);
            if (p.z.data) {
                task.load_block(p.z, k, chunk, z);
                for (int i = 0; i < length * kBlock; i += kBlock) {
                    const Wide gate = load_wide(z + i);
                    store(y + i, load_wide(y + i) * (gate * sigmoid(gate)));
                }
            }
            task.store_block(p.out, k, chunk, y);
        }
    }
    clear_padding(p, p.out, task.b, task.channel0, task.channel1 - task.channel0);
    return 0;
}

} // namespace
