// paraedge from C++: the label of an image of zeros, branch after branch, in at most 50 ms.
#include <chrono>
#include <cstdio>
#include <paraedge/paraedge.hpp>
#include <vector>

#include "label_text.h"

namespace {

int fail(const paraedge::Error& error) {
  std::fprintf(stderr, "Error: %s\n", error.message.c_str());
  return 1;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: in_cpp BUNDLE\n");
    return 2;
  }
  if (auto loaded = paraedge::load_engine("libparaedge_executorch.so"); !loaded) return fail(loaded.error());
  const auto bundle = paraedge::Bundle::open(arguments[1]);
  if (!bundle) return fail(bundle.error());
  if (bundle->input_kind() != paraedge::InputKind::image || bundle->num_labels() == 0) {
    std::fprintf(stderr, "%s does not classify images; a span of float32 runs tensors\n", arguments[1]);
    return 2;
  }
  auto session = paraedge::Session::open(*bundle, {.threads = 2});
  if (!session) return fail(session.error());

  size_t pixels = 1;
  for (const int64_t size : bundle->input_shape()) pixels *= static_cast<size_t>(size);
  const std::vector<uint8_t> image(pixels);
  const auto deadline = paraedge::Clock::now() + std::chrono::milliseconds(50);
  char text[100];
  const auto label = [&](size_t index) { return label_text(bundle->label(index), text, sizeof text); };
  const auto prediction =
      session->run(image, {.deadline = deadline, .on_prediction = [&](paraedge::PredictionView so_far) {
                             std::printf("so far %s\n", label(so_far.label_index()));
                             return true;
                           }});
  if (!prediction) return fail(prediction.error());
  std::printf("%s, %.0f %%, %zu branches\n", label(prediction->label_index()), prediction->confidence() * 100,
              prediction->num_branches());
  return 0;
}
