// paraedge on the device: open a bundle, run its branches in parallel, have an answer by a deadline.
//
//   auto bundle = paraedge::Bundle::open("model.paraedge");
//   auto session = paraedge::Session::open(*bundle, {.threads = 4});
//   auto prediction = (*session)->run(pixels, {.deadline = paraedge::Clock::now() + 12ms});
//
// Nothing here throws: what can fail returns a Result, which holds a value or an Error.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace paraedge {

enum class ErrorCode { manifest, integrity, engine, input };

struct Error {
  ErrorCode code;
  std::string message;  // what was wrong, with the value, and what to do next
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}
  explicit operator bool() const { return state_.index() == 0; }
  T& operator*() { return *std::get_if<0>(&state_); }
  T* operator->() { return std::get_if<0>(&state_); }
  const Error& error() const { return *std::get_if<1>(&state_); }

 private:
  std::variant<T, Error> state_;
};

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC
using Shape = std::vector<int64_t>;

struct Part {  // one program of a bundle
  std::string file;
  int index = -1;  // a branch's place in the model it was taken from; -1 for the stem
  Shape input_shape, output_shape;
  int64_t macs = 0;
};

// How sure a prefix is: the likeliest label's softmax probability, of its logits divided by `temperature`. From
// `threshold` on its prediction is enough; above 1: never.
struct StopRule {
  double temperature = 1, threshold = 2;
};

// What a caller has for one request, and how the stem reads it: x as x * scale - shift, in float32.
struct Input {
  enum class Kind {
    image,   // uint8 (H, W, C) comes in
    tensor,  // float32 comes in, of shape[1:], not normalised
  };
  Kind kind = Kind::image;
  std::string name;
  Shape shape;                      // what the stem reads: (1, C, H, W), or (1, ...)
  std::vector<std::string> axes;    // of a tensor, without the batch axis
  int normalized_axis = -1;         // the dimension of `shape` that has a scale and a shift each; -1: one for all
  std::vector<float> scale, shift;  // along that dimension; an image's is 1, its channels
};

struct Manifest {
  std::string name, engine;
  int64_t version = 1;  // of the model; grows
  Input input;
  std::vector<std::string> labels;  // empty: the output is a vector, not logits
  int64_t num_outputs = 0;
  Part stem;
  std::vector<Part> branches;        // ascending by index
  std::vector<StopRule> stop_rules;  // one for the first 1, 2, … branches; empty: not calibrated
};

// A verified bundle, immutable, free to share between sessions. Its programs are in memory as they were when
// their hashes were compared: what was checked is what runs.
class Bundle {
 public:
  // A bundle folder, or the zip that 'paraedge pack' makes.
  static Result<std::shared_ptr<const Bundle>> open(const std::string& path);
  virtual ~Bundle() = default;
  virtual const Manifest& manifest() const = 0;
  // The program of the stem or of a branch, aligned to 64 bytes; empty for a part of another bundle.
  virtual std::span<const std::byte> program(const Part& part) const = 0;
};

// Where workers may run. Measured in docs/performance.md.
enum class Placement {
  none,          // wherever the scheduler puts them: often on the caller's own core
  avoid_caller,  // anywhere but on the core that the caller runs on when a request starts
  pinned,        // one core each, fastest cluster first, never the caller's
};

// What is known of this device's speed: medians of each part by itself, as 'paraedge profile' finds them.
// Left empty, it is learned from the first requests.
struct Latency {
  std::vector<double> part_ms;     // the stem, then each loaded branch
  std::vector<double> contention;  // factor of a branch's time when 1, 2, … branches run at once
};

struct SessionOptions {
  int threads = 0;    // that run branches, the caller's included; 0: one per branch, up to the cores allowed
  int branches = 0;   // load the first so many; 0: all
  int spin_us = 50;   // an idle worker spins so long before it sleeps; 0: it sleeps at once
  Placement placement = Placement::avoid_caller;
  int return_margin_us = 50;  // begin to return at least so long before a deadline: a sleeping thread wakes late
  Latency latency;
  std::vector<StopRule> early_stop;  // per loaded branch; empty: the bundle's, if all its branches are loaded
};

enum class Policy : uint8_t {
  anytime,  // start what will probably end before the deadline; see docs/anytime.md
  all,      // start everything, and return at the deadline with what has ended
};

struct RunOptions {
  int branches = 0;  // run the first so many of the loaded ones; 0: all
  // Return at this time with the best sum there is. The first branch always runs.
  Clock::time_point deadline = Clock::time_point::max();
  // Return at this time with the best sum there is, if there is one: other requests wait. `deadline_met` is
  // about the deadline all the same.
  Clock::time_point leave = Clock::time_point::max();
  Policy policy = Policy::anytime;
  bool early_stop = false;  // answer with the first prefix whose confidence is enough
  // Called by the calling thread whenever the answer has grown, with the answer so far; false: that is enough.
  std::function<bool(const struct Prediction&)> on_answer;
};

enum class BranchState : uint8_t {
  used,           // in the sum
  failed,         // the engine refused
  not_finite,     // its output holds NaN or infinity
  would_not_fit,  // not started: it would probably have ended after the deadline
  late,           // started or waiting at the deadline; what it computes is thrown away
  not_needed,     // the answer was good enough without it
};

struct BranchRun {
  int index;
  BranchState state;
  int thread;  // 0: the caller's; -1: never started
  float start_ms, end_ms;  // since the request began; end_ms is 0 when it had not ended
  float predicted_ms, left_ms;  // when it was last decided on: its 0.9 quantile, the time left; NaN: never
  std::string problem;     // why it failed
};

struct Prediction {
  std::vector<float> output;          // (C,) logits: the sum of the used branches, added in order of index
  std::vector<float> branch_outputs;  // (k, C); rows of branches not used are zero
  std::vector<BranchRun> branches;    // k, in order of index
  float stem_ms, elapsed_ms;
  int label_index;
  float confidence;  // softmax probability of that label; not calibrated
  bool deadline_met;
  bool cut_short;         // the deadline ended the wait
  int requests_to_learn;  // until the latencies of this device are known; 0: they are
};

struct Program {  // a part's program in memory that the caller keeps, aligned to 16 bytes
  Part part;
  std::span<const std::byte> bytes;
};

// A bundle loaded into ExecuTorch, and the threads that run it. Calls from several threads happen one
// after another. The destructor waits for a branch that is still running.
class Session {
 public:
  static Result<std::unique_ptr<Session>> open(std::shared_ptr<const Bundle> bundle, const SessionOptions& = {});
  // The same from programs that are in memory already; `owner` keeps their bytes alive.
  static Result<std::unique_ptr<Session>> open(Program stem, std::vector<Program> branches,
                                               std::shared_ptr<const void> owner, const SessionOptions& = {});
  virtual ~Session() = default;
  virtual int threads() const = 0;
  virtual int branches() const = 0;
  // What an answer takes at least, probably (0.9): the stem and the first branch. NaN while nothing is known.
  virtual double mandatory_ms() const = 0;
  // `input` is what the stem reads, (1, C, H, W), normalised.
  virtual Result<Prediction> run(std::span<const float> input, const RunOptions& = {}) = 0;
};

// A uint8 image (H, W, C) as the stem reads it, (1, C, H, W).
Result<std::vector<float>> normalise(std::span<const uint8_t> image, const Input& input);
// A tensor of input.shape[1:] as the stem reads it; refused if a value is not finite.
Result<std::vector<float>> normalise(std::span<const float> tensor, const Input& input);

}  // namespace paraedge
