"""The readers that are fuzzed: valid files, what a reader says of a file, and what a strict second reading says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import graphmatch as gm
from exgra_adapter.data.records import Record, Turn, read_records, write_records
from exgra_adapter.evaluation.files import Prediction, read_answers, read_candidates, write_answers

from . import strict_readers

MACHINE_BYTES = 2**25  # files that need more are refused, so that the fuzzing itself stays small


@dataclass(frozen=True)
class Format:
    """One reader.

    Attributes:
        name: File name.
        write: Writes a valid file, of a few kinds.
        read: Returns what the reader says of a file, in plain values.
        strict: Returns the same of the bytes, or raises `Refused`; None where any answer or refusal will do.
    """

    name: str
    write: Callable[[Path, int], None]
    read: Callable[[Path], Any]
    strict: Callable[[bytes], Any] | None = None


def lawler(seed: int, n1: int = 3, n2: int = 3) -> gm.LawlerProblem:
    generator = torch.Generator().manual_seed(seed)
    unary = torch.randn(1, n1, n2, generator=generator, dtype=torch.float64)
    unary[torch.rand(unary.shape, generator=generator) < 0.2] = torch.inf
    edges = [torch.combinations(torch.arange(n)) for n in (n1, n2)]
    quadratic = torch.randn(1, len(edges[0]), len(edges[1]), generator=generator, dtype=torch.float64)
    return gm.LawlerProblem(unary, quadratic.round(decimals=2), *edges, unmatched_cost=0.0)


def write_pairs(path: Path, seed: int) -> None:
    sizes = (2, 3, 1)
    pairs = [(0, 1), (2, 1), (0, 2)][: 1 + seed % 3]
    gm.io.write_multigraph_dd(path, {(i, j): lawler(seed, sizes[i], sizes[j]) for i, j in pairs})


def plain(problem: gm.LawlerProblem) -> tuple:
    """A Lawler problem as the strict reading describes it."""
    unary, quadratic = problem.unary_costs[0], problem.quadratic_costs[0]
    edges1, edges2 = problem.edges1[0].tolist(), problem.edges2[0].tolist()
    allowed = {(i, k): float(unary[i, k]) for i, k in unary.isfinite().nonzero().tolist()}
    paid = {
        (*pair1, *pair2): float(quadratic[e, f])
        for e, pair1 in enumerate(edges1)
        for f, pair2 in enumerate(edges2)
        if quadratic[e, f] != 0
    }
    return *unary.shape, allowed, {(i, k, j, m): value for (i, j, k, m), value in paid.items()}


def without_zeros(blocks: dict) -> dict:
    return {
        graphs: (n1, n2, unary, {key: value for key, value in quadratic.items() if value})
        for graphs, (n1, n2, unary, quadratic) in blocks.items()
    }


def write_dat(path: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    numbers = [torch.randn(1, 3, 3, generator=generator).mul(9).round() for _ in range(2 + seed % 2)]
    gm.io.write_qaplib(path, gm.KoopmansBeckmannProblem(*numbers))


def read_dat(path: Path) -> list[list[float]]:
    problem = gm.io.read_qaplib(path)
    matrices = (problem.flow, problem.distance, problem.linear)
    return [matrix.flatten().tolist() for matrix in matrices if matrix is not None]


def write_sln(path: Path, seed: int) -> None:
    order = torch.randperm(3 + seed % 3, generator=torch.Generator().manual_seed(seed))
    gm.io.write_qaplib_solution(path, gm.io.QaplibSolution(24.5 + seed, order))


def read_sln(path: Path) -> tuple[float, list[int]]:
    solution = gm.io.read_qaplib_solution(path)
    return solution.objective, solution.assignment.tolist()


def records(seed: int) -> list[Record]:
    longer = ("It is the left lung.", "Yes: an opacity.") if seed % 2 else (None, None)
    turns = (Turn("Which lung?", "left", longer[0]), Turn("Läsion? \u2028", "yes", longer[1]))
    return [Record("7", "a.png", turns, "OPEN"), Record("x", "b/ü.png", turns[:1])]


def write_lines(path: Path, seed: int) -> None:
    listed = path.with_name("list.json")
    write_records(listed, records(seed))
    samples = strict_readers.decoded(listed.read_bytes())
    path.write_text("".join(strict_readers.json.dumps(sample) + "\n" for sample in samples))


def read_samples(path: Path) -> list[tuple]:
    return [
        (r.id, r.image, [(turn.question, turn.answer, turn.extended_answer) for turn in r.turns], r.answer_type)
        for r in read_records(path)
    ]


def write_predictions(path: Path, seed: int) -> None:
    failed = Prediction("q", 0, "Where?", "left", None, "time-out") if seed % 2 else Prediction("q", 0, "?", "a", "b")
    write_answers(path, [Prediction("7", 0, "Lesion?", "yes", "no"), Prediction("7", 1, "ü", "2", "2"), failed])


def read_predictions(path: Path) -> list[tuple]:
    return [(item.id, item.turn, item.prediction) for item in read_answers(path)]


def write_candidates(path: Path, seed: int) -> None:
    answers = ["yes", "left lung", 3, 0.5][: 1 + seed % 4]
    path.write_text(strict_readers.json.dumps({"0": answers}), encoding="utf-8")


def strictly_read() -> list[Format]:
    """The formats whose meaning is written down a second time."""
    most = MACHINE_BYTES // 8
    found = []
    for suffix in ("", ".gz", ".xz"):

        def single(content: bytes, suffix: str = suffix) -> dict:
            return without_zeros(strict_readers.dd(strict_readers.unpacked(suffix, content), False, most))

        def several(content: bytes, suffix: str = suffix) -> dict:
            return without_zeros(strict_readers.dd(strict_readers.unpacked(suffix, content), True, most))

        found += [
            Format(
                f"one.dd{suffix}",
                lambda path, seed: gm.io.write_dd(path, lawler(seed)),
                lambda path: {None: plain(gm.io.read_dd(path))},
                single,
            ),
            Format(
                f"many.dd{suffix}",
                write_pairs,
                lambda path: {pair: plain(problem) for pair, problem in gm.io.read_multigraph_dd(path).items()},
                several,
            ),
        ]
    return [
        *found,
        Format("case.dat", write_dat, read_dat, strict_readers.dat),
        Format("case.sln", write_sln, read_sln, strict_readers.sln),
        Format("case.json", lambda path, seed: write_records(path, records(seed)), read_samples,
               strict_readers.json_records),
        Format("case.jsonl", write_lines, read_samples, strict_readers.json_line_records),
        Format("answers.jsonl", write_predictions, read_predictions, strict_readers.answers),
        Format("candidates.json", write_candidates, read_candidates, strict_readers.candidates),
    ]  # fmt: skip
