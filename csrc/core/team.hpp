// A team is what executes one problem: a thread on the CPU, a warp, a block or a cluster of blocks on the GPU.
// Algorithms written for a team run on all of them; on the host, threads that meet at barriers stand in for those of a
// GPU (thread_team.hpp), so that the logic of the kernels is tested without one.
//
// All members of a team call the same functions in the same order. A team offers
//   rank(), size()           this member's number in [0, size())
//   sync()                   all members wait for each other; each then sees what the others wrote before
//   reduce_sum(value)        the sum over all members, added in an order that depends on size() only
//   reduce_min(value)        the lowest value, reduce_max(value) the highest one; no NaN
//   argmin(value, index)     the lowest value with its index; among equals the lowest index
//   group()                  the part of the team (a warp) whose members synchronise cheaply; group_index() is its
//   number
//                            in [0, group_count())
//   is_leading()             whether this member belongs to the part that does what cannot be shared out widely: lead()
// Every member gets the result of a reduction. Reductions synchronise; sync() orders all other memory accesses.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace graphmatch {

// A value and where it was found. An index of kNowhere stands for "none".
inline constexpr std::int32_t kNowhere = 2147483647;

template <class T>
struct Found {
  T value;
  std::int32_t index;
};

struct SerialTeam {
  GRAPHMATCH_HOST_DEVICE std::int64_t rank() const { return 0; }
  GRAPHMATCH_HOST_DEVICE std::int64_t size() const { return 1; }
  GRAPHMATCH_HOST_DEVICE void sync() const {}
  GRAPHMATCH_HOST_DEVICE double reduce_sum(double value) const { return value; }
  template <class T>
  GRAPHMATCH_HOST_DEVICE T reduce_min(T value) const {
    return value;
  }
  template <class T>
  GRAPHMATCH_HOST_DEVICE T reduce_max(T value) const {
    return value;
  }
  template <class T>
  GRAPHMATCH_HOST_DEVICE Found<T> argmin(T value, std::int32_t index) const {
    return {value, index};
  }
  GRAPHMATCH_HOST_DEVICE SerialTeam& group() { return *this; }
  GRAPHMATCH_HOST_DEVICE std::int64_t group_index() const { return 0; }
  GRAPHMATCH_HOST_DEVICE std::int64_t group_count() const { return 1; }
  GRAPHMATCH_HOST_DEVICE bool is_leading() const { return true; }
  GRAPHMATCH_HOST_DEVICE SerialTeam& lead() { return *this; }
};

// Calls visit(k) for this member's share of 0 ... count - 1.
template <class Team, class Visit>
GRAPHMATCH_HOST_DEVICE void share_out(const Team& team, std::int64_t count, const Visit& visit) {
  for (std::int64_t k = team.rank(); k < count; k += team.size()) visit(k);
}

}  // namespace graphmatch
