// Shapes and the names of parts, as messages and the manifest write them.
#pragma once

#include <cstdio>
#include <functional>
#include <numeric>
#include <string>

#include "runtime.h"

namespace paraedge {

inline size_t elements(const Shape& shape) {
  return static_cast<size_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
}

inline std::string show(const Shape& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

inline std::string show(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", number);
  return text;
}

inline std::string branch_name(int index) {
  return (index < 10 ? "branch_0" : "branch_") + std::to_string(index);
}

}  // namespace paraedge
