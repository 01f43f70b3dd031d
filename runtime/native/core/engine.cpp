// Engines by name, shared libraries that hold one, and the process's log callback.
#include "engine.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>

#include "program.h"
#include "refusal.h"

namespace paraedge {
namespace {

std::mutex& registry_mutex() {
  static std::mutex mutex;
  return mutex;
}

std::map<std::string, pe_engine>& registry() {
  static auto* engines = new std::map<std::string, pe_engine>();  // never destroyed: threads may outlive main()
  return *engines;
}

std::mutex log_mutex;
void (*log_callback)(int, const char*, void*) = nullptr;
void* log_context = nullptr;

// A struct of an older header is shorter: what it lacks is 0.
pe_engine complete(const pe_engine& given) {
  pe_engine engine{};
  std::memcpy(&engine, &given, std::min(given.size, sizeof engine));
  engine.size = sizeof engine;
  return engine;
}

// The path of a library in the folder of this one, if it is there; else its name, which dlopen looks for.
std::string beside_us(const std::string& library) {
  Dl_info us{};
  if (library.find('/') != std::string::npos) return library;
  if (dladdr(reinterpret_cast<void*>(&find_engine), &us) == 0 || !us.dli_fname) return library;
  const std::string own = us.dli_fname;
  const size_t slash = own.rfind('/');
  if (slash == std::string::npos) return library;
  const std::string path = own.substr(0, slash + 1) + library;
  return access(path.c_str(), R_OK) == 0 ? path : library;
}

}  // namespace

std::optional<pe_engine> find_engine(const std::string& name) {
  std::lock_guard lock(registry_mutex());
  const auto found = registry().find(name);
  return found == registry().end() ? std::nullopt : std::optional(found->second);
}

void register_engine(const pe_engine& given) {
  constexpr size_t least = offsetof(pe_engine, close) + sizeof given.close;
  if (given.size < least) {
    throw Refusal(ErrorCode::input, "pe_engine.size is " + std::to_string(given.size) + ", less than " +
                                        std::to_string(least) + "; set it to sizeof(pe_engine)");
  }
  if (!given.name || !given.load || !given.run || !given.close) {
    throw Refusal(ErrorCode::input, "a pe_engine needs a name and the functions load, run and close");
  }
  const pe_engine engine = complete(given);
  if (engine.set_log) {
    engine.set_log([](int level, const char* message) {
      try {
        log(level, message);
      } catch (const std::exception&) {  // no memory for a message
      }
    });
  }
  std::lock_guard lock(registry_mutex());
  registry()[engine.name] = engine;
}

void load_engine(const std::string& library) {
  // Never closed: parts and threads of the engine may exist until the process ends.
  void* handle = dlopen(beside_us(library).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw Refusal(ErrorCode::unavailable, std::string("an engine cannot be loaded: ") + dlerror());
  const auto entry = reinterpret_cast<const pe_engine* (*)(int)>(dlsym(handle, "pe_engine_entry"));
  if (!entry) throw Refusal(ErrorCode::unavailable, library + " is not a paraedge engine: it lacks pe_engine_entry");
  const pe_engine* engine = entry(PE_API_VERSION);
  if (!engine) {
    throw Refusal(ErrorCode::unavailable,
                  library + " was built for another version of paraedge; install both from the same release");
  }
  register_engine(*engine);
}

std::string engine_names() {
  std::lock_guard lock(registry_mutex());
  std::string names;
  for (const auto& [name, engine] : registry()) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? "none" : names;
}

std::string as_utf8(const char (&message)[PE_MESSAGE_BYTES]) {
  return as_utf8(std::string(message, strnlen(message, sizeof message)));
}

std::string as_utf8(std::string text) {
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    const auto second = static_cast<unsigned char>(at + 1 < text.size() ? text[at + 1] : 0);
    bool valid = length > 0 && at + length <= text.size();
    for (size_t i = 1; valid && i < length; ++i) valid = (static_cast<unsigned char>(text[at + i]) & 0xC0) == 0x80;
    // Overlong, surrogates, above U+10FFFF.
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) || (lead == 0xF0 && second < 0x90) ||
        (lead == 0xF4 && second > 0x8F)) {
      valid = false;
    }
    if (!valid) text[at] = '?';
    at += valid ? length : 1;
  }
  return text;
}

LoadedPart::LoadedPart(const pe_engine& engine, const Program& program, std::string name, int threads)
    : engine_(complete(engine)), name_(std::move(name)) {
  const Part& part = program.part;
  check_program(engine_.name, part.file, program.bytes, part.delegate);
  pe_part described{};
  described.size = sizeof described;
  described.name = name_.c_str();
  described.file = part.file.c_str();
  described.input_shape = part.input_shape.data();
  described.output_shape = part.output_shape.data();
  described.input_rank = part.input_shape.size();
  described.output_rank = part.output_shape.size();
  described.threads = threads;
  char message[PE_MESSAGE_BYTES];
  message[0] = 0;
  const int code =
      engine_.load(engine_.context, &described, program.bytes.data(), program.bytes.size(), &loaded_, message);
  if (code == PE_OK) return;
  const bool refused = code == PE_ERROR_MANIFEST || code == PE_ERROR_INTEGRITY;
  throw Refusal(refused ? static_cast<ErrorCode>(code) : ErrorCode::engine,
                message[0] ? as_utf8(message) : std::string(engine_.name) + " failed to load " + part.file);
}

LoadedPart::~LoadedPart() {
  if (loaded_) engine_.close(loaded_);
}

void log(int level, const std::string& message) {
  std::lock_guard lock(log_mutex);
  if (log_callback) log_callback(level, message.c_str(), log_context);
}

void set_log(void (*callback)(int, const char*, void*), void* context) {
  std::lock_guard lock(log_mutex);
  log_callback = callback;
  log_context = context;
}

}  // namespace paraedge
