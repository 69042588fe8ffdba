// What this machine can do at this moment, all cores together: for each line on standard input one line of JSON with bytes read and
// multiply-adds (float32) a second. Each is an average over some 100 ms, so that what slows a benchmark down slows this down too.
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

typedef float Lanes __attribute__((vector_size(64)));

constexpr size_t kPiece = size_t{4} << 20;
constexpr int kPieces = 48;  // of each thread, beyond any cache
constexpr int kPasses = 8;
constexpr int64_t kSteps = int64_t{1} << 15;
constexpr int kRuns = 128;  // of so many steps, for each thread
constexpr int kSums = 16;

volatile float sink;

float Total(const Lanes* sums, int count) {
  float total = 0;
  for (int i = 0; i < count; ++i)
    for (int k = 0; k < 16; ++k) total += sums[i][k];
  return total;
}

void Read(const char* data) {
  Lanes sums[8] = {};
  for (size_t at = 0; at < kPiece; at += sizeof(sums))
    for (int i = 0; i < 8; ++i) sums[i] += *reinterpret_cast<const Lanes*>(data + at + 64 * i);
  sink = Total(sums, 8);
}

void Multiply() {
  Lanes sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = Lanes{} + static_cast<float>(i);
  Lanes x = Lanes{} + 0.999f, y = Lanes{} + 1e-3f;
  asm volatile("" : "+x"(x), "+x"(y));
  for (int64_t step = 0; step < kSteps; ++step)
    for (int i = 0; i < kSums; ++i) sums[i] = sums[i] * x + y;
  sink = Total(sums, kSums);
}

// Seconds that `count` pieces of work take. Threads take the next piece when they have done one: as with a thread pool, one that the system
// keeps waiting does not keep the others.
template <typename Work>
double Seconds(int threads, int count, const Work& work) {
  const auto began = std::chrono::steady_clock::now();
  std::atomic<int> next{0};
  std::vector<std::thread> all;
  for (int i = 0; i < threads; ++i)
    all.emplace_back([&] {
      for (int piece; (piece = next++) < count;) work(piece);
    });
  for (auto& thread : all) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const size_t bytes = threads * kPieces * kPiece;
  void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) return 1;
  madvise(block, bytes, MADV_HUGEPAGE);
  std::memset(block, 0, bytes);
  const char* data = static_cast<const char*>(block);
  char line[256];
  while (std::fgets(line, sizeof(line), stdin)) {
    const int pieces = threads * kPieces;
    const double read = Seconds(threads, pieces * kPasses, [&](int i) { Read(data + (i % pieces) * kPiece); });
    const double multiply = Seconds(threads, threads * kRuns, [](int) { Multiply(); });
    std::printf("{\"read\": %.6g, \"multiply\": %.6g}\n", double(bytes) * kPasses / read,
                threads * double(kRuns) * kSteps * kSums * 16 / multiply);
    std::fflush(stdout);
  }
}
