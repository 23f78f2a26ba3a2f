#include "core/qap_costs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace graphmatch {
namespace {

constexpr double kFloatIntegers = 16777216.0;           // 2^24
constexpr double kDoubleIntegers = 4503599627370496.0;  // 2^52
constexpr int kDoubleDigits = 53;
constexpr int kLargestExponent = 400;  // of a cost: the products of two are far from infinity

bool is_symmetric(const std::vector<double>& matrix, std::int64_t nodes) {
  for (std::int64_t i = 0; i < nodes; ++i) {
    for (std::int64_t j = 0; j < i; ++j) {
      if (matrix[i * nodes + j] != matrix[j * nodes + i]) return false;
    }
  }
  return true;
}

void add_transpose(std::vector<double>& matrix, std::int64_t nodes) {
  for (std::int64_t i = 0; i < nodes; ++i) {
    for (std::int64_t j = 0; j < i; ++j) {
      matrix[i * nodes + j] = matrix[j * nodes + i] = matrix[i * nodes + j] + matrix[j * nodes + i];
    }
  }
}

double largest_entry(const std::vector<double>& matrix) {
  double largest = 0.0;
  for (const double entry : matrix) largest = std::max(largest, std::fabs(entry));
  return largest;
}

// The largest sum of |entries| of a row or a column.
double largest_line(const std::vector<double>& matrix, std::int64_t nodes) {
  double largest = 0.0;
  for (std::int64_t i = 0; i < nodes; ++i) {
    double row = 0.0, column = 0.0;
    for (std::int64_t j = 0; j < nodes; ++j) {
      row += std::fabs(matrix[i * nodes + j]);
      column += std::fabs(matrix[j * nodes + i]);
    }
    largest = std::max({largest, row, column});
  }
  return largest;
}

// Exponents of the matrix' largest entry (2^(highest - 1) <= |entry|) and of the largest power of two that divides all
// entries. Both 0 for a matrix of zeros; infinities do not count.
struct Exponents {
  int highest = 0, divisor = 0;
};

Exponents exponents(const std::vector<double>& matrix) {
  Exponents found;
  bool first = true;
  for (const double entry : matrix) {
    if (entry == 0.0 || !std::isfinite(entry)) continue;
    int exponent = 0;
    auto digits = static_cast<std::int64_t>(std::ldexp(std::frexp(entry, &exponent), kDoubleDigits));
    int divisor = exponent - kDoubleDigits;
    while (digits % 2 == 0) {
      digits /= 2;
      ++divisor;
    }
    found.highest = first ? exponent : std::max(found.highest, exponent);
    found.divisor = first ? divisor : std::min(found.divisor, divisor);
    first = false;
  }
  return found;
}

void multiply(std::vector<double>& matrix, int exponent) {
  for (double& entry : matrix) entry = std::ldexp(entry, exponent);
}

}  // namespace

