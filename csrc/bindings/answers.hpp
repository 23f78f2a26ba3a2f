// Where the answers of a batch go, as Python passes it. Shared by the CPU and CUDA modules.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>

#include "bindings/lawler_arguments.hpp"
#include "core/answer_batch.hpp"

namespace graphmatch {

// Arrays of `batch` entries, the assignment with one row of `rows` per problem.
struct Answers {
  std::uintptr_t assignment, objective, lower_bound, status, iterations, stage;

  AnswerBatch batch() const {
    return {pointer<std::int64_t>(assignment), pointer<double>(objective),        pointer<double>(lower_bound),
            pointer<std::int64_t>(status),     pointer<std::int64_t>(iterations), pointer<std::int64_t>(stage)};
  }
  void write(std::int64_t index, const Solution& solution) const { batch().write(index, solution); }

  // Padding rows of an answer are unmatched.
  std::int64_t* cleared_assignment(std::int64_t index, std::int64_t rows) const {
    std::int64_t* row = pointer<std::int64_t>(assignment) + index * rows;
    std::fill_n(row, rows, std::int64_t{-1});
    return row;
  }
};

inline void bind_answers(pybind11::module_& module) {
  namespace py = pybind11;
  py::class_<Answers>(module, "Answers", py::module_local())
      .def(py::init([](std::uintptr_t assignment, std::uintptr_t objective, std::uintptr_t lower_bound,
                       std::uintptr_t status, std::uintptr_t iterations, std::uintptr_t stage) {
             return Answers{assignment, objective, lower_bound, status, iterations, stage};
           }),
           py::kw_only(), py::arg("assignment"), py::arg("objective"), py::arg("lower_bound"), py::arg("status"),
           py::arg("iterations"), py::arg("stage"));
}

}  // namespace graphmatch
