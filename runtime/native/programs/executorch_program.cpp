// ExecuTorch: what its runtime takes on trust after it has verified the flatbuffer.
#include <limits>

#include "formats.h"
#include "schemas.h"

namespace paraedge {
namespace {

namespace et = schema::executorch;
using flatbuffer::Object;
using flatbuffer::read;
using flatbuffer::Vector;

constexpr const char* kSegment = "a segment of it is outside of the file";
constexpr const char* kIndex = "an index in it names nothing";
constexpr const char* kTensor = "a tensor in it has another size than its memory";
constexpr std::string_view kDelegate = "XnnpackBackend";
constexpr size_t kMostDimensions = 16;  // kTensorDimensionLimit
constexpr int64_t kMostMemoryBytes = int64_t{1} << 32;

enum class Value : uint8_t { none, null, integer, boolean, real, tensor, string, integers, reals, booleans, tensors, optionals };
enum class Step : uint8_t { none, kernel, delegate };

size_t element_bytes(int8_t scalar_type) {
  switch (scalar_type) {
    case 0: case 1: case 11: case 12: case 13: case 16: case 17: case 23: case 24: case 25: case 26: return 1;
    case 2: case 5: case 15: case 22: case 27: return 2;
    case 3: case 6: case 14: case 28: return 4;
    case 4: case 7: case 29: return 8;
    default: throw Damage("a tensor in it is of an unknown type");
  }
}

class Program {
 public:
  Program(std::span<const std::byte> file, std::string_view backend) : file_(file), backend_(backend) {}

  OperatorCounts check() {
    read_header();
    root_ = flatbuffer::checked_root(file_.first(program_bytes_), "ET12", et::kSchema);
    check_segments();
    require(root_.count(et::Program::execution_plan) >= 1, "it has no method");
    for (size_t i = 0; i < root_.count(et::Program::execution_plan); ++i) {
      plan_ = root_.table(et::Program::execution_plan, i);
      check_plan();
    }
    return counts_;
  }

 private:
  void read_header() {  // extended_header.cpp of ExecuTorch
    require(file_.size() >= 32 && std::memcmp(file_.data() + 8, "eh00", 4) == 0, "it has no header");
    const auto length = read<uint32_t>(file_, 12);
    program_bytes_ = read<uint64_t>(file_, 16);
    const auto base = read<uint64_t>(file_, 24);
    require(length >= 24 && program_bytes_ <= file_.size() && base <= file_.size(), kSegment);
    require(base == 0 || base >= program_bytes_, kSegment);
    uint64_t bytes = base == 0 ? 0 : file_.size() - base;
    if (length >= 32) {
      require(file_.size() >= 40, kSegment);
      const auto claimed = read<uint64_t>(file_, 32);
      require(claimed <= bytes, kSegment);
      bytes = claimed;
    }
    segments_ = file_.subspan(base, bytes);
  }

  std::span<const std::byte> segment(size_t index) const {
    require(index < root_.count(et::Program::segments), kIndex);
    const Object segment = root_.table(et::Program::segments, index);
    const auto offset = segment.scalar<uint64_t>(et::DataSegment::offset);
    const auto size = segment.scalar<uint64_t>(et::DataSegment::size);
    require(offset <= segments_.size() && size <= segments_.size() - offset, kSegment);
    return segments_.subspan(offset, size);
  }

  void check_segments() {
    for (size_t i = 0; i < root_.count(et::Program::segments); ++i) segment(i);
    require(root_.count(et::Program::constant_buffer) <= 1, "its constants are in a form that is no longer used");
    if (const Object constants = root_.table(et::Program::constant_segment); constants.exists()) {
      if (constants.count(et::SubsegmentOffsets::offsets)) check_offsets(constants);
    }
    for (size_t i = 0; i < root_.count(et::Program::mutable_data_segments); ++i) {
      check_offsets(root_.table(et::Program::mutable_data_segments, i));
    }
    for (size_t i = 0; i < root_.count(et::Program::named_data); ++i) {
      const Object named = root_.table(et::Program::named_data, i);
      require(named.has(et::NamedData::key), kIndex);
      named_.push_back({named.string(et::NamedData::key),
                        segment(named.scalar<uint32_t>(et::NamedData::segment_index)).size()});
    }
  }

