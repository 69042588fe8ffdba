// Sessions of TensorFlow for JavaScript: a graph from its bytes, runs on a thread of the session's own, as promises, and at once. One environment
// of JavaScript (the main thread, a worker) uses a session; sessions share nothing. The library is the one that tfjs-node has loaded.
#include <dlfcn.h>
#include <node_api.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <unordered_map>
#include <unordered_set>

#include "drop_pages.h"
#include "exports.h"
#include "file_reader.h"
#include "release_memory.h"
#include "server.h"
#include "session_work.h"

namespace {

// Results of so many bytes are handed over as they are; a copy of less is cheaper than an array that must be freed.
constexpr size_t kLarge = 1 << 15;

// JavaScript waits on the spot for calls that are sooner done than the event loop is woken, but lets the loop run now and then.
constexpr std::chrono::milliseconds kOnTheSpot{8};

// Memory that JavaScript and TensorFlow both hold: it goes with the last of them.
using Block = Tensor;

// What belongs to one environment. Finalizers hold it: they may be called after the environment has dropped it.
struct Home {
  std::mutex lock;
  bool alive = true;  // under the lock: whether JavaScript may be called
  napi_threadsafe_function done = nullptr;
  int pending = 0;  // promises to be told of; while there are some the event loop goes on
  Clock::time_point told = Clock::now();  // when the event loop last brought an end
  std::unordered_set<Session*> sessions;
  std::unordered_map<const void*, Block> blocks;
};

Home& HomeOf(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return **static_cast<std::shared_ptr<Home>*>(data);
}

std::shared_ptr<Home> SharedHome(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<std::shared_ptr<Home>*>(data);
}

struct Promised : Job {
  napi_deferred deferred = nullptr;
  std::shared_ptr<Home> home;
  bool keep = false;

