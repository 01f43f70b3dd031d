// paraedge-bench: latency of a bundle on this device, without Python.
//
// Variants take turns in short blocks of requests, so that what disturbs one disturbs all; medians are compared.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <thread>

#include "runtime.h"
#include "placement.h"
#include "pool.h"
#include "tool.h"

namespace {

using namespace paraedge;
using std::chrono::duration;
using std::chrono::microseconds;

constexpr int kBlock = 10, kWarmUp = 3;
constexpr const char* kUsage = R"(usage: paraedge-bench BUNDLE [options]

  --threads N      threads of the parallel variants (default: one per branch, up to the cores)
  --branches N     load the first N branches (default: all)
  --requests N     requests per variant (default 300)
  --only A,B       variants to run: sequential, parallel, intra-op, one-branch (default: all)
  --against B      another bundle, run as intra-op: one more variant, 'against'
  --spin-us N      how long an idle worker spins before it sleeps (default 50)
  --placement P    none, avoid-caller or pinned (default avoid-caller)
  --pause-us N     pause between requests (default 0)
  --budget-ms X    a deadline for the parallel variant
  --weight-cache   XNNPACK's weight cache is on for the whole process, as ExecuTorch's builds for phones have it
  --json           one JSON document instead of a table

  sequential   one thread, part after part
  parallel     paraedge: whole branches on N threads
  intra-op     branch after branch, ExecuTorch's own pool of N threads inside each operator
  one-branch   the first branch alone on one thread
)";

struct Options {
  std::string bundle, against;
  std::vector<std::string> only = {"sequential", "parallel", "intra-op", "one-branch"};
  SessionOptions session;
  int requests = 300, pause_us = 0;
  double budget_ms = 0;
  bool json = false, weight_cache = false;
};

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    const char* value = i + 1 < count ? arguments[i + 1] : nullptr;
    if (name == "--help" || name == "-h") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    } else if (name == "--json") {
      options.json = true;
      continue;
    } else if (name == "--weight-cache") {
      options.weight_cache = true;
      continue;
    } else if (name.empty() || name[0] != '-') {
      if (!options.bundle.empty()) fail("give one bundle; '" + name + "' is the second");
      options.bundle = name;
      continue;
    } else if (name == "--threads") {
      options.session.threads = number(name, value, 1, 1024);
    } else if (name == "--branches") {
      options.session.first_branches = number(name, value, 1, 1000);
    } else if (name == "--requests") {
      options.requests = number(name, value, 1, 100'000'000);
    } else if (name == "--spin-us") {
      options.session.spin_us = number(name, value, 0, 1'000'000);
    } else if (name == "--pause-us") {
      options.pause_us = number(name, value, 0, 10'000'000);
    } else if (name == "--budget-ms") {
      options.budget_ms = number(name, value, 0.001, 1e6);
    } else if (name == "--against") {
      options.against = value ? value : "";
    } else if (name == "--only") {
      const std::vector<std::string> known = options.only;
      options.only = split(value ? value : "");
      for (const std::string& variant : options.only) {
        if (std::find(known.begin(), known.end(), variant) == known.end()) {
          fail("unknown variant '" + variant + "'; choose from sequential, parallel, intra-op, one-branch");
        }
      }
    } else if (name == "--placement") {
      const std::map<std::string, Placement> known = {
          {"none", Placement::none}, {"avoid-caller", Placement::avoid_caller}, {"pinned", Placement::pinned}};
      const std::string given = value ? value : "";
      const auto found = known.find(given);
      if (found == known.end()) fail("unknown placement '" + given + "'; choose one of avoid-caller, none, pinned");
      options.session.placement = found->second;
    } else {
      fail("unknown option '" + name + "'; see --help");
    }
    ++i;
  }
  if (options.bundle.empty()) fail("the bundle's folder is missing; see --help");
  return options;
}

struct Variant {
  std::string name;
  std::unique_ptr<Session> session;
  std::vector<double> request_ms, branches_ms, overhead_us;
  long used = 0, late = 0;
};

// What is left of the branches' time when the busiest thread's own parts are taken off.
double overhead_us(const Prediction& p) {
  std::map<int, double> busy;
  double end = 0;
  for (const BranchRun& run : p.branches) {
    if (run.state != BranchState::used) continue;
    busy[run.thread] += run.end_ms - run.start_ms;
    end = std::max(end, static_cast<double>(run.end_ms));
  }
  double busiest = 0;
  for (const auto& [thread, ms] : busy) busiest = std::max(busiest, ms);
  return (end - p.stem_ms - busiest) * 1e3;
}

// From waking a worker that has nothing to do to seeing that it has done it.
double handoff_us(int spin_us, int pause_us) {
  std::atomic<int> done{0};
  Pool pool(1, microseconds(spin_us), pe_engine{}, [&](int) { ++done; });
  WorkerCores cores(Placement::avoid_caller, 2, allowed_cores());
  std::vector<double> times;
  for (int i = 1; i <= 300; ++i) {
    std::this_thread::sleep_for(microseconds(pause_us));
    cores.move_away_from(current_core(), {&pool.thread(0)});
    const auto begin = Clock::now();
    pool.wake(0);
    while (done < i) relax();
    times.push_back(duration<double, std::micro>(Clock::now() - begin).count());
  }
  return quantile(times, 0.5);
}

