// Does an ONNX program read weights from other files, or from addresses in memory?
#pragma once

#include <cstddef>
#include <span>

namespace paraedge {

enum class ExternalData { none, some, malformed };

// Looks at every tensor of the program: of the graph, of attributes, of subgraphs and functions. `malformed`: the
// bytes are no protobuf message, so nobody can say.
ExternalData find_external_data(std::span<const std::byte> program);

}  // namespace paraedge
