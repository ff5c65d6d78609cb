// Runs the scan kernel outside Python, on a processor that Python does not run on here (under an emulator).
//
//     driver < problem > result
//
// problem: int64 batch, channels, steps, states, reverse, threads; int64 lengths[batch]; then float32 u, delta, A,
// B, C, D, z, delta_bias, grad_out, all contiguous. result: float32 out and the eight gradients.
#include <cstdio>
#include <cstdlib>

#include "problem.h"

extern "C" int rdfa_scan_forward(const ScanProblem*);
extern "C" int rdfa_scan_backward(const ScanProblem*);

static float* read(int64_t count) {
    float* data = (float*)malloc(count * sizeof(float));
    if (!data || fread(data, sizeof(float), count, stdin) != size_t(count)) exit(2);
    return data;
}

static float* room(int64_t count) { return (float*)malloc(count * sizeof(float)); }

int main() {
    int64_t head[6];
    if (fread(head, sizeof(int64_t), 6, stdin) != 6) return 2;
    const int64_t batch = head[0], channels = head[1], steps = head[2], states = head[3];
    int64_t* lengths = (int64_t*)malloc(batch * sizeof(int64_t));
    if (fread(lengths, sizeof(int64_t), batch, stdin) != size_t(batch)) return 2;
    const int64_t wide = batch * channels * steps, narrow = batch * states * steps, rates = channels * states;
    auto tensor = [&](float* data, int64_t rows) { return ScanTensor{data, rows * steps, steps, 1, 0}; };

    ScanProblem p{};
    p.batch = batch, p.channels = channels, p.steps = steps, p.states = states;
    p.softplus = 1, p.reverse = int32_t(head[4]), p.threads = int32_t(head[5]), p.lengths = lengths;
    p.u = tensor(read(wide), channels), p.delta = tensor(read(wide), channels), p.A = read(rates);
    p.B = tensor(read(narrow), states), p.C = tensor(read(narrow), states), p.D = read(channels);
    p.z = tensor(read(wide), channels), p.delta_bias = read(channels), p.grad_out = tensor(read(wide), channels);
    p.boundary_states = room(batch * ((steps + kChunk - 1) / kChunk) * states * channels);

    float *out = room(wide), *u = room(wide), *delta = room(wide), *A = room(rates), *B = room(narrow), *C = room(narrow);
    float *D = room(channels), *z = room(wide), *bias = room(channels);
    p.out = tensor(out, channels), p.grad_u = tensor(u, channels), p.grad_delta = tensor(delta, channels);
    p.grad_B = tensor(B, states), p.grad_C = tensor(C, states), p.grad_z = tensor(z, channels);
    p.grad_A = A, p.grad_D = D, p.grad_delta_bias = bias;
    if (rdfa_scan_forward(&p) || rdfa_scan_backward(&p)) return 1;

    auto write = [](const float* data, int64_t count) { fwrite(data, sizeof(float), count, stdout); };
    write(out, wide), write(u, wide), write(delta, wide), write(A, rates), write(B, narrow), write(C, narrow);
    write(D, channels), write(z, wide), write(bias, channels);
    return 0;
}
