// libFuzzer: any bytes as manifest.json are read, or refused by name. See scripts/fuzz.sh.
#include <cstdint>
#include <cstdlib>

#include "manifest.h"
#include "refusal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file = paraedge::read_manifest({reinterpret_cast<const char*>(data), size});
    for (const auto& entry : file.files) {  // what is opened later, by this name and of this size
      if (!paraedge::is_plain_path(entry.file) || entry.size_bytes < 0 || entry.size_bytes > paraedge::kMaxBundleBytes) {
        std::abort();
      }
    }
  } catch (const paraedge::Refusal& refusal) {
    if (refusal.error.code != paraedge::ErrorCode::manifest) std::abort();
  }
  return 0;
}
