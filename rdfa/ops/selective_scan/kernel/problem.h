// What Python hands to the kernels: plain structs, mirrored field by field in Python (cpu.py here, causal_convolution.py).
#pragma once
#include <cstdint>

// A (batch, channel, time) or (batch, state, time) tensor with any strides, in elements.
struct ScanTensor {
    void* data;
    int64_t stride_batch, stride_row, stride_time;
    int64_t bfloat16; // its elements are bfloat16, not float32; B, C and their gradients are always float32
};

struct ScanProblem {
    int64_t batch, channels, steps, states;
    int32_t softplus, reverse, threads, instruction_set;

    const float* A;          // (channels, states), contiguous
    const float* D;          // (channels,) or null
    const float* delta_bias; // (channels,) or null
    const int64_t* lengths;  // (batch,) or null: all steps are valid
    ScanTensor u, delta, B, C;
    ScanTensor z;            // data is null without a gate

    // State before each chunk, (batch, chunks, states, channels); written by the forward pass
    // unless null, read by the backward pass. Chunk c is steps 32 c to 32 c + 31 in the order of the scan.
    float* boundary_states;
    ScanTensor out;

    ScanTensor grad_out, grad_u, grad_delta, grad_B, grad_C, grad_z;
    float *grad_A, *grad_D, *grad_delta_bias; // contiguous; grad_D and grad_delta_bias always given
};

// A (batch, time, channel) tensor whose channels are adjacent; strides in elements.
struct ConvolutionTensor {
    void* data;
    int64_t stride_batch, stride_time;
};

constexpr int kKernels = 8; // parallel convolutions of one call, at most

struct ConvolutionProblem {
    int64_t batch, channels, steps, kernels;
    int32_t reverse, threads, instruction_set;
    int32_t bfloat16; // the elements of x, out, grad_x and grad_out are bfloat16, not float32
    ConvolutionTensor x, grad_x;
    int64_t widths[kKernels];
    const float *weights[kKernels], *biases[kKernels]; // (width, channels) with the present step last; (channels,)
    ConvolutionTensor out[kKernels], grad_out[kKernels];
    float *grad_weights[kKernels], *grad_biases[kKernels]; // one per batch entry, to be added up in order
};

constexpr int kChunk = 32;      // steps between two saved states
constexpr int kStates = 2;      // states that a loop keeps in registers; others are zero padding. With 4
                                // a chunk's buffers do not fit the first-level cache
constexpr int kGroup = 128;     // channels whose grad_B and grad_C terms are one partial sum: fixed,
                                // so that no result depends on how the work is spread over threads
constexpr int kOutOfMemory = 1; // the only error that a call can return
