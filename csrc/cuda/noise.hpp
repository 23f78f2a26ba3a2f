// Counter-based noise drawn on the GPU: the numbers of core/noise.hpp.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/noise.hpp"

namespace graphmatch {

// Where the noise of a batch goes and what it follows from; device pointers.
struct NoiseBatch {
  const std::int64_t* keys = nullptr;
  const std::int64_t* instances = nullptr;
  const std::int64_t* sizes = nullptr;  // batch x 2 real rows and columns, or null; the noise is zero outside
  std::int64_t batch = 0, rows = 0, columns = 0;
  std::int64_t first = 0, samples = 0;
  float* noise = nullptr;  // samples x batch x rows x columns
};

// Queues the samples first, first + 1, ... of each problem on `stream` of the current device; no orthogonal ones.
cudaError_t launch_noise(const NoiseOptions& options, const NoiseBatch& batch, cudaStream_t stream);

}  // namespace graphmatch
