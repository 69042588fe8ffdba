// Products with bfloat16 matrices whose other operand is rounded to bfloat16, too: pairs of channels are multiplied at a time, by AVX-512 BF16, and
// added up in float32. Twice the arithmetic of dense_tiles.h in the same time. What has no such instructions rounds (RoundToBf16) and multiplies there.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "dense_tiles.h"

namespace {

#define AVX512BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")))

bool UsesBf16() {
  static const bool uses = UsesAvx512() && __builtin_cpu_supports("avx512bf16");
  return uses;
}

// The nearest bfloat16, ties to even; NaN stays NaN.
inline uint16_t Bf16Of(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return static_cast<uint16_t>(v != v ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The same as a float.
inline float RoundToBf16(float v) {
  const uint32_t bits = static_cast<uint32_t>(Bf16Of(v)) << 16;
  std::memcpy(&v, &bits, 4);
  return v;
}

// A row in bfloat16, filled up with zeros to whole vectors.
inline void PairRow(const float* x, int64_t inner, uint16_t* to) {
  for (int64_t k = 0; k < inner; k++) to[k] = Bf16Of(x[k]);
  for (int64_t k = inner; k % kBlock512 != 0; k++) to[k] = 0;
}

// O outputs of R rows into y, whose rows are `row` apart. x: bfloat16, rows `width` apart.
template <int R, int O>
AVX512BF16 inline void PairTile(const uint16_t* x, int64_t width, const char* w, int64_t inner, float* y, int64_t row) {
  constexpr int kSums = R * O < 4 ? 4 : 1;  // a sum alone would wait for itself
  const int64_t stride = inner * 2;
  __m512 sum[R][O][kSums];
  for (int r = 0; r < R; r++)
    for (int o = 0; o < O; o++)
      for (int i = 0; i < kSums; i++) sum[r][o][i] = _mm512_setzero_ps();
  int64_t k = 0;
  for (; k + kSums * kBlock512 <= inner; k += kSums * kBlock512)
    for (int i = 0; i < kSums; i++) {
      __m512bh own[O];
      for (int o = 0; o < O; o++) own[o] = (__m512bh)_mm512_loadu_si512(w + o * stride + (k + i * kBlock512) * 2);
      Fetch<O, kBlock512, 2>(w, k + i * kBlock512, stride);
      for (int r = 0; r < R; r++) {
        const __m512bh met = (__m512bh)_mm512_loadu_si512(x + r * width + k + i * kBlock512);
        for (int o = 0; o < O; o++) sum[r][o][i] = _mm512_dpbf16_ps(sum[r][o][i], own[o], met);
      }
    }
  for (; k < inner; k += kBlock512)
    for (int o = 0; o < O; o++) {
      const __mmask32 there = inner - k >= kBlock512 ? 0xffffffffu : (1u << (inner - k)) - 1;
      const __m512bh own = (__m512bh)_mm512_maskz_loadu_epi16(there, w + o * stride + k * 2);
      for (int r = 0; r < R; r++)
        sum[r][o][0] = _mm512_dpbf16_ps(sum[r][o][0], own, (__m512bh)_mm512_loadu_si512(x + r * width + k));
    }
  __m512 all[R][O];
  for (int r = 0; r < R; r++)
    for (int o = 0; o < O; o++) {
      all[r][o] = sum[r][o][0];
      for (int i = 1; i < kSums; i++) all[r][o] = _mm512_add_ps(all[r][o], sum[r][o][i]);
    }
  StoreSums<R, O>(all, y, row);
}

// `outputs` of R rows. @param w the weights of the first of them
using PairFn = void (*)(const uint16_t* x, int64_t width, const char* w, int64_t inner, int64_t outputs, float* y, int64_t row);

template <int R>
AVX512BF16 void Pairs(const uint16_t* x, int64_t width, const char* w, int64_t inner, int64_t outputs, float* y, int64_t row) {
  constexpr int O = R == 1 ? 1 : R <= 6 ? 4 : 3;  // at most 24 sums in 32 registers
  int64_t o = 0;
  for (; o + O <= outputs; o += O) PairTile<R, O>(x, width, w + o * inner * 2, inner, y + o, row);
  for (; o < outputs; o++) PairTile<R, 1>(x, width, w + o * inner * 2, inner, y + o, row);
}

// By rows, from 1 on.
constexpr PairFn kPairs[kDenseCall] = {Pairs<1>, Pairs<2>, Pairs<3>, Pairs<4>, Pairs<5>, Pairs<6>, Pairs<7>, Pairs<8>};

}  // namespace
