// The arithmetic of products with float32 and bfloat16 matrices on CPUs, in float32: a matrix is read once for all rows, and a bfloat16
// one widened on the way, in two sets of instructions, AVX-512 and AVX2. projection.h calls it.
//
// A vector of bfloat16 is two of float32, of its even and of its odd channels. x is laid out so that they meet theirs: in blocks of
// kBlock512 or kBlock256 channels, the even ones before the odd ones, filled up with zeros.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "elementwise.h"

namespace {

// Most rows that meet a matrix in the registers of AVX2.
constexpr int kDenseRows256 = 4;
// Rows of a call, which meet the weights of some outputs one set after another.
constexpr int kDenseCall = 8;
// Channels that are multiplied at a time.
constexpr int kBlock512 = 32, kBlock256 = 16;
// Outputs whose weights are kept in a cache while block after block of rows meets them; all tiles below divide it.
constexpr int64_t kDenseChunk = 12;

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))

// Some rows of x in such blocks, one after another, each `width` floats.
struct Blocked {
  const float* x;
  int64_t width;
};

inline void BlockRow(const float* x, int64_t inner, int64_t block, bool bf16, float* to) {
  const int64_t width = (inner + block - 1) / block * block;
  std::memcpy(to, x, sizeof(float) * inner);
  std::memset(to + inner, 0, sizeof(float) * (width - inner));
  if (!bf16) return;
  float own[kBlock512];
  for (int64_t k = 0; k < width; k += block) {
    std::memcpy(own, to + k, sizeof(float) * block);
    for (int64_t i = 0; i < block / 2; i++) {
      to[k + i] = own[2 * i];
      to[k + block / 2 + i] = own[2 * i + 1];
    }
  }
}

// Two vectors of weights, of which `channels` are there.
template <bool kBf16, bool kWhole>
AVX512 inline void Weights512(const char* w, int64_t channels, __m512* a, __m512* b) {
  if (kBf16) {
    const __m512i both = kWhole ? _mm512_loadu_si512(w) : _mm512_maskz_loadu_epi16((1u << channels) - 1, w);
    *a = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
    *b = _mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(0xffff0000)));
    return;
  }
  const float* from = reinterpret_cast<const float*>(w);
  const uint32_t mask = kWhole ? 0xffffffffu : (1u << channels) - 1;
  *a = kWhole ? _mm512_loadu_ps(from) : _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
  *b = kWhole ? _mm512_loadu_ps(from + 16) : _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16);
}

// Asks for what comes after O outputs, whose weights begin at `w`, while block `k` of them is multiplied. It goes by addresses: memory gives
// a single stream up to twice as fast as one stream an output. They come to the second cache, since the first
// has the rows that they meet; those of one output in bfloat16 to the first, which takes four fifths of the time (of float32, more).
template <int O, int64_t kBlock, int64_t kSize>
inline void Fetch(const char* w, int64_t k, int64_t stride) {
  constexpr _mm_hint kHint = O == 1 && kSize == 2 ? _MM_HINT_T0 : _MM_HINT_T1;
  const char* ahead = w + (O == 1 ? 4096 : O * stride + 2048) + O * k * kSize;
  for (int64_t at = 0; at < O * kBlock * kSize; at += 64) _mm_prefetch(ahead + at, kHint);
}

// Keeps the compiler from loading it anew at each use.
AVX512 inline __m512 InRegister512(__m512 v) {
  asm("" : "+v"(v));
  return v;
}

