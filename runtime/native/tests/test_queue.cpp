// The queue of a session: the earliest deadline first, who has none is not held up for ever, time that others need.
#include "queue.h"

#include <memory>

#include "support.h"

namespace paraedge::tests {
namespace {

using std::chrono::milliseconds;

constexpr int kNone = -1;

Clock::time_point at(int ms) { return ms == kNone ? Clock::time_point::max() : Clock::time_point(milliseconds(ms)); }

struct Came {
  int at_ms, deadline_ms;
};

std::vector<std::unique_ptr<Waiter>> waiters_of(Queue& queue, const std::vector<Came>& all) {
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (const Came& came : all) {
    waiters.push_back(std::make_unique<Waiter>(at(came.at_ms), at(came.deadline_ms)));
    queue.add(*waiters.back());
  }
  return waiters;
}

TEST_CASE("the earliest deadline is next, equal ones as they came, a request without one a second after it came") {
  struct Row {
    std::vector<Came> came;
    std::vector<size_t> order;
  };
  for (const Row& row : {
           Row{{{0, 30}, {1, 20}, {2, 40}, {3, 10}}, {3, 1, 0, 2}},
           Row{{{0, 30}, {1, 20}, {2, 30}, {3, 20}}, {1, 3, 0, 2}},
           Row{{{0, kNone}, {1, 20}, {2, kNone}, {3, 999}}, {1, 3, 0, 2}},
           Row{{{900, 1800}, {0, kNone}, {901, 1000}, {902, 1001}}, {1, 2, 3, 0}},
       }) {
    Queue queue;
    const auto waiters = waiters_of(queue, row.came);
    for (size_t ahead = 0; ahead < row.order.size(); ++ahead) {
      CHECK(queue.ahead_of(*waiters[row.order[ahead]]) == ahead);
    }
    for (const size_t number : row.order) CHECK(queue.take() == waiters[number].get());
    CHECK(queue.take() == nullptr);
  }
}

TEST_CASE("who is removed is not called") {
  Queue queue;
  const auto waiters = waiters_of(queue, {{0, 10}, {0, 20}, {0, 30}});
  queue.remove(*waiters[1]);
  queue.remove(*waiters[1]);
  CHECK(queue.take() == waiters[0].get());
  CHECK(queue.take() == waiters[2].get());
}

TEST_CASE("time is left for the first predictions of those that wait, unless their deadlines have passed") {
  struct Row {
    std::vector<int> deadlines_ms;
    int until_ms;
  };
  for (const Row& row : {Row{{}, kNone}, Row{{50}, 40}, Row{{50, 55}, 35}, Row{{50, 90}, 40}, Row{{3, 50}, 40},
                         Row{{kNone}, kNone}, Row{{kNone, 50}, 40}, Row{{8, 9, 9}, -21}}) {
    Queue queue;
    std::vector<Came> came;
    for (const int deadline_ms : row.deadlines_ms) came.push_back({0, deadline_ms});
    const auto waiters = waiters_of(queue, came);
    CHECK(queue.leave(at(5), 10.0) == at(row.until_ms));
  }
}

}  // namespace
}  // namespace paraedge::tests
