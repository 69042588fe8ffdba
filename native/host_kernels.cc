// Products with int4 weights on CPUs, called from programs that XLA compiles. int4_calls.h says what a call is made of, and
// src/kernels/host/reference.ts what it computes, in plain loops; docs/decisions/011 why this is not XLA's code. The calls are XLA's foreign functions, whose headers come with TensorFlow's wheel; work
// is shared among the threads that XLA gives.
#include <dlfcn.h>
#include <node_api.h>
#include <sched.h>
#ifdef __linux__
#include <malloc.h>
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <mutex>
#include <thread>
#include <vector>

#include "gpu_info.h"
#include "int4_calls.h"

#if defined(__x86_64__) && __has_include("xla/ffi/api/ffi.h")
#define HOST_KERNELS 1
#include <functional>
#include <memory>

#include "int4_tiles.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Numbered tasks, shared among threads. Those are asked for when this is made and may come late or never: whoever is there takes the
// next task.
class Team {
 public:
  Team(ffi::ThreadPool pool, int64_t tasks) : shared_(std::make_shared<Shared>()) {
    shared_->count = tasks;
    const int64_t others = std::min<int64_t>(pool.num_threads(), tasks) - 1;
    for (int64_t i = 0; i < others; i++)
      pool.Schedule([shared = shared_] {
        Wait([&] { return shared->ready.load(std::memory_order_acquire); });
        Take(*shared);
      });
  }

  // Does all tasks; none is being worked on when it returns. To be called once.
  void Run(std::function<void(int64_t)> work) {
    shared_->work = std::move(work);
    shared_->ready.store(true, std::memory_order_release);
    Take(*shared_);
    Wait([&] { return shared_->done.load(std::memory_order_acquire) == shared_->count; });
  }

 private:
  struct Shared {
    std::atomic<bool> ready{false};
    std::atomic<int64_t> next{0}, done{0};
    int64_t count = 0;
    std::function<void(int64_t)> work;
  };

  // For what takes microseconds, unless the thread that it depends on is not running.
  template <class F>
  static void Wait(F done) {
    for (int spins = 0; !done(); spins++) spins < 1000 ? _mm_pause() : static_cast<void>(sched_yield());
  }

  static void Take(Shared& shared) {
    for (int64_t i; (i = shared.next.fetch_add(1, std::memory_order_relaxed)) < shared.count;) {
      shared.work(i);
      shared.done.fetch_add(1, std::memory_order_release);
    }
  }

  std::shared_ptr<Shared> shared_;
};

// Rounded rows, kept by each thread for its next call.
struct Scratch {
  std::vector<int8_t> xq;
  std::vector<float> step, vector;
  std::vector<int32_t> sum;
};

Rows Reserve(const Sizes& s, Scratch* scratch) {
  const int64_t count = s.rows * s.groups();
  scratch->xq.resize(s.rows * s.inner);
  scratch->step.resize(count);
  scratch->sum.resize(count);
  return {scratch->xq.data(), scratch->step.data(), scratch->sum.data()};
}

// Groups [from, to) of all rows of x.
void RoundGroups(const Sizes& s, const float* x, int64_t from, int64_t to, Scratch* scratch) {
  for (int64_t i = from; i < to; i++)
    RoundGroup(x + i * s.group, s.group, &scratch->xq[i * s.group], &scratch->step[i], &scratch->sum[i]);
}

int64_t Tiles(const Sizes& s) { return (s.out + kTile - 1) / kTile; }

// Tiles of a task: enough tasks that threads which begin late or are held up even out.
int64_t TilesOfTask(const Sizes& s, const ffi::ThreadPool& pool) {
  return std::max<int64_t>(1, Tiles(s) / (12 * std::max<int64_t>(1, pool.num_threads())));
}

// Outputs of tiles [from, to), into y [rows, row].
void Multiply(const TileFn* tiles, const Sizes& s, Codes matrix, Rows rows, int64_t from, int64_t to, float* y, int64_t row) {
  const int64_t groups = s.groups();
  for (int64_t t = from; t < to; t++) {
    const Codes tile = matrix.At(t * kTile * s.inner / 2, t * groups * kTile);
    const int64_t columns = std::min<int64_t>(kTile, s.out - t * kTile);
    for (int64_t r = 0; r < s.rows; r += kRows)
      tiles[std::min<int64_t>(kRows, s.rows - r) - 1](
          s, tile, {rows.xq + r * s.inner, rows.step + r * groups, rows.sum + r * groups}, y + r * row + t * kTile, columns);
  }
}

// The memory of an operand.
const void* Data(const ffi::RemainingArgs& args, size_t at) { return args.get<ffi::AnyBuffer>(at).value().untyped_data(); }

