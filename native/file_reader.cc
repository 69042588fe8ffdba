// Filling JavaScript's memory by several threads at once, from files or from numbers of another type: what one thread copies from the system's memory
// of a file is less than half of what the machine can. JavaScript's own thread never touches the memory: where it is new, the system may take a
// tenth of a second for 2 MB of it (a virtual machine whose own memory is given to it when it asks).
#include "file_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "exports.h"

std::atomic<bool> large_pages{true};

namespace {

// What a thread reads at a time.
constexpr size_t kPiece = 4 << 20;
constexpr unsigned kThreads = 4;

using Convert = void (*)(const char* from, char* to, size_t count);

void Copy(const char* from, char* to, size_t count) { memcpy(to, from, 4 * count); }

void WidenBfloat16(const char* from, char* to, size_t count) {
  const uint16_t* half = reinterpret_cast<const uint16_t*>(from);
  uint32_t* bits = reinterpret_cast<uint32_t*>(to);
  for (size_t i = 0; i < count; i++) bits[i] = static_cast<uint32_t>(half[i]) << 16;
}

// To the nearest, ties to even; NaN stays one (bfloat16Bits() of src/base/stored_dtypes.ts).
void RoundToBfloat16(const char* from, char* to, size_t count) {
  const uint32_t* bits = reinterpret_cast<const uint32_t*>(from);
  uint16_t* half = reinterpret_cast<uint16_t*>(to);
  for (size_t i = 0; i < count; i++) {
    const uint32_t x = bits[i];
    const bool nan = (x & 0x7fffffff) > 0x7f800000;
    half[i] = static_cast<uint16_t>(nan ? (x >> 16) | 0x40 : (x + 0x7fff + ((x >> 16) & 1)) >> 16);
  }
}

struct Conversion {
  const char* name;
  size_t from, to;  // bytes of a number
  Convert convert;
};

constexpr Conversion kConversions[] = {
    {"F32 to F32", 4, 4, Copy},
    {"BF16 to F32", 2, 4, WidenBfloat16},
    {"F32 to BF16", 4, 2, RoundToBfloat16},
};

// Bytes on their way: of a file, or of numbers in memory where there is a conversion.
struct Reading {
  struct Environment* environment;
  int file;
  int64_t offset;
  char* data;
  const char* numbers = nullptr;
  const Conversion* conversion = nullptr;
  napi_ref buffer = nullptr, source = nullptr;  // which live as long
  napi_deferred promise = nullptr;
  std::atomic<size_t> left{0};
  std::atomic<int> error{0};
};

struct Piece {
  Reading* reading;
  size_t from, size;
};

// A thread of JavaScript that reads.
struct Environment {
  napi_threadsafe_function done = nullptr;
  // of readings; touched by that thread alone
  size_t pending = 0;
};

// Never destroyed: threads may still run at the end of a process.
std::mutex& queue_lock = *new std::mutex;
std::condition_variable& piece_done = *new std::condition_variable;
std::deque<Piece>& queue = *new std::deque<Piece>;
std::map<Environment*, int>& under_way = *new std::map<Environment*, int>;
unsigned threads = 0;

// A piece that takes so long is slow: of the memory of a file that the system has it takes 2 ms. One of a disk may be slow, too.
constexpr std::chrono::milliseconds kSlow{20};
constexpr int kSlowPieces = 4;
std::atomic<int> slow_pieces{0};

constexpr int kEnded = -1;  // of a file that has fewer bytes than were asked for

void ReadPiece(const Piece& piece) {
  Reading& reading = *piece.reading;
  if (const Conversion* conversion = reading.conversion) {
    const size_t first = piece.from / conversion->to;
    return conversion->convert(reading.numbers + first * conversion->from, reading.data + piece.from, piece.size / conversion->to);
  }
  const auto began = std::chrono::steady_clock::now();
  for (size_t at = piece.from, end = piece.from + piece.size; at < end && reading.error == 0;) {
    const ssize_t got = pread(reading.file, reading.data + at, end - at, reading.offset + static_cast<int64_t>(at));
    if (got > 0) at += got;
    else if (got == 0) reading.error = kEnded;
    else if (errno != EINTR) reading.error = errno;
  }
  if (std::chrono::steady_clock::now() - began > kSlow && ++slow_pieces == kSlowPieces) large_pages = false;
}

void ReadUntilEmpty() {
  std::unique_lock<std::mutex> lock(queue_lock);
  while (!queue.empty()) {
    const Piece piece = queue.front();
    queue.pop_front();
    Environment* environment = piece.reading->environment;
    under_way[environment]++;
    lock.unlock();
    ReadPiece(piece);
    if (piece.reading->left.fetch_sub(piece.size) == piece.size)
      napi_call_threadsafe_function(environment->done, piece.reading, napi_tsfn_nonblocking);
    lock.lock();
    under_way[environment]--;
    piece_done.notify_all();
  }
  threads--;
}

// In the thread of JavaScript, once all pieces of a reading are done.
void Settle(napi_env env, napi_value, void*, void* data) {
  Reading* reading = static_cast<Reading*>(data);
  if (reading->file >= 0) close(reading->file);
  if (env) {
    if (--reading->environment->pending == 0) napi_unref_threadsafe_function(env, reading->environment->done);
    napi_value result, code, text;
    if (reading->error == 0) {
      napi_get_reference_value(env, reading->buffer, &result);
      napi_resolve_deferred(env, reading->promise, result);
    } else {
      const bool ended = reading->error == kEnded;
      napi_create_string_utf8(env, ended ? "EOF" : "EIO", NAPI_AUTO_LENGTH, &code);
      napi_create_string_utf8(env, ended ? "the file ended" : strerror(reading->error), NAPI_AUTO_LENGTH, &text);
      napi_create_error(env, code, text, &result);
      napi_reject_deferred(env, reading->promise, result);
    }
    napi_delete_reference(env, reading->buffer);
    if (reading->source) napi_delete_reference(env, reading->source);
  }
  delete reading;
}

// Before a thread of JavaScript ends: nothing is read into its memory any more.
void EndReadings(void* data) {
  Environment* environment = static_cast<Environment*>(data);
  std::unique_lock<std::mutex> lock(queue_lock);
  std::set<Reading*> given_up;
  std::deque<Piece> others;
  for (const Piece& piece : queue) {
    if (piece.reading->environment == environment) given_up.insert(piece.reading);
    else others.push_back(piece);
  }
  queue.swap(others);
  piece_done.wait(lock, [&] { return under_way[environment] == 0; });
  under_way.erase(environment);
  for (Reading* reading : given_up) {
    if (reading->file >= 0) close(reading->file);
    delete reading;
  }
}

// Puts the pieces of a reading of so many bytes into the queue. @returns the promise
napi_value Begin(napi_env env, Reading* reading, size_t size) {
  Environment* environment = reading->environment;
  napi_value promise;
  reading->left = size;
  napi_create_promise(env, &reading->promise, &promise);
  if (environment->pending++ == 0) napi_ref_threadsafe_function(env, environment->done);
  if (size == 0) {
    napi_call_threadsafe_function(environment->done, reading, napi_tsfn_nonblocking);
    return promise;
  }
  const std::lock_guard<std::mutex> lock(queue_lock);
  for (size_t from = 0; from < size; from += kPiece) queue.push_back({reading, from, std::min(kPiece, size - from)});
  const unsigned most = std::min(kThreads, std::max(1u, std::thread::hardware_concurrency()));
  for (; threads < most && threads < queue.size(); threads++) std::thread(ReadUntilEmpty).detach();
  return promise;
}

// readInto(file, offset, buffer): a promise of the ArrayBuffer, or the tensor (MemoryOf), filled. Several are read at once, begun in the order in which they are asked for.
napi_value ReadInto(napi_env env, napi_callback_info info) {
  size_t count = 3, size = 0;
  napi_value args[3];
  void *own = nullptr, *data = nullptr;
  int32_t file = -1;
  int64_t offset = 0;
  napi_get_cb_info(env, info, &count, args, nullptr, &own);
  napi_get_value_int32(env, args[0], &file);
  napi_get_value_int64(env, args[1], &offset);
  bool is_buffer = false;
  napi_is_arraybuffer(env, args[2], &is_buffer);
  if (is_buffer) {
    napi_get_arraybuffer_info(env, args[2], &data, &size);
  } else if (!MemoryOf(env, args[2], &data, &size)) {
    napi_throw_type_error(env, nullptr, "readInto: neither an ArrayBuffer nor a tensor");
    return nullptr;
  }
  // the caller may close its own meanwhile
  const int copy = fcntl(file, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) {
    napi_throw_error(env, errno == EMFILE ? "EMFILE" : "EBADF", strerror(errno));
    return nullptr;
  }
  Reading* reading = new Reading{static_cast<Environment*>(own), copy, offset, static_cast<char*>(data)};
  napi_create_reference(env, args[2], 1, &reading->buffer);
  return Begin(env, reading, size);
}

// convertInto(numbers, conversion, buffer): a promise of the ArrayBuffer, filled. `numbers` is a Uint8Array whose place suits its numbers, the
// conversion a name of kConversions. Null where there is no such conversion, or the sizes do not fit.
napi_value ConvertInto(napi_env env, napi_callback_info info) {
  size_t count = 3, size = 0, bytes = 0, length = 0, offset = 0;
  napi_value args[3], numbers, null;
  napi_typedarray_type type;
  void *own = nullptr, *data = nullptr, *from = nullptr;
  char name[16] = {};
  napi_get_cb_info(env, info, &count, args, nullptr, &own);
  napi_get_typedarray_info(env, args[0], &type, &bytes, &from, &numbers, &offset);
  napi_get_value_string_utf8(env, args[1], name, sizeof(name), &length);
  napi_get_arraybuffer_info(env, args[2], &data, &size);
  napi_get_null(env, &null);
  const Conversion* found = nullptr;
  for (const Conversion& conversion : kConversions)
    if (strcmp(conversion.name, name) == 0) found = &conversion;
  if (!found || type != napi_uint8_array || bytes % found->from != 0 || bytes / found->from * found->to != size) return null;
  if (reinterpret_cast<uintptr_t>(from) % found->from != 0) return null;
  Reading* reading = new Reading{static_cast<Environment*>(own), -1, 0, static_cast<char*>(data), static_cast<const char*>(from), found};
  napi_create_reference(env, args[2], 1, &reading->buffer);
  napi_create_reference(env, args[0], 1, &reading->source);
  return Begin(env, reading, size);
}

}  // namespace

void ExportFileReader(napi_env env, napi_value exports) {
  Environment* environment = new Environment;
  napi_value name;
  napi_create_string_utf8(env, "readInto", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, Settle, &environment->done);
  napi_unref_threadsafe_function(env, environment->done);
  // before the function's own, which was added before it
  napi_add_env_cleanup_hook(env, EndReadings, environment);
  Export(env, exports, "readInto", ReadInto, environment);
  Export(env, exports, "convertInto", ConvertInto, environment);
}
