// A session of TensorFlow and the thread that it runs on. Nothing here knows JavaScript; session.cc does.
#pragma once

#include <tensorflow/c/c_api.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

// The older interface of sessions takes a graph as bytes, as sessions themselves do. TF_GraphImportGraphDef makes a graph of it first, and infers
// the shapes of all nodes in all functions: that takes as long again, and nothing here asks for them.
struct TF_DeprecatedSession;
extern "C" {
TF_DeprecatedSession* TF_NewDeprecatedSession(const TF_SessionOptions*, TF_Status*);
void TF_CloseDeprecatedSession(TF_DeprecatedSession*, TF_Status*);
void TF_DeleteDeprecatedSession(TF_DeprecatedSession*, TF_Status*);
void TF_ExtendGraph(TF_DeprecatedSession*, const void* bytes, size_t length, TF_Status*);
void TF_Run(TF_DeprecatedSession*, const TF_Buffer* options, const char** in_names, TF_Tensor** in, int ins, const char** out_names,
            TF_Tensor** out, int outs, const char** targets, int target_count, TF_Buffer* metadata, TF_Status*);
}

// Pieces of work that sessions of this process were given and have not ended, on threads of their own. Who ends the process meanwhile must
// not destroy what they use.
inline std::atomic<int> under_way{0};

using Tensor = std::shared_ptr<TF_Tensor>;

inline Tensor Owned(TF_Tensor* tensor) {
  return Tensor(tensor, [](TF_Tensor* t) {
    if (t) TF_DeleteTensor(t);
  });
}

// What is fed at a place of the graph. One dimension may be -1: it is as long as the bytes are.
struct Feed {
  TF_DataType type;
  std::vector<int64_t> dims;
};

using Clock = std::chrono::steady_clock;
using Micros = std::chrono::microseconds;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits awake, for what is sooner there than a thread that sleeps is awake. Returns whether it is there.
template <class F>
bool WaitAwake(Clock::time_point until, F there) {
  while (!there()) {
    if (Clock::now() >= until) return false;
    for (int i = 0; i < 16; i++) Pause();
  }
  return true;
}

// The names of the nodes of a GraphDef, those of its functions left out.
inline void NamesOf(const std::string& graph, std::unordered_set<std::string>* names) {
  const auto number = [](const char*& at, const char* end) {
    uint64_t value = 0;
    for (int shift = 0; at < end && shift < 64; shift += 7) {
      const unsigned char byte = *at++;
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (byte < 128) break;
    }
    return value;
  };
  // the contents of fields of a number, in turn
  const auto each = [&](const char* at, const char* end, uint64_t field, auto found) {
    while (at < end) {
      const uint64_t key = number(at, end);
      if ((key & 7) != 2) return;  // messages and texts alone stand where we look
      const uint64_t size = number(at, end);
      if (size > static_cast<uint64_t>(end - at)) return;
      if (key >> 3 == field && !found(at, at + size)) return;
      at += size;
    }
  };
  each(graph.data(), graph.data() + graph.size(), 1, [&](const char* node, const char* end) {
    each(node, end, 1, [&](const char* name, const char* rest) {
      names->emplace(name, rest);
      return false;
    });
    return true;
  });
}

// A set of feeds and fetches, by their names in the graph.
struct Call {
  std::vector<Feed> feeds;
  std::vector<std::string> in, out, targets;
  mutable std::atomic<int64_t> micros{INT64_MAX};  // that the last run took
};

// One run, or the loading of a graph where there is no call, or the end of the session where it is `last`.
struct Job {
  std::shared_ptr<const Call> call;
  bool last = false;
  std::string graph;
  std::vector<Tensor> feeds, fetched;
  TF_Code code = TF_OK;
  std::string message;

  // Who gave the job may wait for it, and take it when it has ended; who does not is told.
  enum State { kWaitedFor, kEnded, kToBeTold };
  std::atomic<int> state{kToBeTold};

  // Waits until then. Returns whether the job has ended; else its end will be told.
  bool Await(Clock::time_point until) {
    if (WaitAwake(until, [&] { return state.load(std::memory_order_acquire) == kEnded; })) return true;
    int waited = kWaitedFor;
    return !state.compare_exchange_strong(waited, kToBeTold);
  }

  // On the session's thread. Whoever waits for the job, or is told, owns it from then on.
  void End() {
    int waited = kWaitedFor;
    if (!state.compare_exchange_strong(waited, kEnded)) Tell();
  }

  virtual ~Job() = default;
  virtual void Tell() {}
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  // `awake`: how long its thread waits awake for the next job.
  Session(std::string config, std::string target, Micros awake)
      : config_(std::move(config)), target_(std::move(target)), awake_(awake) {}

  // Whether a graph was loaded and not ended.
  bool open() const { return session_ != nullptr; }

  // The graph will have the nodes of this GraphDef, once its turn has come: calls may be prepared that are given after it.
  void Expect(const std::string& graph) {
    const std::lock_guard<std::mutex> l(names_lock_);
    NamesOf(graph, &names_);
  }

  // Whether the graph has, or will have, a node of that name.
  bool Has(const std::string& name) {
    const std::lock_guard<std::mutex> l(names_lock_);
    return names_.count(name) > 0;
  }

  // Does a job on the thread that asks, after all that came before. Returns whether the session is open.
  bool RunHere(Job* job) {
    std::unique_lock<std::mutex> l(lock_);
    idle_.wait(l, [&] { return waiting_.empty() && !busy_; });
    if (closed_) return false;
    busy_ = true;
    l.unlock();
    Do(job, true);
    l.lock();
    busy_ = false;
    return true;
  }

