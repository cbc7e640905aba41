// The C interface that kernels.py calls, and the choice of the variant. Packing needs no special instructions.
#include <cpuid.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "kernels.hpp"

namespace avx2 { extern const Kernels kernels; }
namespace avx512 { extern const Kernels kernels; }
namespace avx512_vnni { extern const Kernels kernels; }
namespace avx512_bf16 { extern const Kernels kernels; }
namespace amx { extern const Kernels kernels; }

namespace {

constexpr int64_t HUGE = 2 << 20;

constexpr int LANES = 16, GROUP = 64;  // `depth` is in whole groups: what a tile takes of inputs

// Tiles are kilobytes more to save for each thread: Linux wants to be asked for them.
bool has_tiles() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    const bool there = (d >> 22 & 1) && (d >> 24 & 1) && (d >> 25 & 1);  // bfloat16, tiles, int8
    return there && syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

bool runs(const Kernels& kernels) {
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool whole = wide && __builtin_cpu_supports("avx512vnni");
    if (&kernels == &amx::kernels) return whole && has_tiles();
    if (&kernels == &avx512_bf16::kernels) return whole && __builtin_cpu_supports("avx512bf16");
    if (&kernels == &avx512_vnni::kernels) return whole;
    if (&kernels == &avx512::kernels) return wide;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

uint16_t half(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (std::isnan(value)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

template <typename Element>
void* memory(int64_t count) {
    const int64_t bytes = (count * sizeof(Element) + 63) / 64 * 64;
    void* made = std::aligned_alloc(64, bytes);
    if (made) std::memset(made, 0, bytes);
    return made;
}

void pack_panel(Matrix& matrix, const float* weight, int number) {
    uint8_t* panel = matrix.data + number * matrix.panel_bytes;
    std::memset(panel, 0, matrix.panel_bytes);
    for (int lane = 0; lane < LANES && LANES * number + lane < matrix.outputs; lane++) {
        const int output = LANES * number + lane;
        const float* row = weight + (int64_t)output * matrix.inputs;
        if (matrix.precision == Precision::float32) {
            for (int k = 0; k < matrix.inputs; k++) ((float*)panel)[LANES * k + lane] = row[k];
        } else if (matrix.precision == Precision::bfloat16) {
            uint16_t* halves = (uint16_t*)panel;
            for (int k = 0; k < matrix.inputs; k++) halves[(k / 2 * LANES + lane) * 2 + k % 2] = half(row[k]);
        } else {
            float most = 1e-12f * 127;
            for (int k = 0; k < matrix.inputs; k++) most = std::fabs(row[k]) > most ? std::fabs(row[k]) : most;
            const float step = most / 127, inverse = 1 / step;
            int32_t total = 0;
            for (int k = 0; k < matrix.inputs; k++) {
                const int whole = (int)std::lrintf(row[k] * inverse);
                ((int8_t*)panel)[(k / 4 * LANES + lane) * 4 + k % 4] = (int8_t)whole;
                total += whole;
            }
            matrix.scales[output] = step / 127;
            matrix.offsets[output] = -128 * total;
        }
    }
}

}  // namespace

extern "C" {

// Number `rank` of the variants that this CPU runs, the fastest first; null: no more.
const Kernels* kernels_variant(int32_t rank) {
    for (const Kernels* kernels :
         {&amx::kernels, &avx512_bf16::kernels, &avx512_vnni::kernels, &avx512::kernels, &avx2::kernels})
        if (runs(*kernels) && rank-- == 0) return kernels;
    return nullptr;
}

const char* kernels_name(const Kernels* kernels) { return kernels->name; }
int32_t kernels_int8(const Kernels* kernels) { return kernels->int8; }

void kernels_free(Matrix* matrix) {
    if (!matrix) return;
    std::free(matrix->data);
    std::free(matrix->scales);
    std::free(matrix->offsets);
    delete matrix;
}

// `weight` [outputs, inputs], float32; null: no memory.
Matrix* kernels_pack(const float* weight, int32_t outputs, int32_t inputs, int32_t precision, int32_t threads) {
    Matrix* matrix = new Matrix{};
    matrix->precision = (Precision)precision;
    matrix->outputs = outputs, matrix->inputs = inputs;
    matrix->panels = (outputs + LANES - 1) / LANES;
    matrix->depth = (inputs + GROUP - 1) / GROUP * GROUP;
    const int element = matrix->precision == Precision::float32 ? 4 : matrix->precision == Precision::bfloat16 ? 2 : 1;
    matrix->panel_bytes = (int64_t)LANES * matrix->depth * element;
    const int64_t bytes = (matrix->panels * matrix->panel_bytes + HUGE - 1) / HUGE * HUGE;
    matrix->data = (uint8_t*)std::aligned_alloc(HUGE, bytes);
    if (matrix->data) madvise(matrix->data, bytes, MADV_HUGEPAGE);
    if (matrix->precision == Precision::int8) {
        matrix->scales = (float*)memory<float>(matrix->panels * LANES);
        matrix->offsets = (int32_t*)memory<int32_t>(matrix->panels * LANES);
    }
    if (!matrix->data || (matrix->precision == Precision::int8 && !(matrix->scales && matrix->offsets))) {
        kernels_free(matrix);
        return nullptr;
    }
#pragma omp parallel for num_threads(threads)
    for (int number = 0; number < matrix->panels; number++) pack_panel(*matrix, weight, number);
    return matrix;
}

void kernels_multiply(const Kernels* kernels, const Matrix* matrix, const float* x, int32_t rows, float* y,
                      int32_t threads) {
    kernels->multiply(*matrix, x, rows, y, threads);
}

void kernels_forward(const Kernels* kernels, const Model* model, float* x, int32_t rows, const int32_t* slots,
                     const int32_t* positions, int32_t threads) {
    kernels->forward(*model, x, rows, slots, positions, threads);
}

void kernels_draw(const Kernels* kernels, const Draws* draws, int32_t rows, int32_t threads) {
    kernels->draw(*draws, rows, threads);
}
}
