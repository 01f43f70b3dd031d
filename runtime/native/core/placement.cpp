// Cores and clusters from sysfs, affinity from pthreads. Linux and Android; elsewhere nothing is placed.
#include "placement.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#if defined(__linux__)
#include <sched.h>
#endif

namespace paraedge {
namespace {

// The first whole number in a file, or `missing`.
long number_in(const std::string& path, long missing) {
  std::ifstream file(path);
  long number = missing;
  return file >> number ? number : missing;
}

}  // namespace

std::vector<int> allowed_cores() {
  std::vector<int> cores;
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(core);
    }
  }
#endif
  return cores;
}

std::vector<int> fastest_first(std::vector<int> cores, const std::string& sysfs) {
  struct Rank {
    int sibling;  // 0 for the first of a physical core's hardware threads, 1 for the second …
    long slowness;
  };
  std::map<int, Rank> ranks;
  std::map<std::pair<long, long>, int> taken;  // package and core -> hardware threads seen
  std::sort(cores.begin(), cores.end());
  for (int core : cores) {
    const std::string folder = sysfs + "/cpu" + std::to_string(core);
    const long package = number_in(folder + "/topology/physical_package_id", 0);
    // Without a topology every core counts as a physical one.
    const long physical = number_in(folder + "/topology/core_id", -1 - core);
    long speed = number_in(folder + "/cpu_capacity", -1);  // Arm: 1024 for the fastest core
    if (speed < 0) speed = number_in(folder + "/cpufreq/cpuinfo_max_freq", 0);
    ranks[core] = {taken[{package, physical}]++, -speed};
  }
  std::stable_sort(cores.begin(), cores.end(), [&](int a, int b) {
    return std::pair(ranks[a].sibling, ranks[a].slowness) < std::pair(ranks[b].sibling, ranks[b].slowness);
  });
  return cores;
}

int current_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

void restrict_to([[maybe_unused]] std::thread& thread, [[maybe_unused]] const std::vector<int>& cores) {
#if defined(__linux__) && !defined(__ANDROID__)
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core : cores) CPU_SET(core, &set);
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);
#elif defined(__ANDROID__)
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int core : cores) CPU_SET(core, &set);
  sched_setaffinity(pthread_gettid_np(thread.native_handle()), sizeof set, &set);
#endif
}

WorkerCores::WorkerCores(Placement placement, int threads, const std::vector<int>& allowed)
    : placement_(static_cast<size_t>(threads) <= allowed.size() ? placement : Placement::none),
      cores_(fastest_first(allowed)) {}

void WorkerCores::move_away_from(int core, std::vector<std::thread*> workers) {
  if (placement_ == Placement::none || core < 0 || core == avoided_) return;
  avoided_ = core;
  std::vector<int> others;
  std::copy_if(cores_.begin(), cores_.end(), std::back_inserter(others), [&](int other) { return other != core; });
  if (others.empty()) return;
  for (size_t i = 0; i < workers.size(); ++i) {
    if (placement_ == Placement::pinned) {
      restrict_to(*workers[i], {others[i % others.size()]});
    } else {
      restrict_to(*workers[i], others);
    }
  }
}

}  // namespace paraedge
