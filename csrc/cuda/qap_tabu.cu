#include "cuda/qap_tabu.hpp"

#include <algorithm>

#include "cuda/teams.cuh"

namespace graphmatch {
namespace {

// Threads of a block by the number of nodes. So many registers are left to each that 768 threads share a processor.
constexpr int kFewThreads = 128, kMoreThreads = 256, kMostThreads = 384;
constexpr std::int64_t kSmall = 32, kMedium = 96;
constexpr int kMostAtATime = 2;
// What is used less than the table itself gets shared memory only where three blocks still fit side by side.
constexpr std::int64_t kSideBySide = 3;
constexpr std::int64_t kLargestGrid = 2147483647;

// How searches are spread over the device; bytes are those of a block.
struct Plan {
  int threads = 0;
  std::int64_t blocks = 0, shared_bytes = 0, spare_bytes = 0, scratch_bytes = 0;
};

template <class T>
__global__ void __launch_bounds__(kMostThreads, kMostAtATime)
    qap_tabu_kernel(QapTabuBatch batch, Plan plan, unsigned char* scratch) {
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ BlockBoard board;
  BlockTeam team(board);
  const TieredMemory memory(shared, plan.shared_bytes, plan.spare_bytes, scratch + blockIdx.x * plan.scratch_bytes);
  for (std::int64_t search = blockIdx.x; search < batch.searches(); search += gridDim.x) {
    run_qap_tabu<T>(batch, search, memory, team);
  }
}

template <class T>
cudaError_t make_plan(std::int64_t nodes, std::int64_t searches, Plan* plan) {
  int device = 0, processors = 0, most_shared = 0;
  cudaFuncAttributes attributes;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  error = cudaFuncGetAttributes(&attributes, qap_tabu_kernel<T>);
  if (error != cudaSuccess) return error;
  const std::int64_t limit = most_shared - static_cast<std::int64_t>(attributes.sharedSizeBytes);
  error =
      cudaFuncSetAttribute(qap_tabu_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(limit));
  if (error != cudaSuccess) return error;

  plan->threads = nodes <= kSmall ? kFewThreads : nodes <= kMedium ? kMoreThreads : kMostThreads;
  plan->spare_bytes = limit / kSideBySide;
  TieredMemory counted(nullptr, limit, plan->spare_bytes, nullptr);
  SwapTableMemory<T>(nodes, counted);
  plan->shared_bytes = counted.fast_taken();
  plan->scratch_bytes = counted.slow_taken();
  int at_a_time = 0;
  error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&at_a_time, qap_tabu_kernel<T>, plan->threads,
                                                        static_cast<std::size_t>(plan->shared_bytes));
  // Blocks that need no scratch memory may be as many as there are searches.
  const std::int64_t most = plan->scratch_bytes == 0 ? kLargestGrid : std::int64_t{processors} * std::max(at_a_time, 1);
  plan->blocks = std::min(searches, most);
  return error;
}

template <class T>
cudaError_t launch(const QapTabuBatch& batch, void* scratch, cudaStream_t stream) {
  Plan plan;
  const cudaError_t error = make_plan<T>(batch.first.nodes, batch.searches(), &plan);
  if (error != cudaSuccess) return error;
  qap_tabu_kernel<T>
      <<<static_cast<unsigned>(plan.blocks), static_cast<unsigned>(plan.threads),
         static_cast<std::size_t>(plan.shared_bytes), stream>>>(batch, plan, static_cast<unsigned char*>(scratch));
  return cudaGetLastError();
}

}  // namespace

cudaError_t qap_tabu_scratch_bytes(std::int64_t nodes, std::int64_t searches, std::int64_t* bytes) {
  Plan in_float, in_double;
  cudaError_t error = make_plan<float>(nodes, searches, &in_float);
  if (error == cudaSuccess) error = make_plan<double>(nodes, searches, &in_double);
  *bytes = std::max(in_float.blocks * in_float.scratch_bytes, in_double.blocks * in_double.scratch_bytes);
  return error;
}

cudaError_t launch_qap_tabu(const QapTabuBatch& batch, void* scratch, cudaStream_t stream) {
  if (batch.searches() == 0 || batch.first.nodes == 0) return cudaSuccess;  // an empty grid is a launch error
  // One kernel after the other, each for the problems of its precision: blocks of the others end at once.
  const cudaError_t error = launch<float>(batch, scratch, stream);
  return error == cudaSuccess ? launch<double>(batch, scratch, stream) : error;
}

}  // namespace graphmatch
