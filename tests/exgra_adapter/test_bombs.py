"""Files that are made to fill the memory or to lead elsewhere: refused by name, at once, with a way out."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import resource
import struct
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

import graphmatch as gm
from exgra_adapter.data import limits
from exgra_adapter.data.files import read_records, record_files, stream_records
from exgra_adapter.data.formats import read_parquet
from exgra_adapter.data.images import ImageError, decode_image, open_image
from exgra_adapter.data.preparation.sources import read_list
from exgra_adapter.data.stores import FolderStore, open_image_store
from exgra_adapter.evaluation.chat_files import read_questions, to_records
from exgra_adapter.evaluation.choices import read_choice_items
from exgra_adapter.evaluation.generate import open_queries
from graphmatch import _check

SAMPLE = {"id": 1, "image": "a.png", "conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "b"}]}
PACK = {".gz": gzip.compress, ".xz": lzma.compress}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width: int, height: int, *extra: bytes) -> bytes:
    """A PNG file with one row of pixels, whatever its header says."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(width + 1) if width < 1000 else b"\0"))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + pixels + chunk(b"IEND", b"")


def compressed_text(kind: bytes, megabytes: int) -> bytes:
    """A text chunk that is small in the file only."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()
    return chunk(kind, b"key\0\0" + packed)


def frames(count: int) -> bytes:
    """A GIF file of many large pictures, all but the first of them after a small file's length."""
    first = Image.new("P", (500, 500))
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=[Image.new("P", (500, 500), place % 2) for place in
               range(count)])  # fmt: skip
    return content.getvalue()


IMAGES = {
    "pixels.png": (png(60_000, 60_000), "at most 89478485 pixels"),
    "pixels2.png": (png(2**31 - 1, 2**31 - 1), "at most 89478485 pixels|readable image"),
    "pixels.gif": (b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x3b", "pixels|readable image"),
    "pixels.bmp": (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 16, 0, 0, 0, 0) + bytes(16),
        "at most 89478485 pixels",
    ),
    "pixels.ppm": (b"P6 99999 99999 255\n" + bytes(30), "at most 89478485 pixels"),
    "line.png": (png(1, 60_000), "sides of at most 200 to 1; got 1 x 60000 pixels"),
    "text.png": (png(9, 1, compressed_text(b"zTXt", 200)), "readable image; got an error: Decompressed data too large"),
    "profile.png": (png(9, 1, compressed_text(b"iCCP", 200)), "readable image; got an error: Decompressed data too"),
    "cut.png": (png(9, 1)[:45], "readable image"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", IMAGES)
def test_image_bombs(tmp_path: Path, name: str):
    content, message = IMAGES[name]
    (tmp_path / name).write_bytes(content)
    before = peak_bytes()
    with pytest.raises(ImageError, match=f"{name} must .*{message}"):
        open_image(tmp_path, name)
    with pytest.raises(ImageError, match="here must"):
        decode_image(content, "here")
    assert peak_bytes() - before < 2**27


def test_one_frame_of_many_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "film.gif").write_bytes(frames(40))
    loads: list[int] = []
    load = Image.core.gif_decoder if hasattr(Image.core, "gif_decoder") else None
    assert open_image(tmp_path, "film.gif").size == (500, 500)
    assert load is not None
    monkeypatch.setattr(Image.core, "gif_decoder", lambda *values: loads.append(1) or load(*values))
    assert open_image(tmp_path, "film.gif").getpixel((0, 0)) == (0, 0, 0)
    assert len(loads) == 1


@pytest.mark.parametrize("suffix", [".json.gz", ".jsonl.gz"])
def test_compressed_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str):
    text = json.dumps([SAMPLE]) if "jsonl" not in suffix else json.dumps(SAMPLE) + "\n"
    path = tmp_path / f"bomb{suffix}"
    path.write_bytes(gzip.compress(text.encode() + b" " * 3_000_000))
    assert len(read_records(path)) == 1
    monkeypatch.setenv(limits.UNPACKED_VARIABLE, "1000000")
    with pytest.raises(
        ValueError, match=rf"{path.name} must have at most 1000000 bytes; .* {limits.UNPACKED_VARIABLE}"
    ):
        read_records(path)
    monkeypatch.setenv(limits.UNPACKED_VARIABLE, "4000000")
    assert len(list(stream_records(path))) == 1
    monkeypatch.setenv(limits.UNPACKED_VARIABLE, "4 MB")
    with pytest.raises(ValueError, match=f"{limits.UNPACKED_VARIABLE} must be a number of bytes"):
        read_records(path)


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str):
    path = tmp_path / f"train.json{suffix}"
    path.write_bytes(PACK[suffix](b"[1]" + b" " * 3_000_000))
    assert [element for _, element in read_list(path)] == [1]
    monkeypatch.setenv(limits.UNPACKED_VARIABLE, "1000000")
    with pytest.raises(ValueError, match=rf"train\.json{suffix} must have at most 1000000 bytes"):
        list(read_list(path))


