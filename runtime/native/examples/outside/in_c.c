/* paraedge from C: the label of an image of zeros, in at most 50 ms. */
#include <paraedge/paraedge.h>
#include <stdio.h>
#include <stdlib.h>

#include "label_text.h"

static void say(int level, const char* message, void* context) {
  (void)context;
  if (level >= PE_LOG_WARNING) fprintf(stderr, "%s\n", message);
}

static int fail(pe_error* error) {
  fprintf(stderr, "Error %d: %s\n", pe_error_code(error), pe_error_message(error));
  pe_error_free(error);
  return 1;
}

int main(int count, char** arguments) {
  pe_error* error = NULL;
  if (count != 2) {
    fprintf(stderr, "usage: in_c BUNDLE\n");
    return 2;
  }
  pe_set_log(say, NULL);
  if (pe_engine_load("libparaedge_executorch.so", &error) != PE_OK) return fail(error);
  pe_bundle* bundle = pe_bundle_open(arguments[1], &error);
  if (!bundle) return fail(error);
  if (pe_bundle_input_kind(bundle) != PE_INPUT_IMAGE || pe_bundle_num_labels(bundle) == 0) {
    fprintf(stderr, "%s does not classify images; pe_session_run_tensor runs tensors\n", arguments[1]);
    return 2;
  }
  pe_session* session = pe_session_open(bundle, NULL, &error);
  if (!session) return fail(error);

  const int64_t* shape = NULL; /* (1, C, H, W) */
  if (pe_bundle_input_shape(bundle, &shape) != 4) return 2;
  const size_t bytes = (size_t)(shape[1] * shape[2] * shape[3]);
  uint8_t* image = calloc(bytes, 1);

  pe_run_options options;
  pe_run_options_init(&options, sizeof options);
  options.deadline_ns = pe_now_ns() + 50 * INT64_C(1000000);
  pe_prediction* prediction = pe_session_run_image(session, image, bytes, &options, &error);
  if (!prediction) return fail(error);
  char text[100];
  const char* label = pe_bundle_label(bundle, pe_prediction_label_index(prediction));
  printf("%s, %.0f %%, paraedge %s\n", label_text(label, text, sizeof text), pe_prediction_confidence(prediction) * 100,
         pe_version());

  pe_prediction_free(prediction);
  free(image);
  pe_session_free(session);
  pe_bundle_free(bundle);
  return 0;
}
