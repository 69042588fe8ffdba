// See server.cc.
#pragma once
#include <node_api.h>

// Puts `serve` on the exports of an addon. The library must stay loaded.
void ExportServer(napi_env env, napi_value exports);
