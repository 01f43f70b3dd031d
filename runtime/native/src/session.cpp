// A session: the queue of parts, who takes which, the sum, and the deadline.
//
// A request lives in a slot of its own, with its own tokens and outputs. A worker that is late keeps its
// slot until it is done; nobody reads what it writes there, and the next request takes another slot. One
// part runs on at most one worker at a time: a branch that is still late is left for the worker that has it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <optional>

#include "part.h"
#include "placement.h"
#include "pool.h"
#include "refusal.h"
#include "session.h"

namespace paraedge {
namespace {

using std::chrono::microseconds;

size_t elements(const Shape& shape) {
  return static_cast<size_t>(std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
}

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

enum class Step : uint8_t { waiting, running, ended };

struct Task {
  Step step = Step::waiting;
  BranchRun run{};
};

struct Request {
  int users = 0;  // workers inside one of its parts
  bool open = false;  // results count
  Clock::time_point started, deadline;
  std::span<const double> latency_ms;
  std::vector<float> tokens, outputs;  // outputs: (k, C)
  std::vector<Task> tasks;
};

struct Claim {  // a part that a thread has taken and now has to run
  Request* request;
  size_t place;
};

class ThreadedSession final : public Session {
 public:
  ThreadedSession(Program stem, std::vector<Program> branches, std::shared_ptr<const void> owner,
                  const SessionOptions& options, Threading threading)  // of the branches
      : owner_(std::move(owner)),
        threads_(count_threads(options.threads, branches.size())),
        spin_(options.spin_us),
        margin_(options.return_margin_us),
        cores_(options.placement, threads_, allowed_cores()),
        stem_threading_(threading == Threading::pool || may_split_stem(threads_) ? Threading::pool : Threading::one),
        stem_(stem, "stem", stem_threading_),
        input_size_(elements(stem.part.input_shape)),
        num_outputs_(elements(branches[0].part.output_shape)),
        threading_(threading) {
    for (const Program& branch : branches) {
      const std::string name = (branch.part.index < 10 ? "branch_0" : "branch_") + std::to_string(branch.part.index);
      parts_.push_back(std::make_unique<LoadedPart>(branch, name, threading));
      indexes_.push_back(branch.part.index);
    }
    busy_.resize(parts_.size());
    // Late workers hold one slot each, so one more is always free.
    slots_.resize(static_cast<size_t>(threads_) + 1);
    for (Request& slot : slots_) {
      slot.tokens.resize(elements(stem.part.output_shape));
      slot.outputs.resize(parts_.size() * num_outputs_);
      slot.tasks.resize(parts_.size());
    }
    // Worker 0 stands in for the caller while that waits for a deadline; 1 … work beside it.
    pool_.emplace(threads_, spin_, [this](int worker) { drain(worker == 0 ? threads_ : worker); });
    for (int worker = 1; worker < threads_; ++worker) workers_.push_back(&pool_->thread(worker));
  }

  ~ThreadedSession() override {
    std::lock_guard call(call_mutex_);
    pool_.reset();  // waits for late branches; then the parts may go
  }

  int threads() const override { return threads_; }
  int branches() const override { return static_cast<int>(parts_.size()); }

  Result<Prediction> run(std::span<const float> input, const RunOptions& options) override {
    return guarded<Prediction>([&] {
      std::lock_guard call(call_mutex_);
      return answer(input, options);
    });
  }

 private:
  static int count_threads(int wanted, size_t branches) {
    if (wanted > 0) return wanted;
    return std::max(1, std::min(static_cast<int>(branches), static_cast<int>(allowed_cores().size())));
  }

  // The stem runs while the workers have nothing to do, so ExecuTorch's pool may help with it: as long as
  // that does not make it more threads than were asked for.
  static bool may_split_stem(int threads) { return threads > 1 && pool_threads() <= threads; }

  template <class Run>
  static std::string with_threading(Threading threading, Run&& run) {
    if (threading == Threading::pool) return run();
    const OneThread one_thread;
    return run();
  }

  Prediction answer(std::span<const float> input, const RunOptions& options) {
    const size_t count = check(input, options);
    Request& request = free_slot();
    request.started = Clock::now();
    request.deadline = options.deadline;
    request.latency_ms = options.latency_ms;
    const std::string problem = with_threading(stem_threading_, [&] { return stem_.run(input.data(), request.tokens); });
    if (!problem.empty()) throw Refusal(ErrorCode::engine, "executorch failed while running stem: " + problem);
    if (!all_finite(request.tokens)) {
      throw Refusal(ErrorCode::engine,
                    "the stem's output is not finite; 'paraedge verify' checks the bundle on this device");
    }
    const Clock::time_point stem_end = Clock::now();
    publish(request, count);
    const bool hurried = options.deadline != Clock::time_point::max();
    // The first branch is the caller's own, always: it has to be waited for in any case, and so no late
    // worker ever has it when the next request wants it.
    const std::optional<Claim> first = take(0);
    const int helpers = static_cast<int>(std::min(count, static_cast<size_t>(threads_))) - 1;
    if (helpers > 0) {
      cores_.move_away_from(current_core(), workers_);
      for (int worker = 1; worker <= helpers; ++worker) pool_->wake(worker);
    }
    if (first) run_part(*first);
    if (!hurried) {
      drain(0);
    } else if (count > 1) {
      pool_->wake(0);  // inside another branch the caller could not return at the deadline
    }
    wait(request, hurried);
    return collect(request, count, stem_end);
  }

  size_t check(std::span<const float> input, const RunOptions& options) const {
    if (input.size() != input_size_) {
      throw Refusal(ErrorCode::input, "the input has " + std::to_string(input.size()) + " values, this bundle reads " +
                                          std::to_string(input_size_));
    }
    if (!all_finite(input)) throw Refusal(ErrorCode::input, "the input has values that are not finite");
    const auto count = options.branches == 0 ? branches() : options.branches;
    if (count < 1 || count > branches()) {
      throw Refusal(ErrorCode::input, std::to_string(count) + " branches were asked for; there are " +
                                          std::to_string(branches()));
    }
    if (!options.latency_ms.empty() && options.latency_ms.size() != parts_.size()) {
      throw Refusal(ErrorCode::input, "latency_ms has " + std::to_string(options.latency_ms.size()) +
                                          " values for " + std::to_string(branches()) + " branches");
    }
    return static_cast<size_t>(count);
  }

  Request& free_slot() {
    std::lock_guard lock(mutex_);
    return *std::find_if(slots_.begin(), slots_.end(), [](const Request& slot) { return slot.users == 0; });
  }

  void publish(Request& request, size_t count) {
    for (size_t place = 0; place < parts_.size(); ++place) {
      Task& task = request.tasks[place];
      task.step = place < count ? Step::waiting : Step::ended;
      task.run = {indexes_[place], BranchState::late, -1, 0, 0, ""};
    }
    std::lock_guard lock(mutex_);
    request.open = true;
    count_ = count;
    unfinished_ = count;
    current_ = &request;
  }

  // The next part that may run now.
  std::optional<Claim> take(int thread) {
    std::lock_guard lock(mutex_);
    if (current_ == nullptr) return std::nullopt;
    Request& request = *current_;
    const Clock::time_point now = Clock::now();
    for (size_t place = 0; place < count_; ++place) {
      Task& task = request.tasks[place];
      if (task.step != Step::waiting || busy_[place]) continue;
      if (place > 0 && !fits(request, place, now)) {
        task.step = Step::ended;
        task.run.state = BranchState::would_not_fit;
        end_one();
        continue;
      }
      task.step = Step::running;
      task.run.thread = thread;
      busy_[place] = true;
      ++request.users;
      return Claim{&request, place};
    }
    return std::nullopt;
  }

  static bool fits(const Request& request, size_t place, Clock::time_point now) {
    if (request.deadline == Clock::time_point::max()) return true;
    const double left_ms = std::chrono::duration<double, std::milli>(request.deadline - now).count();
    return left_ms > (request.latency_ms.empty() ? 0.0 : request.latency_ms[place]);
  }

  void run_part(const Claim& claim) {
    Request& request = *claim.request;
    const size_t place = claim.place;
    const std::span<float> row(request.outputs.data() + place * num_outputs_, num_outputs_);
    const Clock::time_point start = Clock::now();
    std::string problem =
        with_threading(threading_, [&] { return parts_[place]->run(request.tokens.data(), row); });
    const Clock::time_point end = Clock::now();
    const bool finite = problem.empty() && all_finite(row);

    std::lock_guard lock(mutex_);
    busy_[place] = false;
    --request.users;
    if (!request.open) return;  // late: the answer was given without it
    Task& task = request.tasks[place];
    task.step = Step::ended;
    task.run.start_ms = since(request, start);
    task.run.end_ms = since(request, end);
    task.run.state = !problem.empty() ? BranchState::failed : finite ? BranchState::used : BranchState::not_finite;
    task.run.problem = std::move(problem);
    end_one();
  }

  void end_one() {  // with mutex_ held
    if (unfinished_.fetch_sub(1) == 1 || waiting_for_any_) ended_.notify_one();
  }

  void drain(int thread) {
    while (const auto claim = take(thread)) run_part(*claim);
  }

  // Until every branch has ended; at the deadline, until there is an answer at all. Then closes the request.
  void wait(Request& request, bool hurried) {
    auto all_ended = [this] { return unfinished_.load() == 0; };
    const Clock::time_point until = hurried ? request.deadline - margin_ : Clock::time_point::max();
    if (Clock::now() < until) spin_until([&] { return all_ended() || Clock::now() >= until; }, spin_);
    std::unique_lock lock(mutex_);
    if (!hurried) {
      ended_.wait(lock, all_ended);
    } else if (!ended_.wait_until(lock, until, all_ended)) {
      waiting_for_any_ = true;
      ended_.wait(lock, [&] { return all_ended() || any_used(request) || !any_running(request); });
      waiting_for_any_ = false;
    }
    request.open = false;
    current_ = nullptr;
  }

  bool any_used(const Request& request) const {
    return std::any_of(request.tasks.begin(), request.tasks.begin() + static_cast<ptrdiff_t>(count_),
                       [](const Task& t) { return t.step == Step::ended && t.run.state == BranchState::used; });
  }

  bool any_running(const Request& request) const {
    return std::any_of(request.tasks.begin(), request.tasks.begin() + static_cast<ptrdiff_t>(count_),
                       [](const Task& t) { return t.step == Step::running; });
  }

  static float since(const Request& request, Clock::time_point time) {
    return std::chrono::duration<float, std::milli>(time - request.started).count();
  }

  Prediction collect(const Request& request, size_t count, Clock::time_point stem_end) const {
    Prediction prediction{};
    prediction.output.resize(num_outputs_);
    prediction.branch_outputs.resize(count * num_outputs_);
    prediction.branches.reserve(count);
    bool any = false;
    std::string causes;
    for (size_t place = 0; place < count; ++place) {
      const Task& task = request.tasks[place];
      prediction.branches.push_back(task.run);
      if (task.run.state == BranchState::used) {
        const float* row = request.outputs.data() + place * num_outputs_;
        std::copy_n(row, num_outputs_, prediction.branch_outputs.data() + place * num_outputs_);
        for (size_t c = 0; c < num_outputs_; ++c) prediction.output[c] = any ? prediction.output[c] + row[c] : row[c];
        any = true;
      } else if (task.run.state == BranchState::not_finite) {
        causes += " " + parts_[place]->name() + ": its output is not finite;";
      } else if (!task.run.problem.empty()) {
        causes += " " + parts_[place]->name() + ": " + task.run.problem + ";";
      }
    }
    const std::string advice = " 'paraedge verify' checks the bundle on this device";
    if (!any) throw Refusal(ErrorCode::engine, "every branch failed:" + causes + advice);
    if (!all_finite(prediction.output)) {
      throw Refusal(ErrorCode::engine, "the sum of the branches is not finite;" + advice);
    }
    const auto best = std::max_element(prediction.output.begin(), prediction.output.end());
    prediction.label_index = static_cast<int>(best - prediction.output.begin());
    double total = 0;
    for (float logit : prediction.output) total += std::exp(static_cast<double>(logit - *best));
    prediction.confidence = static_cast<float>(1 / total);
    prediction.stem_ms = since(request, stem_end);
    const Clock::time_point now = Clock::now();
    prediction.elapsed_ms = since(request, now);
    prediction.deadline_met = now <= request.deadline;
    return prediction;
  }

  const std::shared_ptr<const void> owner_;
  const int threads_;
  const microseconds spin_, margin_;
  WorkerCores cores_;
  const Threading stem_threading_;
  LoadedPart stem_;
  std::vector<std::unique_ptr<LoadedPart>> parts_;
  std::vector<int> indexes_;
  const size_t input_size_, num_outputs_;
  const Threading threading_;

  std::mutex call_mutex_;  // one request at a time
  std::mutex mutex_;       // everything below
  std::condition_variable ended_;
  std::vector<Request> slots_;
  std::vector<char> busy_;  // per part: a worker is inside
  Request* current_ = nullptr;
  size_t count_ = 0;
  std::atomic<size_t> unfinished_{0};  // written with mutex_ held, read without while spinning
  bool waiting_for_any_ = false;

  std::vector<std::thread*> workers_;
  std::optional<Pool> pool_;  // last: its threads use all of the above
};

void check_options(const SessionOptions& options, size_t branches) {
  auto refuse = [](const std::string& problem) { throw Refusal(ErrorCode::input, problem); };
  if (branches == 0) refuse("there is no branch to load");
  if (options.threads < 0 || options.threads > 1024) {
    refuse("threads is " + std::to_string(options.threads) + "; 0 to 1024 are possible");
  }
  if (options.spin_us < 0 || options.spin_us > 1'000'000) {
    refuse("spin_us is " + std::to_string(options.spin_us) + "; 0 to 1000000 are possible");
  }
  if (options.return_margin_us < 0) {
    refuse("return_margin_us is " + std::to_string(options.return_margin_us) + "; it cannot be below 0");
  }
}

}  // namespace

Result<std::unique_ptr<Session>> open_session(Program stem, std::vector<Program> branches,
                                              std::shared_ptr<const void> owner, const SessionOptions& options,
                                              Threading threading) {
  return guarded<std::unique_ptr<Session>>([&]() -> std::unique_ptr<Session> {
    check_options(options, branches.size());
    return std::make_unique<ThreadedSession>(std::move(stem), std::move(branches), std::move(owner), options,
                                             threading);
  });
}

Result<std::unique_ptr<Session>> open_session(std::shared_ptr<const Bundle> bundle, const SessionOptions& options,
                                              Threading threading) {
  const Manifest& manifest = bundle->manifest();
  if (manifest.engine != "executorch") {
    return Error{ErrorCode::input, "the bundle was made for '" + manifest.engine +
                                       "', the native runtime runs 'executorch'; export it again with --engine executorch"};
  }
  const size_t loaded = options.branches == 0 ? manifest.branches.size() : static_cast<size_t>(options.branches);
  if (options.branches < 0 || loaded > manifest.branches.size()) {
    return Error{ErrorCode::input, std::to_string(options.branches) + " branches were asked for; there are " +
                                       std::to_string(manifest.branches.size())};
  }
  std::vector<Program> branches;
  for (size_t place = 0; place < loaded; ++place) {
    branches.push_back({manifest.branches[place], bundle->program(manifest.branches[place])});
  }
  Program stem{manifest.stem, bundle->program(manifest.stem)};
  return open_session(std::move(stem), std::move(branches), bundle, options, threading);
}

Result<std::unique_ptr<Session>> Session::open(std::shared_ptr<const Bundle> bundle, const SessionOptions& options) {
  return open_session(std::move(bundle), options, Threading::one);
}

Result<std::unique_ptr<Session>> Session::open(Program stem, std::vector<Program> branches,
                                               std::shared_ptr<const void> owner, const SessionOptions& options) {
  return open_session(std::move(stem), std::move(branches), std::move(owner), options, Threading::one);
}

}  // namespace paraedge
