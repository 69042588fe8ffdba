// Keeps what libtensorflow's static initialisers print away from the user's terminal: they log a notice on stderr that
// no environment variable silences. `begin(file)` sends file descriptor 2 to a file, `end()` puts it back.
#include <fcntl.h>
#include <node_api.h>
#include <unistd.h>

namespace {

int saved = -1;

napi_value Bool(napi_env env, bool value) {
  napi_value result;
  napi_get_boolean(env, value, &result);
  return result;
}

napi_value Begin(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value args[1];
  char file[4096];
  size_t length = 0;
  napi_get_cb_info(env, info, &count, args, nullptr, nullptr);
  if (count != 1 || napi_get_value_string_utf8(env, args[0], file, sizeof(file), &length) != napi_ok || saved >= 0) {
    return Bool(env, false);
  }
  int target = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (target < 0) return Bool(env, false);
  saved = fcntl(2, F_DUPFD_CLOEXEC, 3);
  bool ok = saved >= 0 && dup2(target, 2) == 2;
  close(target);
  return Bool(env, ok);
}

napi_value End(napi_env env, napi_callback_info) {
  if (saved < 0) return Bool(env, false);
  bool ok = dup2(saved, 2) == 2;
  close(saved);
  saved = -1;
  return Bool(env, ok);
}

}  // namespace

NAPI_MODULE_INIT() {
  napi_value begin, end;
  napi_create_function(env, "begin", NAPI_AUTO_LENGTH, Begin, nullptr, &begin);
  napi_create_function(env, "end", NAPI_AUTO_LENGTH, End, nullptr, &end);
  napi_set_named_property(env, exports, "begin", begin);
  napi_set_named_property(env, exports, "end", end);
  return exports;
}
