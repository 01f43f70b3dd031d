// Calls from the core into Python: load, run, close. No exception crosses the C boundary.
#include "python_engine.h"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "gil.h"

namespace paraedge::python {
namespace {

void write(char* message, const std::string& text) { std::snprintf(message, PE_MESSAGE_BYTES, "%s", text.c_str()); }

// Until the caller of the session takes it. A pointer, which needs no destructor at a thread's end: glibc may give a
// thread's storage to another one while ThreadSanitizer still sees the destructor's access.
thread_local std::exception_ptr* raised = nullptr;

void keep_raised() {
  delete raised;
  raised = new std::exception_ptr(std::current_exception());
}

constexpr const char* kShuttingDown = "the interpreter is shutting down";

// str(exception), whatever is in it; "" if that raises too.
std::string str(nb::handle exception) {
  const nb::object text = nb::steal(PyObject_Str(exception.ptr()));
  const nb::object bytes =
      nb::steal(text.is_valid() ? PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace") : nullptr);
  if (!bytes.is_valid()) {
    PyErr_Clear();
    return "";
  }
  return {PyBytes_AsString(bytes.ptr()), static_cast<size_t>(PyBytes_Size(bytes.ptr()))};
}

// An exception as one line; errors of paraedge's own speak for themselves, others are named.
std::string text_of(nb::handle exception) {
  const nb::object errors = nb::module_::import_("paraedge_runtime.errors");
  if (nb::isinstance(exception, errors.attr("ParaEdgeError"))) return str(exception);
  return std::string(nb::str(exception.type().attr("__name__")).c_str()) + ": " + str(exception);
}

}  // namespace

class PythonPart {
 public:
  PythonPart(PythonEngine& engine, nb::object part, const pe_part& described)
      : engine_(engine), run_(nb::object(part.attr("run")).release().ptr()), part_(part.release().ptr()),
        input_shape_(described.input_shape, described.input_shape + described.input_rank),
        output_shape_(described.output_shape, described.output_shape + described.output_rank) {}

  int run(const float* input, float* output, char* message) {  // with the GIL
    try {
      return call(input, output, message);
    } catch (const std::exception& error) {
      write(message, error.what());
      return PE_ERROR_ENGINE;
    }
  }

  void close() {  // with the GIL
    for (auto& [input, view] : views_) Py_DECREF(view);
    Py_CLEAR(run_);
    PyObject* part = std::exchange(part_, nullptr);
    PyObject* result = PyObject_CallMethod(part, "close", nullptr);
    if (!result) PyErr_WriteUnraisable(part);
    Py_XDECREF(result);
    Py_DECREF(part);
  }

 private:
  int call(const float* input, float* output, char* message) {
    PyObject* x = view_of(input);
    PyObject* result = x ? PyObject_CallFunctionObjArgs(run_, x, nullptr) : nullptr;
    if (!result) return failed(message);
    const bool fits = copy(result, output);
    Py_DECREF(result);
    if (fits) return PE_OK;
    PyErr_Clear();
    write(message, "the engine's output is not a float32 array of the manifest's output_shape");
    return PE_ERROR_ENGINE;
  }

  // A read-only array over the values. Requests take turns in a few slots, so arrays are kept.
  PyObject* view_of(const float* input) {
    for (const auto& [known, view] : views_) {
      if (known == input) return view;
    }
    if (views_.size() == kMaxViews) {
      for (auto& [known, view] : views_) Py_DECREF(view);
      views_.clear();
    }
    try {
      nb::ndarray<nb::numpy, const float> array(input, input_shape_.size(), input_shape_.data(), nb::handle());
      views_.emplace_back(input, array.cast(nb::rv_policy::reference).release().ptr());
    } catch (nb::python_error& error) {
      error.restore();
      return nullptr;
    }
    return views_.back().second;
  }

  bool copy(PyObject* result, float* output) const {
    Py_buffer buffer;
    if (PyObject_GetBuffer(result, &buffer, PyBUF_FULL_RO) != 0) return false;
    const bool fits = buffer.format && std::strcmp(buffer.format, "f") == 0 &&
                      std::equal(output_shape_.begin(), output_shape_.end(), buffer.shape, buffer.shape + buffer.ndim) &&
                      PyBuffer_ToContiguous(output, &buffer, buffer.len, 'C') == 0;
    PyBuffer_Release(&buffer);
    return fits;
  }

  int failed(char* message) {
    try {
      nb::raise_python_error();
    } catch (nb::python_error& error) {
      write(message, text_of(error.value()));
      if (is_worker() || error.matches(PyExc_Exception)) return PE_ERROR_ENGINE;
      keep_raised();  // Ctrl-C, SystemExit: the caller's, not the branch's
      return PE_ERROR_CANCELLED;
    }
  }

  static constexpr size_t kMaxViews = 64;
  PythonEngine& engine_;
  PyObject *run_, *part_;
  std::vector<size_t> input_shape_;
  std::vector<Py_ssize_t> output_shape_;
  std::vector<std::pair<const float*, PyObject*>> views_;
};

PythonEngine::PythonEngine(nb::object engine, bool sequential) : engine_(std::move(engine)) {
  c_.size = sizeof c_;
  c_.name = "python";
  c_.context = this;
  c_.load = load;
  c_.run = run;
  c_.close = close;
  c_.sequential = sequential;
  c_.thread_begin = [](void*) { return begin_thread(); };
  c_.thread_end = [](void*, void* begun) { end_thread(begun); };
}

std::exception_ptr PythonEngine::take_raised() {
  const std::unique_ptr<std::exception_ptr> taken(std::exchange(raised, nullptr));
  return taken ? *taken : nullptr;
}

void PythonEngine::add(const std::string& name, nb::bytes program, nb::object entry) {
  sources_[name] = {std::move(program), std::move(entry)};
}

int PythonEngine::load(void* context, const pe_part* part, const void*, size_t, void** loaded, char* message) {
  auto& self = *static_cast<PythonEngine*>(context);
  const GilAcquire gil;
  if (!gil) {
    write(message, kShuttingDown);
    return PE_ERROR_ENGINE;
  }
  return in_python([&] {
    try {
      const Source& source = self.sources_.at(part->name);
      nb::object made = self.engine_.attr("load")(part->name, source.program, source.entry);
      *loaded = new PythonPart(self, std::move(made), *part);
      return static_cast<int>(PE_OK);
    } catch (const std::exception& error) {
      keep_raised();
      write(message, error.what());
      return static_cast<int>(PE_ERROR_ENGINE);
    }
  });
}

int PythonEngine::run(void* loaded, const float* input, float* output, char* message) {
  const GilAcquire gil;
  if (gil) return in_python([&] { return static_cast<PythonPart*>(loaded)->run(input, output, message); });
  write(message, kShuttingDown);
  return PE_ERROR_ENGINE;
}

void PythonEngine::close(void* loaded) {
  auto* part = static_cast<PythonPart*>(loaded);
  const GilAcquire gil;
  if (gil) in_python([&] { part->close(); });
  delete part;
}

}  // namespace paraedge::python
