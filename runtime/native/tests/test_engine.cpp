// The session and its engine, by a fake one: which branches run, what fails, who is told of threads, fork, the end.
#include "engine.h"

#include <algorithm>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <optional>
#include <set>

#include "fake_engine.h"
#include "refusal.h"

namespace paraedge::tests {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;

const std::vector<float> kInput = {1, 2, 3, 4};

std::vector<float> output_of(const std::vector<int>& indexes) {
  std::vector<float> output(kOutputs);
  for (const int index : indexes) {
    for (int c = 0; c < kOutputs; ++c) output[c] += (10 + std::pow(10.0F, index)) * static_cast<float>(c + 1);
  }
  return output;
}

std::vector<int> used_of(const Prediction& prediction) {
  std::vector<int> used;
  for (const BranchRun& run : prediction.branches) {
    if (run.state == BranchState::used) used.push_back(run.index);
  }
  return used;
}

void check_whole(Session& session, const std::vector<int>& indexes) {
  auto p = session.run(kInput);
  REQUIRE(p);
  CHECK(used_of(*p) == indexes);
  CHECK(p->output == output_of(indexes));
}

TEST_CASE("branches are chosen by their indexes in the model") {
  FakeEngine engine(8);
  for (const int threads : {1, 3}) {
    const auto session = engine.open({0, 2, 5, 7}, {.threads = threads});
    CHECK(session->branches() == 4);
    for (const std::vector<int>& chosen : {std::vector<int>{2}, {0, 5}, {2, 5, 7}, {0, 2, 5, 7}}) {
      for (const bool hurried : {false, true}) {
        RunOptions options{.branches = chosen, .policy = Policy::all};
        if (hurried) options.deadline = Clock::now() + minutes(1);
        auto p = session->run(kInput, options);
        REQUIRE(p);
        CHECK(used_of(*p) == chosen);
        CHECK(p->branches.size() == chosen.size());
        CHECK(p->output == output_of(chosen));
        REQUIRE(p->branch_outputs.size() == chosen.size() * kOutputs);
        for (size_t row = 0; row < chosen.size(); ++row) {
          CHECK(p->branch_outputs[row * kOutputs] == 10 + std::pow(10.0F, chosen[row]));
        }
      }
    }
    struct Row {
      std::vector<int> branches;
      const char* message;
    };
    for (const Row& row : {Row{{1}, "branch 1 is not loaded"}, Row{{0, 8}, "branch 8 is not loaded"},
                           Row{{-1}, "branch -1 is not loaded"}, Row{{5, 2}, "ascending order"},
                           Row{{2, 2}, "unique indices"}}) {
      auto refused = session->run(kInput, {.branches = row.branches});
      REQUIRE_FALSE(refused);
      CHECK(refused.error().code == ErrorCode::input);
      CHECK(refused.error().message.find(row.message) != std::string::npos);
    }
    check_whole(*session, {0, 2, 5, 7});
  }
}

TEST_CASE("there are never more threads than branches, and a sequential engine has one") {
  FakeEngine engine(8);
  CHECK(engine.open({0, 1, 2}, {.threads = 9})->threads() == 3);
  CHECK(engine.open({0, 1, 2}, {.threads = 5000})->threads() == 3);
  CHECK(engine.open({0}, {.threads = 2})->threads() == 1);
  FakeEngine sequential(3);
  sequential.sequential = 1;
  std::set<std::thread::id> threads;
  for (int index = 0; index < 3; ++index) {
    sequential.set(FakeEngine::name(index), [&, index](const float* input, float* output) {
      threads.insert(std::this_thread::get_id());
      return FakeEngine::adds(std::pow(10.0F, index))(input, output);
    });
  }
  const auto session = sequential.open({0, 1, 2}, {.threads = 4});
  CHECK(session->threads() == 1);
  check_whole(*session, {0, 1, 2});
  CHECK(threads == std::set{std::this_thread::get_id()});
}

TEST_CASE("a caller that cancels gets no prediction, whoever has the branch that it waits for") {
  for (const bool hurried : {false, true}) {
    for (const int held : {0, 1}) {
      CAPTURE(hurried);
      CAPTURE(held);
      FakeEngine engine(2);
      Gate gate;
      std::atomic<bool> holds{true};
      const auto caller = std::this_thread::get_id();
      for (int index = 0; index < 2; ++index) {  // the worker is held, in whichever branch it is
        engine.set(FakeEngine::name(index), [&, index](const float* input, float* output) {
          if (holds && std::this_thread::get_id() != caller) gate.pass();
          if (holds && std::this_thread::get_id() == caller) gate.wait_for_entry();
          return FakeEngine::adds(std::pow(10.0F, index))(input, output);
        });
      }
      const auto session = engine.open({0, 1}, {.threads = 2});
      int polls = 0;
      RunOptions options{.policy = Policy::all, .cancelled = [&] { return ++polls > 1; }};
      if (hurried) options.deadline = Clock::now() + minutes(10);
      auto cancelled = session->run(kInput, options);
      REQUIRE_FALSE(cancelled);
      CHECK(cancelled.error().code == ErrorCode::cancelled);
      // The next one waits for the worker that is held, if it cannot do without; that can be cancelled too.
      const std::vector<int> both[] = {{0}, {1}};
      int refused = 0;
      for (const std::vector<int>& one : both) {
        polls = 0;
        auto p = session->run(kInput, {.branches = one, .cancelled = options.cancelled});
        if (!p) {
          CHECK(p.error().code == ErrorCode::cancelled);
          ++refused;
        }
      }
      CHECK(refused == 1);
      holds = false;
      gate.open();
      check_whole(*session, {0, 1});
    }
  }
}

TEST_CASE("late branches are cancelled, and those only") {
  FakeEngine engine(3);
  Gate gate;
  engine.set("branch_01", FakeEngine::waits(gate, FakeEngine::adds(10)));
  const auto session = engine.open({0, 1, 2}, {.threads = 2});
  auto p = session->run(kInput, {.deadline = Clock::now() + milliseconds(200), .policy = Policy::all});
  REQUIRE(p);
  CHECK(p->branches[1].state == BranchState::late);
  CHECK(engine.cancelled() == std::vector<std::string>{"branch_01"});
  gate.open();
  check_whole(*session, {0, 1, 2});
  CHECK(engine.cancelled().size() == 1);
}

TEST_CASE("a part that does not load, by code") {
  struct Row {
    const char* part;
    FakeEngine::Outcome outcome;
    ErrorCode code;
    const char* message;
  };
  const Row rows[] = {
      {"branch_01", {PE_ERROR_MANIFEST, "its input is [2]"}, ErrorCode::manifest, "its input is [2]"},
      {"branch_01", {PE_ERROR_INTEGRITY, "it reads a file"}, ErrorCode::integrity, "it reads a file"},
      {"branch_01", {PE_ERROR_ENGINE, "no memory"}, ErrorCode::engine, "no memory"},
      {"branch_01", {PE_ERROR_ENGINE, ""}, ErrorCode::engine, "fake failed to load branch_01"},
      {"branch_01", {PE_ERROR_CANCELLED, "gone"}, ErrorCode::engine, "gone"},
      {"branch_01", {77, "of another time"}, ErrorCode::engine, "of another time"},
      {"stem", {PE_ERROR_ENGINE, "no stem"}, ErrorCode::engine, "no stem"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.message);
    FakeEngine engine(3);
    engine.fail_to_load(row.part, row.outcome);
    auto refused = engine.try_open({0, 1, 2}, {.threads = 2});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == row.code);
    CHECK(refused.error().message == row.message);
    CHECK(engine.begun == 0);
  }
}

