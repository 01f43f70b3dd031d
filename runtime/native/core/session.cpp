// A session: who takes which branch, the deadline, and when it is enough. The one scheduler of paraedge.
//
// One part runs on at most one thread at a time: a branch that is still late is left for the worker that has it.
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>

#include "arrivals.h"
#include "controller.h"
#include "engine.h"
#include "placement.h"
#include "pool.h"
#include "queue.h"
#include "refusal.h"
#include "request.h"
#include "runtime.h"
#include "shape.h"

namespace paraedge {
namespace {

using std::chrono::duration;
using std::chrono::microseconds;

// On two x86 cores ExecuTorch's pool made a stem of 4.8 million multiply-adds a third slower, one of 56
// million almost twice as fast.
constexpr int64_t kMacsWorthSplitting = 10'000'000;
// How often a caller that waits asks whether it was cancelled.
constexpr std::chrono::milliseconds kPollInterval(20);

// Grows in the child of every fork: threads and whatever they held are gone there.
std::atomic<unsigned> forks{0};

unsigned count_forks() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1); });
  return registered == 0 ? forks.load() : 0;
}

struct Claim {  // a part that a thread has taken and now has to run
  Request* request;
  size_t position;
};

// Positions by cost, the largest first: started in this order, branches of unequal size end at about the same time.
std::vector<size_t> largest_first(const std::vector<double>& costs) {
  std::vector<size_t> positions(costs.size());
  std::iota(positions.begin(), positions.end(), size_t{0});
  std::stable_sort(positions.begin(), positions.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  return positions;
}

std::string in_ms(double ms) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f ms", ms);
  return text;
}

std::vector<double> macs_of(const std::vector<Program>& branches) {
  std::vector<double> macs;
  for (const Program& branch : branches) macs.push_back(static_cast<double>(branch.part.macs));
  return macs;
}

// Threads that a part may use when it runs alone: those of the engine's own pool, unless that makes it more threads
// than were asked for, or the part is too small to pay for waking them.
int threads_alone(const pe_engine& engine, int threads, const Part& part) {
  if (threads == 1 || !engine.pool_threads || part.macs < kMacsWorthSplitting) return 1;
  const int pool = engine.pool_threads(engine.context);
  return pool <= threads ? pool : 1;
}

int count_threads(const pe_engine& engine, int wanted, size_t branches) {
  if (engine.sequential) return 1;  // more would only wait for each other
  const int cores = static_cast<int>(allowed_cores().size());
  return std::max(1, std::min(static_cast<int>(branches), wanted > 0 ? wanted : cores));
}

class Scheduler;

// While it lives, this thread runs a request or a branch of a session: called from there, that one would wait for itself.
class Inside {
 public:
  explicit Inside(const Scheduler& scheduler) : scheduler_(scheduler), outer_(innermost_) { innermost_ = this; }
  ~Inside() { innermost_ = outer_; }
  Inside(const Inside&) = delete;

  static bool is(const Scheduler& scheduler) {
    const Inside* found = innermost_;
    while (found && &found->scheduler_ != &scheduler) found = found->outer_;
    return found;
  }

 private:
  static thread_local const Inside* innermost_;
  const Scheduler& scheduler_;
  const Inside* const outer_;
};

thread_local const Inside* Inside::innermost_ = nullptr;

class Scheduler {
 public:
  Scheduler(const pe_engine& engine, const Program& stem, const std::vector<Program>& branches,
            std::shared_ptr<const void> owner, SessionOptions options)
      : owner_(std::move(owner)),
        options_(std::move(options)),
        threads_(count_threads(engine, options_.threads, branches.size())),
        spin_(options_.spin_us),
        cores_(options_.placement, threads_, allowed_cores()),
        input_size_(elements(stem.part.input_shape)),
        num_outputs_(elements(branches[0].part.output_shape)),
        by_cost_(largest_first(macs_of(branches))),
        controller_(macs_of(branches), options_.latency) {
    load(engine, stem, branches);
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
    pool_.emplace(threads_, spin_, engine, [this](int worker) {
      const Inside inside(*this);
      drain(worker == 0 ? threads_ : worker);
    });
    for (int worker = 1; worker < threads_; ++worker) workers_.push_back(&pool_->thread(worker));
  }

