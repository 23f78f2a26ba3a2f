// A team is what executes one problem: a single thread on the CPU, a block of threads on the GPU.
//
// An algorithm written for a team asks it for
//   rank(), size()       this member's number in [0, size()),
//   reduce_sum(value)    the sum over all members, added in an order that depends on size() only. Every member calls
//   it,
//                        member 0 gets the sum.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace graphmatch {

struct SerialTeam {
  GRAPHMATCH_HOST_DEVICE std::int64_t rank() const { return 0; }
  GRAPHMATCH_HOST_DEVICE std::int64_t size() const { return 1; }
  GRAPHMATCH_HOST_DEVICE double reduce_sum(double value) const { return value; }
};

}  // namespace graphmatch
