// paraedge_runtime._native: the core for Python. Arrays go in without a copy, the GIL is free while parts run.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "paraedge/runtime.h"
#include "part.h"
#include "refusal.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using namespace paraedge;
using Input = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

// Raises the Python exception of an error's kind; the tree of errors is in paraedge_runtime.errors.
[[noreturn]] void raise(const Error& error) {
  const char* names[] = {"ManifestError", "IntegrityError", "EngineError", "InputError"};
  const nb::object kind =
      nb::module_::import_("paraedge_runtime.errors").attr(names[static_cast<size_t>(error.code)]);
  PyErr_SetString(kind.ptr(), error.message.c_str());
  throw nb::python_error();
}

// A numpy array (rows, columns), or (columns,) when rows is 0, that owns a copy of `values`.
nb::object array(std::vector<float> values, size_t rows, size_t columns) {
  auto* kept = new std::vector<float>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
  const size_t shape[] = {rows, columns};
  return rows == 0 ? nb::ndarray<nb::numpy, float>(kept->data(), {columns}, owner).cast()
                   : nb::ndarray<nb::numpy, float>(kept->data(), 2, shape, owner).cast();
}

Program program_of(const std::string& file, int index, nb::bytes bytes, const Shape& input, const Shape& output) {
  Program program;
  program.part = {.file = file, .index = index, .input_shape = input, .output_shape = output};
  program.bytes = {static_cast<const std::byte*>(bytes.data()), bytes.size()};
  return program;
}

// One part by itself: what the parity gate runs.
class NativePart {
 public:
  NativePart(const std::string& name, const std::string& file, nb::bytes bytes, const Shape& input,
             const Shape& output)
      : bytes_(bytes), output_shape_(output) {
    auto loaded = guarded<std::unique_ptr<LoadedPart>>([&] {
      return std::make_unique<LoadedPart>(program_of(file, -1, bytes, input, output), name, Threading::one);
    });
    if (!loaded) raise(loaded.error());
    part_ = std::move(*loaded);
    for (int64_t size : input) input_size_ *= static_cast<size_t>(size);
    for (int64_t size : output) output_size_ *= static_cast<size_t>(size);
  }

  nb::object run(const Input& x) {
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
    const std::vector<size_t> shape(output_shape_.begin(), output_shape_.end());
    return nb::cast(array(std::move(output), 0, output_size_)).attr("reshape")(nb::tuple(nb::cast(shape)));
  }

 private:
  nb::bytes bytes_;  // the part reads its program from here
  Shape output_shape_;
  size_t input_size_ = 1, output_size_ = 1;
  std::unique_ptr<LoadedPart> part_;
};

// A stem and its branches with their threads. The caller sees to it that one thread at a time calls `run`.
class NativeSession {
 public:
  using Entry = std::tuple<std::string, int, nb::bytes, Shape, Shape>;

  NativeSession(nb::list parts, int threads, int spin_us) {
    std::vector<Program> programs;
    for (nb::handle part : parts) {
      alive_.append(part);
      programs.push_back(program_of(nb::cast<std::string>(part[0]), nb::cast<int>(part[1]),
                                    nb::cast<nb::bytes>(part[2]), nb::cast<Shape>(part[3]), nb::cast<Shape>(part[4])));
    }
    Program stem = std::move(programs.front());
    programs.erase(programs.begin());
    num_outputs_ = static_cast<size_t>(programs.front().part.output_shape.back());
    auto session =
        Session::open(std::move(stem), std::move(programs), nullptr, {.threads = threads, .spin_us = spin_us});
    if (!session) raise(session.error());
    session_ = std::move(*session);
  }

  // output, label index, confidence, used, dropped, branch outputs, elapsed ms, timeline, deadline met
  nb::tuple run(const Input& x, int branches, double deadline_s, const std::vector<double>& latency_ms) {
    RunOptions options{.branches = branches, .latency_ms = latency_ms};
    if (deadline_s < std::numeric_limits<double>::infinity()) {
      options.deadline = Clock::time_point(
          std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(deadline_s)));
    }
    std::optional<Result<Prediction>> answer;
    {
      nb::gil_scoped_release free;
      answer.emplace(session_->run({x.data(), x.size()}, options));
    }
    if (!*answer) raise(answer->error());
    return describe(**answer);
  }

  void close() {
    {
      nb::gil_scoped_release free;
      session_.reset();
    }
    alive_ = nb::list();
  }

 private:
  nb::tuple describe(Prediction& p) const {
    nb::list used, dropped, timeline;
    timeline.append(nb::make_tuple(-1, 0, 0.0f, p.stem_ms));
    std::vector<float> rows;
    rows.reserve(p.branch_outputs.size());
    for (size_t place = 0; place < p.branches.size(); ++place) {
      const BranchRun& run = p.branches[place];
      if (run.state == BranchState::used) {
        used.append(run.index);
        const auto row = p.branch_outputs.begin() + static_cast<ptrdiff_t>(place * num_outputs_);
        rows.insert(rows.end(), row, row + static_cast<ptrdiff_t>(num_outputs_));
      } else {
        dropped.append(nb::make_tuple(run.index, static_cast<int>(run.state), run.problem));
      }
      if (run.end_ms > 0) timeline.append(nb::make_tuple(run.index, run.thread, run.start_ms, run.end_ms));
    }
    const size_t count = rows.size() / num_outputs_;
    return nb::make_tuple(array(std::move(p.output), 0, num_outputs_), p.label_index, p.confidence, nb::tuple(used),
                          dropped, array(std::move(rows), count, num_outputs_), p.elapsed_ms, timeline,
                          p.deadline_met);
  }

  nb::list alive_;  // the bytes that the parts read their programs from
  size_t num_outputs_ = 0;
  std::unique_ptr<Session> session_;
};

void check_bundle(const std::string& folder) {
  const auto bundle = Bundle::open(folder);
  if (!bundle) raise(bundle.error());
}

}  // namespace

NB_MODULE(_native, m) {
  m.attr("executorch_version") = PARAEDGE_EXECUTORCH_VERSION;
  m.def("check_bundle", &check_bundle, "folder"_a);
  nb::class_<NativePart>(m, "Part")
      .def(nb::init<const std::string&, const std::string&, nb::bytes, const Shape&, const Shape&>(), "name"_a,
           "file"_a, "program"_a, "input_shape"_a, "output_shape"_a)
      .def("run", &NativePart::run, "x"_a.noconvert());
  nb::class_<NativeSession>(m, "Session")
      .def(nb::init<nb::list, int, int>(), "parts"_a, "threads"_a, "spin_us"_a = 50)
      .def("run", &NativeSession::run, "x"_a.noconvert(), "branches"_a = 0,
           "deadline_s"_a = std::numeric_limits<double>::infinity(), "latency_ms"_a = std::vector<double>())
      .def("close", &NativeSession::close);
}
