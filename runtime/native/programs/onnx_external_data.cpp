// Walks the messages of onnx.proto that lead to a TensorProto. ONNX Runtime would read what such a tensor names
// relative to the working directory: bytes that no manifest has a hash of.
#include "onnx_external_data.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace paraedge {
namespace {

enum class Message { skipped, model, training, function, graph, node, attribute, sparse_tensor, tensor };

// What a field holds. The Python reader (onnx_external_data.py) has the same table; a test compares it with onnx.
Message message_in(Message message, uint32_t field) {
  switch (message) {
    case Message::model:
      return field == 7 ? Message::graph : field == 20 ? Message::training : field == 25 ? Message::function : Message::skipped;
    case Message::training: return field == 1 || field == 2 ? Message::graph : Message::skipped;
    case Message::function: return field == 7 ? Message::node : field == 11 ? Message::attribute : Message::skipped;
    case Message::graph:
      return field == 1 ? Message::node : field == 5 ? Message::tensor : field == 15 ? Message::sparse_tensor : Message::skipped;
    case Message::node: return field == 5 ? Message::attribute : Message::skipped;
    case Message::attribute:
      if (field == 5 || field == 10) return Message::tensor;
      if (field == 6 || field == 11) return Message::graph;
      return field == 22 || field == 23 ? Message::sparse_tensor : Message::skipped;
    case Message::sparse_tensor: return field == 1 || field == 2 ? Message::tensor : Message::skipped;
    default: return Message::skipped;
  }
}

constexpr uint32_t kExternalData = 13, kDataLocation = 14;  // of a tensor
constexpr uint32_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;  // ways to write a field

struct Range {
  Message message;
  size_t at, end;
};

std::optional<uint64_t> read_varint(std::span<const std::byte> program, Range& range) {
  uint64_t value = 0;
  for (int shift = 0; shift < 70 && range.at < range.end; shift += 7) {
    const auto byte = std::to_integer<uint64_t>(program[range.at++]);
    value |= shift < 64 ? (byte & 0x7f) << shift : 0;
    if ((byte & 0x80) == 0) return value;
  }
  return std::nullopt;
}

}  // namespace

ExternalData find_external_data(std::span<const std::byte> program) {
  std::vector<Range> pending = {{Message::model, 0, program.size()}};  // no recursion: depth is the sender's choice
  while (!pending.empty()) {
    Range range = pending.back();
    pending.pop_back();
    while (range.at < range.end) {
      const auto tag = read_varint(program, range);
      if (!tag) return ExternalData::malformed;
      const uint32_t field = static_cast<uint32_t>(*tag) >> 3, wire = *tag & 7;
      std::optional<uint64_t> value = 0;
      if (wire == kVarint || wire == kBytes) value = read_varint(program, range);
      const uint64_t bytes = wire == kFixed64 ? 8 : wire == kFixed32 ? 4 : wire == kBytes && value ? *value : 0;
      const bool known = wire == kVarint || wire == kFixed64 || wire == kBytes || wire == kFixed32;
      if (!value || !known || bytes > range.end - range.at) return ExternalData::malformed;
      if (range.message == Message::tensor && (field == kExternalData || field == kDataLocation)) {
        if (wire != kVarint || *value != 0) return ExternalData::some;  // 0: the tensor's own bytes
      }
      const Message inner = wire == kBytes ? message_in(range.message, field) : Message::skipped;
      if (inner != Message::skipped) pending.push_back({inner, range.at, range.at + static_cast<size_t>(bytes)});
      range.at += static_cast<size_t>(bytes);
    }
  }
  return ExternalData::none;
}

}  // namespace paraedge
