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

// The same bundle with motion in and an embedding out.
std::string sensor() {
  std::string json = good();
  auto change = [&](const std::string& pattern, const std::string& replacement) {
    json = std::regex_replace(json, std::regex(pattern), replacement, std::regex_constants::format_first_only);
  };
  change("\"input\": \\{[^}]*\\}",
         R"("input": {"kind": "tensor", "name": "motion", "shape": [1, 6, 128], "axes": ["channel", "time"],
                     "normalized_axis": "channel", "mean": [0, 1, 2, 3, 4, 5], "std": [1, 1, 1, 1, 1, 2]})");
  change("\"output\": \\{[^}]*\\}", R"("output": {"kind": "vector", "name": "embedding", "size": 10})");
  change("\"input_shape\": \\[[^\\]]*\\]", "\"input_shape\": [1, 6, 128]");
  change("\"stop_rules\": \\[[^\\]]*\\]", "\"stop_rules\": null");
  return json;
}

TEST_CASE("a good manifest is read") {
  const ManifestFile file = read_manifest(good());
  CHECK(file.files.size() == 1 + file.manifest.branches.size() + 1 + 2);  // stem, branches, card, golden data
  CHECK_FALSE(file.is_signed);
  CHECK(file.manifest.branches[1].index == 1);
  CHECK(file.manifest.branches[1].macs > 0);
  const std::vector<StopRule>& rules = file.manifest.stop_rules;
  REQUIRE(rules.size() == file.manifest.branches.size());
  CHECK(rules[0].temperature > 0.1);
  CHECK(rules[0].threshold < 1);
  CHECK(rules.back().threshold > 1);
}

TEST_CASE("tensors and vectors are read") {
  const Manifest manifest = read_manifest(sensor()).manifest;
  CHECK(manifest.input.kind == Input::Kind::tensor);
  CHECK(manifest.input.name == "motion");
  CHECK(manifest.input.shape == Shape{1, 6, 128});
  CHECK(manifest.input.axes == std::vector<std::string>{"channel", "time"});
  CHECK(manifest.input.normalized_axis == 1);
  CHECK(manifest.input.scale == std::vector<float>{1, 1, 1, 1, 1, 0.5});
  CHECK(manifest.input.shift == std::vector<float>{0, 1, 2, 3, 4, 2.5});
  CHECK(manifest.labels.empty());
  CHECK(manifest.num_outputs == 10);
  CHECK(manifest.stop_rules.empty());
}

struct Row {
  const char *pattern, *replacement, *message;
};

void check_refused(const std::string& json, const Row& row) {
  CAPTURE(row.replacement);
  const std::string changed =
      std::regex_replace(json, std::regex(row.pattern), row.replacement, std::regex_constants::format_first_only);
  REQUIRE(changed != json);
  const std::string message = refusal_of(changed);
  CAPTURE(message);
  CHECK(message.find(row.message) != std::string::npos);
}

