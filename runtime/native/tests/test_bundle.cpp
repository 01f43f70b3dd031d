// Bundles: a good one opens, every kind of damage is refused with the file's name.
#include <functional>

#include "support.h"

namespace paraedge::tests {
namespace {

TEST_CASE("a good bundle opens and describes itself") {
  const auto bundle = open_bundle();
  const Manifest& manifest = bundle->manifest();
  CHECK(manifest.engine == "executorch");
  CHECK(manifest.labels.size() == 10);
  CHECK(manifest.input_shape == Shape{1, 1, 28, 28});
  CHECK(manifest.branches.size() >= 2);
  for (const Part& branch : manifest.branches) {
    CHECK(bundle->program(branch).size() == fs::file_size(fs::path(bundle_folder()) / branch.file));
  }
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
      {"not JSON", [](auto& f) { write(f / "manifest.json", "{"); }, "manifest.json is not JSON"},
      {"not a folder at all", [](auto& f) { fs::remove_all(f); }, "cannot be read"},
      {"a file in its place",
       [](auto& f) {
         fs::remove_all(f);
         write(f, "zip");
       },
       "is a file"},
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

TEST_CASE("a picture of another size is refused") {
  const auto bundle = open_bundle();
  const std::vector<uint8_t> picture(27 * 28);
  const auto input = normalise(picture, bundle->manifest());
  REQUIRE_FALSE(input);
  CHECK(input.error().code == ErrorCode::input);
}

}  // namespace
}  // namespace paraedge::tests
