// What an engine does not look at in a program before it trusts it: sizes, indexes, offsets, operators.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

namespace paraedge {

using OperatorCounts = std::map<std::string_view, uint64_t>;  // the names outlive every program

// Checks the program of an engine known here ("executorch", "litert", "onnxruntime") before the engine gets it; those of
// other engines pass, and nothing is known of their operators. What a `delegate` that the manifest names reads is opaque, and
// left to it. Throws Refusal (integrity). See docs/threat-model.md for what is refused.
OperatorCounts check_program(const std::string& engine, const std::string& file, std::span<const std::byte> program,
                             const std::string& delegate = "");

}  // namespace paraedge
