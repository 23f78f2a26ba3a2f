"""Datasets: decoding when asked, bad samples, streams over workers and ranks."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.data_loader import IterableDatasetShard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from exgra_adapter.data import dataset as module
from exgra_adapter.data.dataset import RecordDataset, Sample, StreamingRecordDataset
from exgra_adapter.data.files import in_fraction, read_records
from exgra_adapter.data.images import ImageError
from exgra_adapter.data.records import Record, Turn
from exgra_adapter.data.stores import FolderStore, open_image_store

COUNT = 23
MESSAGES = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
IDS = [str(i) for i in range(COUNT)]


def png(value: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (4, 4), value).save(content, "png")
    return content.getvalue()


def sample(number: int) -> dict[str, Any]:
    return {"id": number, "image": f"{number}.png", "conversations": MESSAGES}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, tuple[Path, Path | None]]:
    """The same samples as one file with a folder of images, as five shards, as parquet with images."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "images").mkdir()
    (folder / "shards").mkdir()
    rows = []
    for number in range(COUNT):
        (folder / "images" / f"{number}.png").write_bytes(png(number))
        rows.append(sample(number) | {"image": {"bytes": png(number), "path": f"{number}.png"}})
        with tarfile.open(folder / "shards" / f"{number % 5}.tar", "a") as archive:
            for suffix, content in (("json", json.dumps(sample(number)).encode()), ("png", png(number))):
                member = tarfile.TarInfo(f"{number}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    (folder / "a.jsonl").write_text("\n".join(json.dumps(sample(number)) for number in range(COUNT)))
    pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet", row_group_size=4)
    return {
        "lines": (folder / "a.jsonl", folder / "images"),
        "shards": (folder / "shards", None),
        "parquet": (folder / "a.parquet", None),
    }


every_source = pytest.mark.parametrize("source", ["lines", "shards", "parquet"])


def identity(samples: list[Sample]) -> list[Sample]:
    return samples


def ids(samples: Any) -> list[str]:
    return [sample.record.id for sample in samples]


def decoded(samples: list[Sample]) -> list[tuple[str, int]]:
    """What a collator does: asks for the images, in the worker."""
    return [(sample.record.id, np.asarray(sample.image)[0, 0, 0].item()) for sample in samples]


@every_source
def test_streams_and_lists_hold_the_same_samples(sources, source):
    data, images = sources[source]
    records = read_records(data)
    listed = RecordDataset(records, open_image_store(images, data))
    streamed = list(StreamingRecordDataset(data, images, shuffle_buffer=0))
    assert len(listed) == COUNT
    assert ids(streamed) == [record.id for record in records]
    for number, item in enumerate(streamed):
        assert listed[number].record == item.record
        assert np.array_equal(listed[number].image, item.image)
        assert np.asarray(item.image)[0, 0, 0] == int(item.record.id)
        assert item.problem is None


@every_source
def test_the_order_follows_from_seed_and_epoch(sources, source):
    def order(epoch: int, **options: Any) -> list[str]:
        stream = StreamingRecordDataset(*sources[source], **({"shuffle_buffer": 8} | options))
        stream.set_epoch(epoch)
        return ids(stream)

    assert order(0) == order(0)
    orders = [order(0), order(1), order(0, seed=1), order(0, shuffle_buffer=100), order(0, shuffle_buffer=0)]
    assert len({tuple(some) for some in orders}) == 5
    assert [sorted(some, key=int) for some in orders] == [IDS] * 5


def test_a_buffer_never_holds_more_than_its_size(sources):
    order = ids(StreamingRecordDataset(*sources["lines"], shuffle_buffer=4))
    assert all(int(identifier) <= place + 4 for place, identifier in enumerate(order))


@every_source
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_workers_and_ranks_take_disjoint_parts_that_cover_everything(sources, source, workers, ranks):
    size = 2
    seen = []
    for rank in range(ranks):
        stream = StreamingRecordDataset(*sources[source], shuffle_buffer=5)
        # What accelerate makes of a stream where there are several ranks.
        shard = IterableDatasetShard(stream, size, num_processes=ranks, process_index=rank) if ranks > 1 else stream
        loader = DataLoader(shard, size, num_workers=workers, collate_fn=decoded)
        seen.append([item for batch in loader for item in batch])
    assert len({len(part) for part in seen}) == 1  # every rank takes the same steps
    together = [item for part in seen for item in part]
    assert {identifier for identifier, _ in together} == set(IDS)
    assert all(int(identifier) == pixel for identifier, pixel in together)
    # The last batches are completed with samples from the beginning: less than one of all ranks for each worker.
    assert len(together) - COUNT < (max(1, workers) * size * ranks if ranks > 1 else 1)


@given(st.integers(1, 6), st.integers(0, 12), st.integers(0, 3))
@settings(max_examples=20)
def test_parts_of_workers_are_a_partition(sources, workers, buffer, epoch):
    for data, images in sources.values():
        stream = StreamingRecordDataset(data, images, shuffle_buffer=buffer)
        stream.set_epoch(epoch)
        parts = []
        for worker in range(workers):
            info = type("Info", (), {"id": worker, "num_workers": workers})
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(module, "get_worker_info", lambda info=info: info)
                parts.append(ids(stream))
        assert sorted((identifier for part in parts for identifier in part), key=int) == IDS


def test_images_of_other_ranks_are_never_decoded(sources, monkeypatch):
    opened = []
    monkeypatch.setattr(FolderStore, "open", lambda self, name: opened.append(name) or Image.new("RGB", (1, 1)))
    shard = IterableDatasetShard(StreamingRecordDataset(*sources["lines"]), 4, num_processes=2, process_index=1)
    for batch in DataLoader(shard, 4, collate_fn=identity):
        for item in batch:
            assert item.image is item.image
    assert len(opened) == len(set(opened)) == 12  # three batches of four, as the other rank takes


def test_workers_that_live_on_see_the_next_epoch(sources):
    stream = StreamingRecordDataset(*sources["lines"], shuffle_buffer=10)
    loader = DataLoader(stream, 4, num_workers=2, collate_fn=decoded, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        orders.append([item for batch in loader for item in batch])
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.slow
def test_spawned_workers(sources):
    data, images = sources["parquet"]
    listed = RecordDataset(read_records(data), open_image_store(images, data))
    for dataset in (listed, StreamingRecordDataset(*sources["shards"])):
        loader = DataLoader(dataset, 4, num_workers=1, collate_fn=decoded, multiprocessing_context="spawn")
        assert sorted(item for batch in loader for item in batch) == sorted((str(i), i) for i in range(COUNT))


def longer(record: Record) -> Record:
    return Record(record.id, record.image, tuple(Turn(t.question, t.answer, "long") for t in record.turns))


def test_fraction_and_transform(sources):
    data, images = sources["lines"]
    stream = StreamingRecordDataset(data, images, seed=3, fraction=0.4, transform=longer)
    kept = {record.id for record in read_records(data) if in_fraction(record, 0.4, 3)}
    assert 0 < len(kept) < COUNT
    assert set(ids(stream)) == kept
    assert {item.record.turns[0].extended_answer for item in stream} == {"long"}
    assert ids(pickle.loads(pickle.dumps(stream))) == ids(stream)


@every_source
def test_bad_samples_raise_or_tell(sources, source, tmp_path):
    """Trap 10: an unreadable image ends training or is left out and counted; no other sample takes its place."""
    bad = json.dumps(sample(7) | {"image": "none.png"})
    (tmp_path / "a.jsonl").write_text(json.dumps(sample(6)) + "\n" + bad)
    images = sources["lines"][1]
    records = read_records(tmp_path / "a.jsonl")
    listed, streamed = (RecordDataset(records, images), StreamingRecordDataset(tmp_path / "a.jsonl", images))
    assert listed[0].image is not None
    with pytest.raises(ImageError, match=r"record '7': .*none\.png"):
        listed[1]
    with pytest.raises(ImageError, match=r"record '7': .*none\.png"):
        [item.image for item in streamed]
    for dataset in (
        RecordDataset(records, images, bad_samples="skip"),
        StreamingRecordDataset(tmp_path / "a.jsonl", images, "skip", shuffle_buffer=0),
    ):
        item = list(dataset)[1] if isinstance(dataset, StreamingRecordDataset) else dataset[1]
        assert (item.record.id, item.image) == ("7", None)
        assert "none.png" in (item.problem or "")


def test_streams_without_images_of_their_own(sources, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(sample(1)))
    with pytest.raises(ImageError, match=r"record '1': .* must have its image beside it, .* '1.png' only"):
        [item.image for item in StreamingRecordDataset(tmp_path / "a.jsonl")]
    rows = [sample(i) | {"image": {"bytes": content, "path": f"{i}.png"}} for i, content in enumerate([None, png(1)])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    items = list(StreamingRecordDataset(tmp_path / "a.parquet", None, "skip", shuffle_buffer=0))
    assert [item.image is None for item in items] == [True, False]
    rows[1]["image"]["path"] = "../1.png"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    items = list(StreamingRecordDataset(tmp_path / "a.parquet", None, "skip", shuffle_buffer=0))
    assert "must stay inside" in (items[1].problem or "")


def test_broken_streams_and_wrong_settings(sources, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(sample(1)) + "\n{")
    with pytest.raises(ValueError, match=r"StreamingRecordDataset: sample 1 of .*\(line 2\) must be JSON"):
        list(StreamingRecordDataset(tmp_path / "a.jsonl", tmp_path, "skip"))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"shuffle_buffer": -1}, "at least 0; got -1"),
        ({"fraction": 0.0}, "above 0 and at most 1; got 0.0"),
        ({"bad_samples": "replace"}, "must be 'raise' or 'skip'; got 'replace'"),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message):
            StreamingRecordDataset(*sources["lines"], **options)
    with pytest.raises(ValueError, match="must be 'raise' or 'skip'"):
        RecordDataset([], tmp_path, bad_samples="drop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be an existing folder"):
        RecordDataset([], tmp_path / "none")