// The sums of four vectors, each in a place of its own: a third of the work of adding up one after another.
AVX512 inline __m128 SumsOfFour(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// The sums of O outputs of R rows into y, whose rows are `row` apart.
template <int R, int O>
AVX512 inline void StoreSums(const __m512 (&sum)[R][O], float* y, int64_t row) {
  constexpr int kAll = R * O;
  if constexpr (kAll == 1) {
    y[0] = _mm512_reduce_add_ps(sum[0][0]);
    return;
  }
  for (int i = 0; i < kAll; i += 4) {
    __m512 of[4];
    for (int j = 0; j < 4; j++) of[j] = i + j < kAll ? sum[(i + j) / O][(i + j) % O] : _mm512_setzero_ps();
    alignas(16) float four[4];
    _mm_store_ps(four, SumsOfFour(of[0], of[1], of[2], of[3]));
    for (int j = 0; j < 4 && i + j < kAll; j++) y[(i + j) / O * row + (i + j) % O] = four[j];
  }
}

// O outputs of R rows into y, whose rows are `row` apart. @param kAhead whether weights are asked for ahead (stream_trial.h)
template <int R, int O, bool kBf16, bool kAhead = true>
AVX512 inline void Tile512(Blocked x, const char* w, int64_t inner, float* y, int64_t row) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  constexpr int kSums = R * O < 4 ? 2 : 1;  // a sum alone would wait for itself
  const int64_t stride = inner * kSize;
  __m512 sum[R][O][kSums];
  for (int r = 0; r < R; r++)
    for (int o = 0; o < O; o++)
      for (int i = 0; i < kSums; i++) sum[r][o][i] = _mm512_setzero_ps();
  int64_t k = 0;
  for (; k + kBlock512 <= inner; k += kBlock512) {
    __m512 a[O], b[O];
    for (int o = 0; o < O; o++) Weights512<kBf16, true>(w + o * stride + k * kSize, 0, &a[o], &b[o]);
    if (kAhead) Fetch<O, kBlock512, kSize>(w, k, stride);
    for (int r = 0; r < R; r++) {
      const float* own = x.x + r * x.width + k;
      const __m512 xa = O == 1 ? _mm512_loadu_ps(own) : InRegister512(_mm512_loadu_ps(own));
      for (int o = 0; o < O; o++) sum[r][o][0] = _mm512_fmadd_ps(a[o], xa, sum[r][o][0]);
      const __m512 xb = O == 1 ? _mm512_loadu_ps(own + 16) : InRegister512(_mm512_loadu_ps(own + 16));
      for (int o = 0; o < O; o++) sum[r][o][kSums - 1] = _mm512_fmadd_ps(b[o], xb, sum[r][o][kSums - 1]);
    }
  }
  if (k < inner)
    for (int o = 0; o < O; o++) {
      __m512 a, b;
      Weights512<kBf16, false>(w + o * stride + k * kSize, inner - k, &a, &b);
      for (int r = 0; r < R; r++) {
        const float* own = x.x + r * x.width + k;
        sum[r][o][0] = _mm512_fmadd_ps(a, _mm512_loadu_ps(own), sum[r][o][0]);
        sum[r][o][0] = _mm512_fmadd_ps(b, _mm512_loadu_ps(own + 16), sum[r][o][0]);
      }
    }
  __m512 all[R][O];
  for (int r = 0; r < R; r++)
    for (int o = 0; o < O; o++)
      all[r][o] = kSums == 1 ? sum[r][o][0] : _mm512_add_ps(sum[r][o][0], sum[r][o][kSums - 1]);
  StoreSums<R, O>(all, y, row);
}

// Keeps the compiler from loading it anew at each use.
AVX2 inline __m256 InRegister(__m256 v) {
  asm("" : "+x"(v));
  return v;
}

template <bool kBf16, bool kWhole>
AVX2 inline void Weights256(const char* w, int64_t channels, __m256* a, __m256* b) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  alignas(32) char rest[kBlock256 * kSize];
  if (!kWhole) {
    std::memset(rest, 0, sizeof(rest));
    std::memcpy(rest, w, channels * kSize);
    w = rest;
  }
  if (kBf16) {
    const __m256i both = _mm256_castps_si256(InRegister(_mm256_loadu_ps(reinterpret_cast<const float*>(w))));
    *a = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
    *b = _mm256_castsi256_ps(_mm256_and_si256(both, _mm256_set1_epi32(0xffff0000)));
    return;
  }
  *a = _mm256_loadu_ps(reinterpret_cast<const float*>(w));
  *b = _mm256_loadu_ps(reinterpret_cast<const float*>(w) + 8);
}

AVX2 inline float Sum256(__m256 v) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

