/* An engine whose parts do what their program says, for the tests of the Java library:
 *
 *   {"add": X}    output i is X * (i + 1)
 *   {"fail": 1}   refuses to run; {"refuse": 1} refuses to load
 *   {"nan": 1}    its output is not finite
 *   {"hold": 1}   waits until the file that PARAEDGE_TEST_GATE names is there, or until it is cancelled, and adds 4
 *   {}            a stem: its output begins with the sum of its input */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "paraedge/paraedge.h"

typedef struct {
  char program[256];
  size_t inputs, outputs;
  atomic_int cancelled;
} Part;

static size_t count(const int64_t* shape, size_t rank) {
  size_t all = 1;
  for (size_t i = 0; i < rank; ++i) all *= (size_t)shape[i];
  return all;
}

static int load(void* context, const pe_part* part, const void* program, size_t bytes, void** loaded, char* message) {
  (void)context;
  Part* made = calloc(1, sizeof *made);
  memcpy(made->program, program, bytes < sizeof made->program ? bytes : sizeof made->program - 1);
  made->inputs = count(part->input_shape, part->input_rank);
  made->outputs = count(part->output_shape, part->output_rank);
  if (strstr(made->program, "refuse")) {
    snprintf(message, PE_MESSAGE_BYTES, "%s is too small f\xc3\xbcr this engine", part->file);
    free(made);
    return PE_ERROR_ENGINE;
  }
  *loaded = made;
  return PE_OK;
}

static void hold(Part* part) {
  const struct timespec pause = {0, 500000};
  const char* gate = getenv("PARAEDGE_TEST_GATE");
  while (!atomic_load(&part->cancelled) && access(gate, F_OK) != 0) nanosleep(&pause, NULL);
  atomic_store(&part->cancelled, 0);
}

static int run(void* loaded, const float* input, float* output, char* message) {
  Part* part = loaded;
  if (strstr(part->program, "fail")) {
    snprintf(message, PE_MESSAGE_BYTES, "out of luck \xf0\x9f\x98\x80");
    return PE_ERROR_ENGINE;
  }
  float value = 0;
  const char* add = strstr(part->program, "\"add\": ");
  if (add) {
    value = (float)atof(add + 7);
  } else if (strstr(part->program, "hold")) {
    hold(part);
    value = 4;
  } else if (strstr(part->program, "nan")) {
    value = NAN;
  } else {
    memset(output, 0, part->outputs * sizeof *output);
    for (size_t i = 0; i < part->inputs; ++i) output[0] += input[i];
    return PE_OK;
  }
  for (size_t i = 0; i < part->outputs; ++i) output[i] = value * (float)(i + 1);
  return PE_OK;
}

static void cancel(void* loaded) { atomic_store(&((Part*)loaded)->cancelled, 1); }

static const pe_engine kEngine = {.size = sizeof(pe_engine), .name = "fake", .load = load, .run = run, .close = free, .cancel = cancel};

PE_API const pe_engine* pe_engine_entry(int api_version);
PE_API const pe_engine* pe_engine_entry(int api_version) { return api_version == PE_API_VERSION ? &kEngine : NULL; }
