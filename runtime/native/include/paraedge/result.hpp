// A value or an Error: what a function of paraedge in C++ returns where it can fail. Nothing throws.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "paraedge/paraedge.h"

namespace paraedge {

enum class ErrorCode {
  manifest = PE_ERROR_MANIFEST,
  integrity = PE_ERROR_INTEGRITY,
  engine = PE_ERROR_ENGINE,
  unavailable = PE_ERROR_UNAVAILABLE,
  input = PE_ERROR_INPUT,
  cancelled = PE_ERROR_CANCELLED,
  dropped = PE_ERROR_DROPPED,
};

struct Error {
  ErrorCode code;
  std::string message;  // what is wrong, with the value, and what to do
};

// A value or an Error. `*` and `->` are for a value, `error()` for an error: see `operator bool`.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() { return *std::get_if<0>(&state_); }
  const T& operator*() const { return *std::get_if<0>(&state_); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }
  const Error& error() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

}  // namespace paraedge
