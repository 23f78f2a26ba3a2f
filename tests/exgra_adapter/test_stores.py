"""Image stores: folders, archives, images inside the files of the records."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from exgra_adapter.data.files import read_records
from exgra_adapter.data.images import ImageError, MissingImageError
from exgra_adapter.data.stores import FolderStore, ImageStore, open_image_store

NAMES = ["a.png", "deep/er/b.png", "é ü.png"]
MESSAGES = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a"}]


def png(seed: int, side: int = 12) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 1, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def write_folder(folder: Path, images: dict[str, bytes]) -> tuple[Path, Path]:
    for name, content in images.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(content)
    return folder / "images", folder / "unused.json"


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_archive(folder: Path, images: dict[str, bytes]) -> tuple[Path, Path]:
    return write_tar(folder / "images.tar", images), folder / "unused.json"


def write_archives(folder: Path, images: dict[str, bytes]) -> tuple[Path, Path]:
    (folder / "archives").mkdir()
    for number, (name, content) in enumerate(images.items()):
        write_tar(folder / "archives" / f"{number}.tar", {name if name.startswith("/") else f"./{name}": content})
    return folder / "archives", folder / "unused.json"


def write_parquet(folder: Path, images: dict[str, bytes]) -> tuple[None, Path]:
    rows = [
        {"id": i, "image": {"bytes": content, "path": name}, "conversations": MESSAGES}
        for i, (name, content) in enumerate(images.items())
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet", row_group_size=2)
    return None, folder / "data.parquet"


def write_shards(folder: Path, images: dict[str, bytes]) -> tuple[None, Path]:
    (folder / "shards").mkdir()
    for i, (name, content) in enumerate(images.items()):
        text = json.dumps({"id": i, "image": name, "conversations": MESSAGES}).encode()
        write_tar(folder / "shards" / f"{i}.tar", {f"{i}.png": content, f"{i}.json": text})
    return None, folder / "shards"


WRITERS: list[Callable[[Path, dict[str, bytes]], Any]] = [
    write_folder,
    write_archive,
    write_archives,
    write_parquet,
    write_shards,
]
every_store = pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[6:])


@pytest.mark.parametrize("first", WRITERS[1:], ids=lambda write: write.__name__[6:])
@settings(max_examples=8)
@given(st.lists(st.binary(max_size=4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_every_store_gives_the_same_pixels(tmp_path_factory, first, seeds, generator):
    images = {f"x/{index}.png": png(int.from_bytes(seed, "big")) for index, seed in enumerate(seeds)}
    stores = [open_image_store(*write(tmp_path_factory.mktemp("s"), images)) for write in (write_folder, first)]
    names = generator.sample(list(images), len(images))
    for name in names:
        plain, other = (np.asarray(store.open(name)) for store in stores)
        assert plain.shape == (12, 13, 3)
        assert np.array_equal(plain, other)


@every_store
def test_stores_are_pickled_small_and_say_what_they_are(tmp_path, write):
    store = open_image_store(*write(tmp_path, {name: png(i, 200) for i, name in enumerate(NAMES)}))
    before = [np.asarray(store.open(name)) for name in NAMES]
    content = pickle.dumps(store)
    assert len(content) < 3_000
    again: ImageStore = pickle.loads(content)
    assert all(np.array_equal(image, again.open(name)) for image, name in zip(before, NAMES, strict=True))
    assert str(tmp_path) in store.describe()
    assert "\n" not in store.describe()


def _sums(store: ImageStore) -> list[int]:
    return [int(np.asarray(store.open(name), dtype=np.int64).sum()) for name in NAMES * 3]


@every_store
def test_threads_and_processes_read_at_once(tmp_path, write):
    store = open_image_store(*write(tmp_path, {name: png(i, 100) for i, name in enumerate(NAMES)}))
    expected = _sums(store)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(_sums, [store] * 24)) == [expected] * 24
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.map(_sums, [store] * 4) == [expected] * 4


@every_store
@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "x/../a.png", "C:\\a.png", "..\\a.png", "a\0.png", "deep/../../x"]
)
def test_names_never_leave_a_store(tmp_path, write, name):
    # The archive even has a member of that name: it must not be reached all the same.
    images = {"a.png": png(0)} | ({} if write is write_folder or "\0" in name else {name: png(1)})
    store = open_image_store(*write(tmp_path, images))
    with pytest.raises(ImageError, match="must stay inside the image folder; got") as caught:
        store.open(name)
    assert not isinstance(caught.value, MissingImageError)
    store.open("./a.png")


@every_store
def test_bad_images_are_told_from_missing_ones(tmp_path, write, monkeypatch):
    images = {"good.png": png(0, 60), "cut.png": png(1, 60)[:-90], "text.png": b"no image", "empty.png": b""}
    store = open_image_store(*write(tmp_path, images))
    for name in ("cut.png", "text.png"):
        with pytest.raises(ImageError, match=f"{name}.* must be a readable image; got") as caught:
            store.open(name)
        assert not isinstance(caught.value, MissingImageError)
    with pytest.raises(ImageError, match=r"empty.png.* must be a readable image"):
        store.open("empty.png")
    for name in ("none.png", "x" * 300, "."):
        with pytest.raises(MissingImageError, match="must be"):
            store.open(name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"good.png.* must have at most 1000 pixels"):
        store.open("good.png")


def test_a_name_stands_for_one_image(tmp_path):
    same = {"0/a.png": png(0), "1/a.png": png(0)}
    for different in (False, True):
        folder = tmp_path / str(different)
        folder.mkdir()
        contents = [png(0), png(1) if different else png(0)]
        rows = [
            {"id": i, "image": {"bytes": content, "path": "a.png"}, "conversations": MESSAGES}
            for i, content in enumerate(contents)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
        for number, content in enumerate(contents):
            write_tar(folder / f"{number}.tar", {"a.png": content})
        for images, data in ((None, folder / "a.parquet"), (folder / "*.tar", folder)):
            if different:
                with pytest.raises(ValueError, match=r"one image each; got 'a.png' for different images"):
                    open_image_store(images, data)
            else:
                assert open_image_store(images, data).describe().startswith("1 images in")
    assert open_image_store(write_tar(tmp_path / "b.tar", same), tmp_path).describe().startswith("2 images")


def test_hard_links_in_archives_are_second_names(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(png(0))
        archive.addfile(member, io.BytesIO(png(0)))
        for name, kind, target in (("b.png", tarfile.LNKTYPE, "a.png"), ("c.png", tarfile.SYMTYPE, "/etc/passwd")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
    store = open_image_store(tmp_path / "a.tar", tmp_path)
    assert np.array_equal(store.open("a.png"), store.open("b.png"))
    with pytest.raises(MissingImageError, match=r"one of the 2 in .*; got 'c.png', while the first there is 'a.png'"):
        store.open("c.png")


def test_wrong_places_for_images(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([{"id": 1, "image": "a.png", "conversations": MESSAGES}]))
    with pytest.raises(ValueError, match=r"images must be given, because the records hold none; got .*data\.json"):
        open_image_store(None, tmp_path / "data.json")
    with pytest.raises(ValueError, match=r"must be an existing folder or \.tar archive; got .*none"):
        open_image_store(tmp_path / "none", tmp_path / "data.json")
    with pytest.raises(ValueError, match="must match at least one file"):
        open_image_store(tmp_path / "*.tar", tmp_path / "data.json")
    with pytest.raises(ValueError, match="must be an existing folder"):
        FolderStore(tmp_path / "none")
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"must be an uncompressed tar archive, .* Unpack it first"):
        open_image_store(tmp_path / "images.tar.gz", tmp_path / "data.json")
    (tmp_path / "images.zip").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match="must be a readable file; got"):
        open_image_store(tmp_path / "images.zip", tmp_path / "data.json")


def test_an_archive_that_vanishes_is_an_image_error(tmp_path):
    store = open_image_store(write_tar(tmp_path / "a.tar", {"a.png": png(0)}), tmp_path)
    (tmp_path / "a.tar").unlink()
    with pytest.raises(ImageError, match="must be readable; got: No such file"):
        store.open("a.png")


def test_links_in_a_folder_are_followed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "elsewhere.png").write_bytes(png(0))
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "elsewhere.png")
    assert FolderStore(tmp_path / "images").open("a.png").size == (13, 12)


def test_names_of_records_are_the_names_of_the_store(tmp_path):
    rows = [{"id": i, "image": {"bytes": png(i), "path": None}, "conversations": MESSAGES} for i in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    store = open_image_store(None, tmp_path / "a.parquet")
    for number, record in enumerate(read_records(tmp_path / "a.parquet")):
        assert np.array_equal(store.open(record.image), Image.open(io.BytesIO(png(number))))
