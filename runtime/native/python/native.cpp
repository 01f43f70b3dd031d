// paraedge_runtime._native: the core for Python. Arrays go in without a copy, the GIL is free while parts run.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>

#include "controller.h"
#include "paraedge/runtime.h"
#include "part.h"
#include "refusal.h"
#include "shape.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace paraedge;
using Tensor = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

// Raises the Python exception of an error's kind; the tree of errors is in paraedge_runtime.errors.
[[noreturn]] void raise(const Error& error) {
  const char* names[] = {"ManifestError", "IntegrityError", "EngineError", "InputError"};
  const nb::object kind =
      nb::module_::import_("paraedge_runtime.errors").attr(names[static_cast<size_t>(error.code)]);
  PyErr_SetString(kind.ptr(), error.message.c_str());
  throw nb::python_error();
}

// A numpy array that owns these values.
nb::object array(std::vector<float> values, const std::vector<size_t>& shape) {
  auto* kept = new std::vector<float>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return nb::ndarray<nb::numpy, float>(kept->data(), shape.size(), shape.data(), owner).cast();
}

Program program_of(const std::string& file, int index, nb::bytes bytes, const Shape& input, const Shape& output,
                   int64_t macs) {
  Program program;
  program.part = {.file = file, .index = index, .input_shape = input, .output_shape = output, .macs = macs};
  program.bytes = {static_cast<const std::byte*>(bytes.data()), bytes.size()};
  return program;
}

// One part by itself: what the parity gate runs.
class NativePart {
 public:
  NativePart(const std::string& name, const std::string& file, nb::bytes bytes, const Shape& input,
             const Shape& output)
      : bytes_(bytes),
        output_shape_(output.begin(), output.end()),
        input_size_(elements(input)),
        output_size_(elements(output)) {
    auto loaded = guarded<std::unique_ptr<LoadedPart>>([&] {
      return std::make_unique<LoadedPart>(program_of(file, -1, bytes, input, output, 0), name, Threading::one);
    });
    if (!loaded) raise(loaded.error());
    part_ = std::move(*loaded);
  }

  nb::object run(const Tensor& x) {
    if (x.size() != input_size_) raise({ErrorCode::input, "the input has " + std::to_string(x.size()) + " values"});
    std::vector<float> output(output_size_);
    std::string problem;
    {
      nb::gil_scoped_release free;
      const OneThread one_thread;
      problem = part_->run(x.data(), output);
    }
    if (!problem.empty()) {
      raise({ErrorCode::engine, "executorch failed while running " + part_->name() + ": " + problem +
                                    "; 'paraedge verify' checks the bundle"});
    }
    return array(std::move(output), output_shape_);
  }

 private:
  nb::bytes bytes_;  // the part reads its program from here
  std::vector<size_t> output_shape_;
  size_t input_size_, output_size_;
  std::unique_ptr<LoadedPart> part_;
};

// What a session found, turned into Python's objects as far as somebody asks for them.
class Answer {
 public:
  explicit Answer(Prediction prediction, Clock::duration call = {})
      : p(std::move(prediction)), call_us(std::chrono::duration<double, std::micro>(call).count()) {}

  nb::object output() const { return array(p.output, {p.output.size()}); }

  nb::object branch_outputs() const {  // rows of the used branches
    const size_t columns = p.output.size();
    std::vector<float> rows;
    for (size_t place = 0; place < p.branches.size(); ++place) {
      if (p.branches[place].state != BranchState::used) continue;
      const auto row = p.branch_outputs.begin() + static_cast<ptrdiff_t>(place * columns);
      rows.insert(rows.end(), row, row + static_cast<ptrdiff_t>(columns));
    }
    const size_t count = rows.size() / columns;
    return array(std::move(rows), {count, columns});
  }

  nb::list branches() const {  // the fields of BranchRun in paraedge_runtime/prediction.py
    nb::list runs;
    for (const BranchRun& run : p.branches) {
      runs.append(nb::make_tuple(run.index, static_cast<int>(run.state), run.thread, run.start_ms, run.end_ms,
                                 run.predicted_ms, run.left_ms, run.problem));
    }
    return runs;
  }

  Prediction p;
  double call_us;  // of Session::run: what Python takes beyond it is measured in benchmarks/python_threads.py
};

