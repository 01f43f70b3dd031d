// A bundle as one file: a zip of stored entries and nothing else. The rules are those of docs/bundle-format.md and
// of archive.py, which takes and refuses the same files.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace paraedge {

inline constexpr size_t kMaxFiles = 4096;

struct ArchiveEntry {  // where a file's bytes are in the archive
  int64_t offset, size_bytes;
  uint32_t crc32;
};

// The files of an open zip of `size` bytes; their bytes are not read. Throws Refusal (ErrorCode::integrity).
std::map<std::string, ArchiveEntry> read_archive(const std::string& path, int file, int64_t size);

// Reads all of `bytes` from `offset` on; false at the end of the file, or when it cannot be read (errno).
bool read_at(int file, int64_t offset, std::span<std::byte> bytes);

uint32_t crc32_of(std::span<const std::byte> data);

}  // namespace paraedge