  void check_offsets(const Object& constants) const {
    const size_t bytes = segment(constants.scalar<uint32_t>(et::SubsegmentOffsets::segment_index)).size();
    const auto offsets = constants.scalars<uint64_t>(et::SubsegmentOffsets::offsets);
    for (size_t i = 0; i < offsets.size(); ++i) require(offsets[i] <= bytes, kSegment);
  }

  void check_plan() {
    require(plan_.has(et::ExecutionPlan::name), "a method of it has no name");
    check_memory();
    check_values();
    check_operators();
    for (const uint16_t ends : {et::ExecutionPlan::inputs, et::ExecutionPlan::outputs}) {
      const auto indexes = plan_.scalars<int32_t>(ends);
      for (size_t i = 0; i < indexes.size(); ++i) value(indexes[i]);
    }
    for (size_t i = 0; i < plan_.count(et::ExecutionPlan::delegates); ++i) {
      exchanged_.resize(i + 1);
      const Object delegate = plan_.table(et::ExecutionPlan::delegates, i);
      exchanged_[i] = check_delegate(delegate);
      delegates_.push_back(delegate.string(et::BackendDelegate::id) == kDelegate ? kDelegate : backend_);
    }
    require(plan_.count(et::ExecutionPlan::chains) >= 1, "a method of it has nothing to run");
    for (size_t i = 0; i < plan_.count(et::ExecutionPlan::chains); ++i) {
      const Object chain = plan_.table(et::ExecutionPlan::chains, i);
      for (size_t step = 0; step < chain.count(et::Chain::instructions); ++step) {
        check_instruction(chain.table(et::Chain::instructions, step));
      }
    }
  }

  void check_memory() const {
    const auto sizes = plan_.scalars<int64_t>(et::ExecutionPlan::non_const_buffer_sizes);
    int64_t total = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      require(sizes[i] >= 0 && sizes[i] <= kMostMemoryBytes, "it asks for more than 4 GiB of memory");
      total += sizes[i];
      require(total <= kMostMemoryBytes, "it asks for more than 4 GiB of memory");
    }
    require(plan_.count(et::ExecutionPlan::non_const_buffer_device) == 0, "it asks for memory of another device");
  }

  Value value(int64_t index) const {
    require(index >= 0 && static_cast<size_t>(index) < plan_.count(et::ExecutionPlan::values), kIndex);
    return static_cast<Value>(
        plan_.table(et::ExecutionPlan::values, static_cast<size_t>(index)).scalar<uint8_t>(et::EValue::val_type));
  }

  void check_values() const {
    for (size_t i = 0; i < plan_.count(et::ExecutionPlan::values); ++i) {
      const Object found = plan_.table(et::ExecutionPlan::values, i);
      const Object inner = found.table(et::EValue::val);
      switch (static_cast<Value>(found.scalar<uint8_t>(et::EValue::val_type))) {
        case Value::tensor: check_tensor(inner); break;
        case Value::string: require(inner.has(et::String::string_val), kIndex); break;
        case Value::integers: check_list<int64_t>(inner, Value::integer, false); break;
        case Value::tensors: check_list<int32_t>(inner, Value::tensor, false); break;
        case Value::optionals: check_list<int32_t>(inner, Value::tensor, true); break;
        case Value::reals: case Value::booleans: require(inner.has(et::DoubleList::items), kIndex); break;
        case Value::none: throw Damage("a value of it is nothing");
        default: break;
      }
    }
  }

  template <class T>  // what lists hold are indexes of values
  void check_list(const Object& list, Value of, bool may_lack) const {
    require(list.has(et::IntList::items), kIndex);
    const auto items = list.scalars<T>(et::IntList::items);
    for (size_t i = 0; i < items.size(); ++i) {
      if (may_lack && items[i] == -1) continue;
      const Value found = value(items[i]);
      require(found == of || (may_lack && found == Value::null), "a list in it holds something else");
    }
  }

