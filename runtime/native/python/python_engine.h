// An engine written in Python, called by the core's threads.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>
#include <map>
#include <string>

#include "paraedge/paraedge.h"

namespace paraedge::python {

namespace nb = nanobind;

// Loads parts by `engine.load(name, program, entry)` and runs them by `part.run(x)`; see paraedge_runtime/engines/base.py.
class PythonEngine {
 public:
  PythonEngine(nb::object engine, bool sequential);
  PythonEngine(const PythonEngine&) = delete;
  PythonEngine& operator=(const PythonEngine&) = delete;

  // What `load` is to be given for a part.
  void add(const std::string& name, nb::bytes program, nb::object entry);
  const pe_engine& c() const { return c_; }
  // What Python raised on this thread: in `load`, or, in a request, what was no Exception (Ctrl-C). Taken once.
  static std::exception_ptr take_raised();

 private:
  struct Source {
    nb::bytes program;
    nb::object entry;
  };
  static int load(void* context, const pe_part* part, const void* program, size_t bytes, void** loaded, char* message);
  static int run(void* loaded, const float* input, float* output, char* message);
  static void close(void* loaded);

  friend class PythonPart;
  nb::object engine_;
  std::map<std::string, Source> sources_;
  pe_engine c_{};
};

}  // namespace paraedge::python
