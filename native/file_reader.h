// See file_reader.cc.
#pragma once
#include <node_api.h>

#include <atomic>

// Whether memory that is read into may be asked for in pages of 2 MB: until the reading of a few pieces of files into new memory has been slow. Where
// free memory is in pieces the system takes ten times as long to find such pages.
extern std::atomic<bool> large_pages;

// Memory behind a value that is no array buffer, which readInto() may fill, too. Returns whether there is some.
bool MemoryOf(napi_env env, napi_value value, void** data, size_t* bytes);

// Puts `readInto` and `convertInto` on the exports of an addon, for the thread of JavaScript that loads it. The library must stay loaded.
void ExportFileReader(napi_env env, napi_value exports);