  ~Scheduler() {
    {
      std::unique_lock lock(mutex_);
      finished_.wait(lock, [&] { return callers_ == 0; });
      cancel_late();
    }
    pool_.reset();  // waits for late branches; then the parts may go
  }

  int threads() const { return threads_; }
  int branches() const { return static_cast<int>(parts_.size()); }

  double mandatory_ms() const {
    std::lock_guard lock(mutex_);
    return controller_.mandatory_ms();
  }

  Prediction run(std::span<const float> input, const RunOptions& options) {
    if (is_inside()) {
      throw Refusal(ErrorCode::engine, "the session was called from a request of its own, which it would wait for; call it "
                                       "when that request has returned, or open a second session");
    }
    const Inside inside(*this);
    check(input);
    const std::vector<size_t> positions = choose(options);
    const Turn turn(*this, options, positions.front());
    Request& request = free_slot();
    prepare(request, positions, options);
    run_stem(input, request);
    const Claim first = publish(request, options);
    const int helpers = static_cast<int>(std::min(request.positions.size(), static_cast<size_t>(threads_))) - 1;
    if (helpers > 0 && has_more(request)) {
      cores_.move_away_from(current_core(), workers_);
      for (int worker = 1; worker <= helpers; ++worker) pool_->wake(worker);
    }
    run_part(first);
    // Inside another branch the caller could neither return at the deadline nor hand out a prediction.
    if (!request.has_deadline() && !options.on_prediction) {
      drain_as_caller(request, options);
    } else if (has_more(request)) {
      pool_->wake(0);
    }
    return wait(request, options);
  }

  bool is_inside() const { return Inside::is(*this); }

  bool settle(Clock::duration patience) {
    const Clock::time_point until = Clock::now() + (is_inside() ? Clock::duration() : patience);
    std::unique_lock lock(mutex_);
    ending_ = true;
    if (current_) {  // its caller may wait for branches that nobody starts any more
      current_->cancelled = true;
      close(*current_);
      unfinished_ = 0;
    }
    cancel_late();
    queue_.call_all();
    finished_.notify_all();
    return finished_.wait_until(lock, until, [&] { return count_busy() == 0 && callers_ == 0; });
  }

  void hand_over(Prediction& prediction, Clock::duration later) {
    const Clock::time_point now = Clock::now() + later;
    prediction.deadline_met = now <= prediction.deadline;
    if (prediction.wait == Wait::none) return;
    std::lock_guard lock(mutex_);
    if (prediction.wait == Wait::skipped) {
      controller_.did_not_wait();
    } else {
      controller_.returned(milliseconds(now - prediction.due));
    }
  }

 private:
  // The one request that runs; made once those with earlier deadlines have run. None comes in once the session has to end.
  class Turn {
   public:
    Turn(Scheduler& scheduler, const RunOptions& options, size_t first) : scheduler_(scheduler) {
      scheduler_.wait_for_turn(options, first);
    }
    ~Turn() {
      std::lock_guard lock(scheduler_.mutex_);
      scheduler_.pass_turn_on();
      scheduler_.count_out();
    }
    Turn(const Turn&) = delete;

   private:
    Scheduler& scheduler_;
  };

  // Throws Refusal: the session ends, the caller has cancelled the request, or it is dropped.
  void wait_for_turn(const RunOptions& options, size_t first) {
    std::unique_lock lock(mutex_);
    refuse_if_ending();
    const Clock::time_point now = Clock::now();
    note_arrival(now, options.deadline);
    Waiter waiter(now, options.deadline);
    ++callers_;
    if (has_turn_) {
      queue_.add(waiter);
    } else {
      give_turn(waiter);
    }
    try {
      queue_up(lock, waiter, options, first);
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (waiter.has_turn) {
        pass_turn_on();
      } else {
        queue_.remove(waiter);
      }
      count_out();
      throw;
    }
  }

  void queue_up(std::unique_lock<std::mutex>& lock, Waiter& waiter, const RunOptions& options, size_t first) {
    while (true) {
      refuse_if_ending();
      const Clock::time_point latest = options.on_overload == Overload::drop ? latest_start(waiter, options, first)
                                                                              : Clock::time_point::max();
      if (waiter.has_turn) return;
      const Clock::time_point poll = options.cancelled ? Clock::now() + kPollInterval : Clock::time_point::max();
      const Clock::time_point until = std::min(latest, poll);
      if (until == Clock::time_point::max()) {
        waiter.called.wait(lock);
      } else if (waiter.called.wait_until(lock, until) == std::cv_status::timeout && until == poll) {
        lock.unlock();
        const bool cancelled = options.cancelled();
        lock.lock();
        if (cancelled) throw Refusal(ErrorCode::cancelled, "the request was cancelled");
      }
    }
  }