TEST_CASE("a branch that fails costs itself, whatever its code and message") {
  const std::string long_text = std::string(510, 'x') + "ü";  // cut in the middle of the last character
  struct Row {
    FakeEngine::Outcome outcome;
    std::string problem;
  };
  const Row rows[] = {
      {{PE_ERROR_ENGINE, "no memory"}, "no memory"},
      {{PE_ERROR_ENGINE, ""}, "fake failed while running branch_01"},
      {{PE_ERROR_MANIFEST, "odd"}, "odd"},
      {{-5, "unknown"}, "unknown"},
      {{PE_ERROR_ENGINE, long_text}, std::string(510, 'x') + "?"},
      {{PE_ERROR_ENGINE, "\xff \xed\xa0\x80 \xc0\x80 ü"}, "? ??? ?? ü"},
  };
  for (const Row& row : rows) {
    for (const int threads : {1, 2}) {
      CAPTURE(row.problem);
      FakeEngine engine(3);
      engine.set("branch_01", FakeEngine::fails(row.outcome.code, row.outcome.message));
      const auto session = engine.open({0, 1, 2}, {.threads = threads});
      for (int request = 0; request < 3; ++request) {
        auto p = session->run(kInput);
        REQUIRE(p);
        CHECK(used_of(*p) == std::vector<int>{0, 2});
        CHECK(p->output == output_of({0, 2}));
        CHECK(p->branches[1].state == BranchState::failed);
        CHECK(p->branches[1].problem == row.problem);
      }
    }
  }
}

