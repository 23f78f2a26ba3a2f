#include "bindings/multigraph.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "bindings/cpu_arguments.hpp"
#include "bindings/lawler_arguments.hpp"
#include "core/multigraph_costs.hpp"
#include "core/multigraph_search.hpp"
#include "core/multigraph_starts.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

// Graphs, the pairs that the batch of problems belongs to, and where `starts` searches begin and end.
struct MultigraphArguments {
  std::int64_t graphs, label_stride, universe, starts;
  std::uintptr_t nodes;       // graphs
  std::uintptr_t pairs;       // batch x 2
  std::uintptr_t labels;      // starts x graphs x label_stride, in and out; all -1 = to be constructed
  std::uintptr_t merges;      // starts x (graphs - 1) x 2
  std::uintptr_t objectives;  // starts x batch

  MultigraphShape shape(std::int64_t batch) const {
    MultigraphShape result;
    result.nodes.assign(pointer<const std::int64_t>(nodes), pointer<const std::int64_t>(nodes) + graphs);
    result.universe = universe;
    result.label_stride = label_stride;
    std::int64_t total = 0;
    for (const std::int64_t count : result.nodes) {
      require(0 <= count && count <= label_stride, "graphs must fit into the labels");
      require(universe == 0 || count <= universe, "graphs must fit into the universe");
      total += count;
    }
    for (std::int64_t pair = 0; pair < batch; ++pair) {
      const std::int64_t* ends = pointer<const std::int64_t>(pairs) + 2 * pair;
      require(0 <= ends[0] && ends[0] < graphs && 0 <= ends[1] && ends[1] < graphs && ends[0] != ends[1],
              "pairs must join two graphs");
      result.pairs.push_back({ends[0], ends[1]});
    }
    for (std::int64_t start = 0; start < starts; ++start) check_start(result, start, total);
    return result;
  }

  std::int64_t* labels_of(std::int64_t start) const {
    return pointer<std::int64_t>(labels) + start * graphs * label_stride;
  }
  std::vector<GraphPair> merges_of(std::int64_t start) const {
    std::vector<GraphPair> result;
    const std::int64_t* ends = pointer<const std::int64_t>(merges) + start * (graphs - 1) * 2;
    for (std::int64_t merge = 0; merge + 1 < graphs; ++merge) result.push_back({ends[2 * merge], ends[2 * merge + 1]});
    return result;
  }
  double* objectives_of(std::int64_t start, std::int64_t batch) const {
    return pointer<double>(objectives) + start * batch;
  }
  bool is_constructed(const MultigraphShape& shape, std::int64_t start) const {
    for (std::int64_t graph = 0; graph < graphs; ++graph) {
      if (shape.nodes[graph] > 0) return labels_of(start)[graph * label_stride] < 0;
    }
    return false;
  }

 private:
  void check_start(const MultigraphShape& shape, std::int64_t start, std::int64_t total) const {
    for (const auto [into, from] : merges_of(start)) {
      require(0 <= into && into < graphs && 0 <= from && from < graphs, "merges must name graphs");
    }
    const std::int64_t limit = universe > 0 ? universe : total;
    const bool constructed = is_constructed(shape, start);
    std::vector<char> seen(static_cast<std::size_t>(limit));
    for (std::int64_t graph = 0; graph < graphs; ++graph) {
      const std::int64_t* row = labels_of(start) + graph * label_stride;
      std::fill(seen.begin(), seen.end(), 0);
      for (std::int64_t i = 0; i < shape.nodes[graph]; ++i) {
        require(constructed ? row[i] == -1 : 0 <= row[i] && row[i] < limit && !seen[row[i]],
                "labels of a graph must be distinct elements, or all must be missing");
        if (!constructed) seen[row[i]] = 1;
      }
    }
  }
};

