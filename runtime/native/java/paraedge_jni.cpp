// The core for Java, over paraedge.h: on Android and on any JVM. Its classes are in runtime/android/paraedge.
//
// One call a request, and a prediction crosses as one float[]. Callbacks come on the caller's thread, so its JNIEnv is
// theirs. Texts cross as UTF-8 in byte[]: what JNI calls UTF-8 is another encoding.
#include <jni.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "paraedge/paraedge.h"
#ifdef PARAEDGE_JNI_EXECUTORCH
#include "paraedge/executorch.h"
#endif
#ifdef __ANDROID__
#include <android/log.h>
#endif

namespace {

struct {
  jclass exception, prediction, bytes;  // ParaEdgeException, Prediction, byte[]
  jmethodID new_exception, new_prediction, on_prediction, is_cancelled;
} java;  // looked up once; classes are never unloaded while the library is there

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Prediction = std::unique_ptr<pe_prediction, Freer<pe_prediction_free>>;

template <class T>
T* object_of(jlong handle) {
  return reinterpret_cast<T*>(static_cast<intptr_t>(handle));
}

jlong handle_of(void* object) { return static_cast<jlong>(reinterpret_cast<intptr_t>(object)); }

// NULL: out of memory, and an exception says so. The same for what follows.
jbyteArray bytes_of(JNIEnv* env, const char* text) {
  const auto size = static_cast<jsize>(std::char_traits<char>::length(text));
  const jbyteArray array = env->NewByteArray(size);
  if (array) env->SetByteArrayRegion(array, 0, size, reinterpret_cast<const jbyte*>(text));
  return array;
}

std::string text_of(JNIEnv* env, jbyteArray utf8) {
  std::string text(static_cast<size_t>(env->GetArrayLength(utf8)), '\0');
  env->GetByteArrayRegion(utf8, 0, static_cast<jsize>(text.size()), reinterpret_cast<jbyte*>(text.data()));
  return text;
}

template <class Text>
jobjectArray texts_of(JNIEnv* env, size_t count, Text&& text) {
  const jobjectArray array = env->NewObjectArray(static_cast<jsize>(count), java.bytes, nullptr);
  for (size_t at = 0; array && at < count; ++at) {
    const jbyteArray one = bytes_of(env, text(at));
    if (!one) return nullptr;
    env->SetObjectArrayElement(array, static_cast<jsize>(at), one);
    env->DeleteLocalRef(one);  // a thousand labels are more than the local references there are
  }
  return array;
}

void raise(JNIEnv* env, pe_error* error) {
  const std::unique_ptr<pe_error, Freer<pe_error_free>> owned(error);
  const jbyteArray message = bytes_of(env, pe_error_message(error));
  if (!message) return;
  const jobject thrown = env->NewObject(java.exception, java.new_exception, pe_error_code(error), message);
  if (thrown) env->Throw(static_cast<jthrowable>(thrown));
}

void load_engine(JNIEnv* env, jclass, jbyteArray library) {
  pe_error* error = nullptr;
  if (pe_engine_load(text_of(env, library).c_str(), &error) != PE_OK) raise(env, error);
}

void load_onnxruntime(JNIEnv* env, jclass, jbyteArray library) {
  pe_error* error = nullptr;
  if (pe_engine_load_onnxruntime(text_of(env, library).c_str(), &error) != PE_OK) raise(env, error);
}

jlong open_bundle(JNIEnv* env, jclass, jbyteArray path) {
  pe_error* error = nullptr;
  pe_bundle* const bundle = pe_bundle_open(text_of(env, path).c_str(), &error);
  if (!bundle) raise(env, error);
  return handle_of(bundle);
}

jlong open_signed_bundle(JNIEnv* env, jclass, jbyteArray path, jobjectArray trusted_keys) {
  std::vector<std::string> keys;
  for (jsize at = 0; at < env->GetArrayLength(trusted_keys); ++at) {
    const auto key = static_cast<jbyteArray>(env->GetObjectArrayElement(trusted_keys, at));
    keys.push_back(text_of(env, key));
    env->DeleteLocalRef(key);
  }
  std::vector<const char*> names;
  for (const std::string& key : keys) names.push_back(key.c_str());
  pe_error* error = nullptr;
  pe_bundle* const bundle = pe_bundle_open_signed(text_of(env, path).c_str(), names.data(), names.size(), &error);
  if (!bundle) raise(env, error);
  return handle_of(bundle);
}

void free_bundle(JNIEnv*, jclass, jlong bundle) { pe_bundle_free(object_of<pe_bundle>(bundle)); }

// Name, engine, labels.
jobjectArray bundle_strings(JNIEnv* env, jclass, jlong handle) {
  const auto* bundle = object_of<pe_bundle>(handle);
  return texts_of(env, 2 + pe_bundle_num_labels(bundle), [bundle](size_t at) {
    return at == 0 ? pe_bundle_name(bundle) : at == 1 ? pe_bundle_engine(bundle) : pe_bundle_label(bundle, at - 2);
  });
}

// Version, kind of input, outputs, early stop, resize, rank, shape, indexes of branches.
jlongArray bundle_numbers(JNIEnv* env, jclass, jlong handle) {
  const auto* bundle = object_of<pe_bundle>(handle);
  const int64_t* shape = nullptr;
  const size_t rank = pe_bundle_input_shape(bundle, &shape);
  std::vector<jlong> all = {pe_bundle_version(bundle), pe_bundle_input_kind(bundle),
                            static_cast<jlong>(pe_bundle_num_outputs(bundle)), pe_bundle_has_early_stop(bundle),
                            pe_bundle_input_resize(bundle), static_cast<jlong>(rank)};
  all.insert(all.end(), shape, shape + rank);
  for (size_t at = 0; at < pe_bundle_num_branches(bundle); ++at) all.push_back(pe_bundle_branch_index(bundle, at));
  const jlongArray array = env->NewLongArray(static_cast<jsize>(all.size()));
  if (array) env->SetLongArrayRegion(array, 0, static_cast<jsize>(all.size()), all.data());
  return array;
}

std::vector<double> doubles_of(JNIEnv* env, jdoubleArray array) {
  if (!array) return {};
  std::vector<double> values(static_cast<size_t>(env->GetArrayLength(array)));
  env->GetDoubleArrayRegion(array, 0, static_cast<jsize>(values.size()), values.data());
  return values;
}

jlong open_session(JNIEnv* env, jclass, jlong bundle, jint threads, jint first_branches, jint spin_us, jint placement,
                   jdoubleArray part_ms, jdoubleArray contention) {
  const std::vector<double> parts = doubles_of(env, part_ms), factors = doubles_of(env, contention);
  pe_session_options options;
  pe_session_options_init(&options, sizeof options);
  options.threads = threads;
  options.first_branches = first_branches;
  options.spin_us = spin_us;
  options.placement = placement;
  options.part_ms = parts.data();
  options.num_part_ms = parts.size();
  options.contention = factors.data();
  options.num_contention = factors.size();
  pe_error* error = nullptr;
  pe_session* const session = pe_session_open(object_of<pe_bundle>(bundle), &options, &error);
  if (!session) raise(env, error);
  return handle_of(session);
}

void free_session(JNIEnv*, jclass, jlong session) { pe_session_free(object_of<pe_session>(session)); }

jint threads(JNIEnv*, jclass, jlong session) { return pe_session_threads(object_of<pe_session>(session)); }

jint num_branches(JNIEnv*, jclass, jlong session) {
  return static_cast<jint>(pe_session_num_branches(object_of<pe_session>(session)));
}

jdouble mandatory_ms(JNIEnv*, jclass, jlong session) { return pe_session_mandatory_ms(object_of<pe_session>(session)); }

pe_branch_run branch_of(const pe_prediction* prediction, size_t position) {
  pe_branch_run run{};
  run.size = sizeof run;
  pe_prediction_branch(prediction, position, &run);
  return run;
}

// Why branches failed; NULL when none did, which costs nothing.
jobjectArray problems_of(JNIEnv* env, const pe_prediction* prediction) {
  const size_t branches = pe_prediction_num_branches(prediction);
  size_t failed = 0;
  for (size_t at = 0; at < branches; ++at) failed += branch_of(prediction, at).problem[0] != 0;
  if (failed == 0) return nullptr;
  return texts_of(env, branches, [prediction](size_t at) { return branch_of(prediction, at).problem; });
}

// As Prediction.java takes it apart.
jobject java_of(JNIEnv* env, const pe_prediction* prediction, jobject labels) {
  size_t outputs = 0, rows = 0;
  const float* const output = pe_prediction_output(prediction, &outputs);
  const float* const parts = pe_prediction_branch_outputs(prediction, &rows, &outputs);
  const size_t branches = pe_prediction_num_branches(prediction);
  std::vector<float> all = {static_cast<float>(pe_prediction_label_index(prediction)),
                            pe_prediction_confidence(prediction),
                            static_cast<float>(pe_prediction_is_calibrated(prediction)),
                            pe_prediction_elapsed_ms(prediction),
                            pe_prediction_stem_ms(prediction),
                            static_cast<float>(pe_prediction_deadline_met(prediction)),
                            static_cast<float>(pe_prediction_requests_to_learn(prediction)),
                            static_cast<float>(outputs),
                            static_cast<float>(rows),
                            static_cast<float>(branches)};
  all.insert(all.end(), output, output + outputs);
  all.insert(all.end(), parts, parts + rows * outputs);
  for (size_t at = 0; at < branches; ++at) {
    const pe_branch_run run = branch_of(prediction, at);
    all.insert(all.end(), {static_cast<float>(run.index), static_cast<float>(run.state), static_cast<float>(run.thread),
                           run.start_ms, run.end_ms, run.predicted_ms, run.left_ms});
  }
  const jfloatArray packed = env->NewFloatArray(static_cast<jsize>(all.size()));
  if (!packed) return nullptr;
  env->SetFloatArrayRegion(packed, 0, static_cast<jsize>(all.size()), all.data());
  const jobjectArray problems = problems_of(env, prediction);
  if (env->ExceptionCheck()) return nullptr;
  return env->NewObject(java.prediction, java.new_prediction, labels, packed, problems);
}

struct Callbacks {
  JNIEnv* env;
  jobject labels, listener, cancelled;
};

// A Java exception ends the request and stays pending, so that run() throws it.
int on_prediction(const pe_prediction* so_far, void* context) {
  const auto& [env, labels, listener, cancelled] = *static_cast<Callbacks*>(context);
  if (env->ExceptionCheck()) return 0;
  if (env->PushLocalFrame(8) != 0) return 0;
  const jobject prediction = java_of(env, so_far, labels);
  const bool more = prediction && env->CallBooleanMethod(listener, java.on_prediction, prediction);
  env->PopLocalFrame(nullptr);
  return more && !env->ExceptionCheck();
}

int is_cancelled(void* context) {
  const auto& [env, labels, listener, cancelled] = *static_cast<Callbacks*>(context);
  if (env->ExceptionCheck()) return 1;
  if (!cancelled) return 0;
  const bool enough = env->CallBooleanMethod(cancelled, java.is_cancelled);
  return enough || env->ExceptionCheck();
}

// The values of a direct buffer where they are, or those of an array, copied.
template <class T>
struct Values {
  Values(JNIEnv* env, jobject source, bool is_direct, jint offset, jint count) : size(static_cast<size_t>(count)) {
    if (is_direct) {
      data = static_cast<const T*>(env->GetDirectBufferAddress(source)) + offset;
      if (reinterpret_cast<uintptr_t>(data) % alignof(T) == 0) return;
      const auto* bytes = reinterpret_cast<const uint8_t*>(data);  // a slice of a buffer may begin anywhere
      copy.resize(size);
      std::copy_n(bytes, size * sizeof(T), reinterpret_cast<uint8_t*>(copy.data()));
    } else {
      copy.resize(size);
      if constexpr (sizeof(T) == 1) {
        env->GetByteArrayRegion(static_cast<jbyteArray>(source), offset, count, reinterpret_cast<jbyte*>(copy.data()));
      } else {
        env->GetFloatArrayRegion(static_cast<jfloatArray>(source), offset, count, copy.data());
      }
    }
    data = copy.data();
  }

