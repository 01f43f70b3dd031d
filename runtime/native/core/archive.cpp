// Entries follow each other without a gap, in the order of the directory, which follows them; each is said twice in
// the same words. Nothing is compressed, encrypted, hidden, or there twice.
#include "archive.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <vector>

#include "manifest.h"
#include "refusal.h"

namespace paraedge {
namespace {

constexpr size_t kEndBytes = 22, kCentralBytes = 46, kLocalBytes = 30;
constexpr uint32_t kFileType = 0x8000, kFolderType = 0x4000, kLinkType = 0xa000;
constexpr uint32_t kEncrypted = 1, kUtf8Name = 0x800;  // the latter says nothing of a name in ASCII
constexpr uint32_t kNewestVersion = 20;

// Little-endian numbers of a record.
class Record {
 public:
  explicit Record(const std::byte* bytes) : bytes_(bytes) {}
  uint32_t u8(size_t at) const { return std::to_integer<uint32_t>(bytes_[at]); }
  uint32_t u16(size_t at) const { return u8(at) | u8(at + 1) << 8; }
  uint32_t u32(size_t at) const { return u16(at) | u16(at + 2) << 16; }
  bool begins(const char* signature) const { return std::memcmp(bytes_, signature, 4) == 0; }

 private:
  const std::byte* bytes_;
};

[[noreturn]] void refuse(const std::string& path, const std::string& problem) {
  throw Refusal(ErrorCode::integrity, path + problem);
}

struct Directory {
  size_t count = 0;
  int64_t offset = 0;
  std::vector<std::byte> bytes;
};

Directory read_directory(const std::string& path, int file, int64_t size) {
  const std::string problem = " is neither a bundle folder nor a zip made by 'paraedge pack'";
  std::array<std::byte, kEndBytes> bytes;
  const Record end(bytes.data());
  if (size < static_cast<int64_t>(kEndBytes) || !read_at(file, size - static_cast<int64_t>(kEndBytes), bytes) ||
      !end.begins("PK\5\6")) {
    refuse(path, problem + "; copy it again");
  }
  const bool one_disk = end.u16(4) == 0 && end.u16(6) == 0 && end.u16(8) == end.u16(10);
  const int64_t directory_bytes = end.u32(12), offset = end.u32(16);
  const bool has_comment = end.u16(20) != 0;
  if (!one_disk || has_comment || offset + directory_bytes + static_cast<int64_t>(kEndBytes) != size) {
    refuse(path, problem + ": its last record is damaged; copy it again");
  }
  Directory found{end.u16(10), offset, {}};
  if (found.count > kMaxFiles) {
    refuse(path, " holds " + std::to_string(found.count) + " files, more than " + std::to_string(kMaxFiles) +
                     "; it is not a bundle");
  }
  if (static_cast<size_t>(directory_bytes) > found.count * (kCentralBytes + 201)) {
    refuse(path, ": the zip's directory is damaged; copy the file again");
  }
  found.bytes.resize(static_cast<size_t>(directory_bytes));
  if (!read_at(file, offset, found.bytes)) refuse(path, " cannot be read; copy it again");
  return found;
}

}  // namespace

std::map<std::string, ArchiveEntry> read_archive(const std::string& path, int file, int64_t size) {
  const Directory directory = read_directory(path, file, size);
  std::map<std::string, ArchiveEntry> files;
  std::set<std::string> taken;
  size_t position = 0;
  int64_t expected_offset = 0;
  for (size_t number = 0; number < directory.count; ++number) {
    const std::byte* bytes = directory.bytes.data() + position;
    const Record central(bytes);
    if (directory.bytes.size() - position < kCentralBytes || !central.begins("PK\1\2")) {
      refuse(path, ": the zip's directory is damaged; copy the file again");
    }
    const size_t name_bytes = central.u16(28);
    const bool name_is_there = directory.bytes.size() - position - kCentralBytes >= name_bytes;
    const std::string name(reinterpret_cast<const char*>(bytes + kCentralBytes), name_is_there ? name_bytes : 0);
    position += kCentralBytes + name_bytes;
    const bool is_folder = name.ends_with('/');
    const std::string plain = is_folder ? name.substr(0, name.size() - 1) : name;
    auto require = [&](bool fine, const std::string& problem) {
      if (!fine) refuse(path, ": " + show_name(name) + " " + problem + "; pack the bundle again with 'paraedge pack'");
    };

    require(name_is_there && is_plain_path(plain), "is not a plain path inside the bundle");
    require(taken.insert(lower(plain)).second, "is in the zip twice");
    const uint32_t version = central.u16(6), flags = central.u16(8), method = central.u16(10);
    const uint32_t crc32 = central.u32(16);
    const int64_t packed_bytes = central.u32(20), size_bytes = central.u32(24), offset = central.u32(42);
    const uint32_t extra_bytes = central.u16(30), comment_bytes = central.u16(32), disk = central.u16(34);
    const uint32_t kind = central.u32(38) >> 16 & 0xf000;
    require(kind != kLinkType, "is a symbolic link");
    require(kind == 0 || kind == (is_folder ? kFolderType : kFileType), "is not a plain file");
    require(method == 0 && (flags & kEncrypted) == 0, "is compressed or encrypted");
    require((flags == 0 || flags == kUtf8Name) && version <= kNewestVersion, "needs a newer reader of zips");
    require(extra_bytes == 0 && comment_bytes == 0 && disk == 0, "has an extra field or a comment");
    require(packed_bytes == size_bytes,
            "claims " + std::to_string(size_bytes) + " bytes in " + std::to_string(packed_bytes));
    require(!is_folder || (size_bytes == 0 && crc32 == 0), "is a folder with bytes in it");
    require(offset == expected_offset, "does not follow the entry before it");
    const int64_t header_bytes = static_cast<int64_t>(kLocalBytes + name_bytes);
    expected_offset = offset + header_bytes + size_bytes;
    require(expected_offset <= directory.offset,
            "claims " + std::to_string(size_bytes) + " bytes of a " + std::to_string(size) + " byte zip");
    std::vector<std::byte> local(static_cast<size_t>(header_bytes));
    const bool same = read_at(file, offset, local) && Record(local.data()).begins("PK\3\4") &&
                      std::memcmp(local.data() + 4, bytes + 6, kLocalBytes - 4) == 0 &&
                      std::memcmp(local.data() + kLocalBytes, bytes + kCentralBytes, name_bytes) == 0;
    require(same, "is not what the zip's directory says");
    if (!is_folder) files.emplace(name, ArchiveEntry{offset + header_bytes, size_bytes, crc32});
  }
  if (position != directory.bytes.size() || expected_offset != directory.offset) {
    refuse(path, ": the zip has bytes that belong to no file; pack the bundle again");
  }
  return files;
}

bool read_at(int file, int64_t offset, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      if (got == 0) errno = 0;
      return false;
    }
    bytes = bytes.subspan(static_cast<size_t>(got));
    offset += got;
  }
  return true;
}

uint32_t crc32_of(std::span<const std::byte> data) {
  uint32_t crc = 0xffffffff;
  for (const std::byte byte : data) {
    crc ^= std::to_integer<uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
  }
  return ~crc;
}

}  // namespace paraedge
