// An inference engine as the core uses it: parts loaded through a pe_engine, and the engines known by name.
#pragma once

#include <optional>
#include <string>

#include "paraedge/paraedge.h"
#include "runtime.h"

namespace paraedge {

// An engine by its name in the manifest, if one is registered.
std::optional<pe_engine> find_engine(const std::string& name);
// Throws Refusal (input): it lacks a name or a function.
void register_engine(const pe_engine& engine);
// Loads a shared library that exports pe_engine_entry, and registers its engine. Throws Refusal (unavailable).
void load_engine(const std::string& library);
// Names of the registered engines, for messages.
std::string engine_names();

// ONNX Runtime by its C API; engines/onnxruntime.cpp. Throws Refusal (unavailable).
void load_onnxruntime(const std::string& library);

// An engine's message, with '?' for what is no UTF-8, such as a character that was cut in two.
std::string as_utf8(const char (&message)[PE_MESSAGE_BYTES]);
// The same of any message: one with a path in it, which may be any bytes.
std::string as_utf8(std::string text);

struct RunResult {
  int code = PE_OK;
  std::string problem;  // empty when the code is PE_OK
};

class LoadedPart {
 public:
  // `threads` above 1 lets the engine use its own pool. Throws Refusal: `manifest` when the program is not what the
  // manifest says, else `engine`. The program's bytes must outlive the part. Load parts one after another.
  LoadedPart(const pe_engine& engine, const Program& program, std::string name, int threads);
  ~LoadedPart();
  LoadedPart(const LoadedPart&) = delete;
  LoadedPart& operator=(const LoadedPart&) = delete;

  // One thread at a time; different parts may run at the same time.
  RunResult run(const float* input, float* output) {
    char message[PE_MESSAGE_BYTES];
    message[0] = 0;
    const int code = engine_.run(loaded_, input, output, message);
    if (code == PE_OK) return {};
    return {code, message[0] ? as_utf8(message) : std::string(engine_.name) + " failed while running " + name_};
  }
  // Asks a run in progress to return soon; does nothing where the engine cannot.
  void cancel() {
    if (engine_.cancel) engine_.cancel(loaded_);
  }
  const std::string& name() const { return name_; }

 private:
  const pe_engine engine_;
  const std::string name_;
  void* loaded_ = nullptr;
};

// Passes a message to the application's log callback, if there is one.
void log(int level, const std::string& message);
void set_log(void (*callback)(int, const char*, void*), void* context);

}  // namespace paraedge
