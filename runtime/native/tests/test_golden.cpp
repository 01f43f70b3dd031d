// The golden predictions: what torch said when the bundle was made, on whichever processor this runs.
#include <cmath>
#include <cstring>

#include "support.h"

namespace paraedge::tests {
namespace {

// golden/branch_outputs.npy: a header and (n, k, C) float32.
std::vector<float> golden_outputs() {
  const std::string npy = read(fs::path(bundle_folder()) / "golden/branch_outputs.npy");
  const size_t header = 10 + static_cast<unsigned char>(npy[8]) + 256 * static_cast<unsigned char>(npy[9]);
  std::vector<float> values((npy.size() - header) / sizeof(float));
  std::memcpy(values.data(), npy.data() + header, values.size() * sizeof(float));
  return values;
}

TEST_CASE("golden images: every branch is within the parity gate's 100 dB of torch") {
  const auto inputs = images(open_bundle()->manifest());
  const std::vector<float> wanted = golden_outputs();
  const auto session = open_session({.threads = 2});
  const size_t branches = static_cast<size_t>(session->branches());
  const size_t outputs = wanted.size() / inputs.size() / branches;
  std::vector<double> signal(branches), noise(branches);
  for (size_t image = 0; image < inputs.size(); ++image) {
    auto p = session->run(inputs[image]);
    REQUIRE(p);
    REQUIRE(p->branch_outputs.size() == branches * outputs);
    for (size_t i = 0; i < p->branch_outputs.size(); ++i) {
      const double value = wanted[image * branches * outputs + i];
      signal[i / outputs] += value * value;
      noise[i / outputs] += std::pow(value - p->branch_outputs[i], 2);
    }
  }
  for (size_t position = 0; position < branches; ++position) {
    CAPTURE(position);
    CHECK(signal[position] > 0);
    CHECK(noise[position] * 1e10 <= signal[position]);  // 10^(100 dB / 10)
  }
}

}  // namespace
}  // namespace paraedge::tests
