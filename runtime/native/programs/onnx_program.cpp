// ONNX: the messages of onnx.proto that an engine runs, their operators, and the sizes of constants.
#include <optional>

#include "formats.h"

namespace paraedge {
namespace {

constexpr uint32_t kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5;  // ways to write a field
constexpr size_t kMostNodes = 1'000'000;
constexpr const char* kMalformed = "it is not an ONNX program";

struct FieldFound {
  uint32_t number, wire;
  uint64_t value;                     // of a number
  std::span<const std::byte> bytes;   // of a message, a string or packed numbers
};

// The fields of one message, in order.
class Message {
 public:
  explicit Message(std::span<const std::byte> bytes) : rest_(bytes) {}

  std::optional<FieldFound> next() {
    if (rest_.empty()) return std::nullopt;
    const uint64_t tag = varint();
    FieldFound field{static_cast<uint32_t>(tag) >> 3, static_cast<uint32_t>(tag & 7), 0, {}};
    require(field.number != 0 && tag <= 0xffffffff, kMalformed);
    if (field.wire == kVarint) {
      field.value = varint();
    } else {
      require(field.wire == kFixed64 || field.wire == kBytes || field.wire == kFixed32, kMalformed);
      const uint64_t size = field.wire == kFixed64 ? 8 : field.wire == kFixed32 ? 4 : varint();
      require(size <= rest_.size(), kMalformed);
      field.bytes = rest_.first(size);
      rest_ = rest_.subspan(size);
    }
    return field;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      require(!rest_.empty(), kMalformed);
      const auto byte = std::to_integer<uint64_t>(rest_.front());
      rest_ = rest_.subspan(1);
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw Damage(kMalformed);
  }

  bool is_empty() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

std::string_view text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// TensorProto.DataType
uint64_t element_bytes(uint64_t type) {
  switch (type) {
    case 2: case 3: case 9: case 17: case 18: case 19: case 20: return 1;
    case 4: case 5: case 10: case 16: return 2;
    case 1: case 6: case 12: return 4;
    case 7: case 11: case 13: return 8;
    case 21: case 22: return 0;  // two in a byte
    default: throw Damage("a tensor in it is of an unknown type");
  }
}

void check_tensor(std::span<const std::byte> bytes) {
  Message tensor(bytes);
  std::vector<int64_t> dims;
  uint64_t type = 0;
  std::optional<size_t> raw;
  while (const auto field = tensor.next()) {
    if (field->number == 1 && field->wire == kVarint) dims.push_back(static_cast<int64_t>(field->value));
    if (field->number == 1 && field->wire == kBytes) {
      for (Message packed(field->bytes); !packed.is_empty();) dims.push_back(static_cast<int64_t>(packed.varint()));
    }
    if (field->number == 2) type = field->value;
    if (field->number == 9) raw = field->bytes.size();
    require(field->number != 6, "a tensor in it holds texts");
  }
  const uint64_t width = element_bytes(type), found = bytes_of(dims, width ? width : 1);
  if (raw) require(*raw == (width ? found : (found + 1) / 2), "a constant in it has another size than its bytes");
}

void check_attribute(std::span<const std::byte> bytes) {
  Message attribute(bytes);
  while (const auto field = attribute.next()) {
    if (field->number == 5 || field->number == 10) check_tensor(field->bytes);
    // A graph inside of an operator is control flow; sparse tensors, types and references to functions are nobody's.
    const bool plain = field->number != 6 && field->number != 11 && field->number != 14 && field->number != 15 &&
                       field->number != 22 && field->number != 23 && field->number != 21;
    require(plain, "an operator in it has settings of a kind that is not used");
  }
}

std::string_view check_node(std::span<const std::byte> bytes) {
  Message node(bytes);
  std::string_view type, domain;
  while (const auto field = node.next()) {
    if (field->number == 4) type = text(field->bytes);
    if (field->number == 7) domain = text(field->bytes);
    if (field->number == 5) check_attribute(field->bytes);
  }
  std::string name(domain == "ai.onnx" ? std::string_view() : domain);
  if (!name.empty()) name += ".";
  name += type;
  const std::string_view* known = find_onnx_operator(name);
  if (!known) throw UnknownOperator(name);
  return *known;
}

OperatorCounts check_graph(std::span<const std::byte> bytes) {
  Message graph(bytes);
  OperatorCounts counts;
  size_t nodes = 0;
  while (const auto field = graph.next()) {
    if (field->number == 1) {
      require(++nodes <= kMostNodes, "it has too many operators");
      ++counts[check_node(field->bytes)];
    }
    if (field->number == 5) check_tensor(field->bytes);
    require(field->number != 15, "a tensor in it is of a kind that is not used");  // sparse
  }
  return counts;
}

}  // namespace

OperatorCounts check_onnx(std::span<const std::byte> program) {
  Message model(program);
  OperatorCounts counts;
  size_t graphs = 0;
  while (const auto field = model.next()) {
    if (field->number == 7) {
      require(++graphs == 1 && field->wire == kBytes, kMalformed);
      counts = check_graph(field->bytes);
    }
    require(field->number != 20 && field->number != 25, "it has functions or training of its own");
  }
  require(graphs == 1, kMalformed);
  return counts;
}

}  // namespace paraedge
