// What the tests of the interfaces need; they see no more of paraedge than an application does.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "../core/sha256.h"

namespace application {

inline constexpr const char* kEngine = "libparaedge_executorch.so";

// The ExecuTorch bundle that the build's caller provides; a test without it fails.
inline std::string bundle_path() {
  const char* folder = std::getenv("PARAEDGE_TEST_BUNDLE");
  REQUIRE_MESSAGE(folder != nullptr, "PARAEDGE_TEST_BUNDLE must name an ExecuTorch bundle");
  return folder;
}

inline void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

// manifest.json of a bundle, and the hash of it that stands beside it.
inline void write_manifest(const std::filesystem::path& bundle, const std::string& json) {
  write(bundle / "manifest.json", json);
  write(bundle / "manifest.sha256", paraedge::sha256_hex(std::as_bytes(std::span(json))) + "  manifest.json\n");
}

// The content of an .npy file of the bundle's golden/, without its header.
inline std::vector<char> golden(const char* name) {
  std::ifstream file(std::filesystem::path(bundle_path()) / "golden" / name, std::ios::binary);
  const std::vector<char> npy(std::istreambuf_iterator<char>(file), {});
  REQUIRE(npy.size() > 10);
  const auto low = static_cast<unsigned char>(npy[8]), high = static_cast<unsigned char>(npy[9]);
  return {npy.begin() + 10 + low + 256 * high, npy.end()};
}

// A golden image, `bytes` of uint8 (H, W, C).
inline std::vector<uint8_t> golden_image(size_t bytes, size_t number = 0) {
  const std::vector<char> images = golden("inputs.npy");
  REQUIRE(images.size() >= (number + 1) * bytes);
  const auto begin = images.begin() + static_cast<ptrdiff_t>(number * bytes);
  return {begin, begin + static_cast<ptrdiff_t>(bytes)};
}

// The label that torch gives the first golden image: of the largest sum over the branches, (N, k, C) float32.
inline size_t golden_label(size_t branches, size_t outputs) {
  const std::vector<char> bytes = golden("branch_outputs.npy");
  std::vector<float> values(branches * outputs), sum(outputs);
  REQUIRE(bytes.size() >= values.size() * sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  for (size_t i = 0; i < values.size(); ++i) sum[i % outputs] += values[i];
  return static_cast<size_t>(std::max_element(sum.begin(), sum.end()) - sum.begin());
}

}  // namespace application
