// Whether a stream of weights is asked for ahead of its use. Processors fetch one by themselves, some as fast as memory gives it, so that asking is
// in the way (an EPYC: 45 to 48 GB/s alone, 36 to 42 asked for), others not (a Xeon: 15 GB/s alone, 19 to 20 asked for). It changes no value,
// so that the first calls try both in turn, and the rest does what was faster.
#pragma once

#include <x86intrin.h>

#include <atomic>
#include <cstdint>

namespace {

class StreamTrial {
 public:
  // A piece of the stream, which lasts as long as this.
  class Piece {
   public:
    // @param bytes of the piece
    Piece(StreamTrial* trial, int64_t bytes) : trial_(trial), bytes_(bytes) {
      if (trial_->Ended() || bytes < kLeast) {
        trial_ = nullptr;
        ahead_ = trial->Ahead();
        return;
      }
      ahead_ = Last().ticks_of_ahead == 0;
      began_ = __rdtsc();
    }
    ~Piece() {
      if (!trial_) return;
      const double ticks = static_cast<double>(__rdtsc() - began_) / static_cast<double>(bytes_);
      LastPiece& last = Last();
      if (!ahead_) trial_->Tell(ticks < last.ticks_of_ahead);
      last.ticks_of_ahead = ahead_ ? ticks : 0;
    }
    Piece(const Piece&) = delete;
    Piece& operator=(const Piece&) = delete;

    bool ahead() const { return ahead_; }

   private:
    // Shorter ones say little.
    static constexpr int64_t kLeast = 32 << 10;
    // What a thread's piece before took a byte, if it was asked for ahead: the next is its pair.
    struct LastPiece {
      double ticks_of_ahead = 0;
    };
    LastPiece& Last() const {
      thread_local LastPiece last[2];
      return last[trial_->number_];
    }

    StreamTrial* trial_;
    const int64_t bytes_;
    bool ahead_;
    uint64_t began_ = 0;
  };

  // @param number 0 or 1: there are two
  explicit StreamTrial(int number) : number_(number) {}

 private:
  // Pairs of pieces after which it is known; a token of 130m has some 900 of bfloat16.
  static constexpr int kPairs = 300;

  bool Ended() const { return pairs_.load(std::memory_order_relaxed) >= kPairs; }
  // Asked for unless that was clearly slower: a pair may be disturbed, most are not.
  bool Ahead() const { return !Ended() || alone_.load(std::memory_order_relaxed) * 5 < kPairs * 3; }
  void Tell(bool alone_was_faster) {
    if (Ended()) return;
    if (alone_was_faster) alone_.fetch_add(1, std::memory_order_relaxed);
    pairs_.fetch_add(1, std::memory_order_relaxed);
  }

  const int number_;
  std::atomic<int> pairs_{0}, alone_{0};
};

// Of matrices of bfloat16, and of codes of int4.
inline StreamTrial& DenseTrial() {
  static StreamTrial trial(0);
  return trial;
}
inline StreamTrial& CodesTrial() {
  static StreamTrial trial(1);
  return trial;
}

}  // namespace
