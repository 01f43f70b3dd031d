// A bundle folder: every file present, listed, plain, of the right size and hash; then mapped, read-only.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "manifest.h"
#include "refusal.h"
#include "sha256.h"

namespace paraedge {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxFiles = 4096;

[[noreturn]] void refuse(const std::string& folder, const std::string& problem) {
  throw Refusal(ErrorCode::integrity, folder + ": " + problem);
}

// One file mapped into memory. Pages come from the file when they are read and can go again.
class Mapping {
 public:
  Mapping(const std::string& folder, const std::string& name, int64_t least, int64_t most) {
    const int file = ::open((folder + "/" + name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) {
      if (errno == ENOENT) refuse(folder, name + " is missing; copy the whole bundle again");
      refuse(folder, name + " cannot be read: " + std::strerror(errno));
    }
    struct stat status{};
    const bool plain = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
    const int64_t size = plain ? status.st_size : -1;
    if (plain && size >= least && size <= most && size > 0) {
      void* address = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_PRIVATE, file, 0);
      if (address != MAP_FAILED) bytes_ = {static_cast<const std::byte*>(address), static_cast<size_t>(size)};
    }
    const int problem = errno;
    ::close(file);
    if (!plain) refuse(folder, name + " cannot be read: it is not a plain file");
    if (size < least || size > most) {
      refuse(folder, name + " has " + std::to_string(size) + " bytes, " +
                         (least == most ? "manifest.json says " : "the most allowed is ") + std::to_string(most) +
                         "; copy it again");
    }
    if (size > 0 && bytes_.empty()) refuse(folder, name + " cannot be mapped: " + std::strerror(problem));
  }
  Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  std::error_code problem;
  fs::recursive_directory_iterator entry(folder, problem), end;
  for (; !problem && entry != end; entry.increment(problem)) {
    const std::string name = fs::path(entry->path()).lexically_relative(folder).generic_string();
    const fs::file_status status = entry->symlink_status(problem);
    if (problem) break;
    if (fs::is_symlink(status)) refuse(folder, name + " is a symbolic link; a bundle holds plain files only");
    if (fs::is_directory(status)) continue;
    if (!fs::is_regular_file(status)) refuse(folder, name + " is not a plain file");
    names.insert(name);
    if (names.size() > kMaxFiles) refuse(folder, "holds more than " + std::to_string(kMaxFiles) + " files");
  }
  if (problem) refuse(folder, "cannot be read: " + problem.message());
  return names;
}

class MappedBundle final : public Bundle {
 public:
  explicit MappedBundle(const std::string& folder) {
    if (fs::is_regular_file(folder)) {
      refuse(folder, "is a file; the native runtime reads bundle folders, unzip it first");
    }
    std::set<std::string> unlisted = names_in(folder);
    if (unlisted.erase("manifest.json") == 0) refuse(folder, "has no manifest.json; it is not a bundle");
    const Mapping json(folder, "manifest.json", 0, kMaxManifestBytes);
    ManifestFile file =
        read_manifest({reinterpret_cast<const char*>(json.bytes().data()), json.bytes().size()});
    for (const FileEntry& entry : file.files) unlisted.erase(entry.file);
    if (!unlisted.empty()) refuse(folder, *unlisted.begin() + " is not listed in manifest.json; remove it");
    for (const FileEntry& entry : file.files) {
      Mapping mapping(folder, entry.file, entry.size_bytes, entry.size_bytes);
      const std::string digest = sha256_hex(mapping.bytes());
      if (digest != entry.sha256) {
        refuse(folder, entry.file + " has SHA-256 " + digest.substr(0, 12) + "…, manifest.json says " +
                           entry.sha256.substr(0, 12) + "…; it was damaged or changed, copy it again");
      }
      files_.emplace(entry.file, std::move(mapping));
    }
    manifest_ = std::move(file.manifest);
  }

  const Manifest& manifest() const override { return manifest_; }

  std::span<const std::byte> program(const Part& part) const override {
    const auto found = files_.find(part.file);
    return found == files_.end() ? std::span<const std::byte>() : found->second.bytes();
  }

 private:
  Manifest manifest_;
  std::map<std::string, Mapping> files_;
};

}  // namespace

Result<std::shared_ptr<const Bundle>> Bundle::open(const std::string& folder) {
  return guarded<std::shared_ptr<const Bundle>>(
      [&]() -> std::shared_ptr<const Bundle> { return std::make_shared<const MappedBundle>(folder); });
}

Result<std::vector<float>> normalise(std::span<const uint8_t> picture, const Manifest& manifest) {
  return guarded<std::vector<float>>([&] {
    const auto channels = static_cast<size_t>(manifest.input_shape[1]);
    const auto pixels = static_cast<size_t>(manifest.input_shape[2] * manifest.input_shape[3]);
    if (picture.size() != channels * pixels) {
      throw Refusal(ErrorCode::input, "the picture has " + std::to_string(picture.size()) + " bytes; this bundle reads " +
                                          std::to_string(manifest.input_shape[2]) + " x " +
                                          std::to_string(manifest.input_shape[3]) + " pixels of " +
                                          std::to_string(channels) + " channels");
    }
    std::vector<float> input(channels * pixels);
    for (size_t c = 0; c < channels; ++c) {
      for (size_t p = 0; p < pixels; ++p) {
        input[c * pixels + p] = static_cast<float>(picture[p * channels + c]) * manifest.scale[c] - manifest.shift[c];
      }
    }
    return input;
  });
}

}  // namespace paraedge
