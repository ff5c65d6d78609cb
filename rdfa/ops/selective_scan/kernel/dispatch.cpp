// The library's entry points, and the choice of an instruction set when they are called.
#include <cstring>

#include "problem.h"

extern "C" {

int scan_forward_base(const ScanProblem*);
int scan_backward_base(const ScanProblem*);
int convolution_forward_base(const ConvolutionProblem*);
int convolution_backward_base(const ConvolutionProblem*);
#ifdef SCAN_X86
int scan_forward_avx2(const ScanProblem*);
int scan_backward_avx2(const ScanProblem*);
int convolution_forward_avx2(const ConvolutionProblem*);
int convolution_backward_avx2(const ConvolutionProblem*);
int scan_forward_avx512(const ScanProblem*);
int scan_backward_avx512(const ScanProblem*);
int convolution_forward_avx512(const ConvolutionProblem*);
int convolution_backward_avx512(const ConvolutionProblem*);
#endif
}

namespace {

typedef int Scan(const ScanProblem*);
typedef int Convolution(const ConvolutionProblem*);

struct Variant {
    const char* name;
    Scan *scan_forward, *scan_backward;
    Convolution *convolution_forward, *convolution_backward;
};

// Fastest last.
const Variant kVariants[] = {
    {"base", scan_forward_base, scan_backward_base, convolution_forward_base, convolution_backward_base},
#ifdef SCAN_X86
    {"avx2", scan_forward_avx2, scan_backward_avx2, convolution_forward_avx2, convolution_backward_avx2},
    {"avx512", scan_forward_avx512, scan_backward_avx512, convolution_forward_avx512, convolution_backward_avx512},
#endif
};

int supported() {
#ifdef SCAN_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1;
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return wide ? 3 : 2;
#else
    return 1;
#endif
}

// `asked` counts from 1; 0 is the fastest that this processor has.
const Variant& variant(int asked) {
    const int most = supported();
    return kVariants[(asked > 0 && asked < most ? asked : most) - 1];
}

} // namespace

#pragma GCC visibility push(default)
extern "C" {

int rdfa_scan_forward(const ScanProblem* p) { return variant(p->instruction_set).scan_forward(p); }
int rdfa_scan_backward(const ScanProblem* p) { return variant(p->instruction_set).scan_backward(p); }
int rdfa_convolution_forward(const ConvolutionProblem* p) { return variant(p->instruction_set).convolution_forward(p); }
int rdfa_convolution_backward(const ConvolutionProblem* p) { return variant(p->instruction_set).convolution_backward(p); }

// How many instruction sets this processor runs, and their names, slowest first.
int rdfa_scan_instruction_sets() { return supported(); }

const char* rdfa_scan_instruction_set_name(int index) {
    return index >= 0 && index < supported() ? kVariants[index].name : nullptr;
}

// Compared with the size that Python packs; the library's name holds a hash of the sources.
int64_t rdfa_scan_problem_size() { return sizeof(ScanProblem); }
}
#pragma GCC visibility pop
