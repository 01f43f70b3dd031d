// manifest.json: fields by name and type, none unknown, none missing, none twice; then the rules between them.
#include "manifest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "refusal.h"
#include "shape.h"
#include "yyjson.h"

namespace paraedge {
namespace {

[[noreturn]] void refuse(const std::string& field, const std::string& problem) {
  throw Refusal(ErrorCode::manifest, "manifest.json: field '" + field + "' " + problem + "; export the bundle again");
}

void require(bool fine, const std::string& field, const std::string& problem) {
  if (!fine) refuse(field, problem);
}

constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
constexpr int64_t kCount = int64_t{1} << 53;

// A JSON value and where it stands, for messages.
struct Value {
  yyjson_val* json;
  std::string field;

  bool is_null() const { return yyjson_is_null(json); }

  std::string text(size_t longest = 4096) const {
    require(yyjson_is_str(json), field, "is not a string");
    std::string_view found(yyjson_get_str(json), yyjson_get_len(json));
    auto continues = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; };
    const auto characters = found.size() - std::count_if(found.begin(), found.end(), continues);
    require(characters <= longest, field, "has more than " + std::to_string(longest) + " characters");
    return std::string(found);
  }

  int64_t integer(int64_t least, int64_t most) const {
    double real = yyjson_is_real(json) ? yyjson_get_real(json) : 0.5;
    std::optional<int64_t> number;
    if (yyjson_is_uint(json)) {
      number = yyjson_get_uint(json) > static_cast<uint64_t>(kAny) ? kAny : yyjson_get_sint(json);
    } else if (yyjson_is_sint(json)) {
      number = yyjson_get_sint(json);
    } else if (std::floor(real) == real && std::fabs(real) <= static_cast<double>(kCount)) {
      number = static_cast<int64_t>(real);  // 3.0 is a whole number in JSON
    }
    require(number.has_value(), field, "is not a whole number");
    require(*number >= least && *number <= most, field,
            "is " + std::to_string(*number) + ", not from " + std::to_string(least) + " to " + std::to_string(most));
    return *number;
  }

  double number(double least = -std::numeric_limits<double>::infinity(),
                double most = std::numeric_limits<double>::infinity()) const {
    require(yyjson_is_num(json), field, "is not a number");
    const double found = yyjson_get_num(json);
    require(found >= least && found <= most, field, "is " + std::to_string(found) + ", which cannot be");
    return found;
  }

  std::vector<Value> list(size_t fewest, size_t most) const {
    require(yyjson_is_arr(json), field, "is not a list");
    const size_t size = yyjson_arr_size(json);
    require(size >= fewest && size <= most, field, "has " + std::to_string(size) + " items");
    std::vector<Value> items;
    yyjson_val* item;
    size_t place, count;
    yyjson_arr_foreach(json, place, count, item) {
      items.push_back({item, field + "[" + std::to_string(place) + "]"});
    }
    return items;
  }

  // Every name of the object with its value; a name that is there twice is refused.
  std::vector<std::pair<std::string, Value>> entries() const {
    require(yyjson_is_obj(json), field, "is not an object");
    std::vector<std::pair<std::string, Value>> found;
    std::set<std::string> names;
    yyjson_val *key, *value;
    size_t place, count;
    yyjson_obj_foreach(json, place, count, key, value) {
      std::string name(yyjson_get_str(key), yyjson_get_len(key));
      std::string path = field.empty() ? name : field + "." + name;
      require(names.insert(name).second, path, "is there twice");
      found.emplace_back(name, Value{value, path});
    }
    return found;
  }

  // The object's values in the order of `names`, which are all the names it may and must have.
  std::vector<Value> fields(const std::vector<std::string>& names) const {
    std::vector<Value> found(names.size(), Value{nullptr, ""});
    for (auto& [name, value] : entries()) {
      auto known = std::find(names.begin(), names.end(), name);
      require(known != names.end(), value.field, "is unknown");
      found[known - names.begin()] = value;
    }
    for (size_t i = 0; i < names.size(); ++i) {
      require(found[i].json != nullptr, field.empty() ? names[i] : field + "." + names[i], "is missing");
    }
    return found;
  }

