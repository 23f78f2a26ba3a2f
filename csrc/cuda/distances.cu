#include "cuda/distances.hpp"

#include <algorithm>

#include "core/team_distances.hpp"
#include "cuda/teams.cuh"

namespace graphmatch {
namespace {

constexpr int kWarps = 4;  // of a block
constexpr std::int64_t kLargestGrid = 65536;

// A warp per tile.
template <class T>
__global__ void __launch_bounds__(kWarps* kWarpThreads)
    distances_kernel(const T* points, std::int64_t batch, std::int64_t count, std::int64_t dim, T* distances) {
  const std::int64_t tiles = distance_tiles(count) * distance_tiles(count);
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kWarps;
  WarpTeam team;
  for (std::int64_t job = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpThreads;
       job < batch * tiles; job += step) {
    const std::int64_t set = job / tiles;
    write_distances(team, points + set * count * dim, count, dim, job % tiles, distances + set * count * count);
  }
}

}  // namespace

template <class T>
cudaError_t launch_distances(const T* points, std::int64_t batch, std::int64_t count, std::int64_t dim, T* distances,
                             cudaStream_t stream) {
  if (batch == 0 || count == 0) return cudaSuccess;  // an empty grid is a launch error
  const std::int64_t tiles = distance_tiles(count) * distance_tiles(count);
  const std::int64_t blocks = std::min((batch * tiles + kWarps - 1) / kWarps, kLargestGrid);
  distances_kernel<T>
      <<<static_cast<unsigned int>(blocks), kWarps * kWarpThreads, 0, stream>>>(points, batch, count, dim, distances);
  return cudaGetLastError();
}

template cudaError_t launch_distances(const float*, std::int64_t, std::int64_t, std::int64_t, float*, cudaStream_t);
template cudaError_t launch_distances(const double*, std::int64_t, std::int64_t, std::int64_t, double*, cudaStream_t);

}  // namespace graphmatch
