// How programs call the kernels of CPUs. Written by scripts/native_header.ts from src/kernels/host/spec.ts, which to edit.
// Version 28 is the description 9b2e3dd4c79e.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// What the addon says of itself when it is loaded.
constexpr int kNativeVersion = 28;

// Outputs of a tile.
constexpr int kTile = 32;

inline float FloatOfBits(int64_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits);
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

struct Int4ProductCall {
  static constexpr size_t kNumbers = 5;
  int64_t rows;  // rows of x
  int64_t inner;  // channels of x
  int64_t group;  // channels that share a scale
  int64_t out;  // outputs
  bool bf16_levels;  // scale and zero are bfloat16
  explicit Int4ProductCall(const int64_t* n)
      : rows(n[0]),
        inner(n[1]),
        group(n[2]),
        out(n[3]),
        bf16_levels(n[4] != 0) {}
};

// Operands of such a call, in order; null where there is none. at(i) points to the i-th tensor.
struct Int4ProductOperands {
  const float* x = nullptr;  // [rows, inner]
  const uint8_t* codes = nullptr;  // [tiles, groups, group/8, TILE, 4], two channels a byte
  const char* scale = nullptr;  // [tiles, groups, TILE]
  const char* zero = nullptr;  // [tiles, groups, TILE]; w = (code - 8)*scale + zero
  template <class At>
  Int4ProductOperands(const Int4ProductCall& c, At at) {
    size_t next = 0;
    x = static_cast<const float*>(at(next++));
    codes = static_cast<const uint8_t*>(at(next++));
    scale = static_cast<const char*>(at(next++));
    zero = static_cast<const char*>(at(next++));
  }
};

struct DenseProductCall {
  static constexpr size_t kNumbers = 5;
  int64_t rows;  // rows of x
  int64_t inner;  // channels of x
  int64_t out;  // outputs
  bool bf16;  // w is bfloat16
  bool rounded;  // x is rounded to bfloat16, where w is
  explicit DenseProductCall(const int64_t* n)
      : rows(n[0]),
        inner(n[1]),
        out(n[2]),
        bf16(n[3] != 0),
        rounded(n[4] != 0) {}
};

// Operands of such a call, in order; null where there is none. at(i) points to the i-th tensor.
struct DenseProductOperands {
  const float* x = nullptr;  // [rows, inner]
  const char* w = nullptr;  // [out, inner]
  template <class At>
  DenseProductOperands(const DenseProductCall& c, At at) {
    size_t next = 0;
    x = static_cast<const float*>(at(next++));
    w = static_cast<const char*>(at(next++));
  }
};

struct LayerStepCall {
  static constexpr size_t kNumbers = 23;
  int64_t rows;  // rows of x
  int64_t hidden;  // channels of the stream
  int64_t heads;  // of the recurrence
  int64_t head_dim;  // channels of a head, p
  int64_t groups;  // heads of a group share B and C
  int64_t state_size;  // n
  int64_t taps;  // of the convolution
  int64_t norm_groups;  // groups of channels, each normed by itself before the output projection
  int64_t context_row;  // from a row of the contexts to the next
  int64_t place;  // where this layer begins in such a row
  float epsilon;  // added to mean squares
  float low;  // least step size
  float high;  // largest step size
  bool has_mask;  // some rows keep their state; what they give means nothing
  bool has_bias;  // the convolution has a bias
  bool bf16_state;  // the state is bfloat16, else float32
  bool in_int4;  // the input projection is in codes
  bool in_bf16;  // its weights, or its scales and zeros, are bfloat16
  int64_t in_group;  // channels of it that share a scale
  bool out_int4;  // the output projection is in codes
  bool out_bf16;  // its weights, or its scales and zeros, are bfloat16
  int64_t out_group;  // channels of it that share a scale
  bool rounded;  // what meets a bfloat16 matrix is rounded to bfloat16
  explicit LayerStepCall(const int64_t* n)
      : rows(n[0]),
        hidden(n[1]),
        heads(n[2]),
        head_dim(n[3]),
        groups(n[4]),
        state_size(n[5]),
        taps(n[6]),
        norm_groups(n[7]),
        context_row(n[8]),
        place(n[9]),
        epsilon(FloatOfBits(n[10])),
        low(FloatOfBits(n[11])),
        high(FloatOfBits(n[12])),
        has_mask(n[13] != 0),
        has_bias(n[14] != 0),
        bf16_state(n[15] != 0),
        in_int4(n[16] != 0),
        in_bf16(n[17] != 0),
        in_group(n[18]),
        out_int4(n[19] != 0),
        out_bf16(n[20] != 0),
        out_group(n[21]),
        rounded(n[22] != 0) {}
};

// Operands of such a call, in order; null where there is none. at(i) points to the i-th tensor.
struct LayerStepOperands {
  const float* x = nullptr;  // [rows, hidden]
  const char* state = nullptr;  // [rows, heads, p, n]
  const float* context = nullptr;  // [rows, layers, taps-1, heads·p + 2·groups·n]
  const float* mask = nullptr;  // [rows], 0 for rows that keep their state
  const float* gamma = nullptr;  // of the norm before the input projection, [hidden]
  const char* in_matrix = nullptr;  // weights [out, inner], or codes in tiles as MATRIX has them
  const char* in_scale = nullptr;  // [tiles, groups, TILE]
  const char* in_zero = nullptr;  // [tiles, groups, TILE]
  const float* taps = nullptr;  // [heads·p + 2·groups·n, taps]
  const float* bias = nullptr;  // [heads·p + 2·groups·n]
  const float* dt_bias = nullptr;  // [heads]
  const float* a_log = nullptr;  // [heads]
  const float* d = nullptr;  // [heads]
  const float* norm_gamma = nullptr;  // of the norm before the output projection, [heads·p]
  const char* out_matrix = nullptr;  // weights [out, inner], or codes in tiles as MATRIX has them
  const char* out_scale = nullptr;  // [tiles, groups, TILE]
  const char* out_zero = nullptr;  // [tiles, groups, TILE]
  template <class At>
  LayerStepOperands(const LayerStepCall& c, At at) {
    size_t next = 0;
    x = static_cast<const float*>(at(next++));
    state = static_cast<const char*>(at(next++));
    context = static_cast<const float*>(at(next++));
    if (c.has_mask) mask = static_cast<const float*>(at(next++));
    gamma = static_cast<const float*>(at(next++));
    in_matrix = static_cast<const char*>(at(next++));
    if (c.in_int4) in_scale = static_cast<const char*>(at(next++));
    if (c.in_int4) in_zero = static_cast<const char*>(at(next++));
    taps = static_cast<const float*>(at(next++));
    if (c.has_bias) bias = static_cast<const float*>(at(next++));
    dt_bias = static_cast<const float*>(at(next++));
    a_log = static_cast<const float*>(at(next++));
    d = static_cast<const float*>(at(next++));
    norm_gamma = static_cast<const float*>(at(next++));
    out_matrix = static_cast<const char*>(at(next++));
    if (c.out_int4) out_scale = static_cast<const char*>(at(next++));
    if (c.out_int4) out_zero = static_cast<const char*>(at(next++));
  }
};
