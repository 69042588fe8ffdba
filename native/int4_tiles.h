// The arithmetic of int4 products on CPUs: x rounded to int8, and tiles of 32 outputs in two sets of instructions, AVX-512 VNNI and
// AVX2. projection.h calls it.
//
//   y[r, o] = sum over groups g of step[r, g] * (scale[o, g] * sum_k (q[o, k] - 8) xq[r, k] + zero[o, g] * sum_k xq[r, k])
//
// xq = round(x / step) in int8, step = the group's largest magnitude / 127; q in 0..15. Integer sums are exact, so both give the same.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "elementwise.h"
#include "host_calls.h"

namespace {

// Most rows of x that meet the codes in registers.
constexpr int kRows = 8;

struct Sizes {
  int64_t rows, inner, group, out;  // x [rows, inner] in groups of so many channels
  int64_t groups() const { return inner / group; }
};

// Rows of x from one on: xq [., inner], step and sum [., groups]
struct Rows {
  const int8_t* xq;
  const float* step;
  const int32_t* sum;
};

// A tile's codes [groups, group / 8, kTile, 4], scale and zero [groups, kTile] in bfloat16 if `bf16`, else float32
struct Codes {
  const uint8_t* codes;
  const char* scale;
  const char* zero;
  bool bf16;

  // From an entry of scale or zero on
  Codes At(int64_t code, int64_t entry) const {
    const int64_t bytes = entry * (bf16 ? 2 : 4);
    return {codes + code, scale + bytes, zero + bytes, bf16};
  }
};

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")))

AVX2 void RoundGroup(const float* x, int64_t size, int8_t* xq, float* step, int32_t* sum) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 top = _mm256_setzero_ps();
  for (int64_t k = 0; k < size; k += 8) top = _mm256_max_ps(top, _mm256_and_ps(_mm256_loadu_ps(x + k), magnitude));
  __m128 most = _mm_max_ps(_mm256_castps256_ps128(top), _mm256_extractf128_ps(top, 1));
  most = _mm_max_ps(most, _mm_movehl_ps(most, most));
  most = _mm_max_ss(most, _mm_movehdup_ps(most));
  *step = 1.0f / (127.0f / std::max(_mm_cvtss_f32(most), 1e-30f));
  const __m256 divisor = _mm256_set1_ps(*step);
  __m256i total = _mm256_setzero_si256();
  for (int64_t k = 0; k < size; k += 32) {
    __m256i quarter[4];
    for (int i = 0; i < 4; i++) {
      quarter[i] = _mm256_cvtps_epi32(_mm256_div_ps(_mm256_loadu_ps(x + k + 8 * i), divisor));
      total = _mm256_add_epi32(total, quarter[i]);
    }
    // packing goes lane by lane: the last step puts words of four back in order
    const __m256i packed =
        _mm256_packs_epi16(_mm256_packs_epi32(quarter[0], quarter[1]), _mm256_packs_epi32(quarter[2], quarter[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(xq + k), _mm256_permutevar8x32_epi32(packed, order));
  }
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  *sum = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

inline int32_t Word(const int8_t* x) {
  int32_t word;
  std::memcpy(&word, x, 4);
  return word;
}

VNNI inline __m512 Load16(const char* from, int64_t at, bool bf16) {
  if (!bf16) return _mm512_loadu_ps(from + 4 * at);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * at));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

AVX2 inline __m256 Load8(const char* from, int64_t at, bool bf16) {
  if (!bf16) return _mm256_loadu_ps(reinterpret_cast<const float*>(from) + at);
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * at));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// Asks for codes that come so much later.
inline void FetchCodes(const uint8_t* codes) {
  _mm_prefetch(codes + 4096, _MM_HINT_T0);
  _mm_prefetch(codes + 4096 + 64, _MM_HINT_T0);
}

// One group's part of a tile for R rows, by dot products of bytes: 64 a vector. `first` is the first of the rows, g the group.
template <int R, bool kAhead = false>
VNNI inline void GroupVnni(const Sizes& s, Codes tile, Rows rows, int first, int64_t g, __m512 (*total)[2]) {
  const int64_t groups = s.groups(), words = s.group / 8;
  const __m512i nibble = _mm512_set1_epi8(15);
  const uint8_t* codes = tile.codes + g * words * 128;
  const int8_t* x = rows.xq + first * s.inner + g * s.group;
  __m512i sum[R][2];
  for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = _mm512_setzero_si512();
  for (int64_t i = 0; i < words; i++, codes += 128) {
    if (kAhead) FetchCodes(codes);
    const __m512i a = _mm512_loadu_si512(codes), b = _mm512_loadu_si512(codes + 64);
    const __m512i a0 = _mm512_and_si512(a, nibble), a1 = _mm512_and_si512(_mm512_srli_epi16(a, 4), nibble);
    const __m512i b0 = _mm512_and_si512(b, nibble), b1 = _mm512_and_si512(_mm512_srli_epi16(b, 4), nibble);
    for (int r = 0; r < R; r++) {
      const __m512i x0 = _mm512_set1_epi32(Word(x + r * s.inner + 4 * i));
      const __m512i x1 = _mm512_set1_epi32(Word(x + r * s.inner + s.group / 2 + 4 * i));
      sum[r][0] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum[r][0], a0, x0), a1, x1);
      sum[r][1] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum[r][1], b0, x0), b1, x1);
    }
  }
  for (int h = 0; h < 2; h++) {
    const __m512 scale = Load16(tile.scale, g * kTile + 16 * h, tile.bf16);
    const __m512 zero = Load16(tile.zero, g * kTile + 16 * h, tile.bf16);
    for (int r = 0; r < R; r++) {
      const int64_t at = (first + r) * groups + g;
      const int32_t all = rows.sum[at];
      const __m512 product = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_sub_epi32(sum[r][h], _mm512_set1_epi32(8 * all))), scale);
      const __m512 whole = _mm512_fmadd_ps(zero, _mm512_set1_ps(static_cast<float>(all)), product);
      total[first + r][h] = _mm512_fmadd_ps(whole, _mm512_set1_ps(rows.step[at]), total[first + r][h]);
    }
  }
}

