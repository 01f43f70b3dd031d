// The worker's loop. A call that comes while it works is seen when it is done: none is lost.
#include "pool.h"

#include <string>
#include <system_error>

#include "refusal.h"

namespace paraedge {

Pool::Pool(int count, std::chrono::microseconds spin, const pe_engine& engine, std::function<void(int)> work)
    : spin_(spin), engine_(engine), work_(std::move(work)) {
  for (int number = 0; number < count; ++number) {
    workers_.push_back(std::make_unique<Worker>());
    Worker& worker = *workers_.back();
    try {
      worker.thread = std::thread([this, &worker, number] { serve(worker, number); });
    } catch (const std::system_error& error) {
      workers_.pop_back();
      stop();
      throw Refusal(ErrorCode::engine, "only " + std::to_string(number) + " of " + std::to_string(count) +
                                           " threads can be started here: " + error.what() + "; ask for fewer threads");
    }
#if defined(__linux__)
    pthread_setname_np(worker.thread.native_handle(), ("paraedge-" + std::to_string(number)).c_str());
#endif
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  stopping_ = true;
  for (auto& worker : workers_) call(*worker);
  for (auto& worker : workers_) worker->thread.join();
}

void Pool::wake(int worker) { call(*workers_[static_cast<size_t>(worker)]); }

void Pool::call(Worker& worker) {
  // Sequentially consistent, as is `asleep`: either the worker sees the call before it sleeps, or
  // this thread sees that it sleeps.
  worker.calls.fetch_add(1);
  if (worker.asleep) {
    { std::lock_guard lock(worker.mutex); }
    worker.awake.notify_one();
  }
}

void Pool::serve(Worker& worker, int number) {
  void* begun = engine_.thread_begin ? engine_.thread_begin(engine_.context) : nullptr;
  wait_for_work(worker, number);
  if (engine_.thread_end) engine_.thread_end(engine_.context, begun);
}

void Pool::wait_for_work(Worker& worker, int number) {
  uint32_t seen = 0;
  auto called = [&] { return worker.calls.load() != seen; };
  while (true) {
    if (!spin_until(called, spin_)) {
      std::unique_lock lock(worker.mutex);
      // An exchange and not a store: emulated Arm on x86 lets the load of `calls` pass a store.
      worker.asleep.exchange(true);
      worker.awake.wait(lock, called);
      worker.asleep = false;
    }
    seen = worker.calls.load();
    if (stopping_) return;
    work_(number);
  }
}

}  // namespace paraedge
