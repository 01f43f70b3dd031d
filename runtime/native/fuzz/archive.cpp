// libFuzzer: any bytes as a zip are read, or refused by name; every entry lies inside the file. See scripts/fuzz.sh.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "archive.h"
#include "manifest.h"
#include "refusal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int file = ::memfd_create("fuzz", MFD_CLOEXEC);
  if (file < 0 || ::write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
  try {
    for (const auto& [name, entry] : paraedge::read_archive("the zip", file, static_cast<int64_t>(size))) {
      std::vector<std::byte> bytes(static_cast<size_t>(entry.size_bytes));
      if (!paraedge::is_plain_path(name) || !paraedge::read_at(file, entry.offset, bytes)) std::abort();
      paraedge::crc32_of(bytes);
    }
  } catch (const paraedge::Refusal& refusal) {
    if (refusal.error.code != paraedge::ErrorCode::integrity) std::abort();
  }
  ::close(file);
  return 0;
}
