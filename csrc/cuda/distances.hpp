// Distances between all points of each set of a batch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace graphmatch {

// Queues distances (batch x count x count) of points (batch x count x dim) on `stream` of the current device; device
// pointers.
template <class T>
cudaError_t launch_distances(const T* points, std::int64_t batch, std::int64_t count, std::int64_t dim, T* distances,
                             cudaStream_t stream);

}  // namespace graphmatch