void measure(Variant& variant, const std::vector<float>& input, const Options& options, bool counts) {
  RunOptions run;
  if (options.pause_us) std::this_thread::sleep_for(microseconds(options.pause_us));
  if (options.budget_ms > 0 && variant.name == "parallel") {
    run.deadline =
        Clock::now() + std::chrono::duration_cast<Clock::duration>(duration<double, std::milli>(options.budget_ms));
  }
  Prediction p = value_of(variant.session->run(input, run));
  variant.session->hand_over(p);
  if (!counts) return;
  variant.request_ms.push_back(p.elapsed_ms);
  variant.branches_ms.push_back(p.elapsed_ms - p.stem_ms);
  variant.overhead_us.push_back(overhead_us(p));
  variant.used += std::count_if(p.branches.begin(), p.branches.end(),
                                [](const BranchRun& b) { return b.state == BranchState::used; });
  variant.late += !p.deadline_met;
}

// Memory of this process that no file backs, and all of it, in kB.
std::pair<long, long> memory_kb() {
  std::ifstream file("/proc/self/status");
  std::string word;
  long anonymous = 0, all = 0;
  while (file >> word) {
    if (word == "RssAnon:") file >> anonymous;
    if (word == "VmRSS:") file >> all;
  }
  return {anonymous, all};
}

}  // namespace

int main(int count, char** arguments) {
  const Options options = parse(count, arguments);
  register_executorch();
  if (options.weight_cache) set_weight_cache(true);
  const auto bundle = value_of(Bundle::open(options.bundle));
  const Manifest& manifest = bundle->manifest();
  const auto cores = static_cast<int>(allowed_cores().size());
  const int loaded = options.session.first_branches ? options.session.first_branches : static_cast<int>(manifest.branches.size());
  const int threads = options.session.threads ? options.session.threads : std::max(1, std::min(loaded, cores));
  resize_executorch_pool(threads);
  const auto before_kb = memory_kb();

  std::vector<Variant> variants;
  for (const std::string& name : options.only) {
    SessionOptions session = options.session;
    session.threads = name == "parallel" ? threads : 1;
    if (name == "one-branch") session.first_branches = 1;
    session.split_branches = name == "intra-op";
    variants.push_back({name, value_of(Session::open(bundle, session)), {}, {}, {}});
  }

  if (!options.against.empty()) {
    const auto other = value_of(Bundle::open(options.against));
    if (other->manifest().input.shape != manifest.input.shape) fail("the two bundles read inputs of different shapes");
    variants.push_back({"against", value_of(Session::open(other, {.threads = 1, .split_branches = true})), {}, {}, {}});
  }

  const std::vector<float> input = random_input(manifest);

  // Blocks: a variant finds its weights in the caches and its workers as its own last request left them.
  const int blocks = (options.requests + kBlock - 1) / kBlock;
  for (int block = 0; block < blocks; ++block) {
    for (size_t turn = 0; turn < variants.size(); ++turn) {
      Variant& variant = variants[(turn + static_cast<size_t>(block)) % variants.size()];
      const int left = std::min(kBlock, options.requests - block * kBlock);
      for (int i = -kWarmUp; i < left; ++i) measure(variant, input, options, i >= 0);
    }
  }
  const auto after_kb = memory_kb();
  const double base = quantile(variants[0].branches_ms, 0.5);
  const double spinning = handoff_us(1'000'000, 0), sleeping = handoff_us(0, 1000);

  if (options.json) {
    std::printf("{\"bundle\": \"%s\", \"cores\": %d, \"threads\": %d, \"branches\": %d, \"requests\": %d,\n",
                manifest.name.c_str(), cores, threads, loaded, options.requests);
    std::printf(" \"spin_us\": %d, \"handoff_spinning_us\": %.2f, \"handoff_sleeping_us\": %.2f,\n",
                options.session.spin_us, spinning, sleeping);
    std::printf(" \"anonymous_kb\": %ld, \"resident_kb\": %ld, \"anonymous_before_kb\": %ld,\n \"variants\": {",
                after_kb.first, after_kb.second, before_kb.first);
    for (const Variant& v : variants) {
      std::printf("%s\n  \"%s\": {\"request_ms\": %.4f, \"request_p99_ms\": %.4f, \"branches_ms\": %.4f, "
                  "\"branches_p10_ms\": %.4f, \"overhead_us\": %.2f, \"branches_used\": %.3f, \"late\": %ld}",
                  &v == &variants[0] ? "" : ",", v.name.c_str(), quantile(v.request_ms, 0.5),
                  quantile(v.request_ms, 0.99), quantile(v.branches_ms, 0.5), quantile(v.branches_ms, 0.1),
                  quantile(v.overhead_us, 0.5), static_cast<double>(v.used) / options.requests, v.late);
    }
    std::printf("\n }}\n");
    return 0;
  }
  std::printf("%s: %d branches, %d threads on %d cores, %d requests per variant\n\n", manifest.name.c_str(), loaded,
              threads, cores, options.requests);
  std::printf("%-12s %12s %12s %12s %14s %12s %8s\n", "variant", "request ms", "p99 ms", "branches ms",
              ("/ " + variants[0].name).c_str(), "overhead us", "used");
  for (const Variant& v : variants) {
    const double branches_ms = quantile(v.branches_ms, 0.5);
    std::printf("%-12s %12.3f %12.3f %12.3f %14.3f %12.1f %8.2f\n", v.name.c_str(), quantile(v.request_ms, 0.5),
                quantile(v.request_ms, 0.99), branches_ms, branches_ms / base, quantile(v.overhead_us, 0.5),
                static_cast<double>(v.used) / options.requests);
    if (v.late) std::printf("%-12s %ld of %d after the deadline\n", "", v.late, options.requests);
  }
  std::printf("\nhand-off to a worker and back: %.1f us spinning, %.1f us sleeping\n", spinning, sleeping);
  std::printf("memory: %.1f MB, %.1f MB of it not backed by a file\n", static_cast<double>(after_kb.second) / 1024,
              static_cast<double>(after_kb.first) / 1024);
  return 0;
}