  // When a request that waits has to have its turn. Throws Refusal (dropped): it will not.
  Clock::time_point latest_start(const Waiter& waiter, const RunOptions& options, size_t first) {  // with mutex_ held
    const double own_ms = controller_.expected_ms(0) + controller_.expected_ms(first + 1);
    double others_ms = 0, rest_ms = 0;  // those before it take their first predictions only; of the one that runs, the rest
    if (!waiter.has_turn) {
      const double mandatory_ms = controller_.expected_ms(0) + controller_.expected_ms(1);
      others_ms = mandatory_ms * static_cast<double>(queue_.ahead_of(waiter));
      rest_ms = std::max(0.0, mandatory_ms - milliseconds(Clock::now() - turn_began_));
    }
    drop_if_hopeless(options, own_ms, others_ms + rest_ms);
    const double needed_ms = own_ms + others_ms;
    if (std::isnan(needed_ms)) return options.deadline;
    return options.deadline - std::chrono::duration_cast<Clock::duration>(duration<double, std::milli>(needed_ms));
  }

  // NaN: not known yet, and what is not known drops nothing.
  void drop_if_hopeless(const RunOptions& options, double own_ms, double others_ms) {  // with mutex_ held
    if (options.on_overload != Overload::drop) return;
    const double left_ms = milliseconds(options.deadline - Clock::now());
    if (left_ms > 0 && !(own_ms + others_ms > left_ms)) return;
    controller_.refused();
    std::string problem = "the request was dropped: ";
    if (!std::isnan(own_ms)) problem += "its first prediction takes " + in_ms(own_ms) + ", ";
    if (others_ms > 0) problem += "those of the requests before it " + in_ms(others_ms) + ", ";
    problem += left_ms > 0 ? in_ms(left_ms) + " are left before its deadline" : "its deadline passed " + in_ms(-left_ms) + " ago";
    throw Refusal(ErrorCode::dropped, problem + "; give it more time, or let requests run late instead of dropping them");
  }

  void give_turn(Waiter& waiter) {  // with mutex_ held
    has_turn_ = waiter.has_turn = true;
    turn_began_ = Clock::now();
  }

  void pass_turn_on() {  // with mutex_ held
    has_turn_ = false;
    Waiter* const next = queue_.take();
    if (!next) return;
    give_turn(*next);
    next->called.notify_one();
  }

  void count_out() {  // with mutex_ held
    if (--callers_ == 0) finished_.notify_all();
  }

  void refuse_if_ending() const {  // with mutex_ held
    if (ending_) throw Refusal(ErrorCode::cancelled, "this session is being closed, or the process ends; open a new one");
  }

  void load(const pe_engine& engine, const Program& stem, const std::vector<Program>& branches) {
    const int whole = engine.pool_threads && options_.split_branches ? engine.pool_threads(engine.context) : 1;
    const int branch_threads =
        branches.size() == 1 ? std::max(whole, threads_alone(engine, threads_, branches[0].part)) : whole;
    const int stem_threads = std::max(whole, threads_alone(engine, threads_, stem.part));
    stem_ = std::make_unique<LoadedPart>(engine, stem, "stem", stem_threads);
    if (stem_threads > 1 && branch_threads == 1) stem_alone_ = std::make_unique<LoadedPart>(engine, stem, "stem", 1);
    for (const Program& branch : branches) {
      parts_.push_back(std::make_unique<LoadedPart>(engine, branch, branch_name(branch.part.index), branch_threads));
      indexes_.push_back(branch.part.index);
    }
  }

  void check(std::span<const float> input) const {
    if (input.size() != input_size_) {
      throw Refusal(ErrorCode::input, "the input has " + std::to_string(input.size()) + " values, this bundle reads " +
                                          std::to_string(input_size_));
    }
    if (!all_finite(input)) throw Refusal(ErrorCode::input, "the input has values that are not finite");
  }

