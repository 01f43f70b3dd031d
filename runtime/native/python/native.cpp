// paraedge_runtime._native: the core for Python; _native.pyi is its description. Arrays go in without a copy, the GIL is
// free while parts run.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <thread>

#include "arrivals.h"
#include "controller.h"
#include "engine.h"
#include "gil.h"
#include "program.h"
#include "python_engine.h"
#include "refusal.h"
#include "request.h"
#include "runtime.h"
#include "shape.h"
#include "signature.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace paraedge::python {
namespace {

using FloatArray = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

// From the look at the clock that decides about the deadline to the caller's next line.
constexpr std::chrono::microseconds kHandOver(20);
// How long the end of the process waits for branches that still run.
constexpr std::chrono::seconds kPatience(2);

// Raises the Python exception of an error's kind; the tree of errors is in paraedge_runtime.errors.
[[noreturn]] void raise(const Error& error) {
  const auto name = [&] {
    switch (error.code) {
      case ErrorCode::manifest: return "ManifestError";
      case ErrorCode::integrity: return "IntegrityError";
      case ErrorCode::unavailable: return "EngineUnavailable";
      case ErrorCode::input: return "InputError";
      case ErrorCode::dropped: return "RequestDropped";
      default: return "EngineError";
    }
  }();
  const nb::object kind = nb::module_::import_("paraedge_runtime.errors").attr(name);
  PyErr_SetString(kind.ptr(), as_utf8(error.message).c_str());
  nb::raise_python_error();
}

template <class T>
T value_of(Result<T> result) {
  if (!result) raise(result.error());
  return std::move(*result);
}

// A numpy array that owns these values.
nb::object array(std::vector<float> values, const std::vector<size_t>& shape) {
  auto* kept = new std::vector<float>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  return nb::ndarray<nb::numpy, float>(kept->data(), shape.size(), shape.data(), owner).cast();
}

// A part of a bundle: its name, its program, and its entry in the manifest.
struct PartSource {
  std::string name;
  nb::bytes bytes;
  nb::object entry;

  Program program() const {
    Program program;
    program.part.file = nb::cast<std::string>(entry.attr("file"));
    program.part.index = nb::hasattr(entry, "index") ? nb::cast<int>(entry.attr("index")) : -1;
    program.part.input_shape = nb::cast<Shape>(entry.attr("input_shape"));
    program.part.output_shape = nb::cast<Shape>(entry.attr("output_shape"));
    program.part.macs = nb::cast<int64_t>(entry.attr("macs"));
    if (const nb::object delegate = entry.attr("delegate"); !delegate.is_none()) {
      program.part.delegate = nb::cast<std::string>(delegate);
    }
    program.bytes = {static_cast<const std::byte*>(bytes.data()), bytes.size()};
    return program;
  }
};

pe_engine native_engine(const std::string& name) {
  const auto engine = find_engine(name);
  if (!engine) raise({ErrorCode::unavailable, "the native engine '" + name + "' is not loaded; there are: " + engine_names()});
  return *engine;
}

// One part of a native engine by itself: what the parity gate runs.
class NativePart {
 public:
  NativePart(const std::string& engine, PartSource source) : source_(std::move(source)) {
    const Program program = source_.program();
    input_size_ = elements(program.part.input_shape);
    output_shape_.assign(program.part.output_shape.begin(), program.part.output_shape.end());
    part_ = value_of(guarded<std::unique_ptr<LoadedPart>>(
        [&] { return std::make_unique<LoadedPart>(native_engine(engine), program, source_.name, 1); }));
  }

  nb::object run(const FloatArray& x) {
    const std::shared_ptr<LoadedPart> part = part_;  // however it is closed meanwhile
    if (!part) raise({ErrorCode::engine, source_.name + " is closed"});
    if (x.size() != input_size_) {
      raise({ErrorCode::input, source_.name + " reads " + std::to_string(input_size_) + " values, the input has " +
                                   std::to_string(x.size())});
    }
    size_t size = 1;
    for (const size_t n : output_shape_) size *= n;
    std::vector<float> output(size);
    RunResult result;
    {
      const GilRelease free;
      result = part->run(x.data(), output.data());
    }
    if (result.code != PE_OK) raise({ErrorCode::engine, result.problem + "; 'paraedge verify' checks the bundle"});
    return array(std::move(output), output_shape_);
  }

  void close() { part_.reset(); }

