// The shortest gaps between deadlines, which are those between arrivals while the budget stays; see arrivals.h.
#include "arrivals.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "request.h"

namespace paraedge {
namespace {

constexpr double kForget = 0.99;  // a budget that became smaller is noticed after some dozen requests
constexpr double kWhole = 0.9;    // who has so much of it left did not wait
constexpr double kAtOnceMs = 0.1, kAtOnceShare = 0.1;  // who comes so soon after the last prediction waited for it

}  // namespace

void Arrivals::came(Clock::time_point now, Clock::time_point deadline, Clock::time_point ended, double mandatory_ms) {
  const double left_ms = milliseconds(deadline - now), gap_ms = milliseconds(deadline - deadline_);
  longest_left_ms_ = std::max(left_ms, kForget * longest_left_ms_);
  if (known_) {
    // A caller that asks again once it has its prediction leaves nobody waiting, however soon it comes.
    const double at_once_ms = std::max(kAtOnceMs, kAtOnceShare * mandatory_ms);  // NaN: the first
    const bool in_turn = milliseconds(now - ended) < at_once_ms && left_ms >= kWhole * longest_left_ms_;
    gaps_ms_[seen_++ % kGaps] = in_turn || gap_ms < 0 ? std::numeric_limits<double>::quiet_NaN() : gap_ms;
  }
  deadline_ = deadline;
  known_ = true;
}

Clock::time_point Arrivals::leave(Clock::time_point deadline, double mandatory_ms) const {
  double earlier_ms = 0;
  for (size_t count = 1; count <= kAhead; ++count) {
    earlier_ms = std::max(earlier_ms, static_cast<double>(count) * mandatory_ms - shortest_ms(count));
  }
  return deadline - std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(earlier_ms));
}

double Arrivals::shortest_ms(size_t count) const {
  double shortest = std::numeric_limits<double>::infinity();
  if (seen_ < kLeast) return shortest;
  const size_t first = seen_ - std::min(seen_, kGaps);
  for (size_t begin = first; begin + count <= seen_; ++begin) {
    double sum = 0;
    for (size_t gap = begin; gap < begin + count; ++gap) sum += gaps_ms_[gap % kGaps];
    if (sum < shortest) shortest = sum;  // not so where one is not counted
  }
  return shortest;
}

}  // namespace paraedge
