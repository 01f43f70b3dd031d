// Leaving and entering the interpreter, also while it shuts down: a thread that enters then would be ended by Python in
// the middle of C++ frames, which ends the process.
#pragma once

#include <nanobind/nanobind.h>

namespace paraedge::python {

// Without the GIL as long as this lives. Once the interpreter shuts down, threads other than the main one stay outside.
class GilRelease {
 public:
  GilRelease() : state_(PyEval_SaveThread()) {}
  ~GilRelease();
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

// With the GIL as long as this lives, if the interpreter is not shutting down.
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

// The thread state of a worker: kept for its whole life, since making one for every crossing costs 6.5 µs.
void* begin_thread();
void end_thread(void* begun);

// At exit, with the GIL: from now on threads stay outside, and none is on its way in.
void shut_doors();

}  // namespace paraedge::python
