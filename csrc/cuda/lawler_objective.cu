#include "cuda/lawler_objective.hpp"

#include <algorithm>

#include "core/objective_kernel.hpp"
#include "cuda/teams.cuh"

namespace graphmatch {
namespace {

constexpr int kBlockThreads = 256;
constexpr std::int64_t kLargestGrid = 2147483647;

template <class T>
__global__ void __launch_bounds__(kBlockThreads)
    lawler_objective_kernel(LawlerBatch<T> batch, const std::int64_t* assignment, double* objective) {
  __shared__ BlockBoard board;
  BlockTeam team(board);
  for (std::int64_t index = blockIdx.x; index < batch.count; index += gridDim.x) {
    const double value = lawler_objective(batch.problem(index), assignment + index * batch.first.rows, team);
    if (team.rank() == 0) objective[index] = value;
  }
}

}  // namespace

template <class T>
cudaError_t launch_lawler_objective(const LawlerBatch<T>& batch, const std::int64_t* assignment, double* objective,
                                    cudaStream_t stream) {
  if (batch.count == 0) return cudaSuccess;  // an empty grid is a launch error
  const auto blocks = static_cast<unsigned int>(std::min(batch.count, kLargestGrid));
  lawler_objective_kernel<T><<<blocks, kBlockThreads, 0, stream>>>(batch, assignment, objective);
  return cudaGetLastError();
}

template cudaError_t launch_lawler_objective(const LawlerBatch<float>&, const std::int64_t*, double*, cudaStream_t);
template cudaError_t launch_lawler_objective(const LawlerBatch<double>&, const std::int64_t*, double*, cudaStream_t);

}  // namespace graphmatch
