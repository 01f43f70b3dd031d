// One request: what became of each branch, the sum so far, and the prediction that comes of it.
//
// A request lives in a slot of its own, with its own tokens and outputs. A worker that is late keeps the slot until it
// is done; nobody reads what it writes there, and the next request takes another slot.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "runtime.h"

namespace paraedge {

inline double milliseconds(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

bool all_finite(std::span<const float> values);

// The softmax of values / temperature at its largest.
double confidence_of(std::span<const float> values, double temperature);

enum class Step : uint8_t { waiting, running, finished };

struct Task {  // a branch in one request
  bool asked = false;
  Step step = Step::finished;
  int busy = 0;  // branches that ran when it began, itself included
  Clock::time_point start;
  BranchRun run{};

  bool is_used() const { return step == Step::finished && run.state == BranchState::used; }
};

struct Request {
  int users = 0;      // workers inside one of its parts
  bool open = false;  // results count
  Clock::time_point started, stem_end, deadline;
  Clock::time_point leave;     // no later than the deadline: others wait
  Clock::time_point last_end;  // of a branch
  Policy policy;
  bool early_stop, cut_short, cancelled;
  bool in_order;  // branches are started in order of index: not all of them may run, or somebody watches
  std::vector<size_t> positions;      // of the branches asked for, ascending
  std::vector<float> tokens, outputs;  // outputs: (k, C), of all loaded branches
  std::vector<Task> tasks;             // k
  size_t judged;                       // branches of the prefix whose sum this is
  std::vector<float> prefix_sum;       // (C,)

  bool has_deadline() const { return leave != Clock::time_point::max(); }
  bool is_prefix() const { return positions.back() + 1 == positions.size(); }  // of the loaded branches
  float since_start(Clock::time_point time) const { return static_cast<float>(milliseconds(time - started)); }
  std::span<float> row(size_t position) { return {outputs.data() + position * prefix_sum.size(), prefix_sum.size()}; }

  // Every branch waits that is asked for; `indexes` are those of the loaded branches.
  void begin(const std::vector<int>& indexes);
  // Adds the finished branches to the prefix, and says whether its confidence is enough. The rule was calibrated for
  // exactly this prefix, so the branches after it are not needed.
  bool is_enough(const std::vector<StopRule>& rules);
  // The sum of the used branches. Throws Refusal (engine): there is none, or it is not finite.
  Prediction collect(const SessionOptions& options) const;
};

}  // namespace paraedge
