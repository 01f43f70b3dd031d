/* paraedge.h as a C program uses it: one request, from the bundle to the label. */
#include "request.h"

#include <stdio.h>

int classify_in_c(const char* path, const uint8_t* image, size_t bytes, char* label, size_t room) {
  pe_error* error = NULL;
  pe_prediction* prediction = NULL;
  pe_session* session = NULL;
  pe_run_options options;
  pe_bundle* bundle = pe_bundle_open(path, &error);
  if (bundle) session = pe_session_open(bundle, NULL, &error);
  pe_run_options_init(&options, sizeof options);
  options.deadline_ns = pe_now_ns() + INT64_C(10000000000);
  if (session) prediction = pe_session_run_image(session, image, bytes, &options, &error);
  if (prediction) snprintf(label, room, "%s", pe_bundle_label(bundle, pe_prediction_label_index(prediction)));
  if (error) fprintf(stderr, "%s\n", pe_error_message(error));
  pe_prediction_free(prediction);
  pe_session_free(session);
  pe_bundle_free(bundle);
  {
    const int code = pe_error_code(error);
    pe_error_free(error);
    return code;
  }
}
