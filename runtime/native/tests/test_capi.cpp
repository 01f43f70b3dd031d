// paraedge.h: every function, wrong arguments, structures of other sizes, callbacks, an engine of the application's
// own.
#include <dlfcn.h>
#include <paraedge/paraedge.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "application.h"
#include "request.h"

namespace {

using application::bundle_path;
using application::golden_image;
using application::golden_label;

struct Free {
  void operator()(pe_bundle* object) const { pe_bundle_free(object); }
  void operator()(pe_session* object) const { pe_session_free(object); }
  void operator()(pe_prediction* object) const { pe_prediction_free(object); }
};
using Bundle = std::unique_ptr<pe_bundle, Free>;
using Session = std::unique_ptr<pe_session, Free>;
using Prediction = std::unique_ptr<pe_prediction, Free>;

struct Failure {
  int code = PE_OK;
  std::string message;
};

std::string text_of(const pe_error* error) { return error ? pe_error_message(error) : "no error"; }

// Calls with a place for an error, and says what error came; the call must also survive without that place.
Failure failure_of(const std::function<void(pe_error**)>& call) {
  pe_error* error = nullptr;
  call(&error);
  call(nullptr);
  if (!error) return {};
  const Failure failure{pe_error_code(error), pe_error_message(error)};
  pe_error_free(error);
  return failure;
}

void check_refused(const std::function<void(pe_error**)>& call, int code, const std::string& part) {
  const Failure failure = failure_of(call);
  CAPTURE(failure.message);
  CHECK(failure.code == code);
  CHECK(failure.message.find(part) != std::string::npos);
}

template <class T>
T* made(T* object, pe_error* error) {
  REQUIRE_MESSAGE(object != nullptr, text_of(error));
  return object;
}

Bundle open_bundle() {
  pe_error* error = nullptr;
  pe_bundle* bundle = pe_bundle_open(bundle_path().c_str(), &error);
  return Bundle(made(bundle, error));
}

Session open_session(const pe_bundle* bundle, int threads = 2) {
  pe_session_options options;
  pe_session_options_init(&options, sizeof options);
  options.threads = threads;
  pe_error* error = nullptr;
  pe_session* session = pe_session_open(bundle, &options, &error);
  return Session(made(session, error));
}

size_t image_bytes(const pe_bundle* bundle) {
  const int64_t* shape = nullptr;
  REQUIRE(pe_bundle_input_shape(bundle, &shape) == 4);
  return static_cast<size_t>(shape[1] * shape[2] * shape[3]);
}

pe_run_options run_options() {
  pe_run_options options;
  pe_run_options_init(&options, sizeof options);
  return options;
}

struct ExecuTorch {  // the engine that the bundle names
  ExecuTorch() {
    pe_error* error = nullptr;
    REQUIRE_MESSAGE(pe_engine_load(application::kEngine, &error) == PE_OK, text_of(error));
  }
};

// An engine of the application's own, in place of ExecuTorch: branch i computes i + 1 for every output.
struct Fake {
  struct Part {
    Fake* engine;
    int index;  // -1: the stem
    size_t outputs;
  };

  Fake() {
    engine.size = sizeof engine;
    engine.name = "executorch";
    engine.context = this;
    engine.load = [](void* context, const pe_part* part, const void* program, size_t bytes, void** loaded,
                     char* message) {
      auto& self = *static_cast<Fake*>(context);
      if (self.refuses_to_load) {
        std::snprintf(message, PE_MESSAGE_BYTES, "no room for %s", part->file);
        return static_cast<int>(PE_ERROR_ENGINE);
      }
      self.aligned = self.aligned && reinterpret_cast<uintptr_t>(program) % 16 == 0 && bytes > 0;
      size_t outputs = 1;
      for (size_t i = 0; i < part->output_rank; ++i) outputs *= static_cast<size_t>(part->output_shape[i]);
      const int index = std::strncmp(part->name, "branch_", 7) == 0 ? std::atoi(part->name + 7) : -1;
      ++self.open;
      *loaded = new Part{&self, index, outputs};
      return static_cast<int>(PE_OK);
    };
    engine.run = [](void* loaded, const float*, float* output, char* message) {
      const auto& part = *static_cast<Part*>(loaded);
      if (part.index == part.engine->fails) {
        std::snprintf(message, PE_MESSAGE_BYTES, "it is too hot");
        return static_cast<int>(PE_ERROR_ENGINE);
      }
      if (part.index == part.engine->not_finite) {
        output[0] = std::numeric_limits<float>::infinity();
        return static_cast<int>(PE_OK);
      }
      if (part.index >= 0) std::this_thread::sleep_for(part.engine->branch_takes);
      for (size_t i = 0; i < part.outputs; ++i) output[i] = static_cast<float>(part.index + 1);
      return static_cast<int>(PE_OK);
    };
    engine.close = [](void* loaded) {
      --static_cast<Part*>(loaded)->engine->open;
      delete static_cast<Part*>(loaded);
    };
    engine.thread_begin = [](void* context) {
      ++static_cast<Fake*>(context)->threads;
      return context;
    };
    engine.thread_end = [](void*, void* begun) { --static_cast<Fake*>(begun)->threads; };
    engine.set_log = [](void (*log)(int, const char*)) { log(PE_LOG_INFO, "the fake engine is here"); };
    pe_error* error = nullptr;
    REQUIRE_MESSAGE(pe_engine_register(&engine, &error) == PE_OK, text_of(error));
  }
  ~Fake() { ExecuTorch back; }

