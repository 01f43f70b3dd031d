// Threads that wait for work: a bounded spin, then sleep.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "paraedge/paraedge.h"

namespace paraedge {

// Spins until `done()` or for `longest`; returns the last result of `done`.
template <class Done>
bool spin_until(Done&& done, std::chrono::microseconds longest);

class Pool {
 public:
  // Each woken worker calls `work` with its number, 0 … count - 1, then waits again. The engine is told when a
  // worker begins and ends. Throws Refusal (engine): not so many threads can be started.
  Pool(int count, std::chrono::microseconds spin, const pe_engine& engine, std::function<void(int)> work);
  ~Pool();  // waits for work in progress

  void wake(int worker);
  std::thread& thread(int worker) { return workers_[static_cast<size_t>(worker)]->thread; }

 private:
  struct Worker {
    std::atomic<uint32_t> calls{0};  // how often it was woken, or told to stop
    std::atomic<bool> asleep{false};
    std::mutex mutex;
    std::condition_variable awake;
    std::thread thread;
  };
  void serve(Worker& worker, int number);
  void wait_for_work(Worker& worker, int number);
  void stop();
  static void call(Worker& worker);

  const std::chrono::microseconds spin_;
  const pe_engine engine_;
  std::function<void(int)> work_;
  std::atomic<bool> stopping_{false};
  std::vector<std::unique_ptr<Worker>> workers_;
};

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield");
#endif
}

template <class Done>
bool spin_until(Done&& done, std::chrono::microseconds longest) {
  if (done()) return true;
  if (longest.count() <= 0) return false;
  const auto end = std::chrono::steady_clock::now() + longest;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace paraedge