  void Tell() override {
    const std::lock_guard<std::mutex> l(home->lock);
    if (!home->alive || napi_call_threadsafe_function(home->done, this, napi_tsfn_nonblocking) != napi_ok) delete this;
  }
};

std::string Text(napi_env env, napi_value value) {
  size_t length = 0;
  napi_get_value_string_utf8(env, value, nullptr, 0, &length);
  std::string text(length + 1, '\0');
  napi_get_value_string_utf8(env, value, &text[0], text.size(), &length);
  text.resize(length);
  return text;
}

napi_value ErrorOf(napi_env env, TF_Code code, const std::string& message) {
  napi_value text, error, number;
  napi_create_string_utf8(env, message.data(), message.size(), &text);
  napi_create_error(env, nullptr, text, &error);
  napi_create_int32(env, code, &number);
  napi_set_named_property(env, error, "code", number);
  return error;
}

napi_value Throw(napi_env env, TF_Code code, const std::string& message) {
  napi_throw(env, ErrorOf(env, code, message));
  return nullptr;
}

constexpr char kClosed[] = "the session is closed";

template <class T>
void Finalize(napi_env, void* data, void*) {
  delete static_cast<T*>(data);
}

// JavaScript's hold on a copy of `value`.
template <class T>
napi_value Hold(napi_env env, T value) {
  napi_value result;
  napi_create_external(env, new T(std::move(value)), Finalize<T>, nullptr, &result);
  return result;
}

template <class T>
T& Held(napi_env env, napi_value value) {
  void* data = nullptr;
  napi_get_value_external(env, value, &data);
  return *static_cast<T*>(data);
}

struct View {
  const char* data = nullptr;
  size_t bytes = 0;
  const void* base = nullptr;  // of the whole array buffer
};

// The bytes of a typed array; false where it is none.
bool ViewOf(napi_env env, napi_value value, View* view) {
  bool typed = false;
  napi_is_typedarray(env, value, &typed);
  if (!typed) return false;
  napi_typedarray_type type;
  size_t length = 0, offset = 0, whole = 0;
  void* data = nullptr;
  void* base = nullptr;
  napi_value buffer;
  napi_get_typedarray_info(env, value, &type, &length, &data, &buffer, &offset);
  napi_get_arraybuffer_info(env, buffer, &base, &whole);
  static constexpr size_t kWidths[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  *view = {static_cast<const char*>(data), length * (type < 11 ? kWidths[type] : 2), base};
  return true;
}

// A tensor of what is fed, a copy but for memory that allocate() gave.
Tensor FeedTensor(Home& home, const Feed& feed, const View& view, std::string* wrong) {
  std::vector<int64_t> dims = feed.dims;
  const int64_t width = static_cast<int64_t>(TF_DataTypeSize(feed.type));
  int64_t known = width;
  for (const int64_t d : dims)
    if (d >= 0) known *= d;
  for (int64_t& d : dims)
    if (d < 0) {
      d = known > 0 ? static_cast<int64_t>(view.bytes) / known : 0;
      known *= d;
    }
  if (known != static_cast<int64_t>(view.bytes)) {
    *wrong = "got " + std::to_string(view.bytes) + " bytes, expected " + std::to_string(known);
    return nullptr;
  }
  if (const auto block = view.bytes < kLarge ? home.blocks.end() : home.blocks.find(view.base); block != home.blocks.end()) {
    const auto drop = [](void*, size_t, void* held) { delete static_cast<Block*>(held); };
    return Owned(TF_NewTensor(feed.type, dims.data(), static_cast<int>(dims.size()), const_cast<char*>(view.data), view.bytes, drop,
                              new Block(block->second)));
  }
  Tensor tensor = Owned(TF_AllocateTensor(feed.type, dims.data(), static_cast<int>(dims.size()), view.bytes));
  if (!tensor) {
    *wrong = "no memory for " + std::to_string(view.bytes) + " bytes (out of memory)";
    return nullptr;
  }
  if (view.bytes > 0) memcpy(TF_TensorData(tensor.get()), view.data, view.bytes);
  return tensor;
}

// An array buffer of a result: its own memory where nobody else has it, and the runtime allows that, else a copy.
napi_value BufferOf(napi_env env, Tensor tensor) {
  const size_t bytes = TF_TensorByteSize(tensor.get());
  napi_value result = nullptr;
  // as moving it might: only one whose memory no variable has
  if (bytes >= kLarge && TF_TensorMaybeMove(tensor.get())) {
    auto* held = new Tensor(tensor);
    const auto drop = [](napi_env, void*, void* held) { delete static_cast<Tensor*>(held); };
    if (napi_create_external_arraybuffer(env, TF_TensorData(tensor.get()), bytes, drop, held, &result) == napi_ok) return result;
    delete held;
  }
  void* data = nullptr;
  if (napi_create_arraybuffer(env, bytes, &data, &result) != napi_ok) return nullptr;
  if (bytes > 0) memcpy(data, TF_TensorData(tensor.get()), bytes);
  return result;
}

// What a job has fetched: array buffers, or tensors to be fed to other calls.
napi_value Results(napi_env env, Job* job, bool keep) {
  napi_value list;
  napi_create_array_with_length(env, job->fetched.size(), &list);
  for (uint32_t i = 0; i < job->fetched.size(); i++) {
    Tensor tensor = std::move(job->fetched[i]);
    napi_value item = keep ? Hold(env, std::move(tensor)) : BufferOf(env, std::move(tensor));
    if (!item) return nullptr;  // an exception is pending: no memory for it
    napi_set_element(env, list, i, item);
  }
  return list;
}

void Settle(napi_env env, Promised* job) {
  napi_value value = job->code == TF_OK ? Results(env, job, job->keep) : nullptr;
  if (value) {
    napi_resolve_deferred(env, job->deferred, value);
  } else {
    bool pending = false;
    napi_is_exception_pending(env, &pending);
    if (pending) {
      napi_get_and_clear_last_exception(env, &value);
    } else {
      value = ErrorOf(env, job->code, job->message);
    }
    napi_reject_deferred(env, job->deferred, value);
  }
  delete job;
}

// A promise more, or less, that the event loop will hear of.
void Expect(napi_env env, Home& home, int more) {
  const int before = home.pending;
  home.pending += more;
  if (before == 0) napi_ref_threadsafe_function(env, home.done);
  if (home.pending == 0) napi_unref_threadsafe_function(env, home.done);
}

// On JavaScript's thread, or, with the environment on its end, without it.
void OnDone(napi_env env, napi_value, void*, void* data) {
  auto* job = static_cast<Promised*>(data);
  if (env) {
    job->home->told = Clock::now();
    Expect(env, *job->home, -1);
    Settle(env, job);
  } else {
    delete job;
  }
}

struct SessionRef {
  std::shared_ptr<Session> session;
  bool abandoned = false;
  Micros patience;  // for how long a call may last that is waited for on the spot

  Session* operator->() const { return session.get(); }
};

// Closes a session; what waited ends with an error.
void CloseSession(napi_env env, Home& home, const std::shared_ptr<Session>& session) {
  home.sessions.erase(session.get());
  for (Job* job : session->Close()) {
    if (env) {
      job->code = TF_CANCELLED;
      job->message = kClosed;
      Expect(env, home, -1);
      Settle(env, static_cast<Promised*>(job));
    } else {
      delete job;
    }
  }
}

// create(config, target, awake, patience): microseconds, see Session and SessionRef
napi_value Create(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value args[4];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  View config;
  ViewOf(env, args[0], &config);
  int64_t awake = 0, patience = 0;
  napi_get_value_int64(env, args[2], &awake);
  napi_get_value_int64(env, args[3], &patience);
  auto session = std::make_shared<Session>(std::string(config.data ? config.data : "", config.bytes), Text(env, args[1]), Micros(awake));
  HomeOf(env).sessions.insert(session.get());
  napi_value result;
  const auto drop = [](napi_env env, void* data, void* hint) {
    auto* held = static_cast<SessionRef*>(data);
    auto* home = static_cast<std::shared_ptr<Home>*>(hint);
    if (!held->abandoned) CloseSession((*home)->alive ? env : nullptr, **home, held->session);
    delete held;
    delete home;
  };
  napi_create_external(env, new SessionRef{session, false, Micros(patience)}, drop, new std::shared_ptr<Home>(SharedHome(env)), &result);
  return result;
}

// Gives a job to a session, to be done at once (its results are returned) or on the session's thread (a promise is).
napi_value Give(napi_env env, const SessionRef& session, std::unique_ptr<Promised> job, bool wait) {
  if (wait) {
    if (!session->RunHere(job.get())) return Throw(env, TF_CANCELLED, kClosed);
    if (job->code != TF_OK) return Throw(env, job->code, job->message);
    return Results(env, job.get(), job->keep);
  }
  job->home = SharedHome(env);
  napi_value promise;
  napi_create_promise(env, &job->deferred, &promise);
  Promised* given = job.release();
  Home& home = *given->home;
  const auto now = Clock::now();
  const bool brief = given->call && given->call->micros < session.patience.count() && now - home.told < kOnTheSpot;
  if (brief) given->state = Job::kWaitedFor;
  if (!session->RunThere(given)) {
    given->code = TF_CANCELLED;
    given->message = kClosed;
    Settle(env, given);
  } else if (brief && given->Await(now + session.patience)) {
    Settle(env, given);
  } else {
    Expect(env, home, 1);
  }
  return promise;
}

// load(session, graph, wait)
napi_value Load(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value args[3];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  bool wait = false;
  napi_get_value_bool(env, args[2], &wait);
  View graph;
  ViewOf(env, args[1], &graph);
  auto job = std::make_unique<Promised>();
  job->graph.assign(graph.data ? graph.data : "", graph.bytes);
  const SessionRef& session = Held<SessionRef>(env, args[0]);
  session->Expect(job->graph);
  return Give(env, session, std::move(job), wait);
}

std::vector<napi_value> Items(napi_env env, napi_value list) {
  uint32_t count = 0;
  napi_get_array_length(env, list, &count);
  std::vector<napi_value> items(count);
  for (uint32_t i = 0; i < count; i++) napi_get_element(env, list, i, &items[i]);
  return items;
}

// prepare(session, feeds: [name, type, dims][], fetches: names, targets: names)
napi_value Prepare(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value args[4];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  Session& session = *Held<SessionRef>(env, args[0]).session;
  if (!session.open()) return Throw(env, TF_FAILED_PRECONDITION, "no graph was loaded, or the session is closed");
  auto call = std::make_shared<Call>();
  const auto missing = [&](const std::string& name) { return Throw(env, TF_NOT_FOUND, "the graph has no '" + name + "'"); };
  const auto known = [&](const std::string& name) { return session.Has(name.substr(0, name.find(':'))); };
  for (napi_value item : Items(env, args[1])) {
    const std::vector<napi_value> parts = Items(env, item);
    const std::string name = Text(env, parts[0]);
    if (!known(name)) return missing(name);
    int32_t type = 0;
    napi_get_value_int32(env, parts[1], &type);
    Feed feed{static_cast<TF_DataType>(type), {}};
    for (napi_value dim : Items(env, parts[2])) {
      int64_t size = 0;
      napi_get_value_int64(env, dim, &size);
      feed.dims.push_back(size);
    }
    call->in.push_back(name);
    call->feeds.push_back(std::move(feed));
  }
  for (napi_value item : Items(env, args[2])) {
    const std::string name = Text(env, item);
    if (!known(name)) return missing(name);
    call->out.push_back(name);
  }
  for (napi_value item : Items(env, args[3])) {
    const std::string name = Text(env, item);
    if (!known(name)) return missing(name);
    call->targets.push_back(name);
  }
  return Hold<std::shared_ptr<const Call>>(env, call);
}

// run(session, call, values: typed arrays or kept tensors, keep, wait)
napi_value Run(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value args[5];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  auto job = std::make_unique<Promised>();
  job->call = Held<std::shared_ptr<const Call>>(env, args[1]);
  const std::vector<Feed>& feeds = job->call->feeds;
  const std::vector<napi_value> values = Items(env, args[2]);
  if (values.size() != feeds.size())
    return Throw(env, TF_INVALID_ARGUMENT,
                 "got " + std::to_string(values.size()) + " values, expected " + std::to_string(feeds.size()));
  for (size_t i = 0; i < values.size(); i++) {
    View view;
    std::string wrong = "neither a typed array nor a tensor";
    Tensor tensor;
    napi_valuetype type;
    napi_typeof(env, values[i], &type);
    if (type == napi_external) {
      tensor = Held<Tensor>(env, values[i]);
    } else if (ViewOf(env, values[i], &view)) {
      tensor = FeedTensor(HomeOf(env), feeds[i], view, &wrong);
    }
    if (!tensor) return Throw(env, TF_INVALID_ARGUMENT, "value " + std::to_string(i) + ": " + wrong);
    job->feeds.push_back(std::move(tensor));
  }
  bool wait = false;
  napi_get_value_bool(env, args[3], &job->keep);
  napi_get_value_bool(env, args[4], &wait);
  return Give(env, Held<SessionRef>(env, args[0]), std::move(job), wait);
}

// end(session): frees what a session has in another process, in its turn. A promise.
napi_value EndCall(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value args[1];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  auto job = std::make_unique<Promised>();
  job->last = true;
  return Give(env, Held<SessionRef>(env, args[0]), std::move(job), false);
}

// close(session)
napi_value CloseCall(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value args[1];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  CloseSession(env, HomeOf(env), Held<SessionRef>(env, args[0]).session);
  return nullptr;
}

// abandon(session): it is never freed, not even at the end of the process
napi_value AbandonCall(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value args[1];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  auto& ref = Held<SessionRef>(env, args[0]);
  ref.abandoned = true;
  HomeOf(env).sessions.erase(ref.session.get());
  new std::shared_ptr<Session>(ref.session);
  return nullptr;
}

// allocate(bytes): an array buffer that is fed without a copy. Null where the runtime allows none.
napi_value Allocate(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value args[1], result;
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  int64_t bytes = 0;
  napi_get_value_int64(env, args[0], &bytes);
  Block block = Owned(TF_AllocateTensor(TF_UINT8, &bytes, 1, static_cast<size_t>(bytes)));
  if (!block) return Throw(env, TF_RESOURCE_EXHAUSTED, "no memory for " + std::to_string(bytes) + " bytes (out of memory)");
  void* data = TF_TensorData(block.get());
  const auto drop = [](napi_env, void* data, void* hint) {
    auto* home = static_cast<std::shared_ptr<Home>*>(hint);
    (*home)->blocks.erase(data);
    delete home;
  };
  auto* home = new std::shared_ptr<Home>(SharedHome(env));
  if (bytes == 0 || napi_create_external_arraybuffer(env, data, static_cast<size_t>(bytes), drop, home, &result) != napi_ok) {
    delete home;
    napi_get_null(env, &result);
    return result;
  }
  HomeOf(env).blocks[data] = std::move(block);
  return result;
}

// A tensor of so many words in pages of 2 MB, but for what is left of the last; null where it is too small, or such pages come slowly
// (file_reader.h). A weight is read in half the time into them, and needs no moving to them afterwards (host_kernels.cc).
// At 130m 226 MB of weights lie in them so from the first token on, 168 where pieces below 4 MB do not.
Tensor InLargePages(int64_t words) {
#ifdef MADV_HUGEPAGE
  constexpr size_t kPage = 2 << 20;
  const size_t bytes = static_cast<size_t>(4 * words);
  if (bytes < kPage || !large_pages) return nullptr;
  const size_t room = (bytes + 4095) / 4096 * 4096;
  void* mapped = mmap(nullptr, room + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(mapped);
  char* const data = begin + (kPage - reinterpret_cast<uintptr_t>(begin) % kPage) % kPage;
  if (data > begin) munmap(begin, static_cast<size_t>(data - begin));
  munmap(data + room, static_cast<size_t>(begin + kPage - data));
  madvise(data, room, MADV_HUGEPAGE);
  const auto drop = [](void* data, size_t bytes, void*) {
    DropPages(data, bytes);
    munmap(data, (bytes + 4095) / 4096 * 4096);
  };
  return Owned(TF_NewTensor(TF_INT32, &words, 1, data, bytes, drop, nullptr));
#else
  return nullptr;
#endif
}

// hold(bytes): a tensor of so many bytes, in words of 4, which JavaScript does not see and only hands over: with each 64 MB of array buffers it
// begins a garbage collection, so that to load a model would be one after another.
napi_value HoldCall(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value args[1];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  int64_t bytes = 0;
  napi_get_value_int64(env, args[0], &bytes);
  const int64_t words = bytes / 4;
  Tensor tensor = InLargePages(words);
  if (!tensor) tensor = Owned(TF_AllocateTensor(TF_INT32, &words, 1, static_cast<size_t>(4 * words)));
  if (!tensor) return Throw(env, TF_RESOURCE_EXHAUSTED, "no memory for " + std::to_string(bytes) + " bytes (out of memory)");
  return Hold(env, std::move(tensor));
}

// The last that a thread of JavaScript does. Where runs are under way, the process must not destroy what they use: it ends without destructors. What
// TensorFlow makes during a run it destroys first of all, in reverse order, and so before anything that was registered with exit() earlier; but
// exit() ends its own thread's variables before that. A worker that ends says the same for the exit() of the main thread, which waits for workers.
struct LastOfThread {
  ~LastOfThread() {
#ifdef __GLIBC__
    const auto leave = [](int status, void*) {
      if (under_way.load() > 0) _exit(status);
    };
    if (under_way.load() > 0) on_exit(leave, nullptr);
#endif
  }
};

// The end of an environment waits for nobody: what runs ends by itself, and nobody hears of it.
void EndHome(void* data) {
  Home& home = **static_cast<std::shared_ptr<Home>*>(data);
  {
    const std::lock_guard<std::mutex> l(home.lock);
    home.alive = false;
  }
  for (Session* session : std::unordered_set<Session*>(home.sessions))
    CloseSession(nullptr, home, session->shared_from_this());
}

// Keeps this library loaded for as long as the process lives: threads of sessions may outlive the environment that began them.
void PinLibrary() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&PinLibrary), &info) && info.dli_fname)
    dlopen(info.dli_fname, RTLD_LAZY | RTLD_NODELETE | RTLD_NOLOAD);
}

}  // namespace

