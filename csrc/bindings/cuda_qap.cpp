#include "bindings/cuda_qap.hpp"

#include <cstdint>

#include "bindings/cuda_support.hpp"
#include "bindings/lawler_arguments.hpp"
#include "cuda/qap_tabu.hpp"

namespace py = pybind11;

namespace graphmatch {
namespace {

// Indices of pairs of nodes have 32 bits.
constexpr std::int64_t kMostNodes = 46340;

void require_sizes(std::int64_t nodes, std::int64_t searches) {
  require(0 <= nodes && nodes <= kMostNodes, "a dense problem must have at most 46340 nodes");
  require(searches >= 0, "sizes must not be negative");
}

std::int64_t scratch_bytes(std::int64_t nodes, std::int64_t searches, int device) {
  constexpr const char* kFunction = "qap_tabu_scratch_bytes";
  require_sizes(nodes, searches);
  const DeviceGuard guard(device, kFunction);
  std::int64_t bytes = 0;
  check(qap_tabu_scratch_bytes(nodes, searches, &bytes), kFunction);
  return bytes;
}

void search(std::int64_t batch, std::int64_t nodes, std::int64_t runs, std::int64_t steps, std::uint64_t seed,
            std::int64_t start_count, std::uintptr_t given_flow, std::uintptr_t given_distance,
            std::uintptr_t given_linear, std::uintptr_t flow, std::uintptr_t distance, std::uintptr_t linear,
            std::uintptr_t sizes, std::uintptr_t symmetric, std::uintptr_t exact_in_float, std::uintptr_t noise,
            std::uintptr_t goal, std::uintptr_t starts, std::uintptr_t assignment, std::uintptr_t objective,
            std::uintptr_t iterations, std::uintptr_t scratch, int device, std::uintptr_t stream) {
  constexpr const char* kFunction = "qap_tabu";
  require(batch >= 0 && runs >= 0 && steps >= 0 && start_count >= 0, "sizes must not be negative");
  require_sizes(nodes, batch * runs);
  QapTabuBatch searches;
  searches.count = batch;
  searches.runs = runs;
  searches.steps = steps;
  searches.seed = seed;
  searches.first.nodes = searches.first.stride = nodes;
  searches.first.flow = pointer<const double>(given_flow);
  searches.first.distance = pointer<const double>(given_distance);
  searches.first.linear = pointer<const double>(given_linear);
  searches.flow = pointer<const double>(flow);
  searches.distance = pointer<const double>(distance);
  searches.linear = pointer<const double>(linear);
  searches.nodes = pointer<const std::int64_t>(sizes);
  searches.symmetric = pointer<const std::uint8_t>(symmetric);
  searches.exact_in_float = pointer<const std::uint8_t>(exact_in_float);
  searches.noise = pointer<const double>(noise);
  searches.goal = pointer<const double>(goal);
  searches.starts = pointer<const std::int64_t>(starts);
  searches.start_count = start_count;
  searches.assignment = pointer<std::int64_t>(assignment);
  searches.objective = pointer<double>(objective);
  searches.iterations = pointer<std::int64_t>(iterations);
  const DeviceGuard guard(device, kFunction);
  check(launch_qap_tabu(searches, pointer<void>(scratch), reinterpret_cast<cudaStream_t>(stream)), kFunction);
}

}  // namespace

void bind_cuda_qap(py::module_& module) {
  module.def("qap_tabu_scratch_bytes", &scratch_bytes, py::kw_only(), py::arg("nodes"), py::arg("searches"),
             py::arg("device"), "Bytes of device memory that qap_tabu needs for this batch.");
  module.def("qap_tabu", &search, py::call_guard<py::gil_scoped_release>(), py::kw_only(), py::arg("batch"),
             py::arg("nodes"), py::arg("runs"), py::arg("steps"), py::arg("seed"), py::arg("start_count"),
             py::arg("given_flow"), py::arg("given_distance"), py::arg("given_linear"), py::arg("flow"),
             py::arg("distance"), py::arg("linear"), py::arg("sizes"), py::arg("symmetric"), py::arg("exact_in_float"),
             py::arg("noise"), py::arg("goal"), py::arg("starts"), py::arg("assignment"), py::arg("objective"),
             py::arg("iterations"), py::arg("scratch"), py::arg("device"), py::arg("stream"),
             "Queues `runs` tabu searches of each dense problem on `stream`; see csrc/core/team_qap_tabu.hpp.");
}

}  // namespace graphmatch
