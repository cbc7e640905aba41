// From logits to codes, as sampling.py does it: the same order, the same noise. One row and codebook at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.hpp"

namespace VARIANT {

constexpr int KEEP_AT_LEAST = 3;

inline uint64_t mixed(uint64_t x) {  // MurmurHash3's 64-bit finalizer
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdULL;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

// Exponential(1), a function of the key and the code alone.
inline float noise(uint64_t key, uint64_t code) {
    const uint64_t bits = mixed(mixed(key) + code);
    return -std::log(((float)(bits >> 41 & 0x7FFFFF) + 0.5f) * 0x1p-23f);
}

inline void penalize(float* scores, const int64_t* history, int window, float penalty) {
    for (int i = 0; i < window; i++) {
        const int64_t code = history[i];
        if (code < 0 || std::find(history, history + i, code) != history + i) continue;
        const float factor = std::pow(penalty, (float)std::count(history + i, history + window, code));
        scores[code] = scores[code] < 0 ? scores[code] * factor : scores[code] / factor;
    }
}

// `scores` [V] -> the code. What is not finite has no order: the caller hears of it by the logits.
inline int64_t drawn(const Draws& of, int row, int book, const float* scores, std::vector<int32_t>& order) {
    const int codes = of.codes;
    double most = -INFINITY, total = 0;
    for (int code = 0; code < codes; code++) {
        if (!std::isfinite(scores[code])) return 0;
        most = std::max(most, (double)scores[code]);
    }
    for (int code = 0; code < codes; code++) total += std::exp(scores[code] - most);
    const double normal = most + std::log(total);
    order.resize(codes);
    for (int code = 0; code < codes; code++) order[code] = code;
    const int kept = (int)std::min<int64_t>(codes, std::max<int64_t>(KEEP_AT_LEAST, of.top_k[row]));
    std::partial_sort(order.begin(), order.begin() + kept, order.end(), [&](int32_t a, int32_t b) {
        return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
    });
    const uint64_t key = mixed(of.seed[row]) + (uint64_t)of.step[row] * of.books + book;
    double before = 0;
    float best = -INFINITY;
    int64_t chosen = order[0];
    for (int rank = 0; rank < kept && (before < of.top_p[row] || rank < KEEP_AT_LEAST); rank++) {
        const int32_t code = order[rank];
        before += std::exp(scores[code] - normal);
        if (code == of.end && !of.may_end[row]) continue;
        const float score = scores[code] - std::log(noise(key, code));
        if (score > best) best = score, chosen = code;
    }
    return chosen;
}

inline void draw(const Draws& of, int32_t rows, int32_t threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scores(of.codes);
        std::vector<int32_t> order;
#pragma omp for schedule(dynamic)
        for (int task = 0; task < rows * of.books; task++) {
            const int row = task / of.books;
            const float* logits = of.logits + (int64_t)task * of.codes;
            for (int code = 0; code < of.codes; code++) scores[code] = logits[code] / of.temperature[row];
            penalize(scores.data(), of.history + (int64_t)task * of.window, of.window, of.penalty[row]);
            of.chosen[task] = drawn(of, row, task % of.books, scores.data(), order);
        }
    }
}

}  // namespace VARIANT
