// The manifest: changes of a good one, each refused with the field's name. That this reader and the Python
// one agree on many more is checked from Python (tests/runtime/test_native.py).
#include "manifest.h"

#include <regex>

#include "refusal.h"
#include "support.h"

namespace paraedge::tests {
namespace {

std::string good() { return read(fs::path(bundle_folder()) / "manifest.json"); }

std::string refusal_of(const std::string& json) {
  try {
    read_manifest(json);
  } catch (const Refusal& refusal) {
    return refusal.error.message;
  }
  return "";
}

TEST_CASE("a good manifest is read") {
  const ManifestFile file = read_manifest(good());
  CHECK(file.files.size() == 1 + file.manifest.branches.size() + 2);
  CHECK(file.manifest.branches[1].index == 1);
  CHECK(file.manifest.branches[1].macs > 0);
  const std::vector<StopRule>& rules = file.manifest.early_stop;
  REQUIRE(rules.size() == file.manifest.branches.size());
  CHECK(rules[0].temperature > 0.1);
  CHECK(rules[0].threshold < 1);
  CHECK(rules.back().threshold > 1);
}

TEST_CASE("a changed manifest is refused, and says which field") {
  struct Row {
    const char *pattern, *replacement, *message;
  };
  const Row rows[] = {
      {"\"format\": \"paraedge-bundle/1\"", "\"format\": \"paraedge-bundle/2\"", "newer than 'paraedge-bundle/1'"},
      {"\"format\": \"paraedge-bundle/1\"", "\"format\": \"paraedge/1\"", "field 'format' is 'paraedge/1'"},
      {"\"format\"", "\"formal\"", "field 'format' is missing"},
      {"\"total_branches\": \\d+", "\"total_branches\": 1", "field 'branches[1].index' is not below"},
      {"\"total_branches\": \\d+", "\"total_branches\": 8.5", "field 'total_branches' is not a whole number"},
      {"\"total_branches\": \\d+", "\"total_branches\": \"8\"", "field 'total_branches' is not a whole number"},
      {"\"index\": 1", "\"index\": 0", "field 'branches[1].index' is 0 after 0"},
      {"\"index\": 1", "\"index\": 1, \"index\": 1", "field 'branches[1].index' is there twice"},
      {"\"index\": 1", "\"index\": 1, \"place\": 1", "field 'branches[1].place' is unknown"},
      {"\"file\": \"stem.pte\"", "\"file\": \"../stem.pte\"", "field 'stem.file' is '../stem.pte'"},
      {"\"file\": \"stem.pte\"", "\"file\": \"/stem.pte\"", "field 'stem.file' is '/stem.pte'"},
      {"\"file\": \"stem.pte\"", "\"file\": \"Branch_00.pte\"", "field 'branches[0].file' is 'branch_00.pte'"},
      {"\"dtype\": \"float32\"", "\"dtype\": \"float16\"", "field 'input.dtype'"},
      {"\"verdict\": \"passed\"", "\"verdict\": \"failed\"", "field 'parity.verdict'"},
      {"\"sha256\": \"..", "\"sha256\": \"AB", "sha256' is not a SHA-256"},
      {"\"engine\": \"executorch\"", "\"engine\": \"\"", "field 'engine' is ''"},
      {"\"labels\": \\[", "\"labels\": [\"one more\", ", "output_shape"},
      {"\"threshold\": 0", "\"threshold\": 2", "field 'early_stop.prefixes[0].threshold'"},
      {"\"threshold\": null", "\"threshold\": 0.5", "field 'early_stop.prefixes' has a threshold for all branches"},
      {"\"temperature\": \\d+", "\"temperature\": -1", "field 'early_stop.prefixes[0].temperature'"},
      {"\"early_stop\"", "\"late_stop\"", "field 'late_stop' is unknown"},
      {"\"license\": \"[^\"]*\",", "", "field 'license' is missing"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.replacement);
    const std::string json = good();
    const std::string changed =
        std::regex_replace(json, std::regex(row.pattern), row.replacement, std::regex_constants::format_first_only);
    REQUIRE(changed != json);
    const std::string message = refusal_of(changed);
    CAPTURE(message);
    CHECK(message.find(row.message) != std::string::npos);
  }
}

TEST_CASE("what is no manifest at all") {
  for (const std::string json : {"", "{}", "[]", "null", "\"x\"", "{\"format\": 1}", "\xff\xfe", "{} {}"}) {
    CAPTURE(json);
    CHECK(refusal_of(json) != "");
  }
  CHECK(refusal_of(std::string(kMaxManifestBytes + 1, ' ')).find("more than") != std::string::npos);
  CHECK(refusal_of(std::string(100'000, '[')) != "");
}

TEST_CASE("a manifest cut anywhere is refused") {
  const std::string json = good();
  for (size_t length = 0; length + 2 < json.size(); length += 7) CHECK(refusal_of(json.substr(0, length)) != "");
}

}  // namespace
}  // namespace paraedge::tests