 private:
  PartSource source_;  // the part reads its program from here
  size_t input_size_ = 0;
  std::vector<size_t> output_shape_;
  std::shared_ptr<LoadedPart> part_;
};

// A prediction, turned into Python's objects as far as somebody asks for them.
class Found {
 public:
  explicit Found(Prediction prediction, Clock::duration call = {})
      : p(std::move(prediction)), call_us(std::chrono::duration<double, std::micro>(call).count()) {}

  nb::object output() const { return array(p.output, {p.output.size()}); }
  nb::object branch_outputs() const {
    return array(p.branch_outputs, {p.branch_outputs.size() / p.output.size(), p.output.size()});
  }

  Prediction p;
  double call_us;  // of the core: what Python takes beyond it is measured in benchmarks/python_threads.py
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

  bool is(char type, std::span<const Py_ssize_t> shape) const {
    return held_ && buffer_.format[0] == type && buffer_.format[1] == 0 &&
           std::equal(shape.begin(), shape.end(), buffer_.shape, buffer_.shape + buffer_.ndim);
  }
  template <class T>
  std::span<const T> values() const {
    return {static_cast<const T*>(buffer_.buf), static_cast<size_t>(buffer_.len) / sizeof(T)};
  }

 private:
  Py_buffer buffer_{};
  bool held_;
};

Clock::time_point time_point(double monotonic_s) {
  // Beyond 200 years a time_point overflows: for ever, or long ago.
  constexpr double kFar = 200.0 * 365 * 24 * 3600;
  if (!(monotonic_s < kFar)) return Clock::time_point::max();
  return Clock::time_point(
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::max(monotonic_s, -kFar))));
}

// An exception on its way through Python, put aside: whatever is freed then may call Python.
class ErrorAside {
 public:
  ErrorAside() { PyErr_Fetch(&type_, &value_, &traceback_); }
  ~ErrorAside() { PyErr_Restore(type_, value_, traceback_); }
  ErrorAside(const ErrorAside&) = delete;

 private:
  PyObject *type_, *value_, *traceback_;
};

// What the threads of a session use. It outlives the Python object while one of them is inside.
struct SessionState {
  std::vector<PartSource> sources;     // the parts read their programs from here
  std::optional<PythonEngine> python;  // outlives the session
  std::unique_ptr<Session> session;
};

// With the GIL. Waits for the session's threads, unless this is one of them: a Python engine may drop the last reference,
// or start the garbage collection that finds it.
void free_state(SessionState* state) {
  const ErrorAside aside;
  if (!is_worker()) {
    {
      const GilRelease free;
      state->session.reset();
    }
    delete state;
    return;
  }
  try {
    std::thread([state] {
      state->session.reset();
      const GilAcquire gil;
      if (gil) in_python([&] { delete state; });
    }).detach();
  } catch (const std::system_error&) {  // no thread can be started: it stays as it is
  }
}

// Set when the interpreter ends, with the GIL.
std::optional<std::thread::id> ending_thread;

// A request that cannot be made, or go on, because the process ends: its thread ends as daemon threads do, without a word.
[[noreturn]] void refuse_request(const Error& error) {
  if (!ending_thread || *ending_thread == std::this_thread::get_id()) raise(error);
  PyErr_SetNone(PyExc_SystemExit);
  nb::raise_python_error();
}

class NativeSession;
std::set<NativeSession*>& open_sessions() {  // with the GIL
  static auto* sessions = new std::set<NativeSession*>();
  return *sessions;
}

// Calls that are inside a session, so that closing it can wait for them.
class Calls {
 public:
  class Inside {
   public:
    explicit Inside(Calls& calls) : calls_(calls) {
      std::lock_guard lock(calls_.mutex_);
      ++calls_.count_;
    }
    ~Inside() {
      std::lock_guard lock(calls_.mutex_);
      if (--calls_.count_ == 0) calls_.none_.notify_all();
    }
    Inside(const Inside&) = delete;

   private:
    Calls& calls_;
  };

