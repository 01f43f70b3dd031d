// The graph that ExecuTorch hands to XNNPACK, which believes every number in it: each value is a constant that is there, an
// input, or made by a node before; each shape follows from those before it.
#include <array>
#include <limits>
#include <map>
#include <optional>

#include "formats.h"
#include "schemas.h"

namespace paraedge {
namespace {

namespace xn = schema::xnnpack;
using flatbuffer::Object;
using flatbuffer::read;
using flatbuffer::Vector;

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();  // XNN_INVALID_VALUE_ID
constexpr size_t kMostDimensions = 6;                             // XNN_MAX_TENSOR_DIMS
constexpr uint32_t kExternalInput = 1, kExternalOutput = 2, kTransposedWeights = 1;
constexpr const char* kConstant = "a constant in it is larger than its bytes";
constexpr const char* kShape = "the shapes around an operator in it do not fit";
constexpr const char* kValue = "an operator in it reads or writes what is not there";

struct XValue {
  std::vector<uint32_t> dims;
  bool is_constant = false, is_there = false;
  uint32_t external = kNone, flags = 0;

  uint64_t elements() const { return bytes_of(dims, 1); }
};

// What a node of each table reads and makes.
struct NodeFields {
  std::string_view table;
  std::vector<uint16_t> inputs, outputs;
};
const std::vector<NodeFields>& node_fields() {
  static const auto* fields = new std::vector<NodeFields>{
      {"XNNStaticTranspose", {xn::XNNStaticTranspose::input_id}, {xn::XNNStaticTranspose::output_id}},
      {"XNNStaticResizeBilinear2D", {xn::XNNStaticResizeBilinear2D::input_id}, {xn::XNNStaticResizeBilinear2D::output_id}},
      {"XNNStaticConstantPad", {xn::XNNStaticConstantPad::input_id}, {xn::XNNStaticConstantPad::output_id}},
      {"_XNNNode2x1", {xn::XNNNode2x1::input1_id, xn::XNNNode2x1::input2_id}, {xn::XNNNode2x1::output_id}},
      {"_XNNNode1x1", {xn::XNNNode1x1::input_id}, {xn::XNNNode1x1::output_id}},
      {"_XNNCat", {xn::XNNCat::input1_id, xn::XNNCat::input2_id, xn::XNNCat::input3_id, xn::XNNCat::input4_id, xn::XNNCat::input5_id},
       {xn::XNNCat::output_id}},
      {"XNNELU", {xn::XNNELU::input_id}, {xn::XNNELU::output_id}},
      {"XNNFullyConnected", {xn::XNNFullyConnected::input1_id, xn::XNNFullyConnected::filter_id, xn::XNNFullyConnected::bias_id},
       {xn::XNNFullyConnected::output_id}},
      {"_XNNNodeConv", {xn::XNNNodeConv::input1_id, xn::XNNNodeConv::filter_id, xn::XNNNodeConv::bias_id}, {xn::XNNNodeConv::output_id}},
      {"_XNNPooling2D", {xn::XNNPooling2D::input_id}, {xn::XNNPooling2D::output_id}},
      {"XNNStaticReshape", {xn::XNNStaticReshape::input_id}, {xn::XNNStaticReshape::output_id}},
      {"XNNStaticSlice", {xn::XNNStaticSlice::input_id}, {xn::XNNStaticSlice::output_id}},
      {"XNNScaledDotProductAttention",
       {xn::XNNScaledDotProductAttention::query_id, xn::XNNScaledDotProductAttention::key_id,
        xn::XNNScaledDotProductAttention::value_id, xn::XNNScaledDotProductAttention::scale_id,
        xn::XNNScaledDotProductAttention::mask_id},
       {xn::XNNScaledDotProductAttention::output_id}},
      {"XNNArgMaxPooling2d", {xn::XNNArgMaxPooling2d::input_id},
       {xn::XNNArgMaxPooling2d::output_value_id, xn::XNNArgMaxPooling2d::output_index_id}},
      {"XNNLeakyReLU", {xn::XNNLeakyReLU::input_id}, {xn::XNNLeakyReLU::output_id}},
  };
  return *fields;
}

// Numbers of nodes in the union of the schema.
enum Type : size_t { kConv = 7, kDepthwise = 13, kConvert = 18, kGlobalPool = 19, kCat2 = 32, kCat3, kCat4, kMatMul = 37, kCat5 = 38, kTransposedConv = 39 };

size_t cat_inputs(size_t type) { return type == kCat5 ? 5 : type - kCat2 + 2; }

class Graph {
 public:
  Graph(std::span<const std::byte> blob, const std::vector<NamedBytes>& named) : named_(named) {
    // XNNHeader.h of ExecuTorch.
    require(blob.size() >= 30 && std::memcmp(blob.data() + 4, "XH00", 4) == 0, "a graph of XNNPACK in it has no header");
    const uint64_t offset = read<uint32_t>(blob, 10), bytes = read<uint32_t>(blob, 14);
    const uint64_t constants = read<uint32_t>(blob, 18), constant_bytes = read<uint64_t>(blob, 22);
    require(offset <= blob.size() && bytes <= blob.size() - offset && constants <= blob.size() &&
                constant_bytes <= blob.size() - constants,
            "a graph of XNNPACK in it is outside of the file");
    constant_bytes_ = constant_bytes;
    root_ = flatbuffer::checked_root(blob.subspan(offset, bytes), "XN01", xn::kSchema);
  }