ffi::Error WrongCall(const char* name, size_t got, size_t expected) {
  return ffi::Error::InvalidArgument(std::string(name) + ": a call has " + std::to_string(got) + " numbers, expected " +
                                     std::to_string(expected));
}

// See INT4_PRODUCT in src/kernels/host/spec.ts.
template <const TileFn* kTiles>
ffi::Error Int4Product(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::Result<ffi::AnyBuffer> y, ffi::Span<const int64_t> n) {
  static thread_local Scratch kept;
  Scratch& scratch = kept;
  if (n.size() != Int4ProductCall::kNumbers) return WrongCall("Int4Product", n.size(), Int4ProductCall::kNumbers);
  const Int4ProductCall c(n.begin());
  const Int4ProductOperands in(c, [&](size_t at) { return Data(args, at); });
  const Sizes s{c.rows, c.inner, c.group, c.out};
  const Codes matrix{in.codes, in.scale, in.zero, c.bf16_levels};
  const Rows rows = Reserve(s, &scratch);
  const int64_t rounded = 16;  // rows at a time
  Team(pool, (s.rows + rounded - 1) / rounded).Run([&](int64_t i) {
    RoundGroups(s, in.x, rounded * i * s.groups(), std::min(rounded * (i + 1), s.rows) * s.groups(), &scratch);
  });
  const int64_t each = TilesOfTask(s, pool), tiles = Tiles(s);
  float* to = static_cast<float*>(y->untyped_data());
  Team(pool, (tiles + each - 1) / each).Run([&](int64_t i) {
    Multiply(kTiles, s, matrix, rows, i * each, std::min((i + 1) * each, tiles), to, s.out);
  });
  return ffi::Error::Success();
}

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

// The vector that is multiplied: norm((x + D skipped) silu(gate)) gamma.
AVX2 void Prepare(const Int4RowCall& c, const Int4RowOperands& in, float* v) {
  const int64_t inner = c.inner;
  std::memcpy(v, in.x, sizeof(float) * inner);
  const int64_t each = c.has_skip ? inner / c.skip_heads : 0;
  for (int64_t h = 0; c.has_skip && h < c.skip_heads; h++)
    for (int64_t i = h * each; i < (h + 1) * each; i++) v[i] += in.d[h] * in.gate[c.skip_offset + i];
  for (int64_t i = 0; c.has_gate && i < inner; i += 8)
    _mm256_storeu_ps(v + i, _mm256_mul_ps(_mm256_loadu_ps(v + i), Silu(_mm256_loadu_ps(in.gate + i))));
  const int64_t span = c.has_norm ? inner / c.norm_groups : 0;
  for (int64_t from = 0; c.has_norm && from < inner; from += span) {
    float sums[8] = {};
    for (int64_t i = 0; i < span; i++) sums[i & 7] += v[from + i] * v[from + i];
    float squares = 0;
    for (float sum : sums) squares += sum;
    const float factor = 1.0f / std::sqrt(squares / span + c.epsilon);
    for (int64_t i = from; i < from + span; i++) v[i] *= factor * in.gamma[i];
  }
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

// The epilogue of an input projection: outputs [from, to) of y make some of those behind y.
AVX2 void Epilogue(const Int4RowCall& c, const Int4RowOperands& in, int64_t from, int64_t to, float* y) {
  const int64_t begin = std::max(from, c.first), middle = std::min(to, c.first + c.channels);
  float* into = y + c.out - c.first;
  const float* context = in.context + c.place;  // [taps-1, channels]
  const __m256i eight = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(c.taps));
  for (int64_t o = begin; o < middle; o += 8) {
    const int64_t channel = o - c.first;
    const int count = static_cast<int>(std::min<int64_t>(8, middle - o));
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256 zeros = _mm256_setzero_ps(), lanes = _mm256_castsi256_ps(mask);
    __m256 sum = in.bias ? _mm256_maskload_ps(in.bias + channel, mask) : zeros;
    if (c.taps == 4 && count == 8) {
      // gathering one by one would take longer than all the rest
      __m256 by_tap[4];
      TransposeTaps(in.taps + channel * 4, by_tap);
      for (int i = 0; i < 3; i++) sum = _mm256_fmadd_ps(_mm256_loadu_ps(context + i * c.channels + channel), by_tap[i], sum);
      _mm256_storeu_ps(into + o, Silu(_mm256_fmadd_ps(_mm256_loadu_ps(y + o), by_tap[3], sum)));
      continue;
    }
    for (int64_t i = 0; i < c.taps; i++) {
      const float* old = i + 1 < c.taps ? context + i * c.channels + channel : y + o;
      const __m256 tap = _mm256_mask_i32gather_ps(zeros, in.taps + channel * c.taps + i, eight, lanes, 4);
      sum = _mm256_fmadd_ps(_mm256_maskload_ps(old, mask), tap, sum);
    }
    _mm256_maskstore_ps(into + o, mask, Silu(sum));
  }
  for (int64_t o = std::max(begin, c.first + c.channels); o < to; o++)
    into[o] = std::min(std::max(Softplus(y[o] + in.dt_bias[o - c.first - c.channels]), c.low), c.high);
}

