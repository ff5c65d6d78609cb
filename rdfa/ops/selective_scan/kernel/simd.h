// One native vector of floats, and the few elementary functions that a scan needs.
//
// GCC and Clang vector extensions: the same source is SSE2, AVX2, AVX-512 or NEON by its width.
// Compile without -ffast-math: it folds the round-to-nearest trick below and gives wrong results.
// Everything lives in an unnamed namespace (and nothing comes from the standard library's
// templates), so that the linker cannot mix functions of two instruction sets.
#pragma once
#include <cstdint>

#ifdef __AVX512F__
#include <immintrin.h>
#elif defined(__SSE2__)
#include <xmmintrin.h>
#endif

#define SCAN_INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int W = 16;
#define SCAN_ZIP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SCAN_ZIP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
constexpr int W = 8;
#define SCAN_ZIP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define SCAN_ZIP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
constexpr int W = 4;
#define SCAN_ZIP_LOW 0, 4, 1, 5
#define SCAN_ZIP_HIGH 2, 6, 3, 7
#endif

typedef float Vec __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef float VecUnaligned __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t VecInt __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef uint32_t VecBits __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef uint16_t VecHalf __attribute__((vector_size(2 * W), aligned(2), may_alias));

SCAN_INLINE Vec splat(float x) { return Vec{} + x; }
SCAN_INLINE Vec load(const float* p) { return *(const VecUnaligned*)p; }
SCAN_INLINE void store(float* p, Vec v) { *(VecUnaligned*)p = v; }

// The upper half of a float32. Storing rounds to the nearest, ties to even.
struct Bfloat16 {
    uint16_t bits;
};
SCAN_INLINE Vec load(const Bfloat16* p) { return (Vec)(__builtin_convertvector(*(const VecHalf*)p, VecBits) << 16); }
SCAN_INLINE void store(Bfloat16* p, Vec v) {
    const VecBits bits = (VecBits)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *(VecHalf*)p = __builtin_convertvector(v == v ? rounded : VecBits{} + 0x7fc0, VecHalf);
}

#ifdef __clang__
SCAN_INLINE Vec zip_low(Vec a, Vec b) { return __builtin_shufflevector(a, b, SCAN_ZIP_LOW); }
SCAN_INLINE Vec zip_high(Vec a, Vec b) { return __builtin_shufflevector(a, b, SCAN_ZIP_HIGH); }
#else
SCAN_INLINE Vec zip_low(Vec a, Vec b) { return __builtin_shuffle(a, b, VecInt{SCAN_ZIP_LOW}); }
SCAN_INLINE Vec zip_high(Vec a, Vec b) { return __builtin_shuffle(a, b, VecInt{SCAN_ZIP_HIGH}); }
#endif

// Transpose W vectors: log2(W) rounds of a perfect shuffle.
SCAN_INLINE void transpose(Vec (&rows)[W]) {
    for (int round = 1; round < W; round *= 2) {
        Vec shuffled[W];
        for (int i = 0; i < W / 2; i++) {
            shuffled[2 * i] = zip_low(rows[i], rows[i + W / 2]);
            shuffled[2 * i + 1] = zip_high(rows[i], rows[i + W / 2]);
        }
        for (int i = 0; i < W; i++) rows[i] = shuffled[i];
    }
}

// Two vectors that are worked on side by side. The functions below are chains of dependent operations; two chains in
// turn keep the processor busy where one after the other would fill its queue with what cannot start yet.
struct Wide {
    Vec a, b;