// A numpy array's memory, as long as this lives; of anything else, and of an array with gaps, nothing. By the
// buffer protocol itself: what Python does is cold after a request, so every microsecond of it counts.
class View {
 public:
  View(nb::handle object, nb::handle array_type) {
    held_ = PyObject_TypeCheck(object.ptr(), reinterpret_cast<PyTypeObject*>(array_type.ptr())) &&
            PyObject_GetBuffer(object.ptr(), &buffer_, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) == 0;
    if (!held_) PyErr_Clear();
  }
  ~View() {
    if (held_) PyBuffer_Release(&buffer_);
  }
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  bool is(char type, std::initializer_list<Py_ssize_t> shape) const {
    return held_ && buffer_.format[0] == type && buffer_.format[1] == 0 &&
           std::equal(shape.begin(), shape.end(), buffer_.shape, buffer_.shape + buffer_.ndim);
  }
  const void* data() const { return buffer_.buf; }
  size_t size() const { return static_cast<size_t>(buffer_.len); }

 private:
  Py_buffer buffer_{};
  bool held_;
};

// A stem and its branches with their threads. The caller sees to it that one thread at a time calls `run`.
class NativeSession {
 public:
  using Entry = std::tuple<std::string, int, nb::bytes, Shape, Shape, int64_t>;

  NativeSession(const std::vector<Entry>& parts, const std::vector<float>& scale, const std::vector<float>& shift,
                int threads, int spin_us, const std::vector<double>& part_ms, const std::vector<double>& contention,
                const std::vector<std::pair<double, double>>& early_stop) {
    std::vector<Program> programs;
    for (const auto& [file, index, bytes, input, output, macs] : parts) {
      alive_.append(bytes);
      programs.push_back(program_of(file, index, bytes, input, output, macs));
    }
    Program stem = std::move(programs.front());
    programs.erase(programs.begin());
    input_.shape = stem.part.input_shape;
    channels_ = input_.shape.at(1);
    height_ = input_.shape.at(2);
    width_ = input_.shape.at(3);
    input_.scale = scale;
    input_.shift = shift;
    SessionOptions options{.threads = threads, .spin_us = spin_us};
    options.latency = {part_ms, contention};
    for (const auto& [temperature, threshold] : early_stop) options.early_stop.push_back({temperature, threshold});
    auto session = Session::open(std::move(stem), std::move(programs), nullptr, options);
    if (!session) raise(session.error());
    session_ = std::move(*session);
  }

  // None if `image` is not exactly what the bundle reads: a picture, (H, W, C) uint8 ((H, W) will do for one channel),
  // or (1, C, H, W) finite float32; a C-contiguous numpy array. Times are of CLOCK_MONOTONIC, as
  // time.monotonic() gives them; infinity for none.
  nb::object run(nb::handle image, int branches, double deadline_s, double leave_s, bool all, bool early_stop,
                 const nb::object& on_answer) {
    RunOptions options{.branches = branches, .policy = all ? Policy::all : Policy::anytime, .early_stop = early_stop};
    options.deadline = time_point(deadline_s);
    options.leave = time_point(leave_s);
    std::exception_ptr raised;  // an exception must not cross the session
    if (!on_answer.is_none()) {
      options.on_answer = [&](const Prediction& so_far) {
        nb::gil_scoped_acquire held;
        try {
          return nb::cast<bool>(on_answer(Answer(so_far)));
        } catch (...) {
          raised = std::current_exception();
          return false;
        }
      };
    }
    const View view(image, array_type_);
    std::vector<float> normalised;
    std::span<const float> input;
    if (view.is('B', {height_, width_, channels_}) || (channels_ == 1 && view.is('B', {height_, width_}))) {
      auto made = normalise({static_cast<const uint8_t*>(view.data()), view.size()}, input_);
      if (!made) raise(made.error());
      normalised = std::move(*made);
      input = normalised;
    } else if (view.is('f', {1, channels_, height_, width_})) {
      input = {static_cast<const float*>(view.data()), view.size() / sizeof(float)};
      if (!std::all_of(input.begin(), input.end(), [](float value) { return std::isfinite(value); })) return nb::none();
    } else {
      return nb::none();
    }
    std::optional<Result<Prediction>> answer;
    Clock::duration call_time;
    {
      nb::gil_scoped_release free;
      const Clock::time_point begin = Clock::now();
      answer.emplace(session_->run(input, options));
      call_time = Clock::now() - begin;
    }
    if (raised) std::rethrow_exception(raised);
    if (!*answer) raise(answer->error());
    return nb::cast(Answer(std::move(**answer), call_time));
  }

  double mandatory_ms() const { return session_->mandatory_ms(); }

  void close() {
    {
      nb::gil_scoped_release free;
      session_.reset();
    }
    alive_ = nb::list();
  }

