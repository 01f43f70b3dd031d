// The three kinds of program: each function throws Damage, or UnknownOperator.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "flatbuffer.h"
#include "program.h"

namespace paraedge {

using flatbuffer::Damage;
using flatbuffer::require;

struct UnknownOperator : std::exception {
  explicit UnknownOperator(std::string operator_name) : name(std::move(operator_name)) {}
  const char* what() const noexcept override { return name.c_str(); }
  std::string name;
};

// In operators.cpp: sorted, so that a search is short. NULL: none of that name may be in a program.
const std::string_view* find_onnx_operator(std::string_view name);

struct ExecuTorchOperator {
  std::string_view name;
  // A letter for each: tensor, scalar, int, float, bool, x text; v tensors, w tensors that may lack, list of ints, d of
  // floats, c of bools. A capital may be left out. Empty: not known, and checked by the kernel itself.
  std::string_view arguments;
};
const ExecuTorchOperator* find_executorch_operator(std::string_view name);

struct LiteRTOperator {
  std::string_view name;
  uint16_t least_inputs, most_inputs, outputs;  // 0 outputs: any number
};
const LiteRTOperator* find_litert_operator(std::string_view name);

constexpr uint64_t kMostTensorBytes = uint64_t{1} << 31;  // no tensor of a small device's network is as large

// The product of dimensions times the bytes of an element. Throws Damage: negative, or more than kMostTensorBytes.
template <class Dimensions>
uint64_t bytes_of(const Dimensions& shape, uint64_t element_bytes) {
  uint64_t bytes = element_bytes;
  for (size_t i = 0; i < shape.size(); ++i) {
    const auto size = static_cast<int64_t>(shape[i]);
    require(size >= 0 && size <= static_cast<int64_t>(kMostTensorBytes), "a tensor in it has an impossible shape");
    bytes *= static_cast<uint64_t>(size);
    require(bytes <= kMostTensorBytes, "a tensor in it is larger than 2 GiB");
  }
  return bytes;
}

struct NamedBytes {  // a segment that others call by a name
  std::string_view key;
  uint64_t bytes;
};

// What ExecuTorch calls a delegate of the manifest; empty: no such one.
std::string_view executorch_backend(std::string_view delegate);
// `backend`: a delegate of that name may be in it beside XNNPACK's, and what it reads is not checked.
OperatorCounts check_executorch(std::span<const std::byte> program, std::string_view backend = "");
// The part of an ExecuTorch program that XNNPACK runs. Returns how many values it exchanges with the program.
size_t check_xnnpack(std::span<const std::byte> graph, const std::vector<NamedBytes>& named);
OperatorCounts check_litert(std::span<const std::byte> program);
OperatorCounts check_onnx(std::span<const std::byte> program);

}  // namespace paraedge
