// The part of ONNX Runtime's C API that paraedge calls: a table of functions whose order never changes (functions are
// only ever appended), declared here by position. https://onnxruntime.ai/docs/api/c/struct_ort_api.html
#pragma once

#include <cstddef>
#include <cstdint>

namespace paraedge::ort {

struct Status;
struct Env;
struct Session;
struct SessionOptions;
struct RunOptions;
struct MemoryInfo;
struct Value;
struct TypeInfo;
struct TensorInfo;
struct Allocator;

enum class LogLevel : int { verbose, info, warning, error, fatal };
enum class ElementType : int { float32 = 1, float16 = 10, float64 = 11 };
inline constexpr int kArenaAllocator = 1, kMemoryDefault = 0;

// Versions of the API exist since ONNX Runtime 1.0; this one came with 1.16 and has all that is called here.
inline constexpr uint32_t kApiVersion = 16;

struct ApiBase {
  const void* const* (*get_api)(uint32_t version);  // nullptr: newer than this library
  const char* (*version_string)();
};

// A function of the table by its position.
template <size_t Position, class Function>
struct Entry {
  template <class... Arguments>
  auto operator()(const void* const* table, Arguments... arguments) const {
    return reinterpret_cast<Function*>(const_cast<void*>(table[Position]))(arguments...);
  }
};

inline constexpr Entry<2, const char*(const Status*)> get_error_message;
using LogFunction = void(void* context, LogLevel level, const char* category, const char* logger, const char* place,
                         const char* message);
inline constexpr Entry<4, Status*(LogFunction*, void*, LogLevel, const char*, Env**)> create_env_with_log;
inline constexpr Entry<6, Status*(const Env*)> disable_telemetry;
inline constexpr Entry<8, Status*(const Env*, const void*, size_t, const SessionOptions*, Session**)> create_session;
inline constexpr Entry<9, Status*(Session*, const RunOptions*, const char* const*, const Value* const*, size_t,
                                  const char* const*, size_t, Value**)> run;
inline constexpr Entry<10, Status*(SessionOptions**)> create_session_options;
inline constexpr Entry<22, Status*(SessionOptions*, int)> set_log_level;
inline constexpr Entry<24, Status*(SessionOptions*, int)> set_intra_op_threads;
inline constexpr Entry<25, Status*(SessionOptions*, int)> set_inter_op_threads;
inline constexpr Entry<30, Status*(const Session*, size_t*)> input_count;
inline constexpr Entry<31, Status*(const Session*, size_t*)> output_count;
inline constexpr Entry<33, Status*(const Session*, size_t, TypeInfo**)> input_type;
inline constexpr Entry<34, Status*(const Session*, size_t, TypeInfo**)> output_type;
inline constexpr Entry<36, Status*(const Session*, size_t, Allocator*, char**)> input_name;
inline constexpr Entry<37, Status*(const Session*, size_t, Allocator*, char**)> output_name;
inline constexpr Entry<39, Status*(RunOptions**)> create_run_options;
inline constexpr Entry<41, Status*(RunOptions*, int)> set_run_log_level;
inline constexpr Entry<46, Status*(RunOptions*)> set_terminate;
inline constexpr Entry<47, Status*(RunOptions*)> unset_terminate;
inline constexpr Entry<49, Status*(const MemoryInfo*, void*, size_t, const int64_t*, size_t, ElementType, Value**)>
    create_tensor;
inline constexpr Entry<55, Status*(const TypeInfo*, const TensorInfo**)> cast_to_tensor_info;
inline constexpr Entry<60, Status*(const TensorInfo*, ElementType*)> element_type;
inline constexpr Entry<61, Status*(const TensorInfo*, size_t*)> dimension_count;
inline constexpr Entry<62, Status*(const TensorInfo*, int64_t*, size_t)> dimensions;
inline constexpr Entry<69, Status*(int, int, MemoryInfo**)> create_cpu_memory_info;
inline constexpr Entry<76, Status*(Allocator*, void*)> allocator_free;
inline constexpr Entry<78, Status*(Allocator**)> default_allocator;
inline constexpr Entry<93, void(Status*)> release_status;
inline constexpr Entry<95, void(Session*)> release_session;
inline constexpr Entry<96, void(Value*)> release_value;
inline constexpr Entry<97, void(RunOptions*)> release_run_options;
inline constexpr Entry<98, void(TypeInfo*)> release_type_info;
inline constexpr Entry<100, void(SessionOptions*)> release_session_options;
inline constexpr Entry<130, Status*(SessionOptions*, const char*, const char*)> add_config_entry;

}  // namespace paraedge::ort
