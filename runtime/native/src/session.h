// Opening a session with a threading other than the product's; for paraedge-bench, which compares them.
#pragma once

#include "paraedge/runtime.h"
#include "part.h"

namespace paraedge {

Result<std::unique_ptr<Session>> open_session(std::shared_ptr<const Bundle> bundle, const SessionOptions& options,
                                              Threading threading);

}  // namespace paraedge
