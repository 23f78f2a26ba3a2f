// Batches of linear assignment problems on the GPU: a warp for each small one, a block for each large one.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "core/answer_batch.hpp"
#include "core/linear.hpp"

namespace graphmatch {

// All pointers are device pointers.
template <class T>
struct LinearBatch {
  std::int64_t count = 0;
  LinearProblem<T> first;                // problem 0 at its padded size
  std::int64_t batch_stride = 0;         // 0: all problems share the costs
  const std::int64_t* sizes = nullptr;   // count x 2: rows and columns; null: all have the padded size
  std::int64_t start_count = 0;          // problem i starts from matching i mod start_count
  const std::int64_t* starts = nullptr;  // start_count x first.rows; null: from nothing
};

// Answers, and duals in rows of the padded size: padding has none.
struct LinearAnswers : AnswerBatch {
  double* row_duals;
  double* column_duals;
};

// Bytes of device memory that problems need which do not fit into shared memory; 0 for most.
template <class T>
cudaError_t linear_scratch_bytes(const LinearBatch<T>& batch, std::int64_t& bytes);

// Queues the solution of all problems on `stream` of the current device. The scratch memory is aligned to 16 bytes and
// as large as linear_scratch_bytes() says, or smaller, down to what it says of one problem. A problem that does not
// fit into its padded size is invalid.
template <class T>
cudaError_t launch_linear_assignment(const LinearBatch<T>& batch, const LinearAnswers& answers, void* scratch,
                                     std::int64_t scratch_bytes, cudaStream_t stream);

}  // namespace graphmatch
