// Doors to the interpreter that close when it shuts down.
#include "gil.h"

#include <pthread.h>

#include <atomic>
#include <thread>

namespace paraedge::python {
namespace {

using std::chrono::steady_clock;

std::atomic<bool> shut{false};
std::atomic<pthread_t> keeper{};   // the thread that shut the doors: it ends the interpreter
std::atomic<int> outside{0};       // threads that left the interpreter and mean to come back
std::atomic<int> entering{0};      // threads between the look at `shut` and the GIL
thread_local bool worker = false;

// In the child of a fork there are no other threads, whatever they were counted as.
const int forks_registered = pthread_atfork(nullptr, nullptr, [] { outside = entering = 0; });

// Counts as entering until destroyed. Says whether the door is open.
class Entry {
 public:
  Entry() { entering.fetch_add(1); }
  ~Entry() { entering.fetch_sub(1); }
  Entry(const Entry&) = delete;
  bool is_open() const { return !shut.load() || pthread_equal(keeper.load(), pthread_self()); }
};

}  // namespace

void stay_outside() {
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));
}

GilRelease::GilRelease() {
  outside.fetch_add(1);  // first: without the GIL anything may happen, the end of the interpreter too
  state_ = PyEval_SaveThread();
}

GilRelease::~GilRelease() {
  {
    const Entry entry;
    if (entry.is_open()) {
      PyEval_RestoreThread(state_);
      outside.fetch_sub(1);
      return;
    }
  }
  stay_outside();
}

GilAcquire::GilAcquire() {
  const Entry entry;
  held_ = entry.is_open();
  if (held_) state_ = PyGILState_Ensure();
}

void* begin_thread() {
  worker = true;
  const Entry entry;
  if (!entry.is_open()) return nullptr;
  PyGILState_Ensure();
  return PyEval_SaveThread();
}

void end_thread(void* begun) {
  if (begun == nullptr) return;
  const Entry entry;
  if (!entry.is_open()) return;
  PyEval_RestoreThread(static_cast<PyThreadState*>(begun));
  PyGILState_Release(PyGILState_UNLOCKED);
}

bool is_worker() { return worker; }

void shut_doors(steady_clock::time_point patience) {
  const auto wait = [] { std::this_thread::sleep_for(std::chrono::microseconds(50)); };
  while (outside.load() > 0 && steady_clock::now() < patience) wait();
  keeper = pthread_self();
  shut = true;
  while (entering.load() > 0) wait();
}

}  // namespace paraedge::python