  Shape shape(size_t fewest = 1, size_t most = 6) const {
    Shape sizes;
    for (const Value& item : list(fewest, most)) sizes.push_back(item.integer(1, 1 << 20));
    return sizes;
  }
};

bool is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string name_of(const Value& value) {
  const std::string name = value.text();
  auto plain = [](char c) { return is_alnum(c) || c == '_' || c == '.' || c == '+' || c == '-'; };
  const bool fine = !name.empty() && name.size() <= 100 && (is_alnum(name[0]) || name[0] == '_') &&
                    std::all_of(name.begin(), name.end(), plain);
  require(fine, value.field, "is '" + name + "', not a name of letters, digits, '.', '_', '+' and '-'");
  return name;
}

void check_version(const Value& value) {
  const std::string text = value.text();
  int numbers = 0, digits = 0;
  bool fine = !text.empty();
  for (char c : text + ".") {
    if (c == '.') {
      fine = fine && digits >= 1 && digits <= 6;
      ++numbers, digits = 0;
    } else {
      fine = fine && is_digit(c);
      ++digits;
    }
  }
  require(fine && numbers <= 4, value.field, "is '" + text + "', not a version");
}

std::string sha256_of(const Value& value) {
  const std::string text = value.text();
  auto hex = [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); };
  require(text.size() == 64 && std::all_of(text.begin(), text.end(), hex), value.field, "is not a SHA-256");
  return text;
}

// Relative, forward slashes, nothing that climbs or hides.
bool is_plain_path(const std::string& path) {
  bool at_start = true;
  for (char c : path) {
    if (c == '/') {
      if (at_start) return false;
      at_start = true;
    } else if (at_start) {
      if (!is_alnum(c)) return false;
      at_start = false;
    } else if (!is_alnum(c) && c != '.' && c != '_' && c != '+' && c != '-') {
      return false;
    }
  }
  return !at_start;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return text;
}

