"""Writes the demo's report: Markdown and plots, from what was measured and nothing else."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import transformers

from exgra_adapter.atomic import write_json, write_text
from exgra_adapter.demo.plots import plot_alignment, plot_examples, plot_losses, plot_scores
from exgra_adapter.demo.results import ARMS, DemoResult, HeldOutAlignment
from exgra_adapter.demo.scenes import TOPICS
from exgra_adapter.evaluation.metrics import Estimate

REPORT = "report.md"
_RESULTS = "results.json"
_KIND = "exgra-med demo"
_NOTICE = (
    "For research only. The pictures are drawings, not scans; the model is a toy with random beginnings. Nothing "
    "here says anything about a patient, and nothing here may be used for diagnosis."
)


def is_demo_folder(folder: Path) -> bool:
    """Says whether `write_report` has written into this folder."""
    try:
        content = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("kind") == _KIND


def write_report(result: DemoResult, folder: Path, images: Path) -> Path:
    """Writes `report.md`, four plots and `results.json` into a folder.

    Args:
        result: What was measured.
        folder: An existing folder.
        images: The pictures, for the examples.

    Returns:
        The path of the report.
    """
    plot_losses(result, folder / "losses.png")
    plot_alignment(result, folder / "alignment.png")
    plot_scores(result, folder / "scores.png")
    plot_examples(result, images, folder / "examples.png")
    write_json(folder / _RESULTS, _to_json(result))
    report = folder / REPORT
    write_text(report, format_report(result))
    return report


def format_report(result: DemoResult) -> str:
    """Formats the report as Markdown."""
    config = result.config
    sections = [
        "# ExGra-Med in small: training with and without the alignment loss",
        _NOTICE,
        f"One language-and-vision model of {result.parameters / 1e6:.2f} M parameters learned to answer questions "
        f"about {config.train_pictures} synthetic pictures, once with the multi-graph alignment loss in stage 2 and "
        f"once without it: same data, same seed ({result.seed}), same number of steps. Both were asked about "
        f"{config.test_pictures} pictures that neither had seen.",
        "## What came out",
        format_verdict(result),
        "![Scores on held-out questions](scores.png)",
        _scores_table(result),
        "Open questions: share of the reference's distinct words in the answer. Closed questions: the right verdict "
        "in whole words. Brackets: 95 % percentile-bootstrap intervals over the questions; they do not show how "
        "much another seed would change. *Most frequent answer* gives the commonest training answer to that kind of "
        "question and never looks at the picture.",
        "### By topic",
        _topics_table(result),
        "Exact match on the open questions of each topic; whether there is a lesion (presence) is a yes/no question.",
        "## Examples",
        "Taken in file order, one topic after the other; not chosen by how well they were answered.",
        "![Held-out phantoms with answers](examples.png)",
        "## The alignment",
        "![Recovered matching and retrieval](alignment.png)",
        _alignment_table(result),
        f"Graphs of {config.batch_size} held-out samples each ({result.before.batches} graphs), so chance is "
        f"{100 / config.batch_size:.1f} %. *Recovered matching*: nodes that the solver matches with their own "
        "barycenter node (the mean of the other two views). *Retrieval*: the nearest node of another view belongs "
        "to the same sample, before message passing. Without the alignment loss the message passing is not "
        "trained: its matching is that of the random one that both arms begin with." + _zero_share(result),
        "![Losses](losses.png)",
        "## Settings",
        _settings_table(result),
        "## Time",
        _times_table(result),
        f"Without imports and the drawing of these plots. {result.threads} CPU "
        f"thread{'s' if result.threads != 1 else ''}, {platform.machine()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}.",
        "## Look further",
        "`data/` holds the pictures and the questions in the public JSON format, `models/` every trained model. "
        "Inside this folder, score one again with",
        "```bash\n"
        "exgra-med evaluate vqa --model models/with_alignment/vqa --data data/vqa_test.json --images data/images "
        "--output answers\n```",
    ]
    return "\n\n".join(sections) + "\n"


def format_verdict(result: DemoResult) -> str:
    """Says in a few sentences which arm scored higher and whether the difference can be told from chance."""
    with_alignment, without = (result.arms[arm].scores.summary for arm in ARMS)
    difference = result.difference
    if difference.low > 0:
        judgement = "The alignment loss helped here: the interval of the difference lies above zero."
    elif difference.high < 0:
        judgement = "The alignment loss did harm here: the interval of the difference lies below zero."
    else:
        judgement = "The interval of the difference contains zero: this run does not show which one is better."
    return (
        f"Mean of open recall and closed accuracy: **{_percent(with_alignment)}** with alignment, "
        f"**{_percent(without)}** without, {_percent(result.majority.summary)} for the most frequent answer. "
        f"Difference: {100 * difference.value:+.1f} points [{100 * difference.low:+.1f}, "
        f"{100 * difference.high:+.1f}]. {judgement}"
    )


def _scores_table(result: DemoResult) -> str:
    rows = {
        "exact match": "exact_match",
        "open: unique-token recall": "open_recall",
        "closed: accuracy": "closed_accuracy",
        "mean of open and closed": "summary",
    }
    columns = [*(result.arms[arm].scores for arm in ARMS), result.majority]
    body = []
    for name, key in rows.items():
        estimates: list[Estimate | None] = [getattr(scores, key) for scores in columns]
        first = estimates[0]
        body.append([name, str(first.count) if first else "0", *map(_interval, estimates[:2]), _percent(estimates[2])])
    body.append(["questions without an answer", "", *(str(scores.failed) for scores in columns[:2]), ""])
    return _table(["score (%)", "questions", *ARMS, "most frequent answer"], body)


def _topics_table(result: DemoResult) -> str:
    body = []
    for topic in TOPICS:
        baseline = result.majority_by_topic.get(topic)
        if baseline is not None:
            arms = (_interval(result.arms[arm].by_topic[topic]) for arm in ARMS)
            body.append([topic, str(baseline.count), *arms, _percent(baseline)])
    return _table(["topic", "questions", *ARMS, "most frequent answer"], body)


def _alignment_table(result: DemoResult) -> str:
    def row(name: str, values: HeldOutAlignment) -> list[str]:
        return [name, f"{100 * values.matching_accuracy:.1f}", f"{100 * values.retrieval:.1f}"]

    body = [row("before stage 2", result.before), *(row(f"after, {arm}", result.arms[arm].after) for arm in ARMS)]
    return _table(["held-out samples", "recovered matching (%)", "cross-view retrieval (%)"], body)


def _zero_share(result: DemoResult) -> str:
    shares = [
        entry["zero_gradient_share"]
        for entry in result.arms["with alignment"].instruct_history
        if "zero_gradient_share" in entry
    ]
    if not shares:
        return ""
    return f" The discrete loss sent no gradient in {100 * sum(shares) / len(shares):.0f} % of the training steps."


def _settings_table(result: DemoResult) -> str:
    values = {"seed": result.seed, **dataclasses.asdict(result.config)}
    return _table(["setting", "value"], [[name.replace("_", " "), f"{value:g}"] for name, value in values.items()])


def _times_table(result: DemoResult) -> str:
    body = [[name, f"{seconds:.1f}"] for name, seconds in result.seconds.items()]
    return _table(["phase", "seconds"], [*body, ["**together**", f"**{sum(result.seconds.values()):.1f}**"]])


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _percent(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{100 * estimate.value:.1f}"


def _to_json(result: DemoResult) -> dict[str, object]:
    values = {"kind": _KIND, **dataclasses.asdict(result)}
    # The records and the answers have files of their own.
    del values["test_records"]
    for arm in ARMS:
        del values["arms"][arm]["predictions"]
        del values["arms"][arm]["scores"]["items"]
    del values["majority"]["items"]
    return values
