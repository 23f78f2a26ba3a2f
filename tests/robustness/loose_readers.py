"""Readers of files whose meaning is not written down a second time: whatever they say, they never crash or hang."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from safetensors.torch import save, save_file

from exgra_adapter.conversion.checkpoint import Checkpoint
from exgra_adapter.data.images import decode_image
from exgra_adapter.data.records import read_records
from exgra_adapter.data.stores import open_image_store
from exgra_adapter.endpoint import Journal, JournalIndex, read_entries
from exgra_adapter.evaluation.chat_files import read_questions
from exgra_adapter.evaluation.choices import read_choice_items

from .readers import Format, records, write_records

MOST_PIXELS = 10_000
"""The limit of images while readers are fuzzed: larger ones would be slow to decode, not more broken."""

_PICTURES = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000")


def write_questions(path: Path, seed: int) -> None:
    lines = [
        {"question_id": 0, "image": "a.png", "text": "Which organ? <image>", "reference": "The liver.",
         "fig_caption": "CT", "type": "detail", "domain": {"mri": seed % 2 == 0, "ct_scan": True}},
        {"question_id": "b", "image": "ü/b.png", "text": "Why?", "gpt4_answer": "So.", "pair_id": "p",
         "in_text_mention": [{"tokens": "Figure 1 shows a liver."}], "domain": "ct"},
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[: 1 + seed % 2]), encoding="utf-8")


def write_choices(path: Path, seed: int) -> None:
    question = {"question_id": 1, "question": "Which organ?", "image_path": "a.png", "dataset": "CT", "gt_answer": "A"}
    options = {f"option_{letter}": letter for letter in "ABCD"[: 2 + seed % 3]}
    path.write_text(json.dumps([question | options, question | options | {"question_id": 2}]), encoding="utf-8")


def write_journal(path: Path, seed: int) -> None:
    path.unlink(missing_ok=True)
    with Journal(path, {"model": "m", "temperature": 0.5}) as journal:
        journal.write("a", "ok", content={"score": seed}, input_tokens=3, output_tokens=4)
        journal.write("b", "failed", reason="time-out", attempts=6)
        journal.write("ü", "ok", content={})


def read_journal(path: Path) -> tuple[Any, ...]:
    index = JournalIndex(path)
    entries = [(entry["key"], entry["status"]) for entry in read_entries(path)]
    found = [index.entry(key) for key in ("a", "ü")]
    index.close()
    return index.ok, index.failed, index.input_tokens, index.output_tokens, entries, found


def write_index(path: Path, seed: int) -> None:
    names = [f"part-{number}.safetensors" for number in range(1 + seed % 2)]
    for number, name in enumerate(names):
        save_file({f"weight{number}": torch.ones(2)}, path.with_name(name))
    weights = {f"weight{number}": name for number, name in enumerate(names)}
    path.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weights}), encoding="utf-8")


def write_weights(path: Path, seed: int) -> None:
    types = (torch.float32, torch.bfloat16, torch.int64)
    path.write_bytes(save({"a": torch.ones(2, 3, dtype=types[seed % 3]), "b.c": torch.zeros(1)}, {"format": "pt"}))


def read_weights(path: Path) -> list[tuple[str, list[int]]]:
    checkpoint = Checkpoint(path.parent, path.name)
    found = [(name, list(checkpoint.read(name).shape)) for name in checkpoint.tensors]
    checkpoint.close()
    return found


def write_picture(path: Path, seed: int) -> None:
    modes = ("RGB", "L", "L", "RGB", "I;16", "RGB", "RGB", "L")
    picture = Image.effect_noise((9, 7), 80).convert(modes[seed] if modes[seed] != "I;16" else "I")
    picture = picture.convert("I;16") if modes[seed] == "I;16" else picture
    options: dict[str, Any] = {"save_all": True, "append_images": [picture]} if _PICTURES[seed] == "GIF" else {}
    picture.save(path, _PICTURES[seed], **options)


def read_picture(path: Path) -> tuple[int, int]:
    return decode_image(path, str(path)).size


def write_shard(path: Path, seed: int) -> None:
    samples = path.with_name("shard-records.json")
    write_records(samples, records(seed))
    picture = io.BytesIO()
    Image.new("RGB", (3, 2)).save(picture, "PNG")
    kind = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)[seed % 3]
    with tarfile.open(path, "w", format=kind) as archive:
        for number, sample in enumerate(json.loads(samples.read_text(encoding="utf-8"))):
            for suffix, content in (("json", json.dumps(sample).encode()), ("png", picture.getvalue())):
                member = tarfile.TarInfo(f"{'long/' * 30 if seed > 3 else ''}{number}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def read_shard(path: Path) -> list[tuple]:
    store = open_image_store(None, path)
    return [(record.id, store.open(record.image).size) for record in read_records(path)]


def write_table(path: Path, seed: int) -> None:
    talk = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "ü"}]
    image = b"P5 2 1 255 ab"
    rows = [
        {"id": str(number), "image": {"bytes": image, "path": f"{number}.pgm"} if seed < 6 else image,
         "conversations": talk}
        for number in range(3)
    ]  # fmt: skip
    kind = ("snappy", "gzip", "zstd", "none", "brotli", "lz4")[seed % 6]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression=kind, use_dictionary=seed % 2 == 0)


def loosely_read() -> list[Format]:
    """The formats whose readers are asked for a sentence or an answer, and for nothing more."""
    return [
        Format("questions.jsonl", write_questions, lambda path: len(read_questions(path))),
        Format("choices.json", write_choices, lambda path: len(read_choice_items(path))),
        Format("journal.jsonl", write_journal, read_journal),
        Format("model.safetensors.index.json", write_index, lambda path: len(Checkpoint(path.parent).tensors)),
        Format("alone.safetensors", write_weights, read_weights),
        Format("shard.tar", write_shard, read_shard),
        Format("table.parquet", write_table, read_shard),
        Format("picture.any", write_picture, read_picture),
    ]
