#include "cuda/noise.hpp"

#include <algorithm>

namespace graphmatch {
namespace {

constexpr int kBlockThreads = 256;
constexpr std::int64_t kLargestGrid = 4096;

// A thread per entry: an entry depends on its counters alone.
__global__ void __launch_bounds__(kBlockThreads) noise_kernel(NoiseOptions options, NoiseBatch batch) {
  const std::int64_t count = batch.samples * batch.batch * batch.rows * batch.columns;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kBlockThreads;
  for (std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * kBlockThreads + threadIdx.x; place < count;
       place += step) {
    const std::int64_t column = place % batch.columns, line = place / batch.columns;
    const std::int64_t row = line % batch.rows, problem = line / batch.rows % batch.batch;
    const std::int64_t sample = batch.first + line / batch.rows / batch.batch;
    std::int64_t rows = batch.rows, columns = batch.columns;
    if (batch.sizes != nullptr) {
      rows = batch.sizes[2 * problem];
      columns = batch.sizes[2 * problem + 1];
    }
    const bool inside = row < rows && column < columns;
    batch.noise[place] =
        inside ? noise_entry(options, static_cast<std::uint64_t>(batch.keys[problem]),
                             static_cast<std::uint64_t>(batch.instances[problem]), rows, columns, sample, row, column)
               : 0.0f;
  }
}

}  // namespace

cudaError_t launch_noise(const NoiseOptions& options, const NoiseBatch& batch, cudaStream_t stream) {
  const std::int64_t count = batch.samples * batch.batch * batch.rows * batch.columns;
  if (count == 0) return cudaSuccess;  // an empty grid is a launch error
  const std::int64_t blocks = std::min((count + kBlockThreads - 1) / kBlockThreads, kLargestGrid);
  noise_kernel<<<static_cast<unsigned int>(blocks), kBlockThreads, 0, stream>>>(options, batch);
  return cudaGetLastError();
}

}  // namespace graphmatch