  const T* data;
  size_t size;
  std::vector<T> copy;
};

jobject run(JNIEnv* env, jclass, jlong handle, jobject labels, jobject source, jboolean is_direct, jboolean is_image,
            jint offset, jint count, jlong deadline, jlong leave, jint first_branches, jintArray branches,
            jboolean start_all, jboolean early_stop, jboolean drop_on_overload, jobject listener, jobject cancelled) {
  std::vector<jint> indexes(branches ? static_cast<size_t>(env->GetArrayLength(branches)) : 0);
  if (branches) env->GetIntArrayRegion(branches, 0, static_cast<jsize>(indexes.size()), indexes.data());
  const jint none = 0;  // an array without branches is refused by the core, which is told of an array
  Callbacks callbacks{env, labels, listener, cancelled};
  pe_run_options options;
  pe_run_options_init(&options, sizeof options);
  options.first_branches = first_branches;
  if (branches) options.branches = indexes.empty() ? &none : indexes.data();
  options.num_branches = indexes.size();
  options.policy = start_all ? PE_POLICY_ALL : PE_POLICY_ANYTIME;
  options.early_stop = early_stop;
  options.on_overload = drop_on_overload ? PE_OVERLOAD_DROP : PE_OVERLOAD_RUN;
  options.deadline_ns = deadline;
  options.leave_ns = leave;
  options.context = &callbacks;
  if (listener) options.on_prediction = on_prediction;
  if (cancelled || listener) options.cancelled = is_cancelled;
  auto* const session = object_of<pe_session>(handle);
  pe_error* error = nullptr;
  Prediction prediction;
  if (is_image) {
    const Values<uint8_t> image(env, source, is_direct, offset, count);
    prediction.reset(pe_session_run_image(session, image.data, image.size, &options, &error));
  } else {
    const Values<float> values(env, source, is_direct, offset, count);
    prediction.reset(pe_session_run_tensor(session, values.data, values.size, &options, &error));
  }
  if (env->ExceptionCheck()) return pe_error_free(error), nullptr;
  if (!prediction) return raise(env, error), nullptr;
  return java_of(env, prediction.get(), labels);
}

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer does not see what orders Java's threads, monitors and volatile fields: calls of which one had returned
// before the other began are in order.
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
char returned;

struct Ordered {
  Ordered() { __tsan_acquire(&returned); }
  ~Ordered() { __tsan_release(&returned); }
};
#else
struct Ordered {};
#endif

// The edge to Java: no exception of C++ leaves it. Copies of what Java gives can need more memory than there is.
template <auto Function>
struct Entry;
template <class R, class... Arguments, R (*Function)(JNIEnv*, jclass, Arguments...)>
struct Entry<Function> {
  static R call(JNIEnv* env, jclass natives, Arguments... arguments) {
    [[maybe_unused]] const Ordered ordered;
    try {
      return Function(env, natives, arguments...);
    } catch (const std::bad_alloc&) {
      const jclass error = env->ExceptionCheck() ? nullptr : env->FindClass("java/lang/OutOfMemoryError");
      if (error) env->ThrowNew(error, "paraedge's native library needs more memory than there is");
    }
    return R();
  }
};

template <auto Function>
JNINativeMethod method(const char* name, const char* signature) {
  return {const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(+Entry<Function>::call)};
}

bool register_natives(JNIEnv* env) {
  const jclass natives = env->FindClass("ai/paraedge/Native");
  if (!natives) return false;
  const JNINativeMethod methods[] = {
      method<load_engine>("loadEngine", "([B)V"),
      method<load_onnxruntime>("loadOnnxRuntime", "([B)V"),
      method<open_bundle>("openBundle", "([B)J"),
      method<open_signed_bundle>("openSignedBundle", "([B[[B)J"),
      method<free_bundle>("freeBundle", "(J)V"),
      method<bundle_strings>("bundleStrings", "(J)[[B"),
      method<bundle_numbers>("bundleNumbers", "(J)[J"),
      method<open_session>("openSession", "(JIIII[D[D)J"),
      method<free_session>("freeSession", "(J)V"),
      method<threads>("threads", "(J)I"),
      method<num_branches>("numBranches", "(J)I"),
      method<mandatory_ms>("mandatoryMs", "(J)D"),
      method<run>("run",
                  "(JLjava/util/List;Ljava/lang/Object;ZZIIJJI[IZZZLai/paraedge/Request$Listener;"
                  "Lai/paraedge/Request$Cancelled;)Lai/paraedge/Prediction;"),
  };
  return env->RegisterNatives(natives, methods, sizeof methods / sizeof *methods) == JNI_OK;
}

bool look_up(JNIEnv* env) {
  const auto global = [env](const char* name) -> jclass {
    const jclass found = env->FindClass(name);
    return found ? static_cast<jclass>(env->NewGlobalRef(found)) : nullptr;
  };
  java.exception = global("ai/paraedge/ParaEdgeException");
  java.prediction = global("ai/paraedge/Prediction");
  java.bytes = global("[B");
  const jclass listener = env->FindClass("ai/paraedge/Request$Listener");
  const jclass cancelled = env->FindClass("ai/paraedge/Request$Cancelled");
  if (!java.exception || !java.prediction || !java.bytes || !listener || !cancelled) return false;
  java.new_exception = env->GetMethodID(java.exception, "<init>", "(I[B)V");
  java.new_prediction = env->GetMethodID(java.prediction, "<init>", "(Ljava/util/List;[F[[B)V");
  java.on_prediction = env->GetMethodID(listener, "onPrediction", "(Lai/paraedge/Prediction;)Z");
  java.is_cancelled = env->GetMethodID(cancelled, "isCancelled", "()Z");
  return java.new_exception && java.new_prediction && java.on_prediction && java.is_cancelled;
}

#ifdef __ANDROID__
// An application's standard error goes nowhere; what engines say belongs into the system's log.
void log_to_android(int level, const char* message, void*) {
  constexpr int kPriorities[] = {ANDROID_LOG_INFO, ANDROID_LOG_WARN, ANDROID_LOG_ERROR};
  __android_log_write(kPriorities[level], "paraedge", message);
}
#endif

}  // namespace

extern "C" JNIEXPORT jint JNI_OnLoad(JavaVM* vm, void*) {
  JNIEnv* env = nullptr;
  if (vm->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK) return JNI_ERR;
  if (!look_up(env) || !register_natives(env)) return JNI_ERR;
#ifdef __ANDROID__
  pe_set_log(log_to_android, nullptr);
#endif
#ifdef PARAEDGE_JNI_EXECUTORCH  // linked in
  if (pe_engine_register(pe_engine_entry(PE_API_VERSION), nullptr) != PE_OK) return JNI_ERR;
#endif
  return JNI_VERSION_1_6;
}
