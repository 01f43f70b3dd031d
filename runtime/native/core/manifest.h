// manifest.json: the strict reader. The rules are those of docs/bundle-format.md and of manifest.py.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime.h"

namespace paraedge {

inline constexpr size_t kMaxManifestBytes = 1 << 20;

struct FileEntry {
  std::string file, sha256;
  int64_t size_bytes = 0;
};

struct ManifestFile {
  Manifest manifest;
  std::vector<FileEntry> files;  // everything that lies beside manifest.json
};

// Throws Refusal (ErrorCode::manifest), which names the field.
ManifestFile read_manifest(std::string_view json);

}  // namespace paraedge