    Wide() = default;
    SCAN_INLINE Wide(Vec a, Vec b) : a(a), b(b) {}
    // Part by part: the compiler's own copies go through memory, 16 bytes at a time.
    SCAN_INLINE Wide(const Wide& x) : a(x.a), b(x.b) {}
    SCAN_INLINE Wide& operator=(const Wide& x) { return a = x.a, b = x.b, *this; }
};
SCAN_INLINE Wide load_wide(const float* p) { return {load(p), load(p + W)}; }
SCAN_INLINE void store(float* p, Wide x) { store(p, x.a), store(p + W, x.b); }
SCAN_INLINE Wide operator+(Wide x, Wide y) { return {x.a + y.a, x.b + y.b}; }
SCAN_INLINE Wide operator-(Wide x, Wide y) { return {x.a - y.a, x.b - y.b}; }
SCAN_INLINE Wide operator*(Wide x, Wide y) { return {x.a * y.a, x.b * y.b}; }
SCAN_INLINE Wide operator/(Wide x, Wide y) { return {x.a / y.a, x.b / y.b}; }
SCAN_INLINE Wide operator+(Wide x, float y) { return {x.a + y, x.b + y}; }
SCAN_INLINE Wide operator-(Wide x, float y) { return {x.a - y, x.b - y}; }
SCAN_INLINE Wide operator*(Wide x, float y) { return {x.a * y, x.b * y}; }
SCAN_INLINE Wide operator-(float x, Wide y) { return {x - y.a, x - y.b}; }
SCAN_INLINE Wide operator/(float x, Wide y) { return {x / y.a, x / y.b}; }
SCAN_INLINE Wide& operator+=(Wide& x, Wide y) { return x = x + y; }
SCAN_INLINE Vec sum(Wide x) { return x.a + x.b; }
SCAN_INLINE Wide splat_wide(float x) { return {splat(x), splat(x)}; }

// All let a NaN in x through.
SCAN_INLINE Vec at_least(Vec x, float low) { return x < splat(low) ? splat(low) : x; }
SCAN_INLINE Vec at_most(Vec x, float high) { return x > splat(high) ? splat(high) : x; }
SCAN_INLINE Vec minus_magnitude(Vec x) { return x > 0.0f ? -x : x; }
SCAN_INLINE Vec where_positive(Vec x, Vec yes, Vec no) { return x > 0.0f ? yes : no; }
SCAN_INLINE Wide at_least(Wide x, float low) { return {at_least(x.a, low), at_least(x.b, low)}; }
SCAN_INLINE Wide at_most(Wide x, float high) { return {at_most(x.a, high), at_most(x.b, high)}; }
SCAN_INLINE Wide minus_magnitude(Wide x) { return {minus_magnitude(x.a), minus_magnitude(x.b)}; }
SCAN_INLINE Wide where_positive(Wide x, Wide yes, Wide no) {
    return {where_positive(x.a, yes.a, no.a), where_positive(x.b, yes.b, no.b)};
}

// 2^f for |f| <= 1/2. Exactly 1 at 0, and 2^f - 1 is accurate relative to itself: decays are
// close to 1 and compound over the sequence.
template <class V> SCAN_INLINE V exp2_fraction(V f) {
    V p = f * 0.00015403512765445673f + 0.001339073553787963f;
    p = p * f + 0.009618237493976004f;
    p = p * f + 0.05550357433523617f;
    p = p * f + 0.24022649794963366f;
    p = p * f + 0.6931471879267149f;
    return p * f + 1.0f;
}

// Adding kRound rounds to an integer n and leaves n + 127, the exponent field of 2^n, in the low bits.
constexpr float kRound = 12582912.0f + 127.0f;
SCAN_INLINE Vec power_of_two(Vec rounded) { return (Vec)(((VecInt)rounded) << 23); }
SCAN_INLINE Wide power_of_two(Wide rounded) { return {power_of_two(rounded.a), power_of_two(rounded.b)}; }

