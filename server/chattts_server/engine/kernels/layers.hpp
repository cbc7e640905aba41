// The language model's layers over static keys and values.
#pragma once

#include <cmath>
#include <vector>

#include "products.hpp"

namespace VARIANT {

constexpr int filled(int count) { return (count + LANES - 1) / LANES * LANES; }

// One row: `to` [filled(width)].
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

// One query over its own `columns` keys and values [M, D]: -> `to` [D]. `scores`: memory for filled(M).
INLINE void attended(const float* query, const float* keys, const float* values, int columns, int depth, float* scores,
                     float* to) {
    const int whole = depth / LANES * LANES;
    for (int t = 0; t < columns; t++) {
        const float* key = keys + (int64_t)t * depth;
        Floats products = {};
        for (int i = 0; i < whole; i += LANES) products += floats(query + i) * floats(key + i);
        float score = sum(products);
        for (int i = whole; i < depth; i++) score += query[i] * key[i];
        scores[t] = score;
    }
    for (int t = columns; t < filled(columns); t++) scores[t] = -INFINITY;
    Floats most = floats_of(-INFINITY), total = {};
    for (int t = 0; t < columns; t += LANES) most = larger(most, floats(scores + t));
    const float top = largest(most);
    for (int t = 0; t < columns; t += LANES) {
        Floats weights = exponential(floats(scores + t) - top);
        for (int lane = columns - t; lane < LANES; lane++) weights[lane] = 0;
        total += weights;
        store(scores + t, weights);
    }
    const float share = 1.0f / sum(total);
    for (int i = 0; i < whole; i += LANES) {
        Floats mixed = {};
        for (int t = 0; t < columns; t++) mixed += floats(values + (int64_t)t * depth + i) * scores[t];
        store(to + i, mixed * share);
    }
    for (int i = whole; i < depth; i++) {
        float mixed = 0;
        for (int t = 0; t < columns; t++) mixed += values[(int64_t)t * depth + i] * scores[t];
        to[i] = mixed * share;
    }
}

// silu(gate) * up of one row [2 * inner] -> `to` [filled(inner)].
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

    void fit(const Model& model, int count, int threads) {
        const int widest = filled(model.inner > model.width ? model.inner : model.width);
        inputs.fit(count, widest);
        const auto at_least = [](std::vector<float>& memory, int64_t size) {
            if (memory.size() < (size_t)size) memory.resize(size);
        };
        at_least(qkv, (int64_t)count * 3 * model.width);
        at_least(mixed, (int64_t)count * filled(model.width) + LANES);
        at_least(inner, (int64_t)count * 2 * model.inner);
        at_least(rows, (int64_t)threads * widest);
        at_least(scores, (int64_t)threads * filled(model.positions));
    }
};

inline thread_local Workspace workspace;

}  // namespace VARIANT