def test_usual_limits_depend_on_the_size_of_the_file(tmp_path: Path):
    (tmp_path / "small").write_bytes(bytes(10))
    assert limits.most_unpacked_bytes(tmp_path / "small") == 2**30
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**33)
    assert limits.most_unpacked_bytes(tmp_path / "large") == 250 * 2**33
    assert (limits.most_sample_bytes(), limits.most_image_bytes()) == (2**28, 2**30)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", PACK)
def test_a_bomb_ends_where_it_usually_should(tmp_path: Path, suffix: str):
    path = tmp_path / f"bomb.json{suffix}"
    path.write_bytes(PACK[suffix](b" " * 2**24) * 80)  # members follow each other
    assert path.stat().st_size < 2**21
    before = peak_bytes()
    with pytest.raises(ValueError, match="must have at most 1073741824 bytes"):
        list(read_list(path))
    assert peak_bytes() - before < 2**26


@pytest.mark.parametrize("name", ["long.json", "long.jsonl", "long.json.gz", "open.json", "object.json"])
def test_samples_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    path = tmp_path / name
    text = {"open.json": "[", "object.json": ""}.get(name, "[" if ".json" in name and "jsonl" not in name else "")
    content = (text + '{"a": "' + "x" * 3_000_000).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    monkeypatch.setenv(limits.SAMPLE_VARIABLE, "100000")
    with pytest.raises(ValueError, match=f"{name}.* must ") as refusal:
        read_records(path)
    assert name == "object.json" or limits.SAMPLE_VARIABLE in str(refusal.value)


def test_an_object_is_told_from_a_list_without_reading_it_all(tmp_path: Path):
    path = tmp_path / "lines.json"
    path.write_text('{"a": 1}\n' * 3_000_000)
    with pytest.raises(ValueError, match=r"got several values\. Name a file with one sample per line \.jsonl"):
        read_records(path)


def test_texts_of_parquet_files_are_utf_8(tmp_path: Path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_pylist([{"id": "MARK", "image": "a.png", "conversations": SAMPLE["conversations"]}])
    parquet.write_table(table, path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"MARK", b"MA\xffK"))
    with pytest.raises(ValueError, match=r"a\.parquet must be a readable file; got: 'utf-8' codec"):
        read_records(path)


