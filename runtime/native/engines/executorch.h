// What the tools and tests use of the ExecuTorch engine beside what its library exports.
#pragma once

#include "paraedge/executorch.h"

namespace paraedge {
// Threads of ExecuTorch's pool. Only before anything is loaded: what is loaded keeps the pool it found.
void resize_executorch_pool(int threads);
// XNNPACK's weight cache for programs loaded from now on, which ExecuTorch's builds for phones have on. Parts that run
// on one thread are loaded without it in any case.
void set_weight_cache(bool enabled);
}  // namespace paraedge