// A tile for R rows. More than four at a time would not all stay in registers: they meet each group in two sets.
// @param kAhead whether codes are asked for ahead (stream_trial.h)
template <int R, bool kAhead = false>
VNNI void TileVnni(const Sizes& s, Codes tile, Rows rows, float* y, int64_t row, int64_t columns) {
  constexpr int kFirst = R > 4 ? (R + 1) / 2 : R;
  __m512 total[R][2];
  for (int r = 0; r < R; r++) total[r][0] = total[r][1] = _mm512_setzero_ps();
  for (int64_t g = 0; g < s.groups(); g++) {
    GroupVnni<kFirst, kAhead>(s, tile, rows, 0, g, total);
    if constexpr (R > kFirst) GroupVnni<R - kFirst>(s, tile, rows, kFirst, g, total);
  }
  for (int r = 0; r < R; r++)
    for (int h = 0; h < 2 && columns > 16 * h; h++) {
      const __mmask16 mask = columns - 16 * h >= 16 ? 0xffff : (1u << (columns - 16 * h)) - 1;
      _mm512_mask_storeu_ps(y + r * row + 16 * h, mask, total[r][h]);
    }
}

// Most rows that meet codes in the 16 registers of AVX2.
constexpr int kRowsAvx2 = 4;
// Vectors of eight outputs that so many rows meet at a time.
constexpr int OutputsAvx2(int rows) { return rows > 2 ? 2 : 4; }

