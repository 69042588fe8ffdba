// See file_reader.cc.
#pragma once
#include <node_api.h>

// Puts `readInto` and `convertInto` on the exports of an addon, for the thread of JavaScript that loads it. The library must stay loaded.
void ExportFileReader(napi_env env, napi_value exports);
