"""PathVQA: questions about pathology images, in the JSON layout of its LXMERT baseline.

One row holds all questions of an image: `sentf.pvqa` the questions, `labelf.pvqa` one `{answer: score}` for each. The
data set was first published as pickles, which are refused: reading a pickle may run any code.

Source: X. He, Y. Zhang, L. Mou, E. Xing, P. Xie, arXiv 2003.10286, 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exgra_adapter.data.preparation.rows import SPLITS, Row, SourceRow, require_keys, vqa_sample
from exgra_adapter.data.preparation.sources import find_splits, read_list, refuse_pickle
from exgra_adapter.data.records import kind_of

Ids = Literal["unique", "image"]

_STEMS = {"train": ("pvqa_train", "train"), "validation": ("pvqa_val", "val"), "test": ("pvqa_test", "test")}
_FOLDERS = {"train": "train", "val": "validation", "test": "test"}
_COUNTS = (19755, 6279, 6761)


@dataclass(frozen=True)
class PathVqa:
    """`pvqa_train.json`, `pvqa_val.json` and `pvqa_test.json`.

    Attributes:
        source: Their folder, or one file of any name.
        ids: `unique` numbers the questions of an image, `test_0001-0`; `image` repeats the image's id as published
            training files do, which training and evaluation then have to be told (`allow_duplicate_ids`).
        options: Whether questions name the options yes and no.
    """

    source: Path
    ids: Ids = "unique"
    options: bool = True
    name = "pathvqa"

    @property
    def repeated_ids(self) -> bool:
        """Ids repeat where they name images."""
        return self.ids == "image"

    def files(self) -> dict[str, Path]:
        """The files of the splits; the split of a row is the beginning of its image's id."""
        source = Path(self.source)
        if source.is_dir():
            return find_splits(source, _STEMS, "PathVQA")
        refuse_pickle(source, "prepare")
        return {"all": source}

    def expected(self) -> Mapping[str, Mapping[str, int]]:
        """The published counts."""
        return {split: {"rows": count} for split, count in zip(SPLITS, _COUNTS, strict=True)}

    def read(self) -> Iterator[SourceRow]:
        """Reads one row per image."""
        for file in self.files().values():
            for where, content in read_list(file):
                yield SourceRow("", where, content)

    def convert(self, row: SourceRow) -> list[Row]:
        """Makes one sample per question about the image; all questions or none."""
        content = require_keys(row.content, ("img_id", "sentf", "labelf"), row.where)
        image = content["img_id"]
        folder = str(image).partition("_")[0]
        if not isinstance(image, str) or folder not in _FOLDERS:
            raise ValueError(
                f"{row.where}: img_id must begin with train_, val_ or test_; got {image!r}. Correct the row."
            )
        questions, labels = (_list(content, key, row.where) for key in ("sentf", "labelf"))
        if len(questions) != len(labels):
            raise ValueError(
                f"{row.where}: sentf and labelf must have the same length; got {len(questions)} questions and "
                f"{len(labels)} answers. Correct the row."
            )
        rows = []
        for position, (question, label) in enumerate(zip(questions, labels, strict=True)):
            identifier = image if self.ids == "image" else f"{image}-{position}"
            answer = _answer(label, f"{row.where}, answer {position}")
            name = f"{folder}/{image}.jpg"
            sample = vqa_sample(identifier, name, question, answer, row.where, None, self.options)
            rows.append(Row(_FOLDERS[folder], row.where, sample))
        return rows


def _list(content: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = require_keys(content[key], ("pvqa",), f"{where}, key {key!r}")["pvqa"]
    if not isinstance(found, list):
        raise ValueError(f"{where}, key {key!r}: pvqa must be a list; got {kind_of(found)}. Correct the row.")
    return found


def _answer(label: Any, where: str) -> str:
    """The answer with the highest score; the published files give each question one."""
    if not isinstance(label, Mapping) or not label:
        raise ValueError(f"{where} must be {{answer: score}}; got {kind_of(label)}. Correct the row.")
    if not all(isinstance(score, int | float) for score in label.values()):
        raise ValueError(f"{where}: the scores must be numbers; got {dict(label)!r}. Correct the row.")
    return str(max(label, key=label.__getitem__))
