// An application: a bundle, an image, a budget -> the label, and which branches made it.
//
//   classify model.paraedge image.pgm 5      (PGM or PPM, of the size that the bundle reads)
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <paraedge/paraedge.hpp>
#include <string>
#include <vector>

#include "outside/label_text.h"

namespace {

int fail(const std::string& message, int code = 2) {
  std::fprintf(stderr, "Error: %s\n", message.c_str());
  return code;
}

int fail(const paraedge::Error& error) {
  return fail(error.message, error.code == paraedge::ErrorCode::engine ? 1 : 2);
}

// The pixels of a binary PGM (P5) or PPM (P6); empty when it is neither.
std::vector<uint8_t> read_image(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  size_t width = 0, height = 0, most = 0;
  file >> magic >> width >> height >> most;
  file.get();  // the one white space before the pixels
  if (!file || (magic != "P5" && magic != "P6") || most != 255) return {};
  std::vector<uint8_t> pixels(std::istreambuf_iterator<char>(file), {});
  return pixels.size() == width * height * (magic == "P5" ? 1 : 3) ? pixels : std::vector<uint8_t>();
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3 || count > 4) return fail("usage: classify BUNDLE IMAGE.pgm [BUDGET_MS]");

  if (auto loaded = paraedge::load_engine("libparaedge_executorch.so"); !loaded) return fail(loaded.error());
  auto bundle = paraedge::Bundle::open(arguments[1]);
  if (!bundle) return fail(bundle.error());
  if (bundle->input_kind() != paraedge::InputKind::image || bundle->num_labels() == 0) {
    return fail(std::string(arguments[1]) + " does not classify images; 'paraedge run' runs its golden inputs");
  }
  auto session = paraedge::Session::open(*bundle);
  if (!session) return fail(session.error());

  const std::vector<uint8_t> image = read_image(arguments[2]);
  if (image.empty()) return fail(std::string(arguments[2]) + " is not a binary PGM or PPM with 255 levels");

  paraedge::RunOptions options;
  if (count == 4) {
    char* end = nullptr;
    const double budget_ms = std::strtod(arguments[3], &end);
    if (end == arguments[3] || *end != 0 || !(budget_ms > 0 && budget_ms < 1e9)) {
      return fail("BUDGET_MS must be above 0 and below 1e9, got '" + std::string(arguments[3]) + "'");
    }
    options.deadline = paraedge::Clock::now() + std::chrono::microseconds(static_cast<int64_t>(budget_ms * 1e3));
  }
  auto prediction = session->run(image, options);
  if (!prediction) return fail(prediction.error());

  std::string used;
  for (size_t position = 0; position < prediction->num_branches(); ++position) {
    const paraedge::BranchRun branch = prediction->branch(position);
    if (branch.state == paraedge::BranchState::used) {
      used += (used.empty() ? "" : ",") + std::to_string(branch.index);
    }
  }
  char text[100];
  const char* label = label_text(bundle->label(prediction->label_index()), text, sizeof text);
  std::printf("%s (%.1f %%), branches %s of %zu, %.3f ms\n", label,
              prediction->confidence() * 100, used.c_str(), prediction->num_branches(), prediction->elapsed_ms());
  return 0;
}