template <class T>
bool QapCosts::build(const QapProblem<T>& problem) {
  nodes = problem.nodes;
  const auto size = static_cast<std::size_t>(nodes * nodes);
  flow.resize(size);
  distance.resize(size);
  linear.assign(size, 0.0);
  bool forbidden = false;
  for (std::int64_t i = 0; i < nodes; ++i) {
    for (std::int64_t j = 0; j < nodes; ++j) {
      const double a = static_cast<double>(problem.flow[i * problem.stride + j]);
      const double b = static_cast<double>(problem.distance[i * problem.stride + j]);
      if (!std::isfinite(a) || !std::isfinite(b)) return false;
      flow[i * nodes + j] = a;
      distance[i * nodes + j] = b;
      if (problem.linear == nullptr) continue;
      const double c = static_cast<double>(problem.linear[i * problem.stride + j]);
      if (std::isnan(c) || c == -std::numeric_limits<double>::infinity()) return false;
      linear[i * nodes + j] = c;
      forbidden = forbidden || std::isinf(c);
    }
  }
  largest_cost = largest_entry(flow) * largest_entry(distance);
  for (std::int64_t i = 0; i < nodes; ++i) {
    for (std::int64_t k = 0; k < nodes; ++k) {
      double& cost = linear[i * nodes + k];
      if (std::isfinite(cost)) {
        largest_cost = std::max(largest_cost, std::fabs(cost));
        cost += flow[i * nodes + i] * distance[k * nodes + k];
      }
    }
  }
  for (std::int64_t i = 0; i < nodes; ++i) flow[i * nodes + i] = distance[i * nodes + i] = 0.0;

  const bool flow_symmetric = is_symmetric(flow, nodes);
  symmetric = flow_symmetric || is_symmetric(distance, nodes);
  if (!choose_unit()) return false;
  if (symmetric) add_transpose(flow_symmetric ? distance : flow, nodes);

  const double slope = largest_slope();
  magnitude = slope * static_cast<double>(nodes);
  integral = integral && magnitude < kDoubleIntegers;
  exact_in_float = integral && !forbidden && 8.0 * slope < kFloatIntegers;
  if (forbidden) {
    penalty = std::exp2(std::ceil(std::log2(4.0 * magnitude + 1.0)));
    for (double& cost : linear) {
      if (std::isinf(cost)) cost = penalty;
    }
  } else if (largest_entry(linear) == 0.0) {
    linear.clear();
  }
  return true;
}

// False where the numbers leave the range in which scaling is exact.
bool QapCosts::choose_unit() {
  const Exponents of_flow = exponents(flow), of_distance = exponents(distance), of_linear = exponents(linear);
  for (const Exponents& of : {of_flow, of_distance, of_linear}) {
    if (of.highest > kLargestExponent) return false;
  }
  const bool has_products = largest_entry(flow) > 0.0 && largest_entry(distance) > 0.0;
  bool has_linear = false;
  for (const double cost : linear) has_linear = has_linear || (std::isfinite(cost) && cost != 0.0);
  auto combined = [&](int products, int lines, bool take_smaller) {
    if (!has_products) return lines;
    if (!has_linear) return products;
    return take_smaller ? std::min(products, lines) : std::max(products, lines);
  };
  int exponent = combined(of_flow.divisor + of_distance.divisor, of_linear.divisor, true);
  const int highest = combined(of_flow.highest + of_distance.highest, of_linear.highest, false);
  // One product may already be as large as this; `magnitude` decides about their sums.
  integral = highest - exponent < kDoubleDigits;
  if (!integral) exponent = highest;
  unit = std::ldexp(1.0, exponent);
  const int of_distances = integral ? of_distance.divisor : of_distance.highest;
  multiply(distance, -of_distances);
  multiply(flow, of_distances - exponent);
  multiply(linear, -exponent);
  largest_cost = std::ldexp(largest_cost, -exponent);
  return true;
}

// No entry of the gradient is larger, whatever the permutation.
double QapCosts::largest_slope() const {
  double largest_linear = 0.0;
  for (const double cost : linear) {
    if (std::isfinite(cost)) largest_linear = std::max(largest_linear, std::fabs(cost));
  }
  const double products = std::min(largest_line(flow, nodes) * largest_entry(distance),
                                   largest_entry(flow) * largest_line(distance, nodes));
  return (symmetric ? 1.0 : 2.0) * products + largest_linear;
}

double QapCosts::value(const std::int64_t* assignment) const {
  double total = 0.0;
  for (std::int64_t i = 0; i < nodes; ++i) {
    const double* row = distance.data() + assignment[i] * nodes;
    double sum = 0.0;
    for (std::int64_t j = 0; j < nodes; ++j) sum += flow[i * nodes + j] * row[assignment[j]];
    total += weight() * sum;
    if (!linear.empty()) total += linear[i * nodes + assignment[i]];
  }
  return total;
}

template bool QapCosts::build(const QapProblem<float>&);
template bool QapCosts::build(const QapProblem<double>&);

}  // namespace graphmatch
