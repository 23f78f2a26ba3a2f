"""VQA-RAD: questions of clinicians about radiology images.

The published file has 2,248 rows. A row holds a question, whose `phrase_type` says whether it belongs to the test part,
and for some rows a template filled with the same question, `question_frame`. The customary split makes a training
question of every template, those of test questions included: 3,064 for training, 451 for the test, 179 of them open.

Source: J. Lau, S. Gayen, A. Ben Abacha, D. Demner-Fushman, Scientific Data 5, 180251, 2018.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_adapter.data.preparation.rows import Row, SourceRow, require_keys, text_or_none, vqa_sample
from exgra_adapter.data.preparation.sources import find_file, find_splits, read_list, refuse_pickle

_PUBLIC = ("VQA_RAD Dataset Public", "VQA_RAD_Dataset_Public")
_SPLIT = {"train": ("trainset",), "test": ("testset",)}
_COPIED = ("image_name", "image_organ", "question_type", "answer", "answer_type", "phrase_type")


@dataclass(frozen=True)
class VqaRad:
    """The published file, or its customary split into `trainset.json` and `testset.json`.

    Attributes:
        source: The published file, or a folder that holds it or the two files.
        options: Whether questions name the options yes and no.
    """

    source: Path
    options: bool = True
    name = "vqa-rad"
    repeated_ids = False

    def files(self) -> dict[str, Path]:
        """The published file as `all`, or the files of the split."""
        source = Path(self.source)
        if source.is_dir():
            public = find_file(source, _PUBLIC)
            return {"all": public} if public else find_splits(source, _SPLIT, "VQA-RAD")
        refuse_pickle(source, "prepare")
        is_split = source.name.lower().split(".json")[0] in ("trainset", "testset")
        return find_splits(source, _SPLIT, "VQA-RAD") if is_split else {"all": source}

    def expected(self) -> Mapping[str, Mapping[str, int]]:
        """The counts of the customary split."""
        return {"train": {"rows": 3064}, "test": {"rows": 451, "OPEN": 179, "CLOSED": 272}}

    def read(self) -> Iterator[SourceRow]:
        """Reads questions and filled templates, numbered from 1 in the order of the published file."""
        files = self.files()
        if "all" in files:
            yield from _read_public(files["all"])
            return
        of_test = {content.get("qid") for _, content in _rows(files.get("test")) if isinstance(content, Mapping)}
        for split, file in files.items():
            for where, content in _rows(file):
                if isinstance(content, Mapping):
                    # A template has the number behind that of the question it was made from.
                    number = content.get("qid")
                    before = number - 1 if isinstance(number, int) else None
                    is_template = content.get("phrase_type") == "frame"
                    content = {**content, "rephrases_test": is_template and before in of_test}
                yield SourceRow(split, where, content)

    def convert(self, row: SourceRow) -> list[Row]:
        """Makes the sample of a question."""
        content = require_keys(row.content, ("qid", "image_name", "question", "answer", "answer_type"), row.where)
        sample = vqa_sample(
            content["qid"],
            content["image_name"],
            content["question"],
            content["answer"],
            row.where,
            content["answer_type"],
            self.options,
            question_type=text_or_none(content, "question_type"),
            location=text_or_none(content, "image_organ"),
            phrase_type=text_or_none(content, "phrase_type"),
        )
        is_template = content.get("phrase_type") == "frame"
        return [Row(row.split, row.where, sample, not is_template, bool(content.get("rephrases_test")))]


def _rows(file: Path | None) -> Iterator[tuple[str, Any]]:
    return iter(()) if file is None else read_list(file)


def _read_public(file: Path) -> Iterator[SourceRow]:
    number = 0
    for where, content in read_list(file):
        row = require_keys(content, ("question", "phrase_type", *_COPIED), where)
        is_test = str(row["phrase_type"]).startswith("test_")
        number += 1
        shared = {key: row[key] for key in _COPIED} | {"phrase_type": str(row["phrase_type"]).removeprefix("test_")}
        yield SourceRow("test" if is_test else "train", where, shared | {"qid": number, "question": row["question"]})
        template = text_or_none(row, "question_frame")
        if template not in (None, "NULL"):
            number += 1
            filled = {"qid": number, "question": template, "phrase_type": "frame", "rephrases_test": is_test}
            yield SourceRow("train", where, shared | filled)
