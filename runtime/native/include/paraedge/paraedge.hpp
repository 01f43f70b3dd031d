// paraedge in C++20: the functions of paraedge.h with objects that free themselves. Header only; nothing throws.
//
//   paraedge::load_engine("libparaedge_executorch.so");
//   auto bundle = paraedge::Bundle::open("model.paraedge");
//   if (!bundle) return fail(bundle.error().message);
//   auto session = paraedge::Session::open(*bundle, {.threads = 4});
//   auto prediction = session->run(pixels, {.deadline = paraedge::Clock::now() + std::chrono::milliseconds(12)});
//
// paraedge.h says what each function does. Strings and spans belong to the object they come from.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "paraedge/paraedge.h"
#include "paraedge/result.hpp"

namespace paraedge {

using Clock = std::chrono::steady_clock;  // the clock of pe_now_ns()

namespace detail {

inline Error take(pe_error* error) {
  Error taken{static_cast<ErrorCode>(pe_error_code(error)), pe_error_message(error)};
  pe_error_free(error);
  return taken;
}

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <class T, auto Free>
using Owned = std::unique_ptr<T, Freer<Free>>;

inline int64_t nanoseconds(Clock::time_point time) {
  return time == Clock::time_point::max()
             ? INT64_MAX
             : std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

template <class Call>
Result<std::monostate> done(Call&& call) {
  pe_error* error = nullptr;
  if (call(&error) != PE_OK) return take(error);
  return std::monostate();
}

}  // namespace detail

inline Result<std::monostate> load_engine(const std::string& library) {
  return detail::done([&](pe_error** error) { return pe_engine_load(library.c_str(), error); });
}

inline Result<std::monostate> load_onnxruntime(const std::string& library) {
  return detail::done([&](pe_error** error) { return pe_engine_load_onnxruntime(library.c_str(), error); });
}

inline Result<std::monostate> register_engine(const pe_engine& engine) {
  return detail::done([&](pe_error** error) { return pe_engine_register(&engine, error); });
}

enum class InputKind { image = PE_INPUT_IMAGE, tensor = PE_INPUT_TENSOR };
enum class Resize { stretch = PE_RESIZE_STRETCH, crop = PE_RESIZE_CROP };

class Bundle {
 public:
  // A folder, or one stored zip. If PARAEDGE_TRUSTED_KEYS is set, only what a key of it signed.
  static Result<Bundle> open(const std::string& path) {
    pe_error* error = nullptr;
    pe_bundle* opened = pe_bundle_open(path.c_str(), &error);
    if (!opened) return detail::take(error);
    return Bundle(opened);
  }
  // Only what one of these keys signed. Each is a public key, its file, or a folder of them.
  static Result<Bundle> open_signed(const std::string& path, const std::vector<std::string>& trusted_keys) {
    std::vector<const char*> keys;
    for (const std::string& key : trusted_keys) keys.push_back(key.c_str());
    pe_error* error = nullptr;
    pe_bundle* opened = pe_bundle_open_signed(path.c_str(), keys.data(), keys.size(), &error);
    if (!opened) return detail::take(error);
    return Bundle(opened);
  }

  const char* name() const { return pe_bundle_name(get()); }
  const char* engine() const { return pe_bundle_engine(get()); }
  int64_t version() const { return pe_bundle_version(get()); }
  size_t num_outputs() const { return pe_bundle_num_outputs(get()); }
  size_t num_labels() const { return pe_bundle_num_labels(get()); }
  const char* label(size_t index) const { return pe_bundle_label(get(), index); }
  size_t num_branches() const { return pe_bundle_num_branches(get()); }
  int branch_index(size_t position) const { return pe_bundle_branch_index(get(), position); }
  bool has_early_stop() const { return pe_bundle_has_early_stop(get()) != 0; }
  InputKind input_kind() const { return static_cast<InputKind>(pe_bundle_input_kind(get())); }
  Resize input_resize() const { return static_cast<Resize>(pe_bundle_input_resize(get())); }
  std::span<const int64_t> input_shape() const {
    const int64_t* shape = nullptr;
    const size_t rank = pe_bundle_input_shape(get(), &shape);
    return {shape, rank};
  }
  pe_bundle* get() const { return bundle_.get(); }

