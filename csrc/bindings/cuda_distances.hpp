// Distances between points, for the CUDA module.
#pragma once

#include <pybind11/pybind11.h>

namespace graphmatch {

void bind_cuda_distances(pybind11::module_& module);

}  // namespace graphmatch
