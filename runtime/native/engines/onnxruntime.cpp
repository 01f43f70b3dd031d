// The ONNX Runtime engine: its C API, loaded when asked for. One session per part, one thread each, no spinning pools.
//
// A run that is late is really stopped, by the terminate flag of its run options, so that the next request finds the
// core free.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine.h"
#include "onnxruntime_api.h"
#include "refusal.h"
#include "shape.h"

namespace paraedge {
namespace {

using Table = const void* const*;
Table table = nullptr;  // set once, before the engine is registered
ort::Env* env = nullptr;
ort::MemoryInfo* memory = nullptr;  // ordinary memory

std::string message_of(ort::Status* status) {  // and frees it
  std::string message = ort::get_error_message(table, status);
  ort::release_status(table, status);
  return message.substr(0, 300);
}

void check(ort::Status* status, const std::string& doing) {
  if (status == nullptr) return;
  throw Refusal(ErrorCode::engine, "onnxruntime failed while " + doing + ": " + message_of(status) +
                                       "; 'paraedge verify' checks the bundle");
}

template <class T, const auto& Release>
struct Releaser {
  void operator()(T* object) const { Release(table, object); }
};
template <class T, const auto& Release>
using Owned = std::unique_ptr<T, Releaser<T, Release>>;
using OwnedSession = Owned<ort::Session, ort::release_session>;
using OwnedSessionOptions = Owned<ort::SessionOptions, ort::release_session_options>;
using OwnedRunOptions = Owned<ort::RunOptions, ort::release_run_options>;
using OwnedValue = Owned<ort::Value, ort::release_value>;
using OwnedTypeInfo = Owned<ort::TypeInfo, ort::release_type_info>;

const char* name_of(ort::ElementType type) {
  switch (type) {
    case ort::ElementType::float32: return "float32";
    case ort::ElementType::float16: return "float16";
    case ort::ElementType::float64: return "float64";
    default: return "of another type";
  }
}

class OnnxPart {
 public:
  OnnxPart(const pe_part& part, const void* program, size_t bytes)
      : name_(part.name), input_shape_(part.input_shape, part.input_shape + part.input_rank),
        output_shape_(part.output_shape, part.output_shape + part.output_rank) {
    const std::string file = part.file, loading = "loading " + file;
    ort::SessionOptions* options = nullptr;
    check(ort::create_session_options(table, &options), loading);
    const OwnedSessionOptions owned(options);
    check(ort::set_intra_op_threads(table, options, 1), loading);
    check(ort::set_inter_op_threads(table, options, 1), loading);
    check(ort::set_log_level(table, options, static_cast<int>(ort::LogLevel::error)), loading);
    // An idle pool that spins slows everything beside it.
    check(ort::add_config_entry(table, options, "session.intra_op.allow_spinning", "0"), loading);
    // Its own format is another way to weights from outside, which nobody looked for there.
    check(ort::add_config_entry(table, options, "session.load_model_format", "ONNX"), loading);
    // x86 without VNNI adds pairs of 8-bit products in 16 bits, which overflow silently; exact there, and slower.
    check(ort::add_config_entry(table, options, "session.x64quantprecision", "1"), loading);
    ort::Session* session = nullptr;
    check(ort::create_session(table, env, program, bytes, options, &session), loading);
    session_.reset(session);
    size_t inputs = 0, outputs = 0;
    check(ort::input_count(table, session, &inputs), loading);
    check(ort::output_count(table, session, &outputs), loading);
    if (inputs != 1 || outputs != 1) {
      throw Refusal(ErrorCode::manifest, file + ": the program has " + std::to_string(inputs) + " inputs and " +
                                             std::to_string(outputs) + " outputs, not one each; export the bundle again");
    }
    check_tensor(ort::input_type, input_shape_, file, "input");
    check_tensor(ort::output_type, output_shape_, file, "output");
    input_name_ = name_by(ort::input_name, loading);
    output_name_ = name_by(ort::output_name, loading);
    ort::RunOptions* run_options = nullptr;
    check(ort::create_run_options(table, &run_options), loading);
    run_options_.reset(run_options);
    // A run that is stopped is no error to be told of.
    check(ort::set_run_log_level(table, run_options, static_cast<int>(ort::LogLevel::fatal)), loading);
    input_size_ = elements(input_shape_);
    output_size_ = elements(output_shape_);
  }

  int run(const float* input, float* output, char* message) {
    ort::Status* status = ort::unset_terminate(table, run_options_.get());
    OwnedValue in, out;
    if (!status) status = tensor(const_cast<float*>(input), input_size_, input_shape_, in);
    if (!status) status = tensor(output, output_size_, output_shape_, out);
    if (!status) {
      const char *input_name = input_name_.c_str(), *output_name = output_name_.c_str();
      const ort::Value* inputs = in.get();
      ort::Value* outputs = out.get();
      status = ort::run(table, session_.get(), run_options_.get(), &input_name, &inputs, size_t{1}, &output_name,
                        size_t{1}, &outputs);
    }
    if (!status) return PE_OK;
    std::snprintf(message, PE_MESSAGE_BYTES, "onnxruntime failed while running %s: %s", name_.c_str(),
                  message_of(status).c_str());
    return PE_ERROR_ENGINE;
  }