TEST_CASE("cancelled by the engine: the caller's thread ends the request, a worker loses its branch") {
  const auto caller = std::this_thread::get_id();
  for (const bool by_caller : {false, true}) {
    FakeEngine engine(2);
    std::atomic<bool> worker_was_there{false};
    for (int index = 0; index < 2; ++index) {
      engine.set(FakeEngine::name(index), [&, index](const float* input, float* output) {
        const bool is_caller = std::this_thread::get_id() == caller;
        if (!is_caller) worker_was_there = true;
        while (is_caller && !worker_was_there) std::this_thread::yield();
        if (is_caller == by_caller) return FakeEngine::Outcome{PE_ERROR_CANCELLED, "stopped"};
        return FakeEngine::adds(std::pow(10.0F, index))(input, output);
      });
    }
    const auto session = engine.open({0, 1}, {.threads = 2});
    auto p = session->run(kInput);
    if (by_caller) {
      REQUIRE_FALSE(p);
      CHECK(p.error().code == ErrorCode::cancelled);
    } else {
      REQUIRE(p);
      CHECK(used_of(*p).size() == 1);
    }
  }
  FakeEngine engine(1);
  engine.set("stem", FakeEngine::fails(PE_ERROR_CANCELLED, "stopped"));
  auto p = engine.open({0})->run(kInput);
  REQUIRE_FALSE(p);
  CHECK(p.error().code == ErrorCode::cancelled);
}

TEST_CASE("a stem that fails, all branches that fail, and what is not finite") {
  const auto infinite = [](const float*, float* output) {
    output[0] = INFINITY;
    return FakeEngine::Outcome{};
  };
  struct Row {
    std::vector<std::string> parts;
    FakeEngine::Behaviour behaviour;
    const char* message;
  };
  const Row rows[] = {
      {{"stem"}, FakeEngine::fails(PE_ERROR_ENGINE, "no stem"), "no stem; 'paraedge verify'"},
      {{"stem"}, infinite, "the stem's output is not finite"},
      {{"branch_00", "branch_01"}, FakeEngine::fails(PE_ERROR_ENGINE, "no"), "every branch failed: branch_00: no;"},
      {{"branch_00", "branch_01"}, infinite, "branch_01: its output is not finite"},
      {{"branch_00", "branch_01"}, FakeEngine::adds(1e38F), "the sum of the branches is not finite"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.message);
    FakeEngine engine(2);
    for (const std::string& part : row.parts) engine.set(part, row.behaviour);
    const auto session = engine.open({0, 1}, {.threads = 2});
    for (const bool hurried : {false, true}) {
      RunOptions options{.policy = Policy::all};
      if (hurried) options.deadline = Clock::now() + minutes(10);  // not waited for
      auto p = session->run(kInput, options);
      REQUIRE_FALSE(p);
      CHECK(p.error().code == ErrorCode::engine);
      CHECK(p.error().message.find(row.message) != std::string::npos);
    }
  }
}

TEST_CASE("each worker begins and ends once, the session keeps its owner until then") {
  for (const int threads : {1, 2, 4}) {
    FakeEngine engine(4);
    const auto owner = std::make_shared<int>(1);
    {
      auto session = engine.try_open({0, 1, 2, 3}, {.threads = threads}, owner);
      REQUIRE(session);
      CHECK(owner.use_count() == 2);
      check_whole(**session, {0, 1, 2, 3});
    }
    CHECK(owner.use_count() == 1);
    CHECK(engine.begun == threads);
    CHECK(engine.ended == threads);
    CHECK(engine.closed == 5);
  }
}