  pe_engine engine{};
  bool refuses_to_load = false;
  int fails = -2, not_finite = -2;  // index of a branch
  std::chrono::milliseconds branch_takes{0};
  std::atomic<int> open{0}, threads{0};
  std::atomic<bool> aligned{true};
};

int count_state(const pe_prediction* prediction, int state) {
  int count = 0;
  for (size_t position = 0; position < pe_prediction_num_branches(prediction); ++position) {
    pe_branch_run run{};
    run.size = sizeof run;
    REQUIRE(pe_prediction_branch(prediction, position, &run) == 1);
    count += run.state == state;
  }
  return count;
}

TEST_CASE("versions") {
  CHECK(pe_api_version() == PE_API_VERSION);
  CHECK(std::string(pe_version()).find('.') != std::string::npos);
}

TEST_CASE("a C program gets the label that the bundle was exported with") {
  const ExecuTorch engine;
  const Bundle bundle = open_bundle();
  const auto image = golden_image(image_bytes(bundle.get()));
  char label[64] = "";
  REQUIRE(classify_in_c(bundle_path().c_str(), image.data(), image.size(), label, sizeof label) == PE_OK);
  CHECK(label == std::string(pe_bundle_label(bundle.get(), golden_label(8, 10))));
  CHECK(classify_in_c("nowhere.paraedge", image.data(), image.size(), label, sizeof label) == PE_ERROR_INTEGRITY);
}

TEST_CASE("what a bundle says") {
  const Bundle bundle = open_bundle();
  CHECK(std::string(pe_bundle_name(bundle.get())) == "fashion-mnist");
  CHECK(std::string(pe_bundle_engine(bundle.get())) == "executorch");
  CHECK(pe_bundle_version(bundle.get()) >= 1);
  CHECK(pe_bundle_num_outputs(bundle.get()) == 10);
  CHECK(pe_bundle_num_labels(bundle.get()) == 10);
  CHECK(std::string(pe_bundle_label(bundle.get(), 1)) == "Trouser");
  CHECK(pe_bundle_label(bundle.get(), 10) == nullptr);
  CHECK(pe_bundle_num_branches(bundle.get()) == 8);
  CHECK(pe_bundle_branch_index(bundle.get(), 7) == 7);
  CHECK(pe_bundle_branch_index(bundle.get(), 8) == -1);
  CHECK(pe_bundle_has_early_stop(bundle.get()) == 1);
  CHECK(pe_bundle_input_kind(bundle.get()) == PE_INPUT_IMAGE);
  CHECK(pe_bundle_input_resize(bundle.get()) == PE_RESIZE_STRETCH);
  const int64_t* shape = nullptr;
  CHECK(pe_bundle_input_shape(bundle.get(), &shape) == 4);
  CHECK(std::vector<int64_t>(shape, shape + 4) == std::vector<int64_t>{1, 1, 28, 28});
  CHECK(pe_bundle_input_shape(bundle.get(), nullptr) == 4);
}

TEST_CASE("a prediction: its sum, its branches, the same from pixels and from normalised values") {
  const ExecuTorch engine;
  const Bundle bundle = open_bundle();
  const Session session = open_session(bundle.get());
  CHECK(pe_session_threads(session.get()) == 2);
  CHECK(pe_session_num_branches(session.get()) == 8);
  CHECK(std::isnan(pe_session_mandatory_ms(session.get())));
  const auto image = golden_image(image_bytes(bundle.get()));
  const Prediction prediction(pe_session_run_image(session.get(), image.data(), image.size(), nullptr, nullptr));
  REQUIRE(prediction);

  size_t count = 0, rows = 0, columns = 0;
  const float* output = pe_prediction_output(prediction.get(), &count);
  const float* branches = pe_prediction_branch_outputs(prediction.get(), &rows, &columns);
  CHECK(count == 10);
  CHECK(rows == 8);
  CHECK(columns == 10);
  size_t best = 0;
  for (size_t c = 0; c < count; ++c) {
    float sum = branches[c];
    for (size_t row = 1; row < rows; ++row) sum += branches[row * columns + c];
    CHECK(output[c] == sum);
    if (output[c] > output[best]) best = c;
  }
  CHECK(pe_prediction_label_index(prediction.get()) == best);
  CHECK(pe_prediction_confidence(prediction.get()) > 0.1f);
  CHECK(pe_prediction_confidence(prediction.get()) <= 1.0f);
  CHECK(pe_prediction_is_calibrated(prediction.get()) == 1);
  CHECK(pe_prediction_stem_ms(prediction.get()) > 0);
  CHECK(pe_prediction_elapsed_ms(prediction.get()) > pe_prediction_stem_ms(prediction.get()));
  CHECK(pe_prediction_deadline_met(prediction.get()) == 1);
  CHECK(pe_prediction_requests_to_learn(prediction.get()) > 0);
  CHECK(pe_prediction_num_branches(prediction.get()) == 8);
  CHECK(count_state(prediction.get(), PE_BRANCH_USED) == 8);

  pe_branch_run run{};
  run.size = sizeof run;
  REQUIRE(pe_prediction_branch(prediction.get(), 3, &run) == 1);
  CHECK(run.size == sizeof run);
  CHECK(run.index == 3);
  CHECK(run.thread >= 0);
  CHECK(run.end_ms > run.start_ms);
  CHECK(std::isnan(run.predicted_ms));
  CHECK(std::string(run.problem).empty());
  CHECK(pe_prediction_branch(prediction.get(), 8, &run) == 0);

  // (x / 255 - mean) / std of the manifest.
  std::vector<float> values;
  for (const uint8_t pixel : image) {
    values.push_back(static_cast<float>((static_cast<double>(pixel) / 255 - 0.286041) / 0.353024));
  }
  const Prediction again(pe_session_run_tensor(session.get(), values.data(), values.size(), nullptr, nullptr));
  REQUIRE(again);
  const float* other = pe_prediction_output(again.get(), nullptr);
  for (size_t c = 0; c < count; ++c) CHECK(other[c] == doctest::Approx(output[c]).epsilon(1e-3));
  CHECK(pe_session_mandatory_ms(session.get()) > 0);
}

// A copy of the bundle whose images are a tensor of a sensor, from 0 to 1, and whose labels are a vector.
class SensorBundle {
 public:
  SensorBundle() {
    std::string pattern = (std::filesystem::temp_directory_path() / "paraedge-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    std::filesystem::copy(bundle_path(), folder_, std::filesystem::copy_options::recursive);
    std::ifstream before(folder_ / "manifest.json", std::ios::binary);
    std::string json(std::istreambuf_iterator<char>(before), {});
    auto change = [&](const char* from, const char* to) {
      json = std::regex_replace(json, std::regex(from), to, std::regex_constants::format_first_only);
    };
    change("\"input\": \\{[^}]*\\}",
           R"("input": {"kind": "tensor", "name": "heat", "shape": [1, 1, 28, 28], "axes": ["channel", "row", "column"],
                       "normalized_axis": "channel", "mean": [0.286041], "std": [0.353024]})");
    change("\"output\": \\{[^}]*\\}", R"("output": {"kind": "vector", "name": "embedding", "size": 10})");
    change("\"stop_rules\": \\[[^\\]]*\\]", "\"stop_rules\": null");
    application::write_manifest(folder_, json);
  }
  ~SensorBundle() { std::filesystem::remove_all(folder_); }
  std::string path() const { return folder_.string(); }

