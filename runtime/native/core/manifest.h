// manifest.json: the strict reader. The rules are those of docs/bundle-format.md and of manifest.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime.h"

namespace paraedge {

inline constexpr int64_t kMaxManifestBytes = 1 << 20;  // of the card too
inline constexpr int64_t kMaxSignatureBytes = 4096;
inline constexpr int64_t kMaxBundleBytes = int64_t{1} << 31;  // of all files together
inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kManifestHashName = "manifest.sha256";
inline constexpr const char* kCardName = "card.json";
inline constexpr const char* kSignatureName = "manifest.json.minisig";

struct FileEntry {
  std::string file, sha256;
  int64_t size_bytes = 0;
};

struct ManifestFile {
  Manifest manifest;
  std::vector<FileEntry> files;  // everything that lies beside manifest.json, its hash and its signature
  bool is_signed = false;
};

// Relative, forward slashes, letters, digits and "._+-", at most 200; nothing climbs and nothing is hidden.
bool is_plain_path(std::string_view path);
std::string lower(std::string text);           // of ASCII
std::string show_name(std::string_view name);      // for messages, whatever bytes are in it

// Throws Refusal (ErrorCode::manifest), which names the field.
ManifestFile read_manifest(std::string_view json);

}  // namespace paraedge
