// Doors to the interpreter that close when it shuts down.
#include "gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace paraedge::python {
namespace {

std::atomic<bool> shut{false};
std::atomic<int> entering{0};  // threads between the look at `shut` and the GIL
const std::thread::id main_thread = std::this_thread::get_id();  // the module is imported by it, or by one that lives on

// Counts as entering until destroyed. Says whether the door is open.
class Entry {
 public:
  Entry() { entering.fetch_add(1); }
  ~Entry() { entering.fetch_sub(1); }
  bool is_open() const { return !shut.load() || std::this_thread::get_id() == main_thread; }
};

}  // namespace

GilRelease::~GilRelease() {
  {
    const Entry entry;
    if (entry.is_open()) {
      PyEval_RestoreThread(state_);
      return;
    }
  }
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));  // the process is about to end
}

GilAcquire::GilAcquire() {
  const Entry entry;
  held_ = entry.is_open();
  if (held_) state_ = PyGILState_Ensure();
}

void* begin_thread() {
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

void shut_doors() {
  shut = true;
  PyThreadState* state = PyEval_SaveThread();
  while (entering.load() > 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  PyEval_RestoreThread(state);
}

}  // namespace paraedge::python
