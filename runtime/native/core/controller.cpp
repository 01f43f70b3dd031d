// log(time) = base of the part + contention + slowdown + residual; see controller.h.
#include "controller.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "refusal.h"
#include "shape.h"

namespace paraedge {
namespace {

constexpr double kFast = 0.3, kSlow = 0.03;  // gains of the two filters
constexpr double kLargestStep = 1.0;  // one outlier moves a filter no further than a factor of e would
constexpr double kMissRate = 0.1, kTailStep = 0.05;  // adaptive conformal inference: rate aimed at, step
constexpr double kFirstTail = 0.25, kLargestTail = 3.0;
// The same for how late a caller returns. Without waits it falls as well, so waiting is tried again.
constexpr double kLateRate = 0.003, kLateStep = 0.5;
// A branch that is dropped again and again is predicted to be so much faster each time, until it is tried once more:
// soon when its estimate is a lower bound only, after some hundred requests when it was learned.
constexpr double kDoubtCensored = 0.05, kDoubtKnown = 0.001;
// The same where whole requests are refused: with a slowdown of a factor of two that has ended, 35 are refused too many;
// where it has not, one of 35 runs in vain.
constexpr double kHope = 0.02;
constexpr double kLongestMs = 1e9;  // some days: what a clock of nanoseconds can hold a few times over
const double kLeastLate = std::log(0.02), kLargestLate = std::log(1000.0);

}  // namespace

Controller::Controller(std::vector<double> macs, const Latency& latency)
    : macs_(std::move(macs)),
      base_(macs_.size() + 1, std::numeric_limits<double>::quiet_NaN()),
      seen_(macs_.size() + 1, 0),
      bound_only_(macs_.size() + 1, false),
      doubt_(macs_.size() + 1, 0.0),
      tail_(kFirstTail),
      late_(kLeastLate) {
  const auto refuse = [](const std::string& problem) { throw Refusal(ErrorCode::input, problem); };
  for (const std::vector<double>* values : {&latency.part_ms, &latency.contention}) {
    for (const double value : *values) {
      if (!(value > 0 && std::isfinite(value))) refuse("latency holds " + show(value) + "; give times and factors above 0");
    }
  }
  if (!latency.part_ms.empty() && latency.part_ms.size() != base_.size()) {
    refuse("latency has " + std::to_string(latency.part_ms.size()) + " parts, a stem and " +
           std::to_string(macs_.size()) + " branches are loaded");
  }
  for (double& value : macs_) value = std::max(value, 1.0);  // a program without any is guessed to cost nothing
  for (const double factor : latency.contention) contention_.push_back(std::log(factor));
  for (size_t part = 0; part < latency.part_ms.size(); ++part) {
    base_[part] = std::log(latency.part_ms[part]);
    seen_[part] = kRequestsToLearn;
  }
}

double Controller::base(size_t part) const {
  if (seen_[part] > 0 || part == 0) return base_[part];
  double sum = 0;
  int known = 0;
  for (size_t other = 1; other < base_.size(); ++other) {
    if (seen_[other] == 0) continue;
    sum += base_[other] + std::log(macs_[part - 1] / macs_[other - 1]);
    ++known;
  }
  return known == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / known;
}

double Controller::predicted_ms(size_t part, int busy) const {
  const double ms = std::exp(base(part) + contention(busy) + std::max(fast_, slow_) + tail_ - doubt_[part]);
  return std::min(ms, kLongestMs);  // NaN stays NaN
}

double Controller::base_ms(size_t part) const {
  const bool known = seen_[part] == kRequestsToLearn && !bound_only_[part];
  return known ? std::exp(base_[part]) : std::numeric_limits<double>::quiet_NaN();
}

double Controller::expected_ms(size_t part) const {
  return std::min(base_ms(part) * std::exp(contention(1) + fast_ - hope_), kLongestMs);
}

void Controller::observe(size_t part, int busy, double ms) {
  const double log_ms = std::log(std::max(ms, 1e-6)) - contention(part == 0 ? 1 : busy);
  doubt_[part] = 0;
  if (part > 0) hope_ = 0;
  int& seen = seen_[part];
  if (bound_only_[part]) seen = 0;  // now it is known better
  bound_only_[part] = false;
  if (seen < kRequestsToLearn) {  // the mean of what was seen; what slows the device down is in it
    base_[part] = seen == 0 ? log_ms : base_[part] + (log_ms - base_[part]) / (seen + 1);
    ++seen;
    return;
  }
  const double residual = log_ms - base_[part];
  if (part > 0) {
    const bool exceeded = residual > std::max(fast_, slow_) + tail_;
    tail_ = std::clamp(tail_ + kTailStep * (exceeded ? 1 - kMissRate : -kMissRate), 0.0, kLargestTail);
  }
  follow(residual);
}

void Controller::outlasted(size_t part, int busy, double ms) {
  const double log_ms = std::log(std::max(ms, 1e-6)) - contention(part == 0 ? 1 : busy);
  const double doubt = std::exchange(doubt_[part], 0);
  if (seen_[part] < kRequestsToLearn) {
    if (seen_[part] == 0 || bound_only_[part]) {
      // A bound of long ago counts for no more than what was tried now.
      const double known = bound_only_[part] ? base_[part] - doubt : base(part);
      if (log_ms > known || std::isnan(known) || bound_only_[part]) {
        base_[part] = std::isnan(known) ? log_ms : std::max(log_ms, known);
        bound_only_[part] = true;
        seen_[part] = std::max(seen_[part], 1);
      }
    } else if (log_ms > base_[part]) {
      base_[part] += (log_ms - base_[part]) / (++seen_[part]);
    }
    return;
  }
  const double residual = log_ms - base_[part];  // at least
  if (residual <= std::max(fast_, slow_)) return;
  if (part > 0 && residual > std::max(fast_, slow_) + tail_) {
    tail_ = std::min(tail_ + kTailStep * (1 - kMissRate), kLargestTail);
  }
  follow(residual);
}

void Controller::dropped(size_t part) {
  doubt_[part] += seen_[part] < kRequestsToLearn ? kDoubtCensored : kDoubtKnown;
}

void Controller::refused() { hope_ += kHope; }

void Controller::returned(double late_ms) {
  const bool exceeded = std::log(std::max(late_ms, 1e-6)) > late_;
  late_ = std::clamp(late_ + kLateStep * (exceeded ? 1 - kLateRate : -kLateRate), kLeastLate, kLargestLate);
}

void Controller::did_not_wait() { late_ = std::max(late_ - kLateStep * kLateRate, kLeastLate); }

double Controller::margin_ms(double least_ms) const { return std::max(least_ms, std::exp(late_)); }

double Controller::mandatory_ms() const { return predicted_ms(0, 1) + predicted_ms(1, 1); }

int Controller::requests_to_learn() const { return kRequestsToLearn - seen_[0]; }

double Controller::contention(int busy) const {
  if (contention_.empty() || busy < 1) return 0;
  return contention_[std::min(static_cast<size_t>(busy), contention_.size()) - 1];
}

void Controller::follow(double residual) {
  fast_ += kFast * std::clamp(residual - fast_, -kLargestStep, kLargestStep);
  slow_ += kSlow * std::clamp(residual - slow_, -kLargestStep, kLargestStep);
}

}  // namespace paraedge
