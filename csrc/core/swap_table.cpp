#include "core/swap_table.hpp"

#include <algorithm>

#include "core/simd.hpp"

namespace graphmatch {
namespace {

// row += x y, then the same of the transposed problem.
template <class T>
GRAPHMATCH_INLINE void add_slopes(std::int64_t nodes, std::int64_t stride, const T* x, const T* y, T* slope) {
  for (std::int64_t u = 0; u < nodes; ++u) {
    T* row = slope + u * stride;
    const T factor = x[u];
#pragma omp simd
    for (std::int64_t v = 0; v < stride; ++v) row[v] += factor * y[v];
  }
}

template <class T>
GRAPHMATCH_INLINE void add_changes(std::int64_t nodes, std::int64_t stride, const T* x, const T* y, T* change) {
  for (std::int64_t u = 0; u < nodes; ++u) {
    T* row = change + u * stride;
    const T x_u = x[u], y_u = y[u];
#pragma omp simd
    for (std::int64_t v = u / kLanes * kLanes; v < stride; ++v) row[v] += (x_u - x[v]) * (y[v] - y_u);
  }
}

template <class T>
GRAPHMATCH_INLINE void allowed_minima(std::int64_t nodes, std::int64_t stride, const T* change, const T* banned_until,
                                      T step, T aspiration, T* minima) {
  for (std::int64_t u = 0; u < nodes; ++u) {
    const T* row = change + u * stride;
    const T* bans = banned_until + u * stride;
    T lowest = std::numeric_limits<T>::infinity();
#pragma omp simd reduction(min : lowest)
    for (std::int64_t v = u / kLanes * kLanes; v < stride; ++v) {
      const T change_uv = row[v], until = bans[v];  // loaded whatever the comparison says: that vectorises everywhere
      const T ban = change_uv < aspiration ? step : until;
      const T candidate = ban > step ? std::numeric_limits<T>::infinity() : change_uv;
      lowest = candidate < lowest ? candidate : lowest;
    }
    minima[u] = reduced_minimum(lowest);
  }
}

GRAPHMATCH_MULTIVERSION void update_slopes(std::int64_t nodes, std::int64_t stride, const float* x, const float* y,
                                           float* slope) {
  add_slopes(nodes, stride, x, y, slope);
}
GRAPHMATCH_MULTIVERSION void update_slopes(std::int64_t nodes, std::int64_t stride, const double* x, const double* y,
                                           double* slope) {
  add_slopes(nodes, stride, x, y, slope);
}
GRAPHMATCH_MULTIVERSION void update_changes(std::int64_t nodes, std::int64_t stride, const float* x, const float* y,
                                            float* change) {
  add_changes(nodes, stride, x, y, change);
}
GRAPHMATCH_MULTIVERSION void update_changes(std::int64_t nodes, std::int64_t stride, const double* x, const double* y,
                                            double* change) {
  add_changes(nodes, stride, x, y, change);
}
GRAPHMATCH_MULTIVERSION void scan(std::int64_t nodes, std::int64_t stride, const float* change, const float* bans,
                                  float step, float aspiration, float* minima) {
  allowed_minima(nodes, stride, change, bans, step, aspiration, minima);
}
GRAPHMATCH_MULTIVERSION void scan(std::int64_t nodes, std::int64_t stride, const double* change, const double* bans,
                                  double step, double aspiration, double* minima) {
  allowed_minima(nodes, stride, change, bans, step, aspiration, minima);
}

template <class T>
void swap_lines(T* matrix, std::int64_t nodes, std::int64_t stride, std::int64_t r, std::int64_t s, bool rows) {
  for (std::int64_t u = 0; u < nodes; ++u) std::swap(matrix[u * stride + r], matrix[u * stride + s]);
  if (rows) std::swap_ranges(matrix + r * stride, matrix + r * stride + nodes, matrix + s * stride);
}

}  // namespace

template <class T>
SwapTable<T>::SwapTable(const QapCosts& costs)
    : nodes_(costs.nodes), stride_(padded(costs.nodes)), symmetric_(costs.symmetric), costs_(&costs) {
  const auto size = static_cast<std::size_t>(nodes_ * stride_);
  flow_.assign(size, T(0));
  if (!symmetric_) flow_transposed_.assign(size, T(0));
  for (std::int64_t i = 0; i < nodes_; ++i) {
    for (std::int64_t j = 0; j < nodes_; ++j) {
      flow_[i * stride_ + j] = static_cast<T>(costs.flow[i * nodes_ + j]);
      if (!symmetric_) flow_transposed_[j * stride_ + i] = flow_[i * stride_ + j];
    }
  }
  const auto line = static_cast<std::size_t>(stride_);
  for (AlignedVector<T>* vector : {&x_, &y_, &x_transposed_, &y_transposed_, &row_best_}) vector->assign(line, T(0));
  moved_.assign(size, T(0));
  if (!symmetric_) moved_transposed_.assign(size, T(0));
  slope_.assign(size, T(0));
}

template <class T>
void SwapTable<T>::load(const std::vector<std::int64_t>& assignment) {
  const auto size = static_cast<std::size_t>(nodes_ * stride_);
  assignment_ = assignment;
  std::fill(slope_.begin(), slope_.end(), T(0));
  for (std::int64_t u = 0; u < nodes_; ++u) {
    for (std::int64_t v = 0; v < nodes_; ++v) {
      moved_[u * stride_ + v] = static_cast<T>(costs_->distance[assignment[u] * nodes_ + assignment[v]]);
      if (!symmetric_) moved_transposed_[v * stride_ + u] = moved_[u * stride_ + v];
      if (!costs_->linear.empty()) {
        slope_[u * stride_ + v] = static_cast<T>(costs_->linear[u * nodes_ + assignment[v]]);
      }
    }
  }
  // slope[u] += sum_k flow[u, k] moved[., k], row by row of the transposed matrix.
  const T* columns = symmetric_ ? moved_.data() : moved_transposed_.data();
  for (std::int64_t u = 0; u < nodes_; ++u) {
    for (std::int64_t k = 0; k < nodes_; ++k) {
      const T a = flow_[u * stride_ + k];
      const T transposed = symmetric_ ? T(0) : flow_transposed_[u * stride_ + k];
      T* row = slope_.data() + u * stride_;
      if (a != T(0)) {
        for (std::int64_t v = 0; v < nodes_; ++v) row[v] += a * columns[k * stride_ + v];
      }
      if (transposed != T(0)) {
        for (std::int64_t v = 0; v < nodes_; ++v) row[v] += transposed * moved_[k * stride_ + v];
      }
    }
  }
  change_.assign(size, std::numeric_limits<T>::infinity());
  for (std::int64_t u = 0; u < nodes_; ++u) {
    for (std::int64_t v = u + 1; v < nodes_; ++v) set_pair(u, v);
  }
  lift_bans();
}

template <class T>
void SwapTable<T>::lift_bans() {
  left_until_.assign(static_cast<std::size_t>(nodes_ * stride_), T(0));
  banned_until_.assign(static_cast<std::size_t>(nodes_ * stride_), T(0));
}

template <class T>
void SwapTable<T>::set_pair(std::int64_t u, std::int64_t v) {
  const std::int64_t uv = u * stride_ + v, vu = v * stride_ + u;
  const T pair = symmetric_ ? T(2) * flow_[uv] * moved_[uv] : (flow_[uv] + flow_[vu]) * (moved_[uv] + moved_[vu]);
  change_[uv] = slope_[uv] + slope_[vu] - slope_[u * stride_ + u] - slope_[v * stride_ + v] + pair;
}

template <class T>
void SwapTable<T>::set_ban(std::int64_t u, std::int64_t v) {
  banned_until_[u * stride_ + v] = std::min(left_until_[u * stride_ + v], left_until_[v * stride_ + u]);
}

template <class T>
Swap SwapTable<T>::best() {
  return best_allowed(T(0), std::numeric_limits<T>::infinity());
}

template <class T>
Swap SwapTable<T>::best_allowed(T step, T aspiration) {
  scan(nodes_, stride_, change_.data(), banned_until_.data(), step, aspiration, row_best_.data());
  std::int64_t u = -1;
  T lowest = std::numeric_limits<T>::infinity();
  for (std::int64_t i = 0; i < nodes_; ++i) {
    if (row_best_[i] < lowest) {
      lowest = row_best_[i];
      u = i;
    }
  }
  if (u < 0) return {};
  const T* row = change_.data() + u * stride_;
  const T* bans = banned_until_.data() + u * stride_;
  std::int64_t v = u + 1;
  while (row[v] != lowest || (bans[v] > step && !(row[v] < aspiration))) ++v;
  return {u, v};
}

template <class T>
void SwapTable<T>::apply(const Swap& swap, T ban_first, T ban_second) {
  const std::int64_t r = swap.first, s = swap.second;
  const T* columns = symmetric_ ? moved_.data() : moved_transposed_.data();
  const T* flow_columns = symmetric_ ? flow_.data() : flow_transposed_.data();
  for (std::int64_t u = 0; u < nodes_; ++u) {
    x_[u] = flow_columns[r * stride_ + u] - flow_columns[s * stride_ + u];
    y_[u] = columns[s * stride_ + u] - columns[r * stride_ + u];
  }
  update_slopes(nodes_, stride_, x_.data(), y_.data(), slope_.data());
  update_changes(nodes_, stride_, x_.data(), y_.data(), change_.data());
  if (!symmetric_) {
    for (std::int64_t u = 0; u < nodes_; ++u) {
      x_transposed_[u] = flow_[r * stride_ + u] - flow_[s * stride_ + u];
      y_transposed_[u] = moved_[s * stride_ + u] - moved_[r * stride_ + u];
    }
    update_slopes(nodes_, stride_, x_transposed_.data(), y_transposed_.data(), slope_.data());
    update_changes(nodes_, stride_, x_transposed_.data(), y_transposed_.data(), change_.data());
    swap_lines(moved_transposed_.data(), nodes_, stride_, r, s, true);
  }
  swap_lines(slope_.data(), nodes_, stride_, r, s, false);
  swap_lines(moved_.data(), nodes_, stride_, r, s, true);
  swap_lines(left_until_.data(), nodes_, stride_, r, s, false);
  std::swap(assignment_[r], assignment_[s]);
  left_until_[r * stride_ + s] = ban_first;
  left_until_[s * stride_ + r] = ban_second;
  for (const std::int64_t moved : {r, s}) {
    for (std::int64_t u = 0; u < moved; ++u) {
      set_pair(u, moved);
      set_ban(u, moved);
    }
    for (std::int64_t u = moved + 1; u < nodes_; ++u) {
      set_pair(moved, u);
      set_ban(moved, u);
    }
  }
}

template class SwapTable<float>;
template class SwapTable<double>;

}  // namespace graphmatch