 private:
  std::filesystem::path folder_;
};

TEST_CASE("a bundle that reads a tensor and makes a vector") {
  const ExecuTorch engine;
  const SensorBundle sensor;
  pe_error* error = nullptr;
  const Bundle bundle(made(pe_bundle_open(sensor.path().c_str(), &error), error));
  CHECK(pe_bundle_input_kind(bundle.get()) == PE_INPUT_TENSOR);
  const int64_t* shape = nullptr;
  REQUIRE(pe_bundle_input_shape(bundle.get(), &shape) == 4);
  CHECK(std::vector<int64_t>(shape, shape + 4) == std::vector<int64_t>{1, 1, 28, 28});
  CHECK(pe_bundle_num_outputs(bundle.get()) == 10);
  CHECK(pe_bundle_num_labels(bundle.get()) == 0);
  CHECK(pe_bundle_label(bundle.get(), 0) == nullptr);
  CHECK(pe_bundle_has_early_stop(bundle.get()) == 0);

  const auto image = golden_image(784);
  std::vector<float> values;
  for (const uint8_t pixel : image) values.push_back(static_cast<float>(pixel) / 255);  // normalised by the bundle
  const Session session = open_session(bundle.get());
  const Prediction prediction(
      made(pe_session_run_tensor(session.get(), values.data(), values.size(), nullptr, &error), error));
  size_t count = 0;
  const float* output = pe_prediction_output(prediction.get(), &count);
  REQUIRE(count == 10);
  CHECK(std::isnan(pe_prediction_confidence(prediction.get())));
  CHECK(pe_prediction_is_calibrated(prediction.get()) == 0);

  const Bundle images = open_bundle();
  const Session other = open_session(images.get());
  const Prediction wanted(made(pe_session_run_image(other.get(), image.data(), image.size(), nullptr, &error), error));
  const float* logits = pe_prediction_output(wanted.get(), nullptr);
  for (size_t i = 0; i < count; ++i) CHECK(output[i] == doctest::Approx(logits[i]).epsilon(1e-3));

  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), nullptr, e); },
                PE_ERROR_INPUT, "is a uint8 image; this bundle reads a float32 tensor of shape [1, 28, 28]");
  check_refused([&](pe_error** e) { pe_session_run_tensor(session.get(), values.data(), 7, nullptr, e); },
                PE_ERROR_INPUT, "has 7 values; this bundle reads a float32 tensor of shape [1, 28, 28]");
  pe_run_options options = run_options();
  options.early_stop = 1;
  check_refused([&](pe_error** e) { pe_session_run_tensor(session.get(), values.data(), values.size(), &options, e); },
                PE_ERROR_INPUT, "early");
}

