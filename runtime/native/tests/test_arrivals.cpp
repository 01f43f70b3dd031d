// How soon the next requests may come: the shortest gaps of late, what does not count as one, and what is left to whom.
#include <limits>

#include "arrivals.h"
#include "request.h"
#include "support.h"

namespace paraedge::tests {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr double kMandatoryMs = 4;

// Requests that come at these times (ms), each with so long to its deadline; all begin at once when they come.
struct Device {
  Arrivals arrivals;
  Clock::time_point start{std::chrono::hours(1)}, ended;

  void request(double at_ms, double budget_ms, double waited_ms = 0) {
    const auto at = [&](double ms) { return start + microseconds(static_cast<int64_t>(1000 * ms)); };
    arrivals.came(at(at_ms + waited_ms), at(at_ms + budget_ms), ended, kMandatoryMs);
    ended = at(at_ms + waited_ms + 1);
  }
  // How much earlier than its deadline a request is to leave, ms.
  double earlier_ms() const {
    return std::chrono::duration<double, std::milli>(start - arrivals.leave(start, kMandatoryMs)).count();
  }
};

TEST_CASE("nothing is left to requests while few have come, or when they come far apart") {
  Device device;
  for (int number = 0; number <= static_cast<int>(Arrivals::kLeast); ++number) {
    CHECK(device.earlier_ms() == 0);
    device.request(2.0 * number, 10);
  }
  CHECK(device.earlier_ms() > 0);

  Device calm;
  for (int number = 0; number < 100; ++number) calm.request(10.0 * number, 10);
  CHECK(calm.earlier_ms() == 0);
}

TEST_CASE("the next two are left time if they come as soon as any came lately") {
  Device device;
  for (int number = 0; number < 100; ++number) device.request(20.0 * number, 10);
  device.request(2000 + 3, 10);  // 23 after the one before, then 1 and 2
  device.request(2000 + 4, 10, 1);
  CHECK(device.earlier_ms() == doctest::Approx(kMandatoryMs - 1));  // 24 for two
  device.request(2000 + 6, 10, 1);
  CHECK(device.earlier_ms() == doctest::Approx(2 * kMandatoryMs - 3));
}

TEST_CASE("what came long ago is forgotten") {
  Device device;
  for (int number = 0; number < 10; ++number) device.request(1.5 * number, 10, 1);
  CHECK(device.earlier_ms() > 0);
  for (size_t number = 0; number < Arrivals::kGaps; ++number) device.request(100 + 20.0 * number, 10);
  CHECK(device.earlier_ms() == 0);
}

TEST_CASE("a caller that asks again once it has its prediction leaves nobody waiting") {
  Device device;  // a request takes 1 ms, and the next comes at once
  for (int number = 0; number < 100; ++number) device.request(1.02 * number, 10);
  CHECK(device.earlier_ms() == 0);
  device.arrivals.came_without_deadline();
  for (int number = 0; number < 20; ++number) device.request(200 + 1.02 * number, 10, 3);  // these did wait
  CHECK(device.earlier_ms() == doctest::Approx(2 * (kMandatoryMs - 1.02)).epsilon(0.01));
}

TEST_CASE("a smaller budget is no gap") {
  Device device;
  for (int number = 0; number < 100; ++number) device.request(20.0 * number, number < 50 ? 100 : 10);
  CHECK(device.earlier_ms() == 0);
}

}  // namespace
}  // namespace paraedge::tests