class Reader {
 public:
  ManifestFile read(const Value& root) {
    // The order of manifest.py.
    const std::vector<Value> f = root.fields(
        {"format",  "name",   "description", "license", "labels", "input",    "stem",   "branches",      "total_branches",
         "fused",   "engine", "engine_min_version",     "target", "recipe",   "accuracy", "early_stop",    "parity",
         "golden",  "tool_versions",          "checkpoint_sha256"});
    Manifest& m = out_.manifest;
    m.name = name_of(f[1]);
    f[2].text();
    f[3].text();
    for (const Value& label : f[4].list(1, 100'000)) m.labels.push_back(label.text());
    read_input(f[5]);
    m.stem = read_part(f[6], "stem", /*is_branch=*/false);
    for (const Value& branch : f[7].list(1, 1000)) {
      m.branches.push_back(read_part(branch, branch.field, /*is_branch=*/true));
    }
    const int64_t total_branches = f[8].integer(1, 10'000);
    std::optional<Part> fused;
    if (!f[9].is_null()) fused = read_part(f[9], "fused", /*is_branch=*/false);
    m.engine = name_of(f[10]);
    const auto versions = f[11].entries();
    require(!versions.empty(), f[11].field, "is empty");
    for (const auto& [package, version] : versions) check_version(version);
    name_of(f[12]);
    name_of(f[13]);
    const int64_t accuracies = f[14].is_null() ? -1 : read_accuracy(f[14]);
    if (!f[15].is_null()) read_early_stop(f[15]);
    read_parity(f[16]);
    read_golden(f[17]);
    for (const auto& [package, version] : f[18].entries()) version.text(kAny);
    sha256_of(f[19]);
    check(total_branches, fused, accuracies);
    return std::move(out_);
  }

 private:
  void read_input(const Value& value) {
    const auto f = value.fields({"name", "shape", "dtype", "layout", "mean", "std"});
    name_of(f[0]);
    out_.manifest.input_shape = f[1].shape(4, 4);
    require(f[2].text() == "float32", f[2].field, "is not 'float32'");
    require(f[3].text() == "NCHW", f[3].field, "is not 'NCHW'");
    const int64_t channels = out_.manifest.input_shape[1];
    require(out_.manifest.input_shape[0] == 1, "input.shape", "does not begin with 1");
    const std::vector<double> mean = read_numbers(f[4], channels), std = read_numbers(f[5], channels);
    // (x / 255 - mean) / std as x * scale - shift, each rounded to float32 once, as inputs.py does.
    for (int64_t c = 0; c < channels; ++c) {
      require(std[c] > 0, f[5].field, "is not above 0");
      out_.manifest.scale.push_back(static_cast<float>(1.0 / (255.0 * std[c])));
      out_.manifest.shift.push_back(static_cast<float>(mean[c] / std[c]));
    }
  }

  static std::vector<double> read_numbers(const Value& value, int64_t count) {
    std::vector<double> numbers;
    for (const Value& item : value.list(0, kMaxManifestBytes)) numbers.push_back(item.number());
    require(static_cast<int64_t>(numbers.size()) == count, value.field,
            "has " + std::to_string(numbers.size()) + " values for " + std::to_string(count) + " channels");
    return numbers;
  }

  FileEntry read_file(const Value& file, const Value& size_bytes, const Value& sha256, const std::string& field) {
    FileEntry entry{file.text(200), sha256_of(sha256), size_bytes.integer(0, kCount)};
    require(is_plain_path(entry.file), field + ".file", "is '" + entry.file + "', not a plain path inside the bundle");
    // Compared without case: some devices' file systems do not tell A from a.
    require(paths_.insert(lower(entry.file)).second, field + ".file", "is '" + entry.file + "', which is taken");
    out_.files.push_back(entry);
    return entry;
  }

  Part read_part(const Value& value, const std::string& field, bool is_branch) {
    std::vector<std::string> names = {"file",       "size_bytes", "sha256", "input_shape", "output_shape",
                                      "parameters", "macs",       "operators"};
    if (is_branch) names.push_back("index");
    const auto f = value.fields(names);
    Part part;
    part.file = read_file(f[0], f[1], f[2], field).file;
    part.input_shape = f[3].shape();
    part.output_shape = f[4].shape();
    part.parameters = f[5].integer(0, kCount);
    part.macs = f[6].integer(0, kCount);
    for (const auto& [name, count] : f[7].entries()) count.integer(0, kCount);
    if (is_branch) part.index = static_cast<int>(f[8].integer(0, 9999));
    return part;
  }

  int64_t read_accuracy(const Value& value) {
    const auto f = value.fields({"dataset", "num_samples", "prefix_accuracy"});
    f[0].text();
    f[1].integer(1, kAny);
    const auto accuracies = f[2].list(0, kMaxManifestBytes);
    for (const Value& item : accuracies) item.number(0, 1);
    return static_cast<int64_t>(accuracies.size());
  }

  static double above_0(const Value& value, double most = std::numeric_limits<double>::infinity()) {
    const double found = value.number(0, most);
    require(found > 0, value.field, "is not above 0");
    return found;
  }

  // After the branches: there is one rule for each.
  void read_early_stop(const Value& value) {
    const auto f =
        value.fields({"dataset", "num_samples", "max_accuracy_drop", "risk_confidence", "prefixes", "held_out"});
    f[0].text();
    f[1].integer(0, kCount);
    above_0(f[2], 1);
    above_0(f[3], 1);
    std::vector<StopRule>& rules = out_.manifest.early_stop;
    for (const Value& prefix : f[4].list(0, kMaxManifestBytes)) {
      const auto g = prefix.fields({"temperature", "threshold"});
      StopRule rule{.temperature = above_0(g[0])};
      if (!g[1].is_null()) rule.threshold = above_0(g[1], 1);
      rules.push_back(rule);
    }
    const size_t count = out_.manifest.branches.size();
    require(rules.size() == count, f[4].field, "has not one value per branch");
    require(rules.back().threshold > 1, f[4].field, "has a threshold for all branches, not null");
    const auto h = f[5].fields({"num_samples", "accuracy_full", "accuracy_stopped", "mean_branches"});
    h[0].integer(1, kAny);
    h[1].number(0, 1);
    h[2].number(0, 1);
    h[3].number(1, static_cast<double>(count));
  }

  static void read_similarity(const Value& snr_db, const Value& cosine, const Value& error) {
    if (!snr_db.is_null()) snr_db.number();
    cosine.number();
    error.number();
  }

  void read_parity(const Value& value) {
    const auto f = value.fields(
        {"reference", "num_samples", "min_snr_db", "min_top1_agreement", "parts", "prefixes", "verdict"});
    f[0].text();
    f[1].integer(1, kAny);
    f[2].number();
    f[3].number(0, 1);
    for (const auto& [name, similarity] : f[4].entries()) {
      const auto g = similarity.fields({"snr_db", "cosine", "max_abs_error"});
      read_similarity(g[0], g[1], g[2]);
      compared_parts_.insert(name);
    }
    const auto prefixes = f[5].list(0, kMaxManifestBytes);
    for (const Value& prefix : prefixes) {
      const auto g = prefix.fields({"snr_db", "cosine", "max_abs_error", "top1_agreement"});
      read_similarity(g[0], g[1], g[2]);
      g[3].number(0, 1);
    }
    compared_prefixes_ = prefixes.size();
    require(f[6].text() == "passed", f[6].field, "is not 'passed'");
  }

  void read_golden(const Value& value) {
    const auto f = value.fields({"images", "branch_outputs", "labels"});
    for (const Value& file : {f[0], f[1]}) {
      const auto g = file.fields({"file", "size_bytes", "sha256"});
      read_file(g[0], g[1], g[2], file.field);
    }
    const auto labels = f[2].list(0, kMaxManifestBytes);
    require(!labels.empty(), f[2].field, "is empty");
    for (const Value& label : labels) largest_golden_label_ = std::max(largest_golden_label_, label.integer(0, kCount));
  }

  void check(int64_t total_branches, const std::optional<Part>& fused, int64_t accuracies) const {
    const Manifest& m = out_.manifest;
    require(m.stem.input_shape == m.input_shape, "stem.input_shape", "is not input.shape, " + show(m.input_shape));
    const Shape answer = {1, static_cast<int64_t>(m.labels.size())};
    std::set<std::string> parts = {"stem"};
    int previous = -1;
    for (size_t place = 0; place < m.branches.size(); ++place) {
      const Part& branch = m.branches[place];
      const std::string field = "branches[" + std::to_string(place) + "]";
      require(branch.index > previous, field + ".index",
              "is " + std::to_string(branch.index) + " after " + std::to_string(previous) + ": duplicate or unordered");
      require(branch.index < total_branches, field + ".index", "is not below total_branches");
      require(branch.input_shape == m.stem.output_shape, field + ".input_shape",
              "is " + show(branch.input_shape) + ", the stem makes " + show(m.stem.output_shape));
      require(branch.output_shape == answer, field + ".output_shape",
              "is " + show(branch.output_shape) + ", the labels need " + show(answer));
      previous = branch.index;
      parts.insert(branch_name(branch.index));
    }
    if (fused) {
      require(fused->input_shape == m.input_shape && fused->output_shape == answer, "fused", "has other shapes");
    }
    const auto count = static_cast<int64_t>(m.branches.size());
    require(accuracies == -1 || accuracies == count, "accuracy.prefix_accuracy", "has not one value per branch");
    require(compared_prefixes_ == 0 || compared_prefixes_ == m.branches.size(), "parity.prefixes",
            "has not one value per branch");
    require(compared_parts_ == parts, "parity.parts", "does not name the parts of the bundle");
    require(largest_golden_label_ < answer[1], "golden.labels", "names a label that is not there");
  }

  ManifestFile out_;
  std::set<std::string> paths_ = {"manifest.json"}, compared_parts_;
  size_t compared_prefixes_ = 0;
  int64_t largest_golden_label_ = 0;
};

void check_format(yyjson_val* root) {
  const std::string known = "paraedge-bundle/";
  yyjson_val* value = yyjson_is_obj(root) ? yyjson_obj_get(root, "format") : nullptr;
  require(yyjson_is_str(value), "format", "is missing");
  const std::string format(yyjson_get_str(value), yyjson_get_len(value));
  const std::string number = format.starts_with(known) ? format.substr(known.size()) : "";
  const bool is_number = !number.empty() && number.size() <= 6 && std::all_of(number.begin(), number.end(), is_digit);
  if (is_number && std::stoi(number) > 1) {
    throw Refusal(ErrorCode::manifest, "manifest.json: field 'format' is '" + format +
                                           "', newer than 'paraedge-bundle/1'; update paraedge on this device");
  }
  require(format == known + "1", "format", "is '" + format + "', not 'paraedge-bundle/1'");
}

}  // namespace

ManifestFile read_manifest(std::string_view json) {
  if (json.size() > kMaxManifestBytes) {
    throw Refusal(ErrorCode::manifest, "manifest.json has " + std::to_string(json.size()) + " bytes, more than the " +
                                           std::to_string(kMaxManifestBytes) + " allowed");
  }
  yyjson_read_err problem;
  // yyjson only writes to its input where a flag of its says so.
  std::unique_ptr<yyjson_doc, void (*)(yyjson_doc*)> document(
      yyjson_read_opts(const_cast<char*>(json.data()), json.size(), YYJSON_READ_NOFLAG, nullptr, &problem),
      yyjson_doc_free);
  if (!document) {
    throw Refusal(ErrorCode::manifest, std::string("manifest.json is not JSON: ") + problem.msg + " at byte " +
                                           std::to_string(problem.pos) + "; export the bundle again");
  }
  yyjson_val* root = yyjson_doc_get_root(document.get());
  check_format(root);
  return Reader().read({root, ""});
}

}  // namespace paraedge