  size_t check() {
    num_externs_ = root_.scalar<uint32_t>(xn::XNNGraph::num_externs);
    for (size_t i = 0; i < root_.count(xn::XNNGraph::xvalues); ++i) add(root_.table(xn::XNNGraph::xvalues, i));
    const size_t inputs = check_ends(xn::XNNGraph::input_ids, kExternalInput);
    const size_t outputs = check_ends(xn::XNNGraph::output_ids, kExternalOutput);
    require(inputs + outputs == num_externs_, "a graph of XNNPACK in it has other inputs than it says");
    for (size_t i = 0; i < root_.count(xn::XNNGraph::xnodes); ++i) check_node(root_.table(xn::XNNGraph::xnodes, i));
    const auto made = root_.scalars<uint32_t>(xn::XNNGraph::output_ids);
    for (size_t i = 0; i < made.size(); ++i) require(values_.at(made[i]).is_there, kValue);
    return num_externs_;
  }

 private:
  uint64_t constant_size(uint32_t index) const {
    require(index < root_.count(xn::XNNGraph::constant_data), "an index in it names nothing");
    const Object constant = root_.table(xn::XNNGraph::constant_data, index);
    const auto size = constant.scalar<uint64_t>(xn::ConstantDataOffset::size);
    if (const auto key = constant.string(xn::ConstantDataOffset::named_key); !key.empty()) {
      const auto found = std::ranges::find(named_, key, &NamedBytes::key);
      require(found != named_.end(), "a constant in it is not there");
      return std::min(size, found->bytes);
    }
    const auto offset = constant.scalar<uint64_t>(xn::ConstantDataOffset::offset);
    require(offset <= constant_bytes_ && size <= constant_bytes_ - offset, kConstant);
    return size;
  }

  void add(const Object& given) {
    const bool quantized = given.scalar<uint8_t>(xn::XValue::xvalue_union_type) == 2;
    Object tensor = given.table(xn::XValue::xvalue_union);
    Object parameters;
    size_t scheme = 0;
    require(tensor.exists(), kValue);
    if (quantized) {
      parameters = tensor.table(xn::XNNQuantizedTensorValue::quant_params);
      scheme = tensor.scalar<uint8_t>(xn::XNNQuantizedTensorValue::quant_params_type);
      tensor = tensor.table(xn::XNNQuantizedTensorValue::tensor_value);
      require(tensor.exists() && parameters.exists(), kValue);
    }
    XValue value;
    const auto dims = tensor.scalars<uint32_t>(xn::XNNTensorValue::dims);
    require(dims.size() == tensor.scalar<uint32_t>(xn::XNNTensorValue::num_dims) && dims.size() <= kMostDimensions, kShape);
    for (size_t i = 0; i < dims.size(); ++i) value.dims.push_back(dims[i]);
    value.external = tensor.scalar<uint32_t>(xn::XNNTensorValue::external_id);
    value.flags = tensor.scalar<uint32_t>(xn::XNNTensorValue::flags);
    require(value.external == kNone || value.external < num_externs_, "an index in it names nothing");
    const auto index = tensor.scalar<uint32_t>(xn::XNNTensorValue::constant_buffer_idx);
    const uint64_t bytes = size_of(tensor.scalar<int16_t>(xn::XNNTensorValue::datatype), value);
    value.is_constant = value.is_there = index != 0;
    if (index) require(bytes <= constant_size(index), kConstant);
    if (quantized) check_quantization(scheme, parameters, value);
    const bool is_new = values_.emplace(tensor.scalar<uint32_t>(xn::XNNTensorValue::id_out), value).second;
    require(is_new, "two values in it have one number");
  }

