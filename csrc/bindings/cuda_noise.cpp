#include "bindings/cuda_noise.hpp"

#include <cuda_runtime_api.h>

#include <cstdint>

#include "bindings/cuda_support.hpp"
#include "bindings/lawler_arguments.hpp"
#include "cuda/noise.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

void draw_noise(std::int64_t kind, std::int64_t coupling, std::uint64_t seed, std::uint64_t stream_of_costs,
                std::uintptr_t keys, std::uintptr_t instances, std::uintptr_t sizes, std::int64_t batch,
                std::int64_t rows, std::int64_t columns, std::int64_t samples, std::int64_t first, std::uintptr_t noise,
                int device, std::uintptr_t stream) {
  constexpr const char* kFunction = "noise";
  require(kind >= 0 && kind <= static_cast<std::int64_t>(NoiseKind::kUniform), "no such noise");
  require(coupling == static_cast<std::int64_t>(NoiseCoupling::kIndependent) ||
              (coupling == static_cast<std::int64_t>(NoiseCoupling::kAntithetic) &&
               kind != static_cast<std::int64_t>(NoiseKind::kSumOfGamma)),
          "no such coupling on the GPU");
  require(batch >= 0 && samples >= 0 && first >= 0 && rows >= 0 && columns >= 0, "sizes must not be negative");
  const DeviceGuard guard(device, kFunction);
  const NoiseOptions options{static_cast<NoiseKind>(kind), static_cast<NoiseCoupling>(coupling), seed, stream_of_costs};
  const NoiseBatch where{pointer<const std::int64_t>(keys),
                         pointer<const std::int64_t>(instances),
                         pointer<const std::int64_t>(sizes),
                         batch,
                         rows,
                         columns,
                         first,
                         samples,
                         pointer<float>(noise)};
  check(launch_noise(options, where, reinterpret_cast<cudaStream_t>(stream)), kFunction);
}

}  // namespace

void bind_cuda_noise(py::module_& module) {
  module.def("noise", &draw_noise, py::call_guard<py::gil_scoped_release>(), py::kw_only(), py::arg("kind"),
             py::arg("coupling"), py::arg("seed"), py::arg("stream_of_costs"), py::arg("keys"), py::arg("instances"),
             py::arg("sizes"), py::arg("batch"), py::arg("rows"), py::arg("columns"), py::arg("samples"),
             py::arg("first"), py::arg("noise"), py::arg("device"), py::arg("stream"),
             "Queues noise (samples, batch, rows, columns) float32 of the samples from `first` on, on `stream`.");
}

}  // namespace graphmatch
