"""What the commands know about the files of QAPLIB: problems (.dat) and the best known solutions beside them (.sln)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from graphmatch import _check, _reference
from graphmatch.io import QaplibSolution, read_qaplib_solution, write_qaplib_solution
from graphmatch.problem import KoopmansBeckmannProblem
from graphmatch.result import MatchResult

_COMPRESSED = ("", ".gz", ".xz")
_PROBLEMS = tuple(f".dat{suffix}" for suffix in _COMPRESSED)
_SOLUTIONS = tuple(f".sln{suffix}" for suffix in _COMPRESSED)


@dataclass(frozen=True)
class BestKnown:
    """The objective that a .sln file vouches for.

    Attributes:
        objective: Objective of a permutation of the file; None without a usable file.
        note: What is wrong with the file; None if nothing is.
    """

    objective: float | None = None
    note: str | None = None

    def gap(self, objective: float | None) -> float | None:
        """Returns how far an objective lies above, relative to the best known one; None where that says nothing."""
        if objective is None or self.objective is None:
            return None
        if objective == self.objective:
            return 0.0
        return (objective - self.objective) / abs(self.objective) if self.objective else None


def is_qaplib(file: Path) -> bool:
    """Whether the name is that of a problem of QAPLIB."""
    return file.name.lower().endswith(_PROBLEMS)


def best_known(file: Path, problem: KoopmansBeckmannProblem) -> BestKnown:
    """Returns what the .sln file of the same name beside the problem says, checked with the problem."""
    stem = file.name[: file.name.lower().rindex(".dat")]
    for beside in (file.with_name(stem + suffix) for suffix in _SOLUTIONS):
        if beside.exists():
            try:
                return _verified(problem, read_qaplib_solution(beside), beside.name)
            except (OSError, ValueError) as error:
                return BestKnown(note=f"{beside.name} cannot be used: {error}")
    return BestKnown()


def _verified(problem: KoopmansBeckmannProblem, solution: QaplibSolution, name: str) -> BestKnown:
    n = problem.flow.shape[1]
    if solution.n != n:
        return BestKnown(note=f"{name} cannot be used: it has {solution.n} facilities, the problem {n}")
    value = float(_reference.objective(problem, solution.assignment[None]))
    if _agree(value, solution.objective):
        return BestKnown(value)
    inverse = float(_reference.objective(problem, solution.assignment.argsort()[None]))
    if _agree(inverse, solution.objective):
        return BestKnown(inverse, f"{name} holds the inverse of the permutation with this objective")
    return BestKnown(value, f"{name} says {solution.objective:.12g}, its permutation has {value:.12g}")


def _agree(value: float, stated: float) -> bool:
    return math.isclose(value, stated, rel_tol=1e-9)


def check_output(file: Path, output: Path) -> None:
    """Refuses an output that could not be written, before the search begins."""
    if not is_qaplib(file):
        rule = "be left out for a .dd file"
        cure = "The format has no file of answers; redirect --json to a file."
        raise ValueError(_check.message("solve", "--output", rule, repr(str(output)), cure))
    if not output.name.lower().endswith(_SOLUTIONS):
        rule = f"name a {', '.join(_SOLUTIONS[:-1])} or {_SOLUTIONS[-1]} file"
        cure = "A permutation is written in the format of QAPLIB."
        raise ValueError(_check.message("solve", "--output", rule, repr(str(output)), cure))
    if output.exists() and not output.is_file():
        cure = "Choose another name."
        raise ValueError(_check.message("solve", "--output", "name a new or a regular file", repr(str(output)), cure))
    folder = output.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        cure = "Choose another folder."
        raise ValueError(_check.message("solve", "--output", "lie in a folder to write to", repr(str(folder)), cure))


def write_output(output: Path, result: MatchResult) -> None:
    """Writes the matching of the first problem, if there is one."""
    if bool(result.objective[0].isfinite()):
        write_qaplib_solution(output, QaplibSolution(float(result.objective[0]), result.assignment[0].cpu()))


def summary(file: Path, problem: KoopmansBeckmannProblem) -> dict[str, Any]:
    """Returns the size, what the matrices hold, and the best known objective."""
    known = best_known(file, problem)
    return {
        "facilities": problem.flow.shape[1],
        "flow": _matrix(problem.flow[0]),
        "distance": _matrix(problem.distance[0]),
        "linear": None if problem.linear is None else _matrix(problem.linear[0]),
        "best_known": known.objective,
        "best_known_note": known.note,
    }


def _matrix(values: torch.Tensor) -> dict[str, Any]:
    return {
        "symmetric": torch.equal(values, values.T),
        "integer": torch.equal(values, values.round()),
        "density": int(values.count_nonzero()) / max(values.numel(), 1),
        "range": [float(values.min()), float(values.max())] if values.numel() else None,
    }


def summary_rows(content: dict[str, Any]) -> dict[str, str]:
    """Returns the same as lines of a table."""
    known = content["best_known"]
    return {
        "file": content["file"],
        "facilities": str(content["facilities"]),
        "flow": _matrix_text(content["flow"]),
        "distance": _matrix_text(content["distance"]),
        "linear costs": "none" if content["linear"] is None else _matrix_text(content["linear"]),
        "best known": best_known_text(known, content["best_known_note"]) or "no .sln file beside it",
    }


def best_known_text(objective: float | None, note: str | None, gap: float | None = None) -> str:
    """Returns the best known objective, how far the found one lies above, and what is wrong with the file."""
    parts = []
    if objective is not None:
        parts.append(f"{objective:.12g}" + ("" if gap is None else f", gap {100 * gap:.3g} %"))
    if note is not None:
        parts.append(note)
    return "; ".join(parts)


def _matrix_text(content: dict[str, Any]) -> str:
    if content["range"] is None:
        return "empty"
    lowest, highest = content["range"]
    shape = "symmetric" if content["symmetric"] else "not symmetric"
    numbers = "integers" if content["integer"] else "numbers"
    return f"{shape}, {numbers} from {lowest:g} to {highest:g}, {100 * content['density']:.3g} % not zero"
