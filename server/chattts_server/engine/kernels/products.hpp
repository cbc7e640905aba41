// Products of n rows with one matrix. A row's sums are added in an order that depends on the matrix alone, never on n
// or on the thread: a row has the same bits in any company.
#pragma once

#include <vector>

#include "kernels.hpp"
#include "vectors.hpp"

namespace VARIANT {

#ifdef __AVX512F__
constexpr int BLOCK = 8;  // rows whose sums stay in registers
#else
constexpr int BLOCK = 4;
#endif
constexpr int AHEAD = 4096;  // bytes

// Rows as a matrix of one precision wants them. Memory of all forms, taken as needed and kept.
struct Inputs {
    std::vector<uint8_t> bytes;
    std::vector<float> scales;  // int8: the largest magnitude of each row
    int64_t stride = 0;         // bytes of a row

    void fit(int rows, int depth) {
        stride = 4 * (int64_t)depth;
        const int64_t filled = (rows + LANES - 1) / LANES * LANES;  // whole tiles
        if (bytes.size() < (size_t)(filled * stride)) bytes.resize(filled * stride);
        if (scales.size() < (size_t)rows) scales.resize(rows);
    }
    uint8_t* row(int number) { return bytes.data() + number * stride; }
    const uint8_t* row(int number) const { return bytes.data() + number * stride; }
};

INLINE void as_halves(const float* x, int count, uint8_t* to) {
#ifdef __AVX512BF16__
    for (int i = 0; i + LANES <= count; i += LANES) {
        const __m256bh halves = _mm512_cvtneps_pbh((__m512)floats(x + i));
        std::memcpy(to + 2 * i, &halves, sizeof halves);
    }
#else  // kept as floats: there is no instruction for pairs
    for (int i = 0; i + LANES <= count; i += LANES) {
        const Ints rounded = rounded_halves(floats(x + i));
        std::memcpy(to + 4 * i, &rounded, sizeof rounded);
    }
#endif
}

// A scale for the row; zero is 128. What is not finite makes the scale, so the whole row, none.
INLINE float as_bytes(const float* x, int count, uint8_t* to) {
    Floats most = {}, poison = {};
    for (int i = 0; i + LANES <= count; i += LANES) {
        const Floats values = floats(x + i);
        most = larger(most, larger(values, -values));
        poison += values * 0.0f;
    }
    float scale = largest(most);
    scale = scale < 1e-12f ? 1e-12f : scale;
    const float steps = 127.0f / scale;
    for (int i = 0; i + LANES <= count; i += LANES) {
        const Ints whole = __builtin_convertvector(floats(x + i) * steps + 128.5f, Ints);
        for (int lane = 0; lane < LANES; lane++) to[i + lane] = (uint8_t)whole[lane];
    }
    return scale + sum(poison);
}

// `x`: memory for `depth` floats, of which `inputs` are given.
INLINE void prepare(const Matrix& matrix, float* x, Inputs& inputs, int row) {
    const int count = matrix.depth;  // a whole number of lanes
    std::memset(x + matrix.inputs, 0, 4 * (count - matrix.inputs));
    switch (matrix.precision) {
        case Precision::float32: std::memcpy(inputs.row(row), x, 4 * count); break;
        case Precision::bfloat16: as_halves(x, count, inputs.row(row)); break;
        case Precision::int8: inputs.scales[row] = as_bytes(x, count, inputs.row(row)); break;
    }
}

// Weights come from memory once a step: asking for them this far ahead keeps it busy while rows are computed.
INLINE void ask_for(const uint8_t* weights) { _mm_prefetch((const char*)weights + AHEAD, _MM_HINT_T0); }

template <int ROWS>
INLINE void sums_float32(const Matrix& matrix, const uint8_t* panel, const uint8_t* x, int64_t stride, Floats* sums) {
    const float* weights = (const float*)panel;
    for (int k = 0; k < matrix.inputs; k++) {
        const Floats weight = floats(weights + LANES * k);
        ask_for((const uint8_t*)(weights + LANES * k));
        for (int row = 0; row < ROWS; row++) sums[row] += weight * ((const float*)(x + row * stride))[k];
    }
}

template <int ROWS>
INLINE void sums_bfloat16(const Matrix& matrix, const uint8_t* panel, const uint8_t* x, int64_t stride, Floats* sums) {
    for (int pair = 0; pair < matrix.depth / 2; pair++) {
        const Ints weights = load<Ints>(panel + 64 * pair);
        ask_for(panel + 64 * pair);
#ifdef __AVX512BF16__
        for (int row = 0; row < ROWS; row++) {
            const __m512i both = _mm512_set1_epi32(((const int32_t*)(x + row * stride))[pair]);
            sums[row] = (Floats)_mm512_dpbf16_ps((__m512)sums[row], (__m512bh)weights, (__m512bh)both);
        }
#else
        const Floats first = (Floats)(weights << 16), second = (Floats)(weights & (int32_t)0xFFFF0000);
        for (int row = 0; row < ROWS; row++) {
            const float* own = (const float*)(x + row * stride) + 2 * pair;
            sums[row] += first * own[0];
            sums[row] += second * own[1];
        }
#endif
    }
}

template <int ROWS>
INLINE void sums_int8(const Matrix& matrix, const uint8_t* panel, const uint8_t* x, int64_t stride, Ints* sums) {
#ifdef __AVX512VNNI__
    for (int four = 0; four < matrix.depth / 4; four++) {
        const __m512i weights = (__m512i)load<Ints>(panel + 64 * four);
        ask_for(panel + 64 * four);
        for (int row = 0; row < ROWS; row++) {
            const __m512i own = _mm512_set1_epi32(((const int32_t*)(x + row * stride))[four]);
            sums[row] = (Ints)_mm512_dpbusd_epi32((__m512i)sums[row], own, weights);
        }
    }
#endif
}

INLINE void put(Floats values, float* y, int count, bool add) {
    if (count == LANES) {
        store(y, add ? floats(y) + values : values);
    } else {
        for (int lane = 0; lane < count; lane++) y[lane] = add ? y[lane] + values[lane] : values[lane];
    }
}

template <int ROWS>
void panel_times(const Matrix& matrix, int number, const Inputs& inputs, int first, float* y, bool add) {
    const uint8_t* panel = matrix.data + number * matrix.panel_bytes;
    const int from = LANES * number;
    const int count = matrix.outputs - from < LANES ? matrix.outputs - from : LANES;
    const uint8_t* x = inputs.row(first);
    Floats sums[ROWS] = {};
    if (matrix.precision == Precision::int8) {
        Ints whole[ROWS];
        for (int row = 0; row < ROWS; row++) whole[row] = load<Ints>(matrix.offsets + from);
        sums_int8<ROWS>(matrix, panel, x, inputs.stride, whole);
        const Floats scales = floats(matrix.scales + from);
        for (int row = 0; row < ROWS; row++)
            sums[row] = __builtin_convertvector(whole[row], Floats) * scales * inputs.scales[first + row];
    } else if (matrix.precision == Precision::bfloat16) {
        sums_bfloat16<ROWS>(matrix, panel, x, inputs.stride, sums);
    } else {
        sums_float32<ROWS>(matrix, panel, x, inputs.stride, sums);
    }
    for (int row = 0; row < ROWS; row++) put(sums[row], y + (int64_t)(first + row) * matrix.outputs + from, count, add);
}

template <int ROWS>
INLINE void last_rows(const Matrix& matrix, int number, const Inputs& inputs, int first, int rows, float* y, bool add) {
    if (rows == ROWS) {
        panel_times<ROWS>(matrix, number, inputs, first, y, add);
    } else if constexpr (ROWS > 1) {
        last_rows<ROWS - 1>(matrix, number, inputs, first, rows, y, add);
    }
}

#ifdef __AMX_TILE__
constexpr int TILE = 16, TILES = 4;  // rows of a tile; tiles of rows that are computed together

struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE};
};

