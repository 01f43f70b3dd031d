/* The ExecuTorch engine, for applications that link it in place of loading its library:
 *
 *   pe_engine_register(pe_engine_entry(PE_API_VERSION), &error); */
#ifndef PARAEDGE_EXECUTORCH_H
#define PARAEDGE_EXECUTORCH_H

#include "paraedge/paraedge.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The engine; NULL if `api_version` is not the one that it was built for. */
PE_API const pe_engine* pe_engine_entry(int api_version);
/* Version of ExecuTorch that it was built for: its C++ interface changes from version to version. */
PE_API const char* pe_executorch_version(void);

#ifdef __cplusplus
}
#endif
#endif
