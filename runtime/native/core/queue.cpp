// A sorted list: few requests wait at a time.
#include "queue.h"

#include <algorithm>

namespace paraedge {

Waiter::Waiter(Clock::time_point came, Clock::time_point due)
    : deadline(due), rank(due == Clock::time_point::max() ? came + Queue::kPatience : due) {}

void Queue::add(Waiter& waiter) {
  const auto behind = std::upper_bound(waiters_.begin(), waiters_.end(), waiter.rank,
                                       [](Clock::time_point rank, const Waiter* other) { return rank < other->rank; });
  waiters_.insert(behind, &waiter);
}

void Queue::remove(const Waiter& waiter) { std::erase(waiters_, &waiter); }

Waiter* Queue::take() {
  if (waiters_.empty()) return nullptr;
  Waiter* const first = waiters_.front();
  waiters_.erase(waiters_.begin());
  return first;
}

size_t Queue::ahead_of(const Waiter& waiter) const {
  return static_cast<size_t>(std::find(waiters_.begin(), waiters_.end(), &waiter) - waiters_.begin());
}

Clock::time_point Queue::leave(Clock::time_point now, double mandatory_ms) const {
  const auto mandatory =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(mandatory_ms));
  Clock::time_point until = Clock::time_point::max();
  Clock::duration needed{};
  for (const Waiter* waiter : waiters_) {
    if (waiter->deadline == Clock::time_point::max() || waiter->deadline <= now) continue;
    needed += mandatory;
    until = std::min(until, waiter->deadline - needed);
  }
  return until;
}

void Queue::call_all() {
  for (Waiter* waiter : waiters_) waiter->called.notify_one();
}

}  // namespace paraedge