TEST_CASE("a changed manifest is refused, and says which field") {
  const Row rows[] = {
      {"\"format\": \"paraedge-bundle/2\"", "\"format\": \"paraedge-bundle/3\"", "newer than 'paraedge-bundle/2'"},
      {"\"format\": \"paraedge-bundle/2\"", "\"format\": \"paraedge-bundle/1\"", "older than 'paraedge-bundle/2'"},
      {"\"format\": \"paraedge-bundle/2\"", "\"format\": \"paraedge/2\"", "field 'format' is 'paraedge/2'"},
      {"\"format\"", "\"formal\"", "field 'format' is missing"},
      {"\"version\": 1", "\"version\": 0", "field 'version' is 0"},
      {"\"version\": 1", "\"version\": 1.0", "field 'version' is not a whole number"},
      {"\"total_branches\": \\d+", "\"total_branches\": 1", "field 'branches[1].index' is not below"},
      {"\"total_branches\": \\d+", "\"total_branches\": 8.5", "field 'total_branches' is not a whole number"},
      {"\"total_branches\": \\d+", "\"total_branches\": \"8\"", "field 'total_branches' is not a whole number"},
      {"\"index\": 1", "\"index\": 0", "field 'branches[1].index' is 0 after 0"},
      {"\"index\": 1", "\"index\": 1, \"index\": 1", "field 'branches[1].index' is there twice"},
      {"\"index\": 1", "\"index\": 1, \"place\": 1", "field 'branches[1].place' is unknown"},
      {"\"file\": \"stem.pte\"", "\"delegate\": \"\", \"file\": \"stem.pte\"", "field 'stem.delegate' is ''"},
      {"\"file\": \"stem.pte\"", "\"delegate\": 3, \"file\": \"stem.pte\"", "field 'stem.delegate'"},
      {"\"file\": \"stem.pte\"", "\"file\": \"../stem.pte\"", "field 'stem.file' is '../stem.pte'"},
      {"\"file\": \"stem.pte\"", "\"file\": \"/stem.pte\"", "field 'stem.file' is '/stem.pte'"},
      {"\"file\": \"stem.pte\"", "\"file\": \"Branch_00.pte\"", "field 'branches[0].file' is 'branch_00.pte'"},
      {"\"file\": \"stem.pte\"", "\"file\": \"golden\"", "another entry uses too"},
      {"\"file\": \"card.json\"", "\"file\": \"card\"", "field 'card.file' is 'card', not 'card.json'"},
      {"\"kind\": \"image\"", "\"kind\": \"sound\"", "field 'input.kind' is 'sound'"},
      {"\"kind\": \"image\",", "", "field 'input.kind' is missing"},
      {"\"kind\": \"labels\"", "\"kind\": \"vector\"", "field 'output.labels' is unknown"},
      {"\"std\": \\[[^\\]]*\\]", "\"std\": [1e-50]", "field 'input.std' is too small for float32"},
      {"\"sha256\": \"..", "\"sha256\": \"AB", "sha256' is not a SHA-256"},
      {"\"engine\": \"executorch\"", "\"engine\": \"\"", "field 'engine' is ''"},
      {"\"labels\": \\[", "\"labels\": [\"one more\", ", "output_shape"},
      {"\"labels\": \\[", "\"labels\": [\"\", ", "field 'output.labels[0]' is empty"},
      {"\"labels\": \\[", "\"labels\": [\"x\", \"x\", ", "field 'output.labels[1]' is the same as output.labels[0]"},
      {"\"quantization\": \"[^\"]*\"", "\"quantization\": \"int9\"",
       "field 'quantization' is 'int9', not one of fp32, fp16, int8-dynamic, int8-static, int8-weight, int4-weight (all"},
      {"\"threshold\": 0", "\"threshold\": 2", "field 'stop_rules[0].threshold'"},
      {"\"threshold\": null", "\"threshold\": 0.5", "field 'stop_rules' has a threshold for all branches"},
      {"\"temperature\": \\d+", "\"temperature\": -1", "field 'stop_rules[0].temperature'"},
      {"\"stop_rules\"", "\"late_stop\"", "field 'late_stop' is unknown"},
      {"\"target\": \"[^\"]*\",", "", "field 'target' is missing"},
      {"\"signature\": null", "\"signature\": {\"algorithm\": \"rsa\", \"file\": \"manifest.json.minisig\"}",
       "field 'signature.algorithm'"},
  };
  for (const Row& row : rows) check_refused(good(), row);
  const Row of_sensors[] = {
      {"\"channel\", \"time\"", "\"channel\"", "field 'input.axes' has not one name for each axis"},
      {"\"channel\", \"time\"", "\"channel\", \"channel\"", "field 'input.axes' has 'channel' twice"},
      {"\"channel\", \"time\"", "\"channel\", \"Time\"", "field 'input.axes[1]'"},
      {"\"normalized_axis\": \"channel\"", "\"normalized_axis\": \"time\"", "field 'input.mean' has 6 values, not 128"},
      {"\"normalized_axis\": \"channel\"", "\"normalized_axis\": null", "field 'input.mean' has 6 values, not 1;"},
      {"\"normalized_axis\": \"channel\"", "\"normalized_axis\": \"band\"", "field 'input.normalized_axis'"},
      {"\"size\": 10", "\"size\": 11", "output_shape"},
      {"\"stop_rules\": null", "\"stop_rules\": [{\"temperature\": 1, \"threshold\": null}]", "the output is a vector"},
  };
  for (const Row& row : of_sensors) check_refused(sensor(), row);
}

TEST_CASE("what is no manifest at all") {
  for (const std::string json : {"", "{}", "[]", "null", "\"x\"", "{\"format\": 1}", "\xff\xfe", "{} {}"}) {
    CAPTURE(json);
    CHECK(refusal_of(json) != "");
  }
  CHECK(refusal_of(std::string(static_cast<size_t>(kMaxManifestBytes) + 1, ' ')).find("more than") != std::string::npos);
  CHECK(refusal_of(std::string(100'000, '[')) != "");
}

TEST_CASE("a manifest cut anywhere is refused") {
  const std::string json = good();
  for (size_t length = 0; length + 2 < json.size(); length += 7) CHECK(refusal_of(json.substr(0, length)) != "");
}

}  // namespace
}  // namespace paraedge::tests
