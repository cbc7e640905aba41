// What the variants share. Shapes: n rows, H hidden width, I inner width, h heads of depth D, R slots, M positions.
#pragma once

#include <cstdint>

enum class Precision : int32_t { float32 = 0, bfloat16 = 1, int8 = 2 };

// A weight matrix [outputs, inputs] in panels of 16 outputs, so that one step reads it once from end to end.
// In a panel, float32: [inputs][16]; bfloat16: [inputs / 2][16][2]; int8: [inputs / 4][16][4].
struct Matrix {
    Precision precision;
    int32_t outputs, inputs;
    int32_t panels, depth;  // `depth`: inputs, filled up with zeros to whole groups of 64
    int64_t panel_bytes;
    uint8_t* data;
    float* scales;     // int8 [outputs]: of a weight's step over 127 (an input's steps)
    int32_t* offsets;  // int8 [outputs]: what the sums begin with, as inputs are shifted by 128
};

struct Layer {
    const float* norm_attention;  // [H]
    const float* norm_mlp;        // [H]
    const Matrix *qkv, *out, *gate_up, *down;
};

struct Model {
    int32_t layers, width, inner, heads, depth, positions;
    float epsilon;
    const Layer* layer;
    const float* norm_last;  // [H]
    const float* turns;      // [M, 2, D / 2, 2]: of queries (with the scale of the scores) and of keys; cosine, sine
    void* cache;             // [layers, R, h, 2, M, D], float32 or bfloat16
    int32_t slots, halves;   // `halves`: whether the cache is in bfloat16
};

// Of n rows.
struct Draws {
    const float* logits;  // [n, books, V]
    int32_t books, codes, end;
    const int64_t* history;  // [n, books, window], -1 where there is none yet
    int32_t window;
    const float *temperature, *top_p, *penalty;  // [n]
    const int64_t *top_k, *seed, *step;          // [n]
    const uint8_t* may_end;                      // [n]
    int64_t* chosen;                             // [n, books]
};

struct Kernels {
    const char* name;
    bool int8;
    void (*multiply)(const Matrix&, const float* x, int32_t rows, float* y, int32_t threads);
    void (*forward)(const Model&, float* x, int32_t rows, const int32_t* slots, const int32_t* positions,
                    int32_t threads);
    void (*draw)(const Draws&, int32_t rows, int32_t threads);
};
