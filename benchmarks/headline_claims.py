"""What the README says was measured: each claim a sentence made of stored results, or nothing where there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean, median
from typing import Any

from benchmarks import cuda_report, cuda_targets, growth_report, multigraph_report
from benchmarks.headline_data import Results, share, short, span
from benchmarks.headline_training import gradient_errors, landmarks, loss_alone, objectives, steps, training
from benchmarks.other_reports import CUDA, MULTIGRAPH
from benchmarks.tables import Row, find, milliseconds, values


def sparse_table(results: Results) -> list[list[str]]:
    """Returns header and lines of the table on ExGra instances; nothing without them."""
    rows = results.rows("qap-sparse")
    if not rows:
        return []
    sizes, noises = sorted(values(rows, "nodes")), values(rows, "noise")
    seeds = max(row["extra_info"]["seeds"] for row in rows)
    lines = [[f"ExGra instances, median of {seeds} seeds", *(f"N = {size}" for size in sizes)]]
    version = rows[0]["extra_info"]["versions"].get("pylibmgm", "")
    for noise in noises:
        own, theirs = (
            [find(rows, noise=noise, nodes=size, solver=solver, phase=phase) for size in sizes]
            for solver, phase in (("graphmatch", "native"), ("pylibmgm", "solve"))
        )
        lines.append([f"noise {noise:g}: graphmatch, ms; certified", *(_cell(row, _certified) for row in own)])
        if any(theirs):
            name = f"pylibmgm {version}, ms; graphmatch better / worse"
            lines.append([name, *(_cell(row, _compared) for row in theirs)])
    return lines


def _cell(row: Row | None, quality: Callable[[Mapping[str, Any]], str]) -> str:
    time = milliseconds(row)
    return "–" if row is None or time is None else f"{short(time)}; {quality(row['extra_info'])}"


def _certified(info: Mapping[str, Any]) -> str:
    return share(info["certified"])


def _compared(info: Mapping[str, Any]) -> str:
    return f"{info['graphmatch_better_on']} / {info['graphmatch_worse_on']}"


def real(results: Results) -> str:
    """Published instances: values reached, certificates, times."""
    rows = results.rows("qap-real")
    if not rows:
        return ""
    infos = [row["extra_info"] for row in rows]
    times = [1000 * row["stats"]["median"] for row in rows]
    reached, certified = (sum(info[key] for info in infos) for key in ("reached", "certified"))
    return (
        f"**Published instances** ({len(rows)}): published value reached on {reached}, a gap of at most 0.1 % "
        f"certified on {certified}, in {short(median(times))} ms in the median and {short(max(times))} ms at most."
    )


def unstructured(results: Results) -> str:
    """The largest problems without structure: objective and time of every solver."""
    rows = results.rows("qap-unstructured")
    if not rows:
        return ""
    nodes = max(values(rows, "nodes"))
    own = [row for row in rows if row["extra_info"]["nodes"] == nodes]
    parts = []
    for row in own:
        info = row["extra_info"]
        effort = f", effort {info['effort']:g}" if "effort" in info else ""
        parts.append(f"{info['solver']}{effort}: {info['objective']:.0f} in {short(row['stats']['median'])} s")
    return f"**Without structure** (n = {nodes}), mean objective, lower is better: {'; '.join(parts)}."


def dense(results: Results) -> str:
    """QAPLIB: share of best known values reached, and mean gap, of the portfolio and of the best peers."""
    answers = {row["extra_info"]["solver"]: row["extra_info"]["instances"] for row in results.rows("qap-dense")}
    wanted = ("Portfolio, 0.1 s, 1 thread", "Portfolio, 1 s, 2 threads", "scipy FAQ x 10", "POT Gromov-Wasserstein")
    parts = []
    for solver in (name for name in wanted if name in answers):
        judged = list(answers[solver].values())
        reached = sum(answer["gap"] <= 0 for answer in judged) / len(judged)
        gap = 100 * fmean(answer["gap"] for answer in judged)
        largest = max(answer["nodes"] for answer in judged)
        parts.append(f"{solver}: {share(reached)} of {len(judged)} with n <= {largest:.0f} (mean gap {gap:.2g} %)")
    return f"**QAPLIB**, best known value reached: {'; '.join(parts)}." if parts else ""


def linear(results: Results) -> str:
    """Linear assignments of 128 nodes, and every peer's time."""
    rows = [row for row in results.rows("lap") if row["extra_info"]["nodes"] == 128]
    own = find(rows, solver="graphmatch", family="uniform", dtype="float64")
    if own is None:
        return ""
    others = {}
    for solver in values(rows, "solver"):
        row = find(rows, solver=solver, family="uniform", dtype="float64")
        if row is not None and row is not own:
            others[solver.removeprefix("graphmatch, ")] = row
    parts = [f"{solver} {short(1000 * row['stats']['median'])}" for solver, row in others.items()]
    return (
        f"**Linear assignment**, {own['extra_info']['batch']} matrices of 128 x 128 in one call (uniform, float64), "
        f"ms: {short(1000 * own['stats']['median'])}; {', '.join(parts)}."
    )


