// What several tests need: the bundle to test with, one real image of it, temporary folders.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime.h"
#include "sha256.h"

namespace paraedge::tests {

namespace fs = std::filesystem;

// The ExecuTorch bundle that the build's caller provides; a test without it fails.
inline std::string bundle_folder() {
  const char* folder = std::getenv("PARAEDGE_TEST_BUNDLE");
  REQUIRE_MESSAGE(folder != nullptr, "PARAEDGE_TEST_BUNDLE must name an ExecuTorch bundle");
  return folder;
}

inline std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE(file.good());
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

// manifest.json of a bundle, and the hash of it that stands beside it.
inline void write_manifest(const fs::path& bundle, const std::string& json) {
  write(bundle / "manifest.json", json);
  write(bundle / "manifest.sha256", sha256_hex(std::as_bytes(std::span(json))) + "  manifest.json\n");
}

inline std::shared_ptr<const Bundle> open_bundle() {
  auto bundle = Bundle::open(bundle_folder());
  REQUIRE_MESSAGE(bundle, (bundle ? "" : bundle.error().message));
  return *bundle;
}

inline std::unique_ptr<Session> open_session(const SessionOptions& options) {
  auto session = Session::open(open_bundle(), options);
  REQUIRE_MESSAGE(session, (session ? "" : session.error().message));
  return std::move(*session);
}

// The golden images, each normalised: golden/inputs.npy is a header and (n, H, W, C) bytes.
inline std::vector<std::vector<float>> images(const Manifest& manifest) {
  const std::string npy = read(fs::path(bundle_folder()) / "golden/inputs.npy");
  const Shape& shape = manifest.input.shape;
  const auto size = static_cast<size_t>(shape[1] * shape[2] * shape[3]);
  const size_t header = 10 + static_cast<unsigned char>(npy[8]) + 256 * static_cast<unsigned char>(npy[9]);
  std::vector<std::vector<float>> found;
  for (size_t at = header; at + size <= npy.size(); at += size) {
    auto input = normalise({reinterpret_cast<const uint8_t*>(npy.data()) + at, size}, manifest.input);
    REQUIRE(input);
    found.push_back(std::move(*input));
  }
  REQUIRE(found.size() >= 8);
  return found;
}

// A copy of the bundle to damage; gone with this object.
class BundleCopy {
 public:
  BundleCopy() {
    std::string pattern = (fs::temp_directory_path() / "paraedge-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    root_ = pattern;
    fs::copy(bundle_folder(), folder(), fs::copy_options::recursive);
  }
  ~BundleCopy() { fs::remove_all(root_); }
  fs::path folder() const { return root_ / "copy.paraedge"; }

 private:
  fs::path root_;
};

}  // namespace paraedge::tests
