// A batch of linear problems as Python passes it, what earlier solves left, and where the duals go. Shared by the CPU
// and CUDA modules; what follows an address runs on the CPU only.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "bindings/lawler_arguments.hpp"
#include "core/linear.hpp"

namespace graphmatch {

// A batch of linear problems; costs are rows x columns with `batch_stride` between problems.
struct LinearArguments {
  std::int64_t batch, rows, columns;
  std::uintptr_t costs;
  std::int64_t batch_stride;
  std::uintptr_t sizes;  // 0: every problem has the padded size
  bool complete;
  double unmatched_cost;
  bool is_double;

  template <class T>
  LinearProblem<T> problem(std::int64_t index) const {
    LinearProblem<T> view;
    view.rows = rows;
    view.columns = columns;
    if (sizes != 0) {
      const std::int64_t* size = pointer<const std::int64_t>(sizes) + 2 * index;
      require(0 <= size[0] && size[0] <= rows && 0 <= size[1] && size[1] <= columns,
              "sizes of problem " + std::to_string(index) + " must fit into the padded batch");
      view.rows = size[0];
      view.columns = size[1];
    }
    view.costs = pointer<const T>(costs) + index * batch_stride;
    view.stride = columns;
    view.complete = complete;
    view.unmatched_cost = unmatched_cost;
    return view;
  }
};

// Duals of a batch of linear problems, one row of the padded size per problem.
struct Duals {
  std::uintptr_t rows, columns;

  // Padding has none.
  LinearDuals cleared(std::int64_t index, std::int64_t row_count, std::int64_t column_count) const {
    const LinearDuals duals{pointer<double>(rows) + index * row_count, pointer<double>(columns) + index * column_count};
    std::fill_n(duals.rows, row_count, 0.0);
    std::fill_n(duals.columns, column_count, 0.0);
    return duals;
  }
};

// Matchings and row duals of `batch` earlier solves; problem i of a larger batch takes entry i mod batch.
struct LinearStarts {
  std::int64_t batch;
  std::uintptr_t matching, row_duals;

  LinearStart at(std::int64_t index, std::int64_t rows) const {
    if (batch == 0) return LinearStart{};
    const std::int64_t offset = index % batch * rows;
    return LinearStart{pointer<const std::int64_t>(matching) + offset, pointer<const double>(row_duals) + offset};
  }
};

inline void bind_linear_arguments(pybind11::module_& module) {
  namespace py = pybind11;
  py::class_<Duals>(module, "Duals", py::module_local())
      .def(py::init([](std::uintptr_t rows, std::uintptr_t columns) { return Duals{rows, columns}; }), py::kw_only(),
           py::arg("rows"), py::arg("columns"));

  py::class_<LinearArguments>(module, "LinearArguments", py::module_local())
      .def(py::init([](std::int64_t batch, std::int64_t rows, std::int64_t columns, std::uintptr_t costs,
                       std::int64_t batch_stride, std::uintptr_t sizes, bool complete, double unmatched_cost,
                       bool is_double) {
             require(batch >= 0 && rows >= 0 && columns >= 0, "sizes must not be negative");
             return LinearArguments{batch, rows,     columns,        costs,    batch_stride,
                                    sizes, complete, unmatched_cost, is_double};
           }),
           py::kw_only(), py::arg("batch"), py::arg("rows"), py::arg("columns"), py::arg("costs"),
           py::arg("batch_stride"), py::arg("sizes"), py::arg("complete"), py::arg("unmatched_cost"),
           py::arg("is_double"));

  py::class_<LinearStarts>(module, "LinearStarts", py::module_local())
      .def(py::init([](std::int64_t batch, std::uintptr_t matching, std::uintptr_t row_duals) {
             require(batch >= 0, "sizes must not be negative");
             return LinearStarts{batch, matching, row_duals};
           }),
           py::kw_only(), py::arg("batch"), py::arg("matching"), py::arg("row_duals"));
}

}  // namespace graphmatch
