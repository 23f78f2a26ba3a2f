#include "bindings/cuda_linear.hpp"

#include <cuda_runtime_api.h>

#include <cstdint>

#include "bindings/answers.hpp"
#include "bindings/cuda_support.hpp"
#include "bindings/lawler_arguments.hpp"
#include "bindings/linear_arguments.hpp"
#include "cuda/linear.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

constexpr const char* kFunction = "linear_assignment";
constexpr std::int64_t kMostNodes = std::int64_t{1} << 30;  // kernels count in 32 bits

// Starts from matchings alone: kernels make no use of duals.
template <class T>
LinearBatch<T> linear_batch(const LinearArguments& arguments, const LinearStarts& starts) {
  require(arguments.rows < kMostNodes && arguments.columns < kMostNodes, "there must be fewer than 2^30 nodes");
  LinearBatch<T> batch;
  batch.count = arguments.batch;
  batch.first.rows = arguments.rows;
  batch.first.columns = arguments.columns;
  batch.first.costs = pointer<const T>(arguments.costs);
  batch.first.stride = arguments.columns;
  batch.first.complete = arguments.complete;
  batch.first.unmatched_cost = arguments.unmatched_cost;
  batch.batch_stride = arguments.batch_stride;
  batch.sizes = pointer<const std::int64_t>(arguments.sizes);
  batch.start_count = starts.batch;
  batch.starts = starts.batch == 0 ? nullptr : pointer<const std::int64_t>(starts.matching);
  return batch;
}

// Calls task(batch) with the batch in its element type.
template <class Task>
void with_batch(const LinearArguments& arguments, const LinearStarts& starts, const Task& task) {
  if (arguments.is_double) {
    task(linear_batch<double>(arguments, starts));
  } else {
    task(linear_batch<float>(arguments, starts));
  }
}

std::int64_t scratch_bytes(const LinearArguments& arguments, int device) {
  const DeviceGuard guard(device, kFunction);
  std::int64_t bytes = 0;
  with_batch(arguments, LinearStarts{},
             [&](const auto& batch) { check(linear_scratch_bytes(batch, bytes), kFunction); });
  return bytes;
}

void linear_assignment(const LinearArguments& arguments, const LinearStarts& starts, const Answers& answers,
                       const Duals& duals, std::uintptr_t scratch, std::int64_t scratch_size, int device,
                       std::uintptr_t stream) {
  const DeviceGuard guard(device, kFunction);
  const LinearAnswers targets{answers.batch(), pointer<double>(duals.rows), pointer<double>(duals.columns)};
  with_batch(arguments, starts, [&](const auto& batch) {
    check(launch_linear_assignment(batch, targets, pointer<void>(scratch), scratch_size,
                                   reinterpret_cast<cudaStream_t>(stream)),
          kFunction);
  });
}

}  // namespace

void bind_cuda_linear(py::module_& module) {
  bind_linear_arguments(module);
  module.def("linear_scratch_bytes", &scratch_bytes, py::arg("problems"), py::kw_only(), py::arg("device"),
             "Bytes of device memory that linear_assignment() needs beside its arguments; mostly 0.");
  module.def("linear_assignment", &linear_assignment, py::call_guard<py::gil_scoped_release>(), py::kw_only(),
             py::arg("problems"), py::arg("starts"), py::arg("answers"), py::arg("duals"), py::arg("scratch"),
             py::arg("scratch_bytes"), py::arg("device"), py::arg("stream"),
             "Queues optimal matchings and their duals on `stream`.");
}

}  // namespace graphmatch
