// paraedge-testbed: runs requests where 'paraedge profile' cannot run itself; the profile is made from its output.
#include <ctime>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <thread>

#include "runtime.h"
#include "placement.h"
#include "tool.h"

namespace {

using namespace paraedge;
using std::chrono::duration;

constexpr const char* kUsage = R"(usage: paraedge-testbed BUNDLE THREADS[,THREADS ...]

Opens a session for each number of threads, prints a line of JSON about itself, then one for every line
of its input with one line of JSON, until there is no more:

  run THREADS BRANCHES COUNT   [[elapsed_ms, stem_ms, [[index, thread, start_ms, end_ms], ...]], ...]
  outputs THREADS FIRST COUNT FILE   [[[value, ...] of each branch, ...] of each input, ...]: COUNT inputs of FILE from
                               number FIRST on; it holds them one after another, uint8 (H, W, C) or float32
  jitter                       quantiles of the time between two readings of the clock, in microseconds
  wakeup                       quantiles of how late a thread wakes that sleeps for a millisecond
  usage                        processor time and most memory of this process so far
)";

double milliseconds_since(Clock::time_point begin) {
  return duration<double, std::milli>(Clock::now() - begin).count();
}

void check_complete(const Prediction& prediction) {
  for (const BranchRun& branch : prediction.branches) {
    if (branch.state != BranchState::used) {
      fail("branch " + std::to_string(branch.index) + " was dropped while it was measured: " + branch.problem, 1);
    }
  }
}

template <class Value>
std::vector<float> read_input(std::ifstream& file, const Input& input) {
  std::vector<Value> values(elements(input.shape));
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(Value)));
  if (!file) fail("the file of inputs is truncated or unreadable");
  return value_of(normalise(std::span<const Value>(values), input));
}

void outputs(Session& session, const Input& input, int first, int count, const std::string& path) {
  const bool is_image = input.kind == Input::Kind::image;
  std::ifstream file(path, std::ios::binary);
  file.seekg(static_cast<std::streamoff>(elements(input.shape) * (is_image ? 1 : sizeof(float))) * first);
  for (int i = 0; i < count; ++i) {
    const std::vector<float> values = is_image ? read_input<uint8_t>(file, input) : read_input<float>(file, input);
    const Prediction p = value_of(session.run(values));
    check_complete(p);
    std::fputs(i ? ", [" : "[[", stdout);
    for (size_t at = 0; at < p.branch_outputs.size(); ++at) {
      const bool begins = at % p.output.size() == 0;
      std::printf("%s%.9g", begins ? (at ? "], [" : "[") : ", ", static_cast<double>(p.branch_outputs[at]));
    }
    std::fputs("]]", stdout);
  }
  std::fputs("]\n", stdout);
}

void run(Session& session, const std::vector<float>& input, int branches, int count) {
  for (int i = 0; i < count; ++i) {
    const Prediction p = value_of(session.run(input, {.first_branches = branches}));
    check_complete(p);
    std::printf("%s[%.6f, %.6f, [", i ? ", " : "[", p.elapsed_ms, p.stem_ms);
    for (const BranchRun& branch : p.branches) {
      std::printf("%s[%d, %d, %.6f, %.6f]", &branch == p.branches.data() ? "" : ", ", branch.index, branch.thread,
                  branch.start_ms, branch.end_ms);
    }
    std::printf("]]");
  }
  std::printf("]\n");
}

void jitter() {
  std::vector<double> gaps_us;
  const auto end = Clock::now() + std::chrono::milliseconds(300);
  for (auto before = Clock::now(); before < end;) {
    const auto now = Clock::now();
    gaps_us.push_back(duration<double, std::micro>(now - before).count());
    before = now;
  }
  std::printf("{\"p50\": %.6g, \"p99\": %.6g, \"p999\": %.6g}\n", quantile(gaps_us, 0.5), quantile(gaps_us, 0.99),
              quantile(gaps_us, 0.999));
}

void wakeup() {
  std::vector<double> late_us;
  for (int i = 0; i < 300; ++i) {
    const auto begin = Clock::now();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    late_us.push_back(std::max(0.0, (milliseconds_since(begin) - 1) * 1e3));
  }
  std::printf("{\"p50\": %.6g, \"p99\": %.6g}\n", quantile(late_us, 0.5), quantile(late_us, 0.99));
}

void usage() {
  std::timespec cpu{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
  std::ifstream status("/proc/self/status");
  long most_kb = 0;
  for (std::string word; status >> word;) {
    if (word == "VmHWM:") status >> most_kb;
  }
  std::printf("{\"cpu_s\": %.6f, \"memory_bytes\": %ld}\n",
              static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) / 1e9, most_kb * 1024);
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 2 && (arguments[1] == std::string("--help") || arguments[1] == std::string("-h"))) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  if (count != 3) fail("give a bundle's folder and numbers of threads; see --help");
  register_executorch();
  const auto bundle = value_of(Bundle::open(arguments[1]));
  const auto all = static_cast<int>(bundle->manifest().branches.size());
  std::map<int, std::unique_ptr<Session>> sessions;
  const auto begin = Clock::now();
  for (const std::string& threads : split(arguments[2])) {
    const int wanted = number("THREADS", threads.c_str(), 1, 1024);
    sessions[wanted] = value_of(Session::open(bundle, {.threads = wanted}));
  }
  std::printf("{\"load_ms\": %.6g, \"cores\": %zu, \"executorch\": \"%s\"}\n", milliseconds_since(begin),
              allowed_cores().size(), pe_executorch_version());
  std::fflush(stdout);

  const std::vector<float> input = random_input(bundle->manifest());
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string word, threads, second, requests, file;
    words >> word >> threads >> second >> requests >> file;
    if (word == "run" || word == "outputs") {
      const auto session = sessions.find(number("THREADS", threads.c_str(), 1, 1024));
      if (session == sessions.end()) fail("there is no session of " + threads + " threads");
      const int wanted = number("COUNT", requests.c_str(), 1, 1'000'000);
      if (word == "run") {
        run(*session->second, input, number("BRANCHES", second.c_str(), 1, all), wanted);
      } else {
        outputs(*session->second, bundle->manifest().input, number("FIRST", second.c_str(), 0, 1'000'000'000), wanted, file);
      }
    } else if (word == "jitter") {
      jitter();
    } else if (word == "wakeup") {
      wakeup();
    } else if (word == "usage") {
      usage();
    } else {
      fail("unknown command '" + line + "'; see --help");
    }
    std::fflush(stdout);
  }
  return 0;
}
