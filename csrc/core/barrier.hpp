// The number that stands for "forbidden" among costs.
#pragma once

namespace graphmatch {

// Costs are scaled to at most 1 before they enter float tables, so this survives additions.
inline constexpr float kBarrier = 1e30f;
inline constexpr float kBarrierTest = 1e29f;

}  // namespace graphmatch