  static uint64_t size_of(int16_t type, const XValue& value) {
    const uint64_t elements = value.elements();
    switch (type) {
      case 1: case 5: case 7: case 12: return bytes_of(value.dims, 4);
      case 2: case 14: return bytes_of(value.dims, 2);
      case 3: case 4: case 6: case 9: return elements;
      case 8: case 10: {  // two in a byte, each row by itself
        const uint64_t row = value.dims.empty() ? 1 : value.dims.back();
        return row == 0 ? 0 : elements / row * ((row + 1) / 2);
      }
      default: throw Damage("a tensor in it is of an unknown type");
    }
  }

  void check_scales(const Object& parameters, uint16_t list, uint16_t buffer, uint16_t count, uint64_t needed, uint64_t width) const {
    if (const auto index = parameters.scalar<uint32_t>(buffer); index) {
      require(parameters.scalar<uint32_t>(count) >= needed && needed * width <= constant_size(index), kConstant);
    } else {
      require(parameters.scalars<float>(list).size() >= needed, kConstant);
    }
  }

  void check_quantization(size_t scheme, const Object& parameters, const XValue& value) const {
    if (scheme == 1) {
      const auto along = parameters.scalar<int32_t>(xn::PerChannelQuant::channel_dim);
      require(along >= 0 && static_cast<size_t>(along) < value.dims.size(), kShape);
      check_scales(parameters, xn::PerChannelQuant::scale, xn::PerChannelQuant::scale_buffer_idx, xn::PerChannelQuant::num_scales,
                   value.dims[static_cast<size_t>(along)], 4);
    } else if (scheme == 3) {
      const auto fixed = parameters.scalar<int32_t>(xn::PerTokenDynamicQuant::num_nonbatch_dims);
      require(fixed >= 0 && static_cast<size_t>(fixed) <= value.dims.size(), kShape);
    } else if (scheme == 4) {
      const auto along = parameters.scalar<int32_t>(xn::PerChannelGroupQuant::channel_dim);
      const auto group = parameters.scalar<int32_t>(xn::PerChannelGroupQuant::group_size);
      require(along >= 0 && static_cast<size_t>(along) < value.dims.size() && group > 0, kShape);
      const uint64_t channels = value.dims[static_cast<size_t>(along)];
      const uint64_t others = channels ? value.elements() / channels : 0;
      const uint64_t groups = (others + static_cast<uint64_t>(group) - 1) / static_cast<uint64_t>(group);
      check_scales(parameters, xn::PerChannelGroupQuant::scale, xn::PerChannelGroupQuant::scale_buffer_idx,
                   xn::PerChannelGroupQuant::num_scales, channels * groups, 2);
    }
  }

  // Inputs and outputs of the whole graph, each with a number of its own among those that are exchanged.
  size_t check_ends(uint16_t field, uint32_t flag) {
    const auto ids = root_.scalars<uint32_t>(field);
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto found = values_.find(ids[i]);
      require(found != values_.end() && found->second.external != kNone && (found->second.flags & flag) &&
                  !found->second.is_constant,
              "an index in it names nothing");
      require(exchanged_.emplace(found->second.external, ids[i]).second, "two values in it have one number");
      if (flag == kExternalInput) found->second.is_there = true;
    }
    return ids.size();
  }

  const XValue& input(uint32_t id) const {
    const auto found = values_.find(id);
    require(found != values_.end() && found->second.is_there, kValue);
    return found->second;
  }
  const XValue& make(uint32_t id) {
    const auto found = values_.find(id);
    require(found != values_.end() && !found->second.is_there, kValue);
    found->second.is_there = true;
    return found->second;
  }

  void check_node(const Object& given) {
    const size_t type = given.scalar<uint8_t>(xn::XNode::xnode_union_type);
    const Object node = given.table(xn::XNode::xnode_union);
    require(type != 0 && node.exists(), kValue);
    const std::string_view table = xn::kTables[xn::kUnion1[type]].name;
    const auto fields = std::ranges::find(node_fields(), table, &NodeFields::table);
    require(fields != node_fields().end(), kValue);
    std::vector<const XValue*> inputs;
    const size_t wanted = table == "_XNNCat" ? cat_inputs(type) : fields->inputs.size();
    for (size_t i = 0; i < wanted; ++i) {
      const auto id = node.scalar<uint32_t>(fields->inputs[i]);
      const bool may_lack = i == 2 && (table == "_XNNNodeConv" || table == "XNNFullyConnected");
      inputs.push_back(may_lack && id == kNone ? nullptr : &input(id));
    }
    for (const uint16_t field : fields->outputs) {
      const XValue& output = make(node.scalar<uint32_t>(field));
      if (field == fields->outputs.front()) check_shapes(type, table, node, inputs, output);
    }
  }

