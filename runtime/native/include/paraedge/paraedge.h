/* paraedge in C: open a bundle, run its branches in parallel threads, have a prediction by a deadline.
 *
 *   pe_error* error = NULL;
 *   pe_engine_load("libparaedge_executorch.so", &error);
 *   pe_bundle* bundle = pe_bundle_open("model.paraedge", &error);
 *   pe_session* session = pe_session_open(bundle, NULL, &error);
 *   pe_prediction* prediction = pe_session_run_image(session, pixels, pixel_bytes, NULL, &error);
 *   puts(pe_bundle_label(bundle, pe_prediction_label_index(prediction)));
 *
 * Objects. Each is freed by its own function, which accepts NULL. Strings and arrays belong to the object they come
 * from. Functions that only read an object return 0, NULL or NaN if it is NULL.
 * Errors. A function with a parameter `error` that returns NULL, or anything but PE_OK, has set `*error`, unless `error`
 * is NULL. The caller frees it; on success `*error` is left as it was. No C++ exception leaves a function.
 * Structures. Each begins with its size, set to sizeof by `_init` or by the caller, so programs built with an older
 * header keep working: members that a structure lacks have their defaults.
 * Threads. All functions may be called from any thread. A session runs one request at a time; of those that wait, the one
 * with the earliest deadline is next. An object must not be in use while it is freed. Callbacks must not throw; a run that
 * they begin on the session that calls them is refused, PE_ERROR_ENGINE, and pe_session_close does not wait there. */
#ifndef PARAEDGE_H
#define PARAEDGE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PE_API __attribute__((visibility("default")))

#define PE_API_VERSION 1 /* grows when something is added; what exists keeps its meaning */

PE_API int pe_api_version(void);     /* PE_API_VERSION of the library */
PE_API const char* pe_version(void); /* version of paraedge, such as "0.2.0" */

/* ---- errors */
typedef struct pe_error pe_error;
enum {
  PE_OK = 0,
  PE_ERROR_MANIFEST = 1,    /* manifest.json is malformed or contradicts itself, or a program is not what it says */
  PE_ERROR_INTEGRITY = 2,   /* a file is missing, unlisted, of the wrong size or hash, or a program that needs others or
                               is damaged; or no trusted key signed the bundle */
  PE_ERROR_ENGINE = 3,      /* an engine failed to load or run a part */
  PE_ERROR_UNAVAILABLE = 4, /* the engine that the bundle needs is not there */
  PE_ERROR_INPUT = 5,       /* an argument is invalid */
  PE_ERROR_CANCELLED = 6,   /* the caller's `cancelled` function said so */
  PE_ERROR_DROPPED = 7      /* the request would miss its deadline, and was to be dropped then: PE_OVERLOAD_DROP */
};
PE_API int pe_error_code(const pe_error*);
PE_API const char* pe_error_message(const pe_error*); /* what is wrong, with the value, and what to do; UTF-8 */
PE_API void pe_error_free(pe_error*);

/* ---- log: silent unless the application asks. One callback per process, called from any thread, by one at a time;
 * NULL: silent again. It must not call pe_set_log, and is not running any more when pe_set_log has returned. */
enum { PE_LOG_INFO = 0, PE_LOG_WARNING = 1, PE_LOG_ERROR = 2 };
PE_API void pe_set_log(void (*log)(int level, const char* message, void* context), void* context);

/* ---- engines */
enum { PE_MESSAGE_BYTES = 512 }; /* room for an engine's error message, its final 0 included */

typedef struct pe_part { /* one program of a bundle, as an engine sees it */
  size_t size;
  const char* name; /* "stem", "branch_00", ... */
  const char* file; /* for messages */
  const int64_t* input_shape;
  const int64_t* output_shape;
  size_t input_rank, output_rank;
  int threads; /* 1: the part runs on the thread that calls `run`. More: it may use the engine's own pool */
} pe_part;