  Request& free_slot() {
    std::lock_guard lock(mutex_);
    return *std::find_if(slots_.begin(), slots_.end(), [](const Request& slot) { return slot.users == 0; });
  }

  void prepare(Request& request, const std::vector<size_t>& positions, const RunOptions& options) {
    request.positions = positions;
    if (options.early_stop && options_.stop_rules.size() != parts_.size()) {
      throw Refusal(ErrorCode::input, "early stop needs a rule for each of the " + std::to_string(branches()) +
                                          " branches, got " + std::to_string(options_.stop_rules.size()) +
                                          "; load all branches of a bundle that was calibrated at export");
    }
    if (options.early_stop && !request.is_prefix()) {
      throw Refusal(ErrorCode::input, "early stop is calibrated for the first branches; run those, or run without early stop");
    }
    request.started = Clock::now();
    request.deadline = options.deadline;
    request.leave = std::min(options.leave, time_to_leave(request.started, options));
    request.in_order = request.has_deadline() || options.early_stop || options.on_prediction;
    request.policy = options.policy;
    request.early_stop = options.early_stop;
    request.cancelled = false;
  }

  void note_arrival(Clock::time_point now, Clock::time_point deadline) {  // with mutex_ held
    if (deadline == Clock::time_point::max()) return arrivals_.came_without_deadline();
    // Who comes while another runs did not wait for its prediction.
    arrivals_.came(now, deadline, has_turn_ ? Clock::time_point() : ended_, controller_.mandatory_ms());
  }

  // The deadline, or earlier where others wait or may come meanwhile.
  Clock::time_point time_to_leave(Clock::time_point started, const RunOptions& options) {
    std::lock_guard lock(mutex_);
    const double mandatory_ms = controller_.mandatory_ms();
    if (options.deadline == Clock::time_point::max() || options.policy == Policy::all || std::isnan(mandatory_ms)) {
      return options.deadline;
    }
    return std::min(arrivals_.leave(options.deadline, mandatory_ms), queue_.leave(started, mandatory_ms));
  }

  // The positions of the branches asked for.
  std::vector<size_t> choose(const RunOptions& options) const {
    const int count = options.first_branches == 0 ? branches() : options.first_branches;
    if (count < 1 || count > branches()) {
      throw Refusal(ErrorCode::input, std::to_string(count) + " branches requested, " +
                                          std::to_string(branches()) + " available");
    }
    std::vector<size_t> positions(static_cast<size_t>(count));
    std::iota(positions.begin(), positions.end(), size_t{0});
    if (options.branches.empty()) return positions;
    positions.clear();
    for (const int index : options.branches) {
      const auto found = std::find(indexes_.begin(), indexes_.end(), index);
      const auto position = static_cast<size_t>(found - indexes_.begin());
      if (found == indexes_.end()) {
        throw Refusal(ErrorCode::input, "branch " + std::to_string(index) +
                                            " is not loaded in this session; choose one of the loaded branches");
      }
      if (!positions.empty() && position <= positions.back()) {
        std::string given;
        for (const int one : options.branches) given += (given.empty() ? "" : ", ") + std::to_string(one);
        throw Refusal(ErrorCode::input, "invalid branches [" + given + "]: give unique indices in ascending order");
      }
      positions.push_back(position);
    }
    return positions;
  }

  // A branch that is late from the request before has a core: the engine's pool would wait for its thread there.
  void run_stem(std::span<const float> input, Request& request) {
    const bool alone = stem_alone_ && any_late();
    const RunResult result = (alone ? *stem_alone_ : *stem_).run(input.data(), request.tokens.data());
    if (result.code == PE_ERROR_CANCELLED) throw Refusal(ErrorCode::cancelled, result.problem);
    if (result.code != PE_OK) {
      throw Refusal(ErrorCode::engine, result.problem + "; 'paraedge verify' checks the bundle on this device");
    }
    if (!all_finite(request.tokens)) {
      throw Refusal(ErrorCode::engine,
                    "the stem's output is not finite; 'paraedge verify' checks the bundle on this device");
    }
    request.stem_end = Clock::now();
  }

  bool any_late() {
    std::lock_guard lock(mutex_);
    return count_busy() > 0;
  }

  int count_busy() const { return static_cast<int>(std::count(busy_.begin(), busy_.end(), true)); }

