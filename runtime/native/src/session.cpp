// A session: the queue of parts, who takes which, the sum, the deadline, and when it is enough.
//
// A request lives in a slot of its own, with its own tokens and outputs. A worker that is late keeps its
// slot until it is done; nobody reads what it writes there, and the next request takes another slot. One
// part runs on at most one worker at a time: a branch that is still late is left for the worker that has it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>

#include "controller.h"
#include "part.h"
#include "placement.h"
#include "pool.h"
#include "refusal.h"
#include "session.h"
#include "shape.h"

namespace paraedge {
namespace {

using std::chrono::duration;
using std::chrono::microseconds;

bool all_finite(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

// On two x86 cores ExecuTorch's pool made a stem of 4.8 million multiply-adds a third slower, one of 56
// million almost twice as fast.
constexpr int64_t kMacsWorthSplitting = 10'000'000;

double milliseconds(Clock::duration time) { return std::chrono::duration<double, std::milli>(time).count(); }

// The softmax of logits / temperature at its largest.
double confidence_of(std::span<const float> logits, double temperature) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit - best) / temperature);
  return 1 / total;
}

enum class Step : uint8_t { waiting, running, ended };

struct Task {
  Step step = Step::waiting;
  int busy = 0;  // branches that ran when it began, itself included
  Clock::time_point start;
  BranchRun run{};
};

struct Request {
  int users = 0;      // workers inside one of its parts
  bool open = false;  // results count
  Clock::time_point started, stem_end, deadline;
  Clock::time_point leave;  // no later than the deadline: others wait
  Clock::time_point last_end;  // of a branch
  Policy policy;
  bool early_stop, cut_short;
  bool in_order;  // branches are started in order of index: not all of them may run, or somebody watches
  size_t count;  // branches asked for
  std::vector<float> tokens, outputs;  // outputs: (k, C)
  std::vector<Task> tasks;
  size_t judged;  // branches of the prefix whose sum this is
  std::vector<float> prefix_sum;
};

struct Claim {  // a part that a thread has taken and now has to run
  Request* request;
  size_t place;
};

// Places by cost, the largest first: started in this order, branches of unequal size end at about the same time.
std::vector<size_t> largest_first(const std::vector<Program>& branches) {
  std::vector<size_t> places(branches.size());
  std::iota(places.begin(), places.end(), size_t{0});
  std::stable_sort(places.begin(), places.end(),
                   [&](size_t a, size_t b) { return branches[a].part.macs > branches[b].part.macs; });
  return places;
}

std::vector<double> macs_of(const std::vector<Program>& branches) {
  std::vector<double> macs;
  for (const Program& branch : branches) macs.push_back(static_cast<double>(branch.part.macs));
  return macs;
}