// Runs `body` in a forked child and returns its result, or -1 if it did not come back by itself.
int in_child(const std::function<int()>& body) {
  std::cout.flush();
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    alarm(60);
    _exit(body());
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("the child of a fork is refused, whatever its parent's threads were doing; the parent goes on") {
  FakeEngine engine(2);
  Gate gate;
  std::atomic<bool> holds{true};
  engine.set("branch_01", [&](const float* input, float* output) {
    if (holds) gate.pass();
    return FakeEngine::adds(10)(input, output);
  });
  auto session = engine.open({0, 1}, {.threads = 2});
  std::thread caller([&] { check_whole(*session, {0, 1}); });  // holds the session's locks at the fork
  gate.wait_for_entry();
  const int refused = in_child([&] {
    auto p = session->run(kInput);
    if (p || p.error().code != ErrorCode::engine) return 1;
    if (p.error().message.find("opened before a fork") == std::string::npos) return 2;
    if (!std::isnan(session->mandatory_ms()) || session->threads() != 2) return 3;
    if (session->settle(milliseconds(0))) return 4;
    Prediction prediction{};
    session->hand_over(prediction);
    session.reset();
    return 0;
  });
  CHECK(refused == 0);
  holds = false;
  gate.open();
  caller.join();
  check_whole(*session, {0, 1});
}

#ifndef __SANITIZE_THREAD__  // starts no threads after a fork of many
TEST_CASE("a session opened in the child works there") {
  FakeEngine engine(2);
  const auto session = engine.open({0, 1}, {.threads = 2});
  check_whole(*session, {0, 1});
  CHECK(in_child([&] {
          auto own = engine.try_open({0, 1}, {.threads = 2});
          if (!own) return 1;
          auto p = (*own)->run(kInput);
          return p && p->output == output_of({0, 1}) ? 0 : 2;
        }) == 0);
}

TEST_CASE("only so many threads can be started") {
  // A limit that holds for root too: no room for stacks.
  const int outcome = in_child([] {
    auto* engine = new FakeEngine(8);
    rlimit room{};
    getrlimit(RLIMIT_AS, &room);
    std::ifstream("/proc/self/statm") >> room.rlim_cur;
    room.rlim_cur = room.rlim_cur * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{20} << 20);
    setrlimit(RLIMIT_AS, &room);
    auto session = engine->try_open({0, 1, 2, 3, 4, 5, 6, 7}, {.threads = 8});
    if (session) return 1;
    if (session.error().code != ErrorCode::engine) return 2;
    if (session.error().message.find(" of 8 threads can be started here") == std::string::npos) return 3;
    return engine->begun == engine->ended && engine->opened == engine->closed ? 0 : 4;
  });
  CHECK(outcome == 0);
}
#endif

TEST_CASE("settled: nobody waits any more, nothing more is started, and it may be destroyed") {
  for (const bool hurried : {false, true}) {
    for (const bool watched : {false, true}) {
      FakeEngine engine(3);
      Gate gate;
      engine.set("branch_01", FakeEngine::waits(gate, FakeEngine::adds(10)));
      auto session = engine.open({0, 1, 2}, {.threads = 2});
      RunOptions options{.policy = Policy::all};
      if (hurried) options.deadline = Clock::now() + minutes(10);
      if (watched) options.on_prediction = [](const Prediction&) { return true; };
      std::vector<std::thread> callers;
      std::atomic<int> cancelled{0};
      for (int caller = 0; caller < 3; ++caller) {  // one is inside, the others wait for it
        callers.emplace_back([&] {
          auto p = session->run(kInput, options);
          if (!p && p.error().code == ErrorCode::cancelled) ++cancelled;
        });
      }
      gate.wait_for_entry();
      CHECK_FALSE(session->settle(milliseconds(20)));  // somebody is in the branch
      const auto cancelled_parts = engine.cancelled();  // another may be on its way out of its branch
      CHECK(std::find(cancelled_parts.begin(), cancelled_parts.end(), "branch_01") != cancelled_parts.end());
      gate.open();
      CHECK(session->settle(minutes(10)));
      for (std::thread& caller : callers) caller.join();
      CHECK(cancelled == 3);
      auto after = session->run(kInput);
      REQUIRE_FALSE(after);
      CHECK(after.error().code == ErrorCode::cancelled);
    }
  }
}

// A request in a thread of its own. `queue` returns when it waits for its turn.
class Caller {
 public:
  Caller(Session& session, float number, RunOptions options) : options_(std::move(options)) {
    options_.cancelled = [this] {
      polled_.open();
      return cancel_.load();
    };
    input_ = {number, 0, 0, 0};
    thread_ = std::thread([&] { result_.emplace(session.run(input_, options_)); });
  }
  Caller(const Caller&) = delete;
  ~Caller() {
    if (thread_.joinable()) thread_.join();
  }
  void queue() { polled_.pass(); }
  void cancel() { cancel_ = true; }
  const Result<Prediction>& result() {
    thread_.join();
    return *result_;
  }