  // Opens the branches to the workers, all but the one that the caller takes. In a request that may leave
  // branches out that is the first: it has to be waited for in any case.
  Claim publish(Request& request, const RunOptions& options) {
    request.begin(indexes_);
    std::unique_lock lock(mutex_);
    controller_.observe(0, 1, milliseconds(request.stem_end - request.started));
    // A worker that is late in the only branches asked for has to leave first.
    wants_every_end_ = true;
    sleep(lock, options, Clock::time_point::max(), [&] { return ending_ || waiting(request).has_value(); });
    wants_every_end_ = false;
    refuse_if_ending();
    drop_if_hopeless(options, controller_.expected_ms(request.positions.front() + 1), 0);
    if (!request.in_order) order_by_latency();
    request.open = true;
    unfinished_ = request.positions.size();
    used_ = running_ = 0;
    current_ = &request;
    return claim(request, *waiting(request), 0);
  }

  // Once, when the time of every branch is known: until then, by multiply-adds.
  void order_by_latency() {  // with mutex_ held
    if (is_by_latency_) return;
    std::vector<double> costs_ms;
    for (size_t position = 0; position < parts_.size(); ++position) {
      costs_ms.push_back(controller_.base_ms(position + 1));
      if (std::isnan(costs_ms.back())) return;
    }
    by_cost_ = largest_first(costs_ms);
    is_by_latency_ = true;
  }

  // The next branch in order that has not begun, no late worker has, and `wanted` agrees to.
  template <class Wanted>
  std::optional<size_t> waiting(const Request& request, Wanted&& wanted) const {  // with mutex_ held
    for (const size_t position : request.in_order ? request.positions : by_cost_) {
      if (request.tasks[position].step == Step::waiting && !busy_[position] && wanted(position)) return position;
    }
    return std::nullopt;
  }
  std::optional<size_t> waiting(const Request& request) const {
    return waiting(request, [](size_t) { return true; });
  }

  Claim claim(Request& request, size_t position, int thread) {  // with mutex_ held
    Task& task = request.tasks[position];
    busy_[position] = true;
    ++request.users;
    ++running_;
    task.step = Step::running;
    task.busy = count_busy();
    task.run.thread = thread;
    task.start = Clock::now();
    task.run.start_ms = request.since_start(task.start);
    return {&request, position};
  }

  // The next part that may run now. Called at every completion, so every decision is made anew.
  std::optional<Claim> take(int thread) {
    std::lock_guard lock(mutex_);
    if (current_ == nullptr || !current_->open) return std::nullopt;
    const auto position = admitted(*current_);
    return position ? std::optional(claim(*current_, *position, thread)) : std::nullopt;
  }

  // Whether a worker that is woken now would find something to do.
  bool has_more(Request& request) {
    std::lock_guard lock(mutex_);
    return request.open && admitted(request);
  }

  std::optional<size_t> admitted(Request& request) {  // with mutex_ held
    const Clock::time_point now = Clock::now();
    const auto position = waiting(request, [&](size_t candidate) { return admits(request, candidate, now); });
    if (position || running_ > 0) return position;
    for (const size_t candidate : request.positions) {  // held by the worker that is late in it
      if (request.tasks[candidate].step == Step::waiting && busy_[candidate]) return std::nullopt;
    }
    drop_waiting(request, BranchState::would_not_fit);  // nothing will finish any more that could change it
    return std::nullopt;
  }

  bool admits(Request& request, size_t position, Clock::time_point now) {  // with mutex_ held
    if (!request.has_deadline()) return true;
    if (used_ == 0 && running_ == 0) return true;  // the first branch failed: there is no prediction yet
    const double left_ms = milliseconds(return_time(request) - now);
    if (request.policy == Policy::all) return left_ms > 0;
    const double predicted_ms = controller_.predicted_ms(position + 1, count_busy() + 1);
    request.tasks[position].run.predicted_ms = static_cast<float>(predicted_ms);
    request.tasks[position].run.left_ms = static_cast<float>(left_ms);
    return predicted_ms <= left_ms;  // not so when nothing is known
  }

  Clock::time_point return_time(const Request& request) const {  // with mutex_ held
    const duration<double, std::milli> margin(controller_.margin_ms(options_.return_margin_us / 1e3));
    return request.leave - std::chrono::duration_cast<Clock::duration>(margin);
  }

