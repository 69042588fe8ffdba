// One token of the recurrence of a head on CPUs, in one pass over its state, which is read and written where it lies: in two sets of
// instructions, AVX-512 and AVX2.
//
//   S[p, n] = decay S[p, n] + dt x[p] B[n],   y[p] = sum over n of S[p, n] C[n]
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "dense_tiles.h"

namespace {

// A head: x [p], b and c [n], y [p]
struct Head {
  int64_t p, n;
  const float *x, *b, *c;
  float dt, decay;
  float* y;
};

// Rows of the state that meet B and C in registers.
constexpr int kStateRows = 4;

// To bfloat16, to the nearest, ties to even; NaN stays NaN.
AVX512 inline __m256i Narrow512(__m512 v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 none = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, none, _mm512_set1_epi32(0x7fc0)));
}

template <bool kBf16>
AVX512 inline __m512 LoadState512(const char* at, __mmask16 lanes) {
  if (!kBf16) return _mm512_maskz_loadu_ps(lanes, at);
  const __m256i half = lanes == 0xffff ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)) : _mm256_maskz_loadu_epi16(lanes, at);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

template <bool kBf16>
AVX512 inline void StoreState512(char* at, __mmask16 lanes, __m512 v) {
  if (kBf16 && lanes == 0xffff) _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), Narrow512(v));
  else if (kBf16) _mm256_mask_storeu_epi16(at, lanes, Narrow512(v));
  else if (lanes == 0xffff) _mm512_storeu_ps(at, v);
  else _mm512_mask_storeu_ps(at, lanes, v);
}

template <bool kBf16, int P>
AVX512 inline void StateRows512(const Head& head, char* state, int64_t p) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  const __m512 decay = _mm512_set1_ps(head.decay);
  __m512 sum[P], add[P];
  for (int i = 0; i < P; i++) {
    sum[i] = _mm512_setzero_ps();
    add[i] = _mm512_set1_ps(head.x[p + i] * head.dt);
  }
  for (int64_t k = 0; k < head.n; k += 16) {
    const __mmask16 lanes = head.n - k >= 16 ? 0xffff : static_cast<__mmask16>((1u << (head.n - k)) - 1);
    const __m512 b = _mm512_maskz_loadu_ps(lanes, head.b + k), c = _mm512_maskz_loadu_ps(lanes, head.c + k);
    for (int i = 0; i < P; i++) {
      char* at = state + ((p + i) * head.n + k) * kSize;
      const __m512 next = _mm512_fmadd_ps(LoadState512<kBf16>(at, lanes), decay, _mm512_mul_ps(add[i], b));
      StoreState512<kBf16>(at, lanes, next);
      sum[i] = _mm512_fmadd_ps(next, c, sum[i]);
    }
  }
  for (int i = 0; i < P; i++) head.y[p + i] = _mm512_reduce_add_ps(sum[i]);
}

template <bool kBf16>
AVX512 void State512(const Head& head, char* state) {
  int64_t p = 0;
  for (; p + kStateRows <= head.p; p += kStateRows) StateRows512<kBf16, kStateRows>(head, state, p);
  for (; p < head.p; p++) StateRows512<kBf16, 1>(head, state, p);
}

AVX2 inline __m128i Narrow256(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i none = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), none);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

template <bool kBf16, int P>
AVX2 inline void StateRows256(const Head& head, char* state, int64_t p) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  const __m256 decay = _mm256_set1_ps(head.decay);
  __m256 sum[P], add[P];
  for (int i = 0; i < P; i++) {
    sum[i] = _mm256_setzero_ps();
    add[i] = _mm256_set1_ps(head.x[p + i] * head.dt);
  }
  alignas(32) float rest[3][8] = {};  // of B and C, and of a state's row, at their ends
  for (int64_t k = 0; k < head.n; k += 8) {
    const int64_t lanes = head.n - k >= 8 ? 8 : head.n - k;
    const float *b = head.b + k, *c = head.c + k;
    if (lanes < 8) {
      std::memcpy(rest[0], b, sizeof(float) * lanes);
      std::memcpy(rest[1], c, sizeof(float) * lanes);
      b = rest[0];
      c = rest[1];
    }
    for (int i = 0; i < P; i++) {
      char* own = state + ((p + i) * head.n + k) * kSize;
      char* at = own;
      if (lanes < 8) {
        at = reinterpret_cast<char*>(rest[2]);
        std::memcpy(at, own, lanes * kSize);
      }
      const __m256 old =
          kBf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i*>(at))), 16))
                : _mm256_loadu_ps(reinterpret_cast<float*>(at));
      const __m256 next = _mm256_fmadd_ps(old, decay, _mm256_mul_ps(add[i], _mm256_loadu_ps(b)));
      if (kBf16) _mm_storeu_si128(reinterpret_cast<__m128i*>(at), Narrow256(next));
      else _mm256_storeu_ps(reinterpret_cast<float*>(at), next);
      if (lanes < 8) {
        std::memcpy(own, at, lanes * kSize);
        std::memset(rest[2], 0, sizeof(rest[2]));
      }
      sum[i] = _mm256_fmadd_ps(next, _mm256_loadu_ps(c), sum[i]);
    }
  }
  for (int i = 0; i < P; i++) head.y[p + i] = Sum256(sum[i]);
}

template <bool kBf16>
AVX2 void State256(const Head& head, char* state) {
  int64_t p = 0;
  for (; p + kStateRows <= head.p; p += kStateRows) StateRows256<kBf16, kStateRows>(head, state, p);
  for (; p < head.p; p++) StateRows256<kBf16, 1>(head, state, p);
}

// @param state of the head, [p, n], float32 or bfloat16
using StateFn = void (*)(const Head& head, char* state);
// For float32 and for bfloat16.
constexpr StateFn kState512[] = {State512<false>, State512<true>};
constexpr StateFn kState256[] = {State256<false>, State256<true>};

}  // namespace
