// Moving a (time, channel) tile between a strided tensor and a dense [time][W] buffer.
#pragma once
#include <cstdlib>
#include <cstring>

#include "problem.h"
#include "simd.h"

namespace {

// One batch entry of a tensor in scan order: time 0 is where the scan starts, so that a reversed
// scan is a negative stride and no loop has to know its direction. Strides are in elements.
template <class Element> struct View {
    Element* data;
    int64_t row, time;

    View from(int64_t first_row, int64_t first_time) const {
        return {data + first_row * row + first_time * time, row, time};
    }
};

SCAN_INLINE int64_t valid_steps(const ScanProblem& p, int64_t b) { return p.lengths ? p.lengths[b] : p.steps; }

// The valid steps in scan order: [first, last).
SCAN_INLINE int64_t first_valid(const ScanProblem& p, int64_t b) { return p.reverse ? p.steps - valid_steps(p, b) : 0; }
SCAN_INLINE int64_t last_valid(const ScanProblem& p, int64_t b) { return p.reverse ? p.steps : valid_steps(p, b); }

template <class Element> SCAN_INLINE View<Element> view(const ScanProblem& p, const ScanTensor& x, int64_t b) {
    Element* data = (Element*)x.data + b * x.stride_batch;
    if (!p.reverse) return {data, x.stride_row, x.stride_time};
    return {data + (p.steps - 1) * x.stride_time, x.stride_row, -x.stride_time};
}

SCAN_INLINE float read(const float* p) { return *p; }
SCAN_INLINE void write(float* p, float x) { *p = x; }
SCAN_INLINE float read(const Bfloat16* p) {
    const uint32_t bits = uint32_t(p->bits) << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
SCAN_INLINE void write(Bfloat16* p, float x) {
    Bfloat16 rounded[W];
    store(rounded, splat(x));
    *p = rounded[0];
}

// tile[t][k] = x[row k, time t] for k < rows, 0 for the other lanes of one vector. A tile's steps are `pitch` floats apart.
template <class Element>
inline void load_tile(const View<Element>& x, int rows, int steps, float* tile, int pitch = W) {
    if (rows < W) {
        for (int t = 0; t < steps; t++)
            for (int k = 0; k < W; k++) tile[t * pitch + k] = k < rows ? read(x.data + k * x.row + t * x.time) : 0.0f;
    } else if (x.row == 1) {
        for (int t = 0; t < steps; t++) store(tile + t * pitch, load(x.data + t * x.time));
    } else {
        int t = 0;
        if (x.time == 1 || x.time == -1)
            for (; t + W <= steps; t += W) {
                const Element* first = x.data + (x.time > 0 ? t : -(t + W - 1));
                Vec lanes[W];
                for (int k = 0; k < W; k++) lanes[k] = load(first + k * x.row);
                transpose(lanes);
                for (int k = 0; k < W; k++) store(tile + (x.time > 0 ? t + k : t + W - 1 - k) * pitch, lanes[k]);
            }
        for (; t < steps; t++)
            for (int k = 0; k < W; k++) tile[t * pitch + k] = read(x.data + k * x.row + t * x.time);
    }
}

// x[row k, time t] = tile[t][k] for k < rows.
template <class Element>
inline void store_tile(const View<Element>& x, int rows, int steps, const float* tile, int pitch = W) {
    if (rows < W) {
        for (int t = 0; t < steps; t++)
            for (int k = 0; k < rows; k++) write(x.data + k * x.row + t * x.time, tile[t * pitch + k]);
    } else if (x.row == 1) {
        for (int t = 0; t < steps; t++) store(x.data + t * x.time, load(tile + t * pitch));
    } else {
        int t = 0;
        if (x.time == 1 || x.time == -1)
            for (; t + W <= steps; t += W) {
                Element* first = x.data + (x.time > 0 ? t : -(t + W - 1));
                Vec lanes[W];
                for (int k = 0; k < W; k++) lanes[k] = load(tile + (x.time > 0 ? t + k : t + W - 1 - k) * pitch);
                transpose(lanes);
                for (int k = 0; k < W; k++) store(first + k * x.row, lanes[k]);
            }
        for (; t < steps; t++)
            for (int k = 0; k < W; k++) write(x.data + k * x.row + t * x.time, tile[t * pitch + k]);
    }
}

// The processor's own prefetchers miss the strides of tiles.
SCAN_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

// B or C: scalars[t][n] = x[state n, time t], and 0 for the padding states n >= states.
inline void load_scalars(const View<float>& x, int states, int padded, int steps, float* scalars) {
    for (int t = 0; t < steps; t++) {
        const float* source = x.data + t * x.time;
        float* target = scalars + t * padded;
        if (x.row == 1) memcpy(target, source, states * sizeof(float));
        for (int n = 0; x.row != 1 && n < states; n++) target[n] = source[n * x.row];
        for (int n = states; n < padded; n++) target[n] = 0.0f;
    }
}

// A per-channel vector; zero without one.
SCAN_INLINE Vec load_channels(const float* source, int rows) {
    if (!source) return Vec{};
    if (rows == W) return load(source);
    Vec v{};
    for (int k = 0; k < rows; k++) v[k] = source[k];
    return v;
}

SCAN_INLINE void store_channels(float* target, int rows, Vec v) {
    if (rows == W) return store(target, v);
    for (int k = 0; k < rows; k++) target[k] = v[k];
}

// Zero the steps of batch entry b that are not valid, in `rows` rows from `row` on.
template <class Element>
inline void clear_steps(const ScanProblem& p, const ScanTensor& x, int64_t b, int64_t row, int64_t rows) {
    Element* data = (Element*)x.data + b * x.stride_batch + row * x.stride_row;
    const int64_t start = valid_steps(p, b);
    if (x.stride_row == 1) {
        for (int64_t t = start; t < p.steps; t++) memset(data + t * x.stride_time, 0, rows * sizeof(Element));
    } else {
        for (int64_t k = 0; k < rows; k++)
            for (int64_t t = start; t < p.steps; t++) data[k * x.stride_row + t * x.stride_time] = Element{};
    }
}

inline void clear_padding(const ScanProblem& p, const ScanTensor& x, int64_t b, int64_t row, int64_t rows) {
    x.bfloat16 ? clear_steps<Bfloat16>(p, x, b, row, rows) : clear_steps<float>(p, x, b, row, rows);
}

// Scratch memory of one task, aligned to a cache line; freed at the end of the scope.
class Scratch {
    void* memory = nullptr;
    float* next = nullptr;

public:
    explicit Scratch(int64_t floats) {
        if (posix_memalign(&memory, 64, (floats + 16 * 32) * sizeof(float))) memory = nullptr;
        next = (float*)memory;
    }
    ~Scratch() { free(memory); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    bool failed() const { return !memory; }
    // Each piece starts a cache line of its own (the constructor has room for 32 pieces).
    float* floats(int64_t count) {
        float* piece = next;
        next += (count + 15) / 16 * 16;
        return piece;
    }
    Vec* vectors(int64_t count) { return (Vec*)floats(count * W); }
    Wide* wides(int64_t count) { return (Wide*)floats(count * 2 * W); }
};

} // namespace