// See INT4_ROW in src/kernels/host/spec.ts.
template <const TileFn* kTiles>
ffi::Error Int4Row(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::Result<ffi::AnyBuffer> result, ffi::Span<const int64_t> n) {
  static thread_local Scratch kept;
  Scratch& scratch = kept;
  if (n.size() != Int4RowCall::kNumbers) return WrongCall("Int4Row", n.size(), Int4RowCall::kNumbers);
  const Int4RowCall c(n.begin());
  const Sizes s{1, c.inner, c.group, c.out};
  const int64_t each = TilesOfTask(s, pool), tiles = Tiles(s);
  Team team(pool, (tiles + each - 1) / each);
  const Int4RowOperands in(c, [&](size_t at) { return Data(args, at); });
  const Codes matrix{in.codes, in.scale, in.zero, c.bf16_levels};
  scratch.vector.resize(c.inner);
  Prepare(c, in, scratch.vector.data());
  const Rows rows = Reserve(s, &scratch);
  RoundGroups(s, scratch.vector.data(), 0, s.groups(), &scratch);
  float* y = static_cast<float*>(result->untyped_data());
  team.Run([&](int64_t i) {
    const int64_t from = i * each, to = std::min(from + each, tiles);
    Multiply(kTiles, s, matrix, rows, from, to, y, c.out);
    const int64_t last = std::min(to * kTile, c.out);
    for (int64_t o = from * kTile; c.has_residual && o < last; o++) y[o] += in.residual[o];
    if (c.has_epilogue) Epilogue(c, in, from * kTile, last, y);
  });
  return ffi::Error::Success();
}

template <auto kFunction>
XLA_FFI_Error* Handler(XLA_FFI_CallFrame* frame) {
  static auto* handler = ffi::Ffi::Bind()
                             .Ctx<ffi::ThreadPool>()
                             .RemainingArgs()
                             .Ret<ffi::AnyBuffer>()
                             .Attr<ffi::Span<const int64_t>>("sizes")
                             .To(kFunction)
                             .release();
  return handler->Call(frame);
}

}  // namespace
#endif

namespace {

// Makes the kernels that this processor runs known to XLA, once; returns their names, without the prefix.
std::vector<std::string> RegisterKernels() {
  std::vector<std::string> names;
#ifdef HOST_KERNELS
  void* library = dlopen("libtensorflow_cc.so.2", RTLD_LAZY | RTLD_NOLOAD);
  if (!library || !__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return names;
  const auto get = reinterpret_cast<const XLA_FFI_Api* (*)()>(dlsym(library, "_ZN3xla3ffi12GetXlaFfiApiEv"));
  if (!get) return names;
  const auto put = [&](const std::string& name, XLA_FFI_Handler* handler) {
    if (!ffi::Ffi::RegisterStaticHandler(get(), "tfjs_mamba2_" + name, "Host", handler)) names.push_back(name);
  };
  put("int4_product_avx2", &Handler<Int4Product<kAvx2>>);
  put("int4_row_avx2", &Handler<Int4Row<kAvx2>>);
  if (!UsesVnni()) return names;
  put("int4_product_vnni", &Handler<Int4Product<kVnni>>);
  put("int4_row_vnni", &Handler<Int4Row<kVnni>>);
#endif
  return names;
}

napi_value Register(napi_env env, napi_callback_info) {
  static const std::vector<std::string> names = RegisterKernels(); // other threads of the process find them there
  napi_value array, text;
  napi_create_array(env, &array);
  for (uint32_t i = 0; i < names.size(); i++) {
    napi_create_string_utf8(env, names[i].data(), names[i].size(), &text);
    napi_set_element(env, array, i, text);
  }
  return array;
}

// Puts large blocks of memory, weights above all, into pages of 2 MB: reading them goes through far fewer entries of
// the processor's table of pages. Where the system knows no such pages nothing changes.
void CollapsePages(const std::atomic<bool>& stop) {
#ifdef __linux__
  constexpr uint64_t kPage = 2 << 20, kLeast = 32 << 20;
  constexpr int kCollapse = 25;  // MADV_COLLAPSE of Linux 6.1: now, and not when the system finds the time
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long from, to, inode;
    char access[5], name[2] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %*s %*s %lu %1s", &from, &to, access, &inode, name) < 4) continue;
    if (std::strcmp(access, "rw-p") != 0 || inode != 0 || name[0] != 0 || to - from < kLeast) continue;
    from = (from + kPage - 1) / kPage * kPage;
    to = to / kPage * kPage;
    if (madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE) != 0) continue;
    // those that are in use in whole; of memory given back meanwhile the calls fail
    std::vector<unsigned char> resident(kPage / 4096);
    for (uint64_t at = from; at < to && !stop; at += kPage)
      if (mincore(reinterpret_cast<void*>(at), kPage, resident.data()) == 0 &&
          std::all_of(resident.begin(), resident.end(), [](unsigned char c) { return c & 1; }))
        madvise(reinterpret_cast<void*>(at), kPage, kCollapse);
  }
#endif
}