#ifdef __AVX512F__
// Adding kRoundSixteenth rounds to n, a number of sixteenths, and leaves their number modulo 16 in the low bits.
constexpr float kRoundSixteenth = 786432.0f;
SCAN_INLINE Vec power_of_sixteenths(Vec rounded, Vec n) {
    const Vec table{1.0f,          1.0442737341f, 1.0905077457f, 1.1387885809f, 1.1892070770f, 1.2418577671f,
                    1.2968395948f, 1.3542555571f, 1.4142135382f, 1.4768261909f, 1.5422108173f, 1.6104903221f,
                    1.6817928553f, 1.7562521696f, 1.8340080977f, 1.9152065516f};
    return (Vec)_mm512_scalef_ps(_mm512_permutexvar_ps((__m512i)rounded, (__m512)table), (__m512)n);
}
SCAN_INLINE Wide power_of_sixteenths(Wide rounded, Wide n) {
    return {power_of_sixteenths(rounded.a, n.a), power_of_sixteenths(rounded.b, n.b)};
}
// x where |x| <= 1/16, else 1/16 with the sign of x.
SCAN_INLINE Vec at_most_a_sixteenth(Vec x) { return (Vec)_mm512_range_ps((__m512)x, (__m512)splat(0.0625f), 2); }
SCAN_INLINE Wide at_most_a_sixteenth(Wide x) { return {at_most_a_sixteenth(x.a), at_most_a_sixteenth(x.b)}; }
#endif

// 2^x; 0 below -127, infinite above 128, NaN where x is.
template <class V> SCAN_INLINE V exp2(V x) {
#ifdef __AVX512F__
    // A table in one register leaves |f| <= 1/32, where three terms are as good as exp2_fraction's six. Only the rounding
    // of a huge x leaves more: as the square may overflow, 0 times the polynomial would be no number.
    const V rounded = x + kRoundSixteenth, n = rounded - kRoundSixteenth, f = at_most_a_sixteenth(x - n);
    const V power = power_of_sixteenths(rounded, n);
    return power * f * ((f * 0.05550410971f + 0.24023355544f) * f + 0.69314718246f) + power;
#else
    x = at_most(at_least(x, -127.0f), 128.0f);
    const V rounded = x + kRound;
    return exp2_fraction(x - (rounded - kRound)) * power_of_two(rounded);
#endif
}

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

// e^x for x <= 0, with a two-step argument reduction.
template <class V> SCAN_INLINE V exp_negative(V x) {
    x = at_least(x, -87.0f);
    const V rounded = x * kLog2e + kRound, n = rounded - kRound;
    const V r = (x - n * 0.693145751953125f) - n * 1.42860677e-6f;
    return exp2_fraction(r * kLog2e) * power_of_two(rounded);
}

// log(1 + y) for y in [0, 1].
template <class V> SCAN_INLINE V log1p(V y) {
    const V s = y / (y + 2.0f), q = s * s;
    V p = q * 0.12206537258259223f + 0.10696628785250073f;
    p = p * q + 0.14310360174988318f;
    p = p * q + 0.1999934551837836f;
    p = p * q + 0.33333339651903615f;
    return s * 2.0f + s * 2.0f * q * p;
}

template <class V> SCAN_INLINE V sigmoid(V x) {
    const V e = exp_negative(minus_magnitude(x)), r = 1.0f / (e + 1.0f);
    return where_positive(x, r, e * r);
}

// log(1 + e^x) and its derivative, the sigmoid.
template <class V> SCAN_INLINE void softplus(V x, V& value, V& slope) {
    const V e = exp_negative(minus_magnitude(x)), r = 1.0f / (e + 1.0f);
    value = at_least(x, 0.0f) + log1p(e);
    slope = where_positive(x, r, e * r);
}

// Denormal numbers cost a hundred cycles each on many processors, and a state that decays over
// padding becomes one. Flush them to zero for as long as this lives; then restore the caller's mode.
class FlushDenormals {
#if defined(__SSE2__)
    const unsigned saved = _mm_getcsr();

public:
    FlushDenormals() { _mm_setcsr(saved | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(saved); }
#elif defined(__aarch64__)
    uint64_t saved;

public:
    FlushDenormals() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
        __asm__ volatile("msr fpcr, %0" ::"r"(saved | (uint64_t(1) << 24)));
    }
    ~FlushDenormals() { __asm__ volatile("msr fpcr, %0" ::"r"(saved)); }
#else
public:
    FlushDenormals() {}
    ~FlushDenormals() {}
#endif
};

} // namespace