bool MemoryOf(napi_env env, napi_value value, void** data, size_t* bytes) {
  napi_valuetype type;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_external) return false;
  TF_Tensor* tensor = Held<Tensor>(env, value).get();
  *data = TF_TensorData(tensor);
  *bytes = TF_TensorByteSize(tensor);
  return true;
}

NAPI_MODULE_INIT() {
  PinLibrary();
  static thread_local LastOfThread last;
  (void)last;
  auto home = std::make_unique<std::shared_ptr<Home>>(std::make_shared<Home>());
  napi_value name;
  napi_create_string_utf8(env, "tfjs-mamba2 session", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, OnDone, &(*home)->done);
  napi_unref_threadsafe_function(env, (*home)->done);
  napi_add_env_cleanup_hook(env, EndHome, home.get());
  napi_set_instance_data(env, home.release(), Finalize<std::shared_ptr<Home>>, nullptr);
  Export(env, exports, "create", Create);
  Export(env, exports, "load", Load);
  Export(env, exports, "prepare", Prepare);
  Export(env, exports, "run", Run);
  Export(env, exports, "end", EndCall);
  Export(env, exports, "close", CloseCall);
  Export(env, exports, "abandon", AbandonCall);
  Export(env, exports, "allocate", Allocate);
  Export(env, exports, "hold", HoldCall);
  ExportFileReader(env, exports);
  ExportReleaseMemory(env, exports);
  ExportServer(env, exports);
  ExportVersion(env, exports, NATIVE_VERSION);
  return exports;
}