  void cancel() {
    if (ort::Status* status = ort::set_terminate(table, run_options_.get())) message_of(status);
  }

 private:
  static ort::Status* tensor(float* values, size_t count, const Shape& shape, OwnedValue& owned) {
    ort::Value* value = nullptr;
    ort::Status* status = ort::create_tensor(table, memory, static_cast<void*>(values), count * sizeof(float), shape.data(), shape.size(),
                                             ort::ElementType::float32, &value);
    owned.reset(value);
    return status;
  }

  template <class GetType>
  void check_tensor(const GetType& get_type, const Shape& expected, const std::string& file, const char* kind) const {
    const std::string loading = "loading " + file;
    ort::TypeInfo* type = nullptr;
    check(get_type(table, session_.get(), size_t{0}, &type), loading);
    const OwnedTypeInfo owned(type);
    const ort::TensorInfo* tensor = nullptr;
    check(ort::cast_to_tensor_info(table, type, &tensor), loading);
    Shape found;
    ort::ElementType element{};
    if (tensor != nullptr) {
      size_t rank = 0;
      check(ort::element_type(table, tensor, &element), loading);
      check(ort::dimension_count(table, tensor, &rank), loading);
      found.resize(rank);
      check(ort::dimensions(table, tensor, found.data(), rank), loading);
    }
    if (element == ort::ElementType::float32 && found == expected) return;
    throw Refusal(ErrorCode::manifest, file + ": the program's " + kind + " is " + show(found) + " " + name_of(element) +
                                           ", the manifest says " +
                                           show(expected) + " float32; export the bundle again");
  }

  template <class GetName>
  std::string name_by(const GetName& get_name, const std::string& loading) const {
    ort::Allocator* allocator = nullptr;
    check(ort::default_allocator(table, &allocator), loading);
    char* text = nullptr;
    check(get_name(table, session_.get(), size_t{0}, allocator, &text), loading);
    std::string name = text;
    if (ort::Status* status = ort::allocator_free(table, allocator, static_cast<void*>(text))) message_of(status);
    return name;
  }

  const std::string name_;
  const Shape input_shape_, output_shape_;
  size_t input_size_ = 0, output_size_ = 0;
  std::string input_name_, output_name_;
  OwnedSession session_;
  OwnedRunOptions run_options_;
};

int load(void*, const pe_part* part, const void* program, size_t bytes, void** loaded, char* message) {
  try {
    *loaded = new OnnxPart(*part, program, bytes);
    return PE_OK;
  } catch (const Refusal& refusal) {
    std::snprintf(message, PE_MESSAGE_BYTES, "%s", refusal.what());
    return static_cast<int>(refusal.error.code);
  } catch (const std::exception& error) {
    std::snprintf(message, PE_MESSAGE_BYTES, "onnxruntime failed while loading %s: %s", part->file, error.what());
    return PE_ERROR_ENGINE;
  }
}

int run(void* loaded, const float* input, float* output, char* message) {
  return static_cast<OnnxPart*>(loaded)->run(input, output, message);
}

void close(void* loaded) { delete static_cast<OnnxPart*>(loaded); }
void cancel(void* loaded) { static_cast<OnnxPart*>(loaded)->cancel(); }

// What ONNX Runtime would write to stderr. An environment that the process had before keeps its own way.
void pass_on(void*, ort::LogLevel level, const char*, const char*, const char* place, const char* message) {
  try {
    log(level >= ort::LogLevel::error ? PE_LOG_ERROR : PE_LOG_WARNING,
        std::string("onnxruntime: ") + message + " (" + place + ")");
  } catch (const std::exception&) {  // no memory for a message
  }
}

constexpr pe_engine kEngine = {sizeof(pe_engine), "onnxruntime", nullptr, load,    run,    close, 0,
                               cancel,            nullptr,       nullptr, nullptr, nullptr};

}  // namespace

void load_onnxruntime(const std::string& library) {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (table) return;  // a process has one
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) throw Refusal(ErrorCode::unavailable, std::string("ONNX Runtime cannot be loaded: ") + dlerror());
  const auto get_base = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  if (!get_base) throw Refusal(ErrorCode::unavailable, library + " is not ONNX Runtime: it lacks OrtGetApiBase");
  const ort::ApiBase* base = get_base();
  Table found = base->get_api(ort::kApiVersion);
  if (!found) {
    throw Refusal(ErrorCode::unavailable, "ONNX Runtime " + std::string(base->version_string()) +
                                              " is too old; install version 1.19 or newer");
  }
  table = found;
  ort::Status* status = ort::create_env_with_log(table, &pass_on, static_cast<void*>(nullptr), ort::LogLevel::error, "paraedge", &env);
  if (!status) status = ort::create_cpu_memory_info(table, ort::kArenaAllocator, ort::kMemoryDefault, &memory);
  if (status) {
    const std::string problem = message_of(status);
    table = nullptr;
    throw Refusal(ErrorCode::unavailable, "ONNX Runtime cannot be started: " + problem);
  }
  register_engine(kEngine);
}

}  // namespace paraedge