class ThreadedSession final : public Session {
 public:
  ThreadedSession(Program stem, std::vector<Program> branches, std::shared_ptr<const void> owner,
                  const SessionOptions& options, Threading threading)  // of the branches
      : owner_(std::move(owner)),
        threads_(count_threads(options.threads, branches.size())),
        spin_(options.spin_us),
        margin_ms_(options.return_margin_us / 1e3),
        cores_(options.placement, threads_, allowed_cores()),
        stem_threading_(may_split(threads_, stem.part) ? Threading::pool : threading),
        stem_(stem, "stem", stem_threading_),
        input_size_(elements(stem.part.input_shape)),
        num_outputs_(elements(branches[0].part.output_shape)),
        threading_(branches.size() == 1 && may_split(threads_, branches[0].part) ? Threading::pool : threading),
        by_cost_(largest_first(branches)),
        stop_rules_(options.early_stop),
        controller_(macs_of(branches), options.latency) {
    if (stem_threading_ != threading_) stem_alone_.emplace(stem, "stem", threading_);
    for (const Program& branch : branches) {
      parts_.push_back(std::make_unique<LoadedPart>(branch, branch_name(branch.part.index), threading_));
      indexes_.push_back(branch.part.index);
    }
    busy_.resize(parts_.size());
    // Late workers hold one slot each, so one more is always free.
    slots_.resize(static_cast<size_t>(threads_) + 1);
    for (Request& slot : slots_) {
      slot.tokens.resize(elements(stem.part.output_shape));
      slot.outputs.resize(parts_.size() * num_outputs_);
      slot.tasks.resize(parts_.size());
      slot.prefix_sum.resize(num_outputs_);
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

  double mandatory_ms() const override {
    std::lock_guard lock(mutex_);
    return controller_.mandatory_ms();
  }

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

  // The stem, and a branch that is the only one, run while the workers have nothing to do, so ExecuTorch's pool
  // may help: as long as that does not make it more threads than were asked for, and the part is large enough to
  // pay for waking them.
  static bool may_split(int threads, const Part& part) {
    return threads > 1 && pool_threads() <= threads && part.macs >= kMacsWorthSplitting;
  }

  // A branch that is late from the request before has a core: the pool would wait for its thread there.
  std::string run_stem(std::span<const float> input, Request& request) {
    const bool alone = stem_alone_ && any_late();
    return with_threading(alone ? Threading::one : stem_threading_,
                          [&] { return (alone ? *stem_alone_ : stem_).run(input.data(), request.tokens); });
  }

  bool any_late() {
    std::lock_guard lock(mutex_);
    return std::find(busy_.begin(), busy_.end(), true) != busy_.end();
  }

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
    request.leave = std::min(options.deadline, options.leave);
    request.in_order = hurried(request) || options.early_stop || options.on_answer;
    request.policy = options.policy;
    request.early_stop = options.early_stop;
    request.count = count;
    const std::string problem = run_stem(input, request);
    if (!problem.empty()) throw Refusal(ErrorCode::engine, "executorch failed while running stem: " + problem);
    if (!all_finite(request.tokens)) {
      throw Refusal(ErrorCode::engine,
                    "the stem's output is not finite; 'paraedge verify' checks the bundle on this device");
    }
    request.stem_end = Clock::now();
    const Claim first = publish(request);
    const int helpers = static_cast<int>(std::min(count, static_cast<size_t>(threads_))) - 1;
    if (helpers > 0 && has_more(request)) {
      cores_.move_away_from(current_core(), workers_);
      for (int worker = 1; worker <= helpers; ++worker) pool_->wake(worker);
    }
    run_part(first);
    // Inside another branch the caller could neither return at the deadline nor hand out an answer.
    if (!hurried(request) && !options.on_answer) {
      drain(0);
    } else if (has_more(request)) {
      pool_->wake(0);
    }
    wait(request, options);
    return collect(request);
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
    if (options.early_stop && stop_rules_.size() != parts_.size()) {
      throw Refusal(ErrorCode::input, "early_stop needs a rule for each of the " + std::to_string(branches()) +
                                          " branches, there are " + std::to_string(stop_rules_.size()) +
                                          "; load all branches of a bundle that was calibrated at export");
    }
    return static_cast<size_t>(count);
  }

  Request& free_slot() {
    std::lock_guard lock(mutex_);
    return *std::find_if(slots_.begin(), slots_.end(), [](const Request& slot) { return slot.users == 0; });
  }

  static bool hurried(const Request& request) { return request.leave != Clock::time_point::max(); }

  // Opens the branches to the workers, all but the one that the caller takes. In a request that may leave
  // branches out that is the first: it has to be waited for in any case, and so no late worker ever has it
  // when the next request wants it.
  Claim publish(Request& request) {
    constexpr float never = std::numeric_limits<float>::quiet_NaN();
    for (size_t place = 0; place < parts_.size(); ++place) {
      Task& task = request.tasks[place];
      task.step = place < request.count ? Step::waiting : Step::ended;
      task.run = {indexes_[place], BranchState::late, -1, 0, 0, never, never, ""};
    }
    request.judged = 0;
    request.cut_short = false;
    request.last_end = request.stem_end;
    std::lock_guard lock(mutex_);
    controller_.observe(0, 1, milliseconds(request.stem_end - request.started));
    request.open = true;
    unfinished_ = request.count;
    used_ = running_ = 0;
    current_ = &request;
    return claim(request, request.in_order ? 0 : *waiting(request), 0);
  }

  // The next branch in order that has not begun, no late worker has, and `wanted` agrees to.
  template <class Wanted>
  std::optional<size_t> waiting(const Request& request, Wanted&& wanted) const {  // with mutex_ held
    for (size_t i = 0; i < parts_.size(); ++i) {
      const size_t place = request.in_order ? i : by_cost_[i];
      if (request.tasks[place].step == Step::waiting && !busy_[place] && wanted(place)) return place;
    }
    return std::nullopt;
  }
  std::optional<size_t> waiting(const Request& request) const {
    return waiting(request, [](size_t) { return true; });
  }

  Claim claim(Request& request, size_t place, int thread) {  // with mutex_ held
    Task& task = request.tasks[place];
    busy_[place] = true;
    ++request.users;
    ++running_;
    task.step = Step::running;
    task.busy = static_cast<int>(std::count(busy_.begin(), busy_.end(), true));
    task.run.thread = thread;
    task.start = Clock::now();
    task.run.start_ms = since(request, task.start);
    return {&request, place};
  }

  // The next part that may run now. Called at every completion, so every decision is made anew.
  std::optional<Claim> take(int thread) {
    std::lock_guard lock(mutex_);
    if (current_ == nullptr || !current_->open) return std::nullopt;
    const auto place = admitted(*current_);
    return place ? std::optional(claim(*current_, *place, thread)) : std::nullopt;
  }

  // Whether a worker that is woken now would find something to do.
  bool has_more(Request& request) {
    std::lock_guard lock(mutex_);
    return request.open && admitted(request);
  }

  std::optional<size_t> admitted(Request& request) {  // with mutex_ held
    const Clock::time_point now = Clock::now();
    const auto place = waiting(request, [&](size_t candidate) { return admits(request, candidate, now); });
    if (place || running_ > 0) return place;
    for (size_t candidate = 0; candidate < request.count; ++candidate) {  // held by the worker that is late in it
      if (request.tasks[candidate].step == Step::waiting && busy_[candidate]) return std::nullopt;
    }
    drop_waiting(request, BranchState::would_not_fit);  // nothing will end any more that could change it
    return std::nullopt;
  }

  bool admits(Request& request, size_t place, Clock::time_point now) {  // with mutex_ held
    if (!hurried(request)) return true;
    if (used_ == 0 && running_ == 0) return true;  // the first branch failed: there is no answer yet
    const double left_ms = milliseconds(return_time(request) - now);
    if (request.policy == Policy::all) return left_ms > 0;
    const auto busy = static_cast<int>(std::count(busy_.begin(), busy_.end(), true)) + 1;
    const double predicted_ms = controller_.predicted_ms(place + 1, busy);
    request.tasks[place].run.predicted_ms = static_cast<float>(predicted_ms);
    request.tasks[place].run.left_ms = static_cast<float>(left_ms);
    return predicted_ms <= left_ms;  // not so when nothing is known
  }

  Clock::time_point return_time(const Request& request) const {  // with mutex_ held
    const duration<double, std::milli> margin(controller_.margin_ms(margin_ms_));
    return request.leave - std::chrono::duration_cast<Clock::duration>(margin);
  }

  void drop_waiting(Request& request, BranchState state) {  // with mutex_ held
    for (size_t place = 0; place < request.count; ++place) {
      Task& task = request.tasks[place];
      if (task.step != Step::waiting) continue;
      task.step = Step::ended;
      task.run.state = state;
      end_one();
    }
  }

  void run_part(const Claim& taken) {
    Request& request = *taken.request;
    const size_t place = taken.place;
    const std::span<float> row(request.outputs.data() + place * num_outputs_, num_outputs_);
    std::string problem =
        with_threading(threading_, [&] { return parts_[place]->run(request.tokens.data(), row); });
    const Clock::time_point end = Clock::now();
    const bool finite = problem.empty() && all_finite(row);

    std::lock_guard lock(mutex_);
    busy_[place] = false;
    --request.users;
    if (!request.open) return;  // late: the answer was given without it
    Task& task = request.tasks[place];
    if (problem.empty()) controller_.observe(place + 1, task.busy, milliseconds(end - task.start));
    task.step = Step::ended;
    task.run.end_ms = since(request, end);
    task.run.state = !problem.empty() ? BranchState::failed : finite ? BranchState::used : BranchState::not_finite;
    task.run.problem = std::move(problem);
    used_ += task.run.state == BranchState::used;
    --running_;
    request.last_end = end;
    if (request.early_stop && enough(request)) request.open = false;
    end_one();
  }

  // Adds what has ended to the prefix, and says whether its confidence is enough.
  bool enough(Request& request) {  // with mutex_ held
    while (request.judged < request.count && is_used(request.tasks[request.judged])) {
      const float* row = request.outputs.data() + request.judged * num_outputs_;
      for (size_t c = 0; c < num_outputs_; ++c) {
        request.prefix_sum[c] = request.judged ? request.prefix_sum[c] + row[c] : row[c];
      }
      const StopRule& rule = stop_rules_[request.judged++];
      if (request.judged == request.count || rule.threshold > 1) continue;
      if (confidence_of(request.prefix_sum, rule.temperature) < rule.threshold) continue;
      // The rule was calibrated for exactly this prefix, so that is the answer.
      for (size_t place = request.judged; place < request.count; ++place) {
        request.tasks[place].run.state = BranchState::not_needed;
      }
      unfinished_ = 1;  // the branch whose end this is
      return true;
    }
    return false;
  }

  static bool is_used(const Task& task) { return task.step == Step::ended && task.run.state == BranchState::used; }

  void end_one() {  // with mutex_ held
    if (unfinished_.fetch_sub(1) == 1 || waiting_for_any_) ended_.notify_one();
  }

  void drain(int thread) {
    while (const auto claim = take(thread)) run_part(*claim);
  }

  // Until every branch has ended, or it is enough; when it is time to return, until there is an answer at
  // all. Then closes the request.
  void wait(Request& request, const RunOptions& options) {
    auto all_ended = [this] { return unfinished_.load() == 0; };
    const bool waits = hurried(request) && !all_ended();
    Clock::time_point until = Clock::time_point::max();
    std::unique_lock lock(mutex_);
    if (waits) until = return_time(request);
    if (!options.on_answer) {
      lock.unlock();
      spin_until([&] { return all_ended() || Clock::now() >= until; }, spin_);
      lock.lock();
    }
    try {
      wait_locked(request, options, until, lock);
    } catch (...) {  // from on_answer
      if (!lock.owns_lock()) lock.lock();
      close(request);
      throw;
    }
    if (hurried(request) && !options.on_answer && request.count > 1) {
      const auto due = all_ended() ? std::min(request.last_end, until) : until;
      if (!waits) {
        controller_.did_not_wait();
      } else if (all_ended() || request.cut_short) {
        controller_.returned(milliseconds(Clock::now() - due));
      }
    }
    close(request);
  }

  void wait_locked(Request& request, const RunOptions& options, Clock::time_point until,
                   std::unique_lock<std::mutex>& lock) {
    waiting_for_any_ = static_cast<bool>(options.on_answer);
    size_t told = 0;  // branches in the answer that was handed out last
    auto all_ended = [this] { return unfinished_.load() == 0; };
    auto news = [&] { return all_ended() || (options.on_answer && used_ > told); };
    while (true) {
      if (until == Clock::time_point::max()) {
        ended_.wait(lock, news);
      } else if (!ended_.wait_until(lock, until - spin_, news)) {
        lock.unlock();  // a sleeping thread wakes late: the last bit is spent awake
        while (!all_ended() && Clock::now() < until) relax();
        lock.lock();
        request.cut_short = used_ > 0 && !all_ended();
        waiting_for_any_ = true;
        ended_.wait(lock, [&] { return all_ended() || used_ > 0; });
        return;
      }
      if (all_ended()) return;
      told = used_;
      const Prediction so_far = collect(request);
      lock.unlock();
      const bool go_on = options.on_answer(so_far);
      lock.lock();
      if (go_on) continue;
      for (size_t place = 0; place < request.count; ++place) {
        if (request.tasks[place].step != Step::ended) request.tasks[place].run.state = BranchState::not_needed;
      }
      return;
    }
  }

  void close(Request& request) {  // with mutex_ held
    const Clock::time_point now = Clock::now();
    for (size_t place = 0; place < request.count; ++place) {
      Task& task = request.tasks[place];
      if (task.step == Step::running) {
        controller_.outlasted(place + 1, task.busy, milliseconds(now - task.start));
      } else if (task.step == Step::waiting && task.run.state == BranchState::late && !std::isnan(task.run.left_ms)) {
        task.run.state = BranchState::would_not_fit;  // it was decided on, and nothing ended since
      }
    }
    waiting_for_any_ = false;
    request.open = false;
    current_ = nullptr;
  }

  static float since(const Request& request, Clock::time_point time) {
    return static_cast<float>(milliseconds(time - request.started));
  }

  Prediction collect(const Request& request) const {  // with mutex_ held, or the request closed
    Prediction prediction{};
    const size_t count = request.count;
    prediction.output.resize(num_outputs_);
    prediction.branch_outputs.resize(count * num_outputs_);
    prediction.branches.reserve(count);
    bool any = false;
    std::string causes;
    for (size_t place = 0; place < count; ++place) {
      const Task& task = request.tasks[place];
      prediction.branches.push_back(task.run);
      if (is_used(task)) {
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
    prediction.confidence = static_cast<float>(confidence_of(prediction.output, 1));
    prediction.stem_ms = since(request, request.stem_end);
    prediction.requests_to_learn = controller_.requests_to_learn();
    const Clock::time_point now = Clock::now();
    prediction.elapsed_ms = since(request, now);
    prediction.deadline_met = now <= request.deadline;
    prediction.cut_short = request.cut_short;
    return prediction;
  }

  const std::shared_ptr<const void> owner_;
  const int threads_;
  const microseconds spin_;
  const double margin_ms_;
  WorkerCores cores_;
  const Threading stem_threading_;
  LoadedPart stem_;
  std::optional<LoadedPart> stem_alone_;  // the same on one thread, if `stem_` is on the pool's and branches are not
  std::vector<std::unique_ptr<LoadedPart>> parts_;
  std::vector<int> indexes_;
  const size_t input_size_, num_outputs_;
  const Threading threading_;
  const std::vector<size_t> by_cost_;
  const std::vector<StopRule> stop_rules_;

  std::mutex call_mutex_;  // one request at a time
  mutable std::mutex mutex_;  // everything below
  std::condition_variable ended_;
  std::vector<Request> slots_;
  std::vector<char> busy_;  // per branch: a thread is inside
  Controller controller_;
  Request* current_ = nullptr;
  size_t used_ = 0, running_ = 0;  // branches of the current request
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
  SessionOptions complete = options;
  if (complete.early_stop.empty() && loaded == manifest.branches.size()) complete.early_stop = manifest.stop_rules;
  return open_session(std::move(stem), std::move(branches), bundle, complete, threading);
}

Result<std::unique_ptr<Session>> Session::open(std::shared_ptr<const Bundle> bundle, const SessionOptions& options) {
  return open_session(std::move(bundle), options, Threading::one);
}

Result<std::unique_ptr<Session>> Session::open(Program stem, std::vector<Program> branches,
                                               std::shared_ptr<const void> owner, const SessionOptions& options) {
  return open_session(std::move(stem), std::move(branches), std::move(owner), options, Threading::one);
}

}  // namespace paraedge