 private:
  Gate polled_;
  std::atomic<bool> cancel_{false};
  RunOptions options_;
  std::vector<float> input_;
  std::optional<Result<Prediction>> result_;
  std::thread thread_;
};

// A session whose stem is held while the gate is closed, and notes the first number of every input.
class HeldSession {
 public:
  explicit HeldSession(std::vector<double> part_ms = {}) : engine(2) {
    engine.set("stem", [this](const float* input, float* output) {
      gate.pass();
      order.push_back(static_cast<int>(input[0]));
      std::copy_n(input, 4, output);
      return FakeEngine::Outcome{};
    });
    session = engine.open({0, 1}, {.threads = 1, .latency = {std::move(part_ms), {}}});
  }
  FakeEngine engine;
  Gate gate;
  std::vector<int> order;
  std::unique_ptr<Session> session;
};

TEST_CASE("of the requests that wait, the one with the earliest deadline is next; who cancels does not wait") {
  HeldSession held;
  const auto now = Clock::now();
  Caller first(*held.session, 0, {});
  held.gate.wait_for_entry();
  struct Row {
    int number;
    Clock::time_point deadline;
  };
  std::vector<std::unique_ptr<Caller>> callers;
  for (const Row& row : {Row{1, now + minutes(30)}, Row{2, Clock::time_point::max()}, Row{3, now + minutes(20)},
                         Row{4, now + minutes(30)}, Row{5, now - minutes(1)}}) {
    callers.push_back(std::make_unique<Caller>(*held.session, row.number, RunOptions{.deadline = row.deadline}));
    callers.back()->queue();
  }
  callers[3]->cancel();
  const auto& cancelled = callers[3]->result();
  REQUIRE_FALSE(cancelled);
  CHECK(cancelled.error().code == ErrorCode::cancelled);
  held.gate.open();
  for (const size_t other : {0, 1, 2, 4}) CHECK(callers[other]->result());
  CHECK(first.result());
  CHECK(held.order == std::vector<int>{0, 5, 2, 3, 1});
}

