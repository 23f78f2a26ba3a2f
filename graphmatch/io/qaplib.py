"""The formats of QAPLIB: .dat files of dense quadratic assignment problems, .sln files of permutations.

A .dat file is a list of numbers, separated by any blanks and line ends: n, the n x n matrix A, the n x n matrix B, and
in some files an n x n matrix C of linear costs: C is there if 3 n^2 numbers follow n, and is not if 2 n^2 do; any other
count is an error. The objective is sum_ij A_ij B_p(i)p(j) + sum_i C_i,p(i) over permutations p: A is the flow, B the
distance of a `KoopmansBeckmannProblem`.

A .sln file holds n, the objective, and p(1), ..., p(n) counted from 1, separated by blanks, line ends or commas. Some
published files hold the inverse permutation or another objective: only the problem can tell.

Names that end in .gz or .xz are compressed files.

Source: R. E. Burkard, S. E. Karisch, F. Rendl, "QAPLIB - a quadratic assignment problem library", Journal of Global
Optimization 10 (1997).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch
from torch import Tensor

from graphmatch import _check
from graphmatch.io.files import as_path, write_bytes
from graphmatch.io.words import Words, shown
from graphmatch.problem import KoopmansBeckmannProblem

_MOST_NODES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class QaplibSolution:
    """A permutation for a problem of QAPLIB, and the objective that its source states.

    Args:
        objective: Finite number.
        assignment: (n,) int64 permutation, counted from 0: facility i is at location assignment[i].

    Raises:
        TypeError, ValueError: If the assignment is no permutation or the objective is not finite.

    Example:
        >>> import torch, graphmatch as gm
        >>> gm.io.QaplibSolution(578.0, torch.tensor([1, 0, 2])).n
        3
    """

    objective: float
    assignment: Tensor

    def __post_init__(self) -> None:
        """Checks everything."""
        where = type(self).__name__
        _check.integer(where, "assignment", _check.tensor(where, "assignment", self.assignment, 1, "(n,)"))
        count = self.assignment.shape[0]
        nodes = torch.arange(count, device=self.assignment.device)
        if not torch.equal(self.assignment.sort().values, nodes):
            rule = f"be a permutation of 0, ..., {count - 1}"
            cure = "A solution places every facility at a location of its own."
            raise ValueError(_check.message(where, "assignment", rule, self.assignment.tolist(), cure))
        if not isinstance(self.objective, int | float) or not math.isfinite(self.objective):
            received = _check.describe(self.objective)
            raise ValueError(_check.message(where, "objective", "be a finite number", received, "Evaluate it."))

    @property
    def n(self) -> int:
        """Number of facilities."""
        return self.assignment.shape[0]


def read_qaplib(path: str | os.PathLike[str]) -> KoopmansBeckmannProblem:
    r"""Reads a .dat file of QAPLIB.

    Args:
        path: File name; .gz and .xz are decompressed.

    Returns:
        A batch of one in float64 on the CPU: the first matrix is `flow`, the second `distance`, the third, if there is
        one, `linear`.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file breaks the format or is cut off; the message names the file and the line.

    Example:
        >>> from pathlib import Path
        >>> import graphmatch as gm
        >>> _ = Path("tiny.dat").write_text("2\n\n0 3\n1 0\n\n0 5\n2 0\n")
        >>> gm.solve(gm.io.read_qaplib("tiny.dat")).objective
        tensor([11.], dtype=torch.float64)
    """
    where = "read_qaplib"
    words = Words(where, as_path(where, path))
    size = _size(words)
    numbers = words.numbers(1)
    count, square = len(numbers), size * size
    matrices = f"{2 * square} numbers of two {size} x {size} matrices"
    if count < 2 * square:
        cure = "The file is cut off, or its first number is wrong."
        raise words.error(count, f"be followed by the rest of the {matrices}", f"{count} so far", cure)
    if count not in (2 * square, 3 * square):
        beyond = 3 * square if count > 3 * square else 2 * square
        rule = f"not go on behind the {matrices} unless there are {square} linear costs"
        cure = "A best known value behind the size belongs into a .sln file; a cut-off file must be copied again."
        raise words.error(1 + beyond, rule, f"{count} numbers", cure)
    shape = (3 if count > 2 * square else 2, 1, size, size)
    return KoopmansBeckmannProblem(*torch.from_numpy(numbers).reshape(shape))


def read_qaplib_solution(path: str | os.PathLike[str]) -> QaplibSolution:
    r"""Reads a .sln file of QAPLIB.

    Args:
        path: File name; .gz and .xz are decompressed.

    Returns:
        The permutation as it is written, and the objective as it is stated: whether both are true of a problem, the
        problem must tell.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file breaks the format or is cut off; the message names the file and the line.

    Example:
        >>> from pathlib import Path
        >>> import graphmatch as gm
        >>> _ = Path("tiny.sln").write_text("3 24.5\n2,3,1")
        >>> gm.io.read_qaplib_solution("tiny.sln")
        QaplibSolution(objective=24.5, assignment=tensor([1, 2, 0]))
    """
    where = "read_qaplib_solution"
    words = Words(where, as_path(where, path), commas=True)
    size = _size(words)
    if len(words) < 2:
        rule = "be followed by the objective"
        raise words.error(1, rule, "the end", "A .sln file begins with the size and the objective.")
    objective = float(words.numbers(1, 2)[0])
    count = len(words) - 2
    if count != size:
        rule = f"be followed by {size} locations" if count < size else f"not go on behind {size} locations"
        cure = "The file is cut off, or its first number is wrong."
        raise words.error(len(words) if count < size else 2 + size, rule, f"{count} of them", cure)
    locations = [words.integer(2 + place, f"a location in [1, {size}]") for place in range(size)]
    seen: set[int] = set()
    for place, location in enumerate(locations):
        if not 1 <= location <= size:
            cure = "Locations count from 1: add 1 to each if they count from 0."
            raise words.error(2 + place, f"hold locations in [1, {size}]", location, cure)
        if location in seen:
            cure = "A solution places every facility at a location of its own."
            raise words.error(2 + place, "hold locations that differ", f"{location} again", cure)
        seen.add(location)
    return QaplibSolution(objective, torch.tensor(locations, dtype=torch.int64) - 1)


def write_qaplib(path: str | os.PathLike[str], problem: KoopmansBeckmannProblem) -> None:
    """Writes one problem as a .dat file, with all digits; an existing file is replaced in one step.

    Args:
        path: File name; .gz and .xz are compressed.
        problem: A batch of one on any device, with finite linear costs or none. Padding is left out.

    Raises:
        OSError: If the file cannot be written.
        TypeError, ValueError: If the problem has no .dat form, or the path names something that is no regular file.

    Example:
        >>> from pathlib import Path
        >>> import torch, graphmatch as gm
        >>> flow, distance = torch.tensor([[[0.0, 3], [1, 0]]]), torch.tensor([[[0.0, 0.5], [2, 0]]])
        >>> gm.io.write_qaplib("tiny.dat", gm.KoopmansBeckmannProblem(flow, distance))
        >>> print(Path("tiny.dat").read_text().strip())
        2
        <BLANKLINE>
        0 3
        1 0
        <BLANKLINE>
        0 0.5
        2 0
    """
    where = "write_qaplib"
    file = as_path(where, path)
    if not isinstance(problem, KoopmansBeckmannProblem):
        cure = "The format holds dense quadratic problems only; write_dd writes sparse ones."
        raise TypeError(
            _check.message(where, "problem", "be a KoopmansBeckmannProblem", _check.describe(problem), cure)
        )
    if problem.batch_size != 1:
        cure = "Write each problem of the batch to a file of its own."
        raise ValueError(_check.message(where, "problem", "be a batch of 1", problem.batch_size, cure))
    size = int(problem.node_counts()[0][0])
    parts = [f"{size}\n"]
    for matrix in (problem.flow, problem.distance, problem.linear):
        if matrix is None:
            continue
        rows = matrix[0, :size, :size].detach().cpu().double()
        if not bool(rows.isfinite().all()):
            cure = "The format cannot forbid an assignment: give it a large cost."
            raise ValueError(_check.message(where, "problem.linear", "be finite", "an infinite cost", cure))
        parts += ["\n", *(" ".join(map(_number, row)) + "\n" for row in rows.tolist())]
    write_bytes(where, file, "".join(parts).encode())


def write_qaplib_solution(path: str | os.PathLike[str], solution: QaplibSolution) -> None:
    """Writes a permutation as a .sln file, counted from 1; an existing file is replaced in one step.

    Args:
        path: File name; .gz and .xz are compressed.
        solution: The permutation and its objective.

    Raises:
        OSError: If the file cannot be written.
        TypeError, ValueError: If it is no `QaplibSolution`, or the path names something that is no regular file.

    Example:
        >>> from pathlib import Path
        >>> import torch, graphmatch as gm
        >>> gm.io.write_qaplib_solution("tiny.sln", gm.io.QaplibSolution(578.0, torch.tensor([1, 2, 0])))
        >>> print(Path("tiny.sln").read_text().strip())
        3 578
        2 3 1
    """
    where = "write_qaplib_solution"
    file = as_path(where, path)
    if not isinstance(solution, QaplibSolution):
        cure = "Make one of an objective and an assignment."
        raise TypeError(_check.message(where, "solution", "be a QaplibSolution", _check.describe(solution), cure))
    locations = " ".join(str(location + 1) for location in solution.assignment.tolist())
    write_bytes(where, file, f"{solution.n} {_number(float(solution.objective))}\n{locations}\n".encode())


def _size(words: Words) -> int:
    """Returns the first word, the number of facilities."""
    size = words.integer(0, "the number of facilities")
    if not 0 <= size <= _MOST_NODES:
        rule = f"hold the number of facilities, at least 0 and at most {_MOST_NODES}"
        raise words.error(0, rule, shown(words.words[0]), "Is it a file of QAPLIB?")
    return size


def _number(value: float) -> str:
    """Returns the shortest digits that are read as this number; those of whole numbers have no point."""
    return repr(value).removesuffix(".0")