TEST_CASE("a session outlives its bundle, and two bundles work side by side") {
  const ExecuTorch engine;
  Bundle first = open_bundle(), second = open_bundle();
  const auto image = golden_image(image_bytes(first.get()));
  const Session one = open_session(first.get(), 1), two = open_session(second.get(), 2);
  first.reset();
  second.reset();
  std::vector<std::vector<float>> outputs(2);
  auto work = [&](pe_session* session, std::vector<float>& last) {
    for (int i = 0; i < 20; ++i) {
      const Prediction prediction(pe_session_run_image(session, image.data(), image.size(), nullptr, nullptr));
      size_t count = 0;
      const float* output = pe_prediction_output(prediction.get(), &count);
      last.assign(output, output + count);
    }
  };
  std::thread beside([&] { work(two.get(), outputs[1]); });
  work(one.get(), outputs[0]);
  beside.join();
  CHECK(outputs[0].size() == 10);
  CHECK(outputs[0] == outputs[1]);
}

TEST_CASE("NULL is refused, or means nothing") {
  const ExecuTorch engine;
  const Bundle bundle = open_bundle();
  const Session session = open_session(bundle.get());
  const float value = 0;
  const uint8_t pixel = 0;
  check_refused([](pe_error** e) { pe_bundle_open(nullptr, e); }, PE_ERROR_INPUT, "path is NULL");
  check_refused([](pe_error** e) { pe_session_open(nullptr, nullptr, e); }, PE_ERROR_INPUT, "bundle is NULL");
  check_refused([&](pe_error** e) { pe_session_run_image(nullptr, &pixel, 1, nullptr, e); }, PE_ERROR_INPUT,
                "session is NULL");
  check_refused([&](pe_error** e) { pe_session_run_tensor(nullptr, &value, 1, nullptr, e); }, PE_ERROR_INPUT,
                "session is NULL");
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), nullptr, 784, nullptr, e); }, PE_ERROR_INPUT,
                "image is NULL");
  check_refused([&](pe_error** e) { pe_session_run_tensor(session.get(), nullptr, 784, nullptr, e); }, PE_ERROR_INPUT,
                "values is NULL");
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), nullptr, 0, nullptr, e); }, PE_ERROR_INPUT,
                "has 0 bytes");
  check_refused([&](pe_error** e) { pe_session_run_tensor(session.get(), nullptr, 0, nullptr, e); }, PE_ERROR_INPUT,
                "has 0 values");
  check_refused([](pe_error** e) { pe_engine_register(nullptr, e); }, PE_ERROR_INPUT, "engine is NULL");
  check_refused([](pe_error** e) { pe_engine_load(nullptr, e); }, PE_ERROR_INPUT, "library is NULL");
  check_refused([](pe_error** e) { pe_engine_load_onnxruntime(nullptr, e); }, PE_ERROR_INPUT, "library is NULL");

  pe_bundle_free(nullptr);
  pe_session_free(nullptr);
  pe_prediction_free(nullptr);
  pe_error_free(nullptr);
  pe_session_options_init(nullptr, 8);
  pe_run_options_init(nullptr, 8);
  CHECK(pe_error_code(nullptr) == PE_OK);
  CHECK(pe_error_message(nullptr) == nullptr);
  CHECK(pe_bundle_name(nullptr) == nullptr);
  CHECK(pe_bundle_engine(nullptr) == nullptr);
  CHECK(pe_bundle_version(nullptr) == 0);
  CHECK(pe_bundle_num_outputs(nullptr) == 0);
  CHECK(pe_bundle_num_labels(nullptr) == 0);
  CHECK(pe_bundle_label(nullptr, 0) == nullptr);
  CHECK(pe_bundle_num_branches(nullptr) == 0);
  CHECK(pe_bundle_branch_index(nullptr, 0) == -1);
  CHECK(pe_bundle_has_early_stop(nullptr) == 0);
  CHECK(pe_bundle_input_kind(nullptr) == 0);
  CHECK(pe_bundle_input_resize(nullptr) == 0);
  const int64_t* shape = nullptr;
  CHECK(pe_bundle_input_shape(nullptr, &shape) == 0);
  CHECK(pe_session_threads(nullptr) == 0);
  CHECK(pe_session_num_branches(nullptr) == 0);
  CHECK(std::isnan(pe_session_mandatory_ms(nullptr)));
  size_t count = 1, rows = 1;
  CHECK(pe_prediction_output(nullptr, &count) == nullptr);
  CHECK(pe_prediction_branch_outputs(nullptr, &rows, &count) == nullptr);
  CHECK(count + rows == 0);
  CHECK(pe_prediction_label_index(nullptr) == 0);
  CHECK(std::isnan(pe_prediction_confidence(nullptr)));
  CHECK(pe_prediction_is_calibrated(nullptr) == 0);
  CHECK(std::isnan(pe_prediction_elapsed_ms(nullptr)));
  CHECK(std::isnan(pe_prediction_stem_ms(nullptr)));
  CHECK(pe_prediction_deadline_met(nullptr) == 0);
  CHECK(pe_prediction_requests_to_learn(nullptr) == 0);
  CHECK(pe_prediction_num_branches(nullptr) == 0);
  pe_branch_run run{};
  CHECK(pe_prediction_branch(nullptr, 0, &run) == 0);
}