  void drop_waiting(Request& request, BranchState state) {  // with mutex_ held
    for (const size_t position : request.positions) {
      Task& task = request.tasks[position];
      if (task.step != Step::waiting) continue;
      task.step = Step::finished;
      task.run.state = state;
      finish_one();
    }
  }

  void run_part(const Claim& taken) {
    Request& request = *taken.request;
    const size_t position = taken.position;
    const std::span<float> row = request.row(position);
    RunResult result = parts_[position]->run(request.tokens.data(), row.data());
    const Clock::time_point end = Clock::now();
    const bool finite = result.code == PE_OK && all_finite(row);

    std::lock_guard lock(mutex_);
    busy_[position] = false;
    --request.users;
    if (!request.open) {  // late: the prediction was made without it
      if (wants_every_end_ || ending_) finished_.notify_all();
      return;
    }
    Task& task = request.tasks[position];
    if (result.code == PE_OK) controller_.observe(position + 1, task.busy, milliseconds(end - task.start));
    if (result.code == PE_ERROR_CANCELLED && task.run.thread == 0) request.cancelled = true;
    task.step = Step::finished;
    task.run.end_ms = request.since_start(end);
    task.run.state = result.code != PE_OK ? BranchState::failed : finite ? BranchState::used : BranchState::not_finite;
    task.run.problem = std::move(result.problem);
    used_ += task.run.state == BranchState::used;
    --running_;
    request.last_end = end;
    if (request.cancelled || (request.early_stop && request.is_enough(options_.stop_rules))) {
      request.open = false;
      unfinished_ = 1;  // the branch whose end this is
    }
    finish_one();
  }

  void finish_one() {  // with mutex_ held
    if (unfinished_.fetch_sub(1) == 1 || wants_every_end_) finished_.notify_all();
  }

  void drain(int thread) {
    while (const auto claim = take(thread)) run_part(*claim);
  }

  void drain_as_caller(Request& request, const RunOptions& options) {
    Clock::time_point polled = Clock::now();
    while (const auto claim = take(0)) {
      run_part(*claim);
      if (!options.cancelled || Clock::now() - polled < kPollInterval) continue;
      polled = Clock::now();
      if (options.cancelled()) {
        std::lock_guard lock(mutex_);
        request.cancelled = true;
        close(request);
        throw Refusal(ErrorCode::cancelled, "the request was cancelled");
      }
    }
  }

  bool all_finished() const { return unfinished_.load() == 0; }

  // Until every branch has finished, or it is enough; when it is time to return, until there is a prediction at
  // all. Then closes the request.
  Prediction wait(Request& request, const RunOptions& options) {
    const bool waits = !all_finished();
    Clock::time_point until = Clock::time_point::max();
    std::unique_lock lock(mutex_);
    if (waits && request.has_deadline()) until = return_time(request);
    if (!options.on_prediction) {
      lock.unlock();
      spin_until([&] { return all_finished() || Clock::now() >= until; }, spin_);
      lock.lock();
    }
    try {
      wait_locked(request, options, until, lock);
    } catch (...) {  // from on_prediction, or cancelled
      if (!lock.owns_lock()) lock.lock();
      close(request);
      throw;
    }
    const Clock::time_point due = all_finished() ? std::min(request.last_end, until) : until;
    const bool learns = request.has_deadline() && !options.on_prediction && request.positions.size() > 1;
    const bool waited = waits && (all_finished() || request.cut_short);
    close(request);
    ended_ = Clock::now();
    refuse_if_ending();
    const bool cancelled = request.cancelled;
    lock.unlock();
    if (cancelled) throw Refusal(ErrorCode::cancelled, "the request was cancelled");
    Prediction prediction = collect(request);
    if (learns && (waited || !waits)) prediction.wait = waited ? Wait::waited : Wait::skipped;
    prediction.due = due;
    return prediction;
  }

