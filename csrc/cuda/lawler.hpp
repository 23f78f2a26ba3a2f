// Batched solving of sparse Lawler problems on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/answer_batch.hpp"
#include "core/lawler_batch.hpp"
#include "core/lawler_options.hpp"

namespace graphmatch {

// How a batch is spread over the current device: teams of `cluster_blocks` blocks that take one problem after the
// other.
struct LawlerPlan {
  int threads;         // of a block
  int cluster_blocks;  // of a team; 1 before compute capability 9
  int shared_bytes;
  std::int64_t teams;  // at most so many at a time
  std::int64_t team_bytes;

  std::int64_t scratch_bytes() const { return teams * team_bytes; }
};

// `jobs` problems (or tabu runs of problems) of at most these sizes. `scratch_limit`: bytes that may be used, a team's
// memory at least.
template <class T>
cudaError_t plan_lawler_solve(const LawlerBatch<T>& batch, std::int64_t jobs, std::int64_t scratch_limit,
                              LawlerPlan& plan);

// Queues the solution of all problems on `stream` of the current device. With `runs` > 1 (LawlerMethod::kTabu) every
// problem is solved by so many independent searches, and answer index * runs + run is that of search `run`. All
// pointers are device pointers; `scratch` holds plan.scratch_bytes(). No warm starts or kept duals with runs > 1.
template <class T>
cudaError_t launch_lawler_solve(const LawlerBatch<T>& batch, const LawlerOptions& options, std::int64_t runs,
                                const DualStateBatch& warm, const DualStateBatch& kept, const AnswerBatch& answers,
                                const LawlerPlan& plan, void* scratch, cudaStream_t stream);

}  // namespace graphmatch
