// The arithmetic of a request: sums in order of index, confidence, early stop.
#include "request.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "refusal.h"
#include "shape.h"

namespace paraedge {
namespace {

constexpr const char* kAdvice = "; 'paraedge verify' checks the bundle on this device";

void add(std::vector<float>& sum, const float* row, bool first) {
  for (size_t c = 0; c < sum.size(); ++c) sum[c] = first ? row[c] : sum[c] + row[c];
}

std::string cause_of(const BranchRun& run) {
  const std::string name = branch_name(run.index);
  if (run.state == BranchState::not_finite) return " " + name + ": its output is not finite";
  return run.problem.empty() ? "" : " " + name + ": " + run.problem;
}

}  // namespace

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

double confidence_of(std::span<const float> values, double temperature) {
  const float best = *std::max_element(values.begin(), values.end());
  double total = 0;
  for (const float value : values) total += std::exp((static_cast<double>(value) - best) / temperature);
  return 1 / total;
}

void Request::begin(const std::vector<int>& indexes) {
  constexpr float never = std::numeric_limits<float>::quiet_NaN();
  for (size_t position = 0; position < tasks.size(); ++position) {
    Task& task = tasks[position];
    task.asked = false;
    task.step = Step::finished;
    task.run = {indexes[position], BranchState::late, -1, 0, 0, never, never, ""};
  }
  for (const size_t position : positions) {
    tasks[position].asked = true;
    tasks[position].step = Step::waiting;
  }
  judged = 0;
  cut_short = false;
  last_end = stem_end;
}

bool Request::is_enough(const std::vector<StopRule>& rules) {
  while (judged < positions.size() && tasks[judged].is_used()) {
    add(prefix_sum, row(judged).data(), judged == 0);
    const StopRule& rule = rules[judged++];
    if (judged == positions.size() || rule.threshold > 1) continue;
    if (confidence_of(prefix_sum, rule.temperature) < rule.threshold) continue;
    for (size_t position = judged; position < positions.size(); ++position) {
      tasks[position].run.state = BranchState::not_needed;
      tasks[position].run.problem.clear();
    }
    return true;
  }
  return false;
}

Prediction Request::collect(const SessionOptions& options) const {
  const size_t columns = prefix_sum.size();
  Prediction prediction{};
  prediction.output.resize(columns);
  prediction.branches.reserve(positions.size());
  size_t used = 0;
  bool is_prefix = true;  // the used branches are the first so many of the loaded ones
  std::string causes;
  for (const size_t position : positions) {
    const Task& task = tasks[position];
    prediction.branches.push_back(task.run);
    if (task.is_used()) {
      const float* values = outputs.data() + position * columns;
      prediction.branch_outputs.insert(prediction.branch_outputs.end(), values, values + columns);
      add(prediction.output, values, used == 0);
      is_prefix = is_prefix && position == used;
      ++used;
    } else if (const std::string cause = cause_of(task.run); !cause.empty()) {
      causes += cause + ";";
    }
  }
  if (used == 0) throw Refusal(ErrorCode::engine, "every branch failed:" + causes + (kAdvice + 1));
  if (!all_finite(prediction.output)) {
    throw Refusal(ErrorCode::engine, std::string("the sum of the branches is not finite") + kAdvice);
  }
  const auto best = std::max_element(prediction.output.begin(), prediction.output.end());
  prediction.label_index = static_cast<int>(best - prediction.output.begin());
  prediction.is_calibrated = options.has_labels && is_prefix && used <= options.temperatures.size();
  const double temperature = prediction.is_calibrated ? options.temperatures[used - 1] : 1;
  prediction.confidence = options.has_labels ? static_cast<float>(confidence_of(prediction.output, temperature))
                                             : std::numeric_limits<float>::quiet_NaN();
  prediction.stem_ms = since_start(stem_end);
  prediction.elapsed_ms = since_start(Clock::now());
  prediction.deadline = deadline;
  return prediction;
}

}  // namespace paraedge
