// Leaving and entering the interpreter, also while it shuts down: a thread that enters then would be ended by Python in
// the middle of C++ frames, which ends the process.
#pragma once

#include <nanobind/nanobind.h>

#include <cxxabi.h>

#include <chrono>

namespace paraedge::python {

// Without the GIL as long as this lives. Once the doors are shut, threads other than the one that shut them stay outside.
class GilRelease {
 public:
  GilRelease();
  ~GilRelease();
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

// With the GIL as long as this lives, if the doors are open.
class GilAcquire {
 public:
  GilAcquire();
  ~GilAcquire() {
    if (held_) PyGILState_Release(state_);
  }
  GilAcquire(const GilAcquire&) = delete;
  GilAcquire& operator=(const GilAcquire&) = delete;
  explicit operator bool() const { return held_; }

 private:
  bool held_;
  PyGILState_STATE state_{};
};

[[noreturn]] void stay_outside();  // until the process ends

// Runs Python code. A thread that Python ends in there, since the interpreter has gone meanwhile, stays here: going on
// would run destructors that touch Python.
template <class Body>
auto in_python(Body&& body) {
#ifdef __GLIBCXX__
  try {
    return body();
  } catch (abi::__forced_unwind&) {  // how glibc's pthread_exit leaves
    stay_outside();
  }
#else
  return body();
#endif
}

// The thread state of a worker: kept for its whole life, since making one for every crossing costs 6.5 µs.
void* begin_thread();
void end_thread(void* begun);
// Whether this thread is a worker: it must not wait for workers, one of which it may be.
bool is_worker();

// At exit, without the GIL: waits at most until then for threads that are on their way back into the interpreter, then
// lets none in but the caller.
void shut_doors(std::chrono::steady_clock::time_point patience);

}  // namespace paraedge::python
