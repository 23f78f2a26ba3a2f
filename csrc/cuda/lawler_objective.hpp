// Batched objective evaluation on the GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/lawler_batch.hpp"

namespace graphmatch {

// Queues objective[b] = objective of row b of `assignment`, for each problem b, on `stream` of the current device. All
// pointers are device pointers, and `assignment` is count x first.rows.
template <class T>
cudaError_t launch_lawler_objective(const LawlerBatch<T>& batch, const std::int64_t* assignment, double* objective,
                                    cudaStream_t stream);

}  // namespace graphmatch