  void wait_locked(Request& request, const RunOptions& options, Clock::time_point until,
                   std::unique_lock<std::mutex>& lock) {
    wants_every_end_ = static_cast<bool>(options.on_prediction);
    size_t told = 0;  // branches in the prediction that was handed out last
    auto news = [&] { return all_finished() || (options.on_prediction && used_ > told); };
    while (true) {
      if (!sleep(lock, options, until, news)) {
        lock.unlock();  // a sleeping thread wakes late: the last bit is spent awake
        while (!all_finished() && Clock::now() < until) relax();
        lock.lock();
        request.cut_short = used_ > 0 && !all_finished();
        wants_every_end_ = true;
        sleep(lock, options, Clock::time_point::max(), [&] { return all_finished() || used_ > 0; });
        return;
      }
      if (all_finished()) return;
      told = used_;
      const Prediction so_far = collect(request);
      lock.unlock();
      const bool go_on = options.on_prediction(so_far);
      lock.lock();
      if (go_on) continue;
      for (const size_t position : request.positions) {
        if (request.tasks[position].step != Step::finished) request.tasks[position].run.state = BranchState::not_needed;
      }
      return;
    }
  }

  // Waits for `news`, until the spin before `until`, and says whether they came. Throws Refusal: cancelled.
  template <class News>
  bool sleep(std::unique_lock<std::mutex>& lock, const RunOptions& options, Clock::time_point until, News&& news) {
    const bool forever = until == Clock::time_point::max();
    if (!options.cancelled) {
      if (!forever) return finished_.wait_until(lock, until - spin_, news);
      finished_.wait(lock, news);
      return true;
    }
    while (true) {
      const Clock::time_point poll = Clock::now() + kPollInterval;
      const bool last = !forever && until - spin_ <= poll;
      if (finished_.wait_until(lock, last ? until - spin_ : poll, news)) return true;
      if (last) return false;
      lock.unlock();
      const bool cancelled = options.cancelled();
      lock.lock();
      if (cancelled) throw Refusal(ErrorCode::cancelled, "the request was cancelled");
    }
  }

  void close(Request& request) {  // with mutex_ held
    const Clock::time_point now = Clock::now();
    for (const size_t position : request.positions) {
      Task& task = request.tasks[position];
      if (task.step == Step::running) {
        controller_.outlasted(position + 1, task.busy, milliseconds(now - task.start));
      } else if (task.step == Step::waiting && task.run.state == BranchState::late && !std::isnan(task.run.left_ms)) {
        task.run.state = BranchState::would_not_fit;  // it was decided on, and nothing finished since
      }
      if (task.run.state == BranchState::would_not_fit) controller_.dropped(position + 1);
    }
    wants_every_end_ = false;
    request.open = false;
    current_ = nullptr;
    cancel_late();
  }

  // So that the next request finds the cores of late branches free, where the engine can stop them.
  void cancel_late() {  // with mutex_ held
    for (size_t position = 0; position < busy_.size(); ++position) {
      if (busy_[position]) parts_[position]->cancel();
    }
  }

  Prediction collect(const Request& request) const {  // with mutex_ held, or the request closed
    Prediction prediction = request.collect(options_);
    prediction.requests_to_learn = controller_.requests_to_learn();
    return prediction;
  }

  const std::shared_ptr<const void> owner_;
  const SessionOptions options_;
  const int threads_;
  const microseconds spin_;
  WorkerCores cores_;
  std::unique_ptr<LoadedPart> stem_;
  std::unique_ptr<LoadedPart> stem_alone_;  // the same on one thread, if `stem_` is on the engine's pool and branches are not
  std::vector<std::unique_ptr<LoadedPart>> parts_;
  std::vector<int> indexes_;
  const size_t input_size_, num_outputs_;

  mutable std::mutex mutex_;  // everything below
  std::condition_variable finished_;
  std::vector<size_t> by_cost_;
  bool is_by_latency_ = false;  // `by_cost_`
  Queue queue_;
  bool has_turn_ = false;  // some request
  Clock::time_point turn_began_;
  std::vector<Request> slots_;
  std::vector<char> busy_;  // per branch: a thread is inside
  Controller controller_;
  Arrivals arrivals_;
  Clock::time_point ended_;  // the request before
  Request* current_ = nullptr;
  size_t used_ = 0, running_ = 0;  // branches of the current request
  std::atomic<size_t> unfinished_{0};  // written with mutex_ held, read without while spinning
  bool wants_every_end_ = false;
  bool ending_ = false;  // for good: see settle
  int callers_ = 0;      // threads in `run`, those that wait included

  std::vector<std::thread*> workers_;
  std::optional<Pool> pool_;  // last: its threads use all of the above
};

