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

// A state is read from its begin to its end, one line of the cache after another, some lines asked for so many bytes ahead: several of its
// rows at a time would be as many streams, which takes twice as long where states come from memory.
constexpr int64_t kStateAhead = 1024;

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

// The next S[p, .] of some lanes of it, of which `sum` takes S·C.
template <bool kBf16>
AVX512 inline void StateLanes512(const Head& head, char* at, int64_t k, __mmask16 lanes, __m512 decay, __m512 add, __m512* sum) {
  const __m512 b = _mm512_maskz_loadu_ps(lanes, head.b + k), c = _mm512_maskz_loadu_ps(lanes, head.c + k);
  const __m512 next = _mm512_fmadd_ps(LoadState512<kBf16>(at, lanes), decay, _mm512_mul_ps(add, b));
  StoreState512<kBf16>(at, lanes, next);
  *sum = _mm512_fmadd_ps(next, c, *sum);
}

template <bool kBf16>
AVX512 void State512(const Head& head, char* state) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  const __m512 decay = _mm512_set1_ps(head.decay);
  for (int64_t p = 0; p < head.p; p++, state += head.n * kSize) {
    const __m512 add = _mm512_set1_ps(head.x[p] * head.dt);
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    int64_t k = 0;
    for (; k + 32 <= head.n; k += 32) {
      char* at = state + k * kSize;
      _mm_prefetch(at + kStateAhead, _MM_HINT_T0);
      if (!kBf16) _mm_prefetch(at + kStateAhead + 64, _MM_HINT_T0);
      StateLanes512<kBf16>(head, at, k, 0xffff, decay, add, &even);
      StateLanes512<kBf16>(head, at + 16 * kSize, k + 16, 0xffff, decay, add, &odd);
    }
    for (; k < head.n; k += 16) {
      const __mmask16 lanes = head.n - k >= 16 ? 0xffff : static_cast<__mmask16>((1u << (head.n - k)) - 1);
      StateLanes512<kBf16>(head, state + k * kSize, k, lanes, decay, add, &even);
    }
    head.y[p] = _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
  }
}

AVX2 inline __m128i Narrow256(__m256 v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i none = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i words = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), none);
  return _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

// The next eight of S[p, .], of which `sum` takes S·C.
template <bool kBf16>
AVX2 inline void StateLanes256(char* at, const float* b, const float* c, __m256 decay, __m256 add, __m256* sum) {
  const __m256 old =
      kBf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i*>(at))), 16))
            : _mm256_loadu_ps(reinterpret_cast<float*>(at));
  const __m256 next = _mm256_fmadd_ps(old, decay, _mm256_mul_ps(add, _mm256_loadu_ps(b)));
  if (kBf16) _mm_storeu_si128(reinterpret_cast<__m128i*>(at), Narrow256(next));
  else _mm256_storeu_ps(reinterpret_cast<float*>(at), next);
  *sum = _mm256_fmadd_ps(next, _mm256_loadu_ps(c), *sum);
}

template <bool kBf16>
AVX2 void State256(const Head& head, char* state) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  const __m256 decay = _mm256_set1_ps(head.decay);
  const int64_t rest = head.n % 8;
  alignas(32) float last[3][8] = {};  // of B and C, and of a state's row, at their ends
  std::memcpy(last[0], head.b + head.n - rest, sizeof(float) * rest);
  std::memcpy(last[1], head.c + head.n - rest, sizeof(float) * rest);
  for (int64_t p = 0; p < head.p; p++, state += head.n * kSize) {
    const __m256 add = _mm256_set1_ps(head.x[p] * head.dt);
    __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 16 <= head.n; k += 16) {
      char* at = state + k * kSize;
      _mm_prefetch(at + kStateAhead, _MM_HINT_T0);
      StateLanes256<kBf16>(at, head.b + k, head.c + k, decay, add, &even);
      StateLanes256<kBf16>(at + 8 * kSize, head.b + k + 8, head.c + k + 8, decay, add, &odd);
    }
    if (k + 8 <= head.n) {
      StateLanes256<kBf16>(state + k * kSize, head.b + k, head.c + k, decay, add, &even);
      k += 8;
    }
    if (rest > 0) {
      std::memcpy(last[2], state + k * kSize, rest * kSize);
      StateLanes256<kBf16>(reinterpret_cast<char*>(last[2]), last[0], last[1], decay, add, &odd);
      std::memcpy(state + k * kSize, last[2], rest * kSize);
    }
    head.y[p] = Sum256(_mm256_add_ps(even, odd));
  }
}

// @param state of the head, [p, n], float32 or bfloat16
using StateFn = void (*)(const Head& head, char* state);
// For float32 and for bfloat16.
constexpr StateFn kState512[] = {State512<false>, State512<true>};
constexpr StateFn kState256[] = {State256<false>, State256<true>};

}  // namespace
