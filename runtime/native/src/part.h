// One program of a bundle, loaded into ExecuTorch with one thread of its own.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "paraedge/runtime.h"

namespace paraedge {

enum class Threading {
  one,   // one thread, no shared workspace: such parts run at the same time
  pool,  // ExecuTorch's pool splits every operator over its threads; one such part at a time
};

// Threads of ExecuTorch's pool, of which a process has one.
int pool_threads();
// Only before anything is loaded: what is loaded keeps the pool it found.
void resize_pool(int threads);

class LoadedPart {
 public:
  // Throws Refusal: `manifest` when the program's shapes are not the manifest's, else `engine`.
  // The bytes must outlive the part. Load parts one after another, not at the same time.
  LoadedPart(const Program& program, const std::string& name, Threading threading);
  ~LoadedPart();

  // Computes the part into `output`. One thread at a time; different parts may run at the same time.
  // A part with Threading::one needs OneThread around it. Returns what went wrong, or an empty string.
  std::string run(const float* input, std::span<float> output);

  const std::string& name() const { return name_; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::string name_;
};

// Makes the calling thread run every kernel by itself as long as this lives; cheap. Kernels outside a
// delegate ask for the pool when they run, delegates when they are loaded.
class OneThread {
 public:
  OneThread();
  ~OneThread();

 private:
  bool before_;
};

}  // namespace paraedge
