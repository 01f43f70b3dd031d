// Runs all tests. PARAEDGE_TEST_BUNDLE names an ExecuTorch bundle; tests that need one fail without it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "engine.h"
#include "executorch.h"

int main(int argc, char** argv) {
  paraedge::register_engine(*pe_engine_entry(PE_API_VERSION));
  return doctest::Context(argc, argv).run();
}
