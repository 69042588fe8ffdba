// Products with int4, bfloat16 and float32 weights and decoding steps on CPUs, called from programs that XLA compiles. host_calls.h says what
// a call is made of, and src/kernels/host/reference.ts what it computes, in plain loops; docs/decisions/011 and 023 why this is not XLA's code.
// The calls are XLA's foreign functions, whose headers come with TensorFlow's wheel; work is shared among the threads that XLA gives.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "host_calls.h"
#include "layer_step.h"
#include "projection.h"
#include "team.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr FormSet kForms512 = {&kDense512, kVnni, true};
constexpr FormSet kForms256 = {&kDense256, kAvx2, false};

// Multiplications that are worth another thread: some microseconds.
constexpr int64_t kWorthThread = 1 << 16;

int64_t ThreadsFor(int64_t work) { return 1 + work / kWorthThread; }

// The memory of an operand.
const void* Data(const ffi::RemainingArgs& args, size_t at) { return args.get<ffi::AnyBuffer>(at).value().untyped_data(); }

// The memory of a result.
ffi::AnyBuffer Buffer(const ffi::RemainingRets& results, size_t at) { return *results.get<ffi::AnyBuffer>(at).value(); }

float* Into(const ffi::RemainingRets& results) { return static_cast<float*>(Buffer(results, 0).untyped_data()); }

ffi::Error WrongCall(const char* name, size_t got, size_t expected) {
  return ffi::Error::InvalidArgument(std::string(name) + ": a call has " + std::to_string(got) + " numbers, expected " +
                                     std::to_string(expected));
}

// x [rows, inner] -> y [rows, out]
void Product(ffi::ThreadPool pool, const FormSet& set, const Matrix& matrix, int64_t rows, const float* x, float* y) {
  static thread_local KeptRows kept;
  Team team(pool, ThreadsFor(rows * matrix.inner * matrix.out));
  Projection projection(set, matrix, rows, &kept);
  team.Run(rows, [&](int64_t from, int64_t to) {
    for (int64_t r = from; r < to; r++) projection.Put(r, x + r * matrix.inner);
  });
  team.Run(projection.units(), [&](int64_t from, int64_t to) { projection.Multiply(from, to, y, matrix.out); });
}

// See INT4_PRODUCT in src/kernels/host/spec.ts.
template <const FormSet* kSet>
ffi::Error Int4Product(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets results, ffi::Span<const int64_t> n) {
  if (n.size() != Int4ProductCall::kNumbers) return WrongCall("Int4Product", n.size(), Int4ProductCall::kNumbers);
  const Int4ProductCall c(n.begin());
  const Int4ProductOperands in(c, [&](size_t at) { return Data(args, at); });
  const Matrix matrix{c.out, c.inner, true, c.bf16_levels, c.group, reinterpret_cast<const char*>(in.codes), in.scale, in.zero, false};
  Product(pool, *kSet, matrix, c.rows, in.x, Into(results));
  return ffi::Error::Success();
}

// See DENSE_PRODUCT there.
template <const FormSet* kSet>
ffi::Error DenseProduct(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets results, ffi::Span<const int64_t> n) {
  if (n.size() != DenseProductCall::kNumbers) return WrongCall("DenseProduct", n.size(), DenseProductCall::kNumbers);
  const DenseProductCall c(n.begin());
  const DenseProductOperands in(c, [&](size_t at) { return Data(args, at); });
  const Matrix matrix{c.out, c.inner, false, c.bf16, 0, in.w, nullptr, nullptr, c.rounded};
  Product(pool, *kSet, matrix, c.rows, in.x, Into(results));
  return ffi::Error::Success();
}

// See LAYER_STEP there.
template <const FormSet* kSet, const StateFn* kState>
ffi::Error StepOfLayer(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets results, ffi::Span<const int64_t> n) {
  static thread_local LayerScratch kept;
  if (n.size() != LayerStepCall::kNumbers) return WrongCall("LayerStep", n.size(), LayerStepCall::kNumbers);
  const LayerStepCall c(n.begin());
  const LayerStepOperands in(c, [&](size_t at) { return Data(args, at); });
  LayerStep step(c, in, *kSet, kState, &kept);
  Team team(pool, ThreadsFor(step.Work()));
  // results 1 and 2 are said to take the memory of what they were; should they not, they are made of it
  const auto moved = [&](size_t at, const void* old) {
    const ffi::AnyBuffer buffer = Buffer(results, at);
    if (buffer.untyped_data() != old) std::memcpy(buffer.untyped_data(), old, buffer.size_bytes());
    return buffer.untyped_data();
  };
  char* state = static_cast<char*>(moved(1, in.state));
  float* context = static_cast<float*>(moved(2, in.context));
  step.Run(&team, Into(results), state, context);
  return ffi::Error::Success();
}

template <auto kFunction>
XLA_FFI_Error* Handler(XLA_FFI_CallFrame* frame) {
  static auto* handler = ffi::Ffi::Bind()
                             .Ctx<ffi::ThreadPool>()
                             .RemainingArgs()
                             .RemainingRets()
                             .Attr<ffi::Span<const int64_t>>("sizes")
                             .To(kFunction)
                             .release();
  return handler->Call(frame);
}

}  // namespace
