// An engine in C++ whose parts do what the test says: results, failures, waiting at a gate. Adds up what it is told of
// threads, loads and closes.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "runtime.h"

namespace paraedge::tests {

class Gate {  // closed until `open`
 public:
  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {  // what a branch does
    std::unique_lock lock(mutex_);
    ++entered_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void wait_for_entry(int times = 1) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return entered_ >= times; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int entered_ = 0;
  bool open_ = false;
};

constexpr int kOutputs = 3;

class FakeEngine {
 public:
  // Fills `output` and returns a code; the message is written if it is not empty.
  struct Outcome {
    int code = PE_OK;
    std::string message;
  };
  using Behaviour = std::function<Outcome(const float* input, float* output)>;

  // Branch i adds 10^i to the sum of its inputs; output c is that times c + 1.
  explicit FakeEngine(int branches) {
    behaviours_["stem"] = [](const float* input, float* output) {
      std::copy_n(input, 4, output);
      return Outcome{};
    };
    for (int index = 0; index < branches; ++index) behaviours_[name(index)] = adds(std::pow(10.0F, index));
  }
  FakeEngine(const FakeEngine&) = delete;
  ~FakeEngine() {
    CHECK(opened == closed);
    CHECK(begun == ended);
    CHECK(wrong == 0);
  }

  static std::string name(int index) { return "branch_0" + std::to_string(index); }
  static Behaviour adds(float value) {
    return [value](const float* input, float* output) {
      const float sum = std::accumulate(input, input + 4, value);
      for (int c = 0; c < kOutputs; ++c) output[c] = sum * static_cast<float>(c + 1);
      return Outcome{};
    };
  }
  static Behaviour fails(int code, std::string message) {
    return [code, message](const float*, float*) { return Outcome{code, message}; };
  }
  // As `then`, once the gate is open.
  static Behaviour waits(Gate& gate, Behaviour then) {
    return [&gate, then](const float* input, float* output) {
      gate.pass();
      return then(input, output);
    };
  }

  void set(const std::string& part, Behaviour behaviour) { behaviours_.at(part) = std::move(behaviour); }
  void fail_to_load(const std::string& part, Outcome outcome) { refusals_[part] = std::move(outcome); }

  pe_engine c() {
    pe_engine engine{};
    engine.size = sizeof engine;
    engine.name = "fake";
    engine.context = this;
    engine.load = load;
    engine.run = run;
    engine.close = [](void* part) {
      auto* fake = static_cast<Part*>(part);
      if (fake->inside) ++fake->engine.wrong;
      ++fake->engine.closed;
      delete fake;
    };
    engine.sequential = sequential;
    engine.cancel = [](void* part) { static_cast<Part*>(part)->cancel(); };
    engine.thread_begin = [](void* context) -> void* {
      ++static_cast<FakeEngine*>(context)->begun;
      return new std::thread::id(std::this_thread::get_id());
    };
    engine.thread_end = [](void* context, void* begun) {
      const std::unique_ptr<std::thread::id> id(static_cast<std::thread::id*>(begun));
      auto& self = *static_cast<FakeEngine*>(context);
      if (*id != std::this_thread::get_id()) ++self.wrong;
      ++self.ended;
    };
    return engine;
  }

  // Branches with these indexes.
  Result<std::unique_ptr<Session>> try_open(std::vector<int> indexes, const SessionOptions& options = {},
                                            std::shared_ptr<const void> owner = nullptr) {
    std::vector<Program> branches;
    for (const int index : indexes) branches.push_back({{name(index), index, {1, 4}, {1, kOutputs}, 100}, {}});
    return Session::open(c(), {{"stem", -1, {1, 4}, {1, 4}, 100}, {}}, branches, std::move(owner), options);
  }
  std::unique_ptr<Session> open(std::vector<int> indexes, const SessionOptions& options = {}) {
    auto session = try_open(std::move(indexes), options);
    REQUIRE_MESSAGE(session, (session ? "" : session.error().message));
    return std::move(*session);
  }

  std::vector<std::string> cancelled() {
    std::lock_guard lock(mutex_);
    return cancelled_;
  }

  int sequential = 0;
  std::atomic<int> opened{0}, closed{0};  // parts
  std::atomic<int> begun{0}, ended{0};    // threads
  std::atomic<int> wrong{0};              // what must never happen

 private:
  struct Part {
    FakeEngine& engine;
    std::string name;
    std::atomic<bool> inside{false};
    void cancel() {
      std::lock_guard lock(engine.mutex_);
      engine.cancelled_.push_back(name);
    }
  };

  static void write(char* message, const std::string& text) {
    std::snprintf(message, PE_MESSAGE_BYTES, "%s", text.c_str());
  }

  static int load(void* context, const pe_part* part, const void*, size_t, void** loaded, char* message) {
    auto& self = *static_cast<FakeEngine*>(context);
    if (const auto refusal = self.refusals_.find(part->name); refusal != self.refusals_.end()) {
      write(message, refusal->second.message);
      return refusal->second.code;
    }
    ++self.opened;
    *loaded = new Part{self, part->name};
    return PE_OK;
  }

  static int run(void* loaded, const float* input, float* output, char* message) {
    auto& part = *static_cast<Part*>(loaded);
    if (part.inside.exchange(true)) ++part.engine.wrong;  // two threads at once
    const Outcome outcome = part.engine.behaviours_.at(part.name)(input, output);
    if (!part.inside.exchange(false)) ++part.engine.wrong;
    if (!outcome.message.empty()) write(message, outcome.message);
    return outcome.code;
  }

  std::map<std::string, Behaviour> behaviours_;
  std::map<std::string, Outcome> refusals_;
  std::mutex mutex_;
  std::vector<std::string> cancelled_;
};

}  // namespace paraedge::tests
