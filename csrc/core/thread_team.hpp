// Threads of the host as a team (team.hpp): what tests put in place of a GPU's threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "core/team.hpp"

namespace graphmatch {

// What the members of a team share: a barrier, and a slot for each of them.
class TeamBoard {
 public:
  explicit TeamBoard(std::int64_t size) : size_(size), values_(size), wide_(size), indices_(size) {}

  std::int64_t size() const { return size_; }
  void wait() {
    if (size_ == 1) return;
    std::unique_lock<std::mutex> lock(mutex_);
    const std::int64_t round = round_;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
      released_.notify_all();
    } else {
      released_.wait(lock, [&] { return round_ != round; });
    }
  }
  double& value(std::int64_t rank) { return values_[static_cast<std::size_t>(rank)]; }
  std::int64_t& wide(std::int64_t rank) { return wide_[static_cast<std::size_t>(rank)]; }
  std::int32_t& index(std::int64_t rank) { return indices_[static_cast<std::size_t>(rank)]; }

 private:
  const std::int64_t size_;
  std::mutex mutex_;
  std::condition_variable released_;
  std::int64_t arrived_ = 0;
  std::int64_t round_ = 0;
  std::vector<double> values_;
  std::vector<std::int64_t> wide_;
  std::vector<std::int32_t> indices_;
};

// One member of a team without groups.
class ThreadGroup {
 public:
  ThreadGroup(TeamBoard& board, std::int64_t rank) : board_(&board), rank_(rank) {}

  std::int64_t rank() const { return rank_; }
  std::int64_t size() const { return board_->size(); }
  void sync() const { board_->wait(); }

  double reduce_sum(double value) const {
    return exchange<double>(value, [](double sum, double other) { return sum + other; });
  }
  template <class T>
  T reduce_min(T value) const {
    return exchange<T>(value, [](T lowest, T other) { return other < lowest ? other : lowest; });
  }
  template <class T>
  T reduce_max(T value) const {
    return exchange<T>(value, [](T highest, T other) { return highest < other ? other : highest; });
  }
  template <class T>
  Found<T> argmin(T value, std::int32_t index) const {
    slot<T>(rank_) = value;
    board_->index(rank_) = index;
    board_->wait();
    Found<T> best{static_cast<T>(slot<T>(0)), board_->index(0)};
    for (std::int64_t rank = 1; rank < size(); ++rank) {
      const T other = static_cast<T>(slot<T>(rank));
      const std::int32_t at = board_->index(rank);
      if (other < best.value || (other == best.value && at < best.index)) best = {other, at};
    }
    board_->wait();  // nobody writes the next value before all have read
    return best;
  }

  ThreadGroup& group() { return *this; }
  std::int64_t group_index() const { return 0; }
  std::int64_t group_count() const { return 1; }
  bool is_leading() const { return true; }
  ThreadGroup& lead() { return *this; }

 private:
  // Integers of 64 bits do not fit into doubles.
  template <class T>
  decltype(auto) slot(std::int64_t rank) const {
    if constexpr (std::is_integral_v<T>) {
      return board_->wide(rank);
    } else {
      return board_->value(rank);
    }
  }

  template <class T, class Fold>
  T exchange(T value, const Fold& fold) const {
    slot<T>(rank_) = value;
    board_->wait();
    T folded = static_cast<T>(slot<T>(0));
    for (std::int64_t rank = 1; rank < size(); ++rank) folded = fold(folded, static_cast<T>(slot<T>(rank)));
    board_->wait();
    return folded;
  }

  TeamBoard* board_;
  std::int64_t rank_;
};

// One member of a team that consists of groups. Its leading part is `lead` if that is given, else the team itself.
class ThreadTeam : public ThreadGroup {
 public:
  ThreadTeam(TeamBoard& board, std::deque<TeamBoard>& groups, std::int64_t rank)
      : ThreadGroup(board, rank),
        group_count_(board.size() / groups.front().size()),
        group_index_(rank / groups.front().size()),
        group_(groups[group_index_], rank % groups.front().size()) {}

  // A team that is led by its first members only, as a cluster of blocks is by its first block.
  ThreadTeam(TeamBoard& board, std::deque<TeamBoard>& groups, TeamBoard& leaders, std::int64_t rank)
      : ThreadTeam(board, groups, rank) {
    is_leading_ = rank < leaders.size();
    if (is_leading_) lead_ = std::make_unique<ThreadTeam>(leaders, groups, rank);
  }

  ThreadGroup& group() { return group_; }
  std::int64_t group_index() const { return group_index_; }
  std::int64_t group_count() const { return group_count_; }
  bool is_leading() const { return is_leading_; }
  ThreadTeam& lead() { return lead_ == nullptr ? *this : *lead_; }

 private:
  std::int64_t group_count_, group_index_;
  ThreadGroup group_;
  bool is_leading_ = true;
  std::unique_ptr<ThreadTeam> lead_;
};

// Runs task(team) on `blocks` blocks of `groups` groups of `group_size` threads; the first block leads.
template <class Task>
void run_on_threads(std::int64_t blocks, std::int64_t groups, std::int64_t group_size, const Task& task) {
  const std::int64_t block_size = groups * group_size;
  TeamBoard board(blocks * block_size), leaders(block_size);
  std::deque<TeamBoard> group_boards;
  std::vector<std::thread> threads;
  for (std::int64_t g = 0; g < blocks * groups; ++g) group_boards.emplace_back(group_size);
  for (std::int64_t rank = 0; rank < board.size(); ++rank) {
    threads.emplace_back([&, rank] {
      ThreadTeam team(board, group_boards, leaders, rank);
      task(team);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace graphmatch
