// A bundle folder or zip: every file present, listed, plain, of the right size and hash; the programs stay in memory.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <new>
#include <set>
#include <string_view>

#include "archive.h"
#include "manifest.h"
#include "refusal.h"
#include "sha256.h"
#include "shape.h"
#include "signature.h"

namespace paraedge {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& path, const std::string& problem) {
  throw Refusal(ErrorCode::integrity, path + problem);
}

// Memory of its own: nobody else can change what was hashed. Aligned for engines that run programs in place.
class Bytes {
 public:
  explicit Bytes(size_t size) : size_(size) {
    data_.reset(static_cast<std::byte*>(::operator new(size, kAlignment, std::nothrow)));
    if (data_ == nullptr) throw Refusal(ErrorCode::integrity, "a bundle does not fit into free memory");
  }
  std::span<std::byte> span() const { return {data_.get(), size_}; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<std::byte, Free> data_;
  size_t size_;
};

class Descriptor {
 public:
  explicit Descriptor(const std::string& path, int flags = 0)
      : number_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags)) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return number_; }
  int64_t size() const {  // -1: not a plain file
    struct stat status{};
    return ::fstat(number_, &status) == 0 && S_ISREG(status.st_mode) ? static_cast<int64_t>(status.st_size) : -1;
  }

 private:
  int number_;
};

// Where a bundle's bytes are.
class Storage {
 public:
  explicit Storage(std::string path) : path_(std::move(path)) {}
  virtual ~Storage() = default;
  virtual std::set<std::string> names() const = 0;
  // Whether a file that no manifest lists may lie there all the same.
  virtual bool is_litter(const std::string&) const { return false; }
  // A file that must have exactly `size_bytes`; the caller compares its hash.
  Bytes read(const std::string& name, int64_t size_bytes) const { return read(name, size_bytes, size_bytes); }
  // A short file whose size and hash no manifest has: the manifest itself, its hash, its signature.
  virtual Bytes read_unhashed(const std::string& name, int64_t most) const { return read(name, 0, most); }

 protected:
  virtual Bytes read(const std::string& name, int64_t least, int64_t most) const = 0;

  Bytes read_part_of(int file, int64_t offset, int64_t size, const std::string& name, int64_t least,
                     int64_t most) const {
    if (size < least || size > most) {
      refuse(path_, ": " + name + " has " + std::to_string(size) + " bytes, " +
                        (least == most ? "manifest.json says " : "the most allowed is ") + std::to_string(most) +
                        "; copy it again");
    }
    Bytes bytes(static_cast<size_t>(size));
    if (!read_at(file, offset, bytes.span())) {
      refuse(path_, ": " + name + " cannot be read: " + (errno == 0 ? "it became shorter" : std::strerror(errno)));
    }
    return bytes;
  }

  const std::string path_;
};

class FolderStorage final : public Storage {
 public:
  using Storage::Storage;

  // Links are refused wherever they point: a bundle is self-contained.
  std::set<std::string> names() const override {
    std::set<std::string> names;
    size_t count = 0;
    std::error_code problem;
    fs::recursive_directory_iterator entry(path_, problem), end;
    for (; !problem && entry != end; entry.increment(problem)) {
      const std::string name = fs::path(entry->path()).lexically_relative(path_).generic_string();
      if (++count > kMaxFiles) refuse(path_, " holds more than " + std::to_string(kMaxFiles) + " files");
      const fs::file_status status = entry->symlink_status(problem);
      if (problem) break;
      if (!is_plain_path(name) && !(fs::is_regular_file(status) && is_litter(name))) {
        refuse(path_, ": " + show_name(name) + " is not listed in manifest.json; remove it");
      }
      if (fs::is_symlink(status)) refuse(path_, ": " + name + " is a symbolic link; a bundle holds plain files only");
      if (fs::is_directory(status)) continue;
      if (!fs::is_regular_file(status)) refuse(path_, ": " + name + " is not a plain file; remove it");
      names.insert(name);
    }
    if (problem) refuse(path_, " cannot be read: " + problem.message());
    return names;
  }

  // What systems put into every folder that a file manager shows.
  bool is_litter(const std::string& name) const override {
    const std::string last = name.substr(name.rfind('/') + 1);
    return last.rfind("._", 0) == 0 || last == ".DS_Store" || last == "Thumbs.db" || last == "desktop.ini";
  }

 protected:
  Bytes read(const std::string& name, int64_t least, int64_t most) const override {
    const Descriptor file(path_ + "/" + name, O_NOFOLLOW);
    if (file < 0) {
      if (errno == ENOENT) refuse(path_, ": " + name + " is missing; copy the whole bundle again");
      refuse(path_, ": " + name + " cannot be read: " + std::strerror(errno));
    }
    if (file.size() < 0) refuse(path_, ": " + name + " cannot be read: it is not a plain file");
    return read_part_of(file, 0, file.size(), name, least, most);
  }
};

