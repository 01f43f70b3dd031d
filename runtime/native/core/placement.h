// Which cores there are, which are fast, and where workers may run.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "runtime.h"

namespace paraedge {

// Cores that this process may use; empty where the system does not tell.
std::vector<int> allowed_cores();

// `cores`, best first: one of every physical core before the second of any (SMT), and among these the
// fastest cluster first (big.LITTLE), as `sysfs` (/sys/devices/system/cpu) describes them.
std::vector<int> fastest_first(std::vector<int> cores, const std::string& sysfs = "/sys/devices/system/cpu");

// The core that the calling thread is on, or -1.
int current_core();

// Lets `thread` run on `cores` only. A system that refuses is left as it is.
void restrict_to(std::thread& thread, const std::vector<int>& cores);

// Keeps workers off the caller's core; costs a few system calls when the caller has moved, else none.
class WorkerCores {
 public:
  // Does nothing where there are more threads than cores: then somebody has to share.
  WorkerCores(Placement placement, int threads, const std::vector<int>& allowed);
  // Called before `workers` are woken, by the thread whose core they shall leave alone.
  void move_away_from(int core, std::vector<std::thread*> workers);

 private:
  Placement placement_;
  std::vector<int> cores_;  // best first
  int avoided_ = -1;
};

}  // namespace paraedge