TEST_CASE("a session is closed in time, and takes no request afterwards") {
  const ExecuTorch engine;
  const Bundle bundle = open_bundle();
  const Session session = open_session(bundle.get());
  const auto image = golden_image(image_bytes(bundle.get()));
  check_refused([&](pe_error** e) { pe_session_close(session.get(), -1, e); }, PE_ERROR_INPUT,
                "timeout_ms must be 0 or more, got -1");
  CHECK(Prediction(pe_session_run_image(session.get(), image.data(), image.size(), nullptr, nullptr)));
  CHECK(pe_session_close(session.get(), 1000, nullptr) == PE_OK);
  CHECK(pe_session_close(session.get(), 0, nullptr) == PE_OK);
  CHECK(pe_session_close(nullptr, 0, nullptr) == PE_OK);
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), nullptr, e); },
                PE_ERROR_CANCELLED, "this session is being closed");
}

TEST_CASE("options out of range are refused with their value") {
  const ExecuTorch engine;
  const Bundle bundle = open_bundle();
  const double negative = -1;
  const struct {
    void (*change)(pe_session_options&, const double*);
    const char* message;
  } session_cases[] = {
      {[](pe_session_options& o, const double*) { o.size = 0; }, "size is 0; call pe_session_options_init"},
      {[](pe_session_options& o, const double*) { o.threads = -1; }, "threads must be 0 or more, got -1"},
      {[](pe_session_options& o, const double*) { o.first_branches = 9; }, "9 branches requested, 8 available"},
      {[](pe_session_options& o, const double*) { o.first_branches = -1; }, "-1 branches requested"},
      {[](pe_session_options& o, const double*) { o.spin_us = -1; }, "the time to spin must be 0 to 1000000 us, got -1"},
      {[](pe_session_options& o, const double*) { o.placement = 3; }, "placement must be 0 to 2, got 3"},
      {[](pe_session_options& o, const double*) { o.num_part_ms = 9; }, "part_ms is NULL, its length is 9"},
      {[](pe_session_options& o, const double* v) { o.part_ms = v, o.num_part_ms = 1; }, "latency holds -1; give"},
      {[](pe_session_options& o, const double* v) { o.contention = v, o.num_contention = 1; }, "latency holds -1; give"},
  };
  for (const auto& [change, message] : session_cases) {
    pe_session_options options;
    pe_session_options_init(&options, sizeof options);
    change(options, &negative);
    check_refused([&](pe_error** e) { pe_session_open(bundle.get(), &options, e); }, PE_ERROR_INPUT, message);
  }

  const Session session = open_session(bundle.get());
  const auto image = golden_image(image_bytes(bundle.get()));
  static const int descending[] = {3, 1}, unknown[] = {8};
  const struct {
    void (*change)(pe_run_options&);
    const char* message;
  } run_cases[] = {
      {[](pe_run_options& o) { o.size = 0; }, "size is 0; call pe_run_options_init"},
      {[](pe_run_options& o) { o.first_branches = 9; }, "9 branches requested"},
      {[](pe_run_options& o) { o.branches = descending, o.num_branches = 2; }, "ascending order"},
      {[](pe_run_options& o) { o.branches = unknown, o.num_branches = 1; }, "branch 8 is not loaded"},
      {[](pe_run_options& o) { o.branches = unknown; }, "branches is empty"},
      {[](pe_run_options& o) { o.num_branches = 2; }, "branches is NULL, its length is 2"},
      {[](pe_run_options& o) { o.policy = -1; }, "policy must be 0 to 1, got -1"},
      {[](pe_run_options& o) { o.on_overload = 2; }, "on_overload must be 0 to 1, got 2"},
  };
  for (const auto& [change, message] : run_cases) {
    pe_run_options options = run_options();
    change(options);
    check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), &options, e); },
                  PE_ERROR_INPUT, message);
  }
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), 783, nullptr, e); },
                PE_ERROR_INPUT, "783 bytes");
  const std::vector<float> nan(784, std::numeric_limits<float>::quiet_NaN());
  check_refused([&](pe_error** e) { pe_session_run_tensor(session.get(), nan.data(), 784, nullptr, e); },
                PE_ERROR_INPUT, "not finite");
  check_refused([&](pe_error** e) { pe_session_run_tensor(session.get(), nan.data(), 7, nullptr, e); }, PE_ERROR_INPUT,
                "7 values");
}

