// Opening a session whose branches use ExecuTorch's own pool; for paraedge-bench, which compares.
#pragma once

#include "paraedge/runtime.h"
#include "part.h"

namespace paraedge {

Result<std::unique_ptr<Session>> open_session(std::shared_ptr<const Bundle> bundle, const SessionOptions& options,
                                              Threading branches);

}  // namespace paraedge
