// A matrix [out, in] in any stored form, and the rows that meet it: each is laid out once, then some outputs are multiplied at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "dense_tiles.h"
#include "int4_tiles.h"
#include "pair_tiles.h"
#include "stream_trial.h"

namespace {

// A set of instructions for all forms.
struct FormSet {
  const DenseSet* dense;
  const TileFn* tiles;  // of int4
  bool pairs;           // of rounded rows and bfloat16 matrices, where the processor has them
};

// A matrix as it is stored: weights in float32 or bfloat16, or codes of int4 in tiles, whose scales and zeros are in either.
struct Matrix {
  int64_t out, inner;
  bool int4, bf16;
  int64_t group;  // channels that share a scale
  const char *data, *scale, *zero;
  bool rounded;  // what meets bfloat16 weights is rounded to bfloat16
};

// Numbers from a whole line of the cache on: vectors that lie across two lines take twice as long to read.
class Aligned {
 public:
  float* Resize(int64_t size) {
    kept_.resize(size + 16);
    return data_ = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(kept_.data()) + 63) & ~uintptr_t{63});
  }
  float* data() const { return data_; }

 private:
  std::vector<float> kept_;
  float* data_ = nullptr;
};

// Rows as they are laid out, kept by each thread for its next call.
struct KeptRows {
  Aligned blocked;  // float32, or bfloat16 for pairs
  std::vector<float> rounded;
  std::vector<int8_t> xq;
  std::vector<float> step;
  std::vector<int32_t> sum;
};

class Projection {
 public:
  Projection(const FormSet& set, const Matrix& matrix, int64_t rows, KeptRows* kept)
      : set_(set), m_(matrix), rows_(rows), kept_(kept) {
    if (m_.int4) {
      sizes_ = {rows, m_.inner, m_.group, m_.out};
      kept->xq.resize(rows * m_.inner);
      kept->step.resize(rows * sizes_.groups());
      kept->sum.resize(rows * sizes_.groups());
      return;
    }
    pairs_ = m_.rounded && m_.bf16 && set.pairs && UsesBf16();
    const int64_t block = pairs_ ? kBlock512 : set.dense->block;
    width_ = (m_.inner + block - 1) / block * block;
    kept->blocked.Resize(rows * width_);
    if (m_.rounded && m_.bf16 && !pairs_) kept->rounded.resize(rows * m_.inner);
    const int64_t passes = (rows + kDenseCall - 1) / kDenseCall;
    most_ = (rows + passes - 1) / passes;
  }

  // Outputs that are multiplied together.
  int64_t unit() const { return m_.int4 ? kTile : kDenseChunk; }
  int64_t units() const { return (m_.out + unit() - 1) / unit(); }

  void Put(int64_t row, const float* x) {
    if (pairs_) return PairRow(x, m_.inner, Paired() + row * width_);
    if (!m_.int4 && m_.rounded && m_.bf16) {
      float* rounded = kept_->rounded.data() + row * m_.inner; // rows are put by several threads
      for (int64_t k = 0; k < m_.inner; k++) rounded[k] = RoundToBf16(x[k]);
      x = rounded;
    }
    if (!m_.int4) return BlockRow(x, m_.inner, set_.dense->block, m_.bf16, kept_->blocked.data() + row * width_);
    for (int64_t g = 0, at = row * sizes_.groups(); g < sizes_.groups(); g++, at++)
      RoundGroup(x + g * m_.group, m_.group, &kept_->xq[at * m_.group], &kept_->step[at], &kept_->sum[at]);
  }

  // Outputs of units [from, to) of all rows, into y, whose rows are `stride` apart.
  void Multiply(int64_t from, int64_t to, float* y, int64_t stride) const {
    const bool tries = rows_ == 1 && m_.out * RowBytes() >= kTried && (m_.int4 ? set_.tiles == kVnni : m_.bf16 && set_.dense->alone && !pairs_);
    if (!tries) return Units(from, to, y, stride, !m_.int4);
    const StreamTrial::Piece piece(m_.int4 ? &CodesTrial() : &DenseTrial(), (to - from) * unit() * RowBytes());
    Units(from, to, y, stride, piece.ahead());
  }

 private:
  // Bytes of a matrix from which on it is known to come from memory.
  static constexpr int64_t kTried = 1 << 20;

  // Of the weights of an output, about.
  int64_t RowBytes() const { return m_.int4 ? m_.inner / 2 : m_.inner * (m_.bf16 ? 2 : 4); }

  void Units(int64_t from, int64_t to, float* y, int64_t stride, bool ahead) const {
    for (int64_t i = from; i < to; i++) m_.int4 ? Tile(i, y, stride, ahead) : Chunk(i, y, stride, ahead);
  }

  uint16_t* Paired() const { return reinterpret_cast<uint16_t*>(kept_->blocked.data()); }

  void Chunk(int64_t i, float* y, int64_t stride, bool ahead) const {
    const int64_t o = i * kDenseChunk, outputs = std::min(kDenseChunk, m_.out - o);
    const char* w = m_.data + o * m_.inner * (m_.bf16 ? 2 : 4);
    if (!ahead) return set_.dense->alone({kept_->blocked.data(), width_}, w, m_.inner, outputs, y + o, stride);
    for (int64_t r = 0; r < rows_; r += most_) {
      const int64_t rows = std::min(most_, rows_ - r);
      if (pairs_) kPairs[rows - 1](Paired() + r * width_, width_, w, m_.inner, outputs, y + r * stride + o, stride);
      else set_.dense->fn[m_.bf16][rows - 1]({kept_->blocked.data() + r * width_, width_}, w, m_.inner, outputs, y + r * stride + o, stride);
    }
  }

  void Tile(int64_t i, float* y, int64_t stride, bool ahead) const {
    const int64_t groups = sizes_.groups(), outputs = std::min<int64_t>(kTile, m_.out - i * kTile);
    const Codes matrix{reinterpret_cast<const uint8_t*>(m_.data), m_.scale, m_.zero, m_.bf16};
    const Codes tile = matrix.At(i * kTile * m_.inner / 2, i * groups * kTile);
    for (int64_t r = 0; r < rows_; r += kRows) {
      const Rows rows{kept_->xq.data() + r * m_.inner, kept_->step.data() + r * groups, kept_->sum.data() + r * groups};
      const TileFn multiply = ahead ? kVnniAhead : set_.tiles[std::min<int64_t>(kRows, rows_ - r) - 1];
      multiply(sizes_, tile, rows, y + r * stride + i * kTile, stride, outputs);
    }
  }

  const FormSet& set_;
  const Matrix m_;
  const int64_t rows_;
  KeptRows* kept_;
  Sizes sizes_{};
  bool pairs_ = false;
  int64_t width_ = 0, most_ = 1;
};

}  // namespace
