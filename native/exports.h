// What an addon gives to JavaScript.
#pragma once

#include <node_api.h>

#include <cstdint>

inline void Export(napi_env env, napi_value exports, const char* name, napi_callback call, void* data = nullptr) {
  napi_value fn;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, call, data, &fn);
  napi_set_named_property(env, exports, name, fn);
}

// Which sources the addon was made of: see NATIVE_VERSION in src/runtime/paths.ts.
inline void ExportVersion(napi_env env, napi_value exports, int32_t version) {
  napi_value value;
  napi_create_int32(env, version, &value);
  napi_set_named_property(env, exports, "version", value);
}