  void check_tensor(const Object& tensor) const {
    const auto sizes = tensor.scalars<int32_t>(et::Tensor::sizes);
    const auto order = tensor.scalars<uint8_t>(et::Tensor::dim_order);
    require(sizes.exists() && order.exists() && sizes.size() == order.size() && sizes.size() <= kMostDimensions,
            "a tensor in it has an impossible shape");
    uint32_t seen = 0;
    for (size_t i = 0; i < order.size(); ++i) {
      require(order[i] < order.size() && (seen >> order[i] & 1) == 0, "a tensor in it has an impossible order");
      seen |= uint32_t{1} << order[i];
    }
    const uint64_t bytes = bytes_of(sizes, element_bytes(tensor.scalar<int8_t>(et::Tensor::scalar_type)));
    require(tensor.scalar<int32_t>(et::Tensor::storage_offset) == 0, kTensor);
    const auto dynamism = tensor.scalar<int8_t>(et::Tensor::shape_dynamism);
    require(dynamism >= 0 && dynamism <= 1, "a tensor in it has no size");
    const auto buffer = tensor.scalar<uint32_t>(et::Tensor::data_buffer_idx);
    const Object more = tensor.table(et::Tensor::extra_tensor_info);
    if (more.exists()) {
      require(more.scalar<int8_t>(et::ExtraTensorInfo::location) == 0, "a tensor in it is in another file");
      require(more.scalar<int8_t>(et::ExtraTensorInfo::device_type) == 0, "it asks for memory of another device");
    }
    const Object memory = tensor.table(et::Tensor::allocation_info);
    if (memory.exists()) check_allocation(memory, bytes);
    if (buffer == 0) return;
    if (!memory.exists()) return check_constant(root_.table(et::Program::constant_segment), buffer, bytes);
    const auto which = more.exists() ? more.scalar<uint64_t>(et::ExtraTensorInfo::mutable_data_segments_idx) : 0;
    require(which < root_.count(et::Program::mutable_data_segments), kIndex);
    check_constant(root_.table(et::Program::mutable_data_segments, which), buffer, bytes);
  }

  void check_allocation(const Object& memory, uint64_t bytes) const {
    const auto sizes = plan_.scalars<int64_t>(et::ExecutionPlan::non_const_buffer_sizes);
    const auto id = memory.scalar<uint32_t>(et::AllocationDetails::memory_id);
    require(id >= 1 && id < sizes.size(), kTensor);  // 0 is the constants'
    const uint64_t offset = uint64_t{memory.scalar<uint32_t>(et::AllocationDetails::memory_offset_high)} << 32 |
                            memory.scalar<uint32_t>(et::AllocationDetails::memory_offset_low);
    const auto size = static_cast<uint64_t>(sizes[id]);
    require(offset <= size && bytes <= size - offset, kTensor);
  }

  void check_constant(const Object& constants, uint32_t index, uint64_t bytes) const {
    require(constants.exists(), kIndex);
    const auto offsets = constants.scalars<uint64_t>(et::SubsegmentOffsets::offsets);
    require(index < offsets.size(), kIndex);
    const size_t size = segment(constants.scalar<uint32_t>(et::SubsegmentOffsets::segment_index)).size();
    require(offsets[index] <= size && bytes <= size - offsets[index], kTensor);
  }

  void check_operators() {
    known_.clear();
    for (size_t i = 0; i < plan_.count(et::ExecutionPlan::operators); ++i) {
      const Object found = plan_.table(et::ExecutionPlan::operators, i);
      const std::string_view overload = found.string(et::Operator::overload);
      require(found.has(et::Operator::name) && found.has(et::Operator::overload), kIndex);
      std::string name(found.string(et::Operator::name));
      if (!overload.empty()) name.append(".").append(overload);
      known_.push_back(find_executorch_operator(name));
      if (!known_.back()) throw UnknownOperator(name);
    }
  }

