"""Files of records in every format, whole and as a stream."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exgra_adapter.data import json_list
from exgra_adapter.data.files import in_fraction, read_records, record_files, sample_fraction, stream_records
from exgra_adapter.data.records import Record, Turn, write_records

MESSAGES = [{"from": "human", "value": "How many? <image>"}, {"from": "gpt", "value": 2}]


def sample(identifier: Any = 1, **changes: Any) -> dict[str, Any]:
    return {"id": identifier, "image": f"{identifier}.png", "conversations": MESSAGES} | changes


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_all(folder: Path, records: list[Record]) -> dict[str, Path]:
    """The same records in every format."""
    write_records(folder / "a.json", records)
    samples = json.loads((folder / "a.json").read_text())
    (folder / "a.json.gz").write_bytes(gzip.compress((folder / "a.json").read_bytes()))
    lines = "\n\n".join(json.dumps(sample, ensure_ascii=False) for sample in samples)
    (folder / "a.jsonl").write_text(lines, encoding="utf-8-sig")
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(samples), folder / "a.parquet", row_group_size=2)
    columns = [{**sample, "conversations": _columns(sample["conversations"])} for sample in samples]
    pq.write_table(pa.Table.from_pylist(columns), folder / "b.parquet")
    write_tar(folder / "a.tar", {f"x/{i:05}.json": json.dumps(sample).encode() for i, sample in enumerate(samples)})
    return {path.name: path for path in sorted(folder.iterdir())}


def _columns(messages: list[dict[str, str]]) -> dict[str, list[str]]:
    return {key: [message[key] for message in messages] for key in ("from", "value")}


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1).map(str.strip).filter(bool)
words = words.filter(lambda text: "<image>" not in text)
turns = st.lists(st.tuples(words, words, words), min_size=1, max_size=3)


@given(st.lists(turns, min_size=1, max_size=5), st.booleans(), st.sampled_from([None, "OPEN", "CLOSED"]))
def test_every_format_gives_the_same_records(tmp_path_factory, texts, extended, answer_type):
    records = [
        Record(f"é{i}", f"a/{i}.png", tuple(Turn(q, a, long if extended else None) for q, a, long in some), answer_type)
        for i, some in enumerate(texts)
    ]
    for name, path in write_all(tmp_path_factory.mktemp("formats"), records).items():
        assert read_records(path) == records, name
        assert list(stream_records(path)) == records, name


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
    st.integers(1, 9),
    st.sampled_from([None, 1]),
)
def test_lists_are_read_alike_in_pieces_of_any_size(value, piece, indent):
    values = [value, 12, value]
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_PIECE", piece)
        assert list(json_list.JsonList(io.StringIO(text), Path("a"), "f")) == values


@given(st.integers(1, 9), st.data())
def test_errors_in_pieces_have_the_place_that_json_names(piece, data):
    text = json.dumps([sample(), sample(2)], indent=1)
    cut = data.draw(st.integers(1, len(text) - 1))
    broken = text[:cut]
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(broken)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_PIECE", piece)
        with pytest.raises(ValueError, match=f"line {expected.value.lineno}, column {expected.value.colno}: "):
            list(json_list.JsonList(io.StringIO(broken), Path("a"), "f"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[] x", "line 1, column 4: Extra data"),
        (f"[{json.dumps(sample())}\n  2]", "line 2, column 3: Expecting ',' delimiter"),
        (f"[{json.dumps(sample())},\n]", "line 2, column 1"),
        ('{"id": 1}\n{"id": 2}', "got several values. Name a file with one sample per line .jsonl"),
        ("", "line 1, column 1"),
        ("[" * 100_000, "recursion"),
        ("[" + "9" * 10_000 + "]", "digits"),
    ],
)
def test_broken_lists(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_records(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_errors_name_file_sample_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(sample()) + '\n\n{"id": 2,\n')
    with pytest.raises(
        ValueError, match=rf"read_records: sample 1 of {path} \(line 3\) must be JSON; got .* column 10"
    ):
        read_records(path)
    path.write_bytes(json.dumps(sample()).encode() + b"\n\xff\n")
    with pytest.raises(ValueError, match=r"stream_records: sample 1 .*\(line 2\) must be UTF-8 text; got byte 0xff"):
        list(stream_records(path))
    path.write_text(json.dumps(sample("x", image=None)))
    with pytest.raises(ValueError, match=r"sample 0 of .* \(line 1\) \(id 'x'\): key 'image' must be text or a number"):
        read_records(path)
    (tmp_path / "a.json").write_bytes(b'[\n"\xff"]')
    with pytest.raises(ValueError, match="must be UTF-8 text; got byte 0xff in line 2"):
        read_records(tmp_path / "a.json")


def test_shards_are_read_in_order_and_ids_are_compared_across_them(tmp_path):
    for number in (10, 9, 8):
        content = {f"{number}.json": json.dumps(sample(number)).encode()}
        write_tar(tmp_path / f"shard-{number:02}.tar", content)
    (tmp_path / ".shard-07.tar").write_bytes(b"left over by a copy")
    for path in (tmp_path, tmp_path / "shard-{08..10}.tar", tmp_path / "*.tar", tmp_path / "shard-{08,1*,09}.tar"):
        assert [record.id for record in read_records(path)] == ["8", "9", "10"]
    with pytest.raises(ValueError, match=r"must name an existing file; got .*shard-11\.tar"):
        read_records(tmp_path / "shard-{10..11}.tar")
    with pytest.raises(ValueError, match="must match at least one file"):
        read_records(tmp_path / "*.parquet")
    write_tar(tmp_path / "shard-11.tar", {"x.json": json.dumps(sample(8)).encode()})
    with pytest.raises(ValueError, match=r"got id '8' at sample 0 of .*shard-08.tar \(8\) and at .*shard-11.tar \(x\)"):
        read_records(tmp_path)
    assert len(read_records(tmp_path, allow_duplicate_ids=True)) == 4
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ValueError, match=r"got a folder with \.jsonl and \.tar"):
        read_records(tmp_path)


def test_a_name_with_brackets_is_a_file_first(tmp_path):
    path = tmp_path / "a[1].jsonl"
    path.write_text(json.dumps(sample()))
    assert record_files(path, "f") == [path]


def test_samples_of_shards_take_key_and_member_name(tmp_path):
    content = {key: value for key, value in sample().items() if key == "conversations"}
    members = {"a/1.json": json.dumps(content).encode(), "a/1.seg.png": b"", "a/1.JPG": b"-", "a/2.txt": b""}
    record = read_records(write_tar(tmp_path / "s.tar", members))[0]
    assert (record.id, record.image) == ("a/1", "a/1.JPG")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.png": b""}, r"sample 0 of .* \(1\) must be 1.json and at most one image, .*; got 0 .json and 1 images"),
        ({"1.json": b"{}", "1.png": b"", "1.jpg": b""}, "got 1 .json and 2 images"),
        ({"1.json": b"{}", "1.json/": b""}, "must have key 'image'"),
        ({"1.json": b"{"}, r"\(1\) must be JSON; got an error at column 2"),
        ({"1.json": b"[]"}, "must be a JSON object; got a list"),
    ],
)
def test_broken_shards(tmp_path, members, message):
    with pytest.raises(ValueError, match=message):
        read_records(write_tar(tmp_path / "s.tar", members))


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_compressed_shards_are_refused_with_a_cure(tmp_path, mode):
    for name in ("s.tar", f"s.tar.{mode}"):
        with tarfile.open(tmp_path / name, f"w:{mode}"):
            pass
        with pytest.raises(ValueError, match=r"must be an uncompressed tar archive, .* Unpack it first"):
            read_records(tmp_path / name)


def test_shards_that_were_cut_off_are_noticed_wherever_the_cut_is(tmp_path):
    members = {f"{i}.json": json.dumps(sample(i)).encode() for i in range(3)}
    whole = write_tar(tmp_path / "s.tar", members).read_bytes()
    end = len(whole.rstrip(b"\0"))
    for size in [*range(0, end, 256), 1024, 2048]:
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.tar must be a readable file"):
            read_records(tmp_path / "cut.tar")
    # tarfile takes a damaged header for the end.
    damaged = bytearray(whole)
    damaged[1024:1034] = b"\xff" * 10
    (tmp_path / "cut.tar").write_bytes(damaged)
    with pytest.raises(ValueError, match="the end is missing, or a header is damaged"):
        read_records(tmp_path / "cut.tar")


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.json.gz"])
def test_binary_files_that_are_damaged(tmp_path, name):
    paths = write_all(tmp_path, [Record("1", "a.png", (Turn("q", "a"),))])
    content = paths[name].read_bytes()
    for broken in (content[: len(content) // 2], b"PAR1" + content[::-1], b""):
        paths[name].write_bytes(broken)
        if broken or name != "a.jsonl.gz":  # nothing at all is an empty gzip file
            with pytest.raises(ValueError, match=f"{name} must be") as caught:
                read_records(paths[name])
            assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="must name an existing file"):
        read_records(tmp_path / f"none-{name}")


def test_parquet_values_that_are_null_are_missing(tmp_path):
    rows = [sample(), sample(2, conversations=None)]
    for row in rows:
        row["conversations"] = row["conversations"] and [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"sample 1 of .*\(id '2'\) must have key 'conversations'; got keys"):
        read_records(tmp_path / "a.parquet")


def test_images_in_parquet_are_named_by_path_or_row(tmp_path):
    messages = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]
    images: list[Any] = [{"bytes": b"1", "path": "x.png"}, {"bytes": b"2", "path": None}]
    rows = [{"id": i, "image": image, "conversations": messages} for i, image in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [record.image for record in read_records(tmp_path / "a.parquet")] == ["x.png", "a.parquet#1"]
    rows = [row | {"image": b"1"} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [record.image for record in read_records(tmp_path / "a.parquet")] == ["a.parquet#0", "a.parquet#1"]


@pytest.mark.slow
def test_streams_need_constant_memory(tmp_path):
    long = "A long answer. " * 800
    paths = write_all(tmp_path, [Record(str(i), "a.png", (Turn("?", f"{i} {long}"),)) for i in range(1_000)])
    for name in ("a.json", "a.jsonl", "a.jsonl.gz", "a.parquet", "a.tar"):
        next(stream_records(paths[name]))  # imports, caches
        tracemalloc.start()
        try:
            assert sum(1 for _ in stream_records(paths[name])) == 1_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 6_000_000, name  # all texts together have 12 million letters


RECORDS = [Record(str(i // 2), f"{i % 7}.png", (Turn("?", f"answer {i}"),)) for i in range(200)]


@given(st.floats(0.005, 1), st.floats(0.005, 1), st.integers(0, 5), st.randoms(use_true_random=False))
def test_fractions_are_nested_ordered_and_independent_of_file_order(first, second, seed, generator):
    low, high = sorted([first, second])
    small, large = sample_fraction(RECORDS, low, seed), sample_fraction(RECORDS, high, seed)
    assert len(small) == max(1, round(low * 200))
    assert set(small) <= set(large)
    assert [record for record in RECORDS if record in set(small)] == small
    mixed = generator.sample(RECORDS, len(RECORDS))
    assert set(sample_fraction(mixed, low, seed)) == set(small)
    streamed = {record for record in RECORDS if in_fraction(record, low, seed)}
    assert streamed <= {record for record in RECORDS if in_fraction(record, high, seed)}


def test_fractions_depend_on_the_seed_and_must_make_sense():
    assert sample_fraction(RECORDS, 0.1, 0) != sample_fraction(RECORDS, 0.1, 1)
    assert sample_fraction(RECORDS, 1, 0) == RECORDS
    assert sample_fraction([], 0.5, 0) == []
    assert 0.3 < sum(in_fraction(record, 0.4, 0) for record in RECORDS) / 200 < 0.5
    for fraction in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1; got"):
            sample_fraction(RECORDS, fraction, 0)
