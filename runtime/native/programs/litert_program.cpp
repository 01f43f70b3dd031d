// LiteRT: its Python package does not verify a program that comes as bytes.
#include "formats.h"
#include "schemas.h"

namespace paraedge {
namespace {

namespace lr = schema::litert;
using flatbuffer::Object;
using flatbuffer::Vector;

constexpr const char* kIndex = "an index in it names nothing";
constexpr size_t kMostDimensions = 8;
constexpr uint64_t kMostActivationBytes = uint64_t{1} << 32;

// Bits of an element; 0: of no fixed size, or unknown. tensorflow/lite/schema/schema.fbs, TensorType.
unsigned element_bits(int8_t type) {
  switch (type) {
    case 0: case 2: case 15: return 32;                // float32, int32, uint32
    case 1: case 7: case 16: case 18: return 16;       // float16, int16, uint16, bfloat16
    case 3: case 6: case 9: return 8;                  // uint8, bool, int8
    case 4: case 8: case 10: case 12: return 64;       // int64, complex64, float64, uint64
    case 17: case 20: return 4;                        // int4, uint4
    default: throw Damage("a tensor in it is of an unknown type");
  }
}

class Model {
 public:
  explicit Model(std::span<const std::byte> file) : root_(flatbuffer::checked_root(file, "TFL3", lr::kSchema)) {}

  OperatorCounts check() {
    require(root_.scalar<uint32_t>(lr::Model::version) == 3, "it is of another version");
    require(root_.count(lr::Model::subgraphs) == 1, "it has more than one graph, or none");
    require(root_.count(lr::Model::external_buffers) == 0 && root_.count(lr::Model::external_buffer_groups) == 0,
            "it needs another file");
    for (size_t i = 0; i < root_.count(lr::Model::buffers); ++i) {
      const Object buffer = root_.table(lr::Model::buffers, i);
      require(buffer.scalar<uint64_t>(lr::Buffer::offset) <= 1 && buffer.scalar<uint64_t>(lr::Buffer::size) <= 1,
              "its constants are outside of their place");
    }
    for (size_t i = 0; i < root_.count(lr::Model::operator_codes); ++i) check_operator_code(root_.table(lr::Model::operator_codes, i));
    check_descriptions();
    graph_ = root_.table(lr::Model::subgraphs, 0);
    there_.assign(graph_.count(lr::SubGraph::tensors), 0);
    for (size_t i = 0; i < there_.size(); ++i) there_[i] = check_tensor(graph_.table(lr::SubGraph::tensors, i));
    const auto inputs = graph_.scalars<int32_t>(lr::SubGraph::inputs), outputs = graph_.scalars<int32_t>(lr::SubGraph::outputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      require(!there_[tensor(inputs[i])], "an input of it is a constant");
      there_[tensor(inputs[i])] = 1;
    }
    for (size_t i = 0; i < graph_.count(lr::SubGraph::operators); ++i) check_operator(graph_.table(lr::SubGraph::operators, i));
    for (size_t i = 0; i < outputs.size(); ++i) require(there_[tensor(outputs[i])], "an output of it is never computed");
    return counts_;
  }

 private:
  size_t tensor(int32_t index) const {
    require(index >= 0 && static_cast<size_t>(index) < there_.size(), kIndex);
    return static_cast<size_t>(index);
  }

  void check_operator_code(const Object& code) {
    // Old readers know the first 127 operators by a narrower field.
    const int32_t number = std::max<int32_t>(code.scalar<int32_t>(lr::OperatorCode::builtin_code),
                                             code.scalar<int8_t>(lr::OperatorCode::deprecated_builtin_code));
    require(code.scalar<int32_t>(lr::OperatorCode::version, 1) >= 1, "an operator in it is of an impossible version");
    require(!code.has(lr::OperatorCode::custom_code) || code.string(lr::OperatorCode::custom_code).empty(),
            "it has an operator that is not built in");
    const bool is_named = number >= 0 && static_cast<size_t>(number) < std::size(lr::kOperators);
    const std::string name(is_named ? lr::kOperators[number] : std::string_view());
    known_.push_back(find_litert_operator(name));
    if (!known_.back()) throw UnknownOperator(is_named ? name : std::to_string(number));
  }

  void check_descriptions() const {
    const size_t buffers = root_.count(lr::Model::buffers);
    for (size_t i = 0; i < root_.count(lr::Model::metadata); ++i) {
      require(root_.table(lr::Model::metadata, i).scalar<uint32_t>(lr::Metadata::buffer) < buffers, kIndex);
    }
    const auto numbers = root_.scalars<int32_t>(lr::Model::metadata_buffer);
    for (size_t i = 0; i < numbers.size(); ++i) require(numbers[i] >= 0 && static_cast<size_t>(numbers[i]) < buffers, kIndex);
    const size_t tensors = root_.table(lr::Model::subgraphs, 0).count(lr::SubGraph::tensors);
    for (size_t i = 0; i < root_.count(lr::Model::signature_defs); ++i) {
      const Object signature = root_.table(lr::Model::signature_defs, i);
      require(signature.scalar<uint32_t>(lr::SignatureDef::subgraph_index) == 0 && signature.has(lr::SignatureDef::signature_key), kIndex);
      for (const uint16_t ends : {lr::SignatureDef::inputs, lr::SignatureDef::outputs}) {
        for (size_t end = 0; end < signature.count(ends); ++end) {
          const Object named = signature.table(ends, end);
          require(named.has(lr::TensorMap::name) && named.scalar<uint32_t>(lr::TensorMap::tensor_index) < tensors, kIndex);
        }
      }
    }
  }