class ZipStorage final : public Storage {
 public:
  explicit ZipStorage(const std::string& path) : Storage(path), file_(path) {
    if (file_ < 0) refuse(path_, std::string(" cannot be read: ") + std::strerror(errno));
    if (file_.size() < 0) refuse(path_, " is neither a folder nor a file");
    files_ = read_archive(path_, file_, file_.size());
  }

  std::set<std::string> names() const override {
    std::set<std::string> names;
    for (const auto& [name, entry] : files_) names.insert(name);
    return names;
  }

  Bytes read_unhashed(const std::string& name, int64_t most) const override {
    Bytes bytes = read(name, 0, most);
    if (crc32_of(bytes.span()) != files_.at(name).crc32) {  // for want of a hash
      refuse(path_, ": " + name + " is damaged; copy the file again");
    }
    return bytes;
  }

 protected:
  Bytes read(const std::string& name, int64_t least, int64_t most) const override {
    const ArchiveEntry& entry = files_.at(name);
    return read_part_of(file_, entry.offset, entry.size_bytes, name, least, most);
  }

 private:
  Descriptor file_;
  std::map<std::string, ArchiveEntry> files_;
};

// For a command line in a message: as a POSIX shell reads it back.
std::string quoted(const std::string& text) {
  constexpr const char* kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string result = "'";
  for (const char letter : text) result += letter == '\'' ? std::string("'\"'\"'") : std::string(1, letter);
  return result + "'";
}

std::unique_ptr<Storage> open_storage(const std::string& path) {
  if (path.find('\0') != std::string::npos) refuse(path.c_str(), " cannot be read: its name has a NUL character");
  std::error_code problem;
  const fs::file_status status = fs::status(path, problem);
  if (status.type() == fs::file_type::not_found) {
    refuse(path,
           " does not exist; make a bundle: paraedge export --target linux --engine executorch --out " + quoted(path));
  }
  if (problem) refuse(path, " cannot be read: " + problem.message());
  if (fs::is_directory(status)) return std::make_unique<FolderStorage>(path);
  if (!fs::is_regular_file(status)) refuse(path, " is neither a folder nor a file");
  return std::make_unique<ZipStorage>(path);
}

// Of a bundle that is being opened: far more than meet one reading, and an end where they never stop.
constexpr int kMaxReplacements = 50;

// Changes when what stands at `path` is replaced; all zero when nothing does. Inodes alone are used again.
std::array<int64_t, 4> storage_identity(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return {};
#ifdef __APPLE__
  const timespec changed = status.st_ctimespec;
#else
  const timespec changed = status.st_ctim;
#endif
  return {static_cast<int64_t>(status.st_dev), static_cast<int64_t>(status.st_ino), static_cast<int64_t>(changed.tv_sec),
          static_cast<int64_t>(changed.tv_nsec)};
}

// The bytes of manifest.json, which have the hash that manifest.sha256 says, as sha256sum writes it; not parsed yet.
Bytes read_manifest_of(const Storage& storage, const std::string& path) {
  constexpr std::string_view kAfter = "  manifest.json\n";
  constexpr size_t kDigits = 64;
  Bytes manifest = storage.read_unhashed(kManifestName, kMaxManifestBytes);
  const Bytes bytes = storage.read_unhashed(kManifestHashName, kDigits + kAfter.size());
  const std::string_view line(reinterpret_cast<const char*>(bytes.span().data()), bytes.span().size());
  const std::string digest = sha256_hex(manifest.span());
  const std::string_view wanted = line.substr(0, kDigits);
  if (wanted.size() != kDigits || wanted.find_first_not_of("0123456789abcdef") != std::string_view::npos ||
      line.substr(kDigits) != kAfter) {
    refuse(path, ": manifest.sha256 is not the line that 'sha256sum manifest.json' writes; copy it again");
  }
  if (wanted != digest) {
    refuse(path, ": manifest.json has SHA-256 " + digest.substr(0, 12) + "…, manifest.sha256 says " +
                     std::string(wanted.substr(0, 12)) + "…; it was damaged or changed, copy it again");
  }
  return manifest;
}

