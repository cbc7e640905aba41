// Sixteen floats at a time, for whatever instructions this file is compiled for; VARIANT names them.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace VARIANT {

// While it lives, this thread takes numbers that are too small to be normal for zero: each would cost 150 cycles.
class NoSubnormals {
    const unsigned before = _mm_getcsr();

   public:
    NoSubnormals() { _mm_setcsr(before | 0x8040); }
    ~NoSubnormals() { _mm_setcsr(before); }
};

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));

template <typename Vector, typename Element>
INLINE Vector load(const Element* from) {
    Vector values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

INLINE Floats floats(const float* from) { return load<Floats>(from); }
INLINE Floats floats(const uint16_t* from) {  // bfloat16
#ifdef __AVX512F__
    return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(load<__m256i>(from)), 16);
#else
    const __m256i halves[2] = {_mm256_slli_epi32(_mm256_cvtepu16_epi32(load<__m128i>(from)), 16),
                               _mm256_slli_epi32(_mm256_cvtepu16_epi32(load<__m128i>(from + 8)), 16)};
    return load<Floats>(halves);
#endif
}
INLINE Floats floats_of(float value) { return value - Floats{}; }
INLINE Ints ints_of(int32_t value) { return value - Ints{}; }
INLINE void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }
INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// Halves folded together, until one is left: an order that depends on nothing.
#define FOLDED(values, act) \
    typedef float Eight __attribute__((vector_size(32))); \
    typedef float Four __attribute__((vector_size(16))); \
    const Eight low8 = __builtin_shufflevector(values, values, 0, 1, 2, 3, 4, 5, 6, 7); \
    const Eight high8 = __builtin_shufflevector(values, values, 8, 9, 10, 11, 12, 13, 14, 15); \
    const Eight eight = act(low8, high8); \
    const Four low4 = __builtin_shufflevector(eight, eight, 0, 1, 2, 3); \
    const Four high4 = __builtin_shufflevector(eight, eight, 4, 5, 6, 7); \
    const Four four = act(low4, high4); \
    const Four turned2 = __builtin_shufflevector(four, four, 2, 3, 0, 1); \
    const Four two = act(four, turned2); \
    const Four turned1 = __builtin_shufflevector(two, two, 1, 0, 3, 2); \
    const Four one = act(two, turned1); \
    return one[0]
#define ADDED(a, b) ((a) + (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))

INLINE float sum(Floats values) { FOLDED(values, ADDED); }
INLINE float largest(Floats values) { FOLDED(values, LARGER); }

#undef FOLDED
#undef ADDED
#undef LARGER

// Within two units in the last place; what is not a number stays none. (Cephes' polynomial.)
INLINE Floats exponential(Floats x) {
    const Floats least = floats_of(-87.0f), most = floats_of(88.0f);
    x = x < least ? least : x;
    x = x > most ? most : x;
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to whole numbers
    const Floats n = (x * 1.44269504f + shift) - shift;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const Floats y = p * (r * r) + r + 1.0f;
    const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
    return y * (Floats)exponent;
}

// bfloat16 in the upper half of each float: to the nearest, ties to even. What is not a number stays none.
INLINE Ints rounded_halves(Floats values) {
    const Ints bits = (Ints)values;
    const Ints near = (bits + 0x7FFF + ((bits >> 16) & 1)) & (int32_t)0xFFFF0000;
    return values == values ? near : (Ints)values;
}

INLINE void store(uint16_t* to, Floats values) {
    const Ints bits = rounded_halves(values);
#ifdef __AVX512F__
    const __m256i halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32((__m512i)bits, 16));
    std::memcpy(to, &halves, sizeof halves);
#else
    for (int lane = 0; lane < LANES; lane++) to[lane] = (uint16_t)((uint32_t)bits[lane] >> 16);
#endif
}

}  // namespace VARIANT