 private:
  explicit Bundle(pe_bundle* bundle) : bundle_(bundle) {}
  detail::Owned<pe_bundle, pe_bundle_free> bundle_;
};

enum class BranchState {
  used = PE_BRANCH_USED,
  failed = PE_BRANCH_FAILED,
  not_finite = PE_BRANCH_NOT_FINITE,
  would_not_fit = PE_BRANCH_WOULD_NOT_FIT,
  late = PE_BRANCH_LATE,
  not_needed = PE_BRANCH_NOT_NEEDED,
};

struct BranchRun {
  int index;
  BranchState state;
  int thread;                   // 0: the caller's; -1: never started
  float start_ms, end_ms;       // since the request began; end_ms is 0 if it has not finished
  float predicted_ms, left_ms;  // when it was last decided on: its time and the time left; NaN: never
  const char* problem;          // why it failed; "" if it did not
};

// A prediction that somebody else owns, such as the one that `on_prediction` is called with.
class PredictionView {
 public:
  explicit PredictionView(const pe_prediction* prediction) : prediction_(prediction) {}

  std::span<const float> output() const {
    size_t count = 0;
    const float* values = pe_prediction_output(get(), &count);
    return {values, count};
  }
  // Rows of as many values as `output` has, one for each used branch.
  std::span<const float> branch_outputs() const {
    size_t rows = 0, count = 0;
    const float* values = pe_prediction_branch_outputs(get(), &rows, &count);
    return {values, rows * count};
  }
  size_t label_index() const { return pe_prediction_label_index(get()); }
  float confidence() const { return pe_prediction_confidence(get()); }
  bool is_calibrated() const { return pe_prediction_is_calibrated(get()) != 0; }
  float elapsed_ms() const { return pe_prediction_elapsed_ms(get()); }
  float stem_ms() const { return pe_prediction_stem_ms(get()); }
  bool deadline_met() const { return pe_prediction_deadline_met(get()) != 0; }
  int requests_to_learn() const { return pe_prediction_requests_to_learn(get()); }
  size_t num_branches() const { return pe_prediction_num_branches(get()); }
  BranchRun branch(size_t position) const {  // `position` is below num_branches()
    pe_branch_run c{};
    c.size = sizeof c;
    pe_prediction_branch(get(), position, &c);
    return {c.index,  static_cast<BranchState>(c.state), c.thread, c.start_ms, c.end_ms, c.predicted_ms, c.left_ms,
            c.problem};
  }
  const pe_prediction* get() const { return prediction_; }

 protected:
  const pe_prediction* prediction_;
};

class Prediction : public PredictionView {
 public:
  explicit Prediction(pe_prediction* prediction) : PredictionView(prediction), owned_(prediction) {}

