// The controller: guesses, learning, following a slowdown, lower bounds. Python tests its numbers too
// (tests/runtime/test_controller.py).
#include <cmath>

#include "controller.h"
#include "support.h"

namespace paraedge::tests {
namespace {

TEST_CASE("nothing is predicted before a branch was seen, then the others are guessed by their multiply-adds") {
  Controller controller({100, 200, 400}, {});
  CHECK(controller.requests_to_learn() == Controller::kRequestsToLearn);
  CHECK(std::isnan(controller.predicted_ms(1, 1)));
  controller.observe(0, 1, 9.0);  // a stem says nothing about branches
  CHECK(std::isnan(controller.predicted_ms(1, 1)));
  controller.observe(1, 1, 1.0);
  CHECK(controller.predicted_ms(2, 1) == doctest::Approx(2 * controller.predicted_ms(1, 1)));
  CHECK(controller.predicted_ms(3, 1) == doctest::Approx(4 * controller.predicted_ms(1, 1)));
}

TEST_CASE("a profile is used at once, with its contention") {
  Controller controller({1, 1}, {{3, 1, 2}, {1, 1.5}});
  CHECK(controller.requests_to_learn() == 0);
  CHECK(controller.predicted_ms(2, 1) == doctest::Approx(2 * controller.predicted_ms(1, 1)));
  CHECK(controller.predicted_ms(1, 2) == doctest::Approx(1.5 * controller.predicted_ms(1, 1)));
  CHECK(controller.predicted_ms(1, 7) == controller.predicted_ms(1, 2));
}

TEST_CASE("a slowdown is followed within a few requests up, and more slowly down") {
  Controller controller({1}, {{1, 1}, {}});
  const double before = controller.predicted_ms(1, 1);
  for (int i = 0; i < 8; ++i) controller.observe(1, 1, 3.0);
  const double slowed = controller.predicted_ms(1, 1);
  CHECK(slowed > 2.5 * before);
  int down = 0;
  while (controller.predicted_ms(1, 1) > 1.5 * before && down < 1000) controller.observe(1, 1, 1.0), ++down;
  CHECK(down > 2);
  CHECK(down < 100);
}

TEST_CASE("what has outlasted its prediction raises it, what has not says nothing") {
  Controller controller({1}, {{1, 1}, {}});
  const double before = controller.predicted_ms(1, 1);
  controller.outlasted(1, 1, 0.5);
  CHECK(controller.predicted_ms(1, 1) == before);
  controller.outlasted(1, 1, 4.0);
  CHECK(controller.predicted_ms(1, 1) > before);
}

TEST_CASE("what is expected is known once it was learned, follows a slowdown both ways, and is doubted where it refuses") {
  Controller learning({1}, {});
  for (int request = 0; request < Controller::kRequestsToLearn; ++request) {
    CHECK(std::isnan(learning.base_ms(1)));
    CHECK(std::isnan(learning.expected_ms(1)));
    learning.observe(1, 1, 2.0);
  }
  CHECK(learning.base_ms(1) == doctest::Approx(2.0));
  CHECK(learning.expected_ms(1) == doctest::Approx(2.0));
  CHECK(std::isnan(learning.expected_ms(0)));

  Controller known({1, 1}, {{1, 2, 4}, {1, 1.5}});
  CHECK(known.expected_ms(0) == doctest::Approx(1.0));
  CHECK(known.expected_ms(2) == doctest::Approx(4.0));
  for (int request = 0; request < 20; ++request) known.observe(1, 1, 4.0);
  CHECK(known.expected_ms(2) == doctest::Approx(8.0).epsilon(0.01));
  CHECK(known.base_ms(2) == doctest::Approx(4.0));
  for (int request = 0; request < 20; ++request) known.observe(1, 1, 2.0);
  CHECK(known.expected_ms(2) == doctest::Approx(4.0).epsilon(0.01));

  const double before = known.expected_ms(1);
  int refused = 0;
  while (known.expected_ms(1) > before / 2) known.refused(), ++refused;
  CHECK(refused == 35);
  known.observe(0, 1, 1.0);  // a stem alone is no prediction
  CHECK(known.expected_ms(1) < before * 0.6);
  known.observe(1, 1, 2.0);
  CHECK(known.expected_ms(1) == doctest::Approx(before).epsilon(0.01));
}

TEST_CASE("a branch that is dropped again and again is tried once more") {
  Controller known({1}, {{1, 1}, {}}), bound({1}, {});
  bound.outlasted(1, 1, 1.0);  // never seen to finish
  for (Controller* controller : {&known, &bound}) {
    const double before = controller->predicted_ms(1, 1);
    for (int request = 0; request < 10; ++request) controller->dropped(1);
    CHECK(controller->predicted_ms(1, 1) < before);
    controller->observe(1, 1, before);  // it was tried: no more doubt
    const double after = controller->predicted_ms(1, 1);
    controller->dropped(1);
    CHECK(controller->predicted_ms(1, 1) < after);
  }
  CHECK(bound.requests_to_learn() == Controller::kRequestsToLearn);
}

TEST_CASE("the margin follows how late callers return, and never falls below the least") {
  Controller controller({1}, {});
  CHECK(controller.margin_ms(0.05) == 0.05);
  for (int request = 0; request < 20; ++request) controller.returned(3.0);
  const double late = controller.margin_ms(0.05);
  CHECK(late > 3.0);
  for (int request = 0; request < 100; ++request) controller.did_not_wait();
  CHECK(controller.margin_ms(0.05) < late);
}

TEST_CASE("latencies that cannot be are refused") {
  for (const Latency& latency : {Latency{{1, 1, 1}, {}}, Latency{{1}, {}}, Latency{{1, 0}, {}}, Latency{{1, 1}, {-1}},
                                 Latency{{1, NAN}, {}}, Latency{{1, 1}, {INFINITY}}}) {
    auto refused = Session::open(open_bundle(), {.threads = 1, .first_branches = 1, .latency = latency});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == ErrorCode::input);
  }
}

}  // namespace
}  // namespace paraedge::tests
