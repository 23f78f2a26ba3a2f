// Lower bounds of dense problems.
//
// Gilmore and Lawler: facility i at location k costs at least linear[i, k] plus the smallest scalar product of row i of
// the flow and row k of the distance; the bound is the linear assignment of these costs. O(n^3).
//
// Source: P. C. Gilmore, "Optimal and suboptimal algorithms for the quadratic assignment problem", SIAM J. 10 (1962);
// E. L. Lawler, Management Science 9 (1963).
#pragma once

#include "core/qap_costs.hpp"
#include "core/stop.hpp"

namespace graphmatch {

// No permutation costs less: rounded down, or up to the next integer where all values are integers. +infinity when all
// permutations are forbidden.
double gilmore_lawler_bound(const QapCosts& costs);

// What `bound` says of an integer-valued objective: the next integer, allowing for nothing but its own rounding.
double rounded_bound(const QapCosts& costs, double bound);

}  // namespace graphmatch
