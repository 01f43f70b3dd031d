/* What bionic declares and musl, whose headers stand in for it, does not: included before every file. */
#pragma once
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/types.h>
#ifdef __cplusplus
extern "C" {
#endif
pid_t pthread_gettid_np(pthread_t);
long long strtoll_l(const char*, char**, int, locale_t);
unsigned long long strtoull_l(const char*, char**, int, locale_t);
long double strtold_l(const char*, char**, locale_t);
#ifdef __cplusplus
}
#endif
