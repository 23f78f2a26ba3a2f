// The operators that solve many noisy copies of each problem, and the noise itself.
#pragma once

#include <pybind11/pybind11.h>

namespace graphmatch {

void bind_samples(pybind11::module_& module);

}  // namespace graphmatch
