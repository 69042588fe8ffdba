// See large_blocks.cc.
#pragma once
#include <stdint.h>

// Lets the functions of this library stand in for TensorFlow's, which is loaded after it. The library stays loaded. Called on each thread of JavaScript.
void OpenToAll();

// Blocks that went in pieces so far.
int64_t LargeBlocksDropped();
