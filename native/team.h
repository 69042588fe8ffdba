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

// Phases, one after another, each of numbered units. Threads are asked for once, when this is made, and may come late or never: whoever is
// there takes the next units.
class Team {
 public:
  static constexpr int kPhases = 6;  // at most

  // @param threads that are of use
  Team(xla::ffi::ThreadPool pool, int64_t threads) : shared_(std::make_shared<Shared>()) {
    const int64_t own = pool.num_threads() / ++Working(); // of this and of models that run beside it
    const int64_t all = std::max<int64_t>(1, std::min(own, threads));
    shared_->share = all == 1 ? 1 : 4 * all;
    for (int64_t i = 1; i < all; i++) pool.Schedule([shared = shared_] { Help(*shared); });
  }

  ~Team() {
    shared_->ended.store(true, std::memory_order_release);
    shared_->Tell();
    --Working();
  }
  Team(const Team&) = delete;

  // work(from, to) until all of `count` units are done; none is being worked on when it returns. Pieces get smaller towards the end, so that
  // threads which begin late or are held up even out.
  void Run(int64_t count, std::function<void(int64_t, int64_t)> work) {
    if (count == 1) return work(0, 1);  // nobody else need be waited for
    Phase& phase = shared_->phases[begun_];
    phase.count = count;
    phase.work = std::move(work);
    shared_->begun.store(++begun_, std::memory_order_release);
    shared_->Tell();
    Take(*shared_, phase);
    shared_->Wait([&] { return phase.done.load(std::memory_order_acquire) == count; });
  }

 private:
  struct Phase {
    std::atomic<int64_t> next{0}, done{0};
    int64_t count = 0;
    std::function<void(int64_t, int64_t)> work;
  };
  struct Shared {
    Phase phases[kPhases];
    std::atomic<int> begun{0};
    std::atomic<bool> ended{false};
    int64_t share = 1;

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

  static void Help(Shared& shared) {
    for (int i = 0; i < kPhases; i++) {
      shared.Wait([&] { return shared.begun.load(std::memory_order_acquire) > i || shared.ended.load(std::memory_order_acquire); });
      if (shared.begun.load(std::memory_order_acquire) <= i) return;
      Take(shared, shared.phases[i]);
    }
  }

  static void Take(Shared& shared, Phase& phase) {
    for (int64_t from = phase.next.load(std::memory_order_relaxed); from < phase.count;) {
      const int64_t size = std::max<int64_t>(1, (phase.count - from) / shared.share);
      if (!phase.next.compare_exchange_weak(from, from + size, std::memory_order_relaxed)) continue;
      phase.work(from, from + size);
      if (phase.done.fetch_add(size, std::memory_order_release) + size == phase.count) shared.Tell();
      from = phase.next.load(std::memory_order_relaxed);
    }
  }

  std::shared_ptr<Shared> shared_;
  int begun_ = 0;
};

}  // namespace