  // Does a job on the session's own thread, in its turn. Returns whether the session is open: only then is the job taken.
  bool RunThere(Job* job) {
    std::unique_lock<std::mutex> l(lock_);
    if (closed_) return false;
    under_way++;
    waiting_.push_back(job);
    ready_.store(true, std::memory_order_release);
    if (!started_ && !Start()) {
      waiting_.clear();
      l.unlock();
      job->code = TF_RESOURCE_EXHAUSTED;
      job->message = "the system gives no thread for the session";
      job->End();
      under_way--;
      return true;
    }
    l.unlock();
    work_.notify_one();
    return true;
  }

  // Takes no more work and returns what has not begun. The session goes on its own thread, when what runs has ended: its variables and programs
  // are gigabytes, which the system takes a second to take back. One of another process is let go (Job::last tells that process, who may take
  // long, or be gone).
  std::deque<Job*> Close() {
    std::unique_lock<std::mutex> l(lock_);
    if (closed_) return {};
    closed_ = true;
    ready_.store(true, std::memory_order_release);
    std::deque<Job*> left = std::move(waiting_);
    waiting_.clear();
    under_way -= static_cast<int>(left.size());
    under_way++;  // Gone() ends it
    const bool here = !started_ && (!session_ || !Start());
    l.unlock();
    work_.notify_one();
    if (here) Gone();
    return left;
  }

 private:
  bool Start() {
    try {
      std::thread(&Session::Loop, shared_from_this()).detach();
      started_ = true;
    } catch (const std::system_error&) {
    }
    return started_;
  }

  static void Loop(std::shared_ptr<Session> self) {
    while (Job* job = self->Next()) {
      self->Do(job, false);
      std::unique_lock<std::mutex> l(self->lock_);
      self->busy_ = false;
      l.unlock();
      self->idle_.notify_one();
      job->End();
      under_way--;
    }
    self->Gone();
  }

  // The next job; null when there will be none.
  Job* Next() {
    WaitAwake(Clock::now() + awake_, [&] { return ready_.load(std::memory_order_acquire); });
    std::unique_lock<std::mutex> l(lock_);
    work_.wait(l, [&] { return closed_ || (!waiting_.empty() && !busy_); });
    if (closed_) return nullptr;
    Job* job = waiting_.front();
    waiting_.pop_front();
    ready_.store(!waiting_.empty(), std::memory_order_release);
    busy_ = true;
    return job;
  }

  void Do(Job* job, bool here) {
    TF_Status* status = TF_NewStatus();
    if (job->last) {
      End();
    } else if (job->call) {
      Run(job, here && !target_.empty(), status);
    } else {
      Load(job->graph, status);
    }
    job->code = TF_GetCode(status);
    if (job->code != TF_OK) job->message = TF_Message(status);
    TF_DeleteStatus(status);
  }

  // `limited`: JavaScript stands still meanwhile, and another process may never answer
  void Run(Job* job, bool limited, TF_Status* status) {
    const Call& call = *job->call;
    if (!session_) return TF_SetStatus(status, TF_FAILED_PRECONDITION, "the session was ended");
    static const char kLimit[] = {0x10, static_cast<char>(0xa8), static_cast<char>(0xc3), 0x01};  // RunOptions.timeout_in_ms: 25,000
    const TF_Buffer limit{kLimit, sizeof(kLimit), nullptr};
    std::vector<TF_Tensor*> in, out(call.out.size(), nullptr);
    for (const Tensor& feed : job->feeds) in.push_back(feed.get());
    const auto texts = [](const std::vector<std::string>& names) {
      std::vector<const char*> list;
      for (const std::string& name : names) list.push_back(name.c_str());
      return list;
    };
    std::vector<const char*> ins = texts(call.in), outs = texts(call.out), targets = texts(call.targets);
    const auto began = Clock::now();
    TF_Run(session_, limited ? &limit : nullptr, ins.data(), in.data(), static_cast<int>(in.size()), outs.data(), out.data(),
           static_cast<int>(out.size()), targets.data(), static_cast<int>(targets.size()), nullptr, status);
    call.micros = std::chrono::duration_cast<Micros>(Clock::now() - began).count();
    job->feeds.clear();  // here, lest JavaScript's thread free them
    for (TF_Tensor* fetched : out) job->fetched.push_back(Owned(fetched));
  }

  void Load(const std::string& bytes, TF_Status* status) {
    if (!session_) {
      TF_SessionOptions* options = TF_NewSessionOptions();
      if (!target_.empty()) TF_SetTarget(options, target_.c_str());
      TF_SetConfig(options, config_.data(), config_.size(), status);
      TF_DeprecatedSession* made = TF_GetCode(status) == TF_OK ? TF_NewDeprecatedSession(options, status) : nullptr;
      TF_DeleteSessionOptions(options);
      if (!made) return;
      session_ = made;
    }
    TF_ExtendGraph(session_, bytes.data(), bytes.size(), status);
  }

  // The last that is done with a session that was closed.
  void Gone() {
    if (target_.empty()) End();
    under_way--;
  }

  void End() {
    TF_Status* status = TF_NewStatus();
    if (session_ && !target_.empty()) TF_CloseDeprecatedSession(session_, status);
    if (session_) TF_DeleteDeprecatedSession(session_, status);
    TF_DeleteStatus(status);
    session_ = nullptr;
  }

  const std::string config_, target_;
  const Micros awake_;
  std::atomic<TF_DeprecatedSession*> session_{nullptr};
  std::mutex names_lock_;
  std::unordered_set<std::string> names_;  // of the graph's nodes
  std::mutex lock_;
  std::condition_variable work_, idle_;
  std::deque<Job*> waiting_;
  std::atomic<bool> ready_{false};  // whether Next() has something to look at
  bool busy_ = false, closed_ = false, started_ = false;
};
