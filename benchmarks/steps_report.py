"""The sections of the report on steps of training: gradients, the alignment loss, whole steps; and on the import."""

from __future__ import annotations

from benchmarks.tables import Row, find, milliseconds, number, percent, table, values

_PHASES = {
    "forward": "main pass",
    "text": "text pass",
    "graph": "graphs",
    "solve": "solving",
    "backward": "backward",
    "optimizer": "optimizer",
}
_ALLOWANCE = 0.05


def gradients(rows: list[Row]) -> str:
    """Estimators around two solvers, forward and backward."""
    lines = [
        [
            info["estimator"],
            info["package"],
            info["solver"],
            info["noise"],
            info["nodes"],
            number(milliseconds(row)),
            percent(info["certified"]),
            number(info["gap"], 2),
            percent(info["nonzero_gradient"]),
        ]
        for row in rows
        for info in [row["extra_info"]]
    ]
    text = (
        "`MatchingLayer` on 6 ExGra instances, float32, two threads: forward and backward of the Hamming loss to the "
        "identity, Python included; ms per step, median. *thorough*: `Portfolio(max_gap=1e-4)`; *quick*: the solver of "
        "`BarycenterAlignment`. IMLE solves 6 noisy problems forward and 12 backward, BlackBox 6 and 6."
    )
    peer = _beside_pyepo(rows)
    if peer:
        text += (
            f" PyEPO: the same estimators with its own noise, on all costs, around the quick solver, which it calls "
            f"for one problem and sample at a time: {peer} times the time of `MatchingLayer`."
        )
    headers = ["estimator", "by", "solver", "noise", "N", "ms", "certified", "largest gap", "problems with a gradient"]
    return f"{text}\n\n{table(headers, lines)}"


def _beside_pyepo(rows: list[Row]) -> str:
    ratios = []
    for row in (row for row in rows if row["extra_info"]["package"] == "pyepo"):
        info = row["extra_info"]
        same = {key: info[key] for key in ("estimator", "solver", "noise", "nodes")}
        own = find(rows, package="graphmatch", **same)
        if own is not None:
            ratios.append(row["stats"]["median"] / own["stats"]["median"])
    return f"{number(min(ratios), 2)} to {number(max(ratios), 2)}" if ratios else ""


def samples(rows: list[Row]) -> str:
    """Time against the number of noisy copies."""
    counts = sorted(values(rows, "samples"))
    lines = []
    for solver in values(rows, "solver"):
        for noise in sorted(values(rows, "noise")):
            found = [find(rows, solver=solver, noise=noise, samples=count) for count in counts]
            times = [None if row is None else milliseconds(row) for row in found]
            ratio = None if times[0] is None or times[-1] is None else times[-1] / times[0]
            shares = [None if row is None else row["extra_info"]["certified"] for row in found]
            last = "" if shares[-1] is None else percent(shares[-1])
            lines.append([solver, noise, *(number(time) for time in times), number(ratio), last])
    text = (
        "`MatchingLayer` with `IMLE(samples=S, step=3.0, noise_scale=0.3)` on 6 ExGra instances with N = 16, one "
        "thread: forward and backward, Python included; ms per step, median. S noisy problems forward and 2 S backward "
        "for each of the six, all in two native calls, which share tables and duals. *certified*: share of the noisy "
        "problems with a gap of at most 1e-4."
    )
    largest = f"S = {counts[-1]} / S = {counts[0]}"
    headers = ["solver", "noise", *(f"S = {count}" for count in counts), largest, "certified"]
    return f"{text}\n\n{table(headers, lines)}"


def alignment_step(rows: list[Row]) -> str:
    """`BarycenterAlignment`, ours and the released recipe."""
    lines = []
    for nodes in sorted(values(rows, "nodes")):
        for dim in sorted(values(rows, "dim")):
            found = [find(rows, nodes=nodes, dim=dim, recipe=recipe) for recipe in ("default", "legacy")]
            gaps = [None if row is None else row["extra_info"]["gap"] for row in found]
            times = [number(milliseconds(row)) for row in found]
            lines.append([nodes, dim, *times, *(number(gap, 2) for gap in gaps)])
    text = (
        "`BarycenterAlignment` of three views, forward and backward, two threads: graphs, message passing and "
        "affinities included; ms per step, median. The default solves 3 problems forward and 6 backward, `legacy=True` "
        "(the released recipe) 6 and 6."
    )
    headers = ["N", "d", "default", "legacy", "largest gap, default", "largest gap, legacy"]
    return f"{text}\n\n{table(headers, lines)}"


def training_step(rows: list[Row]) -> str:
    """Steps of stage 2: overhead against tokens, and where the time goes."""
    lines = []
    for row in rows:
        info = row["extra_info"]
        split = info["split"]
        parts = [percent(split.get(phase)) if phase in split else "–" for phase in _PHASES]
        allowed = info["extra_tokens"] + _ALLOWANCE
        lines.append([info["case"], percent(info["overhead"]), percent(info["extra_tokens"]), percent(allowed), *parts])
    info = rows[0]["extra_info"]
    text = (
        f"A step of stage 2, optimizer included: the tiny model's larger sibling with {info['parameters']:,} "
        f"parameters, {info['samples']} samples of drawn pictures, {info['threads']} thread. *overhead*: time "
        "above that of a step without alignment, taken in turns with it; *allowed*: the extra tokens plus 5 % of the "
        "step. The rest are shares of the whole step; the backward pass is one for everything."
    )
    headers = ["objective", "overhead", "extra tokens", "allowed", *_PHASES.values()]
    return f"{text}\n\n{table(headers, lines)}"


def importing(rows: list[Row]) -> str:
    """Import times."""
    time = number(milliseconds(rows[0]))
    return f"`import graphmatch` after `import torch`, median of 5 fresh interpreters: {time} ms."
