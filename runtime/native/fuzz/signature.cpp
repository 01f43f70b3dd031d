// libFuzzer: any bytes as a signature, a key, or a key's file are taken or refused by name. See scripts/fuzz.sh.
// The first byte says which of the three the others are.
#include "signature.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "refusal.h"

namespace {

using paraedge::ErrorCode;

// The key "release" of tests/support/keys.py, so that the signatures of the corpus are of a trusted key.
const std::string kKey = "RWSqmeO2r707AZ1Y/Pv55/qY1fy2o9q6RwrOe5eofa6TOVId14k2nExb";

void check_signature(std::span<const std::byte> signature) {
  static const auto keys = paraedge::read_trusted_keys({&kKey, 1});
  static const std::string manifest = "{}";
  paraedge::check_signature("the bundle", std::as_bytes(std::span(manifest)), signature, keys);
}

void read_key(std::string text) { paraedge::read_trusted_keys({&text, 1}); }

void read_key_file(std::span<const std::byte> bytes) {
  const int file = ::memfd_create("fuzz", MFD_CLOEXEC);
  if (file < 0 || ::write(file, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  struct Close {
    int file;
    ~Close() { ::close(file); }
  } const close{file};
  read_key("/proc/self/fd/" + std::to_string(file));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  try {
    switch (data[0] % 3) {
      case 0: check_signature(bytes); break;
      case 1: read_key(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())); break;
      default: read_key_file(bytes);
    }
  } catch (const paraedge::Refusal& refusal) {
    if (refusal.error.code != (data[0] % 3 == 0 ? ErrorCode::integrity : ErrorCode::input)) std::abort();
  }
  return 0;
}
