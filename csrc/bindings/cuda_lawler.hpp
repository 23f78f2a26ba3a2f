// Sparse Lawler problems in the module _native_cuda.
#pragma once

#include <pybind11/pybind11.h>

namespace graphmatch {

void bind_cuda_lawler(pybind11::module_& module);

}  // namespace graphmatch
