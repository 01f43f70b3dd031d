// The C interface: paraedge.h over the core's own types. No exception leaves a function of it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine.h"
#include "paraedge/paraedge.h"
#include "refusal.h"
#include "runtime.h"
#include "shape.h"

struct pe_error {
  int code;
  std::string message;
};

namespace {
pe_error no_memory{PE_ERROR_ENGINE, "out of memory"};  // the one that is never freed
}  // namespace

struct pe_bundle {
  std::shared_ptr<const paraedge::Bundle> value;
};

struct pe_session {
  std::shared_ptr<const paraedge::Bundle> bundle;
  std::unique_ptr<paraedge::Session> value;
};

struct pe_prediction {
  paraedge::Prediction value;
};

namespace paraedge {
namespace {

constexpr double kNever = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 2;  // 146 years after the device was started

static_assert(std::is_same_v<Clock::period, std::nano>, "nanoseconds of the C interface are ticks of the core's clock");

void set(pe_error** error, int code, std::string message) noexcept {
  if (!error) return;
  *error = new (std::nothrow) pe_error{code, as_utf8(std::move(message))};
  if (!*error) *error = &no_memory;
}

// Runs `body`, and returns what it returns; if it throws, `failed`, with the error set.
template <class T, class Body>
T attempt(pe_error** error, T failed, Body&& body) noexcept {
  try {
    return body();
  } catch (Refusal& refusal) {
    set(error, static_cast<int>(refusal.error.code), std::move(refusal.error.message));
  } catch (const std::exception& problem) {
    set(error, PE_ERROR_ENGINE, problem.what());
  } catch (...) {
    set(error, PE_ERROR_INPUT, "a callback threw an exception; catch it there");
  }
  return failed;
}

// The same for a function that returns a code.
template <class Body>
int attempt_to(pe_error** error, Body&& body) noexcept {
  pe_error* failure = nullptr;
  if (attempt(&failure, false, [&] { return body(), true; })) return PE_OK;
  const int code = failure->code;
  if (error) {
    *error = failure;
  } else {
    pe_error_free(failure);
  }
  return code;
}

template <class T>
T value_of(Result<T> result) {
  if (!result) throw Refusal(result.error().code, result.error().message);
  return std::move(*result);
}

void require(bool fine, const std::string& problem) {
  if (!fine) throw Refusal(ErrorCode::input, problem);
}

template <class T>
const T& given(const T* object, const char* name) {
  require(object != nullptr, std::string(name) + " is NULL");
  return *object;
}

// A caller's structure, which may be older and shorter, or newer and longer, than ours; NULL: the defaults.
template <class T>
T complete(const T* options, void (*init)(T*, size_t), const char* name) {
  T whole;
  init(&whole, sizeof whole);
  if (!options) return whole;
  require(options->size > sizeof options->size,
          std::string(name) + ".size is " + std::to_string(options->size) + "; call " + name + "_init");
  std::memcpy(&whole, options, std::min(options->size, sizeof whole));
  whole.size = sizeof whole;
  return whole;
}

// Writes as much of a structure as the caller has room for; what a newer one has beyond ours is 0.
template <class T>
void hand_out(T* to, T whole, size_t size) {
  if (!to || size < sizeof size) return;
  whole.size = size;
  std::memset(static_cast<void*>(to), 0, size);
  std::memcpy(static_cast<void*>(to), &whole, std::min(size, sizeof whole));
}

template <class T>
std::span<const T> array(const T* values, size_t count, const char* name) {
  require(values || count == 0, std::string(name) + " is NULL, its length is " + std::to_string(count));
  return {values, count};
}

std::vector<double> times(const double* values, size_t count, const char* name) {
  const auto all = array(values, count, name);  // the controller checks them
  return {all.begin(), all.end()};
}

int in_range(int value, int last, const char* name) {
  require(value >= 0 && value <= last,
          std::string(name) + " must be 0 to " + std::to_string(last) + ", got " + std::to_string(value));
  return value;
}

Clock::time_point time_point(int64_t ns) {
  if (ns >= kFar) return Clock::time_point::max();
  return Clock::time_point(std::chrono::nanoseconds(std::max<int64_t>(ns, 0)));
}

SessionOptions session_options(const pe_session_options* from) {
  const auto c = complete(from, pe_session_options_init, "pe_session_options");
  SessionOptions options;
  options.threads = c.threads;
  options.first_branches = c.first_branches;
  options.spin_us = c.spin_us;
  static_assert(static_cast<int>(Placement::avoid_caller) == PE_PLACEMENT_AVOID_CALLER &&
                static_cast<int>(Placement::pinned) == PE_PLACEMENT_PINNED);
  options.placement = static_cast<Placement>(in_range(c.placement, PE_PLACEMENT_PINNED, "placement"));
  options.latency = {times(c.part_ms, c.num_part_ms, "part_ms"), times(c.contention, c.num_contention, "contention")};
  return options;
}

RunOptions run_options(const pe_run_options& c) {
  RunOptions options;
  options.first_branches = c.first_branches;
  options.branches = array(c.branches, c.num_branches, "branches");
  require(!c.branches || c.num_branches > 0, "branches is empty; give one or more indices, or leave it out for all");
  options.deadline = time_point(c.deadline_ns);
  options.leave = time_point(c.leave_ns);
  static_assert(static_cast<int>(Policy::anytime) == PE_POLICY_ANYTIME &&
                static_cast<int>(Policy::all) == PE_POLICY_ALL);
  options.policy = static_cast<Policy>(in_range(c.policy, PE_POLICY_ALL, "policy"));
  static_assert(static_cast<int>(Overload::run) == PE_OVERLOAD_RUN && static_cast<int>(Overload::drop) == PE_OVERLOAD_DROP);
  options.on_overload = static_cast<Overload>(in_range(c.on_overload, PE_OVERLOAD_DROP, "on_overload"));
  options.early_stop = c.early_stop != 0;
  if (c.on_prediction) {
    options.on_prediction = [call = c.on_prediction, context = c.context](const Prediction& so_far) {
      const pe_prediction shown{so_far};
      return call(&shown, context) != 0;
    };
  }
  if (c.cancelled) options.cancelled = [call = c.cancelled, context = c.context] { return call(context) != 0; };
  return options;
}

// `read` gives what the stem reads.
template <class Read>
pe_prediction* run(pe_session* session, const pe_run_options* options, pe_error** error, Read&& read) noexcept {
  return attempt<pe_prediction*>(error, nullptr, [&] {
    given(session, "session");
    const auto c = complete(options, pe_run_options_init, "pe_run_options");
    const RunOptions run_with = run_options(c);
    std::vector<float> normalised;
    const std::span<const float> input = read(session->bundle->manifest().input, normalised);
    auto prediction = std::make_unique<pe_prediction>(pe_prediction{value_of(session->value->run(input, run_with))});
    session->value->hand_over(prediction->value);
    return prediction.release();
  });
}

const Manifest* manifest_of(const pe_bundle* bundle) { return &bundle->value->manifest(); }

}  // namespace
}  // namespace paraedge

