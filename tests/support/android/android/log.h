/* What paraedge uses of the NDK's <android/log.h>. */
#pragma once
#ifdef __cplusplus
extern "C" {
#endif
typedef enum android_LogPriority { ANDROID_LOG_INFO = 4, ANDROID_LOG_WARN, ANDROID_LOG_ERROR } android_LogPriority;
int __android_log_write(int prio, const char* tag, const char* text);
#ifdef __cplusplus
}
#endif
