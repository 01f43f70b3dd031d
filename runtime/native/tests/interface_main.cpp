// Runs the tests of the C and C++ interfaces, which see the shared library only.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