  // Whether it is a constant.
  char check_tensor(const Object& given) {
    const auto shape = given.scalars<int32_t>(lr::Tensor::shape);
    require(shape.size() <= kMostDimensions, "a tensor in it has an impossible shape");
    const unsigned bits = element_bits(given.scalar<int8_t>(lr::Tensor::type));
    const uint64_t bytes = bits == 4 ? (bytes_of(shape, 1) + 1) / 2 : bytes_of(shape, bits / 8);
    const auto signature = given.scalars<int32_t>(lr::Tensor::shape_signature);
    for (size_t i = 0; i < signature.size(); ++i) {
      require(signature.size() == shape.size() && signature[i] == shape[i], "a tensor in it has no fixed shape");
    }
    require(!given.has(lr::Tensor::sparsity) && given.count(lr::Tensor::variant_tensors) == 0 &&
                given.scalar<uint32_t>(lr::Tensor::external_buffer) == 0,
            "a tensor in it is of a kind that is not used");
    if (const Object quantization = given.table(lr::Tensor::quantization); quantization.exists()) {
      check_quantization(quantization, shape);
    }
    const auto buffer = given.scalar<uint32_t>(lr::Tensor::buffer);
    require(buffer < root_.count(lr::Model::buffers), kIndex);
    const size_t found = root_.table(lr::Model::buffers, buffer).scalars<uint8_t>(lr::Buffer::data).size();
    if (found != 0) {
      require(found == bytes, "a constant in it has another size than its bytes");
      return 1;
    }
    activation_bytes_ += bytes;
    require(activation_bytes_ <= kMostActivationBytes, "it asks for more than 4 GiB of memory");
    const bool is_state = given.scalar<uint8_t>(lr::Tensor::is_variable) != 0;  // of an LSTM: zeros at first
    return is_state || (bytes == 0 && buffer != 0) ? 1 : 0;
  }

  static void check_quantization(const Object& given, const Vector<int32_t>& shape) {
    require(given.scalar<uint8_t>(lr::QuantizationParameters::details_type) == 0, "a tensor in it is of a kind that is not used");
    const auto scales = given.scalars<float>(lr::QuantizationParameters::scale);
    const auto zeros = given.scalars<int64_t>(lr::QuantizationParameters::zero_point);
    const auto along = given.scalar<int32_t>(lr::QuantizationParameters::quantized_dimension);
    require(zeros.size() == scales.size() || zeros.size() <= 1, "a tensor in it has other scales than channels");
    if (scales.size() <= 1) return;
    require(along >= 0 && static_cast<size_t>(along) < shape.size() &&
                static_cast<size_t>(shape[static_cast<size_t>(along)]) == scales.size(),
            "a tensor in it has other scales than channels");
  }

  void check_operator(const Object& given) {
    const auto code = given.scalar<uint32_t>(lr::Operator::opcode_index);
    require(code < known_.size(), kIndex);
    require(given.scalars<uint8_t>(lr::Operator::custom_options).size() == 0 &&
                given.scalar<uint64_t>(lr::Operator::large_custom_options_offset) <= 1 &&
                given.scalar<uint8_t>(lr::Operator::builtin_options2_type) == 0,
            "an operator in it has settings of a kind that is not used");
    const auto inputs = given.scalars<int32_t>(lr::Operator::inputs), outputs = given.scalars<int32_t>(lr::Operator::outputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i] != -1) require(there_[tensor(inputs[i])], "an operator in it reads what is not there");  // -1: left out
    }
    const auto others = given.scalars<int32_t>(lr::Operator::intermediates);
    for (size_t i = 0; i < others.size(); ++i) tensor(others[i]);
    const LiteRTOperator& known = *known_[code];
    ++counts_[known.name];
    require(inputs.size() >= known.least_inputs && inputs.size() <= known.most_inputs &&
                (known.outputs ? outputs.size() == known.outputs : outputs.size() >= 1),
            "an operator in it has another number of inputs or outputs than it reads and makes");
    for (size_t i = 0; i < outputs.size(); ++i) {
      require(!there_[tensor(outputs[i])], "an operator in it overwrites something");
      there_[tensor(outputs[i])] = 1;
    }
  }

  const Object root_;
  Object graph_;
  std::vector<const LiteRTOperator*> known_;  // of each operator code
  std::vector<char> there_;  // of each tensor: it is a constant, an input, or was made
  uint64_t activation_bytes_ = 0;
  OperatorCounts counts_;
};

}  // namespace

OperatorCounts check_litert(std::span<const std::byte> program) { return Model(program).check(); }

}  // namespace paraedge
