// paraedge.hpp: the objects over paraedge.h.
#include <cmath>
#include <paraedge/paraedge.hpp>
#include <type_traits>

#include "application.h"

namespace {

using application::bundle_path;
using application::golden_image;
using std::chrono::milliseconds;

static_assert(std::is_nothrow_move_constructible_v<paraedge::Session> &&
              !std::is_copy_constructible_v<paraedge::Session>);

template <class T>
T value_of(paraedge::Result<T> result) {
  REQUIRE_MESSAGE(result, (result ? "" : result.error().message));
  return std::move(*result);
}

paraedge::Bundle open_bundle() {
  value_of(paraedge::load_engine(application::kEngine));
  return value_of(paraedge::Bundle::open(bundle_path()));
}

TEST_CASE("C++: a bundle, a session, a prediction") {
  const paraedge::Bundle bundle = open_bundle();
  CHECK(bundle.name() == std::string("fashion-mnist"));
  CHECK(bundle.engine() == std::string("executorch"));
  CHECK(bundle.version() >= 1);
  CHECK(bundle.num_outputs() == 10);
  CHECK(bundle.num_labels() == 10);
  CHECK(bundle.label(10) == nullptr);
  CHECK(bundle.num_branches() == 8);
  CHECK(bundle.branch_index(7) == 7);
  CHECK(bundle.has_early_stop());
  CHECK(bundle.input_kind() == paraedge::InputKind::image);
  CHECK(bundle.input_shape().size() == 4);

  auto session = value_of(paraedge::Session::open(bundle, {.threads = 2, .first_branches = 4}));
  CHECK(session.threads() == 2);
  CHECK(session.num_branches() == 4);
  CHECK(std::isnan(session.mandatory_ms()));
  const auto image = golden_image(784);
  const auto prediction = value_of(session.run(image));
  CHECK(prediction.output().size() == 10);
  CHECK(prediction.branch_outputs().size() == 40);
  CHECK(bundle.label(prediction.label_index()) != nullptr);
  CHECK(prediction.confidence() > 0.1f);
  CHECK(prediction.is_calibrated());
  CHECK(prediction.stem_ms() > 0);
  CHECK(prediction.elapsed_ms() > prediction.stem_ms());
  CHECK(prediction.deadline_met());
  CHECK(prediction.requests_to_learn() > 0);
  REQUIRE(prediction.num_branches() == 4);
  CHECK(prediction.branch(3).index == 3);
  CHECK(prediction.branch(3).state == paraedge::BranchState::used);

  const auto two = value_of(session.run(image, {.branches = {1, 3}}));
  CHECK(two.num_branches() == 2);
  const std::vector<float> values(784, 0.5f);
  CHECK(value_of(session.run(values)).num_branches() == 4);
  const auto soon = value_of(session.run(image, {.deadline = paraedge::Clock::now() + milliseconds(5000)}));
  CHECK(soon.deadline_met());
  CHECK(!value_of(session.run(image, {.deadline = paraedge::Clock::now()})).deadline_met());
}

TEST_CASE("C++: callbacks") {
  const paraedge::Bundle bundle = open_bundle();
  auto session = value_of(paraedge::Session::open(bundle, {.threads = 1}));
  const auto image = golden_image(784);
  size_t calls = 0, most = 0;
  auto watch = [&](paraedge::PredictionView so_far) {
    ++calls;
    most = so_far.branch_outputs().size() / so_far.output().size();
    return true;
  };
  // It is not called where all branches finish before the caller looks.
  for (int i = 0; i < 1000 && calls == 0; ++i) {
    CHECK(value_of(session.run(image, {.on_prediction = watch})).branch_outputs().size() == 80);
  }
  CHECK(calls >= 1);
  CHECK(most >= 1);
  CHECK(most <= 8);
  bool asked = false;
  std::vector<uint8_t> none;
  const auto failed = session.run(none, {.cancelled = [&] { return asked = true; }});
  REQUIRE(!failed);
  CHECK(failed.error().code == paraedge::ErrorCode::input);
  CHECK(!asked);
}

TEST_CASE("C++: errors are values") {
  const auto nowhere = paraedge::Bundle::open("nowhere.paraedge");
  REQUIRE(!nowhere);
  CHECK(nowhere.error().code == paraedge::ErrorCode::integrity);
  CHECK(nowhere.error().message.find("nowhere.paraedge does not exist") != std::string::npos);
  const auto session = paraedge::Session::open(open_bundle(), {.threads = -1});
  REQUIRE(!session);
  CHECK(session.error().code == paraedge::ErrorCode::input);
  CHECK(paraedge::load_engine("nowhere.so").error().code == paraedge::ErrorCode::unavailable);
  CHECK(paraedge::register_engine(pe_engine{}).error().code == paraedge::ErrorCode::input);
}

}  // namespace
