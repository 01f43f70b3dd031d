// How soon the next requests may come, judged by the last ones. Knows no thread and reads no clock.
//
// docs/anytime.md explains it.
#pragma once

#include <array>
#include <cstddef>

#include "runtime.h"

namespace paraedge {

class Arrivals {
 public:
  static constexpr size_t kGaps = 64;  // the last ones count
  static constexpr size_t kLeast = 8;  // with fewer, nothing is known
  static constexpr size_t kAhead = 2;  // requests that are left time

  // A request began at `now` and has until `deadline`; the one before it ended at `ended`. `mandatory_ms`: what a
  // prediction takes at least.
  void came(Clock::time_point now, Clock::time_point deadline, Clock::time_point ended, double mandatory_ms);
  // A request without a deadline: when it came is not known.
  void came_without_deadline() { known_ = false; }
  // Until when this request may take, such that the next ones have time for a first prediction each if they come as
  // soon as any came lately. At most `deadline`.
  Clock::time_point leave(Clock::time_point deadline, double mandatory_ms) const;

 private:
  double shortest_ms(size_t count) const;  // sum of `count` successive gaps; infinite: not known

  std::array<double, kGaps> gaps_ms_{};  // NaN: not counted
  size_t seen_ = 0;
  bool known_ = false;  // `deadline_` is that of the request before
  Clock::time_point deadline_;
  double longest_left_ms_ = 0;  // what a request that did not wait has left when it begins
};

}  // namespace paraedge
