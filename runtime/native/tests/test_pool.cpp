// The pool: no call is lost, spinning or sleeping, and stopping waits for work in progress.
#include "pool.h"

#include "support.h"

namespace paraedge::tests {
namespace {

using std::chrono::microseconds;

const pe_engine kNoEngine{};

TEST_CASE("every call runs") {
  for (const int spin_us : {0, 50, 2000}) {
    CAPTURE(spin_us);
    std::atomic<int> answered{0};
    Pool pool(3, microseconds(spin_us), kNoEngine, [&](int) { ++answered; });
    for (int round = 1; round <= 2000; ++round) {
      for (int worker = 0; worker < 3; ++worker) pool.wake(worker);
      while (answered < 3 * round) std::this_thread::yield();
    }
  }
}

TEST_CASE("calls during work are one more round, not many and not none") {
  std::atomic<int> rounds{0};
  std::atomic<bool> gate{false};
  {
    Pool pool(1, microseconds(0), kNoEngine, [&](int) {
      ++rounds;
      while (!gate) std::this_thread::yield();
    });
    pool.wake(0);
    while (rounds < 1) std::this_thread::yield();
    for (int i = 0; i < 5; ++i) pool.wake(0);
    gate = true;
    while (rounds < 2) std::this_thread::yield();
  }
  CHECK(rounds == 2);
}

TEST_CASE("stopping waits") {
  std::atomic<bool> finished{false}, started{false};
  {
    Pool pool(1, microseconds(0), kNoEngine, [&](int) {
      started = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      finished = true;
    });
    pool.wake(0);
    while (!started) std::this_thread::yield();
  }
  CHECK(finished);
}

TEST_CASE("pools come and go") {
  for (int i = 0; i < 200; ++i) Pool pool(4, microseconds(i % 3 * 20), kNoEngine, [](int) {});
}

}  // namespace
}  // namespace paraedge::tests
