// The core's own types: bundle, session, request, prediction. Applications use paraedge.h or paraedge.hpp.
//
// What can fail returns a Result, which holds a value or an Error; nothing throws across these functions.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
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

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC
using Shape = std::vector<int64_t>;

struct Part {  // one program of a bundle
  std::string file;
  int index = -1;  // a branch's position in the model it was taken from; -1 for the stem
  Shape input_shape, output_shape;
  int64_t macs = 0;
  std::string delegate;  // whose program it is, such as "coreml"; empty: the engine's own
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
  enum class Resize { stretch, crop };
  Kind kind = Kind::image;
  Resize resize = Resize::stretch;  // how an image of another size becomes one of shape: by the caller of the core
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

  // Whether any prefix can be enough: some rules have temperatures only.
  bool has_early_stop() const {
    return stop_rules.size() == 1 || std::ranges::any_of(stop_rules, [](const StopRule& rule) { return rule.threshold <= 1; });
  }
};

// A verified bundle, immutable, free to share between sessions. Its programs are in memory as they were when
// their hashes were compared: what was checked is what runs.
class Bundle {
 public:
  // A bundle folder, or the zip that 'paraedge pack' makes. If PARAEDGE_TRUSTED_KEYS is set, only what one of them signed.
  static Result<std::shared_ptr<const Bundle>> open(const std::string& path);
  // The same with these keys in place of those of the environment: each is a public key, its file, or a folder of them.
  static Result<std::shared_ptr<const Bundle>> open_signed(const std::string& path,
                                                           std::span<const std::string> trusted_keys);
  virtual ~Bundle() = default;
  virtual const Manifest& manifest() const = 0;
  // The program of the stem or of a branch, aligned to 64 bytes; empty for a part of another bundle.
  virtual std::span<const std::byte> program(const Part& part) const = 0;
};

// Where workers may run. Measured in docs/lab/performance.md.
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
  int threads = 0;         // that run branches, the caller's included; 0: one per branch, up to the cores allowed
  int first_branches = 0;  // load the first so many; 0: all
  int spin_us = 50;        // an idle worker spins so long before it sleeps; 0: it sleeps at once
  Placement placement = Placement::avoid_caller;
  int return_margin_us = 50;  // begin to return at least so long before a deadline: a sleeping thread wakes late
  Latency latency;
  std::vector<StopRule> stop_rules;   // of each prefix of the loaded branches; empty: no early stop
  std::vector<double> temperatures;   // of the first prefixes of the loaded branches; empty: not calibrated
  bool has_labels = true;             // else the output is a vector: no label, no confidence
  bool split_branches = false;        // let the engine's own pool work on each branch: for comparisons
};

enum class Policy : uint8_t {
  anytime,  // start what will probably finish before the deadline; see docs/anytime.md
  all,      // start everything, and return at the deadline with what has finished
};

// What becomes of a request that will probably have no prediction before its deadline.
enum class Overload : uint8_t {
  run,   // it runs, and its prediction comes late
  drop,  // it is refused at once, with ErrorCode::dropped
};

struct Prediction;

struct RunOptions {
  int first_branches = 0;         // run the first so many of the loaded ones; 0: all
  std::span<const int> branches;  // or those with these indexes, ascending; empty: see first_branches
  // Return at this time with the best sum there is. The first branch always runs.
  Clock::time_point deadline = Clock::time_point::max();
  // Return at this time with the best sum there is, if there is one: other requests wait. `deadline_met` is
  // about the deadline all the same.
  Clock::time_point leave = Clock::time_point::max();
  Policy policy = Policy::anytime;
  Overload on_overload = Overload::run;
  bool early_stop = false;  // return the first prefix whose confidence is enough
  // Called by the calling thread whenever the prediction has improved, with the sum so far; false: that is enough.
  std::function<bool(const Prediction&)> on_prediction;
  // Polled by the calling thread while it waits, for its turn too; true: the request ends with ErrorCode::cancelled.
  std::function<bool()> cancelled;
};

