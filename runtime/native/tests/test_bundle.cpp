// Bundles: a good one opens, every kind of damage is refused with the file's name.
#include <fcntl.h>

#include <atomic>
#include <cmath>
#include <cstdio>
#include <functional>
#include <thread>

#include "support.h"

namespace paraedge::tests {
namespace {

TEST_CASE("a good bundle opens and describes itself") {
  const auto bundle = open_bundle();
  const Manifest& manifest = bundle->manifest();
  CHECK(manifest.engine == "executorch");
  CHECK(manifest.labels.size() == 10);
  CHECK(manifest.num_outputs == 10);
  CHECK(manifest.version == 1);
  CHECK(manifest.input.kind == Input::Kind::image);
  CHECK(manifest.input.shape == Shape{1, 1, 28, 28});
  CHECK(manifest.input.normalized_axis == 1);
  CHECK(manifest.branches.size() >= 2);
  for (const Part& branch : manifest.branches) {
    CHECK(bundle->program(branch).size() == fs::file_size(fs::path(bundle_folder()) / branch.file));
    CHECK(reinterpret_cast<uintptr_t>(bundle->program(branch).data()) % 64 == 0);
  }
  CHECK(bundle->program({.file = "card.json"}).empty());
}

TEST_CASE("a bundle that is replaced while it is read is the old or the new one") {
  const BundleCopy copy;
  const fs::path place = copy.folder(), next = place.parent_path() / "next";
  std::atomic<bool> done = false;
  std::atomic<int> replaced = 0;
  std::thread writer([&] {
    while (!done) {  // in one step, where the file system can
      fs::copy(bundle_folder(), next, fs::copy_options::recursive);
      if (::renameat2(AT_FDCWD, next.c_str(), AT_FDCWD, place.c_str(), RENAME_EXCHANGE) != 0) break;
      fs::remove_all(next);
      ++replaced;
    }
  });
  int opened = 0;
  std::string problem;
  for (int i = 0; i < 300 && problem.empty(); ++i) {
    const auto bundle = Bundle::open(place.string());
    bundle ? void(++opened) : void(problem = bundle.error().message);
  }
  done = true;
  writer.join();
  CHECK(problem == "");
  CHECK(opened == 300);
  CHECK(replaced > 0);
}

TEST_CASE("what was checked is what runs, whatever happens to the files") {
  const BundleCopy copy;
  auto bundle = Bundle::open(copy.folder().string());
  REQUIRE(bundle);
  const Part& branch = (*bundle)->manifest().branches[0];
  const auto bytes = (*bundle)->program(branch);
  const std::string before(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  write(copy.folder() / branch.file, std::string(before.size(), 'x'));
  CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == before);
  fs::remove_all(copy.folder());
  CHECK(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()) == before);
}

TEST_CASE("damage is refused, and says which file") {
  struct Row {
    const char* what;
    std::function<void(const fs::path&)> damage;
    const char* message;
  };
  const Row rows[] = {
      {"a file is missing", [](auto& f) { fs::remove(f / "branch_01.pte"); }, "branch_01.pte is missing"},
      {"no manifest", [](auto& f) { fs::remove(f / "manifest.json"); }, "has no manifest.json"},
      {"a file is cut", [](auto& f) { fs::resize_file(f / "stem.pte", 100); }, "stem.pte has 100 bytes"},
      {"an empty file", [](auto& f) { fs::resize_file(f / "stem.pte", 0); }, "stem.pte has 0 bytes"},
      {"a byte is changed",
       [](auto& f) {
         std::string bytes = read(f / "branch_00.pte");
         bytes[bytes.size() / 2] ^= 1;
         write(f / "branch_00.pte", bytes);
       },
       "branch_00.pte has SHA-256"},
      {"an unlisted file", [](auto& f) { write(f / "more.txt", "x"); }, "more.txt is not listed"},
      {"a link inside",
       [](auto& f) {
         fs::rename(f / "stem.pte", f.parent_path() / "stem.pte");
         fs::create_symlink(f.parent_path() / "stem.pte", f / "stem.pte");
       },
       "stem.pte is a symbolic link"},
      {"a linked folder",
       [](auto& f) {
         fs::rename(f / "golden", f.parent_path() / "golden");
         fs::create_directory_symlink(f.parent_path() / "golden", f / "golden");
       },
       "golden is a symbolic link"},
      {"not JSON", [](auto& f) { write_manifest(f, "{"); }, "manifest.json is not JSON"},
      {"another manifest", [](auto& f) { write(f / "manifest.json", read(f / "manifest.json") + " "); },
       "manifest.json has SHA-256"},
      {"no hash of the manifest", [](auto& f) { fs::remove(f / "manifest.sha256"); }, "manifest.sha256 is missing"},
      {"a hash in another form",
       [](auto& f) { write(f / "manifest.sha256", "SHA256 (manifest.json) = " + std::string(40, '0')); },
       "manifest.sha256 is not the line that 'sha256sum manifest.json' writes"},
      {"a signature that is not listed", [](auto& f) { write(f / "manifest.json.minisig", "x"); },
       "manifest.json.minisig is not listed"},
      {"the card is changed", [](auto& f) { write(f / "card.json", std::string(fs::file_size(f / "card.json"), ' ')); },
       "card.json has SHA-256"},
      {"nothing at all", [](auto& f) { fs::remove_all(f); }, "does not exist; make a bundle: paraedge export --target linux"},
      {"a file in its place",
       [](auto& f) {
         fs::remove_all(f);
         write(f, "zip");
       },
       "is neither a bundle folder nor a zip made by 'paraedge pack'"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    const BundleCopy copy;
    row.damage(copy.folder());
    const auto bundle = Bundle::open(copy.folder().string());
    REQUIRE_FALSE(bundle);
    CAPTURE(bundle.error().message);
    CHECK(bundle.error().message.find(row.message) != std::string::npos);
  }
}

TEST_CASE("what systems leave in folders is no damage") {
  const BundleCopy copy;
  for (const char* name : {".DS_Store", "._stem.pte", "golden/Thumbs.db", "desktop.ini"}) write(copy.folder() / name, "x");
  CHECK(Bundle::open(copy.folder().string()));
}

Input tensor_input(Shape shape, int normalized_axis, std::vector<float> scale, std::vector<float> shift) {
  return {.kind = Input::Kind::tensor, .name = "sensor", .shape = std::move(shape), .axes = {},
          .normalized_axis = normalized_axis, .scale = std::move(scale), .shift = std::move(shift)};
}

TEST_CASE("an image is read channel by channel") {
  const Input image = {.kind = Input::Kind::image, .name = "image", .shape = {1, 2, 1, 2}, .axes = {},
                       .normalized_axis = 1, .scale = {2, 10}, .shift = {1, 0}};
  auto input = normalise(std::vector<uint8_t>{1, 2, 3, 4}, image);  // (H, W, C)
  REQUIRE(input);
  CHECK(*input == std::vector<float>{1, 5, 20, 40});
}

TEST_CASE("a tensor is normalised along its axis") {
  const std::vector<float> x = {1, 2, 3, 4, 5, 6};
  struct Row {
    Input input;
    std::vector<float> wanted;
  };
  const Row rows[] = {
      {tensor_input({1, 2, 3}, 1, {1, 10}, {0, 1}), {1, 2, 3, 39, 49, 59}},
      {tensor_input({1, 2, 3}, 2, {1, 10, 100}, {0, 1, 2}), {1, 19, 298, 4, 49, 598}},
      {tensor_input({1, 2, 3}, -1, {2}, {1}), {1, 3, 5, 7, 9, 11}},
      {tensor_input({1, 6}, 1, {1, 1, 1, 1, 1, 2}, {0, 0, 0, 0, 0, 0}), {1, 2, 3, 4, 5, 12}},
  };
  for (const Row& row : rows) {
    auto input = normalise(x, row.input);
    REQUIRE(input);
    CHECK(*input == row.wanted);
  }
}

TEST_CASE("an input that does not fit is refused, and told what is read") {
  const Input image = open_bundle()->manifest().input, tensor = tensor_input({1, 2, 3}, -1, {1}, {0});
  const auto small = normalise(std::vector<uint8_t>(27 * 28), image);
  const auto floats = normalise(std::vector<float>(28 * 28), image);
  const auto bytes = normalise(std::vector<uint8_t>(6), tensor);
  const auto many = normalise(std::vector<float>(7), tensor);
  const auto infinite = normalise(std::vector<float>(6, INFINITY), tensor);
  for (const auto* refused : {&small, &floats, &bytes, &many, &infinite}) {
    REQUIRE_FALSE(*refused);
    CHECK(refused->error().code == ErrorCode::input);
  }
  CHECK(small.error().message == "input 'image' has 756 bytes; this bundle reads a uint8 image of 28 x 28 pixels of 1 channels");
  CHECK(many.error().message == "input 'sensor' has 7 values; this bundle reads a float32 tensor of shape [2, 3]");
}

}  // namespace
}  // namespace paraedge::tests