TEST_CASE("structures of an older header, and of a newer one") {
  const Fake fake;
  const Bundle bundle = open_bundle();
  struct {
    pe_session_options options;
    char beyond[16];
  } session;
  std::memset(&session, 0x5a, sizeof session);
  const size_t old_size = offsetof(pe_session_options, spin_us);  // it ended with first_branches
  pe_session_options_init(&session.options, old_size);
  CHECK(session.options.size == old_size);
  CHECK(session.options.spin_us == 0x5a5a5a5a);  // not ours to write
  session.options.threads = 1;
  session.options.first_branches = 2;
  const Session opened(pe_session_open(bundle.get(), &session.options, nullptr));
  REQUIRE(opened);
  CHECK(pe_session_num_branches(opened.get()) == 2);
  pe_session_options_init(&session.options, sizeof session);
  CHECK(session.options.size == sizeof session);
  CHECK(session.options.spin_us == 50);
  CHECK(session.beyond[15] == 0);

  struct {
    pe_run_options options;
    char beyond[16];
  } run;
  std::memset(&run, 0x5a, sizeof run);
  const size_t before_deadline = offsetof(pe_run_options, deadline_ns);
  pe_run_options_init(&run.options, before_deadline);
  CHECK(run.options.deadline_ns == 0x5a5a5a5a5a5a5a5a);
  const auto image = golden_image(image_bytes(bundle.get()));
  const Prediction prediction(pe_session_run_image(opened.get(), image.data(), image.size(), &run.options, nullptr));
  REQUIRE(prediction);
  CHECK(count_state(prediction.get(), PE_BRANCH_USED) == 2);  // no deadline, no callbacks

  pe_branch_run branch;
  std::memset(&branch, 0x5a, sizeof branch);
  branch.size = offsetof(pe_branch_run, start_ms);
  REQUIRE(pe_prediction_branch(prediction.get(), 1, &branch) == 1);
  CHECK(branch.index == 1);
  CHECK(branch.size == offsetof(pe_branch_run, start_ms));
  int bits = 0;
  std::memcpy(&bits, &branch.start_ms, sizeof bits);
  CHECK(bits == 0x5a5a5a5a);
  branch.size = 0;
  CHECK(pe_prediction_branch(prediction.get(), 1, &branch) == 0);
}

TEST_CASE("an engine of the application's own") {
  Fake fake;
  const Bundle bundle = open_bundle();
  const auto image = golden_image(image_bytes(bundle.get()));
  {
    const Session session = open_session(bundle.get(), 3);
    CHECK(fake.open == 9);
    CHECK(fake.aligned);
    const Prediction prediction(pe_session_run_image(session.get(), image.data(), image.size(), nullptr, nullptr));
    REQUIRE(prediction);
    for (int i = 0; i < 500 && fake.threads < 3; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(fake.threads == 3);
    CHECK(pe_prediction_output(prediction.get(), nullptr)[0] == 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8);
    pe_run_options options = run_options();
    const int chosen[] = {1, 6};
    options.branches = chosen;
    options.num_branches = 2;
    const Prediction two(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr));
    CHECK(pe_prediction_output(two.get(), nullptr)[0] == 2 + 7);

    fake.fails = 2;
    fake.not_finite = 4;
    const Prediction six(pe_session_run_image(session.get(), image.data(), image.size(), nullptr, nullptr));
    CHECK(pe_prediction_output(six.get(), nullptr)[0] == 36 - 3 - 5);
    pe_branch_run run{};
    run.size = sizeof run;
    pe_prediction_branch(six.get(), 2, &run);
    CHECK(run.state == PE_BRANCH_FAILED);
    CHECK(std::string(run.problem) == "it is too hot");
    CHECK(count_state(six.get(), PE_BRANCH_NOT_FINITE) == 1);
    fake.fails = -1;
    check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), nullptr, e); },
                  PE_ERROR_ENGINE, "it is too hot");
  }
  CHECK(fake.open == 0);
  CHECK(fake.threads == 0);
  fake.refuses_to_load = true;
  check_refused([&](pe_error** e) { pe_session_open(bundle.get(), nullptr, e); }, PE_ERROR_ENGINE,
                "no room for stem.pte");

  fake.refuses_to_load = false;
  fake.fails = -2;
  fake.engine.sequential = 1;
  REQUIRE(pe_engine_register(&fake.engine, nullptr) == PE_OK);
  CHECK(pe_session_threads(open_session(bundle.get(), 4).get()) == 1);
}

