// A decoding step of a layer for some rows, as one call: norm and input projection, convolution, recurrence with skip and gate, norm and
// output projection, and the stream. See LAYER_STEP in src/kernels/host/spec.ts.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "elementwise.h"
#include "host_calls.h"
#include "projection.h"
#include "state_tiles.h"
#include "team.h"

namespace {

// What a thread keeps for its next call.
struct LayerScratch {
  KeptRows first, second;
  std::vector<float> projected;  // [rows, projSize]: z | x B C | dt, of which z and x B C become what is made of them
  std::vector<float> normed;     // [rows, hidden]
  std::vector<float> gated;      // [rows, inner]
  std::vector<float> squares;    // [rows, heads]
};

class LayerStep {
 public:
  LayerStep(const LayerStepCall& c, const LayerStepOperands& in, const FormSet& set, const StateFn* state_fns, LayerScratch* scratch)
      : c_(c),
        in_(in),
        inner_(c.heads * c.head_dim),
        channels_(inner_ + 2 * c.groups * c.state_size),
        width_(inner_ + channels_ + c.heads),
        state_fn_(state_fns[c.bf16_state]),
        scratch_(*scratch),
        first_(set, {width_, c.hidden, c.in_int4, c.in_bf16, c.in_group, in.in_matrix, in.in_scale, in.in_zero, c.rounded}, c.rows, &scratch->first),
        second_(set, {c.hidden, inner_, c.out_int4, c.out_bf16, c.out_group, in.out_matrix, in.out_scale, in.out_zero, c.rounded}, c.rows,
                &scratch->second) {
    scratch_.projected.resize(c.rows * width_);
    scratch_.normed.resize(c.rows * c.hidden);
    scratch_.gated.resize(c.rows * inner_);
    scratch_.squares.resize(c.rows * c.heads);
  }

  // @param state, context where they lie, which are moved on
  void Run(Team* team, float* y, char* state, float* context) {
    team->Run(c_.rows, [&](int64_t from, int64_t to) { Norm(from, to); });
    team->Run(first_.units(), [&](int64_t from, int64_t to) { Project(from, to, context); });
    const int64_t heads = c_.rows * c_.heads, each = HeadsOfUnit();
    team->Run((heads + each - 1) / each, [&](int64_t from, int64_t to) {
      for (int64_t i = from * each; i < std::min(to * each, heads); i++) Recur(i / c_.heads, i % c_.heads, state);
    });
    team->Run(c_.rows, [&](int64_t from, int64_t to) { GatedNorm(from, to); });
    team->Run(second_.units(), [&](int64_t from, int64_t to) { Finish(from, to, y); });
  }

  // Multiplications of a step, about.
  int64_t Work() const { return c_.rows * (c_.hidden * (width_ + inner_) + 3 * inner_ * c_.state_size); }

 private:
  // Of small states several make a unit.
  int64_t HeadsOfUnit() const { return 1 + (1 << 11) / (c_.head_dim * c_.state_size); }

  bool Stays(int64_t row) const { return c_.has_mask && in_.mask[row] == 0; }

  void Norm(int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) {
      const float* x = in_.x + r * c_.hidden;
      float* normed = scratch_.normed.data() + r * c_.hidden;
      Scale(x, Factor(SumOfSquares(x, c_.hidden), c_.hidden), in_.gamma, c_.hidden, normed);
      first_.Put(r, normed);
    }
  }

  float Factor(float squares, int64_t size) const { return 1.0f / std::sqrt(squares / static_cast<float>(size) + c_.epsilon); }

  // The input projection and what its outputs go through by themselves.
  void Project(int64_t from, int64_t to, float* context) {
    float* all = scratch_.projected.data();
    const int64_t begin = from * first_.unit(), end = std::min(to * first_.unit(), width_);
    const int64_t z = std::min(end, inner_);
    const int64_t low = std::max<int64_t>(begin - inner_, 0), high = std::min(end - inner_, channels_);
    const auto row_at = [&](int64_t r) {
      return ConvolutionRow{context + r * c_.context_row + c_.place, all + r * width_ + inner_, Stays(r)};
    };
    // contexts of rows lie far apart: each would be waited for
    for (int64_t r = 0; low < high && r < c_.rows; r++)
      for (int64_t i = 0; i + 1 < c_.taps; i++)
        for (int64_t at = low; at < high + 16; at += 16) _mm_prefetch(reinterpret_cast<const char*>(row_at(r).context + i * channels_ + std::min(at, high - 1)), _MM_HINT_T0);
    first_.Multiply(from, to, all, width_);
    for (int64_t r = 0; begin < z && r < c_.rows; r++) SiluInPlace(all + r * width_ + begin, z - begin);
    if (low < high) Convolve({channels_, c_.taps, in_.taps, in_.bias}, c_.rows, row_at, low, high);
  }

  // A head of a row, with skip and gate.
  void Recur(int64_t r, int64_t h, char* state) {
    const int64_t p = c_.head_dim, n = c_.state_size, g = h / (c_.heads / c_.groups);
    const float* all = scratch_.projected.data() + r * width_;
    const float* x = all + inner_ + h * p;
    const float* b = all + 2 * inner_ + g * n;
    const float open = std::min(std::max(Softplus(all[inner_ + channels_ + h] + in_.dt_bias[h]), c_.low), c_.high);
    float* y = scratch_.gated.data() + r * inner_ + h * p;
    const Head head{p, n, x, b, b + c_.groups * n, open, std::exp(-std::exp(in_.a_log[h]) * open), y};
    // what a row gives that keeps its state means nothing
    if (Stays(r)) std::memset(y, 0, sizeof(float) * p);
    else state_fn_(head, state + (r * c_.heads + h) * p * n * (c_.bf16_state ? 2 : 4));
    for (int64_t i = 0; i < p; i++) y[i] = (y[i] + in_.d[h] * x[i]) * all[h * p + i];
    scratch_.squares[r * c_.heads + h] = SumOfSquares(y, p);
  }

  void GatedNorm(int64_t from, int64_t to) {
    const int64_t heads = c_.heads / c_.norm_groups, span = heads * c_.head_dim;
    for (int64_t r = from; r < to; r++) {
      float* gated = scratch_.gated.data() + r * inner_;
      for (int64_t g = 0; g < c_.norm_groups; g++) {
        float squares = 0;
        for (int64_t h = g * heads; h < (g + 1) * heads; h++) squares += scratch_.squares[r * c_.heads + h];
        Scale(gated + g * span, Factor(squares, span), in_.norm_gamma + g * span, span, gated + g * span);
      }
      second_.Put(r, gated);
    }
  }

  // The output projection, added to the stream.
  void Finish(int64_t from, int64_t to, float* y) const {
    second_.Multiply(from, to, y, c_.hidden);
    const int64_t begin = from * second_.unit(), end = std::min(to * second_.unit(), c_.hidden);
    for (int64_t r = 0; r < c_.rows; r++)
      for (int64_t o = r * c_.hidden + begin; o < r * c_.hidden + end; o++) y[o] += in_.x[o];
  }

  const LayerStepCall& c_;
  const LayerStepOperands& in_;
  const int64_t inner_, channels_, width_;
  const StateFn state_fn_;
  LayerScratch& scratch_;
  Projection first_, second_;
};

}  // namespace