/* How paraedge calls an inference engine. `load` and `run` return PE_OK, or one of PE_ERROR_MANIFEST, PE_ERROR_ENGINE
 * and PE_ERROR_CANCELLED with a message (UTF-8, at most PE_MESSAGE_BYTES); `load` also PE_ERROR_INTEGRITY, for a program
 * that needs what is not in it. `load` and `close` are called by one thread at a time for each session; `run` by one
 * thread at a time for each part, and at the same time for different parts unless `sequential`. Members after `close` may
 * be 0 or missing. */
typedef struct pe_engine {
  size_t size;
  const char* name; /* as the manifest's "engine" says */
  void* context;    /* passed to `load`, `pool_threads`, `thread_begin`, `thread_end` */
  /* Loads a program, float32 in and out. `program` is aligned to 16 bytes and stays as it is until `close`. */
  int (*load)(void* context, const pe_part* part, const void* program, size_t bytes, void** loaded, char* message);
  /* Computes a part. `input` and `output` have as many values as the part's shapes. */
  int (*run)(void* loaded, const float* input, float* output, char* message);
  void (*close)(void* loaded);
  int sequential; /* not 0: parts cannot run at the same time, so a session uses one thread */
  /* Called from another thread: a `run` in progress should return soon, whatever its result. */
  void (*cancel)(void* loaded);
  /* Threads of a pool of the engine's own, which may help with a part that runs alone; 1 if there is none. */
  int (*pool_threads)(void* context);
  /* Called by each worker thread of a session when it begins and before it ends. */
  void* (*thread_begin)(void* context);
  void (*thread_end)(void* context, void* begun);
  /* Called once, when the engine is registered: what it has to say besides errors may be passed to `log`, at any time. */
  void (*set_log)(void (*log)(int level, const char* message));
} pe_engine;

/* Makes an engine known by its name, in place of one of that name; open sessions keep theirs. The structure is copied;
 * what its members point to must exist as long as the process. */
PE_API int pe_engine_register(const pe_engine*, pe_error** error);
/* Registers the engine of a shared library such as libparaedge_executorch.so, by calling its function
 * `const pe_engine* pe_engine_entry(int api_version)`, which returns NULL if it does not know that version. A name
 * without '/' is looked for beside libparaedge.so, then where dlopen looks. */
PE_API int pe_engine_load(const char* library, pe_error** error);
/* Registers ONNX Runtime ("onnxruntime") from its shared library, libonnxruntime.so. The first one stays. */
PE_API int pe_engine_load_onnxruntime(const char* library, pe_error** error);

/* ---- bundle: immutable */
typedef struct pe_bundle pe_bundle;
enum { PE_INPUT_IMAGE = 0, PE_INPUT_TENSOR = 1 };
/* A folder, or one stored zip. If the environment variable PARAEDGE_TRUSTED_KEYS is set, only what a key of it signed. */
PE_API pe_bundle* pe_bundle_open(const char* path, pe_error** error);
/* The same, whatever the environment says: only a bundle that one of these keys signed. Each is a public key as
 * 'paraedge keygen' and minisign print it (56 letters), the path of its file, or of a folder of such files (*.pub).
 * PE_ERROR_INTEGRITY: the bundle is not signed, by another key, not any more, or was changed since. */