  void wait() {  // without the GIL, which whoever is inside needs to come out
    std::unique_lock lock(mutex_);
    none_.wait(lock, [&] { return count_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int count_ = 0;
};

// A stem and its branches with their threads.
class NativeSession {
 public:
  NativeSession(const nb::object& engine, std::vector<PartSource> parts, const nb::object& input_spec,
                const nb::object& options) {
    read_input(input_spec);
    const std::shared_ptr<SessionState> state(new SessionState{std::move(parts), std::nullopt, nullptr}, free_state);
    pe_engine chosen{};
    if (nb::isinstance<nb::str>(engine)) {
      chosen = native_engine(nb::cast<std::string>(engine));
    } else {
      state->python.emplace(engine, !nb::cast<bool>(engine.attr("parallel")));
      for (const PartSource& source : state->sources) state->python->add(source.name, source.bytes, source.entry);
      chosen = state->python->c();
    }
    std::vector<Program> programs;
    for (const PartSource& source : state->sources) programs.push_back(source.program());
    Program stem = std::move(programs.front());
    programs.erase(programs.begin());
    SessionOptions session_options = read_options(options);
    std::optional<Result<std::unique_ptr<Session>>> opened;
    {
      const GilRelease free;
      opened.emplace(Session::open(chosen, std::move(stem), std::move(programs), nullptr, session_options));
    }
    if (const std::exception_ptr raised = PythonEngine::take_raised()) std::rethrow_exception(raised);
    state->session = value_of(std::move(*opened));
    state_ = state;
    open_sessions().insert(this);
  }

  ~NativeSession() {
    const ErrorAside aside;
    // Whoever did not want to wait for a branch does not want it here either: its threads and memory are left alone.
    if (is_given_up_ && !settle(0)) {
      new std::shared_ptr<SessionState>(take());
    } else {
      take().reset();
    }
  }
  NativeSession(const NativeSession&) = delete;

  // None if `data` is not exactly what the bundle reads, C-contiguous and finite: see Session.run in session.py. Times
  // are of time.monotonic(); infinity for none.
  nb::object run(nb::handle data, int first_branches, const std::optional<std::vector<int>>& branches, double deadline_s,
                 double leave_s, bool all, bool early_stop, const nb::object& on_prediction,
                 const nb::object& is_cancelled, bool drop) {
    const Calls::Inside inside(calls_);
    const std::shared_ptr<SessionState> state = state_;  // the end of the process may take it away meanwhile
    if (!state) refuse_request({ErrorCode::engine, "the session is closed; open a new one"});
    RunOptions options{.first_branches = first_branches,
                       .deadline = time_point(deadline_s),
                       .leave = time_point(leave_s),
                       .policy = all ? Policy::all : Policy::anytime,
                       .on_overload = drop ? Overload::drop : Overload::run,
                       .early_stop = early_stop};
    if (branches) options.branches = *branches;
    std::exception_ptr raised;  // an exception must not cross the session
    if (!on_prediction.is_none()) {
      options.on_prediction = [&](const Prediction& so_far) { return tell(on_prediction, so_far, raised); };
    }
    options.cancelled = [&] { return has_to_end(is_cancelled, raised); };
    const View view(data, array_type_);
    std::vector<float> normalised;
    const auto input = read(view, normalised);
    if (!input) return nb::none();
    std::optional<Result<Prediction>> result;
    Clock::duration call_time;
    {
      const GilRelease free;
      const Clock::time_point begin = Clock::now();
      result.emplace(state->session->run(*input, options));
      call_time = Clock::now() - begin;
    }
    const std::exception_ptr raised_by_part = PythonEngine::take_raised();  // once, whichever is passed on
    for (const std::exception_ptr& error : {raised, raised_by_part}) {
      if (error) std::rethrow_exception(error);
    }
    if (!*result && result->error().code == ErrorCode::cancelled) refuse_request(result->error());
    if (!*result) raise(result->error());
    state->session->hand_over(**result, kHandOver);
    return nb::cast(Found(std::move(**result), call_time));
  }

  int threads() const { return state_ ? state_->session->threads() : 0; }
  double mandatory_ms() const {
    return state_ ? state_->session->mandatory_ms() : std::numeric_limits<double>::quiet_NaN();
  }

  // Waits for calls in progress.
  void close() {
    if (state_ && state_->session->is_inside()) {
      raise({ErrorCode::engine, "the session was closed from a request of its own, which close would wait for; close it when "
                                "that request has returned"});
    }
    const std::shared_ptr<SessionState> state = take();
    const GilRelease free;
    calls_.wait();
  }

  // Ends requests, and says whether every thread has left the parts in time; until then it cannot be closed.
  bool settle(double timeout_s) {
    const std::shared_ptr<SessionState> state = state_;
    if (!state) return true;
    const Clock::time_point until = time_point(std::chrono::duration<double>(Clock::now().time_since_epoch()).count() + timeout_s);
    const GilRelease free;
    const bool settled = state->session->settle(std::max(until - Clock::now(), Clock::duration::zero()));
    is_given_up_ = !settled;
    return settled;
  }

  std::shared_ptr<SessionState> take() {
    open_sessions().erase(this);
    return std::move(state_);
  }

 private:
  void read_input(const nb::object& spec) {
    input_.shape = nb::cast<Shape>(spec.attr("shape"));
    const nb::object scale_and_shift = spec.attr("scale_and_shift")();
    input_.scale = nb::cast<std::vector<float>>(scale_and_shift[0]);
    input_.shift = nb::cast<std::vector<float>>(scale_and_shift[1]);
    const std::vector<Py_ssize_t> shape(input_.shape.begin(), input_.shape.end());
    if (!nb::hasattr(spec, "axes")) {
      float_shape_ = shape;
      image_shape_ = {shape.at(2), shape.at(3), shape.at(1)};
      if (shape[1] == 1) grey_shape_ = {shape[2], shape[3]};
      input_.normalized_axis = 1;
      return;
    }
    input_.kind = Input::Kind::tensor;
    float_shape_.assign(shape.begin() + 1, shape.end());
    const nb::object axis = spec.attr("normalized_axis");
    if (!axis.is_none()) input_.normalized_axis = 1 + nb::cast<int>(spec.attr("axes").attr("index")(axis));
  }

  static SessionOptions read_options(const nb::object& given) {
    SessionOptions options;
    options.threads = nb::cast<int>(given.attr("threads"));
    options.latency = {nb::cast<std::vector<double>>(given.attr("part_ms")),
                       nb::cast<std::vector<double>>(given.attr("contention"))};
    options.temperatures = nb::cast<std::vector<double>>(given.attr("temperatures"));
    options.has_labels = nb::cast<bool>(given.attr("has_labels"));
    for (const nb::handle rule : given.attr("stop_rules")) {
      const nb::object threshold = rule.attr("threshold");
      options.stop_rules.push_back({nb::cast<double>(rule.attr("temperature")),
                                    threshold.is_none() ? StopRule().threshold : nb::cast<double>(threshold)});
    }
    return options;
  }

  std::optional<std::span<const float>> read(const View& view, std::vector<float>& normalised) const {
    if (input_.kind == Input::Kind::image &&
        (view.is('B', image_shape_) || (!grey_shape_.empty() && view.is('B', grey_shape_)))) {
      normalised = value_of(normalise(view.values<uint8_t>(), input_));
      return normalised;
    }
    if (!view.is('f', float_shape_)) return std::nullopt;
    const auto values = view.values<float>();
    if (!all_finite(values)) return std::nullopt;
    if (input_.kind == Input::Kind::image) return values;  // normalised already
    normalised = value_of(normalise(values, input_));
    return normalised;
  }

  static bool tell(const nb::object& on_prediction, const Prediction& so_far, std::exception_ptr& raised) {
    const GilAcquire held;
    if (!held) return false;
    return in_python([&] {
      try {
        return nb::cast<bool>(on_prediction(Found(so_far)));
      } catch (const std::exception&) {
        raised = std::current_exception();
        return false;
      }
    });
  }

  // Ctrl-C while the main thread waits for a branch, or the caller's own word.
  static bool has_to_end(const nb::object& is_cancelled, std::exception_ptr& raised) {
    const GilAcquire held;
    if (!held) return false;
    return in_python([&] {
      try {
        if (PyErr_CheckSignals() != 0) nb::raise_python_error();
        return !is_cancelled.is_none() && nb::cast<bool>(is_cancelled());
      } catch (const std::exception&) {
        raised = std::current_exception();
        return true;
      }
    });
  }

  Calls calls_;
  Input input_;
  std::vector<Py_ssize_t> image_shape_, grey_shape_, float_shape_;
  nb::object array_type_ = nb::module_::import_("numpy").attr("ndarray");
  std::shared_ptr<SessionState> state_;  // none: closed
  bool is_given_up_ = false;             // somebody has waited long enough for it
};

// At exit: sessions are closed, unless a branch does not end. Then its threads and memory are left alone.
void end_all_sessions() {
  ending_thread = std::this_thread::get_id();
  std::vector<std::shared_ptr<SessionState>> ending;
  while (!open_sessions().empty()) ending.push_back((*open_sessions().begin())->take());
  const Clock::time_point until = Clock::now() + kPatience;
  PyThreadState* thread = PyEval_SaveThread();
  for (const auto& state : ending) state->session->settle({});  // all are told before one is waited for
  std::vector<bool> settled;
  for (const auto& state : ending) settled.push_back(state->session->settle(until - Clock::now()));
  shut_doors(until);
  PyEval_RestoreThread(thread);
  for (size_t i = 0; i < ending.size(); ++i) {
    // Whoever still has a reference stays outside for ever, and the state with it.
    if (settled[i] && ending[i].use_count() == 1) continue;
    new std::shared_ptr<SessionState>(ending[i]);
  }
}

template <void (*Load)(const std::string&)>
void load(const std::string& library) {
  if (auto loaded = guarded<bool>([&] { return Load(library), true; }); !loaded) raise(loaded.error());
}

// For the tests of the latency model and the benchmark's oracles.
Controller make_controller(const std::vector<double>& macs, const std::vector<double>& part_ms,
                           const std::vector<double>& contention) {
  return value_of(guarded<Controller>([&] { return Controller(macs, {part_ms, contention}); }));
}

// For the tests that compare the browser's scheduler with this one: times in milliseconds since any point.
class ArrivalTimes {
 public:
  void came(double now_ms, double deadline_ms, double ended_ms, double mandatory_ms) {
    arrivals_.came(at(now_ms), at(deadline_ms), at(ended_ms), mandatory_ms);
  }
  void came_without_deadline() { arrivals_.came_without_deadline(); }
  double earlier_ms(double mandatory_ms) const {
    return milliseconds(Clock::time_point() - arrivals_.leave(Clock::time_point(), mandatory_ms));
  }

 private:
  static Clock::time_point at(double ms) {
    return Clock::time_point(
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(ms)));
  }
  Arrivals arrivals_;
};

// For the tests that compare the two readers.
void check_bundle(const std::string& path) { value_of(Bundle::open(path)); }

nb::dict check_program_of(const std::string& engine, const std::string& file, nb::bytes program,
                          const std::string& delegate) {
  const auto counts = value_of(guarded<OperatorCounts>([&] {
    return check_program(engine, file, {static_cast<const std::byte*>(program.data()), program.size()}, delegate);
  }));
  nb::dict made;
  for (const auto& [name, count] : counts) made[nb::str(name.data(), name.size())] = count;
  return made;
}

// For signature.py, which reads the rest.
bool ed25519_check_of(nb::bytes signature, nb::bytes key, nb::bytes message) {
  const auto bytes = [](const nb::bytes& from) { return static_cast<const uint8_t*>(from.data()); };
  return signature.size() == 64 && key.size() == 32 &&
         ed25519_check(std::span<const uint8_t, 64>(bytes(signature), 64),
                       std::span<const uint8_t, 32>(bytes(key), 32), {bytes(message), message.size()});
}

nb::object normalise_for(const std::string& path, nb::ndarray<nb::c_contig, nb::device::cpu> value) {
  const auto bundle = value_of(Bundle::open(path));
  const Input& input = bundle->manifest().input;
  auto made = value.dtype() == nb::dtype<uint8_t>()
                  ? normalise(std::span(static_cast<const uint8_t*>(value.data()), value.size()), input)
                  : normalise(std::span(static_cast<const float*>(value.data()), value.size()), input);
  return array(value_of(std::move(made)), {input.shape.begin(), input.shape.end()});
}

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // a session that is still open when the interpreter ends
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&end_all_sessions));
  const auto never = std::numeric_limits<double>::infinity();
  m.attr("api_version") = PE_API_VERSION;
  m.def("check_bundle", &check_bundle, "path"_a);
  m.def("check_program", &check_program_of, "engine"_a, "file"_a, "program"_a, "delegate"_a = "");
  m.def("ed25519_check", &ed25519_check_of, "signature"_a, "key"_a, "message"_a);
  m.def("normalise", &normalise_for, "path"_a, "value"_a);
  m.def("load_engine", &load<load_engine>, "library"_a);
  m.def("load_onnxruntime", &load<load_onnxruntime>, "library"_a);
  nb::class_<PartSource>(m, "PartSource")
      .def("__init__",
           [](PartSource* made, std::string name, nb::bytes program, nb::object entry) {
             new (made) PartSource{std::move(name), std::move(program), std::move(entry)};
           },
           "name"_a, "program"_a, "entry"_a);
  nb::class_<NativePart>(m, "Part")
      .def(nb::init<const std::string&, PartSource>(), "engine"_a, "source"_a)
      .def("run", &NativePart::run, "x"_a.noconvert())
      .def("close", &NativePart::close);
  nb::class_<BranchRun>(m, "BranchRun")
      .def_ro("index", &BranchRun::index)
      .def_prop_ro("state", [](const BranchRun& run) { return static_cast<int>(run.state); })
      .def_ro("thread", &BranchRun::thread)
      .def_ro("start_ms", &BranchRun::start_ms)
      .def_ro("end_ms", &BranchRun::end_ms)
      .def_ro("predicted_ms", &BranchRun::predicted_ms)
      .def_ro("left_ms", &BranchRun::left_ms)
      .def_ro("problem", &BranchRun::problem);
  nb::class_<Found>(m, "Prediction")
      .def_prop_ro("output", &Found::output)
      .def_prop_ro("branch_outputs", &Found::branch_outputs)
      .def_prop_ro("branches", [](const Found& found) { return found.p.branches; })
      .def_prop_ro("label_index", [](const Found& found) { return found.p.label_index; })
      .def_prop_ro("confidence", [](const Found& found) { return found.p.confidence; })
      .def_prop_ro("is_calibrated", [](const Found& found) { return found.p.is_calibrated; })
      .def_prop_ro("stem_ms", [](const Found& found) { return found.p.stem_ms; })
      .def_prop_ro("elapsed_ms", [](const Found& found) { return found.p.elapsed_ms; })
      .def_prop_ro("deadline_met", [](const Found& found) { return found.p.deadline_met; })
      .def_prop_ro("requests_to_learn", [](const Found& found) { return found.p.requests_to_learn; })
      .def_ro("call_us", &Found::call_us);
  nb::class_<NativeSession>(m, "Session")
      .def(nb::init<const nb::object&, std::vector<PartSource>, const nb::object&, const nb::object&>(), "engine"_a,
           "parts"_a, "input_spec"_a, "options"_a)
      .def("run", &NativeSession::run, "data"_a.none(), "first_branches"_a = 0, "branches"_a = nb::none(),
           "deadline_s"_a = never, "leave_s"_a = never, "all"_a = false, "early_stop"_a = false,
           "on_prediction"_a = nb::none(), "is_cancelled"_a = nb::none(), "drop"_a = false)
      .def_prop_ro("threads", &NativeSession::threads)
      .def_prop_ro("mandatory_ms", &NativeSession::mandatory_ms)
      .def("settle", &NativeSession::settle, "timeout_s"_a)
      .def("close", &NativeSession::close);
  nb::class_<ArrivalTimes>(m, "Arrivals")
      .def(nb::init<>())
      .def("came", &ArrivalTimes::came, "now_ms"_a, "deadline_ms"_a, "ended_ms"_a, "mandatory_ms"_a)
      .def("came_without_deadline", &ArrivalTimes::came_without_deadline)
      .def("earlier_ms", &ArrivalTimes::earlier_ms, "mandatory_ms"_a);
  nb::class_<Controller>(m, "Controller")
      .def_static("make", &make_controller, "macs"_a, "part_ms"_a, "contention"_a)
      .def("predicted_ms", &Controller::predicted_ms, "part"_a, "busy"_a)
      .def("base_ms", &Controller::base_ms, "part"_a)
      .def("expected_ms", &Controller::expected_ms, "part"_a)
      .def("observe", &Controller::observe, "part"_a, "busy"_a, "ms"_a)
      .def("outlasted", &Controller::outlasted, "part"_a, "busy"_a, "ms"_a)
      .def("dropped", &Controller::dropped, "part"_a)
      .def("refused", &Controller::refused)
      .def("returned", &Controller::returned, "late_ms"_a)
      .def("did_not_wait", &Controller::did_not_wait)
      .def("margin_ms", &Controller::margin_ms, "least_ms"_a)
      .def_prop_ro("mandatory_ms", &Controller::mandatory_ms)
      .def_prop_ro("requests_to_learn", &Controller::requests_to_learn);
}

}  // namespace paraedge::python