template <bool INT8>
INLINE void tiles_of(const uint8_t* panel, int steps, const uint8_t* x, int64_t stride, int tiles, void* sums) {
#define EACH_TILE(act) \
    act(0); \
    if (tiles > 1) act(1); \
    if (tiles > 2) act(2); \
    if (tiles > 3) act(3);
#define CLEAR(tile) _tile_zero(tile)
#define MULTIPLY(tile) \
    _tile_loadd(4, own + tile * TILE * stride, stride); \
    if constexpr (INT8) _tile_dpbusd(tile, 4, 5); else _tile_dpbf16ps(tile, 4, 5)
#define STORE(tile) _tile_stored(tile, (uint8_t*)sums + tile * TILE * 64, 64)
    EACH_TILE(CLEAR)
    for (int step = 0; step < steps; step++) {
        const uint8_t* weights = panel + 1024 * step;
        const uint8_t* own = x + 64 * step;
        for (int line = 0; line < 1024; line += 64) ask_for(weights + line);
        _tile_loadd(5, weights, 64);
        EACH_TILE(MULTIPLY)
    }
    EACH_TILE(STORE)
#undef EACH_TILE
#undef CLEAR
#undef MULTIPLY
#undef STORE
}

// Rows in tiles of 16; those beyond the last are computed and left.
INLINE void tile_times(const Matrix& matrix, int number, const Inputs& inputs, int rows, float* y, bool add) {
    const uint8_t* panel = matrix.data + number * matrix.panel_bytes;
    const int from = LANES * number, steps = (int)(matrix.panel_bytes / 1024);
    const int count = matrix.outputs - from < LANES ? matrix.outputs - from : LANES;
    alignas(64) uint8_t sums[TILES * TILE * 64];
    for (int first = 0; first < rows; first += TILES * TILE) {
        const int here = rows - first < TILES * TILE ? rows - first : TILES * TILE, tiles = (here + TILE - 1) / TILE;
        const bool int8 = matrix.precision == Precision::int8;
        if (int8) tiles_of<true>(panel, steps, inputs.row(first), inputs.stride, tiles, sums);
        else tiles_of<false>(panel, steps, inputs.row(first), inputs.stride, tiles, sums);
        for (int row = 0; row < here; row++) {
            Floats values = load<Floats>(sums + 64 * row);
            if (int8)
                values = __builtin_convertvector((Ints)values + load<Ints>(matrix.offsets + from), Floats) *
                         floats(matrix.scales + from) * inputs.scales[first + row];
            put(values, y + (int64_t)(first + row) * matrix.outputs + from, count, add);
        }
    }
}
#endif

// y [n, outputs] = (y +) the product. Called by all threads of a parallel region; there is a barrier at the end.
INLINE void times(const Matrix& matrix, const Inputs& inputs, int rows, float* y, bool add) {
#ifdef __AMX_TILE__
    if (matrix.precision != Precision::float32) {
        const TileShapes shapes;
        _tile_loadconfig(&shapes);
#pragma omp for schedule(static)
        for (int number = 0; number < matrix.panels; number++) tile_times(matrix, number, inputs, rows, y, add);
        _tile_release();
        return;
    }
#endif
#pragma omp for schedule(static)
    for (int number = 0; number < matrix.panels; number++) {
        int first = 0;
        for (; first + BLOCK <= rows; first += BLOCK) panel_times<BLOCK>(matrix, number, inputs, first, y, add);
        if (first < rows) last_rows<BLOCK - 1>(matrix, number, inputs, first, rows - first, y, add);
    }
}

}  // namespace VARIANT