using namespace paraedge;

int pe_api_version(void) { return PE_API_VERSION; }

const char* pe_version(void) { return PARAEDGE_VERSION; }

int pe_error_code(const pe_error* error) { return error ? error->code : PE_OK; }

const char* pe_error_message(const pe_error* error) { return error ? error->message.c_str() : nullptr; }

void pe_error_free(pe_error* error) {
  if (error != &no_memory) delete error;
}

void pe_set_log(void (*callback)(int, const char*, void*), void* context) { set_log(callback, context); }

int pe_engine_register(const pe_engine* engine, pe_error** error) {
  return attempt_to(error, [&] { register_engine(given(engine, "engine")); });
}

int pe_engine_load(const char* library, pe_error** error) {
  return attempt_to(error, [&] { load_engine(&given(library, "library")); });
}

int pe_engine_load_onnxruntime(const char* library, pe_error** error) {
  return attempt_to(error, [&] { load_onnxruntime(&given(library, "library")); });
}

pe_bundle* pe_bundle_open(const char* path, pe_error** error) {
  return attempt<pe_bundle*>(error, nullptr,
                             [&] { return new pe_bundle{value_of(Bundle::open(&given(path, "path")))}; });
}

pe_bundle* pe_bundle_open_signed(const char* path, const char* const* trusted_keys, size_t num_trusted_keys,
                                 pe_error** error) {
  return attempt<pe_bundle*>(error, nullptr, [&] {
    given(path, "path");
    std::vector<std::string> keys;
    for (const char* key : array(trusted_keys, num_trusted_keys, "trusted_keys")) {
      keys.emplace_back(&given(key, "a trusted key"));
    }
    return new pe_bundle{value_of(Bundle::open_signed(path, keys))};
  });
}

