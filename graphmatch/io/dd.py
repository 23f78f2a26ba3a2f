"""The .dd format of graph matching benchmarks, for one pair of graphs or for many.

One line per fact, fields separated by blanks, node numbers and ids from 0, costs minimised:

    c TEXT                             comment
    p N1 N2 ASSIGNMENTS PAIRS          nodes of both graphs, numbers of `a` and `e` lines
    a ID NODE1 NODE2 COST              an assignment; ids count up from 0; what is not listed is forbidden
    e ID1 ID2 COST                     cost of using two assignments at once, in either order; repeated lines add up
    i0 ID X Y, i1 ID X Y, n0 ..., n1 ...   coordinates and neighbours of the nodes: not read

Nodes may stay unmatched at no cost. A `p` line that declares 0 assignments or pairs leaves their number open, as some
programs write it; any other number must be true. A multi-graph file has one block per pair of graphs, a line `gm I J`
and then the lines above. Names that end in .gz or .xz are compressed files.

Source: L. Torresani, V. Kolmogorov, C. Rother, "A dual decomposition approach to feature correspondence", IEEE
Transactions on Pattern Analysis and Machine Intelligence 35 (2013), whose program introduced the format.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from graphmatch import _check
from graphmatch.io.dd_lines import Block, read_blocks, read_single
from graphmatch.io.files import as_path, write_bytes
from graphmatch.problem import LawlerProblem

_NUMBER_BYTES = 8


def read_dd(path: str | os.PathLike[str]) -> LawlerProblem:
    r"""Reads a .dd file of one pair of graphs.

    Args:
        path: File name; .gz and .xz are decompressed.

    Returns:
        A batch of one in float64 on the CPU with `unmatched_cost` 0.0. `edges1` holds the pairs of nodes i < j of
        graph 1 that occur in the quadratic terms, `edges2` the ordered pairs of nodes of graph 2. Terms between
        assignments that share a node are left out: no matching pays them.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If a line breaks the format, the file is cut off, has several pairs of graphs, or needs more memory
            than there is; the message names the file and the line.

    Example:
        >>> from pathlib import Path
        >>> import graphmatch as gm
        >>> lines = ["p 2 2 3 1", "a 0 0 0 -1.0", "a 1 0 1 0.5", "a 2 1 0 0.0", "e 1 2 -2.0"]
        >>> _ = Path("tiny.dd").write_text("\n".join(lines))
        >>> result = gm.solve(gm.io.read_dd("tiny.dd"))
        >>> result.assignment, float(result.objective)
        (tensor([[1, 0]]), -1.5)
    """
    where = "read_dd"
    file = as_path(where, path)
    return _problems(where, file, [read_single(where, file)])[0]


def read_multigraph_dd(path: str | os.PathLike[str]) -> dict[tuple[int, int], LawlerProblem]:
    r"""Reads a .dd file of several graphs: one problem for each pair that has a `gm` block.

    Args:
        path: File name; .gz and .xz are decompressed.

    Returns:
        The problems as of `read_dd` by pairs (i, j) of graph numbers, in the order of the file: rows of the problem are
        nodes of graph i, columns are nodes of graph j. Only one of (i, j) and (j, i) is there.

    Raises:
        OSError: If the file cannot be read.
        ValueError: As for `read_dd`; also if a pair comes twice or a graph changes its number of nodes.

    Example:
        >>> from pathlib import Path
        >>> import graphmatch as gm
        >>> block = "p 1 1 1 0\na 0 0 0 -1.0\n"
        >>> _ = Path("three.dd").write_text("".join(f"gm {i} {j}\n{block}" for i, j in [(0, 1), (0, 2), (1, 2)]))
        >>> problems = gm.io.read_multigraph_dd("three.dd")
        >>> list(problems), problems[0, 2].unary_costs.tolist()
        ([(0, 1), (0, 2), (1, 2)], [[[-1.0]]])
    """
    where = "read_multigraph_dd"
    file = as_path(where, path)
    blocks = read_blocks(where, file)
    pairs = [block.graphs for block in blocks if block.graphs is not None]
    return dict(zip(pairs, _problems(where, file, blocks), strict=True))


def write_dd(path: str | os.PathLike[str], problem: LawlerProblem) -> None:
    """Writes one problem as a .dd file, with all digits; an existing file is replaced in one step.

    Finite unary costs become assignments, quadratic terms that a matching can pay become pairs, terms of the same two
    assignments are added up, and a term of an edge (i, i) on an edge (k, k) is part of the cost of that assignment.

    Args:
        path: File name; .gz and .xz are compressed.
        problem: A batch of one on any device, with `unmatched_cost` 0.0: the format has no other. Padding is left out.

    Raises:
        OSError: If the file cannot be written.
        TypeError, ValueError: If the problem has no .dd form, or the path names something that is no regular file.

    Example:
        >>> import torch, graphmatch as gm
        >>> edges = torch.tensor([[0, 1]])
        >>> problem = gm.LawlerProblem(torch.zeros(1, 2, 2), torch.tensor([[[-2.5]]]), edges, edges, unmatched_cost=0.0)
        >>> gm.io.write_dd("tiny.dd.xz", problem)
        >>> gm.io.read_dd("tiny.dd.xz").quadratic_costs
        tensor([[[-2.5000]]], dtype=torch.float64)
    """
    where = "write_dd"
    file = as_path(where, path)
    write_bytes(where, file, _text(where, "problem", problem).encode())


def write_multigraph_dd(path: str | os.PathLike[str], problems: Mapping[tuple[int, int], LawlerProblem]) -> None:
    """Writes problems between several graphs as a .dd file of `gm` blocks, each as `write_dd` does.

    Args:
        path: File name; .gz and .xz are compressed.
        problems: Problems by pairs (i, j) of graph numbers; rows are nodes of graph i, columns are nodes of graph j.

    Raises:
        OSError: If the file cannot be written.
        TypeError, ValueError: As for `write_dd`; also if there is no problem, if (i, j) and (j, i) are both there, or
            if a graph has different numbers of nodes.

    Example:
        >>> import torch, graphmatch as gm
        >>> none = torch.zeros(0, 2, dtype=torch.int64)
        >>> problem = gm.LawlerProblem(-torch.eye(2)[None], torch.zeros(1, 0, 0), none, none, unmatched_cost=0.0)
        >>> gm.io.write_multigraph_dd("pairs.dd", {(0, 1): problem, (1, 2): problem})
        >>> list(gm.io.read_multigraph_dd("pairs.dd"))
        [(0, 1), (1, 2)]
    """
    where = "write_multigraph_dd"
    file = as_path(where, path)
    if not isinstance(problems, Mapping):
        cure = "Pass {(i, j): problem, ...}."
        raise TypeError(_check.message(where, "problems", "be a mapping", _check.describe(problems), cure))
    if not problems:
        raise ValueError(_check.message(where, "problems", "hold at least 1 problem", len(problems), "Add one."))
    parts = []
    nodes: dict[int, int] = {}
    for pair, problem in problems.items():
        _check_pair(where, pair, problems)
        parts.append(f"gm {pair[0]:d} {pair[1]:d}\n" + _text(where, f"problems[{pair[0]}, {pair[1]}]", problem))
        for graph, counts in zip(pair, problem.node_counts(), strict=True):
            count = int(counts[0])
            known = nodes.setdefault(graph, count)
            if known != count:
                rule = f"give graph {graph} the {known} nodes of the problems before it"
                cure = "Rows are nodes of graph i, columns are nodes of graph j."
                raise ValueError(_check.message(where, f"problems[{pair[0]}, {pair[1]}]", rule, count, cure))
    write_bytes(where, file, "".join(parts).encode())


def _check_pair(where: str, pair: object, problems: Mapping[tuple[int, int], LawlerProblem]) -> None:
    match pair:
        case (int(first), int(second)) if 0 <= first != second >= 0:
            if (second, first) in problems:
                received = f"{pair} and {(second, first)}"
                cure = "Keep one of the two."
                raise ValueError(_check.message(where, "problems", "hold each pair of graphs once", received, cure))
        case _:
            rule = "have keys (i, j) of two different graph numbers of at least 0"
            raise ValueError(_check.message(where, "problems", rule, repr(pair), "Count the graphs from 0."))


def _problems(where: str, file: Path, blocks: list[Block]) -> list[LawlerProblem]:
    """Returns the problems of all blocks, or refuses before it takes more memory than there is."""
    sizes = [block.sizes[:2] if block.sizes else (0, 0) for block in blocks]
    terms = [_Terms(block, n1, n2) for block, (n1, n2) in zip(blocks, sizes, strict=True)]
    numbers = sum(n1 * n2 + len(term.pairs1) * len(term.pairs2) for (n1, n2), term in zip(sizes, terms, strict=True))
    cure = f"{file.name} has too many nodes, or quadratic terms between too many pairs of nodes, for a dense array."
    _check.memory(where, numbers * _NUMBER_BYTES, cure)
    problems = []
    for block, (n1, n2), term in zip(blocks, sizes, terms, strict=True):
        unary = np.full((1, n1, n2), np.inf)
        unary[0, np.array(block.rows, dtype=np.int64), np.array(block.columns, dtype=np.int64)] = block.costs
        e1, e2 = len(term.pairs1), len(term.pairs2)
        quadratic = np.bincount(term.places1 * e2 + term.places2, term.costs, e1 * e2)
        largest = np.abs(quadratic).max(initial=0.0)
        if largest > _check.LARGEST_COST:
            rule = f"have `e` lines of the same two assignments that sum to at most {_check.LARGEST_COST:g}"
            raise ValueError(_check.message(where, file.name, rule, f"{largest:g}", "Scale the costs down."))
        edges1, edges2 = np.divmod(term.pairs1, max(n1, 1)), np.divmod(term.pairs2, max(n2, 1))
        problems.append(
            LawlerProblem(
                torch.from_numpy(unary),
                torch.from_numpy(quadratic.astype(np.float64, copy=False).reshape(1, e1, e2)),
                torch.from_numpy(np.stack(edges1, axis=1)),
                torch.from_numpy(np.stack(edges2, axis=1)),
                unmatched_cost=0.0,
            )
        )
    return problems


class _Terms:
    """The quadratic terms of a block that can be paid: costs, and places in the sorted pairs of nodes they join.

    A pair of nodes (i, j) is the number i * n + j.
    """

    def __init__(self, block: Block, n1: int, n2: int):
        rows, columns = (np.array(nodes, dtype=np.int64) for nodes in (block.rows, block.columns))
        firsts, seconds = (np.array(ids, dtype=np.int64) for ids in (block.firsts, block.seconds))
        payable = (rows[firsts] != rows[seconds]) & (columns[firsts] != columns[seconds])
        firsts, seconds = firsts[payable], seconds[payable]
        # One direction of graph 1 is enough: the lower node comes first.
        swapped = rows[firsts] > rows[seconds]
        firsts, seconds = np.where(swapped, seconds, firsts), np.where(swapped, firsts, seconds)
        self.costs = np.array(block.pair_costs, dtype=np.float64)[payable]
        self.pairs1, self.places1 = np.unique(rows[firsts] * n1 + rows[seconds], return_inverse=True)
        self.pairs2, self.places2 = np.unique(columns[firsts] * n2 + columns[seconds], return_inverse=True)


def _text(where: str, argument: str, problem: LawlerProblem) -> str:
    """Returns the lines of one problem, or raises an error that says why it has none."""
    _check_writable(where, argument, problem)
    n1, n2, e1, e2 = (
        (*problem.unary_costs.shape[1:], *problem.quadratic_costs.shape[1:])
        if problem.sizes is None
        else problem.sizes[0].tolist()
    )
    unary = problem.unary_costs[0, :n1, :n2].detach().cpu().double().numpy().copy()
    quadratic = problem.quadratic_costs[0, :e1, :e2].detach().cpu().double().numpy()
    places1, places2 = np.nonzero(quadratic)
    costs = quadratic[places1, places2]
    tails1, heads1 = problem.edges1[0, :e1].cpu().numpy()[places1].T
    tails2, heads2 = problem.edges2[0, :e2].cpu().numpy()[places2].T
    loops = (tails1 == heads1) & (tails2 == heads2)
    np.add.at(unary, (tails1[loops], tails2[loops]), costs[loops])
    allowed = np.isfinite(unary)
    ids = np.cumsum(allowed).reshape(allowed.shape) - 1
    payable = (tails1 != heads1) & (tails2 != heads2) & allowed[tails1, tails2] & allowed[heads1, heads2]
    first, second = ids[tails1, tails2][payable], ids[heads1, heads2][payable]
    count = int(allowed.sum())
    codes = np.minimum(first, second) * count + np.maximum(first, second)
    pairs, places = np.unique(codes, return_inverse=True)
    totals = np.bincount(places, costs[payable], len(pairs)).tolist()
    lines = [f"p {n1} {n2} {count} {len(pairs)}"]
    rows, columns = np.nonzero(allowed)
    assignments = zip(rows.tolist(), columns.tolist(), unary[allowed].tolist(), strict=True)
    lines += [f"a {number} {row} {column} {cost!r}" for number, (row, column, cost) in enumerate(assignments)]
    ids1, ids2 = np.divmod(pairs, max(count, 1))
    terms = zip(ids1.tolist(), ids2.tolist(), totals, strict=True)
    lines += [f"e {id1} {id2} {cost!r}" for id1, id2, cost in terms]
    return "\n".join([*lines, ""])


def _check_writable(where: str, argument: str, problem: object) -> None:
    if not isinstance(problem, LawlerProblem):
        cure = "The format holds sparse quadratic problems only."
        raise TypeError(_check.message(where, argument, "be a LawlerProblem", _check.describe(problem), cure))
    if problem.batch_size != 1:
        cure = "Write each problem of the batch to a file of its own."
        raise ValueError(_check.message(where, argument, "be a batch of 1", problem.batch_size, cure))
    if problem.unmatched_cost is None:
        cure = "The format cannot demand complete matchings; set 0.0 if nodes may stay unmatched."
        raise ValueError(_check.message(where, argument, "have an unmatched_cost of 0.0", None, cure))
    if problem.unmatched_cost != 0:
        cure = "Subtract it from every unary cost and set 0.0: every objective falls by n1 times the old number."
        raise ValueError(_check.message(where, argument, "have an unmatched_cost of 0.0", problem.unmatched_cost, cure))
