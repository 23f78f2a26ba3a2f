// A batch of Lawler problems as Python passes it: addresses, sizes and strides. Shared by the CPU and CUDA modules.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "core/lawler_batch.hpp"

namespace graphmatch {

template <class T>
T* pointer(std::uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

inline void require(bool condition, const std::string& what) {
  if (!condition) throw std::invalid_argument("graphmatch native call: " + what);
}

struct LawlerArguments {
  std::int64_t batch, rows, columns, edge_count1, edge_count2;
  std::uintptr_t unary, quadratic, edges1, edges2;
  std::int64_t unary_batch_stride, quadratic_batch_stride, edges1_batch_stride, edges2_batch_stride;
  std::uintptr_t sizes;  // 0: every problem has the padded size
  bool complete;
  double unmatched_cost;
  bool is_double;

  template <class T>
  LawlerBatch<T> problems() const {
    LawlerBatch<T> view;
    view.count = batch;
    view.first.rows = rows;
    view.first.columns = columns;
    view.first.edge_count1 = edge_count1;
    view.first.edge_count2 = edge_count2;
    view.first.unary = pointer<const T>(unary);
    view.first.unary_stride = columns;
    view.first.quadratic = pointer<const T>(quadratic);
    view.first.quadratic_stride = edge_count2;
    view.first.edges1 = pointer<const std::int64_t>(edges1);
    view.first.edges2 = pointer<const std::int64_t>(edges2);
    view.first.complete = complete;
    view.first.unmatched_cost = unmatched_cost;
    view.unary_batch_stride = unary_batch_stride;
    view.quadratic_batch_stride = quadratic_batch_stride;
    view.edges1_batch_stride = edges1_batch_stride;
    view.edges2_batch_stride = edges2_batch_stride;
    view.sizes = pointer<const std::int64_t>(sizes);
    return view;
  }
};

inline void bind_lawler_arguments(pybind11::module_& module) {
  namespace py = pybind11;
  // Local to the module: both modules may be loaded in one process.
  py::class_<LawlerArguments>(module, "LawlerArguments", py::module_local())
      .def(py::init([](std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t edge_count1,
                       std::int64_t edge_count2, std::uintptr_t unary, std::uintptr_t quadratic, std::uintptr_t edges1,
                       std::uintptr_t edges2, std::int64_t unary_batch_stride, std::int64_t quadratic_batch_stride,
                       std::int64_t edges1_batch_stride, std::int64_t edges2_batch_stride, std::uintptr_t sizes,
                       bool complete, double unmatched_cost, bool is_double) {
             require(batch >= 0 && rows >= 0 && columns >= 0 && edge_count1 >= 0 && edge_count2 >= 0,
                     "sizes must not be negative");
             LawlerArguments arguments{batch,
                                       rows,
                                       columns,
                                       edge_count1,
                                       edge_count2,
                                       unary,
                                       quadratic,
                                       edges1,
                                       edges2,
                                       unary_batch_stride,
                                       quadratic_batch_stride,
                                       edges1_batch_stride,
                                       edges2_batch_stride,
                                       sizes,
                                       complete,
                                       unmatched_cost,
                                       is_double};
             return arguments;
           }),
           py::kw_only(), py::arg("batch"), py::arg("rows"), py::arg("columns"), py::arg("edge_count1"),
           py::arg("edge_count2"), py::arg("unary"), py::arg("quadratic"), py::arg("edges1"), py::arg("edges2"),
           py::arg("unary_batch_stride"), py::arg("quadratic_batch_stride"), py::arg("edges1_batch_stride"),
           py::arg("edges2_batch_stride"), py::arg("sizes"), py::arg("complete"), py::arg("unmatched_cost"),
           py::arg("is_double"));
}

}  // namespace graphmatch