  static void check_shapes(size_t type, std::string_view table, const Object& node, const std::vector<const XValue*>& inputs,
                           const XValue& output) {
    const XValue& in = *inputs[0];
    if (table == "_XNNNodeConv") return check_convolution(type, node, inputs, output);
    if (table == "XNNFullyConnected") return check_fully_connected(node, inputs, output);
    if (table == "_XNNCat") return check_concatenation(node, inputs, output);
    if (table == "_XNNNode2x1") return type == kMatMul ? check_product(in, *inputs[1], output) : check_broadcast(in, *inputs[1], output);
    if (table == "XNNStaticTranspose") {
      const auto order = node.scalars<uint32_t>(xn::XNNStaticTranspose::perm);
      require(order.size() == in.dims.size() && order.size() == output.dims.size() &&
                  order.size() == node.scalar<uint32_t>(xn::XNNStaticTranspose::num_dims),
              kShape);
      uint32_t seen = 0;
      for (size_t i = 0; i < order.size(); ++i) {
        require(order[i] < order.size() && !(seen >> order[i] & 1) && output.dims[i] == in.dims[order[i]], kShape);
        seen |= uint32_t{1} << order[i];
      }
    } else if (table == "XNNStaticReshape") {
      const auto shape = node.scalars<uint32_t>(xn::XNNStaticReshape::new_shape);
      // One number without dimensions, a mean over everything, is listed with one.
      const bool is_scalar = shape.size() == 0 && output.dims.size() == 1 && in.elements() == 1;
      require(shape.size() == node.scalar<uint32_t>(xn::XNNStaticReshape::num_dims) &&
                  (is_scalar || shape.size() == output.dims.size()) && in.elements() == output.elements(),
              kShape);
      for (size_t i = 0; i < shape.size(); ++i) require(shape[i] == output.dims[i] || shape[i] == 0, kShape);
    } else if (table == "XNNStaticConstantPad") {
      const auto before = node.scalars<uint32_t>(xn::XNNStaticConstantPad::pre_paddings);
      const auto after = node.scalars<uint32_t>(xn::XNNStaticConstantPad::post_paddings);
      require(before.size() == in.dims.size() && after.size() == in.dims.size() && output.dims.size() == in.dims.size(), kShape);
      for (size_t i = 0; i < in.dims.size(); ++i) {
        require(uint64_t{before[i]} + in.dims[i] + after[i] == output.dims[i], kShape);
      }
    } else if (table == "XNNStaticSlice") {
      const auto offsets = node.scalars<uint32_t>(xn::XNNStaticSlice::offsets);
      const auto sizes = node.scalars<uint32_t>(xn::XNNStaticSlice::sizes);
      require(offsets.size() == in.dims.size() && sizes.size() == in.dims.size() && output.dims.size() == in.dims.size() &&
                  node.scalar<uint32_t>(xn::XNNStaticSlice::num_dims) == in.dims.size(),
              kShape);
      for (size_t i = 0; i < in.dims.size(); ++i) {
        require(uint64_t{offsets[i]} + output.dims[i] <= in.dims[i] && (sizes[i] == output.dims[i] || sizes[i] == 0), kShape);
      }
    } else if (table == "_XNNNode1x1" && type != kGlobalPool) {
      require(in.dims == output.dims || (type == kConvert && in.elements() == output.elements()), kShape);
    } else if (table == "XNNELU" || table == "XNNLeakyReLU") {
      require(in.dims == output.dims, kShape);
    } else if (table != "XNNScaledDotProductAttention") {  // pooling and resizing: images with the channels last
      require(in.dims.size() == 4 && output.dims.size() >= 2 && in.dims[0] == output.dims[0] && in.dims[3] == output.dims.back(), kShape);
    }
  }

