// Cooperative stopping: solvers ask `requested()` once per iteration.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <utility>

namespace graphmatch {

// Shared by all problems of one call. A deadline, any thread's `request()`, or the owner's poll ends them all at their
// next question.
class Stop {
 public:
  using Clock = std::chrono::steady_clock;

  // seconds < 0: no deadline. `poll` runs on the constructing thread only, about every 50 ms while that thread asks
  // `requested()`; true means stop.
  explicit Stop(double seconds = -1.0, std::function<bool()> poll = nullptr)
      : poll_(std::move(poll)), owner_(std::this_thread::get_id()), next_poll_(Clock::now() + kPollInterval) {
    if (seconds >= 0 && seconds < kForever) {
      deadline_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
    }
  }

  // A shorter deadline for one problem of a call; whatever stops the call stops it too.
  Stop(Stop& call, double seconds) : Stop(seconds) { call_ = &call; }

  void request() { requested_.store(true, std::memory_order_relaxed); }

  bool requested() {
    if (cancelled()) return true;
    if (call_ != nullptr && call_->requested()) return true;
    const Clock::time_point now = Clock::now();
    if (poll_ && std::this_thread::get_id() == owner_ && now >= next_poll_) {
      next_poll_ = now + kPollInterval;
      if (poll_()) request();
    }
    return cancelled() || now >= deadline_;
  }

  // Whether it was not the deadline: nobody will look at the answers.
  bool cancelled() const {
    return requested_.load(std::memory_order_relaxed) || (call_ != nullptr && call_->cancelled());
  }

  // Until the deadline; a large number without one.
  double seconds_left() const {
    return deadline_ == Clock::time_point::max() ? kForever
                                                 : std::chrono::duration<double>(deadline_ - Clock::now()).count();
  }

 private:
  static constexpr double kForever = 1e9;  // seconds; keeps the conversion to clock ticks from overflowing
  static constexpr std::chrono::milliseconds kPollInterval{50};

  Stop* call_ = nullptr;
  std::atomic<bool> requested_{false};
  const std::function<bool()> poll_;
  const std::thread::id owner_;
  Clock::time_point next_poll_;  // touched by the owner only
  Clock::time_point deadline_ = Clock::time_point::max();
};

}  // namespace graphmatch