TEST_CASE("a request leaves time for one that waits in the session") {
  HeldSession held({7'500, 7'500, 20'000});  // ms; in truth they take none
  const auto deadline = Clock::now() + std::chrono::seconds(38);
  Caller first(*held.session, 0, {.first_branches = 1});
  held.gate.wait_for_entry();
  Caller second(*held.session, 1, {.deadline = deadline}), third(*held.session, 2, {.deadline = deadline});
  second.queue();
  third.queue();
  held.gate.open();
  int cut = 0;  // whichever is last is followed by nobody
  for (Caller* caller : {&second, &third}) {
    const auto& p = caller->result();
    REQUIRE(p);
    CHECK(p->branches[0].state == BranchState::used);
    cut += p->branches[1].state == BranchState::would_not_fit;
  }
  CHECK(cut == 1);
}

void check_dropped(const Result<Prediction>& result, const char* message) {
  REQUIRE_FALSE(result);
  CHECK(result.error().code == ErrorCode::dropped);
  CHECK_MESSAGE(result.error().message.find(message) != std::string::npos, result.error().message);
}

TEST_CASE("on_overload: what will probably be late is dropped before it runs, if it may be") {
  struct Row {
    std::vector<double> part_ms;
    Clock::duration budget;
    const char* message;  // empty: it runs
  };
  for (const Row& row : {Row{{1, 60'000, 1}, std::chrono::seconds(30), "its first prediction takes 60001.00 ms"},
                         Row{{1, 60'000, 1}, minutes(30), ""},
                         Row{{1, 1, 60'000}, std::chrono::seconds(30), ""},
                         Row{{}, minutes(30), ""},  // not known yet
                         Row{{}, -minutes(1), "its deadline passed 60000."}}) {
    for (const Overload on_overload : {Overload::run, Overload::drop}) {
      FakeEngine engine(2);
      std::atomic<int> begun{0};
      engine.set("stem", [&](const float* input, float* output) {
        ++begun;
        std::copy_n(input, 4, output);
        return FakeEngine::Outcome{};
      });
      const auto session = engine.open({0, 1}, {.threads = 2, .latency = {row.part_ms, {}}});
      auto p = session->run(kInput, {.deadline = Clock::now() + row.budget, .on_overload = on_overload});
      if (on_overload == Overload::drop && *row.message != '\0') {
        check_dropped(p, row.message);
        CHECK(begun == 0);
      } else {
        REQUIRE(p);
        CHECK(p->branches[0].state == BranchState::used);
      }
      check_whole(*session, {0, 1});
    }
  }
}

TEST_CASE("dropped at once where others come first, and as soon as a deadline passes in the queue") {
  for (const bool is_known : {false, true}) {
    CAPTURE(is_known);
    HeldSession held(is_known ? std::vector<double>{60'000, 60'000, 1} : std::vector<double>{});
    Caller first(*held.session, 0, {});
    held.gate.wait_for_entry();
    Caller second(*held.session, 1, {.deadline = Clock::now() + minutes(30), .on_overload = Overload::drop});
    second.queue();
    const auto budget = is_known ? Clock::duration(std::chrono::seconds(200)) : Clock::duration(milliseconds(30));
    Caller third(*held.session, 2, {.deadline = Clock::now() + budget, .on_overload = Overload::drop});
    check_dropped(third.result(), is_known ? "those of the requests before it 1" : "its deadline passed");
    held.gate.open();
    CHECK(first.result());
    CHECK(second.result());
    CHECK(held.order == std::vector<int>{0, 1});
  }
}

TEST_CASE("dropped after a stem that took all the time; a prediction that is late after all is given") {
  for (const char* slow : {"stem", "branch_00"}) {
    FakeEngine engine(2);
    std::atomic<int> predictions{0};
    const auto deadline = Clock::now() + milliseconds(200);
    engine.set("branch_00", [&](const float* input, float* output) {
      ++predictions;
      return FakeEngine::adds(1)(input, output);
    });
    if (slow == std::string("stem")) {
      engine.set("stem", [&](const float* input, float* output) {
        while (Clock::now() <= deadline) std::this_thread::yield();
        std::copy_n(input, 4, output);
        return FakeEngine::Outcome{};
      });
    } else {
      engine.set("branch_00", [&](const float* input, float* output) {
        while (Clock::now() <= deadline) std::this_thread::yield();
        return FakeEngine::adds(1)(input, output);
      });
    }
    const auto session = engine.open({0, 1}, {.threads = 1});
    auto p = session->run(kInput, {.deadline = deadline, .on_overload = Overload::drop});
    if (slow == std::string("stem")) {
      check_dropped(p, "its deadline passed");
      CHECK(predictions == 0);
    } else {
      REQUIRE(p);
      session->hand_over(*p);
      CHECK_FALSE(p->deadline_met);
    }
    check_whole(*session, {0, 1});
  }
}

TEST_CASE("where requests are dropped one after another, one is tried now and then") {
  FakeEngine engine(1);
  const auto session = engine.open({0}, {.latency = {{1, 60'000}, {}}});
  int dropped = 0;
  while (!session->run(kInput, {.deadline = Clock::now() + std::chrono::seconds(30), .on_overload = Overload::drop})) {
    ++dropped;
  }
  CHECK(dropped == 35);
}

TEST_CASE("stress: many callers, each request has its own prediction or is dropped or cancelled") {
  FakeEngine engine(3);
  const auto session = engine.open({0, 1, 2}, {.threads = 2, .latency = {{0.01, 0.01, 0.01, 0.01}, {}}});
  std::atomic<int> right{0}, refused{0};
  std::vector<std::thread> callers;
  constexpr int kCallers = 8, kRequests = 150;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      for (int request = 0; request < kRequests; ++request) {
        const auto number = static_cast<float>(caller * kRequests + request);
        const std::vector<float> input = {number, 0, 0, 0};
        RunOptions options{.on_overload = request % 2 ? Overload::drop : Overload::run};
        if (request % 3) options.deadline = Clock::now() + microseconds(30 * (1 + request));
        if (request % 7 == 0) options.cancelled = [&] { return request % 14 == 0; };
        auto p = session->run(input, options);
        if (!p) {
          refused += p.error().code == (options.cancelled && request % 14 == 0 ? ErrorCode::cancelled : ErrorCode::dropped);
          continue;
        }
        session->hand_over(*p);
        float expected = 0;
        for (const int index : used_of(*p)) expected += number + std::pow(10.0F, index);
        right += p->output[0] == expected;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(right + refused == kCallers * kRequests);
  CHECK(right > 0);
  check_whole(*session, {0, 1, 2});
}

TEST_CASE("an idle session settles at once, one with a late branch when that has ended") {
  FakeEngine engine(2);
  CHECK(engine.open({0, 1})->settle(milliseconds(0)));
  Gate gate;
  engine.set("branch_01", FakeEngine::waits(gate, FakeEngine::adds(10)));
  const auto session = engine.open({0, 1}, {.threads = 2});
  auto p = session->run(kInput, {.deadline = Clock::now() + milliseconds(100), .policy = Policy::all});
  REQUIRE(p);
  CHECK(used_of(*p) == std::vector<int>{0});
  CHECK_FALSE(session->settle(milliseconds(10)));
  gate.open();
  CHECK(session->settle(minutes(10)));
}

TEST_CASE("the confidence is calibrated for the prefixes that have a temperature; a vector has none") {
  FakeEngine engine(3);
  for (int index = 0; index < 3; ++index) {
    engine.set(FakeEngine::name(index), [](const float*, float* output) {
      for (int c = 0; c < kOutputs; ++c) output[c] = 0.5F * static_cast<float>(c);
      return FakeEngine::Outcome{};
    });
  }
  const auto softmax = [](double step, double temperature) {
    double total = 0;
    for (int c = 0; c < kOutputs; ++c) total += std::exp(step * (c - kOutputs + 1) / temperature);
    return 1 / total;
  };
  const auto labelled = engine.open({0, 1, 2}, {.threads = 2, .temperatures = {2.0, 4.0}});
  struct Row {
    std::vector<int> branches;
    double temperature;
    bool is_calibrated;
  };
  for (const Row& row : {Row{{0}, 2, true}, Row{{0, 1}, 4, true}, Row{{0, 1, 2}, 1, false}, Row{{1}, 1, false},
                         Row{{0, 2}, 1, false}}) {
    auto p = labelled->run(kInput, {.branches = row.branches});
    REQUIRE(p);
    CHECK(p->label_index == kOutputs - 1);
    CHECK(p->is_calibrated == row.is_calibrated);
    const double step = 0.5 * static_cast<double>(row.branches.size());
    CHECK(p->confidence == doctest::Approx(softmax(step, row.temperature)).epsilon(1e-6));
  }
  auto vector = engine.open({0, 1, 2}, {.threads = 2, .temperatures = {2.0}, .has_labels = false})->run(kInput);
  REQUIRE(vector);
  CHECK(std::isnan(vector->confidence));
  CHECK_FALSE(vector->is_calibrated);
  CHECK(vector->output[2] == 3.0F);
}

TEST_CASE("engines are known by name, and must be whole") {
  FakeEngine fake(1);
  pe_engine engine = fake.c();
  engine.name = "registered";
  CHECK_FALSE(find_engine("registered"));
  register_engine(engine);
  REQUIRE(find_engine("registered"));
  CHECK(find_engine("registered")->context == &fake);
  CHECK(engine_names().find("registered") != std::string::npos);
  engine.size = offsetof(pe_engine, sequential);  // of an older header: what it lacks is 0
  register_engine(engine);
  CHECK_FALSE(static_cast<bool>(find_engine("registered")->cancel));
  CHECK_FALSE(static_cast<bool>(find_engine("registered")->thread_begin));
  CHECK(find_engine("registered")->sequential == 0);
  const auto refused = [](pe_engine changed) {
    const auto result = guarded<bool>([&] { return register_engine(changed), true; });
    return !result && result.error().code == ErrorCode::input;
  };
  pe_engine changed = fake.c();
  CHECK(refused((changed.size = 8, changed)));
  CHECK(refused((changed = fake.c(), changed.name = nullptr, changed)));
  CHECK(refused((changed = fake.c(), changed.load = nullptr, changed)));
  CHECK(refused((changed = fake.c(), changed.run = nullptr, changed)));
  CHECK(refused((changed = fake.c(), changed.close = nullptr, changed)));
  for (const char* library : {"/nowhere/libengine.so", "libm.so.6"}) {
    const auto result = guarded<bool>([&] { return load_engine(library), true; });
    REQUIRE_FALSE(result);
    CHECK(result.error().code == ErrorCode::unavailable);
  }
}

}  // namespace
}  // namespace paraedge::tests
