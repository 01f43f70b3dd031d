// How code inside the core reports an Error; caught where the public functions return.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "runtime.h"

namespace paraedge {

struct Refusal : std::exception {
  explicit Refusal(ErrorCode code, std::string message) : error{code, std::move(message)} {}
  const char* what() const noexcept override { return error.message.c_str(); }
  Error error;
};

// Runs `body`, which returns a T, and turns whatever it throws into an Error.
template <class T, class Body>
Result<T> guarded(Body&& body) {
  try {
    return body();
  } catch (const Refusal& refusal) {
    return refusal.error;
  } catch (const std::exception& error) {
    return Error{ErrorCode::engine, std::string(error.what()) + "; free memory, or use fewer branches"};
  }
}

}  // namespace paraedge