PE_API pe_bundle* pe_bundle_open_signed(const char* path, const char* const* trusted_keys, size_t num_trusted_keys, pe_error** error);
PE_API void pe_bundle_free(pe_bundle*);                               /* sessions of it go on */
PE_API const char* pe_bundle_name(const pe_bundle*);
PE_API const char* pe_bundle_engine(const pe_bundle*);
PE_API int64_t pe_bundle_version(const pe_bundle*); /* of the model */
PE_API size_t pe_bundle_num_outputs(const pe_bundle*);
PE_API size_t pe_bundle_num_labels(const pe_bundle*);                /* 0: the output is a vector without labels */
PE_API const char* pe_bundle_label(const pe_bundle*, size_t index);  /* NULL: no such label */
PE_API size_t pe_bundle_num_branches(const pe_bundle*);
PE_API int pe_bundle_branch_index(const pe_bundle*, size_t position); /* -1: no such position */
PE_API int pe_bundle_has_early_stop(const pe_bundle*);                /* it was calibrated for it at export */
PE_API int pe_bundle_input_kind(const pe_bundle*);
/* What the model was trained to see of an image of another size: the whole of it, or the largest part of its own
 * proportions from the middle. paraedge scales no images; the rule is in docs/bundle-format.md. */
enum { PE_RESIZE_STRETCH = 0, PE_RESIZE_CROP = 1 };
PE_API int pe_bundle_input_resize(const pe_bundle*);
/* Shape of the stem's input, the batch of 1 first: (1, C, H, W) for images. Returns its rank; `shape` may be NULL. */
PE_API size_t pe_bundle_input_shape(const pe_bundle*, const int64_t** shape);

/* ---- session: a bundle loaded into an engine, and the threads that run it */
typedef struct pe_session pe_session;
enum { PE_PLACEMENT_NONE = 0, PE_PLACEMENT_AVOID_CALLER = 1, PE_PLACEMENT_PINNED = 2 };
typedef struct pe_session_options {
  size_t size;
  int threads;          /* that run branches, the caller's included; 0: one per branch, up to the cores allowed */
  int first_branches;   /* load the first so many; 0: all */
  int spin_us;          /* an idle worker spins so long before it sleeps; 50 */
  int placement;        /* PE_PLACEMENT_...; PE_PLACEMENT_AVOID_CALLER */
  const double* part_ms; /* median time of the stem and of each loaded branch on this device; NULL: learn it */
  size_t num_part_ms;
  const double* contention; /* factor of a branch's time while 1, 2, ... branches run; NULL: learn it */
  size_t num_contention;
} pe_session_options;
/* Defaults; `size` is sizeof(pe_session_options). */
PE_API void pe_session_options_init(pe_session_options*, size_t size);
/* With the engine registered under the name that the bundle says. Options of NULL: the defaults. The bundle may be freed
 * before the session. */
PE_API pe_session* pe_session_open(const pe_bundle*, const pe_session_options*, pe_error** error);
/* Ends requests with PE_ERROR_CANCELLED, starts nothing more, and waits at most so long for branches that are running.
 * PE_ERROR_ENGINE: one still is. Then call it again later, or never free the session: its threads end with the process. */
PE_API int pe_session_close(pe_session*, int timeout_ms, pe_error** error);
PE_API void pe_session_free(pe_session*); /* waits for branches that are still running */
PE_API int pe_session_threads(const pe_session*);
PE_API size_t pe_session_num_branches(const pe_session*);
/* Time of stem and first branch that is probably (0.9) not exceeded; NaN: not known yet. */
PE_API double pe_session_mandatory_ms(const pe_session*);

