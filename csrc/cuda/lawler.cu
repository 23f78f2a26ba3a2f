#include "cuda/lawler.hpp"

#include <algorithm>

#include "core/team_lawler.hpp"
#include "cuda/teams.cuh"

namespace graphmatch {
namespace {

constexpr int kFewThreads = 128;  // of a block for small problems: many of them fit on a multiprocessor
constexpr int kManyThreads = 256;
constexpr int kMostThreads = 512;    // where there are more multiprocessors than problems
constexpr std::int64_t kSmall = 32;  // nodes
constexpr int kPortableBlocks = 8;   // of a cluster that every device of its kind can hold

// Searches read and write their table of moves all the time, the assignment block its costs: in shared memory, as long
// as two blocks find room.
constexpr std::int64_t kMostShared = 96 * 1024;

struct TeamPlace {
  ClusterBoard* board;
  TeamLawlerMemory memory;
  std::int64_t bytes, shared_bytes;

  template <class T>
  GRAPHMATCH_HOST_DEVICE TeamPlace(void* base, void* shared, const LawlerBatch<T>& batch) {
    const LawlerProblem<T>& padded = batch.first;
    Arena arena(base), fast(shared);
    board = arena.take<ClusterBoard>(1);
    memory.place(arena, padded.rows, padded.columns, padded.edge_count1, padded.edge_count2);
    memory.place_assignment(fast, padded.rows, padded.columns);
    const std::int64_t cells = padded.rows * padded.columns;
    if (fast.used() + cells * static_cast<std::int64_t>(sizeof(float)) <= kMostShared) {
      memory.dual.near = fast.take<float>(cells);
    }
    Arena counted(nullptr);
    memory.moves.place(counted, padded.rows, padded.columns);
    memory.moves.place(fast.used() + counted.used() <= kMostShared ? fast : arena, padded.rows, padded.columns);
    constexpr std::int64_t kLine = 128;
    bytes = (arena.used() + kLine - 1) / kLine * kLine;
    shared_bytes = fast.used();
  }
};

template <class T>
GRAPHMATCH_HOST_DEVICE std::int64_t longer_side(const LawlerBatch<T>& batch) {
  return batch.first.rows > batch.first.columns ? batch.first.rows : batch.first.columns;
}

// Sizes come from a tensor that nobody has looked at.
template <class T>
__device__ bool fits(const LawlerProblem<T>& problem, const LawlerProblem<T>& padded) {
  return problem.rows >= 0 && problem.rows <= padded.rows && problem.columns >= 0 &&
         problem.columns <= padded.columns && problem.edge_count1 >= 0 && problem.edge_count1 <= padded.edge_count1 &&
         problem.edge_count2 >= 0 && problem.edge_count2 <= padded.edge_count2;
}

template <class T>
__global__ void __launch_bounds__(kMostThreads)
    lawler_kernel(const LawlerBatch<T> batch, const LawlerOptions options, std::int64_t runs, const DualStateBatch warm,
                  const DualStateBatch kept, const AnswerBatch answers, int cluster_blocks, std::int64_t team_bytes,
                  unsigned char* scratch) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ BlockBoard board;
  const std::int64_t team_index = blockIdx.x / cluster_blocks;
  const std::int64_t teams = gridDim.x / cluster_blocks;
  TeamPlace place(scratch + team_index * team_bytes, shared, batch);
  ClusterTeam team(board, *place.board, cluster_blocks);
  for (std::int64_t job = team_index; job < batch.count * runs; job += teams) {
    const std::int64_t index = job / runs;
    const LawlerProblem<T> problem = batch.problem(index);
    std::int64_t* assignment = answers.assignment + job * batch.first.rows;
    // Padding is unmatched, and so are problems that do not fit.
    share_out(team, batch.first.rows, [&](std::int64_t i) { assignment[i] = -1; });
    Solution solution = invalid_solution();
    if (fits(problem, batch.first)) {
      team.sync();
      TeamLawlerSolver<T, ClusterTeam> solver(team, problem, options, place.memory);
      const TeamShare share{job % runs, runs > 1};
      solution = solver.solve(warm.dual(index), warm.matching(index), kept.dual(index), share, assignment);
    }
    if (team.rank() == 0) answers.write(job, solution);
    team.sync();  // the memory serves the next problem
  }
}

// A failed query leaves its error behind, which the next launch would report as its own.
cudaError_t forget(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

// `cluster` has to live as long as the launch.
cudaLaunchConfig_t launch_of(const LawlerPlan& plan, std::int64_t teams, cudaLaunchAttribute& cluster) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(teams * plan.cluster_blocks));
  config.blockDim = dim3(static_cast<unsigned>(plan.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(plan.shared_bytes);
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(plan.cluster_blocks);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  config.attrs = &cluster;
  config.numAttrs = plan.cluster_blocks > 1 ? 1 : 0;
  return config;
}

// Whether this device holds `teams` such clusters at once. Allows clusters that not every device of its kind can hold.
template <class T>
bool holds(const LawlerPlan& plan, std::int64_t teams) {
  int clusters = 0;
  cudaLaunchAttribute cluster{};
  const cudaLaunchConfig_t config = launch_of(plan, teams, cluster);
  cudaError_t error = cudaFuncSetAttribute(lawler_kernel<T>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  if (error == cudaSuccess) error = cudaOccupancyMaxActiveClusters(&clusters, lawler_kernel<T>, &config);
  return forget(error) == cudaSuccess && clusters >= teams;
}

}  // namespace

template <class T>
cudaError_t plan_lawler_solve(const LawlerBatch<T>& batch, std::int64_t jobs, std::int64_t scratch_limit,
                              LawlerPlan& plan) {
  int device = 0, multiprocessors = 0, major = 0, blocks_each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return forget(error);
  const std::int64_t side = longer_side(batch);
  plan.threads = side <= kSmall ? kFewThreads : jobs <= multiprocessors ? kMostThreads : kManyThreads;
  const TeamPlace nowhere(nullptr, nullptr, batch);
  plan.shared_bytes = static_cast<int>(nowhere.shared_bytes);
  constexpr int kAlwaysThere = 48 * 1024 - static_cast<int>(sizeof(BlockBoard));
  if (plan.shared_bytes > kAlwaysThere) {
    error = cudaFuncSetAttribute(lawler_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, plan.shared_bytes);
    if (error != cudaSuccess) return forget(error);
  }
  error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks_each, lawler_kernel<T>, plan.threads,
                                                        static_cast<std::size_t>(plan.shared_bytes));
  if (error != cudaSuccess) return forget(error);
  // A few large problems are spread over several multiprocessors each, as long as all of their warps have pairs to do.
  const std::int64_t pairs = TeamPairTables::most_pairs(batch.first.rows, batch.first.edge_count1);
  plan.cluster_blocks = 1;
  while (major >= 9 && plan.cluster_blocks < kMostClusterBlocks && jobs * plan.cluster_blocks * 2 <= multiprocessors &&
         pairs >= 2 * plan.cluster_blocks * plan.threads / kWarpThreads) {
    plan.cluster_blocks *= 2;
  }
  if (plan.cluster_blocks > kPortableBlocks && !holds<T>(plan, jobs)) plan.cluster_blocks = kPortableBlocks;
  plan.team_bytes = nowhere.bytes;
  const std::int64_t resident = std::max<std::int64_t>(multiprocessors * blocks_each / plan.cluster_blocks, 1);
  plan.teams = std::min({jobs, resident, std::max<std::int64_t>(scratch_limit / plan.team_bytes, 1)});
  return cudaSuccess;
}

template <class T>
cudaError_t launch_lawler_solve(const LawlerBatch<T>& batch, const LawlerOptions& options, std::int64_t runs,
                                const DualStateBatch& warm, const DualStateBatch& kept, const AnswerBatch& answers,
                                const LawlerPlan& plan, void* scratch, cudaStream_t stream) {
  if (batch.count == 0 || runs == 0) return cudaSuccess;  // an empty grid is a launch error
  cudaLaunchAttribute cluster{};
  cudaLaunchConfig_t config = launch_of(plan, plan.teams, cluster);
  config.stream = stream;
  const cudaError_t error =
      cudaLaunchKernelEx(&config, lawler_kernel<T>, batch, options, runs, warm, kept, answers, plan.cluster_blocks,
                         plan.team_bytes, static_cast<unsigned char*>(scratch));
  return error == cudaSuccess ? cudaGetLastError() : error;
}

template cudaError_t plan_lawler_solve(const LawlerBatch<float>&, std::int64_t, std::int64_t, LawlerPlan&);
template cudaError_t plan_lawler_solve(const LawlerBatch<double>&, std::int64_t, std::int64_t, LawlerPlan&);
template cudaError_t launch_lawler_solve(const LawlerBatch<float>&, const LawlerOptions&, std::int64_t,
                                         const DualStateBatch&, const DualStateBatch&, const AnswerBatch&,
                                         const LawlerPlan&, void*, cudaStream_t);
template cudaError_t launch_lawler_solve(const LawlerBatch<double>&, const LawlerOptions&, std::int64_t,
                                         const DualStateBatch&, const DualStateBatch&, const AnswerBatch&,
                                         const LawlerPlan&, void*, cudaStream_t);

}  // namespace graphmatch