class OpenedBundle final : public Bundle {
 public:
  // Of no keys: whoever signed it, if anybody.
  OpenedBundle(const std::string& path, std::span<const PublicKey> keys) {
    const std::unique_ptr<Storage> storage = open_storage(path);
    std::set<std::string> unlisted = storage->names();
    const bool has_signature = unlisted.count(kSignatureName) != 0;
    if (unlisted.erase(kManifestName) == 0) {
      refuse(path, " has no manifest.json; it is not a bundle, or was copied in part");
    }
    if (unlisted.erase(kManifestHashName) == 0) {
      refuse(path, ": manifest.sha256 is missing; copy all of it again, or export the bundle again");
    }
    const Bytes json = read_manifest_of(*storage, path);
    const Bytes signature = has_signature ? storage->read_unhashed(kSignatureName, kMaxSignatureBytes) : Bytes(0);
    if (!keys.empty()) check_signature(path, json.span(), signature.span(), keys);  // before anything is parsed
    ManifestFile file = read_manifest({reinterpret_cast<const char*>(json.span().data()), json.span().size()});
    std::vector<std::string> listed;
    for (const FileEntry& entry : file.files) listed.push_back(entry.file);
    if (file.is_signed) listed.push_back(kSignatureName);
    for (const std::string& name : listed) {
      if (unlisted.erase(name) == 0) refuse(path, ": " + name + " is missing; copy the whole bundle again");
    }
    for (const std::string& name : unlisted) {
      if (!storage->is_litter(name)) refuse(path, ": " + name + " is not listed in manifest.json; remove it");
    }
    manifest_ = std::move(file.manifest);
    std::set<std::string> kept = {manifest_.stem.file};
    for (const Part& branch : manifest_.branches) kept.insert(branch.file);
    for (const FileEntry& entry : file.files) {
      Bytes bytes = storage->read(entry.file, entry.size_bytes);
      const std::string digest = sha256_hex(bytes.span());
      if (digest != entry.sha256) {
        refuse(path, ": " + entry.file + " has SHA-256 " + digest.substr(0, 12) + "…, manifest.json says " +
                         entry.sha256.substr(0, 12) + "…; it was damaged or changed, copy it again");
      }
      if (kept.count(entry.file) != 0) programs_.emplace(entry.file, std::move(bytes));
    }
  }

  const Manifest& manifest() const override { return manifest_; }

  std::span<const std::byte> program(const Part& part) const override {
    const auto found = programs_.find(part.file);
    return found == programs_.end() ? std::span<const std::byte>() : found->second.span();
  }

 private:
  Manifest manifest_;
  std::map<std::string, Bytes> programs_;
};

std::shared_ptr<const Bundle> open_bundle(const std::string& path, std::span<const PublicKey> keys) {
  for (int replacements = 0;; ++replacements) {
    const auto identity = storage_identity(path);
    try {
      return std::make_shared<const OpenedBundle>(path, keys);
    } catch (const Refusal& refusal) {
      const bool replaced = storage_identity(path) != identity;  // while it was read: once more from the start
      if (refusal.error.code != ErrorCode::integrity || !replaced || replacements == kMaxReplacements) throw;
    }
  }
}

// What this bundle reads, for a refusal.
std::string reads(const Input& input) {
  if (input.kind == Input::Kind::image) {
    return "this bundle reads a uint8 image of " + std::to_string(input.shape[2]) + " x " +
           std::to_string(input.shape[3]) + " pixels of " + std::to_string(input.shape[1]) + " channels";
  }
  return "this bundle reads a float32 tensor of shape " + show(Shape(input.shape.begin() + 1, input.shape.end()));
}

void require(bool fine, const Input& input, const std::string& problem) {
  if (!fine) throw Refusal(ErrorCode::input, "input '" + input.name + "' " + problem + "; " + reads(input));
}

}  // namespace

Result<std::shared_ptr<const Bundle>> Bundle::open(const std::string& path) {
  return guarded<std::shared_ptr<const Bundle>>([&] { return open_bundle(path, trusted_keys_of_environment()); });
}

Result<std::shared_ptr<const Bundle>> Bundle::open_signed(const std::string& path,
                                                          std::span<const std::string> trusted_keys) {
  return guarded<std::shared_ptr<const Bundle>>([&] { return open_bundle(path, read_trusted_keys(trusted_keys)); });
}

Result<std::vector<float>> normalise(std::span<const uint8_t> image, const Input& input) {
  return guarded<std::vector<float>>([&] {
    require(input.kind == Input::Kind::image, input, "is a uint8 image");
    require(image.size() == elements(input.shape), input, "has " + std::to_string(image.size()) + " bytes");
    const auto channels = static_cast<size_t>(input.shape[1]);
    const size_t pixels = image.size() / channels;
    std::vector<float> normalised(image.size());
    for (size_t c = 0; c < channels; ++c) {
      for (size_t p = 0; p < pixels; ++p) {
        normalised[c * pixels + p] = static_cast<float>(image[p * channels + c]) * input.scale[c] - input.shift[c];
      }
    }
    return normalised;
  });
}

Result<std::vector<float>> normalise(std::span<const float> tensor, const Input& input) {
  return guarded<std::vector<float>>([&] {
    require(input.kind == Input::Kind::tensor, input, "is a float32 tensor that is not normalised");
    require(tensor.size() == elements(input.shape), input, "has " + std::to_string(tensor.size()) + " values");
    size_t inner = tensor.size();  // values that follow each other with one scale
    if (input.normalized_axis >= 0) {
      const auto after = input.shape.begin() + input.normalized_axis + 1;
      inner = elements(Shape(after, input.shape.end()));
    }
    std::vector<float> normalised(tensor.size());
    for (size_t i = 0; i < tensor.size(); ++i) {
      require(std::isfinite(tensor[i]), input, "has a value that is not finite");
      const size_t place = i / inner % input.scale.size();
      normalised[i] = tensor[i] * input.scale[place] - input.shift[place];
    }
    return normalised;
  });
}

}  // namespace paraedge
