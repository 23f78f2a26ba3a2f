// The costs of all pairs as full matrices: what the vectorised message passing reads.
#pragma once

#include <cstdint>

#include "core/aligned.hpp"
#include "core/pair_costs.hpp"

namespace graphmatch {

class PairTables {
 public:
  void build(const PairCosts& costs);

  // Table of pair p, columns (padded to a multiple of 4) x stride; kBarrier on the diagonal, because two rows cannot
  // share a column.
  const float* table(std::int64_t pair) const { return tables_.data() + pair * table_size_; }

 private:
  std::int64_t table_size_ = 0;
  AlignedVector<float> tables_;
};

}  // namespace graphmatch