  size_t check_delegate(const Object& delegate) const {
    const auto id = delegate.string(et::BackendDelegate::id);
    const bool is_opaque = !backend_.empty() && id == backend_;
    if (id != kDelegate && !is_opaque) throw UnknownOperator(std::string(id));
    for (size_t i = 0; i < delegate.count(et::BackendDelegate::compile_specs); ++i) {
      const Object setting = delegate.table(et::BackendDelegate::compile_specs, i);
      require(setting.has(et::CompileSpec::key) && setting.has(et::CompileSpec::value), kIndex);
    }
    const Object where = delegate.table(et::BackendDelegate::processed);
    require(where.exists(), kIndex);
    const auto index = where.scalar<uint32_t>(et::BackendDelegateDataReference::index);
    const auto location = where.scalar<int8_t>(et::BackendDelegateDataReference::location);
    require(location == 0 || location == 1, kIndex);
    if (location == 1) {
      const auto bytes = segment(index);
      return is_opaque ? 0 : check_xnnpack(bytes, named_);
    }
    require(index < root_.count(et::Program::backend_delegate_data), kIndex);
    const auto data = root_.table(et::Program::backend_delegate_data, index).scalars<uint8_t>(et::BackendDelegateInlineData::data);
    return is_opaque ? 0 : check_xnnpack({data.data(), data.size()}, named_);
  }

  void check_instruction(const Object& instruction) {
    const Object step = instruction.table(et::Instruction::instr_args);
    const auto kind = static_cast<Step>(instruction.scalar<uint8_t>(et::Instruction::instr_args_type));
    if (kind != Step::kernel && kind != Step::delegate) throw UnknownOperator("jump, move or free");
    const auto which = step.scalar<int32_t>(et::KernelCall::op_index);
    const auto args = step.scalars<int32_t>(et::KernelCall::args);
    const size_t known = plan_.count(kind == Step::kernel ? et::ExecutionPlan::operators : et::ExecutionPlan::delegates);
    require(which >= 0 && static_cast<size_t>(which) < known && args.exists(), kIndex);
    for (size_t i = 0; i < args.size(); ++i) {
      const Value found = value(args[i]);
      require(kind == Step::kernel || found == Value::tensor, "a delegate in it gets something else than tensors");
    }
    if (kind == Step::kernel) {
      const ExecuTorchOperator& called = *known_[static_cast<size_t>(which)];
      check_arguments(called.arguments, args);
      ++counts_[called.name];
    } else {
      require(args.size() >= exchanged_[static_cast<size_t>(which)], "a delegate in it gets too little");
      ++counts_[delegates_[static_cast<size_t>(which)]];
    }
  }

  // A kernel ends the process when it finds something else.
  void check_arguments(std::string_view wanted, const Vector<int32_t>& args) const {
    require(args.size() >= wanted.size(), "an operator in it gets too little");
    for (size_t i = 0; i < wanted.size(); ++i) {
      const Value found = value(args[i]);
      const char letter = wanted[i];
      const bool may_lack = letter >= 'A' && letter <= 'Z';
      require((may_lack && found == Value::null) || fits(static_cast<char>(letter | 0x20), found),
              "an operator in it gets another kind of value than it reads");
    }
  }

  static bool fits(char letter, Value found) {
    switch (letter) {
      case 't': return found == Value::tensor;
      case 's': return found == Value::integer || found == Value::real || found == Value::boolean;
      case 'i': return found == Value::integer;
      case 'f': return found == Value::real || found == Value::integer;
      case 'b': return found == Value::boolean;
      case 'l': return found == Value::integers;
      case 'd': return found == Value::reals;
      case 'c': return found == Value::booleans;
      case 'v': return found == Value::tensors;
      case 'w': return found == Value::optionals || found == Value::tensors;
      default: return found == Value::string;
    }
  }

  const std::span<const std::byte> file_;
  const std::string_view backend_;  // of a delegate that may be in it beside XNNPACK's
  std::span<const std::byte> segments_;
  size_t program_bytes_ = 0;
  Object root_, plan_;
  std::vector<NamedBytes> named_;
  std::vector<const ExecuTorchOperator*> known_;  // of each operator of the method
  std::vector<size_t> exchanged_;  // values that each delegate exchanges
  std::vector<std::string_view> delegates_;  // their names
  OperatorCounts counts_;
};

}  // namespace

std::string_view executorch_backend(std::string_view delegate) {
  if (delegate == "coreml") return "CoreMLBackend";
  if (delegate == "vulkan") return "VulkanBackend";
  return delegate.starts_with("ethos-u") ? "EthosUBackend" : "";
}

OperatorCounts check_executorch(std::span<const std::byte> program, std::string_view backend) {
  return Program(program, backend).check();
}

}  // namespace paraedge