// The same without such instructions: pairs of products in int16, of 8*V outputs at a time. 16 products of at most 15 * 127 stay below 2^15.
template <int R, int V>
AVX2 void RowsAvx2(const Sizes& s, Codes tile, Rows rows, float* y, int64_t row, int64_t columns) {
  const int64_t groups = s.groups(), words = s.group / 8;
  const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256 total[R][4];
  for (int r = 0; r < R; r++)
    for (auto& t : total[r]) t = _mm256_setzero_ps();
  for (int64_t g = 0; g < groups; g++) {
    const int8_t* x = rows.xq + g * s.group;
    for (int part = 0; part < 4; part += V) {
      __m256i sum[R][V];
      for (int r = 0; r < R; r++)
        for (auto& own : sum[r]) own = _mm256_setzero_si256();
      const uint8_t* codes = tile.codes + g * words * 128 + 32 * part;
      for (int64_t i = 0; i < words; i += 4) {
        __m256i pairs[R][V];
        for (int r = 0; r < R; r++)
          for (auto& own : pairs[r]) own = _mm256_setzero_si256();
        for (int k = 0; k < 4; k++, codes += 128) {
          __m256i low[V], high[V];
          for (int v = 0; v < V; v++) {
            const __m256i c = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32 * v));
            low[v] = _mm256_and_si256(c, nibble);
            high[v] = _mm256_and_si256(_mm256_srli_epi16(c, 4), nibble);
          }
          for (int r = 0; r < R; r++) {
            const __m256i x0 = _mm256_set1_epi32(Word(x + r * s.inner + 4 * (i + k)));
            const __m256i x1 = _mm256_set1_epi32(Word(x + r * s.inner + s.group / 2 + 4 * (i + k)));
            for (int v = 0; v < V; v++) {
              pairs[r][v] = _mm256_add_epi16(pairs[r][v], _mm256_maddubs_epi16(low[v], x0));
              pairs[r][v] = _mm256_add_epi16(pairs[r][v], _mm256_maddubs_epi16(high[v], x1));
              asm("" : "+x"(pairs[r][v]));  // else the compiler adds up at the end, and runs out of registers
            }
          }
        }
        for (int r = 0; r < R; r++)
          for (int v = 0; v < V; v++) sum[r][v] = _mm256_add_epi32(sum[r][v], _mm256_madd_epi16(pairs[r][v], ones));
      }
      for (int v = 0; v < V; v++) {
        const __m256 scale = Load8(tile.scale, g * kTile + 8 * (part + v), tile.bf16);
        const __m256 zero = Load8(tile.zero, g * kTile + 8 * (part + v), tile.bf16);
        for (int r = 0; r < R; r++) {
          const int32_t all = rows.sum[r * groups + g];
          const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(sum[r][v], _mm256_set1_epi32(8 * all))), scale);
          const __m256 whole = _mm256_fmadd_ps(zero, _mm256_set1_ps(static_cast<float>(all)), product);
          total[r][part + v] = _mm256_fmadd_ps(whole, _mm256_set1_ps(rows.step[r * groups + g]), total[r][part + v]);
        }
      }
    }
  }
  for (int r = 0; r < R; r++) {
    alignas(32) float values[kTile];
    for (int v = 0; v < 4; v++) _mm256_store_ps(values + 8 * v, total[r][v]);
    std::memcpy(y + r * row, values, sizeof(float) * columns);
  }
}

template <int R>
AVX2 void TileAvx2(const Sizes& s, Codes tile, Rows rows, float* y, int64_t row, int64_t columns) {
  constexpr int kFirst = R > kRowsAvx2 ? (R + 1) / 2 : R;
  RowsAvx2<kFirst, OutputsAvx2(kFirst)>(s, tile, rows, y, row, columns);
  if constexpr (R > kFirst) {
    const Rows rest{rows.xq + kFirst * s.inner, rows.step + kFirst * s.groups(), rows.sum + kFirst * s.groups()};
    RowsAvx2<R - kFirst, OutputsAvx2(R - kFirst)>(s, tile, rest, y + kFirst * row, row, columns);
  }
}

// Up to `columns` outputs of R rows into y, whose rows are `row` apart.
using TileFn = void (*)(const Sizes&, Codes, Rows, float* y, int64_t row, int64_t columns);
// By rows, from 1 to kRows.
constexpr TileFn kVnni[] = {TileVnni<1>, TileVnni<2>, TileVnni<3>, TileVnni<4>, TileVnni<5>, TileVnni<6>, TileVnni<7>, TileVnni<8>};
// Of one row.
constexpr TileFn kVnniAhead = TileVnni<1, true>;
constexpr TileFn kAvx2[] = {TileAvx2<1>, TileAvx2<2>, TileAvx2<3>, TileAvx2<4>, TileAvx2<5>, TileAvx2<6>, TileAvx2<7>, TileAvx2<8>};

bool UsesVnni() {
  static const bool uses = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return uses;
}

}  // namespace