/* ---- request. Times are nanoseconds of the monotonic clock, as pe_now_ns() gives them. */
typedef struct pe_prediction pe_prediction;
PE_API int64_t pe_now_ns(void);
enum {
  PE_POLICY_ANYTIME = 0, /* those that will probably finish before it */
  PE_POLICY_ALL = 1      /* all */
};
enum {
  PE_OVERLOAD_RUN = 0, /* it runs, and its prediction comes late */
  PE_OVERLOAD_DROP = 1 /* it is refused at once, with PE_ERROR_DROPPED */
};
typedef struct pe_run_options {
  size_t size;
  int first_branches;     /* run the first so many of the loaded branches; 0: all */
  const int* branches;    /* or those with these indexes, ascending; NULL: see first_branches */
  size_t num_branches;
  int policy;             /* which branches are started under a deadline: PE_POLICY_...; PE_POLICY_ANYTIME */
  int early_stop;         /* not 0: return the first prefix whose confidence reaches its threshold */
  int64_t deadline_ns;    /* return then with the best finished sum; INT64_MAX: none */
  int64_t leave_ns;       /* the same, for a caller that has to leave earlier: `deadline_met` is about deadline_ns */
  /* Called on the caller's thread whenever the prediction has improved; 0: that is enough. It is not called when all
   * branches finish before the caller looks. `so_far` is valid during the call. */
  int (*on_prediction)(const pe_prediction* so_far, void* context);
  /* Polled on the caller's thread while it waits; not 0: the request ends with PE_ERROR_CANCELLED. */
  int (*cancelled)(void* context);
  void* context;
  int on_overload;        /* what becomes of a request that will probably have no prediction before its deadline, since it
                             waits behind others or the first branch takes too long: PE_OVERLOAD_...; PE_OVERLOAD_RUN */
} pe_run_options;
/* Defaults; `size` is sizeof(pe_run_options). */
PE_API void pe_run_options_init(pe_run_options*, size_t size);
/* `image` is uint8 (H, W, C) of the size that the bundle reads. Options of NULL: the defaults. */
PE_API pe_prediction* pe_session_run_image(pe_session*, const uint8_t* image, size_t bytes, const pe_run_options*, pe_error** error);
/* `values` is float32: the raw sensor values of a bundle that reads tensors, or (1, C, H, W), normalised, for images. */
PE_API pe_prediction* pe_session_run_tensor(pe_session*, const float* values, size_t count, const pe_run_options*, pe_error** error);

/* ---- prediction: immutable */
enum {
  PE_BRANCH_USED = 0,      /* in the sum */
  PE_BRANCH_FAILED,        /* the engine refused */
  PE_BRANCH_NOT_FINITE,    /* its output has NaN or infinity */
  PE_BRANCH_WOULD_NOT_FIT, /* not started: predicted to miss the deadline */
  PE_BRANCH_LATE,          /* running or waiting at the deadline */
  PE_BRANCH_NOT_NEEDED     /* the prediction was confident enough without it */
};
typedef struct pe_branch_run {
  size_t size;
  int index, state, thread;       /* thread 0: the caller's; -1: never started */
  float start_ms, end_ms;         /* since the request began; end_ms is 0 if it has not finished */
  float predicted_ms, left_ms;    /* when it was last decided on: its time and the time left; NaN: never */
  const char* problem;            /* why it failed; "" if it did not */
} pe_branch_run;
PE_API void pe_prediction_free(pe_prediction*);
PE_API const float* pe_prediction_output(const pe_prediction*, size_t* count); /* sum of the used branches */
/* (rows, count): what each used branch contributed, in order of index. */
PE_API const float* pe_prediction_branch_outputs(const pe_prediction*, size_t* rows, size_t* count);
PE_API size_t pe_prediction_label_index(const pe_prediction*); /* of the largest output */
PE_API float pe_prediction_confidence(const pe_prediction*);   /* softmax probability of that label; NaN for a vector */
PE_API int pe_prediction_is_calibrated(const pe_prediction*);  /* the confidence was calibrated at export */
PE_API float pe_prediction_elapsed_ms(const pe_prediction*);
PE_API float pe_prediction_stem_ms(const pe_prediction*);
PE_API int pe_prediction_deadline_met(const pe_prediction*);
PE_API int pe_prediction_requests_to_learn(const pe_prediction*); /* until this device's speed is known */
PE_API size_t pe_prediction_num_branches(const pe_prediction*);   /* that were asked for */
/* Fills in `run`, whose size the caller sets to sizeof(pe_branch_run), and returns 1; 0: no such position, or no size. */
PE_API int pe_prediction_branch(const pe_prediction*, size_t position, pe_branch_run* run);

#ifdef __cplusplus
}
#endif
#endif