// @param kFetch whether the weights are not in the cache yet
template <int R, int O, bool kBf16, bool kFetch>
AVX2 inline void Tile256(Blocked x, const char* w, int64_t inner, float* y, int64_t row) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  constexpr int kSums = R * O < 4 ? 2 : 1;
  const int64_t stride = inner * kSize;
  __m256 sum[R][O][kSums];
  for (int r = 0; r < R; r++)
    for (int o = 0; o < O; o++)
      for (int i = 0; i < kSums; i++) sum[r][o][i] = _mm256_setzero_ps();
  int64_t k = 0;
  for (; k + kBlock256 <= inner; k += kBlock256) {
    __m256 a[O], b[O];
    for (int o = 0; o < O; o++) {
      const char* from = w + o * stride + k * kSize;
      Weights256<kBf16, true>(from, 0, &a[o], &b[o]);
    }
    if (kFetch) Fetch<O, kBlock256, kSize>(w, k, stride);
    // each vector of x is loaded once for all outputs: loads, two a cycle, are what bounds this
    for (int r = 0; r < R; r++) {
      const float* own = x.x + r * x.width + k;
      const __m256 xa = InRegister(_mm256_loadu_ps(own)), xb = InRegister(_mm256_loadu_ps(own + 8));
      for (int o = 0; o < O; o++) sum[r][o][0] = _mm256_fmadd_ps(a[o], xa, sum[r][o][0]);
      for (int o = 0; o < O; o++) sum[r][o][kSums - 1] = _mm256_fmadd_ps(b[o], xb, sum[r][o][kSums - 1]);
    }
  }
  if (k < inner)
    for (int o = 0; o < O; o++) {
      __m256 a, b;
      Weights256<kBf16, false>(w + o * stride + k * kSize, inner - k, &a, &b);
      for (int r = 0; r < R; r++) {
        const float* own = x.x + r * x.width + k;
        sum[r][o][0] = _mm256_fmadd_ps(a, _mm256_loadu_ps(own), sum[r][o][0]);
        sum[r][o][0] = _mm256_fmadd_ps(b, _mm256_loadu_ps(own + 8), sum[r][o][0]);
      }
    }
  for (int r = 0; r < R; r++)
    for (int o = 0; o < O; o++)
      y[r * row + o] = Sum256(kSums == 1 ? sum[r][o][0] : _mm256_add_ps(sum[r][o][0], sum[r][o][kSums - 1]));
}

// `outputs` of R rows. @param w the weights of the first of them
using DenseFn = void (*)(Blocked x, const char* w, int64_t inner, int64_t outputs, float* y, int64_t row);

template <int R, bool kBf16, bool kAhead = true>
AVX512 void Dense512(Blocked x, const char* w, int64_t inner, int64_t outputs, float* y, int64_t row) {
  constexpr int O = R == 1 ? 1 : R <= 6 ? 4 : 3;  // at most 24 sums in 32 registers
  const int64_t stride = inner * (kBf16 ? 2 : 4);
  int64_t o = 0;
  for (; o + O <= outputs; o += O) Tile512<R, O, kBf16, kAhead>(x, w + o * stride, inner, y + o, row);
  for (; o < outputs; o++) Tile512<R, 1, kBf16>(x, w + o * stride, inner, y + o, row);
}

template <int R, int O, bool kBf16>
AVX2 inline void Outputs256(Blocked x, const char* w, int64_t inner, float* y, int64_t row) {
  constexpr int kFirst = R > kDenseRows256 ? (R + 1) / 2 : R;
  Tile256<kFirst, O, kBf16, true>(x, w, inner, y, row);
  if constexpr (R > kFirst) Tile256<R - kFirst, O, kBf16, false>({x.x + kFirst * x.width, x.width}, w, inner, y + kFirst * row, row);
}

template <int R, bool kBf16>
AVX2 void Dense256(Blocked x, const char* w, int64_t inner, int64_t outputs, float* y, int64_t row) {
  constexpr int O = R == 1 ? 1 : R == 2 ? 3 : 2;  // at most 8 sums in 16 registers
  const int64_t stride = inner * (kBf16 ? 2 : 4);
  int64_t o = 0;
  for (; o + O <= outputs; o += O) Outputs256<R, O, kBf16>(x, w + o * stride, inner, y + o, row);
  for (; o < outputs; o++) Outputs256<R, 1, kBf16>(x, w + o * stride, inner, y + o, row);
}

// A set of instructions: functions by rows, from 1 on, for float32 and for bfloat16.
struct DenseSet {
  int64_t block;
  DenseFn fn[2][kDenseCall];
  // Of one row and bfloat16, without asking for weights ahead; null where that is always done.
  DenseFn alone;
};

constexpr DenseSet kDense512 = {kBlock512,
                                {{Dense512<1, false>, Dense512<2, false>, Dense512<3, false>, Dense512<4, false>,
                                  Dense512<5, false>, Dense512<6, false>, Dense512<7, false>, Dense512<8, false>},
                                 {Dense512<1, true>, Dense512<2, true>, Dense512<3, true>, Dense512<4, true>, Dense512<5, true>,
                                  Dense512<6, true>, Dense512<7, true>, Dense512<8, true>}},
                                Dense512<1, true, false>};
constexpr DenseSet kDense256 = {kBlock256,
                                {{Dense256<1, false>, Dense256<2, false>, Dense256<3, false>, Dense256<4, false>,
                                  Dense256<5, false>, Dense256<6, false>, Dense256<7, false>, Dense256<8, false>},
                                 {Dense256<1, true>, Dense256<2, true>, Dense256<3, true>, Dense256<4, true>, Dense256<5, true>,
                                  Dense256<6, true>, Dense256<7, true>, Dense256<8, true>}},
                                nullptr};

bool UsesAvx512() {
  static const bool uses = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return uses;
}

}  // namespace