void multigraph_search(const LawlerArguments& arguments, const MultigraphArguments& graphs,
                       const MultigraphOptions& options, const MultigraphStarts& starts, const Budget& budget) {
  require(starts.wave >= 1, "waves must hold a start");
  MultigraphCosts costs(graphs.shape(arguments.batch));
  const MultigraphShape& shape = costs.shape();
  const Budget patient{-1.0, budget.threads};
  std::vector<double> largest(static_cast<std::size_t>(arguments.batch), 0.0);
  std::vector<char> valid(static_cast<std::size_t>(arguments.batch), 0);
  patient.run(arguments.batch, [&](std::int64_t pair, Stop&) {
    with_problem(arguments, pair, [&](const auto& problem) {
      require(problem.rows == shape.nodes[shape.pairs[pair].first] &&
                  problem.columns == shape.nodes[shape.pairs[pair].second],
              "problems must be of the size of their graphs");
      valid[pair] = is_valid(problem, largest[pair]);
    });
  });
  const double bound = largest.empty() ? 0.0 : *std::max_element(largest.begin(), largest.end());
  patient.run(arguments.batch, [&](std::int64_t pair, Stop&) {
    if (!valid[pair]) return;
    with_problem(arguments, pair, [&](const auto& problem) { valid[pair] = costs.take(pair, problem, bound); });
  });
  const bool all_valid = std::all_of(valid.begin(), valid.end(), [](char v) { return v != 0; });
  if (all_valid) costs.finish();
  std::fill_n(pointer<double>(graphs.objectives), graphs.starts * arguments.batch,
              std::numeric_limits<double>::infinity());
  if (!all_valid) return;
  auto search = [&](std::int64_t start, Stop& stop) {
    MultigraphSearch search(costs, starts.options_of(start, options), stop);
    std::int64_t* labels = graphs.labels_of(start);
    const bool constructed = graphs.is_constructed(shape, start);
    if (!search.run(constructed ? nullptr : labels, graphs.merges_of(start))) return;
    std::copy(search.labels().begin(), search.labels().end(), labels);
    std::copy(search.objectives().begin(), search.objectives().end(), graphs.objectives_of(start, arguments.batch));
  };
  Stop clock(budget.time_limit);
  MultigraphProgress progress;
  for (std::int64_t first = 0; first < graphs.starts; first += starts.wave) {
    const std::int64_t count = std::min(starts.wave, graphs.starts - first);
    const Budget left{budget.time_limit < 0 ? -1.0 : std::max(clock.seconds_left(), 0.0), budget.threads};
    left.run(count, [&](std::int64_t index, Stop& stop) { search(first + index, stop); });
    for (std::int64_t start = first; start < first + count; ++start) {
      const double* values = graphs.objectives_of(start, arguments.batch);
      progress.note(std::accumulate(values, values + arguments.batch, 0.0));
    }
    if (starts.is_done(progress) || clock.requested()) return;
  }
}

}  // namespace

void bind_multigraph(py::module_& module) {
  py::class_<MultigraphOptions>(module, "MultigraphOptions")
      .def(py::init([](std::uint64_t seed, std::int64_t sweeps, double effort, std::int64_t max_iterations) {
             return MultigraphOptions{seed, sweeps, effort, max_iterations};
           }),
           py::kw_only(), py::arg("seed"), py::arg("sweeps"), py::arg("effort"), py::arg("max_iterations"));

  py::class_<MultigraphArguments>(module, "MultigraphArguments")
      .def(py::init([](std::int64_t graphs, std::int64_t label_stride, std::int64_t universe, std::int64_t starts,
                       std::uintptr_t nodes, std::uintptr_t pairs, std::uintptr_t labels, std::uintptr_t merges,
                       std::uintptr_t objectives) {
             require(graphs >= 0 && label_stride >= 0 && universe >= 0 && starts >= 0, "sizes must not be negative");
             return MultigraphArguments{graphs, label_stride, universe, starts,    nodes,
                                        pairs,  labels,       merges,   objectives};
           }),
           py::kw_only(), py::arg("graphs"), py::arg("label_stride"), py::arg("universe"), py::arg("starts"),
           py::arg("nodes"), py::arg("pairs"), py::arg("labels"), py::arg("merges"), py::arg("objectives"));

  py::class_<MultigraphStarts>(module, "MultigraphStarts")
      .def(py::init([](std::int64_t wave, std::int64_t agreement, double lower_bound, double max_gap) {
             return MultigraphStarts{wave, agreement, lower_bound, max_gap};
           }),
           py::kw_only(), py::arg("wave"), py::arg("agreement"), py::arg("lower_bound"), py::arg("max_gap"));

  module.def("multigraph_search", &multigraph_search, py::arg("problems"), py::arg("graphs"), py::arg("options"),
             py::arg("starts"), py::arg("budget"));
}

}  // namespace graphmatch
