// How programs call the int4 kernels of CPUs. Written by scripts/native_header.ts from src/kernels/host/spec.ts, which to edit.
// Version 3 is the description 7738d93614af.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// What the addon says of itself when it is loaded.
constexpr int kNativeVersion = 3;

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

struct Int4RowCall {
  static constexpr size_t kNumbers = 20;
  int64_t inner;  // channels of x
  int64_t group;  // channels that share a scale
  int64_t out;  // outputs
  bool has_gate;  // x is multiplied by silu(gate)
  bool has_skip;  // D times a part of gate is added to x
  bool has_norm;  // x is normed
  bool has_residual;  // a residual is added
  bool has_epilogue;  // convolution and step sizes follow
  bool has_bias;  // the convolution has a bias
  bool bf16_levels;  // scale and zero are bfloat16
  int64_t skip_heads;  // values of D, each for inner/skipHeads channels
  int64_t skip_offset;  // where in gate the channels begin that D multiplies
  int64_t norm_groups;  // groups of channels, each normed by itself
  float epsilon;  // added to the mean square
  int64_t first;  // output that the convolution begins with
  int64_t channels;  // of the convolution
  int64_t taps;  // of the convolution
  float low;  // least step size
  float high;  // largest step size
  int64_t place;  // where this layer begins in context
  explicit Int4RowCall(const int64_t* n)
      : inner(n[0]),
        group(n[1]),
        out(n[2]),
        has_gate(n[3] != 0),
        has_skip(n[4] != 0),
        has_norm(n[5] != 0),
        has_residual(n[6] != 0),
        has_epilogue(n[7] != 0),
        has_bias(n[8] != 0),
        bf16_levels(n[9] != 0),
        skip_heads(n[10]),
        skip_offset(n[11]),
        norm_groups(n[12]),
        epsilon(FloatOfBits(n[13])),
        first(n[14]),
        channels(n[15]),
        taps(n[16]),
        low(FloatOfBits(n[17])),
        high(FloatOfBits(n[18])),
        place(n[19]) {}
};

// Operands of such a call, in order; null where there is none. at(i) points to the i-th tensor.
struct Int4RowOperands {
  const float* x = nullptr;  // [inner]
  const float* gate = nullptr;  // [inner or more]
  const float* d = nullptr;  // [skipHeads]
  const float* gamma = nullptr;  // [inner]
  const uint8_t* codes = nullptr;  // [tiles, groups, group/8, TILE, 4], two channels a byte
  const char* scale = nullptr;  // [tiles, groups, TILE]
  const char* zero = nullptr;  // [tiles, groups, TILE]; w = (code - 8)*scale + zero
  const float* residual = nullptr;  // [out]
  const float* context = nullptr;  // of all layers, each [taps-1, channels]
  const float* taps = nullptr;  // [channels, taps]
  const float* bias = nullptr;  // [channels]
  const float* dt_bias = nullptr;  // [heads]
  template <class At>
  Int4RowOperands(const Int4RowCall& c, At at) {
    size_t next = 0;
    x = static_cast<const float*>(at(next++));
    if (c.has_gate || c.has_skip) gate = static_cast<const float*>(at(next++));
    if (c.has_skip) d = static_cast<const float*>(at(next++));
    if (c.has_norm) gamma = static_cast<const float*>(at(next++));
    codes = static_cast<const uint8_t*>(at(next++));
    scale = static_cast<const char*>(at(next++));
    zero = static_cast<const char*>(at(next++));
    if (c.has_residual) residual = static_cast<const float*>(at(next++));
    if (c.has_epilogue) context = static_cast<const float*>(at(next++));
    if (c.has_epilogue) taps = static_cast<const float*>(at(next++));
    if (c.has_bias) bias = static_cast<const float*>(at(next++));
    if (c.has_epilogue) dt_bias = static_cast<const float*>(at(next++));
  }
};