  static void check_convolution(size_t type, const Object& node, const std::vector<const XValue*>& inputs, const XValue& output) {
    using namespace xn::XNNNodeConv;
    auto number = [&](uint16_t field) { return uint64_t{node.scalar<uint32_t>(field)}; };
    const XValue &in = *inputs[0], &filter = *inputs[1];
    require(filter.is_constant && (!inputs[2] || inputs[2]->is_constant), kValue);
    require(in.dims.size() == 4 && filter.dims.size() == 4 && output.dims.size() == 4, kShape);
    const std::array<uint64_t, 5> factors = {number(groups), number(group_input_channels), number(group_output_channels),
                                             number(kernel_height), number(kernel_width)};
    for (const uint64_t factor : factors) require(factor >= 1 && factor <= (1u << 24), kShape);
    const auto [count, from, to, height, width] = factors;
    require(in.dims[3] == bytes_of(std::array{count, from}, 1) && output.dims[3] == bytes_of(std::array{count, to}, 1), kShape);
    // Depthwise: one filter for each channel, and the numbers of the channels stand for their multiplier.
    const uint64_t weights = type == kDepthwise ? bytes_of(std::array{count, to, height, width}, 1)
                                                : bytes_of(std::array{count, from, to, height, width}, 1);
    require(filter.elements() == weights && (!inputs[2] || inputs[2]->elements() == output.dims[3]), kShape);
    for (const uint16_t field : {subsampling_height, subsampling_width, dilation_height, dilation_width}) {
      require(number(field) >= 1 && number(field) <= (1u << 16), kShape);
    }
    if (type == kTransposedConv) return;
    const uint64_t paddings[] = {number(padding_top) + number(padding_bottom), number(padding_left) + number(padding_right)};
    const uint64_t kernels[] = {(height - 1) * number(dilation_height) + 1, (width - 1) * number(dilation_width) + 1};
    const uint64_t steps[] = {number(subsampling_height), number(subsampling_width)};
    for (size_t i = 0; i < 2; ++i) {
      const uint64_t padded = in.dims[i + 1] + paddings[i];
      require(padded >= kernels[i] && output.dims[i + 1] == (padded - kernels[i]) / steps[i] + 1, kShape);
    }
  }

  static void check_fully_connected(const Object& node, const std::vector<const XValue*>& inputs, const XValue& output) {
    const XValue &in = *inputs[0], &filter = *inputs[1];
    require(filter.dims.size() == 2 && !in.dims.empty() && !output.dims.empty(), kShape);
    const bool turned = node.scalar<uint32_t>(xn::XNNFullyConnected::flags) & kTransposedWeights;
    const uint64_t from = filter.dims[turned ? 0 : 1], to = filter.dims[turned ? 1 : 0];
    require(from >= 1 && in.dims.back() == from && output.dims.back() == to && in.elements() / from * to == output.elements(), kShape);
    require(!inputs[2] || (inputs[2]->elements() == to && inputs[2]->is_constant), kShape);
  }

  static void check_concatenation(const Object& node, const std::vector<const XValue*>& inputs, const XValue& output) {
    const auto axis = node.scalar<uint32_t>(xn::XNNCat::axis);
    require(axis < output.dims.size(), kShape);
    uint64_t together = 0;
    for (const XValue* in : inputs) {
      require(in->dims.size() == output.dims.size(), kShape);
      for (size_t i = 0; i < in->dims.size(); ++i) require(i == axis || in->dims[i] == output.dims[i], kShape);
      together += in->dims[axis];
    }
    require(together == output.dims[axis], kShape);
  }

  static void check_product(const XValue& a, const XValue& b, const XValue& output) {  // (..., M, K) x (..., K, N)
    const size_t rank = a.dims.size();
    require(rank >= 2 && b.dims.size() >= 2 && output.dims.size() >= 2, kShape);
    const uint64_t k = a.dims[rank - 1], m = a.dims[rank - 2];
    const auto end = b.dims.size();
    const bool turned = b.dims[end - 2] != k;
    require(b.dims[turned ? end - 1 : end - 2] == k && output.dims[output.dims.size() - 2] == m &&
                output.dims.back() == b.dims[turned ? end - 2 : end - 1],
            kShape);
  }

  static void check_broadcast(const XValue& a, const XValue& b, const XValue& output) {
    const size_t rank = std::max(a.dims.size(), b.dims.size());
    require(output.dims.size() == rank, kShape);
    auto size = [rank](const XValue& value, size_t i) {
      const size_t lacking = rank - value.dims.size();
      return i < lacking ? 1 : value.dims[i - lacking];
    };
    for (size_t i = 0; i < rank; ++i) {
      const uint32_t first = size(a, i), second = size(b, i);
      require((first == second || first == 1 || second == 1) && output.dims[i] == std::max(first, second), kShape);
    }
  }

  const std::vector<NamedBytes>& named_;
  uint64_t constant_bytes_ = 0;
  Object root_;
  uint32_t num_externs_ = 0;
  std::map<uint32_t, XValue> values_;
  std::map<uint32_t, uint32_t> exchanged_;
};

}  // namespace

size_t check_xnnpack(std::span<const std::byte> graph, const std::vector<NamedBytes>& named) { return Graph(graph, named).check(); }

}  // namespace paraedge
