// The only file that speaks to ExecuTorch. How parts are loaded so that they really run at the same time
// (no workspace lock, no shared pool) is measured in docs/performance.md.
#include "part.h"

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/backend/options.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "refusal.h"
#include "shape.h"

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

// Warnings and what is worse go to stderr; what ExecuTorch tells of itself is nobody's business.
void log(et_timestamp_t, et_pal_log_level_t level, const char* file, const char*, size_t line, const char* message,
         size_t) {
  if (level == kDebug || level == kInfo) return;
  std::fprintf(stderr, "executorch %c %s:%zu] %s\n", static_cast<char>(level), file, line, message);
}

void start_runtime() {
  [[maybe_unused]] static const bool registered = rt::register_pal(rt::PalImpl::create(log, __FILE__));
  rt::runtime_init();
}

std::string describe(rt::Error error) {
  char code[16];
  std::snprintf(code, sizeof code, "0x%02x", static_cast<unsigned>(error));
  return std::string("ExecuTorch error ") + code;
}

void check(rt::Error error, const std::string& file, const char* doing) {
  if (error != rt::Error::Ok) {
    throw Refusal(ErrorCode::engine, "executorch failed while " + std::string(doing) + " " + file + ": " +
                                         describe(error) + "; 'paraedge verify' checks the bundle");
  }
}

void check_tensor(const rt::Result<rt::TensorInfo>& info, const Shape& expected, const std::string& file,
                  const char* kind) {
  Shape found;
  bool is_float = false;
  if (info.ok()) {
    found.assign(info->sizes().begin(), info->sizes().end());
    is_float = info->scalar_type() == executorch::aten::ScalarType::Float;
  }
  if (!is_float || found != expected) {
    throw Refusal(ErrorCode::manifest, file + ": the program's " + kind + " is " + show(found) +
                                           (is_float ? " float32" : ", not one float32 tensor") +
                                           ", the manifest says " + show(expected) +
                                           " float32; export the bundle again");
  }
}

}  // namespace

struct LoadedPart::Impl {
  std::unique_ptr<et::Module> module;
  et::TensorPtr input;  // its data pointer is set for each run
  std::vector<rt::EValue> inputs;
};

LoadedPart::LoadedPart(const Program& program, const std::string& name, Threading threading)
    : impl_(std::make_unique<Impl>()), name_(name) {
  start_runtime();
  const std::string& file = program.part.file;
  if (!program.bytes.empty() && reinterpret_cast<uintptr_t>(program.bytes.data()) % 16 != 0) {
    throw Refusal(ErrorCode::input, file + ": its bytes are not aligned to 16");
  }
  impl_->module = std::make_unique<et::Module>(
      std::make_unique<et::BufferDataLoader>(program.bytes.data(), program.bytes.size()));
  check(impl_->module->load(rt::Program::Verification::InternalConsistency), file, "reading");
  const auto meta = impl_->module->method_meta("forward");
  check(meta.error(), file, "looking for the method 'forward' of");
  if (meta->num_inputs() != 1 || meta->num_outputs() != 1) {
    throw Refusal(ErrorCode::manifest, file + ": the program has " + std::to_string(meta->num_inputs()) +
                                           " inputs and " + std::to_string(meta->num_outputs()) +
                                           " outputs, not one each; export the bundle again");
  }
  check_tensor(meta->input_tensor_meta(0), program.part.input_shape, file, "input");
  check_tensor(meta->output_tensor_meta(0), program.part.output_shape, file, "output");

  if (threading == Threading::one) {
    // Every part its own workspace: the shared one is locked while a part runs. And no pool: which one
    // a program uses is settled when it is loaded.
    rt::BackendOptions<1> options;
    check(options.set_option("workspace_sharing_mode", 0), file, "preparing");
    rt::LoadBackendOptionsMap map;
    check(map.set_options("XnnpackBackend", options.view()), file, "preparing");
    NoThreadPoolGuard guard;
    check(impl_->module->load_method("forward", nullptr, nullptr, &map), file, "loading");
  } else {
    check(impl_->module->load_method("forward"), file, "loading");
  }
  std::vector<executorch::aten::SizesType> sizes(program.part.input_shape.begin(), program.part.input_shape.end());
  impl_->input = et::make_tensor_ptr(std::move(sizes), static_cast<void*>(nullptr),
                                     executorch::aten::ScalarType::Float);
  impl_->inputs.emplace_back(*impl_->input);
}

LoadedPart::~LoadedPart() = default;

std::string LoadedPart::run(const float* input, std::span<float> output) {
  impl_->input->unsafeGetTensorImpl()->set_data(const_cast<float*>(input));
  const auto answer = impl_->module->execute("forward", impl_->inputs);
  if (!answer.ok()) return describe(answer.error());
  const auto& tensor = answer->at(0).toTensor();
  if (static_cast<size_t>(tensor.numel()) != output.size()) return "an output of another size";
  std::copy_n(tensor.const_data_ptr<float>(), output.size(), output.data());
  return "";
}

int pool_threads() {
  start_runtime();
  const auto* pool = et::threadpool::get_threadpool();
  return pool == nullptr ? 1 : static_cast<int>(pool->get_thread_count());
}

void resize_pool(int threads) {
  start_runtime();
  if (auto* pool = et::threadpool::get_threadpool()) pool->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
}

OneThread::OneThread() : before_(NoThreadPoolGuard::is_enabled()) { NoThreadPoolGuard::set_enabled(true); }
OneThread::~OneThread() { NoThreadPoolGuard::set_enabled(before_); }

}  // namespace paraedge
