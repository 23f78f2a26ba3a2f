#include "bindings/cuda_distances.hpp"

#include <cuda_runtime_api.h>

#include <cstdint>

#include "bindings/cuda_support.hpp"
#include "bindings/lawler_arguments.hpp"
#include "cuda/distances.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

void measure_distances(std::uintptr_t points, std::int64_t batch, std::int64_t count, std::int64_t dim, bool is_double,
                       std::uintptr_t distances, int device, std::uintptr_t stream) {
  constexpr const char* kFunction = "distances";
  require(batch >= 0 && count >= 0 && dim >= 0, "sizes must not be negative");
  const DeviceGuard guard(device, kFunction);
  const auto queue = reinterpret_cast<cudaStream_t>(stream);
  check(is_double
            ? launch_distances(pointer<const double>(points), batch, count, dim, pointer<double>(distances), queue)
            : launch_distances(pointer<const float>(points), batch, count, dim, pointer<float>(distances), queue),
        kFunction);
}

}  // namespace

void bind_cuda_distances(py::module_& module) {
  module.def("distances", &measure_distances, py::call_guard<py::gil_scoped_release>(), py::kw_only(),
             py::arg("points"), py::arg("batch"), py::arg("count"), py::arg("dim"), py::arg("is_double"),
             py::arg("distances"), py::arg("device"), py::arg("stream"),
             "Queues distances (batch, count, count) of points (batch, count, dim), float32 or float64, on `stream`.");
}

}  // namespace graphmatch
