// Compiled once for each set of instructions: one product, and one pass of the whole model.
#include <omp.h>

#include "layers.hpp"
#include "sampling.hpp"

namespace VARIANT {

static void multiply(const Matrix& matrix, const float* x, int32_t rows, float* y, int32_t threads) {
    Workspace& memory = workspace;
    memory.inputs.fit(rows, matrix.depth);
    Inputs& inputs = memory.inputs;
    const int count = matrix.depth;
    if (memory.rows.size() < (size_t)(threads * count)) memory.rows.resize(threads * count);
    float* own_rows = memory.rows.data();
#pragma omp parallel num_threads(threads)
    {
        const NoSubnormals here;
        float* own = own_rows + omp_get_thread_num() * count;
#pragma omp for
        for (int row = 0; row < rows; row++) {
            std::memcpy(own, x + (int64_t)row * matrix.inputs, 4 * matrix.inputs);
            prepare(matrix, own, inputs, row);
        }
        times(matrix, inputs, rows, y, false);
    }
}

// x [n, H] -> the hidden states [n, H], in place. A row's key is written at its own position, and it sees the
// positions up to that: rows of one slot at positions in order are a prompt, rows of different slots a step.
template <int BLOCKS, typename Key>
static void forward_over(const Model& model, float* x, int32_t rows, const int32_t* slots, const int32_t* positions,
                    int32_t threads) {
    Workspace& memory = workspace;
    const int widest = memory.fit(model, rows, threads);
    Inputs& inputs = memory.inputs;
    float *qkv = memory.qkv.data(), *mixed = memory.mixed.data(), *inner = memory.inner.data();
    float *all_rows = memory.rows.data(), *all_scores = memory.scores.data();
    const int width = model.width, heads = model.heads;
    constexpr int depth = LANES * BLOCKS;
    const int64_t place = (int64_t)model.positions * depth;  // of one head's keys or values
#pragma omp parallel num_threads(threads)
    {
        const NoSubnormals here;
        float* own = all_rows + omp_get_thread_num() * widest;
        float* scores = all_scores + (int64_t)omp_get_thread_num() * filled(model.positions);
        for (int number = 0; number < model.layers; number++) {
            const Layer& layer = model.layer[number];
            Key* cache = (Key*)model.cache + (int64_t)number * model.slots * heads * 2 * place;
#pragma omp for
            for (int row = 0; row < rows; row++) {
                normed(x + (int64_t)row * width, layer.norm_attention, width, model.epsilon, own);
                prepare(*layer.qkv, own, inputs, row);
            }
            times(*layer.qkv, inputs, rows, qkv, false);
#pragma omp for
            for (int task = 0; task < rows * heads; task++) {
                const int row = task / heads, head = task % heads, position = positions[row];
                float* query = qkv + (int64_t)row * 3 * width + head * depth;
                const float* turns = model.turns + (int64_t)position * 2 * depth;
                turned(query, turns, depth);
                turned(query + width, turns + depth, depth);
                Key* keys = cache + ((int64_t)slots[row] * heads + head) * 2 * place + (int64_t)position * depth;
                for (int i = 0; i < depth; i += LANES) {
                    store(keys + i, floats(query + width + i));
                    store(keys + place + i, floats(query + 2 * width + i));
                }
            }
#pragma omp for schedule(dynamic)
            for (int task = 0; task < rows * heads; task++) {
                const int row = task / heads, head = task % heads;
                const Key* keys = cache + ((int64_t)slots[row] * heads + head) * 2 * place;
                attended<BLOCKS>(qkv + (int64_t)row * 3 * width + head * depth, keys, keys + place, positions[row] + 1,
                                 scores, mixed + (int64_t)row * width + head * depth);
            }
#pragma omp for
            for (int row = 0; row < rows; row++) {
                std::memcpy(own, mixed + (int64_t)row * width, 4 * width);
                prepare(*layer.out, own, inputs, row);
            }
            times(*layer.out, inputs, rows, x, true);
#pragma omp for
            for (int row = 0; row < rows; row++) {
                normed(x + (int64_t)row * width, layer.norm_mlp, width, model.epsilon, own);
                prepare(*layer.gate_up, own, inputs, row);
            }
            times(*layer.gate_up, inputs, rows, inner, false);
#pragma omp for
            for (int row = 0; row < rows; row++) {
                gated(inner + (int64_t)row * 2 * model.inner, model.inner, own);
                prepare(*layer.down, own, inputs, row);
            }
            times(*layer.down, inputs, rows, x, true);
        }
#pragma omp for
        for (int row = 0; row < rows; row++) {
            normed(x + (int64_t)row * width, model.norm_last, width, model.epsilon, own);
            std::memcpy(x + (int64_t)row * width, own, 4 * width);
        }
    }
}

template <int BLOCKS>
static void forward_heads(const Model& model, float* x, int32_t rows, const int32_t* slots, const int32_t* positions,
                          int32_t threads) {
    if (model.halves) forward_over<BLOCKS, uint16_t>(model, x, rows, slots, positions, threads);
    else forward_over<BLOCKS, float>(model, x, rows, slots, positions, threads);
}

static void forward(const Model& model, float* x, int32_t rows, const int32_t* slots, const int32_t* positions,
                    int32_t threads) {
    switch (model.depth) {  // kernels/__init__.py, DEPTHS
        case 16: return forward_heads<1>(model, x, rows, slots, positions, threads);
        case 32: return forward_heads<2>(model, x, rows, slots, positions, threads);
        case 64: return forward_heads<4>(model, x, rows, slots, positions, threads);
    }
}

#define TEXT_OF(name) #name
#define NAME_OF(name) TEXT_OF(name)
#ifdef __AVX512VNNI__
constexpr bool HAS_INT8 = true;
#else
constexpr bool HAS_INT8 = false;
#endif

extern const Kernels kernels;
const Kernels kernels = {NAME_OF(VARIANT), HAS_INT8, multiply, forward, draw};

}  // namespace VARIANT