// Memory is compacted in a thread of its own, as moving a gigabyte takes seconds. It ends with the thread of JavaScript that asked for it.
struct Compaction {
  std::mutex lock;
  std::thread thread;
  napi_env owner = nullptr;
  std::atomic<bool> busy{false}, stop{false};
};

// Never destroyed: at the end of a process it may still be asked for.
Compaction& compaction = *new Compaction;

// @param env whose compaction is ended; null for anybody's
void EndCompaction(void* env) {
  const std::lock_guard<std::mutex> lock(compaction.lock);
  if ((env && compaction.owner != env) || !compaction.thread.joinable()) return;
  compaction.stop = true;
  compaction.thread.join();
  compaction.owner = nullptr;
}

// Before an environment goes, or the process by process.exit(), which calls no hook of an environment: a thread that outlived it could
// run into what is destroyed then.
void EndCompactionWith(napi_env env) {
  static const int once = std::atexit([] { EndCompaction(nullptr); });
  (void)once;
  napi_add_env_cleanup_hook(env, EndCompaction, env);
}

// Gives back what tracing, compiling and loading have left over, and moves the rest to large pages.
napi_value CompactMemory(napi_env env, napi_callback_info) {
  const std::lock_guard<std::mutex> lock(compaction.lock);
  if (compaction.busy) return nullptr;
  if (compaction.thread.joinable()) compaction.thread.join();
  compaction.busy = true;
  compaction.stop = false;
  compaction.owner = env;
  compaction.thread = std::thread([] {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    CollapsePages(compaction.stop);
    compaction.busy = false;
  });
  return nullptr;
}

// Keeps this library loaded for as long as the process lives: XLA has pointers into it, and Node.js unloads an addon with the last
// environment that uses it, such as a worker thread's.
void PinLibrary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&PinLibrary), &info) && info.dli_fname)
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_NODELETE | RTLD_NOLOAD);
}

// tensorFloat32(allowed): whether TensorFlow, and XLA by what it is told of each product, may round float32 to TF32. Returns whether
// TensorFlow has such a switch.
napi_value TensorFloat32(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument, result;
  bool allowed = true;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_value_bool(env, argument, &allowed);
  void* library = dlopen("libtensorflow_framework.so.2", RTLD_LAZY | RTLD_NOLOAD);
  const auto enable = reinterpret_cast<void (*)(bool)>(
      library ? dlsym(library, "_ZN3tsl32enable_tensor_float_32_executionEb") : nullptr);
  if (enable) enable(allowed);
  napi_get_boolean(env, enable != nullptr, &result);
  return result;
}

// [multiprocessors, compute capability]
napi_value Gpu(napi_env env, napi_callback_info) {
  const GpuInfo gpu = LeastGpu();
  napi_value pair, value;
  napi_create_array(env, &pair);
  napi_create_int32(env, gpu.multiprocessors, &value);
  napi_set_element(env, pair, 0, value);
  napi_create_int32(env, gpu.capability, &value);
  napi_set_element(env, pair, 1, value);
  return pair;
}

}  // namespace

NAPI_MODULE_INIT() {
  PinLibrary();
  EndCompactionWith(env);
  napi_value fn;
  napi_create_function(env, "register", NAPI_AUTO_LENGTH, Register, nullptr, &fn);
  napi_set_named_property(env, exports, "register", fn);
  napi_create_function(env, "compactMemory", NAPI_AUTO_LENGTH, CompactMemory, nullptr, &fn);
  napi_set_named_property(env, exports, "compactMemory", fn);
  napi_create_function(env, "gpu", NAPI_AUTO_LENGTH, Gpu, nullptr, &fn);
  napi_set_named_property(env, exports, "gpu", fn);
  napi_create_function(env, "tensorFloat32", NAPI_AUTO_LENGTH, TensorFloat32, nullptr, &fn);
  napi_set_named_property(env, exports, "tensorFloat32", fn);
  napi_value version;
  napi_create_int32(env, kNativeVersion, &version);
  napi_set_named_property(env, exports, "version", version);
  return exports;
}
