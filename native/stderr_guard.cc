// What must happen before libtensorflow is loaded. Its static initialisers log notices on stderr that no environment variable silences:
// `begin()` sends file descriptor 2 to a file without a name, `end()` puts it back and returns what was written. A worker thread's
// process.env is a copy that no library sees: `setEnvironment(name, value)` sets a variable of the process. And its large blocks of memory are to
// go back in pieces (large_blocks.cc).
#include <fcntl.h>
#include <node_api.h>
#include <stdlib.h>
#include <unistd.h>

#include <mutex>
#include <string>

#include "exports.h"
#include "large_blocks.h"

namespace {

std::mutex guard;  // threads of JavaScript share file descriptor 2
int saved = -1;
int kept = -1;

napi_value Bool(napi_env env, bool value) {
  napi_value result;
  napi_get_boolean(env, value, &result);
  return result;
}

// A file that has no name, or none any more: nobody can find or replace it, and nothing is left after a crash.
int Unnamed() {
  const char* dir = getenv("TMPDIR");
  const std::string folder = dir && *dir ? dir : "/tmp";
#ifdef O_TMPFILE
  const int file = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0) return file;
#endif
  std::string name = folder + "/tfjs-mamba2-XXXXXX";
  const int made = mkstemp(&name[0]);
  if (made < 0) return -1;
  unlink(name.c_str());
  fcntl(made, F_SETFD, FD_CLOEXEC);
  return made;
}

napi_value Begin(napi_env env, napi_callback_info) {
  const std::lock_guard<std::mutex> lock(guard);
  if (saved >= 0) return Bool(env, false);
  kept = Unnamed();
  if (kept < 0) return Bool(env, false);
  saved = fcntl(2, F_DUPFD_CLOEXEC, 3);
  if (saved >= 0 && dup2(kept, 2) == 2) return Bool(env, true);
  if (saved >= 0) close(saved);
  close(kept);
  saved = kept = -1;
  return Bool(env, false);
}

napi_value End(napi_env env, napi_callback_info) {
  const std::lock_guard<std::mutex> lock(guard);
  std::string text;
  if (saved >= 0) {
    dup2(saved, 2);
    close(saved);
    char piece[4096];
    off_t at = 0;
    for (ssize_t got; (got = pread(kept, piece, sizeof(piece), at)) > 0; at += got) text.append(piece, got);
    close(kept);
    saved = kept = -1;
  }
  napi_value result;
  napi_create_string_utf8(env, text.data(), text.size(), &result);
  return result;
}

std::string Text(napi_env env, napi_value value) {
  size_t length = 0;
  napi_get_value_string_utf8(env, value, nullptr, 0, &length);
  std::string text(length + 1, '\0');
  napi_get_value_string_utf8(env, value, &text[0], text.size(), &length);
  text.resize(length);
  return text;
}

// largeBlocksDropped(): how many blocks of TensorFlow's went in pieces so far
napi_value BlocksDropped(napi_env env, napi_callback_info) {
  napi_value result;
  napi_create_int64(env, LargeBlocksDropped(), &result);
  return result;
}

napi_value SetEnvironment(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value args[2];
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  return Bool(env, count == 2 && setenv(Text(env, args[0]).c_str(), Text(env, args[1]).c_str(), 1) == 0);
}

}  // namespace

NAPI_MODULE_INIT() {
  OpenToAll();
  Export(env, exports, "begin", Begin);
  Export(env, exports, "end", End);
  Export(env, exports, "setEnvironment", SetEnvironment);
  Export(env, exports, "largeBlocksDropped", BlocksDropped);
  return exports;
}
