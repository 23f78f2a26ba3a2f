"""SLAKE: bilingual questions about radiology images, in the layout of Slake1.0.

Source: B. Liu, L. Zhan, L. Xu, L. Ma, Y. Yang, X. Wu, ISBI 2021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exgra_adapter.data.preparation.rows import Row, SourceRow, require_keys, text_or_none, vqa_sample
from exgra_adapter.data.preparation.sources import find_splits, read_list

Language = Literal["en", "zh", "all"]

_STEMS = {
    "train": ("train", "train_en"),
    "validation": ("validate", "validate_en", "validation", "val"),
    "test": ("test", "test_en"),
}
_COUNTS: dict[Language, tuple[int, int, int]] = {
    "en": (4919, 1053, 1061),
    "zh": (4916, 1046, 1033),
    "all": (9835, 2099, 2094),
}


@dataclass(frozen=True)
class Slake:
    """`train.json`, `validate.json` and `test.json`.

    Attributes:
        source: Their folder, or one of them.
        language: `en` or `zh` leaves the other out. Chinese questions never name their options.
        options: Whether questions name the options yes and no.
    """

    source: Path
    language: Language = "en"
    options: bool = True
    name = "slake"
    repeated_ids = False

    def files(self) -> dict[str, Path]:
        """The files of the splits."""
        return find_splits(self.source, _STEMS, "SLAKE")

    def expected(self) -> Mapping[str, Mapping[str, int]]:
        """The published counts of the language."""
        return {split: {"rows": count} for split, count in zip(_STEMS, _COUNTS[self.language], strict=True)}

    def read(self) -> Iterator[SourceRow]:
        """Reads the rows of all splits, all languages."""
        for split, file in self.files().items():
            for where, content in read_list(file):
                yield SourceRow(split, where, content)

    def convert(self, row: SourceRow) -> list[Row]:
        """Makes the sample of a row; none where it is in another language."""
        keys = ("qid", "img_name", "question", "answer", "answer_type", "q_lang")
        content = require_keys(row.content, keys, row.where)
        if content["q_lang"] not in ("en", "zh"):
            raise ValueError(f"{row.where}: q_lang must be en or zh; got {content['q_lang']!r}. Correct the row.")
        if self.language not in ("all", content["q_lang"]):
            return []
        sample = vqa_sample(
            content["qid"],
            content["img_name"],
            content["question"],
            content["answer"],
            row.where,
            content["answer_type"],
            self.options,
            question_type=text_or_none(content, "content_type"),
            modality=text_or_none(content, "modality"),
            location=text_or_none(content, "location"),
        )
        return [Row(row.split, row.where, sample)]