TEST_CASE("an engine that lacks something is refused") {
  const Fake fake;
  pe_engine engine = fake.engine;
  engine.name = "mine";
  engine.run = nullptr;
  check_refused([&](pe_error** e) { pe_engine_register(&engine, e); }, PE_ERROR_INPUT, "load, run and close");
  engine = fake.engine;
  engine.size = offsetof(pe_engine, close);
  check_refused([&](pe_error** e) { pe_engine_register(&engine, e); }, PE_ERROR_INPUT, "set it to sizeof(pe_engine)");
  engine.size = offsetof(pe_engine, sequential);  // an engine with no more than it needs
  CHECK(pe_engine_register(&engine, nullptr) == PE_OK);
  CHECK(open_session(open_bundle().get()));

  check_refused([](pe_error** e) { pe_engine_load("nowhere.so", e); }, PE_ERROR_UNAVAILABLE, "nowhere.so");
  check_refused([](pe_error** e) { pe_engine_load("libm.so.6", e); }, PE_ERROR_UNAVAILABLE, "lacks pe_engine_entry");
  check_refused([](pe_error** e) { pe_engine_load_onnxruntime("libm.so.6", e); }, PE_ERROR_UNAVAILABLE,
                "lacks OrtGetApiBase");
}

TEST_CASE("on_prediction sees the sum grow, and ends the request") {
  Fake fake;
  fake.branch_takes = std::chrono::milliseconds(20);
  const Bundle bundle = open_bundle();
  const Session session = open_session(bundle.get(), 1);
  const auto image = golden_image(image_bytes(bundle.get()));
  struct Seen {
    std::vector<float> sums;
    std::thread::id thread;
  } seen;
  pe_run_options options = run_options();
  options.context = &seen;
  options.on_prediction = [](const pe_prediction* so_far, void* context) {
    auto& into = *static_cast<Seen*>(context);
    into.sums.push_back(pe_prediction_output(so_far, nullptr)[0]);
    into.thread = std::this_thread::get_id();
    return into.sums.back() < 6 ? 1 : 0;
  };
  const Prediction prediction(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr));
  REQUIRE(prediction);
  CHECK(seen.sums == std::vector<float>{1, 3, 6});
  CHECK(seen.thread == std::this_thread::get_id());
  CHECK(pe_prediction_output(prediction.get(), nullptr)[0] == 6);
  CHECK(count_state(prediction.get(), PE_BRANCH_NOT_NEEDED) == 5);

  options.on_prediction = [](const pe_prediction*, void*) -> int { throw std::runtime_error("oh"); };
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), &options, e); },
                PE_ERROR_ENGINE, "oh");
  options.on_prediction = [](const pe_prediction*, void*) -> int { throw 1; };
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), &options, e); },
                PE_ERROR_INPUT, "a callback threw an exception");
  const Prediction after(pe_session_run_image(session.get(), image.data(), image.size(), nullptr, nullptr));
  CHECK(pe_prediction_output(after.get(), nullptr)[0] == 36);
}

TEST_CASE("a callback that runs or closes its own session does not wait for itself") {
  Fake fake;
  fake.branch_takes = std::chrono::milliseconds(20);
  const Bundle bundle = open_bundle();
  const Session session = open_session(bundle.get(), 2), other = open_session(bundle.get(), 1);
  const auto image = golden_image(image_bytes(bundle.get()));
  struct Called {
    pe_session *session, *other;
    const std::vector<uint8_t>& image;
    bool closes;
  } called{session.get(), other.get(), image, false};
  pe_run_options options = run_options();
  options.context = &called;
  options.on_prediction = [](const pe_prediction*, void* context) {
    const auto& [own, another, pixels, closes] = *static_cast<Called*>(context);
    CHECK(Prediction(pe_session_run_image(another, pixels.data(), pixels.size(), nullptr, nullptr)));
    check_refused([&, s = own, &p = pixels](pe_error** e) { pe_session_run_image(s, p.data(), p.size(), nullptr, e); },
                  PE_ERROR_ENGINE, "called from a request of its own");
    if (closes) {
      check_refused([&, s = own](pe_error** e) { pe_session_close(s, 3'600'000, e); }, PE_ERROR_ENGINE, "close the session again");
    }
    return 0;
  };
  CHECK(Prediction(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr)));
  called.closes = true;
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), &options, e); },
                PE_ERROR_CANCELLED, "is being closed");
  CHECK(pe_session_close(session.get(), 60'000, nullptr) == PE_OK);
}

TEST_CASE("a deadline, and a request that is cancelled") {
  Fake fake;
  fake.branch_takes = std::chrono::milliseconds(200);
  const Bundle bundle = open_bundle();
  const Session session = open_session(bundle.get(), 2);
  const auto image = golden_image(image_bytes(bundle.get()));
  pe_run_options options = run_options();
  options.policy = PE_POLICY_ALL;
  options.deadline_ns = pe_now_ns() + 300 * INT64_C(1000000);
  const Prediction prediction(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr));
  REQUIRE(prediction);
  const int used = count_state(prediction.get(), PE_BRANCH_USED);
  CHECK(used >= 1);
  CHECK(used <= 3);
  CHECK(count_state(prediction.get(), PE_BRANCH_LATE) == 8 - used);

  options.deadline_ns = INT64_MIN;  // long ago: the first branch runs all the same, and the prediction says so
  const Prediction late(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr));
  REQUIRE(late);
  CHECK(pe_prediction_deadline_met(late.get()) == 0);
  options.on_overload = PE_OVERLOAD_DROP;
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), &options, e); },
                PE_ERROR_DROPPED, "the request was dropped: its deadline passed");
  options.size = offsetof(pe_run_options, on_overload);  // of an older header
  CHECK(Prediction(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr)));

  options = run_options();
  options.leave_ns = pe_now_ns();
  options.deadline_ns = pe_now_ns() + 60 * INT64_C(1000000000);
  const Prediction left(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr));
  REQUIRE(left);
  CHECK(pe_prediction_deadline_met(left.get()) == 1);
  CHECK(count_state(left.get(), PE_BRANCH_USED) < 8);

  options = run_options();
  options.cancelled = [](void*) { return 1; };
  check_refused([&](pe_error** e) { pe_session_run_image(session.get(), image.data(), image.size(), &options, e); },
                PE_ERROR_CANCELLED, "cancelled");
}

