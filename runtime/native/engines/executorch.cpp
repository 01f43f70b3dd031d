// The ExecuTorch engine, a shared library of its own: the only file that speaks to ExecuTorch.
//
// How parts are loaded so that they really run at the same time (no workspace lock, no weight cache, no shared pool)
// is measured in docs/lab/performance.md.
#include "executorch.h"

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/backend/options.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

// Exported, but in no header that is shipped.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace paraedge {
namespace {

namespace et = executorch::extension;
namespace rt = executorch::runtime;
using et::threadpool::NoThreadPoolGuard;

// What keeps a program from being loaded; `code` is PE_ERROR_MANIFEST or PE_ERROR_ENGINE.
struct Failure : std::exception {
  Failure(int kind, std::string text) : code(kind), message(std::move(text)) {}
  const char* what() const noexcept override { return message.c_str(); }
  int code;
  std::string message;
};

std::string show(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

std::string describe(rt::Error error) {
  char code[16];
  std::snprintf(code, sizeof code, "0x%02x", static_cast<unsigned>(error));
  return std::string("ExecuTorch error ") + code;
}

void check(rt::Error error, const std::string& file, const char* doing) {
  if (error == rt::Error::Ok) return;
  throw Failure(PE_ERROR_ENGINE, "executorch failed while " + std::string(doing) + " " + file + ": " + describe(error) +
                                     "; 'paraedge verify' checks the bundle");
}

void check_tensor(const rt::Result<rt::TensorInfo>& info, const std::vector<int64_t>& expected, const std::string& file,
                  const char* kind) {
  std::vector<int64_t> found;
  bool is_float = false;
  if (info.ok()) {
    found.assign(info->sizes().begin(), info->sizes().end());
    is_float = info->scalar_type() == executorch::aten::ScalarType::Float;
  }
  if (is_float && found == expected) return;
  throw Failure(PE_ERROR_MANIFEST, file + ": the program's " + kind + " is " + show(found) +
                                       (is_float ? " float32" : ", not one float32 tensor") + ", the manifest says " +
                                       show(expected) + " float32; export the bundle again");
}

// A delegate that this build lacks would be an error without a name later.
void check_backends(const rt::MethodMeta& meta, const std::string& file) {
  for (size_t i = 0; i < meta.num_backends(); ++i) {
    const auto name = meta.get_backend_name(i);
    check(name.error(), file, "looking for the delegates of");
    if (rt::get_backend_class(*name) != nullptr) continue;
    throw Failure(PE_ERROR_ENGINE, file + " needs the delegate " + *name +
                                       ", which this build of ExecuTorch does not have; link it into the application, or "
                                       "export the bundle without --delegate");
  }
}

// Makes the calling thread run every kernel by itself as long as this lives; cheap. Kernels outside a
// delegate ask for the pool when they run, delegates when they are loaded.
class OneThread {
 public:
  OneThread() : before_(NoThreadPoolGuard::is_enabled()) { NoThreadPoolGuard::set_enabled(true); }
  ~OneThread() { NoThreadPoolGuard::set_enabled(before_); }

 private:
  bool before_;
};

// Says that the calling thread is in ExecuTorch for paraedge as long as this lives.
class OurCall {
 public:
  OurCall() { ++depth_; }
  ~OurCall() { --depth_; }
  static bool is_inside() { return depth_ > 0; }

 private:
  inline static thread_local int depth_ = 0;
};

class ExecuTorchPart {
 public:
  ExecuTorchPart(const pe_part& part, const void* program, size_t bytes)
      : splits_(part.threads > 1),
        input_shape_(part.input_shape, part.input_shape + part.input_rank),
        output_shape_(part.output_shape, part.output_shape + part.output_rank) {
    const std::string file = part.file;
    if (bytes > 0 && reinterpret_cast<uintptr_t>(program) % 16 != 0)
      throw Failure(PE_ERROR_ENGINE, file + ": its bytes are not aligned to 16");
    module_ = std::make_unique<et::Module>(std::make_unique<et::BufferDataLoader>(program, bytes));
    check(module_->load(rt::Program::Verification::InternalConsistency), file, "reading");
    const auto meta = module_->method_meta("forward");
    check(meta.error(), file, "looking for the method 'forward' of");
    if (meta->num_inputs() != 1 || meta->num_outputs() != 1) {
      throw Failure(PE_ERROR_MANIFEST, file + ": the program has " + std::to_string(meta->num_inputs()) +
                                           " inputs and " + std::to_string(meta->num_outputs()) +
                                           " outputs, not one each; export the bundle again");
    }
    check_backends(*meta, file);
    check_tensor(meta->input_tensor_meta(0), input_shape_, file, "input");
    check_tensor(meta->output_tensor_meta(0), output_shape_, file, "output");
    load_method(file);
    for (const int64_t size : output_shape_) output_size_ *= static_cast<size_t>(size);
    std::vector<executorch::aten::SizesType> sizes(input_shape_.begin(), input_shape_.end());
    input_ = et::make_tensor_ptr(std::move(sizes), static_cast<void*>(nullptr), executorch::aten::ScalarType::Float);
    inputs_.emplace_back(*input_);
  }

  int run(const float* input, float* output, char* message) {
    if (splits_) return execute(input, output, message);
    const OneThread one_thread;
    return execute(input, output, message);
  }

 private:
  void load_method(const std::string& file) {
    if (splits_) return check(module_->load_method("forward"), file, "loading");
    // Every part its own workspace and weights: those that parts share are locked while one of them runs, and phone
    // builds of ExecuTorch share weights by default. And no pool: which one a program uses is settled when it is
    // loaded.
    rt::BackendOptions<2> options;
    check(options.set_option("workspace_sharing_mode", 0), file, "preparing");
    check(options.set_option("weight_cache_enabled", false), file, "preparing");
    rt::LoadBackendOptionsMap map;
    check(map.set_options("XnnpackBackend", options.view()), file, "preparing");
    NoThreadPoolGuard guard;
    check(module_->load_method("forward", nullptr, nullptr, &map), file, "loading");
  }

  int execute(const float* input, float* output, char* message) {
    input_->unsafeGetTensorImpl()->set_data(const_cast<float*>(input));
    const auto result = module_->execute("forward", inputs_);
    std::string problem;
    if (!result.ok()) {
      problem = describe(result.error());
    } else if (static_cast<size_t>(result->at(0).toTensor().numel()) != output_size_) {
      problem = "an output of another size";
    } else {
      std::copy_n(result->at(0).toTensor().const_data_ptr<float>(), output_size_, output);
      return PE_OK;
    }
    std::snprintf(message, PE_MESSAGE_BYTES, "%s", problem.c_str());
    return PE_ERROR_ENGINE;
  }

  const bool splits_;
  const std::vector<int64_t> input_shape_, output_shape_;
  size_t output_size_ = 1;
  std::unique_ptr<et::Module> module_;
  et::TensorPtr input_;  // its data pointer is set for each run
  std::vector<rt::EValue> inputs_;
};

int load(void*, const pe_part* part, const void* program, size_t bytes, void** loaded, char* message) {
  rt::runtime_init();
  const OurCall inside;
  try {
    *loaded = new ExecuTorchPart(*part, program, bytes);
    return PE_OK;
  } catch (const Failure& failure) {
    std::snprintf(message, PE_MESSAGE_BYTES, "%s", failure.what());
    return failure.code;
  } catch (const std::exception& error) {
    std::snprintf(message, PE_MESSAGE_BYTES, "executorch failed while loading %s: %s", part->file, error.what());
    return PE_ERROR_ENGINE;
  }
}

int run(void* loaded, const float* input, float* output, char* message) {
  const OurCall inside;
  return static_cast<ExecuTorchPart*>(loaded)->run(input, output, message);
}

void close(void* loaded) { delete static_cast<ExecuTorchPart*>(loaded); }

int pool_threads(void*) {
  rt::runtime_init();
  const auto* pool = et::threadpool::get_threadpool();
  return pool == nullptr ? 1 : static_cast<int>(pool->get_thread_count());
}

void (*log_to)(int level, const char* message);
rt::PalImpl before;  // what ExecuTorch did with its messages

// Messages of our own calls go to the application's log; others, of its own use of ExecuTorch, go where they went.
void pass_on(et_timestamp_t time, et_pal_log_level_t level, const char* file, const char* function, size_t line,
             const char* message, size_t length) {
  if (!OurCall::is_inside()) return before.emit_log_message(time, level, file, function, line, message, length);
  char text[PE_MESSAGE_BYTES];
  std::snprintf(text, sizeof text, "executorch: %.*s (%s:%zu)", static_cast<int>(std::min(length, size_t{400})),
                message, file, line);
  log_to(level == kError || level == kFatal ? PE_LOG_ERROR : PE_LOG_INFO, text);
}

void set_log(void (*log)(int, const char*)) {
  constexpr std::string_view kDefault = "executorch/runtime/platform/platform.cpp";
  const rt::PalImpl* installed = rt::get_pal_impl();
  if (log_to || !installed->source_filename) return;
  if (!std::string_view(installed->source_filename).ends_with(kDefault)) return;  // the host has its own logger
  log_to = log;
  before = *installed;
  rt::register_pal(rt::PalImpl::create(pass_on, __FILE__));
}

const pe_engine kEngine = {sizeof(pe_engine), "executorch", nullptr, load,    run,    close, 0,
                           nullptr,           pool_threads, nullptr, nullptr, set_log};

}  // namespace

void resize_executorch_pool(int threads) {
  rt::runtime_init();
  if (auto* pool = et::threadpool::get_threadpool()) pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
}

void set_weight_cache(bool enabled) {
  rt::runtime_init();
  rt::BackendOptions<1> options;
  check(options.set_option("weight_cache_enabled", enabled), "the weight cache", "setting");
  check(rt::set_option("XnnpackBackend", options.view()), "the weight cache", "setting");
}

}  // namespace paraedge

const pe_engine* pe_engine_entry(int api_version) {
  return api_version == PE_API_VERSION ? &paraedge::kEngine : nullptr;
}

const char* pe_executorch_version() { return PARAEDGE_EXECUTORCH_VERSION; }
