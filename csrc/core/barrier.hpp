// The number that stands for "forbidden" among costs.
#pragma once

#include "core/host_device.hpp"

namespace graphmatch {

// Costs are scaled to at most 1 before they enter float tables, so this survives additions.
inline constexpr float kBarrier = 1e30f;
inline constexpr float kBarrierTest = 1e29f;

// A label without a finite partner keeps its message: its minimum is a barrier, not a cost.
GRAPHMATCH_HOST_DEVICE inline float finite_or_zero(float value) { return value < kBarrierTest ? value : 0.0f; }

}  // namespace graphmatch
