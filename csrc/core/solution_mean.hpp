// Weighted mean of the matchings of one problem, as matrices of matched nodes and of paid pairs of edges.
//
// Weights are whole numbers, so that sums depend neither on the order nor on threads.
#pragma once

#include <cmath>
#include <cstdint>
#include <mutex>
#include <vector>

#include "core/lawler.hpp"

namespace graphmatch {

inline constexpr std::int64_t kWholeWeight = std::int64_t{1} << 20;

class SolutionMean {
 public:
  // Makes room for a problem of this size.
  SolutionMean(std::int64_t rows, std::int64_t columns, std::int64_t edge_count1, std::int64_t edge_count2);

  // Adds one matching (-1 = unmatched), O(rows + edge_count1 * right edges of a node). Threads may call it at the same
  // time.
  template <class T>
  void add(const LawlerProblem<T>& problem, const RightEdges& right_edges, const std::int64_t* assignment,
           std::int64_t weight);

  // The same without edges.
  void add(const std::int64_t* assignment, std::int64_t weight);

  // Write the means, rows x columns and edge_count1 x edge_count2 with a leading dimension, over zeros: most of them
  // are.
  template <class T>
  void write_matching(T* mean, std::int64_t stride) const;
  template <class T>
  void write_paid(T* mean, std::int64_t stride) const;

 private:
  void add_matching(const std::int64_t* assignment, std::int64_t weight);

  const std::int64_t rows_, columns_, edge_count1_, edge_count2_;
  std::mutex mutex_;
  std::int64_t total_ = 0;
  std::vector<std::int64_t> matching_;  // rows x columns
  std::vector<std::int64_t> paid_;      // edge_count1 x edge_count2
};

// The weight of a sample whose least certain variant has this relative gap: 1 up to `open_gap`, beyond it 0 or, if
// samples are to be weighed, open_gap / gap. All samples count alike where open_gap is negative.
inline std::int64_t sample_weight(double gap, double open_gap, bool weigh) {
  if (open_gap < 0 || gap <= open_gap) return kWholeWeight;
  return weigh ? static_cast<std::int64_t>(std::round(open_gap / gap * static_cast<double>(kWholeWeight))) : 0;
}

// Gap of an answer relative to |objective|, 0 where there is none.
inline double relative_gap(double objective, double lower_bound) {
  const double gap = objective - lower_bound;
  return gap <= 0 ? 0.0 : gap / std::fabs(objective);
}

}  // namespace graphmatch
