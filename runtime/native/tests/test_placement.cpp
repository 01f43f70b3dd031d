// Cores from an invented sysfs: SMT siblings last, fast clusters first, no file at all.
#include "placement.h"

#include "support.h"

namespace paraedge::tests {
namespace {

class Sysfs {
 public:
  Sysfs() {
    std::string pattern = (fs::temp_directory_path() / "paraedge-sysfs-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    root_ = pattern;
  }
  ~Sysfs() { fs::remove_all(root_); }
  void add(int core, const std::string& file, int number) {
    const fs::path path = root_ / ("cpu" + std::to_string(core)) / file;
    fs::create_directories(path.parent_path());
    write(path, std::to_string(number) + "\n");
  }
  std::string path() const { return root_.string(); }

 private:
  fs::path root_;
};

TEST_CASE("without a description the order is that of the numbers") {
  CHECK(fastest_first({2, 0, 1}, "/nowhere") == std::vector<int>{0, 1, 2});
}

TEST_CASE("big.LITTLE: the fast cluster first") {
  Sysfs sysfs;
  for (int core = 0; core < 8; ++core) {
    sysfs.add(core, "cpu_capacity", core < 4 ? 300 : core < 7 ? 800 : 1024);
    sysfs.add(core, "topology/core_id", core);
  }
  CHECK(fastest_first({0, 1, 2, 3, 4, 5, 6, 7}, sysfs.path()) == std::vector<int>{7, 4, 5, 6, 0, 1, 2, 3});
  CHECK(fastest_first({0, 3, 5}, sysfs.path()) == std::vector<int>{5, 0, 3});
}

TEST_CASE("frequencies where there are no capacities") {
  Sysfs sysfs;
  for (int core = 0; core < 4; ++core) sysfs.add(core, "cpufreq/cpuinfo_max_freq", core < 2 ? 1'800'000 : 2'400'000);
  CHECK(fastest_first({0, 1, 2, 3}, sysfs.path()) == std::vector<int>{2, 3, 0, 1});
}

TEST_CASE("hardware threads of one core: the second of each comes last") {
  Sysfs sysfs;
  for (int core = 0; core < 4; ++core) {
    sysfs.add(core, "topology/core_id", core / 2);
    sysfs.add(core, "topology/physical_package_id", 0);
  }
  CHECK(fastest_first({0, 1, 2, 3}, sysfs.path()) == std::vector<int>{0, 2, 1, 3});
}

TEST_CASE("this machine's cores") {
  const std::vector<int> cores = allowed_cores();
  CHECK_FALSE(cores.empty());
  CHECK(fastest_first(cores).size() == cores.size());
}

}  // namespace
}  // namespace paraedge::tests
