"""What a prepared data set holds: counts per split, and what training and test data share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exgra_adapter.data.preparation.rows import Row
from exgra_adapter.prompts import IMAGE_TAG
from exgra_adapter.reporting.markdown import number, percent, plain, table

TOP = 20
_SHOWN = 12
_DISTRIBUTIONS = {"question_types": "Question types", "modalities": "Modalities", "locations": "Body regions"}
_HEADS = {
    "question_types": "question type",
    "modalities": "modality",
    "locations": "body region",
    "top_answers": "answer",
}

TOTALS = {"question_types": "rows", "modalities": "rows", "locations": "rows", "top_answers": "turns"}
"""What the counts of a distribution are a part of: the samples, or the questions in them."""


def collect_statistics(by_split: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """Counts what the splits hold and share.

    Args:
        by_split: The rows of each split.

    Returns:
        `splits` with the counts of each, and `shared` with what the test data share with the training data.

    Example:
        >>> talk = [{"from": "human", "value": "Where? <image>"}, {"from": "gpt", "value": "Left lung"}]
        >>> row = Row("test", "", {"id": "1", "image": "a.png", "answer_type": "OPEN", "conversations": talk})
        >>> collect_statistics({"test": [row]})["splits"]["test"]["answer_words"]["mean"]
        2.0
    """
    statistics: dict[str, Any] = {"splits": {split: _count_split(rows) for split, rows in by_split.items()}}
    statistics["shared"] = {
        split: _count_shared(by_split["train"], rows)
        for split, rows in by_split.items()
        if split != "train" and "train" in by_split
    }
    return statistics


def format_statistics(facts: Mapping[str, Any], picture: str) -> str:
    """Formats the statistics as Markdown.

    Args:
        facts: What `prepare` wrote to `statistics.json`.
        picture: The name of the picture beside the file.
    """
    splits: dict[str, Any] = facts["splits"]
    parts = [f"# {facts['data_set']}, prepared", _overview(splits), f"![What the data set holds]({picture})"]
    notes = _notes(facts)
    if notes:
        parts += ["## Worth knowing", "\n".join(f"- {note}" for note in notes)]
    for key, title in _DISTRIBUTIONS.items():
        if any(split[key] for split in splits.values()):
            parts += [f"## {title}", _distribution(splits, key)]
    if any(split["top_answers"] for split in splits.values()):
        parts += ["## Most frequent answers", _distribution(splits, "top_answers")]
    if facts["subsets"]:
        body = [
            [f"`{name}.json`", *(number(part.get(kind)) for kind in _KINDS)] for name, part in facts["subsets"].items()
        ]
        parts += [
            "## Subsets of the training data",
            "Every subset is contained in each larger one and has the answer types in the training data's shares.",
            table(["file", "samples", "open", "closed"], body),
        ]
    settings = [[key, plain(value)] for key, value in sorted(facts["options"].items())]
    parts += [
        "## Source and settings",
        table(["setting", "value"], [["seed", str(facts["seed"])], *settings], numbers=False),
    ]
    sources = [[file["file"], number(file["bytes"]), f"`{file['sha256']}`"] for file in facts["sources"]]
    parts += [table(["file", "bytes", "SHA-256"], sources, numbers=False)]
    return "\n\n".join(parts) + "\n"


_KINDS = ("rows", "OPEN", "CLOSED")


def _count_split(rows: Sequence[Row]) -> dict[str, Any]:
    answers = [answer for row in rows for answer in row.texts("gpt")]
    lengths = np.array([len(answer.split()) for answer in answers])
    top = Counter(" ".join(answer.lower().split()) for answer in answers).most_common(TOP)
    kinds = Counter(row.answer_type for row in rows)
    return {
        "rows": len(rows),
        "turns": len(answers),
        "images": len({row.image for row in rows}),
        "OPEN": kinds["OPEN"],
        "CLOSED": kinds["CLOSED"],
        "question_types": _ranked(row.sample.get("question_type") for row in rows),
        "modalities": _ranked(row.sample.get("modality") for row in rows),
        "locations": _ranked(row.sample.get("location") for row in rows),
        "answer_words": {
            "mean": float(lengths.mean()),
            "median": float(np.median(lengths)),
            "percentile_95": float(np.quantile(lengths, 0.95)),
            "maximum": int(lengths.max()),
        },
        "answer_lengths": {str(length): count for length, count in sorted(Counter(lengths.tolist()).items())},
        # A most frequent answer that occurs once says nothing.
        "top_answers": {answer: count for answer, count in top if count > 1},
    }


def _ranked(values: Any) -> dict[str, int]:
    return dict(Counter(value for value in values if value is not None).most_common())


def _count_shared(train: Sequence[Row], other: Sequence[Row]) -> dict[str, int]:
    images = {row.image for row in train}
    asked = {_asked(row) for row in train}
    return {
        "images": len({row.image for row in other} & images),
        "rows_with_image": sum(row.image in images for row in other),
        "questions": sum(_asked(row) in asked for row in other),
    }


def _asked(row: Row) -> tuple[str, str]:
    text = " ".join(row.texts("human")).replace(IMAGE_TAG, " ")
    return row.image, " ".join(text.lower().split())


def _overview(splits: Mapping[str, Any]) -> str:
    head = ["split", "samples", "images", "open", "closed", "questions", "words per answer", "95 %", "longest"]
    body = []
    for name, split in splits.items():
        words = split["answer_words"]
        counts = [split["rows"], split["images"], split["OPEN"], split["CLOSED"], split["turns"]]
        lengths = [f"{words['mean']:.1f}", number(words["percentile_95"]), number(words["maximum"])]
        body.append([name, *map(number, counts), *lengths])
    return table(head, body)


def _distribution(splits: Mapping[str, Any], key: str) -> str:
    total = Counter[str]()
    for split in splits.values():
        total.update(split[key])
    body = [[name, *(_share(split, key, name) for split in splits.values())] for name, _ in total.most_common(_SHOWN)]
    left = len(total) - len(body)
    text = table([_HEADS[key], *splits], body)
    return f"{text}\n\nand {left} more" if left else text


def _share(split: Mapping[str, Any], key: str, name: str) -> str:
    count = split[key].get(name, 0)
    return f"{number(count)} ({percent(count / split[TOTALS[key]])})" if count else "-"


def _notes(facts: Mapping[str, Any]) -> list[str]:
    notes = []
    for split, shared in facts["shared"].items():
        if shared["images"]:
            text = (
                f"{number(shared['images'])} of {number(facts['splits'][split]['images'])} images of the {split} split "
                f"({number(shared['rows_with_image'])} of its samples) are in the training data too"
            )
            notes.append(
                text + (f", {number(shared['questions'])} with the same question." if shared["questions"] else ".")
            )
    rephrasings = facts["test_rephrasings"]
    if rephrasings["rows"]:
        fate = "They are in the training data." if rephrasings["kept"] else "They are left out."
        notes.append(f"{number(rephrasings['rows'])} training questions are test questions in a template. {fate}")
    missing = facts["missing_images"]
    if missing is not None and missing["images"]:
        fate = "kept" if missing["kept"] else "left out"
        notes.append(
            f"{number(missing['images'])} images are missing; the {number(missing['rows'])} samples that need them "
            f"are {fate}. The first: {', '.join(missing['examples'][:3])}."
        )
    if facts["skipped_rows"]["rows"]:
        first = facts["skipped_rows"]["examples"][0]
        notes.append(f"{number(facts['skipped_rows']['rows'])} rows of the source are left out. The first: {first}")
    if facts["candidates"]:
        notes.append(f"{number(facts['candidates'])} different answers to open training questions are candidates.")
    return notes
