// Parts really run at the same time: wherever one is held up, another runs to its end.
//
// ExecuTorch's builds for phones switch XNNPACK's weight cache on for the whole process, and a part that uses it holds
// one lock for as long as it runs. Times would depend on the machine; here a branch is stopped at each lock that it
// takes.
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // these replace pthread_mutex_lock themselves
#include <dlfcn.h>
#include <pthread.h>

#include <chrono>
#include <functional>
#include <future>
#include <optional>
#include <utility>

#include "engine.h"
#include "executorch.h"
#include "shape.h"
#include "support.h"

namespace {

thread_local std::function<void()> before_locking;  // called before this thread takes a lock; empty: nothing is

}  // namespace

// ExecuTorch's libraries find this one first.
extern "C" PE_API int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static const auto lock = reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  if (before_locking) {
    auto call = std::exchange(before_locking, {});  // it takes locks itself
    call();
    before_locking = std::move(call);
  }
  return lock(mutex);
}

namespace paraedge::tests {
namespace {

struct WeightCache {  // as phones have it, until this object's end
  WeightCache() { set_weight_cache(true); }
  ~WeightCache() { set_weight_cache(false); }
};

// A branch of the bundle, loaded as a session loads it.
class Branch {
 public:
  Branch(const Bundle& bundle, size_t position)
      : part_(bundle.manifest().branches[position]),
        loaded_(*pe_engine_entry(PE_API_VERSION), {part_, bundle.program(part_)}, branch_name(part_.index), 1),
        input_(elements(part_.input_shape), 0.5f),
        output_(elements(part_.output_shape)) {}

  bool run() { return loaded_.run(input_.data(), output_.data()).code == PE_OK; }

  int locks() {  // that a run takes
    int count = 0;
    before_locking = [&count] { ++count; };
    const bool fine = run();
    before_locking = {};
    REQUIRE(fine);
    return count;
  }

  void run_and_stop(int lock, const std::function<void()>& meanwhile) {
    before_locking = [&] {
      if (lock-- == 0) meanwhile();
    };
    const bool fine = run();
    before_locking = {};
    REQUIRE(fine);
  }

 private:
  const Part& part_;
  LoadedPart loaded_;
  const std::vector<float> input_;
  std::vector<float> output_;
};

// The first lock before which branch 0 holds branch 1 up when it stops there; none: it never does.
std::optional<int> holds_up(const Bundle& bundle) {
  Branch one(bundle, 0), other(bundle, 1);
  REQUIRE((one.run() && other.run()));  // the first run may set something up
  const int locks = one.locks();
  CHECK(locks > 0);  // it is seen
  std::optional<int> found;
  for (int lock = 0; lock < locks && !found; ++lock) {
    std::future<bool> others;
    one.run_and_stop(lock, [&] {
      others = std::async(std::launch::async, [&] { return other.run(); });
      if (others.wait_for(std::chrono::seconds(20)) != std::future_status::ready) found = lock;
    });
    CHECK(others.get());
  }
  return found;
}

}  // namespace

TEST_CASE("no branch holds another one up, where a phone's ExecuTorch shares its weights too") {
  const auto bundle = open_bundle();
  const WeightCache as_on_phones;
  CHECK_FALSE(holds_up(*bundle).has_value());
}

}  // namespace paraedge::tests
#endif
