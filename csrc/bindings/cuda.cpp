// Python module graphmatch._native_cuda: device addresses, sizes and strides in, RuntimeError on CUDA errors.
//
// Importing it touches no GPU. Addresses are device addresses; strides are in elements, and a batch stride of 0 shares
// one array among all problems.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/answers.hpp"
#include "bindings/cuda_lawler.hpp"
#include "bindings/cuda_linear.hpp"
#include "bindings/cuda_noise.hpp"
#include "bindings/cuda_qap.hpp"
#include "bindings/cuda_support.hpp"
#include "bindings/lawler_arguments.hpp"
#include "cuda/lawler_objective.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

int device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) {
    cudaGetLastError();
    return 0;
  }
  check(error, "device_count");
  return count;
}

void evaluate_lawler_objective(const LawlerArguments& arguments, std::uintptr_t assignment, std::uintptr_t objective,
                               int device, std::uintptr_t stream) {
  constexpr const char* kFunction = "lawler_objective";
  const DeviceGuard guard(device, kFunction);
  const auto launch = [&](const auto& problems) {
    return launch_lawler_objective(problems, pointer<const std::int64_t>(assignment), pointer<double>(objective),
                                   reinterpret_cast<cudaStream_t>(stream));
  };
  check(arguments.is_double ? launch(arguments.problems<double>()) : launch(arguments.problems<float>()), kFunction);
}

}  // namespace

PYBIND11_MODULE(_native_cuda, module) {
  module.doc() = "CUDA kernels of graphmatch. Private: call them through graphmatch._ops.";
  module.def("device_count", &device_count, "Number of usable CUDA devices; 0 without a driver.");
  bind_lawler_arguments(module);
  bind_cuda_lawler(module);
  bind_answers(module);
  bind_cuda_linear(module);
  bind_cuda_noise(module);
  module.def("lawler_objective", &evaluate_lawler_objective, py::call_guard<py::gil_scoped_release>(),
             py::arg("problems"), py::kw_only(), py::arg("assignment"), py::arg("objective"), py::arg("device"),
             py::arg("stream"),
             "Queues objective[b] (float64) = objective of assignment[b] (int64, -1 = unmatched) on `stream`.");
  bind_cuda_qap(module);
}

}  // namespace graphmatch
