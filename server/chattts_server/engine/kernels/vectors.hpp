// Sixteen floats at a time, for whatever instructions this file is compiled for; VARIANT names them.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace VARIANT {

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
INLINE Floats floats_of(float value) { return value - Floats{}; }
INLINE Ints ints_of(int32_t value) { return value - Ints{}; }
INLINE void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }
INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// In an order that depends on nothing.
INLINE float sum(Floats values) {
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) values[i] += values[i + half];
    return values[0];
}

INLINE float largest(Floats values) {
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) values[i] = values[i] > values[i + half] ? values[i] : values[i + half];
    return values[0];
}

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

// bfloat16 in the upper half of each float: to the nearest, ties to even. Not for what is not a number.
INLINE Ints rounded_halves(Floats values) {
    const Ints bits = (Ints)values;
    const Ints near = (bits + 0x7FFF + ((bits >> 16) & 1)) & (int32_t)0xFFFF0000;
    return values == values ? near : (Ints)values;
}

}  // namespace VARIANT
