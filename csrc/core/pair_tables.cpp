#include "core/pair_tables.hpp"

namespace graphmatch {

void PairTables::build(const PairCosts& costs) {
  table_size_ = (costs.columns + 3) / 4 * 4 * costs.stride;
  tables_.assign(costs.pairs.size() * static_cast<std::size_t>(table_size_), 0.0f);
  for (std::size_t p = 0; p < costs.pairs.size(); ++p) {
    const CostPattern& pattern = costs.pattern(static_cast<std::int64_t>(p));
    const float* values = costs.values(static_cast<std::int64_t>(p));
    float* table = tables_.data() + p * static_cast<std::size_t>(table_size_);
    for (std::int64_t k = 0; k < costs.columns; ++k) {
      float* row = table + k * costs.stride;
      for (std::int32_t e = pattern.row_begin[k]; e < pattern.row_begin[k + 1]; ++e) row[pattern.column[e]] = values[e];
      row[k] = kBarrier;
    }
  }
}

}  // namespace graphmatch