TEST_CASE("early stop uses fewer branches") {
  const ExecuTorch engine;
  const Bundle bundle = open_bundle();
  const Session session = open_session(bundle.get(), 1);
  pe_run_options options = run_options();
  options.early_stop = 1;
  int used = 0;
  for (size_t number = 0; number < 8; ++number) {
    const auto image = golden_image(image_bytes(bundle.get()), number);
    const Prediction prediction(pe_session_run_image(session.get(), image.data(), image.size(), &options, nullptr));
    REQUIRE(prediction);
    used += count_state(prediction.get(), PE_BRANCH_USED);
  }
  CHECK(used < 8 * 8);
}

TEST_CASE("the log is silent unless somebody listens; ExecuTorch's messages of our own calls go there") {
  struct Message {
    int level;
    std::string text;
  };
  static std::vector<Message> messages;
  auto listen = [](int level, const char* message, void* context) {
    static_cast<std::vector<Message>*>(context)->push_back({level, message});
  };
  pe_set_log(listen, &messages);
  { const Fake fake; }
  pe_set_log(nullptr, nullptr);
  { const Fake fake; }
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].level == PE_LOG_INFO);
  CHECK(messages[0].text == "the fake engine is here");

  // A session refuses a program that is none before any engine sees it, so the engine itself is asked.
  const ExecuTorch registered;
  void* library = dlopen(application::kEngine, RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(library != nullptr);
  const auto entry = reinterpret_cast<const pe_engine* (*)(int)>(dlsym(library, "pe_engine_entry"));
  REQUIRE(static_cast<bool>(entry));
  const pe_engine* engine = entry(PE_API_VERSION);
  alignas(16) const char program[64] = {};
  const int64_t shape[] = {1, 4};
  const pe_part part{sizeof part, "stem", "stem.pte", shape, shape, 2, 2, 1};
  void* loaded = nullptr;
  char message[PE_MESSAGE_BYTES];
  messages.clear();
  pe_set_log(listen, &messages);
  CHECK(engine->load(engine->context, &part, program, sizeof program, &loaded, message) != PE_OK);
  pe_set_log(nullptr, nullptr);
  dlclose(library);
  REQUIRE(!messages.empty());
  CHECK(messages[0].level == PE_LOG_ERROR);
  CHECK(messages[0].text.starts_with("executorch: "));
}

TEST_CASE("ONNX Runtime runs a bundle for it") {
  const char *library = std::getenv("PARAEDGE_TEST_ONNXRUNTIME"), *path = std::getenv("PARAEDGE_TEST_ONNX_BUNDLE");
  REQUIRE_MESSAGE((library && path),
                  "PARAEDGE_TEST_ONNXRUNTIME and PARAEDGE_TEST_ONNX_BUNDLE must name libonnxruntime.so and a bundle");
  const Bundle bundle(pe_bundle_open(path, nullptr));
  REQUIRE(bundle);
  check_refused([&](pe_error** e) { pe_session_free(pe_session_open(bundle.get(), nullptr, e)); }, PE_ERROR_UNAVAILABLE,
                "needs the engine 'onnxruntime', which is not registered");
  pe_error* error = nullptr;
  REQUIRE_MESSAGE(pe_engine_load_onnxruntime(library, &error) == PE_OK, text_of(error));
  const Session session = open_session(bundle.get());
  const Bundle other = open_bundle();
  const ExecuTorch engine;
  const Session reference = open_session(other.get());
  const auto image = golden_image(image_bytes(bundle.get()));
  const Prediction mine(pe_session_run_image(session.get(), image.data(), image.size(), nullptr, nullptr));
  const Prediction wanted(pe_session_run_image(reference.get(), image.data(), image.size(), nullptr, nullptr));
  REQUIRE(mine);
  REQUIRE(wanted);
  for (size_t c = 0; c < pe_bundle_num_outputs(bundle.get()); ++c) {
    CHECK(pe_prediction_output(mine.get(), nullptr)[c] ==
          doctest::Approx(pe_prediction_output(wanted.get(), nullptr)[c]).epsilon(1e-3));
  }
}

}  // namespace