 private:
  static Clock::time_point time_point(double monotonic_s) {
    if (!(monotonic_s < std::numeric_limits<double>::infinity())) return Clock::time_point::max();
    return Clock::time_point(std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(monotonic_s)));
  }

  nb::list alive_;  // the bytes that the parts read their programs from
  paraedge::Input input_;  // how an image is normalised
  Py_ssize_t channels_ = 0, height_ = 0, width_ = 0;
  nb::object array_type_ = nb::module_::import_("numpy").attr("ndarray");
  std::unique_ptr<Session> session_;
};

// Controller, for the test that compares it with Python's.
Controller make_controller(const std::vector<double>& macs, const std::vector<double>& part_ms,
                           const std::vector<double>& contention) {
  auto made = guarded<Controller>([&] { return Controller(macs, {part_ms, contention}); });
  if (!made) raise(made.error());
  return *made;
}

// For the tests that compare the two readers.
void check_bundle(const std::string& path) {
  const auto bundle = Bundle::open(path);
  if (!bundle) raise(bundle.error());
}

nb::object normalise_for(const std::string& path, nb::ndarray<nb::c_contig, nb::device::cpu> value) {
  auto bundle = Bundle::open(path);
  if (!bundle) raise(bundle.error());
  const paraedge::Input& input = (*bundle)->manifest().input;
  auto made = value.dtype() == nb::dtype<uint8_t>()
                  ? normalise(std::span(static_cast<const uint8_t*>(value.data()), value.size()), input)
                  : normalise(std::span(static_cast<const float*>(value.data()), value.size()), input);
  if (!made) raise(made.error());
  return array(std::move(*made), {input.shape.begin(), input.shape.end()});
}

}  // namespace

NB_MODULE(_native, m) {
  m.attr("executorch_version") = PARAEDGE_EXECUTORCH_VERSION;
  m.def("check_bundle", &check_bundle, "path"_a);
  m.def("normalise", &normalise_for, "path"_a, "value"_a);
  nb::class_<NativePart>(m, "Part")
      .def(nb::init<const std::string&, const std::string&, nb::bytes, const Shape&, const Shape&>(), "name"_a,
           "file"_a, "program"_a, "input_shape"_a, "output_shape"_a)
      .def("run", &NativePart::run, "x"_a.noconvert());
  const auto never = std::numeric_limits<double>::infinity();
  nb::class_<Answer>(m, "Answer")
      .def_prop_ro("output", &Answer::output)
      .def_prop_ro("branch_outputs", &Answer::branch_outputs)
      .def_prop_ro("branches", &Answer::branches)
      .def_prop_ro("label_index", [](const Answer& a) { return a.p.label_index; })
      .def_prop_ro("confidence", [](const Answer& a) { return a.p.confidence; })
      .def_prop_ro("stem_ms", [](const Answer& a) { return a.p.stem_ms; })
      .def_prop_ro("elapsed_ms", [](const Answer& a) { return a.p.elapsed_ms; })
      .def_prop_ro("cut_short", [](const Answer& a) { return a.p.cut_short; })
      .def_prop_ro("requests_to_learn", [](const Answer& a) { return a.p.requests_to_learn; })
      .def_ro("call_us", &Answer::call_us);
  nb::class_<NativeSession>(m, "Session")
      .def(nb::init<const std::vector<NativeSession::Entry>&, const std::vector<float>&, const std::vector<float>&,
                    int, int, const std::vector<double>&, const std::vector<double>&,
                    const std::vector<std::pair<double, double>>&>(),
           "parts"_a, "scale"_a, "shift"_a, "threads"_a, "spin_us"_a = 50, "part_ms"_a = std::vector<double>(),
           "contention"_a = std::vector<double>(), "early_stop"_a = std::vector<std::pair<double, double>>())
      .def("run", &NativeSession::run, "image"_a, "branches"_a = 0, "deadline_s"_a = never, "leave_s"_a = never,
           "all"_a = false, "early_stop"_a = false, "on_answer"_a = nb::none())
      .def_prop_ro("mandatory_ms", &NativeSession::mandatory_ms)
      .def("close", &NativeSession::close);
  nb::class_<Controller>(m, "Controller")
      .def_static("make", &make_controller, "macs"_a, "part_ms"_a, "contention"_a)
      .def("predicted_ms", &Controller::predicted_ms, "part"_a, "busy"_a)
      .def("observe", &Controller::observe, "part"_a, "busy"_a, "ms"_a)
      .def("outlasted", &Controller::outlasted, "part"_a, "busy"_a, "ms"_a)
      .def("returned", &Controller::returned, "late_ms"_a)
      .def("did_not_wait", &Controller::did_not_wait)
      .def("margin_ms", &Controller::margin_ms, "least_ms"_a)
      .def_prop_ro("mandatory_ms", &Controller::mandatory_ms)
      .def_prop_ro("requests_to_learn", &Controller::requests_to_learn);
}
