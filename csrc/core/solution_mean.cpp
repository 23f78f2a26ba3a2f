#include "core/solution_mean.hpp"

namespace graphmatch {
namespace {

template <class T>
void write_mean(const std::vector<std::int64_t>& sums, std::int64_t total, std::int64_t rows, std::int64_t columns,
                T* mean, std::int64_t stride) {
  const double divisor = static_cast<double>(total);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t k = 0; k < columns; ++k) {
      const std::int64_t sum = sums[i * columns + k];
      if (sum != 0) mean[i * stride + k] = static_cast<T>(static_cast<double>(sum) / divisor);
    }
  }
}

}  // namespace

SolutionMean::SolutionMean(std::int64_t rows, std::int64_t columns, std::int64_t edge_count1, std::int64_t edge_count2)
    : rows_(rows),
      columns_(columns),
      edge_count1_(edge_count1),
      edge_count2_(edge_count2),
      matching_(static_cast<std::size_t>(rows * columns), 0),
      paid_(static_cast<std::size_t>(edge_count1 * edge_count2), 0) {}

void SolutionMean::add_matching(const std::int64_t* assignment, std::int64_t weight) {
  total_ += weight;
  for (std::int64_t i = 0; i < rows_; ++i) {
    if (assignment[i] >= 0) matching_[i * columns_ + assignment[i]] += weight;
  }
}

void SolutionMean::add(const std::int64_t* assignment, std::int64_t weight) {
  const std::lock_guard<std::mutex> lock(mutex_);
  add_matching(assignment, weight);
}

template <class T>
void SolutionMean::add(const LawlerProblem<T>& problem, const RightEdges& right_edges, const std::int64_t* assignment,
                       std::int64_t weight) {
  const std::lock_guard<std::mutex> lock(mutex_);
  add_matching(assignment, weight);
  for_each_paid_pair(problem, right_edges, assignment,
                     [&](std::int64_t e, std::int64_t f) { paid_[e * edge_count2_ + f] += weight; });
}

template <class T>
void SolutionMean::write_matching(T* mean, std::int64_t stride) const {
  write_mean(matching_, total_, rows_, columns_, mean, stride);
}

template <class T>
void SolutionMean::write_paid(T* mean, std::int64_t stride) const {
  write_mean(paid_, total_, edge_count1_, edge_count2_, mean, stride);
}

template void SolutionMean::add(const LawlerProblem<float>&, const RightEdges&, const std::int64_t*, std::int64_t);
template void SolutionMean::add(const LawlerProblem<double>&, const RightEdges&, const std::int64_t*, std::int64_t);
template void SolutionMean::write_matching(float*, std::int64_t) const;
template void SolutionMean::write_matching(double*, std::int64_t) const;
template void SolutionMean::write_paid(float*, std::int64_t) const;
template void SolutionMean::write_paid(double*, std::int64_t) const;

}  // namespace graphmatch