// A scheduler, as long as this is the process that it was made in.
class ThreadedSession final : public Session {
 public:
  explicit ThreadedSession(std::unique_ptr<Scheduler> scheduler)
      : forks_(count_forks()), scheduler_(std::move(scheduler)) {}

  ~ThreadedSession() override {
    // In a forked child its threads do not exist and its mutexes may be locked: it can only be left alone.
    if (is_forked()) static_cast<void>(scheduler_.release());
  }

  int threads() const override { return scheduler_->threads(); }
  int branches() const override { return scheduler_->branches(); }
  double mandatory_ms() const override {
    return is_forked() ? std::numeric_limits<double>::quiet_NaN() : scheduler_->mandatory_ms();
  }

  Result<Prediction> run(std::span<const float> input, const RunOptions& options) override {
    if (is_forked()) {
      return Error{ErrorCode::engine, "this session was opened before a fork, and its threads are in the parent process; "
                                      "open a session in the child process"};
    }
    return guarded<Prediction>([&] { return scheduler_->run(input, options); });
  }

  bool settle(Clock::duration patience) override { return !is_forked() && scheduler_->settle(patience); }
  bool is_inside() const override { return scheduler_->is_inside(); }

  void hand_over(Prediction& prediction, Clock::duration later) override {
    if (!is_forked()) scheduler_->hand_over(prediction, later);
  }

 private:
  bool is_forked() const { return forks_ != forks.load(std::memory_order_relaxed); }

  const unsigned forks_;
  std::unique_ptr<Scheduler> scheduler_;
};

void check_options(const SessionOptions& options, size_t branches) {
  auto refuse = [](const std::string& problem) { throw Refusal(ErrorCode::input, problem); };
  if (branches == 0) refuse("there is no branch to load");
  if (options.threads < 0) refuse("threads must be 0 or more, got " + std::to_string(options.threads));
  if (options.spin_us < 0 || options.spin_us > 1'000'000) {
    refuse("the time to spin must be 0 to 1000000 us, got " + std::to_string(options.spin_us));
  }
  if (options.return_margin_us < 0) {
    refuse("return_margin_us must be 0 or more, got " + std::to_string(options.return_margin_us));
  }
}

}  // namespace

Result<std::unique_ptr<Session>> Session::open(const pe_engine& engine, Program stem, std::vector<Program> branches,
                                               std::shared_ptr<const void> owner, const SessionOptions& options) {
  return guarded<std::unique_ptr<Session>>([&]() -> std::unique_ptr<Session> {
    check_options(options, branches.size());
    return std::make_unique<ThreadedSession>(
        std::make_unique<Scheduler>(engine, stem, branches, std::move(owner), options));
  });
}

Result<std::unique_ptr<Session>> Session::open(std::shared_ptr<const Bundle> bundle, const SessionOptions& options) {
  const Manifest& manifest = bundle->manifest();
  const std::optional<pe_engine> engine = find_engine(manifest.engine);
  if (!engine) {
    return Error{ErrorCode::unavailable, "the bundle needs the engine '" + manifest.engine +
                                             "', which is not registered (there: " + engine_names() +
                                             "); load it with pe_engine_load, in Java Engines.load, or export the "
                                             "bundle for another engine"};
  }
  const size_t loaded =
      options.first_branches == 0 ? manifest.branches.size() : static_cast<size_t>(options.first_branches);
  if (options.first_branches < 0 || loaded > manifest.branches.size()) {
    return Error{ErrorCode::input, std::to_string(options.first_branches) + " branches requested, " +
                                       std::to_string(manifest.branches.size()) + " available"};
  }
  std::vector<Program> branches;
  for (size_t position = 0; position < loaded; ++position) {
    branches.push_back({manifest.branches[position], bundle->program(manifest.branches[position])});
  }
  SessionOptions complete = options;
  complete.has_labels = !manifest.labels.empty();
  for (size_t position = 0; position < loaded && position < manifest.stop_rules.size(); ++position) {
    complete.temperatures.push_back(manifest.stop_rules[position].temperature);
  }
  // Thresholds promise something against all branches together.
  if (complete.stop_rules.empty() && loaded == manifest.branches.size() && manifest.has_early_stop()) {
    complete.stop_rules = manifest.stop_rules;
  }
  return open(*engine, {manifest.stem, bundle->program(manifest.stem)}, std::move(branches), bundle, complete);
}

}  // namespace paraedge
