"""What the project asks of its GPU solvers, beside what a run measured."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.tables import Row, find, number

# Microseconds per problem by nodes and batch.
LAP_LIMITS = {(64, 1024): 1.5, (300, 208): 30.0}
LAP_ALONE_LIMIT = 2.0
SPARSE_NODES, SPARSE_NOISE, SPARSE_LIMIT = 16, 0.3, 300_000
STEP_NODES, STEP_LIMIT = 64, 3.0
# Where the peer of the alignment step solves.
PEER = "CPU"


@dataclass(frozen=True)
class Target:
    """A figure that the project asks for, and the measured cases that it holds for."""

    name: str
    limit: float
    unit: str
    measured: dict[str, float]
    is_least: bool = False

    @property
    def asked(self) -> str:
        """The limit in words."""
        return f"at {'least' if self.is_least else 'most'} {self.limit:,g} {self.unit}"

    @property
    def reached(self) -> int:
        """How many of the measured cases reach it."""
        return sum(value >= self.limit if self.is_least else value <= self.limit for value in self.measured.values())

    def line(self) -> list[str]:
        """Returns the cells of the table: what, asked, measured, reached."""
        found = [f"{label}: {number(value)}" if label else number(value) for label, value in self.measured.items()]
        asked, reached = self.asked, self.reached
        if len(found) == 1:
            return [self.name, asked, *found, "yes" if reached else "**no**"]
        verdict = f"{reached} of {len(found)}"
        return [self.name, asked, "; ".join(found), verdict if reached == len(found) else f"**{verdict}**"]


def lap_ratio(row: Row) -> float:
    """The time of a problem in units of SciPy's."""
    info = row["extra_info"]
    return info["microseconds_per_problem"] / info["scipy_microseconds_per_problem"]


def step_time(row: Row) -> float:
    return 1000 * row["stats"]["median"]


def mode(row: Row) -> str:
    return f"{row['extra_info']['solved_on']}, {row['extra_info']['matmul_precision']}"


def threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def measured_targets(groups: dict[str, list[Row]]) -> list[Target]:
    """Returns the project's targets that this run measured."""
    lap, sparse, steps = (groups.get(name, []) for name in ("lap-cuda", "qap-sparse-cuda", "alignment-step-cuda"))
    found = []
    for (nodes, batch), limit in LAP_LIMITS.items():
        own = find(lap, nodes=nodes, batch=batch)
        measured = {} if own is None else {"": own["extra_info"]["microseconds_per_problem"]}
        found.append(Target(f"linear assignment, {nodes} x {nodes}, batches of {batch}", limit, "µs each", measured))
    alone = {f"n = {row['extra_info']['nodes']}": lap_ratio(row) for row in lap if row["extra_info"]["batch"] == 1}
    found.append(Target("linear assignment, one problem", LAP_ALONE_LIMIT, "times SciPy's time", alone))
    rates = {
        row["extra_info"]["solver"]: row["extra_info"]["certified_per_second"]
        for row in sparse
        if (row["extra_info"]["nodes"], row["extra_info"]["noise"]) == (SPARSE_NODES, SPARSE_NOISE)
    }
    name = f"certified ExGra problems, N = {SPARSE_NODES}, noise {SPARSE_NOISE}"
    found.append(Target(name, SPARSE_LIMIT, "per second", rates, is_least=True))
    times = {
        mode(row): step_time(row)
        for row in steps
        if row["extra_info"]["nodes"] == STEP_NODES and row["extra_info"]["solved_on"] != PEER
    }
    found.append(Target(f"alignment step, N = {STEP_NODES}", STEP_LIMIT, "ms", times))
    return [target for target in found if target.measured]
