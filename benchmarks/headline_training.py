"""What the README says was measured of training: each claim made of stored results, or nothing where there are none."""

from __future__ import annotations

from statistics import fmean

from benchmarks import alignment, keypoint_report
from benchmarks.headline_data import Results, listed, share, short, span, threads_of
from benchmarks.tables import Row, find, values


def steps(results: Results) -> str:
    """A training step through the matchings, PyEPO beside it, and the whole alignment loss."""
    rows = [row for row in results.rows("gradients") if row["extra_info"]["solver"] == "quick"]
    own = [row for row in rows if row["extra_info"].get("package", "graphmatch") == "graphmatch"]
    own = [row for row in own if row["extra_info"]["noise"] == min(values(own, "noise"))] if own else []
    if not own:
        return ""
    parts = []
    for name in values(own, "estimator"):
        found = [row for row in own if row["extra_info"]["estimator"] == name]
        times = [f"{short(1000 * row['stats']['median'])} (N = {row['extra_info']['nodes']})" for row in found]
        parts.append(f"`{name}` {listed(times)}")
    info = own[0]["extra_info"]
    text = (
        f"**Steps**: forward and backward through {info['batch']} problems (`MatchingLayer`, noise {info['noise']:g}, "
        f"{threads_of(own[0])}), ms: {', '.join(parts)}"
    )
    ratios = _beside_pyepo(rows)
    text += f"; PyEPO's around the same solver {span(ratios)} times as long." if ratios else "."
    whole = results.rows("alignment-step")
    found = [row for row in whole if row["extra_info"]["recipe"] == "default"]
    if found:
        dim = min(values(found, "dim"))
        times = [
            f"{short(1000 * row['stats']['median'])} (N = {row['extra_info']['nodes']})"
            for row in found
            if row["extra_info"]["dim"] == dim
        ]
        text += f" `BarycenterAlignment` of three views (d = {dim}, {threads_of(found[0])}): {listed(times)}."
    return text


def _beside_pyepo(rows: list[Row]) -> list[float]:
    ratios = []
    for row in (row for row in rows if row["extra_info"].get("package") == "pyepo"):
        same = {key: row["extra_info"][key] for key in ("estimator", "solver", "noise", "nodes")}
        own = find(rows, package="graphmatch", **same)
        if own is not None:
            ratios.append(row["stats"]["median"] / own["stats"]["median"])
    return ratios


def gradient_errors(results: Results) -> str:
    """Errors of estimators on an enumerated problem, PyEPO's beside them."""
    if not results.gradients:
        return ""
    samples = results.gradients["study"]["samples"][0]
    wanted = {
        "symmetric, lambda 0.3": "`IMLE`",
        "leave-one-out": "`PerturbedOptimizer`",
        "IMLE, lambda 10 (default)": "PyEPO's I-MLE by default",
        "IMLE, lambda 0.3, two sides": "with our options",
        "DPO": "its DPO",
    }
    found = {row["name"]: row["rmse"].get(str(samples)) for row in results.gradients["rows"]}
    parts = [f"{label} {share(found[name])}" for name, label in wanted.items() if found.get(name) is not None]
    return (
        f"**Gradients**, error on an enumerated problem with {samples} samples (`graphmatch bench gradients`): "
        f"{', '.join(parts)}."
        if parts
        else ""
    )


def landmarks(results: Results) -> str:
    """Learning to match real landmarks: the range over all estimators."""
    if not results.keypoints:
        return ""
    groups = keypoint_report.grouped(results.keypoints["benchmarks"])
    # The others were given more problems.
    means = {
        name: fmean(row["trained"] for row in rows)
        for name, rows in groups.items()
        if "budget" not in name.split(",")[-1]
    }
    best, worst = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
    untrained = fmean(row["untrained"] for row in results.keypoints["benchmarks"])
    budget = results.keypoints["experiment"]["budget"]
    return (
        f"**Landmarks** of real images matched: {share(untrained)} before training; after {budget:,} solved problems "
        f"{share(means[worst])} (`{worst}`) to {share(means[best])} (`{best}`) with {len(means)} ways to train "
        "([all](docs/gradients.md))."
    )


def training(results: Results) -> str:
    """The alignment in a training step: time against tokens."""
    rows = {row["extra_info"]["case"]: row for row in results.rows("training-step")}
    wanted = {"barycenter": "", "barycenter, reused states": "with reused answer states "}
    parts = []
    for case, words in wanted.items():
        if case in rows:
            info = rows[case]["extra_info"]
            parts.append(f"{words}{share(info['overhead'])} more time for {share(info['extra_tokens'])} more tokens")
    if not parts:
        return ""
    row = next(rows[case] for case in wanted if case in rows)
    split = row["extra_info"]["split"]
    own = split.get("graph", 0.0) + split.get("solve", 0.0)
    return (
        f"**The alignment in a training step** (tiny model's larger sibling, {row['extra_info']['samples']} samples, "
        f"{threads_of(row)}): {', '.join(parts)}; graphs and solving take {100 * own:.1f} % of the step."
    )


def objectives(results: Results) -> str:
    """What objectives of training teach a tiny model."""
    arms = {row["arm"]: row for row in results.objectives.get("summary", [])}
    wanted = {
        "barycenter": "barycenter",
        "AR only": "without it",
        "InfoNCE": "InfoNCE",
        "released recipe": "released recipe",
    }
    found = [(label, arms[name]) for name, label in wanted.items() if name in arms]
    if not found:
        return ""
    texts = [
        ", ".join(f"{label} {share(arm[key])}" for label, arm in found) for key in ("held_out_retrieval", "summary")
    ]
    return (
        f"**What it teaches** (tiny model, drawn pictures, {found[0][1]['seeds']} seeds, "
        f"`python -m benchmarks.objectives`): retrieval among 16 unseen samples {texts[0]}; answers after fine-tuning "
        f"{texts[1]} ([all {len(arms)}](docs/objectives.md#what-they-are-worth))."
    )


def loss_alone(results: Results) -> str:
    """Retrieval after training with the alignment loss alone."""
    arms = results.alignment.get("summary", [])
    if not arms:
        return ""
    size = max(arms[0]["retrieval"], key=int)
    parts = []
    for barycenter in dict.fromkeys(arm["barycenter"] for arm in arms):
        found = [
            f"`{arm['gradient'].split('(')[0]}` {share(arm['retrieval'][size]['mean'])}"
            for arm in arms
            if arm["barycenter"] == barycenter
        ]
        parts.append(f"{alignment.NAMES[barycenter]} {', '.join(found)}")
    count = results.alignment["experiment"]["steps"]
    return (
        f"**The alignment loss alone**, {count} steps, top-1 retrieval among {size} unseen points by barycenter: "
        f"{'; '.join(parts)}."
    )