def shard(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_large_members_of_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    content = json.dumps(SAMPLE).encode()
    path = shard(tmp_path / "a.tar", [("1.json", content + b" " * 3000), ("1.png", png(9, 1) + bytes(3000))])
    store = open_image_store(None, path)
    assert store.open("a.png").size == (9, 1)
    monkeypatch.setenv(limits.IMAGE_VARIABLE, "2000")
    with pytest.raises(ImageError, match=f"a.png.* must have at most 2000 bytes.*{limits.IMAGE_VARIABLE}"):
        store.open("a.png")
    monkeypatch.setenv(limits.SAMPLE_VARIABLE, "2000")
    with pytest.raises(ValueError, match=f"1.json in .*a.tar must have at most 2000 bytes.*{limits.SAMPLE_VARIABLE}"):
        read_records(path)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_ask_for_everything(tmp_path: Path, kind: bytes):
    member = tarfile.TarInfo("a")
    member.type, member.size = kind, 2**40
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    before = peak_bytes()
    with pytest.raises(ValueError, match=r"a\.tar must be a readable file; got: a header says that 1099511\d+ bytes"):
        read_records(tmp_path / "a.tar")
    assert peak_bytes() - before < 2**26


def test_images_of_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    image = {"bytes": png(9, 1) + bytes(100_000), "path": "a.png"}
    table = pyarrow.Table.from_pylist([{"id": "1", "image": image, "conversations": SAMPLE["conversations"]}])
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path)
    store = open_image_store(None, path)
    monkeypatch.setenv(limits.IMAGE_VARIABLE, "50000")
    for read in (lambda: store.open("a.png"), lambda: list(read_parquet(path, "read", True))):
        with pytest.raises(ImageError, match=r"row group 0 of .*a\.parquet must have at most 50000 bytes"):
            read()
    assert len(list(read_parquet(path, "read", False))) == 1


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str):
    path = tmp_path / f"bomb.dat{suffix}"
    path.write_bytes(PACK[suffix](b"1 " * 2**23) * 20)
    monkeypatch.setattr(_check, "available_memory", lambda: 2**28)
    before = peak_bytes()
    with pytest.raises(ValueError, match=rf"bytes\) to allocate. bomb\.dat{suffix} is too long"):
        gm.io.read_qaplib(path)
    assert peak_bytes() - before < 2**27


def test_a_million_files_in_braces():
    with pytest.raises(ValueError, match="braces must stand for at most 1000000 files"):
        record_files(Path("train-{0..999999999999}.tar"), "example")


OUTSIDE = ("../secret.png", "/etc/passwd", "a/../../secret.png", "..\\secret.png")


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_in_questions_never_leave_the_image_folder(tmp_path: Path, name: str):
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    folder = tmp_path / "images"
    folder.mkdir()
    question = {"question_id": 1, "image": name, "text": "?", "reference": "a", "fig_caption": "b"}
    (tmp_path / "chat.jsonl").write_text(json.dumps(question))
    choice = {"question_id": 1, "question": "?", "image_path": name, "gt_answer": "A", "option_A": "A", "option_B": "B"}
    (tmp_path / "choice.jsonl").write_text(json.dumps(choice))
    names = [record.image for record in to_records(read_questions(tmp_path / "chat.jsonl"))]
    names += [item.image for item in read_choice_items(tmp_path / "choice.jsonl")]
    assert names == [name] * 2
    for each in names:
        with pytest.raises(ImageError, match="must stay inside the image folder"):
            FolderStore(folder).open(each)
        queries = open_queries([("?", each)], FolderStore(folder))
        assert "must stay inside the image folder" in str(queries)


def test_members_of_archives_lead_nowhere(tmp_path: Path):
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    path = tmp_path / "images.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind, target in (
            ("up.png", tarfile.SYMTYPE, "../secret.png"),
            ("hard.png", tarfile.LNKTYPE, "../secret.png"),
            ("device.png", tarfile.CHRTYPE, ""),
            ("pipe.png", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
        content = (tmp_path / "secret.png").read_bytes()
        member = tarfile.TarInfo("../outside.png")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    store = open_image_store(path, tmp_path)
    for name in ("up.png", "hard.png", "device.png", "pipe.png", "../outside.png", "../secret.png"):
        with pytest.raises(ImageError, match=r"must be one of|must stay inside"):
            store.open(name)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["images.tar", "secret.png"]


def test_special_files_are_no_images(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(ImageError, match="must be an existing image file"):
            FolderStore(tmp_path).open(name)