def several_graphs(results: Results) -> str:
    """Planted sets: times beside pylibmgm's, and whose answers cost more."""
    answers = multigraph_report.answers_of(results.rows("multigraph"))
    ours, peer = multigraph_report.OURS, multigraph_report.PEER
    own = {answer.case: answer for answer in answers if answer.solver == ours}
    if not own:
        return ""
    sizes = sorted({answer.graphs for answer in own.values() if answer.family == "planted"})
    sizes = [size for size in sizes if size in (3, 5, 8, 16)] or sizes

    def times(solver: str) -> str:
        chosen = [[a.solve for a in answers if (a.solver, a.family, a.graphs) == (solver, "planted", s)] for s in sizes]
        return ", ".join(short(1000 * median(each)) for each in chosen if each)

    text = (
        f"**Several graphs** ({', '.join(map(str, sizes))} of 16 nodes) matched consistently, ms: "
        f"`gm.solve_multigraph` {times(ours)}"
    )
    parts = [f"{peer} {times(peer)}"] if times(peer) else []
    for name in ("pylibmgm", "pygmtools"):
        pairs = [
            (own[each.case].objective, each.objective)
            for each in answers
            if each.package == name and each.consistent and each.case in own
        ]
        if pairs:
            slack = multigraph_report.ROUNDING
            cheaper = sum(mine < theirs - slack * abs(theirs) for mine, theirs in pairs)
            dearer = sum(mine > theirs + slack * abs(theirs) for mine, theirs in pairs)
            parts.append(f"at less cost than {name} in {cheaper} of {len(pairs)} answers, at more in {dearer}")
    return "; ".join([text, *parts]) + "."


def barycenters(results: Results) -> str:
    """What the study of methods for several graphs itself says about barycenters."""
    answer = next(
        (text for text in results.multigraph.get("answers", []) if text.startswith("The barycenter graph")), ""
    )
    link = f"(`graphmatch bench multigraph`, [all answers](benchmarks/results/{MULTIGRAPH.with_suffix('.md')}))"
    return f"**Barycenters**. {answer.removesuffix('.')} {link}." if answer else ""


def growth(results: Results) -> str:
    """Exponents of the time in n."""
    parts = []
    for each in growth_report.growths(results.rows("growth")):
        if each.axis == "n" and each.power is not None:
            group, _, kind = each.group.partition(", ")
            parts.append(f"{group}{f' ({kind})' if kind else ''} n^{each.power.exponent:.1f}")
    return f"**Growth** of the time, fitted: {', '.join(parts)}." if parts else ""


def importing(results: Results) -> str:
    """What the import costs."""
    rows = results.rows("import")
    return f"**Import**: `import graphmatch` takes {short(rows[0]['stats']['median'])} s beyond torch." if rows else ""


BULLETS: tuple[Callable[[Results], str], ...] = (
    real,
    unstructured,
    dense,
    linear,
    several_graphs,
    barycenters,
    steps,
    gradient_errors,
    landmarks,
    loss_alone,
    training,
    objectives,
    growth,
    importing,
)


def on_gpu(results: Results) -> str:
    """The GPU: sparse problems per second, linear assignments, and the targets that were missed."""
    groups = cuda_report.groups_of(results.cuda)
    if not groups:
        return ""
    rows = [row for own in groups.values() for row in own]
    device = rows[0]["extra_info"].get("device", "GPU")
    parts = []
    sparse = [row["extra_info"] for row in groups.get("qap-sparse-cuda", [])]
    same = (cuda_targets.SPARSE_NODES, cuda_targets.SPARSE_NOISE)
    chosen = [info for info in sparse if (info["nodes"], info["noise"]) == same]
    if chosen:
        best = max(chosen, key=lambda info: info["certified_per_second"])
        ratio = best["problems_per_second"] / best["cpu_problems_per_second"]
        apart = max(abs(cuda_report.excess(info)) for info in sparse)
        verdict = "the CPU's objectives" if apart == 0 else f"objectives within {apart:.1g} of the CPU's"
        parts.append(
            f"{best['certified_per_second']:,.0f} certified ExGra problems of {same[0]} nodes per second (noise "
            f"{same[1]}), {short(ratio)} times {cuda_targets.threads(best.get('threads', 1))} of its CPU; in all "
            f"{len(sparse)} rows {verdict}"
        )
    batches = [row["extra_info"] for row in groups.get("lap-cuda", []) if row["extra_info"]["batch"] > 1]
    if batches:
        each = [
            f"{info['nodes']} x {info['nodes']} in batches of {info['batch']:,} "
            f"{short(info['microseconds_per_problem'])}"
            for info in batches
        ]
        parts.append(f"linear assignments, µs each: {', '.join(each)}")
    link = f"[report](benchmarks/results/{CUDA.with_suffix('.md')})"
    text = f"**GPU** ({device}, `make bench-cuda`, {link}): {'; '.join(parts)}."
    missed = [target for target in cuda_targets.measured_targets(groups) if target.reached < len(target.measured)]
    if missed:
        names = [f"{target.name} ({span(target.measured.values())}; asked: {target.asked})" for target in missed]
        text += f" Targets missed in some case: {'; '.join(names)}."
    return text