enum class BranchState : uint8_t {
  used = PE_BRANCH_USED,                    // in the sum
  failed = PE_BRANCH_FAILED,                // the engine refused
  not_finite = PE_BRANCH_NOT_FINITE,        // its output holds NaN or infinity
  would_not_fit = PE_BRANCH_WOULD_NOT_FIT,  // not started: predicted to miss the deadline
  late = PE_BRANCH_LATE,                    // started or waiting at the deadline; what it computes is thrown away
  not_needed = PE_BRANCH_NOT_NEEDED,        // the prediction was confident enough without it
};

struct BranchRun {
  int index;
  BranchState state;
  int thread;  // 0: the caller's; -1: never started
  float start_ms, end_ms;  // since the request began; end_ms is 0 when it had not finished
  float predicted_ms, left_ms;  // when it was last decided on: its 0.9 quantile, the time left; NaN: never
  std::string problem;     // why it failed
};

enum class Wait : uint8_t {  // what a request with a deadline tells about how late its caller returns
  none,     // nothing
  skipped,  // everything had finished already
  waited,   // compare the time of the return with `due`
};

struct Prediction {
  std::vector<float> output;          // (C,): the sum of the used branches, added in order of index
  std::vector<float> branch_outputs;  // (number of used branches, C), in order of index
  std::vector<BranchRun> branches;    // that were asked for, in order of index
  float stem_ms, elapsed_ms;
  int label_index;   // of the largest output
  float confidence;  // softmax probability of that label; NaN for a vector
  bool is_calibrated;  // the confidence: a temperature was fitted for just these branches at export
  bool deadline_met;
  int requests_to_learn;  // until the latencies of this device are known; 0: they are
  Clock::time_point deadline;
  Wait wait;
  Clock::time_point due;  // when what the caller waited for was there
};

struct Program {  // a part's program in memory that the caller keeps, aligned to 16 bytes
  Part part;
  std::span<const std::byte> bytes;
};

// A bundle loaded into an engine, and the threads that run it. Calls from several threads happen one after
// another, the earliest deadline first. The destructor waits for a branch that is still running.
class Session {
 public:
  // With the engine that is registered under the manifest's name for it.
  static Result<std::unique_ptr<Session>> open(std::shared_ptr<const Bundle> bundle, const SessionOptions& = {});
  // From programs that are in memory already; `owner` keeps their bytes and the engine alive.
  static Result<std::unique_ptr<Session>> open(const pe_engine& engine, Program stem, std::vector<Program> branches,
                                               std::shared_ptr<const void> owner, const SessionOptions& = {});
  virtual ~Session() = default;
  virtual int threads() const = 0;
  virtual int branches() const = 0;
  // What a prediction takes at least, probably (0.9): the stem and the first branch. NaN while nothing is known.
  virtual double mandatory_ms() const = 0;
  // `input` is what the stem reads, normalised.
  virtual Result<Prediction> run(std::span<const float> input, const RunOptions& = {}) = 0;
  // Whoever hands a prediction of `run` to the application calls this last: it says whether the deadline was met, and
  // the session learns how long before a deadline it has to return. `later` is what handing over still takes.
  virtual void hand_over(Prediction& prediction, Clock::duration later = {}) = 0;
  // Where a hung branch must not hold up whoever ends the session, or the process. No further branch is started, late ones are
  // cancelled, requests end with ErrorCode::cancelled. Says whether every thread has left the parts in time; if not, the
  // session cannot be destroyed, and whoever owns it leaves it as it is.
  virtual bool settle(Clock::duration patience) = 0;
  // Whether this thread is in a request or a branch of this session, as callbacks are: `run` is refused there, `settle` does
  // not wait, and whoever destroys the session there would wait for ever.
  virtual bool is_inside() const = 0;
};

// A uint8 image (H, W, C) as the stem reads it, (1, C, H, W).
Result<std::vector<float>> normalise(std::span<const uint8_t> image, const Input& input);
// A tensor of input.shape[1:] as the stem reads it; refused if a value is not finite.
Result<std::vector<float>> normalise(std::span<const float> tensor, const Input& input);

}  // namespace paraedge