void pe_bundle_free(pe_bundle* bundle) { delete bundle; }

const char* pe_bundle_name(const pe_bundle* bundle) { return bundle ? manifest_of(bundle)->name.c_str() : nullptr; }

const char* pe_bundle_engine(const pe_bundle* bundle) { return bundle ? manifest_of(bundle)->engine.c_str() : nullptr; }

int64_t pe_bundle_version(const pe_bundle* bundle) { return bundle ? manifest_of(bundle)->version : 0; }

size_t pe_bundle_num_outputs(const pe_bundle* bundle) {
  return bundle ? static_cast<size_t>(manifest_of(bundle)->num_outputs) : 0;
}

size_t pe_bundle_num_labels(const pe_bundle* bundle) { return bundle ? manifest_of(bundle)->labels.size() : 0; }

const char* pe_bundle_label(const pe_bundle* bundle, size_t index) {
  return index < pe_bundle_num_labels(bundle) ? manifest_of(bundle)->labels[index].c_str() : nullptr;
}

size_t pe_bundle_num_branches(const pe_bundle* bundle) { return bundle ? manifest_of(bundle)->branches.size() : 0; }

int pe_bundle_branch_index(const pe_bundle* bundle, size_t position) {
  return position < pe_bundle_num_branches(bundle) ? manifest_of(bundle)->branches[position].index : -1;
}

int pe_bundle_has_early_stop(const pe_bundle* bundle) { return bundle && manifest_of(bundle)->has_early_stop(); }

int pe_bundle_input_kind(const pe_bundle* bundle) {
  static_assert(static_cast<int>(Input::Kind::image) == PE_INPUT_IMAGE &&
                static_cast<int>(Input::Kind::tensor) == PE_INPUT_TENSOR);
  return bundle ? static_cast<int>(manifest_of(bundle)->input.kind) : 0;
}

int pe_bundle_input_resize(const pe_bundle* bundle) {
  static_assert(static_cast<int>(Input::Resize::stretch) == PE_RESIZE_STRETCH &&
                static_cast<int>(Input::Resize::crop) == PE_RESIZE_CROP);
  return bundle ? static_cast<int>(manifest_of(bundle)->input.resize) : 0;
}

size_t pe_bundle_input_shape(const pe_bundle* bundle, const int64_t** shape) {
  if (shape) *shape = bundle ? manifest_of(bundle)->input.shape.data() : nullptr;
  return bundle ? manifest_of(bundle)->input.shape.size() : 0;
}

void pe_session_options_init(pe_session_options* options, size_t size) {
  const SessionOptions defaults;
  pe_session_options whole{};
  whole.spin_us = defaults.spin_us;
  whole.placement = static_cast<int>(defaults.placement);
  hand_out(options, whole, size);
}

pe_session* pe_session_open(const pe_bundle* bundle, const pe_session_options* options, pe_error** error) {
  return attempt<pe_session*>(error, nullptr, [&] {
    const auto& opened = given(bundle, "bundle").value;
    return new pe_session{opened, value_of(Session::open(opened, session_options(options)))};
  });
}

int pe_session_close(pe_session* session, int timeout_ms, pe_error** error) {
  return attempt_to(error, [&] {
    if (timeout_ms < 0) {
      throw Refusal(ErrorCode::input, "timeout_ms must be 0 or more, got " + std::to_string(timeout_ms));
    }
    if (session && !session->value->settle(std::chrono::milliseconds(timeout_ms))) {
      throw Refusal(ErrorCode::engine, "a branch did not finish within " + std::to_string(timeout_ms) +
                                           " ms; close the session again later, or leave it open");
    }
  });
}