 private:
  detail::Owned<pe_prediction, pe_prediction_free> owned_;
};

enum class Placement {
  none = PE_PLACEMENT_NONE,
  avoid_caller = PE_PLACEMENT_AVOID_CALLER,
  pinned = PE_PLACEMENT_PINNED,
};

struct SessionOptions {
  int threads = 0;         // that run branches, the caller's included; 0: one per branch, up to the cores allowed
  int first_branches = 0;  // load the first so many; 0: all
  std::chrono::microseconds spin{50};  // an idle worker spins so long before it sleeps
  Placement placement = Placement::avoid_caller;
  std::vector<double> part_ms = {};     // median time of the stem and of each loaded branch; empty: learn it
  std::vector<double> contention = {};  // factor of a branch's time while 1, 2, ... branches run; empty: learn it
};

enum class Policy { anytime = PE_POLICY_ANYTIME, all = PE_POLICY_ALL };

// What becomes of a request that will probably have no prediction before its deadline.
enum class Overload {
  run = PE_OVERLOAD_RUN,    // it runs, and its prediction comes late
  drop = PE_OVERLOAD_DROP,  // it is refused at once, with ErrorCode::dropped
};

struct RunOptions {
  int first_branches = 0;          // run the first so many of the loaded branches; 0: all
  std::vector<int> branches = {};  // or those with these indexes, ascending
  Policy policy = Policy::anytime;
  bool early_stop = false;  // return the first prefix whose confidence reaches its threshold
  Clock::time_point deadline = Clock::time_point::max();  // return then with the best finished sum
  Clock::time_point leave = Clock::time_point::max();     // the same, but deadline_met() is about `deadline`
  // Called on this thread whenever the prediction has improved; false: that is enough. Neither function may throw.
  std::function<bool(PredictionView so_far)> on_prediction = {};
  std::function<bool()> cancelled = {};  // polled on this thread; true: the request ends with ErrorCode::cancelled
  Overload on_overload = Overload::run;
};

// A bundle loaded into an engine, and the threads that run it.
class Session {
 public:
  static Result<Session> open(const Bundle& bundle, const SessionOptions& options = {}) {
    pe_session_options c;
    pe_session_options_init(&c, sizeof c);
    c.threads = options.threads;
    c.first_branches = options.first_branches;
    c.spin_us = static_cast<int>(std::clamp<int64_t>(options.spin.count(), INT32_MIN, INT32_MAX));
    c.placement = static_cast<int>(options.placement);
    c.part_ms = options.part_ms.data();
    c.num_part_ms = options.part_ms.size();
    c.contention = options.contention.data();
    c.num_contention = options.contention.size();
    pe_error* error = nullptr;
    pe_session* opened = pe_session_open(bundle.get(), &c, &error);
    if (!opened) return detail::take(error);
    return Session(opened);
  }

  // A uint8 image (H, W, C) of the size that the bundle reads.
  Result<Prediction> run(std::span<const uint8_t> image, const RunOptions& options = {}) {
    return run(options, [&](const pe_run_options& c, pe_error** error) {
      return pe_session_run_image(get(), image.data(), image.size(), &c, error);
    });
  }
  // Raw sensor values for a bundle that reads tensors; (1, C, H, W), normalised, for one that reads images.
  Result<Prediction> run(std::span<const float> values, const RunOptions& options = {}) {
    return run(options, [&](const pe_run_options& c, pe_error** error) {
      return pe_session_run_tensor(get(), values.data(), values.size(), &c, error);
    });
  }

  int threads() const { return pe_session_threads(get()); }
  size_t num_branches() const { return pe_session_num_branches(get()); }
  double mandatory_ms() const { return pe_session_mandatory_ms(get()); }
  pe_session* get() const { return session_.get(); }

 private:
  explicit Session(pe_session* session) : session_(session) {}

  template <class Call>
  static Result<Prediction> run(const RunOptions& options, Call&& call) {
    pe_run_options c;
    pe_run_options_init(&c, sizeof c);
    c.first_branches = options.first_branches;
    c.branches = options.branches.empty() ? nullptr : options.branches.data();
    c.num_branches = options.branches.size();
    c.policy = static_cast<int>(options.policy);
    c.early_stop = options.early_stop;
    c.deadline_ns = detail::nanoseconds(options.deadline);
    c.leave_ns = detail::nanoseconds(options.leave);
    c.on_overload = static_cast<int>(options.on_overload);
    c.context = const_cast<RunOptions*>(&options);
    if (options.on_prediction) {
      c.on_prediction = [](const pe_prediction* so_far, void* context) -> int {
        return static_cast<const RunOptions*>(context)->on_prediction(PredictionView(so_far));
      };
    }
    if (options.cancelled) {
      c.cancelled = [](void* context) -> int { return static_cast<const RunOptions*>(context)->cancelled(); };
    }
    pe_error* error = nullptr;
    pe_prediction* prediction = call(c, &error);
    if (!prediction) return detail::take(error);
    return Prediction(prediction);
  }

  detail::Owned<pe_session, pe_session_free> session_;
};

}  // namespace paraedge
