"""LLaVA-Med: image captions for the alignment of stage 1, conversations for the instruction tuning of stage 2.

Both are JSON lists in the training format already, with the misspelled key `conversatons` and, per image, a `domain`
that says which modalities it shows. They come without splits and without images, which their authors have users
download themselves; some of those are gone by now.

Source: C. Li et al., NeurIPS 2023, arXiv 2306.00890.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exgra_adapter.data.preparation.rows import Row, SourceRow, check_sample, require_keys, text_or_none
from exgra_adapter.data.preparation.sources import read_list, refuse_pickle
from exgra_adapter.data.records import EXTENDED_KEYS, TURN_KEYS


@dataclass(frozen=True)
class LlavaMed:
    """One file of alignment pairs or of instructions.

    Attributes:
        source: The file.
    """

    source: Path
    name = "llava-med"
    repeated_ids = False

    def files(self) -> dict[str, Path]:
        """The file."""
        if Path(self.source).is_dir():
            raise ValueError(
                f"prepare: the LLaVA-Med source must be one JSON file; got the folder {self.source}. "
                "Prepare the alignment and the instruction file one after the other."
            )
        refuse_pickle(Path(self.source), "prepare")
        return {"train": Path(self.source)}

    def expected(self) -> Mapping[str, Mapping[str, int]]:
        """None: how many pairs there are depends on the file and on which images can still be had."""
        return {}

    def read(self) -> Iterator[SourceRow]:
        """Reads the samples."""
        for file in self.files().values():
            for where, content in read_list(file):
                yield SourceRow("train", where, content)

    def convert(self, row: SourceRow) -> list[Row]:
        """Corrects the keys of a sample and checks it."""
        content = require_keys(row.content, ("id", "image"), row.where)
        sample: dict[str, Any] = {"id": text_or_none(content, "id") or "", "image": content["image"]}
        modality = _modality(content.get("domain"), row.where)
        sample |= {"modality": modality} if modality else {}
        for key, spellings in (("conversations", TURN_KEYS), ("conversations_long", EXTENDED_KEYS)):
            spelling = next((name for name in spellings if content.get(name) is not None), None)
            if spelling is not None:
                sample[key] = content[spelling]
        check_sample(sample, row.where)
        for key in ("conversations", "conversations_long"):
            if key in sample:
                sample[key] = [{"from": m["from"], "value": str(m["value"]).strip()} for m in sample[key]]
        return [Row(row.split, row.where, sample)]


def _modality(domain: Any, where: str) -> str | None:
    if domain is None:
        return None
    shown = [str(name) for name, value in require_keys(domain, (), f"{where}: key 'domain'").items() if value]
    return ", ".join(shown) or None
