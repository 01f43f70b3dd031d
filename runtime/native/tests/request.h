/* A request made by C code, for test_capi.cpp. */
#pragma once

#include <paraedge/paraedge.h>

#ifdef __cplusplus
extern "C"
#endif
    int
    classify_in_c(const char* path, const uint8_t* image, size_t bytes, char* label, size_t room);
