// libFuzzer: any bytes as a program, after one that says whose, are passed, or refused by name. See scripts/fuzz.sh.
#include <cstdint>
#include <cstdlib>

#include "program.h"
#include "refusal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const char* engines[] = {"executorch", "litert", "onnxruntime"};
  try {
    paraedge::check_program(engines[data[0] % 3], "x", {reinterpret_cast<const std::byte*>(data + 1), size - 1});
  } catch (const paraedge::Refusal& refusal) {
    if (refusal.error.code != paraedge::ErrorCode::integrity) std::abort();
  }
  return 0;
}
