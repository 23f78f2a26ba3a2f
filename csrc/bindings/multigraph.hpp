// The operator that matches several graphs at once.
#pragma once

#include <pybind11/pybind11.h>

namespace graphmatch {

void bind_multigraph(pybind11::module_& module);

}  // namespace graphmatch
