// The threads of one block as a team (core/team.hpp).
#pragma once

#include <cstdint>

namespace graphmatch {

inline constexpr int kBlockThreads = 256;
inline constexpr int kWarpThreads = 32;

class BlockTeam {
 public:
  __device__ std::int64_t rank() const { return threadIdx.x; }
  __device__ std::int64_t size() const { return kBlockThreads; }

  // A fixed tree: halves of each warp, then the warps in order. No atomics, so every run adds in the same order.
  __device__ double reduce_sum(double value) const {
    __shared__ double of_warp[kBlockThreads / kWarpThreads];
    for (int offset = kWarpThreads / 2; offset > 0; offset /= 2) value += __shfl_down_sync(0xffffffffu, value, offset);
    __syncthreads();  // member 0 may still be reading the sums of the reduction before this one
    if (threadIdx.x % kWarpThreads == 0) of_warp[threadIdx.x / kWarpThreads] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int warp = 1; warp < kBlockThreads / kWarpThreads; ++warp) value += of_warp[warp];
    }
    return value;
  }
};

}  // namespace graphmatch
