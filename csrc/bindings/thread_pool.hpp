// Runs tasks on several threads: those of OpenMP where they are at hand, else a pool of the process's own, shared by
// all calls from all Python threads.
#pragma once

#ifndef _WIN32
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "bindings/openmp.hpp"
#include "core/stop.hpp"

namespace graphmatch {

class ThreadPool {
 public:
  // The pool of this process. A forked child gets a fresh one: threads do not survive a fork. Found without a lock,
  // which a child would inherit locked if another thread held it at the fork.
  static ThreadPool& instance() {
    static std::atomic<ThreadPool*> pool{nullptr};  // never destroyed: workers may outlive static destructors
    ThreadPool* present = pool.load();
    if (present != nullptr && present->owner_ == process()) return *present;
    auto fresh = std::make_unique<ThreadPool>();
    // Another thread may have been quicker: then `present` is its pool.
    return pool.compare_exchange_strong(present, fresh.get()) ? *fresh.release() : *present;
  }

  // Runs task(0) ... task(count - 1) on up to `threads` threads, the calling one included. Returns when all are done;
  // the first exception is thrown here and asks the others to stop.
  void run(std::int64_t count, std::int64_t threads, Stop& stop, const std::function<void(std::int64_t)>& task) {
    auto job = std::make_shared<Job>(count, stop, task);
    const std::int64_t helpers = std::min(threads, count) - 1;
    auto lead = [&] {
      job->work();
      // Wakes up now and then so that the owner's poll can see an interrupt.
      while (!job->wait_for(std::chrono::milliseconds(20))) stop.requested();
    };
    const OpenMp& openmp = OpenMp::instance();
    if (helpers > 0 && openmp.has_team_of(threads)) {
      const std::thread::id caller = std::this_thread::get_id();
      openmp.run(threads, [&] { std::this_thread::get_id() == caller ? lead() : job->work(); });
    } else {
      if (helpers > 0) enlist(job, helpers);
      lead();
    }
    // Taken out of the job: a worker that is late to let go of the job must not be the one to destroy the exception.
    if (const std::exception_ptr error = job->take_error()) std::rethrow_exception(error);
  }

 private:
  struct Job {
    Job(std::int64_t count, Stop& stop, const std::function<void(std::int64_t)>& task)
        : count(count), stop(stop), task(task) {}

    void work() {
      for (;;) {
        const std::int64_t index = next.fetch_add(1);
        if (index >= count) return;
        try {
          task(index);
        } catch (...) {
          const std::lock_guard<std::mutex> lock(mutex);
          if (!error) error = std::current_exception();
          stop.request();
        }
        if (done.fetch_add(1) + 1 == count) {
          const std::lock_guard<std::mutex> lock(mutex);
          finished.notify_all();
        }
      }
    }

    bool wait_for(std::chrono::milliseconds patience) {
      std::unique_lock<std::mutex> lock(mutex);
      return finished.wait_for(lock, patience, [&] { return done.load() >= count; });
    }

    std::exception_ptr take_error() {
      const std::lock_guard<std::mutex> lock(mutex);
      return std::exchange(error, nullptr);
    }

    const std::int64_t count;
    Stop& stop;                                     // alive until run() returns, which is after the last task
    const std::function<void(std::int64_t)>& task;  // likewise
    std::atomic<std::int64_t> next{0};
    std::atomic<std::int64_t> done{0};
    std::mutex mutex;
    std::condition_variable finished;
    std::exception_ptr error;
  };

  void enlist(const std::shared_ptr<Job>& job, std::int64_t helpers) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::int64_t k = 0; k < helpers; ++k) jobs_.push_back(job);
    while (static_cast<std::int64_t>(jobs_.size()) > idle_ && workers_ < kMaxWorkers) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        break;  // the system has no more threads: those that exist, and the calling one, do the work
      }
      ++workers_;
      ++idle_;
    }
    available_.notify_all();
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      available_.wait(lock, [&] { return !jobs_.empty(); });
      const std::shared_ptr<Job> job = std::move(jobs_.front());
      jobs_.pop_front();
      --idle_;
      lock.unlock();
      job->work();
      lock.lock();
      ++idle_;
    }
  }

  // Tells a forked child from its parent; Windows has no forks.
  static std::int64_t process() {
#ifdef _WIN32
    return 0;
#else
    return getpid();
#endif
  }

  static constexpr std::int64_t kMaxWorkers = 256;

  const std::int64_t owner_ = process();
  std::mutex mutex_;
  std::condition_variable available_;
  std::deque<std::shared_ptr<Job>> jobs_;
  std::int64_t workers_ = 0;
  std::int64_t idle_ = 0;
};

}  // namespace graphmatch
