// Requests that wait for a session, the earliest deadline first. Starts no thread and reads no clock.
//
// docs/anytime.md explains it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <vector>

#include "runtime.h"

namespace paraedge {

struct Waiter {
  Waiter(Clock::time_point came, Clock::time_point due);

  const Clock::time_point deadline;  // max(): none
  const Clock::time_point rank;      // the order of the queue
  bool has_turn = false;
  std::condition_variable called;  // it has its turn, or the session ends
};

class Queue {
 public:
  // A request without a deadline waits as if it had one so long after it came: others cannot hold it up for ever.
  static constexpr std::chrono::seconds kPatience{1};

  void add(Waiter& waiter);  // behind those of the same deadline; it stays where it is until it is taken out
  void remove(const Waiter& waiter);
  Waiter* take();  // the first; NULL: nobody waits
  size_t ahead_of(const Waiter& waiter) const;
  // Until when a request may take that begins `now`, such that each that waits has time for a first prediction, one
  // after another. Deadlines that have passed do not count.
  Clock::time_point leave(Clock::time_point now, double mandatory_ms) const;
  void call_all();

 private:
  std::vector<Waiter*> waiters_;
};

}  // namespace paraedge
