#include "cuda/linear.hpp"

#include <algorithm>

#include "core/arena.hpp"
#include "core/team_linear.hpp"
#include "cuda/teams.cuh"

namespace graphmatch {
namespace {

constexpr std::int64_t kLargestForWarps = 256;  // rows and columns
constexpr int kWarps = 2;  // of a block of theirs: few, so that problems spread over the GPU evenly
constexpr int kBlockThreads = 256;
// Blocks of each kind at once on a processor, as far as registers go.
constexpr int kWarpResidents = 12;
constexpr int kBlockResidents = 2;
constexpr std::int64_t kMostShared = 200 * 1024;
constexpr std::int64_t kLargestGrid = 2147483647;

struct Layout {
  bool by_warps = false;
  std::int64_t problem_bytes = 0;  // memory of one problem, a multiple of 16
  bool shared = true;              // whether that is shared memory
  std::int64_t most_shared = 0;    // that a block may have
  std::int64_t most_blocks = 0;    // that problems in global memory keep busy
};

template <class T>
cudaError_t plan(const LinearBatch<T>& batch, Layout& layout) {
  const LinearProblem<T>& first = batch.first;
  layout.by_warps = std::max(first.rows, first.columns) <= kLargestForWarps;
  layout.problem_bytes = (TeamLinearMemory::bytes(first.rows, first.columns, first.complete) + 15) / 16 * 16;
  if (layout.by_warps) return cudaSuccess;
  int device = 0, limit = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  layout.most_shared = std::min(limit - static_cast<std::int64_t>(sizeof(BlockBoard)), kMostShared);
  layout.shared = layout.problem_bytes <= layout.most_shared;
  layout.most_blocks = kBlockResidents * static_cast<std::int64_t>(processors);
  return error;
}

// Solves problem `index` in memory that holds the largest one.
template <class T, class Team>
__device__ void solve_problem(Team& team, const LinearBatch<T>& batch, const LinearAnswers& answers, std::int64_t index,
                              void* memory) {
  const std::int64_t padded_rows = batch.first.rows, padded_columns = batch.first.columns;
  LinearProblem<T> problem = batch.first;
  problem.costs += index * batch.batch_stride;
  if (batch.sizes != nullptr) {
    problem.rows = batch.sizes[2 * index];
    problem.columns = batch.sizes[2 * index + 1];
  }
  std::int64_t* assignment = answers.assignment + index * padded_rows;
  const LinearDuals duals{answers.row_duals + index * padded_rows, answers.column_duals + index * padded_columns};
  share_out(team, padded_rows, [&](std::int64_t i) {
    assignment[i] = -1;
    duals.rows[i] = 0.0;
  });
  share_out(team, padded_columns, [&](std::int64_t k) { duals.columns[k] = 0.0; });

  Solution solution;
  if (problem.rows < 0 || problem.rows > padded_rows || problem.columns < 0 || problem.columns > padded_columns) {
    solution = {Status::kInvalid, NAN, NAN, 0, Stage::kNone};
  } else {
    LinearStart start;
    if (batch.starts != nullptr) start.matching = batch.starts + index % batch.start_count * padded_rows;
    Arena arena(memory);
    TeamLinearMemory placed;
    placed.place(arena, problem.rows, problem.columns, problem.complete);
    solution = solve_linear(team, problem, start, duals, placed, assignment);
  }
  if (team.rank() == 0) {
    answers.write(index, solution);
  }
}

template <class T>
__global__ void __launch_bounds__(kWarps* kWarpThreads, kWarpResidents)
    linear_by_warps(LinearBatch<T> batch, LinearAnswers answers, std::int64_t problem_bytes) {
  extern __shared__ __align__(16) unsigned char shared[];
  const int warp = threadIdx.x / kWarpThreads;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kWarps;
  WarpTeam team;
  for (std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp; index < batch.count; index += step) {
    solve_problem(team, batch, answers, index, shared + warp * problem_bytes);
  }
}

// In the scratch memory if there is some, else in shared memory.
template <class T>
__global__ void __launch_bounds__(kBlockThreads, kBlockResidents)
    linear_by_blocks(LinearBatch<T> batch, LinearAnswers answers, std::int64_t problem_bytes, unsigned char* scratch) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ BlockBoard board;
  BlockTeam team(board);
  unsigned char* memory = scratch == nullptr ? shared : scratch + blockIdx.x * problem_bytes;
  for (std::int64_t index = blockIdx.x; index < batch.count; index += gridDim.x) {
    solve_problem(team, batch, answers, index, memory);
  }
}

}  // namespace

template <class T>
cudaError_t linear_scratch_bytes(const LinearBatch<T>& batch, std::int64_t& bytes) {
  Layout layout;
  const cudaError_t error = plan(batch, layout);
  bytes = layout.shared ? 0 : std::min(batch.count, layout.most_blocks) * layout.problem_bytes;
  return error;
}

template <class T>
cudaError_t launch_linear_assignment(const LinearBatch<T>& batch, const LinearAnswers& answers, void* scratch,
                                     std::int64_t scratch_bytes, cudaStream_t stream) {
  if (batch.count == 0) return cudaSuccess;  // an empty grid is a launch error
  Layout layout;
  cudaError_t error = plan(batch, layout);
  if (error != cudaSuccess) return error;
  const auto grid = [](std::int64_t blocks) { return static_cast<unsigned int>(std::min(blocks, kLargestGrid)); };
  const auto shared_bytes = static_cast<std::size_t>(layout.problem_bytes);
  if (layout.by_warps) {
    linear_by_warps<T>
        <<<grid((batch.count + kWarps - 1) / kWarps), kWarps * kWarpThreads, kWarps * shared_bytes, stream>>>(
            batch, answers, layout.problem_bytes);
  } else if (layout.shared) {
    // The same limit in every call: others may launch at the same time.
    error = cudaFuncSetAttribute(linear_by_blocks<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(layout.most_shared));
    if (error != cudaSuccess) return error;
    linear_by_blocks<T>
        <<<grid(batch.count), kBlockThreads, shared_bytes, stream>>>(batch, answers, layout.problem_bytes, nullptr);
  } else {
    const std::int64_t blocks = std::min(batch.count, scratch_bytes / layout.problem_bytes);
    if (scratch == nullptr || blocks == 0) return cudaErrorInvalidValue;
    linear_by_blocks<T><<<grid(blocks), kBlockThreads, 0, stream>>>(batch, answers, layout.problem_bytes,
                                                                    static_cast<unsigned char*>(scratch));
  }
  return cudaGetLastError();
}

template cudaError_t linear_scratch_bytes(const LinearBatch<float>&, std::int64_t&);
template cudaError_t linear_scratch_bytes(const LinearBatch<double>&, std::int64_t&);
template cudaError_t launch_linear_assignment(const LinearBatch<float>&, const LinearAnswers&, void*, std::int64_t,
                                              cudaStream_t);
template cudaError_t launch_linear_assignment(const LinearBatch<double>&, const LinearAnswers&, void*, std::int64_t,
                                              cudaStream_t);

}  // namespace graphmatch
