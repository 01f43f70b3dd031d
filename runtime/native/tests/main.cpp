// Runs all tests. PARAEDGE_TEST_BUNDLE names an ExecuTorch bundle; tests that need one fail without it.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
