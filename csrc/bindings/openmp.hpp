// The threads of GNU OpenMP where PyTorch has brought it into the process. It is looked up at run time: the build needs
// neither of them.
#pragma once

#ifndef _WIN32
#include <dlfcn.h>
#include <pthread.h>
#endif

#include <atomic>
#include <cstdint>
#include <functional>

namespace graphmatch {

#ifdef _WIN32

// PyTorch brings another runtime on Windows, whose threads cannot be borrowed.
class OpenMp {
 public:
  static const OpenMp& instance() {
    static const OpenMp runtime;
    return runtime;
  }
  bool has_team_of(std::int64_t) const { return false; }
  void run(std::int64_t, const std::function<void()>& work) const { work(); }
};

#else

// PyTorch's threads keep spinning for milliseconds after each of its parallel operations, on the very cores that
// threads of our own would need. A team of them starts at once instead.
class OpenMp {
 public:
  static const OpenMp& instance() {
    static const OpenMp runtime;
    return runtime;
  }

  // Whether the team of this thread has exactly `threads` threads, as for PyTorch's own operations: another size would
  // build it anew with every call. Not after a fork: its threads stay behind, and the child would wait for them.
  bool has_team_of(std::int64_t threads) const {
    return parallel_ != nullptr && !forked() && in_parallel_() == 0 && max_threads_() == threads;
  }

  // Runs `work` once on each thread of the team, the calling one included.
  void run(std::int64_t threads, const std::function<void()>& work) const {
    auto call = [](void* data) { (*static_cast<const std::function<void()>*>(data))(); };
    parallel_(call, const_cast<std::function<void()>*>(&work), static_cast<unsigned>(threads), 0);
  }

 private:
  OpenMp()
      : parallel_(reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"))),
        in_parallel_(reinterpret_cast<Ask>(dlsym(RTLD_DEFAULT, "omp_in_parallel"))),
        max_threads_(reinterpret_cast<Ask>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"))) {
    const bool complete = parallel_ != nullptr && in_parallel_ != nullptr && max_threads_ != nullptr;
    if (!complete || pthread_atfork(nullptr, nullptr, [] { forked() = true; }) != 0) parallel_ = nullptr;
  }

  static std::atomic<bool>& forked() {
    static std::atomic<bool> value{false};
    return value;
  }

  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  using Ask = int (*)();
  Parallel parallel_;
  Ask in_parallel_;
  Ask max_threads_;
};

#endif

}  // namespace graphmatch
