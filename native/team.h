// The work of a call, shared among the threads that XLA gives.
#pragma once

#include <immintrin.h>
#include <sched.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace {

// Phases, one after another, each of numbered units. Threads are asked for once, when this is made, and may come late or never. Each has a
// range of the units to begin with, so that what it reads of a matrix is one stream, which the processor fetches ahead of it by itself: a
// stream that begins anew costs a microsecond or two, and units that threads take by turns are read at half the memory's speed. Whoever
// has done its range helps with those of others.
class Team {
 public:
  static constexpr int kPhases = 6;  // at most

  // @param threads that are of use
  Team(xla::ffi::ThreadPool pool, int64_t threads) : shared_(std::make_shared<Shared>()) {
    const int64_t own = pool.num_threads() / ++Working(); // of this and of models that run beside it
    const int64_t all = std::max<int64_t>(1, std::min(own, threads));
    shared_->threads = all;
    shared_->ranges = std::make_unique<Range[]>(kPhases * all);
    for (int64_t i = 1; i < all; i++) pool.Schedule([shared = shared_, i] { Help(*shared, i); });
  }

  ~Team() {
    shared_->ended.store(true, std::memory_order_release);
    shared_->Tell();
    --Working();
  }
  Team(const Team&) = delete;

  // work(from, to) until all of `count` units are done; none is being worked on when it returns.
  void Run(int64_t count, std::function<void(int64_t, int64_t)> work) {
    if (count == 1) return work(0, 1);  // nobody else need be waited for
    Phase& phase = shared_->phases[begun_];
    phase.count = count;
    phase.work = std::move(work);
    for (int64_t i = 0; i < shared_->threads; i++)
      shared_->RangeOf(begun_, i).store(Units(count * i / shared_->threads, count * (i + 1) / shared_->threads), std::memory_order_relaxed);
    const int own = begun_++;
    shared_->begun.store(begun_, std::memory_order_release);
    shared_->Tell();
    Take(*shared_, own, 0);
    shared_->Wait([&] { return phase.done.load(std::memory_order_acquire) == count; });
  }

 private:
  // Units that are not taken yet, [first, end), as one number: the owner takes from the front, others from the back.
  struct alignas(64) Range {
    std::atomic<uint64_t> left{0};
  };
  static uint64_t Units(uint64_t from, uint64_t to) { return from << 32 | to; }

  struct Phase {
    std::atomic<int64_t> done{0};
    int64_t count = 0;
    std::function<void(int64_t, int64_t)> work;
  };
  struct Shared {
    Phase phases[kPhases];
    std::atomic<int> begun{0};
    std::atomic<bool> ended{false};
    int64_t threads = 1;
    std::unique_ptr<Range[]> ranges;  // [phases, threads]

    std::atomic<uint64_t>& RangeOf(int phase, int64_t thread) { return ranges[phase * threads + thread].left; }

    // For what takes microseconds, unless the thread that it depends on is not running: then this one sleeps, so that the other finds a
    // core that other programs leave it.
    template <class F>
    void Wait(F done) {
      for (int spins = 0; spins < 500; spins++) {
        if (done()) return;
        _mm_pause();
      }
      waiting_.fetch_add(1);
      std::atomic_thread_fence(std::memory_order_seq_cst);
      for (uint32_t seen = told_.load(); !done(); seen = told_.load()) Sleep(seen);
      waiting_.fetch_sub(1);
    }

    // To be called after whatever others may wait for.
    void Tell() {
      std::atomic_thread_fence(std::memory_order_seq_cst);
      if (waiting_.load() == 0) return;
      told_.fetch_add(1);
#ifdef __linux__
      syscall(SYS_futex, &told_, FUTEX_WAKE_PRIVATE, 1 << 20, nullptr, nullptr, 0);
#endif
    }

   private:
    std::atomic<int> waiting_{0};
    std::atomic<uint32_t> told_{0};

    // Until Tell() is called, if it was not since `seen`.
    void Sleep(uint32_t seen) {
#ifdef __linux__
      syscall(SYS_futex, &told_, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
      sched_yield();
#endif
    }
  };

  // Teams at work. Threads that wait in two of them would take cores from each other.
  static std::atomic<int>& Working() {
    static std::atomic<int> teams{0};
    return teams;
  }

  static void Help(Shared& shared, int64_t thread) {
    for (int i = 0; i < kPhases; i++) {
      shared.Wait([&] { return shared.begun.load(std::memory_order_acquire) > i || shared.ended.load(std::memory_order_acquire); });
      if (shared.begun.load(std::memory_order_acquire) <= i) return;
      Take(shared, i, thread);
    }
  }

  // Pieces get smaller towards the end of a range, so that threads which begin late or are held up even out.
  static void Take(Shared& shared, int i, int64_t thread) {
    Phase& phase = shared.phases[i];
    int64_t done = 0;
    for (int64_t next = 0; next < shared.threads; next++) {
      std::atomic<uint64_t>& range = shared.RangeOf(i, (thread + next) % shared.threads);
      const bool own = next == 0;
      for (uint64_t left = range.load(std::memory_order_relaxed);;) {
        const int64_t from = left >> 32, to = static_cast<uint32_t>(left), rest = to - from;
        if (rest <= 0) break;
        const int64_t size = std::max<int64_t>(1, own ? std::min<int64_t>(rest / 8, 8) : rest / 4);
        const uint64_t other = own ? Units(from + size, to) : Units(from, to - size);
        if (!range.compare_exchange_weak(left, other, std::memory_order_relaxed)) continue;
        own ? phase.work(from, from + size) : phase.work(to - size, to);
        done += size;
        left = range.load(std::memory_order_relaxed);
      }
    }
    if (done > 0 && phase.done.fetch_add(done, std::memory_order_release) + done == phase.count) shared.Tell();
  }

  std::shared_ptr<Shared> shared_;
  int begun_ = 0;
};

}  // namespace
