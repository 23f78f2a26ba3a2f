// A batch of sparse Lawler problems: base pointers, strides between problems, and the size of each problem.
//
// Batch strides count elements; 0 means that all problems share the array. Without `sizes` every problem is as large as
// the batch's padded size; with it, row b holds (rows, columns, edge_count1, edge_count2) and the rest is padding.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"
#include "core/lawler.hpp"

namespace graphmatch {

template <class T>
struct LawlerBatch {
  std::int64_t count = 0;
  LawlerProblem<T> first;  // problem 0 at its padded size
  std::int64_t unary_batch_stride = 0;
  std::int64_t quadratic_batch_stride = 0;
  std::int64_t edges1_batch_stride = 0;
  std::int64_t edges2_batch_stride = 0;
  const std::int64_t* sizes = nullptr;  // count x 4, or null

  GRAPHMATCH_HOST_DEVICE LawlerProblem<T> problem(std::int64_t index) const {
    LawlerProblem<T> view = first;
    view.unary += index * unary_batch_stride;
    view.quadratic += index * quadratic_batch_stride;
    view.edges1 += index * edges1_batch_stride;
    view.edges2 += index * edges2_batch_stride;
    if (sizes != nullptr) {
      view.rows = sizes[4 * index];
      view.columns = sizes[4 * index + 1];
      view.edge_count1 = sizes[4 * index + 2];
      view.edge_count2 = sizes[4 * index + 3];
    }
    return view;
  }
};

}  // namespace graphmatch
