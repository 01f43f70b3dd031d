// What the ExecuTorch engine's library exports, and what the tools and tests use beside it.
#pragma once

#include "paraedge/paraedge.h"

extern "C" {
// The engine; NULL if `api_version` is not the one that it was built for.
PE_API const pe_engine* pe_engine_entry(int api_version);
// Version of ExecuTorch that it was built for: its C++ interface changes from version to version.
PE_API const char* pe_executorch_version();
}

namespace paraedge {
// Threads of ExecuTorch's pool. Only before anything is loaded: what is loaded keeps the pool it found.
void resize_executorch_pool(int threads);
// XNNPACK's weight cache for programs loaded from now on, which ExecuTorch's builds for phones have on. Parts that run
// on one thread are loaded without it in any case.
void set_weight_cache(bool enabled);
}  // namespace paraedge
