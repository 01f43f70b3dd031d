// What the tools share: the engine, options, errors, quantiles, random input.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine.h"
#include "executorch.h"
#include "refusal.h"
#include "runtime.h"
#include "shape.h"

namespace paraedge {

[[noreturn]] inline void fail(const std::string& message, int code = 2) {
  std::fprintf(stderr, "Error: %s\n", message.c_str());
  std::exit(code);
}

template <class Number>
Number number(const std::string& option, const char* text, Number least, Number most) {
  Number value{};
  const std::string given = text ? text : "";
  const char* const end = given.data() + given.size();
  const char* rest = given.data();
  if constexpr (std::is_floating_point_v<Number>) {  // Android's C++ library has no std::from_chars for these
    char* parsed = nullptr;
    value = std::strtod(given.c_str(), &parsed);
    rest = parsed;
  } else if (const auto parsed = std::from_chars(rest, end, value); parsed.ec == std::errc()) {
    rest = parsed.ptr;
  }
  if (given.empty() || rest != end || !(value >= least && value <= most)) {
    fail(option + " must be a number from " + std::to_string(least) + " to " + std::to_string(most) + ", got '" + given +
         "'");
  }
  return value;
}

inline std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> items;
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    items.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return items;
}

template <class T>
T value_of(Result<T> result) {
  if (!result) fail(result.error().message, result.error().code == ErrorCode::engine ? 1 : 2);
  return std::move(*result);
}

// The ExecuTorch engine is linked into the tools, so that one file is enough on a device.
inline void register_executorch() { register_engine(*pe_engine_entry(PE_API_VERSION)); }

inline double quantile(std::vector<double> values, double which) {
  if (values.empty()) return 0;
  const auto at = values.begin() + static_cast<ptrdiff_t>(which * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

inline std::vector<float> random_input(const Manifest& manifest) {
  std::vector<float> input(elements(manifest.input.shape));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::generate(input.begin(), input.end(), [&] { return normal(random); });
  return input;
}

}  // namespace paraedge
