// manifest.json: fields by name and type, none unknown, none missing, none twice; then the rules between them.
#include "manifest.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
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
constexpr int64_t kMaxElements = int64_t{1} << 28;

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
    std::optional<int64_t> number;  // written without point and exponent
    if (yyjson_is_uint(json)) {
      number = yyjson_get_uint(json) > static_cast<uint64_t>(kAny) ? kAny : yyjson_get_sint(json);
    } else if (yyjson_is_sint(json)) {
      number = yyjson_get_sint(json);
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
    require(found >= least && found <= most, field, "is " + std::to_string(found) + ", which is out of range");
    return found;
  }

  std::vector<Value> list(size_t fewest, size_t most) const {
    require(yyjson_is_arr(json), field, "is not a list");
    const size_t size = yyjson_arr_size(json);
    require(size >= fewest && size <= most, field, "has " + std::to_string(size) + " items");
    std::vector<Value> items;
    yyjson_val* item;
    size_t position, count;
    yyjson_arr_foreach(json, position, count, item) {
      items.push_back({item, field + "[" + std::to_string(position) + "]"});
    }
    return items;
  }

  // Every name of the object with its value; a name that is there twice is refused.
  std::vector<std::pair<std::string, Value>> entries() const {
    require(yyjson_is_obj(json), field, "is not an object");
    std::vector<std::pair<std::string, Value>> found;
    std::set<std::string> names;
    yyjson_val *key, *value;
    size_t position, count;
    yyjson_obj_foreach(json, position, count, key, value) {
      std::string name(yyjson_get_str(key), yyjson_get_len(key));
      std::string path = field.empty() ? name : field + "." + name;
      require(names.insert(name).second, path, "is there twice");
      found.emplace_back(name, Value{value, path});
    }
    return found;
  }

  // The object's values in the order of `names`, which are all the names it may have; all but the last
  // `optional` ones it must have.
  std::vector<Value> fields(const std::vector<std::string>& names, size_t optional = 0) const {
    std::vector<Value> found(names.size(), Value{nullptr, ""});
    for (auto& [name, value] : entries()) {
      auto known = std::find(names.begin(), names.end(), name);
      require(known != names.end(), value.field, "is unknown");
      found[known - names.begin()] = value;
    }
    for (size_t i = 0; i + optional < names.size(); ++i) {
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

// It decides how near to torch 'paraedge verify' wants the bundle.
void check_quantization(const Value& value) {
  constexpr std::array kRecipes = {"fp32", "fp16", "int8-dynamic", "int8-static", "int8-weight", "int4-weight"};
  const std::string name = name_of(value);
  std::string known;
  for (const std::string recipe : kRecipes) {
    if (name == recipe || (name == recipe + "+fp32-stem" && recipe != "fp32")) return;
    known += (known.empty() ? "" : ", ") + recipe;
  }
  throw Refusal(ErrorCode::manifest, "manifest.json: field '" + value.field + "' is '" + name + "', not one of " + known +
                                         " (all but fp32 also with +fp32-stem); update paraedge on this device, or "
                                         "export the bundle again");
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

// Whether a number is finite after rounding to float32: 2^128 - 2^103 and above become infinite.
bool fits_float32(double value) { return std::fabs(value) < 0x1.ffffffp127; }

class Reader {
 public:
  ManifestFile read(const Value& root) {
    // The order of manifest.py.
    const std::vector<Value> f = root.fields({"format", "name", "version", "engine", "engine_min_version", "target",
                                              "quantization", "input", "output", "stem", "branches", "total_branches",
                                              "fused", "stop_rules", "card", "files", "signature"});
    Manifest& m = out_.manifest;
    m.name = name_of(f[1]);
    m.version = f[2].integer(1, kCount);
    m.engine = name_of(f[3]);
    const auto versions = f[4].entries();
    require(!versions.empty(), f[4].field, "is empty");
    for (const auto& [package, version] : versions) check_version(version);
    name_of(f[5]);
    check_quantization(f[6]);
    read_input(f[7]);
    read_output(f[8]);
    m.stem = read_part(f[9], /*is_branch=*/false);
    for (const Value& branch : f[10].list(1, 1000)) m.branches.push_back(read_part(branch, /*is_branch=*/true));
    check_parts(f[11].integer(1, 10'000));
    if (!f[12].is_null()) read_file(f[12]);
    if (!f[13].is_null()) read_stop_rules(f[13]);
    const FileEntry card = read_file(f[14]);
    require(card.file == kCardName, "card.file", "is '" + card.file + "', not 'card.json'");
    require(card.size_bytes <= kMaxManifestBytes, "card.size_bytes", "is more than " + std::to_string(kMaxManifestBytes));
    for (const Value& file : f[15].list(0, 1000)) read_file(file);
    if (!f[16].is_null()) {
      const auto g = f[16].fields({"algorithm", "file"});
      require(g[0].text() == "ed25519", g[0].field, "is not 'ed25519'");
      require(g[1].text() == kSignatureName, g[1].field, std::string("is not '") + kSignatureName + "'");
      out_.is_signed = true;
    }
    return std::move(out_);
  }

 private:
  // A tagged object: `kind` says which fields it has.
  static std::string kind_of(const Value& value) {
    for (const auto& [name, field] : value.entries()) {
      if (name == "kind") return field.text();
    }
    refuse(value.field + ".kind", "is missing");
  }

  void read_input(const Value& value) {
    Input& input = out_.manifest.input;
    const std::string kind = kind_of(value);
    std::vector<Value> mean_and_std;
    int64_t count = 1;
    if (kind == "image") {
      const auto f = value.fields({"kind", "name", "shape", "mean", "std", "resize"}, 1);
      if (f[5].json != nullptr) {
        const std::string resize = f[5].text();
        require(resize == "stretch" || resize == "crop", f[5].field, "is '" + resize + "', not 'stretch' or 'crop'");
        if (resize == "crop") input.resize = Input::Resize::crop;
      }
      input.kind = Input::Kind::image;
      input.name = name_of(f[1]);
      input.shape = f[2].shape(4, 4);
      input.normalized_axis = 1;
      count = input.shape[1];
      mean_and_std = {f[3], f[4]};
    } else {
      require(kind == "tensor", value.field + ".kind", "is '" + kind + "', not 'image' or 'tensor'");
      const auto f = value.fields(
          {"kind", "name", "shape", "axes", "normalized_axis", "mean", "std", "rate_hz", "channel_names"}, 2);
      input.kind = Input::Kind::tensor;
      input.name = name_of(f[1]);
      input.shape = f[2].shape(2, 6);
      for (const Value& axis : f[3].list(0, kMaxManifestBytes)) {
        const std::string name = axis_of(axis);
        const bool is_new = std::find(input.axes.begin(), input.axes.end(), name) == input.axes.end();
        require(is_new, f[3].field, "has '" + name + "' twice");
        input.axes.push_back(name);
        require(input.axes.size() < input.shape.size(), f[3].field, "has more names than the shape has axes");
      }
      require(input.axes.size() + 1 == input.shape.size(), f[3].field, "has not one name for each axis");
      if (!f[4].is_null()) {
        const auto found = std::find(input.axes.begin(), input.axes.end(), axis_of(f[4]));
        require(found != input.axes.end(), f[4].field, "is not one of the axes");
        input.normalized_axis = static_cast<int>(found - input.axes.begin()) + 1;
        count = input.shape[static_cast<size_t>(input.normalized_axis)];
      }
      mean_and_std = {f[5], f[6]};
      check_signal(f[7], f[8]);
    }
    require(input.shape[0] == 1, "input.shape", "does not begin with 1");
    read_normalisation(mean_and_std[0], mean_and_std[1], count);
  }

  // What callers must know of a signal, and the core need not: both may be missing or null.
  void check_signal(const Value& rate_hz, const Value& channel_names) const {
    const Input& input = out_.manifest.input;
    auto size_of = [&](const std::string& axis) -> int64_t {
      const auto found = std::find(input.axes.begin(), input.axes.end(), axis);
      return found == input.axes.end() ? 0 : input.shape[static_cast<size_t>(found - input.axes.begin()) + 1];
    };
    if (rate_hz.json != nullptr && !rate_hz.is_null()) {
      require(rate_hz.number(0, 1e6) > 0, rate_hz.field, "is not above 0");
      require(size_of("time") > 0, rate_hz.field, "needs an axis 'time'");
    }
    if (channel_names.json != nullptr && !channel_names.is_null()) {
      std::set<std::string> names;
      const std::vector<Value> items = channel_names.list(0, kMaxManifestBytes);
      for (const Value& item : items) names.insert(name_of(item));
      require(static_cast<int64_t>(items.size()) == size_of("channel"), channel_names.field,
              "has not one name for each position along the axis 'channel'");
      require(names.size() == items.size(), channel_names.field, "has a name twice");
    }
  }

  static std::string axis_of(const Value& value) {
    const std::string name = value.text();
    auto follows = [](char c) { return (c >= 'a' && c <= 'z') || is_digit(c) || c == '_'; };
    const bool fine = !name.empty() && name.size() <= 32 && name[0] >= 'a' && name[0] <= 'z' &&
                      std::all_of(name.begin(), name.end(), follows);
    require(fine, value.field, "is '" + name + "', not a name of small letters, digits and '_'");
    return name;
  }

  // (x / 255 - mean) / std of an image, (x - mean) / std of a tensor, as x * scale - shift; each of the two
  // rounded to float32 once, as manifest.py and inputs.py do.
  void read_normalisation(const Value& mean_value, const Value& std_value, int64_t count) {
    Input& input = out_.manifest.input;
    const std::vector<double> mean = read_numbers(mean_value, count), std = read_numbers(std_value, count);
    for (size_t i = 0; i < mean.size(); ++i) {
      require(std[i] > 0, std_value.field, "is not above 0");
      const double scale = 1.0 / (input.kind == Input::Kind::image ? 255.0 * std[i] : std[i]);
      const double shift = mean[i] / std[i];
      require(fits_float32(scale), std_value.field, "is too small for float32");
      require(fits_float32(shift), mean_value.field, "is too large beside std for float32");
      input.scale.push_back(static_cast<float>(scale));
      input.shift.push_back(static_cast<float>(shift));
    }
  }

  static std::vector<double> read_numbers(const Value& value, int64_t count) {
    std::vector<double> numbers;
    for (const Value& item : value.list(0, kMaxManifestBytes)) numbers.push_back(item.number());
    require(static_cast<int64_t>(numbers.size()) == count, value.field,
            "has " + std::to_string(numbers.size()) + " values, not " + std::to_string(count));
    return numbers;
  }

  void read_output(const Value& value) {
    Manifest& m = out_.manifest;
    const std::string kind = kind_of(value);
    if (kind == "labels") {
      const auto f = value.fields({"kind", "labels"});
      std::map<std::string, std::string> first;  // field by label
      for (const Value& label : f[1].list(1, 100'000)) {
        m.labels.push_back(label.text());
        require(!m.labels.back().empty(), label.field, "is empty");
        const auto [same, is_new] = first.emplace(m.labels.back(), label.field);
        require(is_new, label.field, "is the same as " + same->second);
      }
      m.num_outputs = static_cast<int64_t>(m.labels.size());
    } else {
      require(kind == "vector", value.field + ".kind", "is '" + kind + "', not 'labels' or 'vector'");
      const auto f = value.fields({"kind", "name", "size"});
      name_of(f[1]);
      m.num_outputs = f[2].integer(1, 1 << 20);
    }
  }

  FileEntry read_file(const Value& value) {
    const auto f = value.fields({"file", "size_bytes", "sha256"});
    return add_file(f[0], f[1], f[2], value.field);
  }

  FileEntry add_file(const Value& file, const Value& size_bytes, const Value& sha256, const std::string& field) {
    FileEntry entry{file.text(200), sha256_of(sha256), size_bytes.integer(0, kCount)};
    require(is_plain_path(entry.file), field + ".file", "is '" + entry.file + "', not a plain path inside the bundle");
    // Compared without case: some devices' file systems do not tell A from a.
    const std::string path = lower(entry.file);
    bool is_free = folders_.count(path) == 0 && paths_.insert(path).second;
    for (size_t slash = path.find('/'); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      is_free = is_free && paths_.count(path.substr(0, slash)) == 0;
      folders_.insert(path.substr(0, slash));
    }
    require(is_free, field + ".file", "is '" + entry.file + "', which another entry uses too");
    total_bytes_ += entry.size_bytes;
    require(total_bytes_ <= kMaxBundleBytes, "size_bytes", "adds up to more than " + std::to_string(kMaxBundleBytes));
    out_.files.push_back(entry);
    return entry;
  }

  Part read_part(const Value& value, bool is_branch) {
    std::vector<std::string> names = {"file", "size_bytes", "sha256", "input_shape", "output_shape", "macs"};
    if (is_branch) names.push_back("index");
    names.push_back("delegate");
    const auto f = value.fields(names, 1);
    Part part;
    part.file = add_file(f[0], f[1], f[2], value.field).file;
    part.input_shape = f[3].shape();
    part.output_shape = f[4].shape();
    for (const auto& [shape, field] : {std::pair{part.input_shape, f[3].field}, {part.output_shape, f[4].field}}) {
      int64_t elements = 1;
      for (const int64_t size : shape) {
        elements *= size;
        require(elements <= kMaxElements, field, "has more than " + std::to_string(kMaxElements) + " elements");
      }
    }
    part.macs = f[5].integer(0, kCount);
    if (is_branch) part.index = static_cast<int>(f[6].integer(0, 9999));
    if (const Value& delegate = f.back(); delegate.json != nullptr && !delegate.is_null()) part.delegate = name_of(delegate);
    return part;
  }

  static double above_0(const Value& value, double most = std::numeric_limits<double>::infinity()) {
    const double found = value.number(0, most);
    require(found > 0, value.field, "is not above 0");
    return found;
  }

  // After the branches: there is one rule for each.
  void read_stop_rules(const Value& value) {
    Manifest& m = out_.manifest;
    require(!m.labels.empty(), value.field, "is not null, but the output is a vector");
    for (const Value& prefix : value.list(0, kMaxManifestBytes)) {
      const auto f = prefix.fields({"temperature", "threshold"});
      StopRule rule{.temperature = above_0(f[0])};
      if (!f[1].is_null()) rule.threshold = above_0(f[1], 1);
      m.stop_rules.push_back(rule);
    }
    require(m.stop_rules.size() == m.branches.size(), value.field, "has not one value per branch");
    require(m.stop_rules.back().threshold > 1, value.field, "has a threshold for all branches, not null");
  }

  void check_parts(int64_t total_branches) const {
    const Manifest& m = out_.manifest;
    require(m.stem.input_shape == m.input.shape, "stem.input_shape", "is not input.shape, " + show(m.input.shape));
    const Shape output = {1, m.num_outputs};
    int previous = -1;
    for (size_t position = 0; position < m.branches.size(); ++position) {
      const Part& branch = m.branches[position];
      const std::string field = "branches[" + std::to_string(position) + "]";
      require(branch.index > previous, field + ".index",
              "is " + std::to_string(branch.index) + " after " + std::to_string(previous) + ": duplicate or unordered");
      require(branch.index < total_branches, field + ".index", "is not below total_branches");
      require(branch.input_shape == m.stem.output_shape, field + ".input_shape",
              "is " + show(branch.input_shape) + ", the stem makes " + show(m.stem.output_shape));
      require(branch.output_shape == output, field + ".output_shape",
              "is " + show(branch.output_shape) + ", the outputs need " + show(output));
      previous = branch.index;
    }
  }

  ManifestFile out_;
  std::set<std::string> paths_ = {kManifestName, kManifestHashName, kSignatureName}, folders_;
  int64_t total_bytes_ = 0;
};

void check_format(yyjson_val* root) {
  const std::string known = "paraedge-bundle/";
  yyjson_val* value = yyjson_is_obj(root) ? yyjson_obj_get(root, "format") : nullptr;
  require(yyjson_is_str(value), "format", "is missing");
  const std::string format(yyjson_get_str(value), yyjson_get_len(value));
  const std::string number = format.starts_with(known) ? format.substr(known.size()) : "";
  const bool is_number = !number.empty() && number.size() <= 6 && std::all_of(number.begin(), number.end(), is_digit);
  const std::string problem = "manifest.json: field 'format' is '" + format + "', ";
  if (is_number && std::stoi(number) > 2) {
    throw Refusal(ErrorCode::manifest, problem + "newer than 'paraedge-bundle/2'; update paraedge on this device");
  }
  if (is_number && std::stoi(number) < 2) {
    throw Refusal(ErrorCode::manifest, problem + "older than 'paraedge-bundle/2'; export the bundle again");
  }
  require(format == known + "2", "format", "is '" + format + "', not 'paraedge-bundle/2'");
}

}  // namespace

bool is_plain_path(std::string_view path) {
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
  return !at_start && path.size() <= 200;
}

std::string show_name(std::string_view name) {
  std::string shown = "'";
  for (const char c : name) {
    if (c >= ' ' && c <= '~') {
      shown += c;
    } else {
      constexpr const char* kDigits = "0123456789abcdef";
      const auto byte = static_cast<unsigned char>(c);
      shown += std::string("\\x") + kDigits[byte >> 4] + kDigits[byte & 15];
    }
  }
  return shown + "'";
}

std::string lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return text;
}

ManifestFile read_manifest(std::string_view json) {
  if (json.size() > static_cast<size_t>(kMaxManifestBytes)) {
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
