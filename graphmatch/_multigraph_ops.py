"""The native operation that searches for consistent matchings between several graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from graphmatch import _ops
from graphmatch._native import cpu as _cpu

_library = _ops._library
_library.define(
    f"multigraph_search({_ops._LAWLER}, Tensor pairs, Tensor nodes, int universe, Tensor labels, Tensor merges, "
    "int sweeps, float effort, int max_iterations, int seed, int wave, int agreement, float lower_bound, "
    "float max_gap, float? time_limit, int threads) -> (Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)

multigraph_search = torch.ops.graphmatch.multigraph_search.default


@torch.library.impl(_library, "multigraph_search", "CPU")
def _multigraph_search(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    pairs: Tensor,
    nodes: Tensor,
    universe: int,
    labels: Tensor,
    merges: Tensor,
    sweeps: int,
    effort: float,
    max_iterations: int,
    seed: int,
    wave: int,
    agreement: int,
    lower_bound: float,
    max_gap: float,
    time_limit: float | None,
    threads: int,
) -> tuple[Tensor, Tensor]:
    """Searches from each of s starts; returns labels (s, m, n) and objectives (s, p), +inf where nothing was found.

    Starts are taken `wave` by `wave`, until `agreement` of them have come to the least cost, or that is proven by the
    lower bound up to the relative gap; the others are left out.

    A start is `labels` (s, m, n), or where they are all -1 the construction that merges the clusters of the graphs
    merges[s, 0], merges[s, 1] and so on, (s, m - 1, 2). `universe` limits the elements; 0 = no limit. Problem i belongs
    to the graphs pairs[i].
    """
    problems, alive = _ops._lawler_arguments(_cpu, unary_costs, quadratic_costs, edges1, edges2, sizes, unmatched_cost)
    found = labels.clone(memory_format=torch.contiguous_format)
    merges, pairs, nodes = merges.contiguous(), pairs.contiguous(), nodes.contiguous()
    objectives = torch.empty(labels.shape[0], unary_costs.shape[0], dtype=torch.float64)
    graphs = _cpu.MultigraphArguments(
        graphs=labels.shape[1],
        label_stride=labels.shape[2],
        universe=universe,
        starts=labels.shape[0],
        nodes=nodes.data_ptr(),
        pairs=pairs.data_ptr(),
        labels=found.data_ptr(),
        merges=merges.data_ptr(),
        objectives=objectives.data_ptr(),
    )
    options = _cpu.MultigraphOptions(
        seed=seed % 2**64,
        sweeps=sweeps,
        effort=effort,
        max_iterations=max_iterations,
    )
    starts = _cpu.MultigraphStarts(wave=wave, agreement=agreement, lower_bound=lower_bound, max_gap=max_gap)
    _cpu.multigraph_search(problems, graphs, options, starts, _ops._budget(time_limit, threads))
    del alive
    return found, objectives


@torch.library.register_fake("graphmatch::multigraph_search", lib=_library)
def _multigraph_search_fake(
    unary_costs: Tensor,
    quadratic_costs: Tensor,
    edges1: Tensor,
    edges2: Tensor,
    sizes: Tensor | None,
    unmatched_cost: float | None,
    pairs: Tensor,
    nodes: Tensor,
    universe: int,
    labels: Tensor,
    *options: object,
) -> tuple[Tensor, Tensor]:
    objectives = labels.new_empty(labels.shape[0], unary_costs.shape[0], dtype=torch.float64)
    return torch.empty_like(labels), objectives
