// The language model's layers over static keys and values.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "products.hpp"

namespace VARIANT {

constexpr int filled(int count) { return (count + LANES - 1) / LANES * LANES; }

// One row: `to` [width].
INLINE void normed(const float* x, const float* weight, int width, float epsilon, float* to) {
    Floats squares = {};
    float rest = 0;
    int i = 0;
    for (; i + LANES <= width; i += LANES) squares += floats(x + i) * floats(x + i);
    for (int j = i; j < width; j++) rest += x[j] * x[j];
    const float factor = 1.0f / std::sqrt((sum(squares) + rest) / width + epsilon);
    for (i = 0; i + LANES <= width; i += LANES) store(to + i, floats(x + i) * factor * floats(weight + i));
    for (; i < width; i++) to[i] = x[i] * factor * weight[i];
}

// A query or a key of one head, in place. Pairs that turn together are neighbours.
INLINE void turned(float* x, const float* turns, int depth) {
    for (int i = 0; i < depth; i += 2) {
        const float a = x[i], b = x[i + 1], cosine = turns[i], sine = turns[i + 1];
        x[i] = a * cosine - b * sine;
        x[i + 1] = a * sine + b * cosine;
    }
}

// One query over its own `columns` keys and values, each [M, 16 * BLOCKS]: -> `to`. `scores`: memory for filled(M).
template <int BLOCKS, typename Key>
INLINE void attended(const float* query, const Key* keys, const Key* values, int columns, float* scores, float* to) {
    constexpr int depth = LANES * BLOCKS;
    Floats own[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) own[i] = floats(query + LANES * i);
    for (int t = 0; t < columns; t++) {
        const Key* key = keys + (int64_t)t * depth;
        Floats products = own[0] * floats(key);
        for (int i = 1; i < BLOCKS; i++) products += own[i] * floats(key + LANES * i);
        scores[t] = sum(products);
    }
    for (int t = columns; t < filled(columns); t++) scores[t] = -INFINITY;
    Floats most = floats_of(-INFINITY), total = {};
    for (int t = 0; t < columns; t += LANES) most = larger(most, floats(scores + t));
    const float top = largest(most);
    for (int t = 0; t < columns; t += LANES) {
        const Floats shares = exponential(floats(scores + t) - top);
        store(scores + t, shares);
    }
    for (int t = columns; t < filled(columns); t++) scores[t] = 0;
    for (int t = 0; t < columns; t += LANES) total += floats(scores + t);
    Floats even[BLOCKS] = {}, odd[BLOCKS] = {};  // two chains of sums: one alone would wait for itself
    for (int t = 0; t < columns; t += 2) {
        const Key *first = values + (int64_t)t * depth, *second = t + 1 < columns ? first + depth : first;
        const float next = t + 1 < columns ? scores[t + 1] : 0.0f;
        for (int i = 0; i < BLOCKS; i++) {
            even[i] += floats(first + LANES * i) * scores[t];
            odd[i] += floats(second + LANES * i) * next;
        }
    }
    const float share = 1.0f / sum(total);
    for (int i = 0; i < BLOCKS; i++) store(to + LANES * i, (even[i] + odd[i]) * share);
}

// silu(gate) * up of one row [2 * inner] -> `to` [inner].
INLINE void gated(const float* x, int inner, float* to) {
    int i = 0;
    for (; i + LANES <= inner; i += LANES) {
        const Floats gate = floats(x + i);
        store(to + i, gate / (1.0f + exponential(-gate)) * floats(x + inner + i));
    }
    for (; i < inner; i++) to[i] = x[i] / (1.0f + std::exp(-x[i])) * x[inner + i];
}

// Memory of a pass, taken as needed and kept; one pass runs at a time on a thread.
struct Workspace {
    Inputs inputs;
    std::vector<float> qkv, mixed, inner, rows, scores;

    // How many floats a thread has in `rows`: those of the widest product.
    int fit(const Model& model, int count, int threads) {
        const Layer& layer = model.layer[0];
        const int widest = std::max({layer.qkv->depth, layer.out->depth, layer.down->depth});
        inputs.fit(count, widest);
        const auto at_least = [](std::vector<float>& memory, int64_t size) {
            if (memory.size() < (size_t)size) memory.resize(size);
        };
        at_least(qkv, (int64_t)count * 3 * model.width);
        at_least(mixed, (int64_t)count * model.width);
        at_least(inner, (int64_t)count * 2 * model.inner);
        at_least(rows, (int64_t)threads * widest);
        at_least(scores, (int64_t)threads * filled(model.positions));
        return widest;
    }
};

inline thread_local Workspace workspace;

}  // namespace VARIANT
