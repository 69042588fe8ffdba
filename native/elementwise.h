// Elementwise functions and the convolution of a decoding step, with AVX2.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#define AVX2 __attribute__((target("avx2,fma")))

namespace {

// exp to about 1e-7 of itself (the polynomial is that of the Cephes library's expf).
AVX2 inline __m256 Exp(__m256 x) {
  x = _mm256_min_ps(_mm256_max_ps(x, _mm256_set1_ps(-87.0f)), _mm256_set1_ps(88.0f));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  x = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  x = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), x);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm256_fmadd_ps(p, x, _mm256_set1_ps(c));
  p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(x, x), x), _mm256_set1_ps(1.0f));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

AVX2 inline __m256 Silu(__m256 x) {
  return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), Exp(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

inline float Softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }

// The first `count` of eight lanes.
AVX2 inline __m256i Lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(std::min<int64_t>(8, count))), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

AVX2 inline void SiluInPlace(float* x, int64_t size) {
  int64_t i = 0;
  for (; i + 8 <= size; i += 8) _mm256_storeu_ps(x + i, Silu(_mm256_loadu_ps(x + i)));
  if (i == size) return;
  const __m256i lanes = Lanes(size - i);
  _mm256_maskstore_ps(x + i, lanes, Silu(_mm256_maskload_ps(x + i, lanes)));
}

inline float SumOfSquares(const float* x, int64_t size) {
  float sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= size; i += 16)
    for (int k = 0; k < 16; k++) sums[k] += x[i + k] * x[i + k];
  for (; i < size; i++) sums[0] += x[i] * x[i];
  float all = 0;
  for (float sum : sums) all += sum;
  return all;
}

// to = x * factor * gamma, of which `to` may be x
inline void Scale(const float* x, float factor, const float* gamma, int64_t size, float* to) {
  for (int64_t i = 0; i < size; i++) to[i] = x[i] * factor * gamma[i];
}

// Four taps of eight channels, [8, 4], by tap.
AVX2 inline void TransposeTaps(const float* taps, __m256 (&by_tap)[4]) {
  const __m256 a = _mm256_loadu_ps(taps), b = _mm256_loadu_ps(taps + 8), c = _mm256_loadu_ps(taps + 16), d = _mm256_loadu_ps(taps + 24);
  const __m256 p = _mm256_permute2f128_ps(a, c, 0x20), q = _mm256_permute2f128_ps(a, c, 0x31);
  const __m256 r = _mm256_permute2f128_ps(b, d, 0x20), s = _mm256_permute2f128_ps(b, d, 0x31);
  const __m256 low = _mm256_unpacklo_ps(p, q), high = _mm256_unpackhi_ps(p, q);
  const __m256 low2 = _mm256_unpacklo_ps(r, s), high2 = _mm256_unpackhi_ps(r, s);
  by_tap[0] = _mm256_shuffle_ps(low, low2, 0x44);
  by_tap[1] = _mm256_shuffle_ps(low, low2, 0xee);
  by_tap[2] = _mm256_shuffle_ps(high, high2, 0x44);
  by_tap[3] = _mm256_shuffle_ps(high, high2, 0xee);
}

// The convolution of one token with the inputs before it.
struct Convolution {
  int64_t channels, taps;
  const float* weights;  // [channels, taps]
  const float* bias;     // [channels], or null
};

// The inputs of a row: the last ones, [taps-1, channels], which move on unless `stays`, and the newest, [channels], which becomes the result.
struct ConvolutionRow {
  float* context;
  float* newest;
  bool stays;
};

// All of eight lanes, or some. Storing some takes tens of cycles on many processors.
AVX2 inline __m256 LoadLanes(const float* from, bool all, __m256i lanes) { return all ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, lanes); }

AVX2 inline void StoreLanes(float* to, bool all, __m256i lanes, __m256 value) {
  if (all) _mm256_storeu_ps(to, value);
  else _mm256_maskstore_ps(to, lanes, value);
}

// silu(bias + the sum over taps) of channels [from, to) of each row.
template <class RowAt>
AVX2 inline void Convolve(const Convolution& conv, int64_t rows, RowAt row_at, int64_t from, int64_t to) {
  const int64_t kept = conv.taps - 1;
  const __m256i eight = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(static_cast<int>(conv.taps)));
  for (int64_t at = from; at < to; at += 8) {
    const __m256i lanes = Lanes(to - at);
    const bool four = conv.taps == 4 && at + 8 <= conv.channels, all = at + 8 <= to;
    // gathering one by one would take longer than all the rest
    __m256 by_tap[4];
    if (four) TransposeTaps(conv.weights + at * 4, by_tap);
    const __m256 first = conv.bias ? LoadLanes(conv.bias + at, all, lanes) : _mm256_setzero_ps();
    for (int64_t r = 0; r < rows; r++) {
      const ConvolutionRow row = row_at(r);
      __m256 sum = first;
      for (int64_t i = 0; i <= kept; i++) {
        float* old = row.context + i * conv.channels + at;
        const __m256 value = LoadLanes(i < kept ? old : row.newest + at, all, lanes);
        const __m256 tap = four ? by_tap[i]
                                : _mm256_mask_i32gather_ps(_mm256_setzero_ps(), conv.weights + at * conv.taps + i, eight,
                                                           _mm256_castsi256_ps(lanes), 4);
        sum = _mm256_fmadd_ps(value, tap, sum);
        if (i > 0 && !row.stays) StoreLanes(old - conv.channels, all, lanes, value);
      }
      StoreLanes(row.newest + at, all, lanes, Silu(sum));
    }
  }
}

}  // namespace