void pe_session_free(pe_session* session) { delete session; }

int pe_session_threads(const pe_session* session) { return session ? session->value->threads() : 0; }

size_t pe_session_num_branches(const pe_session* session) {
  return session ? static_cast<size_t>(session->value->branches()) : 0;
}

double pe_session_mandatory_ms(const pe_session* session) { return session ? session->value->mandatory_ms() : kNever; }

int64_t pe_now_ns(void) { return Clock::now().time_since_epoch().count(); }

void pe_run_options_init(pe_run_options* options, size_t size) {
  pe_run_options whole{};
  whole.policy = PE_POLICY_ANYTIME;
  whole.deadline_ns = whole.leave_ns = std::numeric_limits<int64_t>::max();
  hand_out(options, whole, size);
}

pe_prediction* pe_session_run_image(pe_session* session, const uint8_t* image, size_t bytes,
                                    const pe_run_options* options, pe_error** error) {
  return run(session, options, error, [&](const Input& input, std::vector<float>& normalised) {
    normalised = value_of(normalise(array(image, bytes, "image"), input));
    return std::span<const float>(normalised);
  });
}

pe_prediction* pe_session_run_tensor(pe_session* session, const float* values, size_t count,
                                     const pe_run_options* options, pe_error** error) {
  return run(session, options, error, [&](const Input& input, std::vector<float>& normalised) {
    const auto all = array(values, count, "values");
    if (input.kind == Input::Kind::image) return all;  // normalised already
    normalised = value_of(normalise(all, input));
    return std::span<const float>(normalised);
  });
}

void pe_prediction_free(pe_prediction* prediction) { delete prediction; }

const float* pe_prediction_output(const pe_prediction* prediction, size_t* count) {
  if (count) *count = prediction ? prediction->value.output.size() : 0;
  return prediction ? prediction->value.output.data() : nullptr;
}

const float* pe_prediction_branch_outputs(const pe_prediction* prediction, size_t* rows, size_t* count) {
  const size_t columns = prediction ? prediction->value.output.size() : 0;
  if (rows) *rows = columns ? prediction->value.branch_outputs.size() / columns : 0;
  if (count) *count = columns;
  return prediction ? prediction->value.branch_outputs.data() : nullptr;
}

size_t pe_prediction_label_index(const pe_prediction* prediction) {
  return prediction ? static_cast<size_t>(prediction->value.label_index) : 0;
}

float pe_prediction_confidence(const pe_prediction* prediction) {
  return prediction ? prediction->value.confidence : std::numeric_limits<float>::quiet_NaN();
}

int pe_prediction_is_calibrated(const pe_prediction* prediction) {
  return prediction && prediction->value.is_calibrated;
}

float pe_prediction_elapsed_ms(const pe_prediction* prediction) {
  return prediction ? prediction->value.elapsed_ms : std::numeric_limits<float>::quiet_NaN();
}

float pe_prediction_stem_ms(const pe_prediction* prediction) {
  return prediction ? prediction->value.stem_ms : std::numeric_limits<float>::quiet_NaN();
}

int pe_prediction_deadline_met(const pe_prediction* prediction) { return prediction && prediction->value.deadline_met; }

int pe_prediction_requests_to_learn(const pe_prediction* prediction) {
  return prediction ? prediction->value.requests_to_learn : 0;
}

size_t pe_prediction_num_branches(const pe_prediction* prediction) {
  return prediction ? prediction->value.branches.size() : 0;
}

int pe_prediction_branch(const pe_prediction* prediction, size_t position, pe_branch_run* run) {
  if (!run || run->size <= sizeof run->size || position >= pe_prediction_num_branches(prediction)) return 0;
  const BranchRun& found = prediction->value.branches[position];
  pe_branch_run whole{};
  whole.index = found.index;
  whole.state = static_cast<int>(found.state);
  whole.thread = found.thread;
  whole.start_ms = found.start_ms;
  whole.end_ms = found.end_ms;
  whole.predicted_ms = found.predicted_ms;
  whole.left_ms = found.left_ms;
  whole.problem = found.problem.c_str();
  hand_out(run, whole, run->size);
  return 1;
}
