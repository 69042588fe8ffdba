// See release_memory.cc.
#pragma once
#include <node_api.h>

// Puts `releaseMemory` on the exports of an addon. The library must stay loaded.
void ExportReleaseMemory(napi_env env, napi_value exports);
