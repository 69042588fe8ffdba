// See large_blocks.cc.
#pragma once

// Lets the functions of this library stand in for TensorFlow's, which is loaded after it. The library stays loaded.
void OpenToAll();
