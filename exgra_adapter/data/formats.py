"""One file of samples at a time: JSON, JSON lines, parquet, tar. Samples are decoded here and checked elsewhere.

Every reader holds one sample, one batch of rows or one piece of the file in memory, never the whole file.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from exgra_adapter.data.images import ImageError
from exgra_adapter.data.json_list import JsonList
from exgra_adapter.data.limits import (
    IMAGE_VARIABLE,
    SAMPLE_VARIABLE,
    most_image_bytes,
    most_sample_bytes,
    open_unpacked,
    too_long,
)
from exgra_adapter.data.records import EXTENDED_KEYS, TURN_KEYS

IMAGE_SUFFIXES = ("bmp", "gif", "jp2", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp")
"""Endings of the members of a tar shard that are images."""

_SAMPLE_KEYS = ("id", "image", *TURN_KEYS, *EXTENDED_KEYS, "answer_type")
_ROWS, _ROWS_WITH_IMAGES = 256, 32
_TAR_BLOCK = 512
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True, order=True)
class FileRange:
    """Some bytes of a file: an image inside an uncompressed tar archive."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Opens the file, reads the range and closes it: nothing is shared with other threads or processes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True, slots=True, order=True)
class ParquetCell:
    """The image of one row of a parquet file; reading it reads the images of its row group."""

    path: Path
    row_group: int
    row: int

    def read(self) -> bytes:
        """Reads the image; empty where the row has none."""
        value = _image_column(self.path, self.row_group)[self.row].as_py()
        return (value.get("bytes") if isinstance(value, Mapping) else value) or b""


EncodedImage: TypeAlias = FileRange | ParquetCell | bytes
"""An image file's content, or where it lies."""


def read_encoded(image: EncodedImage, label: str) -> bytes:
    """Reads an image file's content from where it lies.

    Args:
        image: The content or its place.
        label: What errors call the image.

    Raises:
        ImageError: The file that holds the image cannot be read any more.
    """
    if isinstance(image, bytes):
        return image
    try:
        if isinstance(image, FileRange) and image.size > most_image_bytes():
            raise ImageError(str(too_long("open_image", label, most_image_bytes(), IMAGE_VARIABLE)))
        return image.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"open_image: {label} must be readable; got: {reason}. Check the file.") from None


@dataclass(frozen=True, slots=True)
class RawSample:
    """One sample as a file has it, not checked yet.

    Attributes:
        where: Its place, for messages.
        content: The decoded sample.
        image: The image that the file holds for it, if any.
        error: Why it could not be decoded; it continues `where`.
    """

    where: str
    content: Any = None
    image: EncodedImage | None = None
    error: str | None = None


def read_json_list(path: Path, caller: str) -> Iterator[RawSample]:
    """Reads a JSON list piece by piece, `.gz` or plain.

    Args:
        path: The file.
        caller: Opens the message of errors.

    Raises:
        ValueError: The file cannot be read, is not UTF-8, not JSON, or not a list.
    """
    try:
        with _open(path, caller) as file:
            for position, content in enumerate(JsonList(file, path, caller)):
                yield RawSample(f"sample {position} of {path}", content)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{caller}: {path} must be UTF-8 text; got byte {error.object[error.start]:#04x} in {_bad_line(path)}. "
            "Convert the file to UTF-8."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, caller, error) from None


def read_json_lines(path: Path, caller: str) -> Iterator[RawSample]:
    """Reads JSON lines, `.gz` or plain; blank lines are left out, a broken line becomes a sample with an error.

    Args:
        path: The file.
        caller: Opens the message of errors.

    Raises:
        ValueError: The file cannot be read.
    """
    position, most = 0, most_sample_bytes()
    try:
        with open_unpacked(path, caller, by_name=True) as file:
            for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), start=1):
                if len(line) > most:
                    raise too_long(caller, f"line {number} of {path}", most, SAMPLE_VARIABLE)
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                text = text.strip()
                if text:
                    yield _decode_json(RawSample(f"sample {position} of {path} (line {number})"), text)
                    position += 1
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, caller, error) from None


def read_parquet(path: Path, caller: str, with_images: bool) -> Iterator[RawSample]:
    """Reads the rows of a parquet file.

    The column `image` holds names, image files, or Hugging Face's pair `{bytes, path}`; where the path is missing, the
    image is called `FILE.parquet#ROW`.

    Args:
        path: The file.
        caller: Opens the message of errors.
        with_images: Whether images in the file are read with the samples. Otherwise a sample says where its image lies.

    Raises:
        ValueError: pyarrow is not installed, or the file cannot be read.
    """
    pyarrow, parquet = _pyarrow(caller)
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            schema = file.schema_arrow
            columns = [name for name in _SAMPLE_KEYS if name in schema.names]
            embedded = "image" in columns and not _is_text(pyarrow, schema.field("image").type)
            if embedded and not with_images:
                columns.remove("image")
                if pyarrow.types.is_struct(schema.field("image").type):
                    columns.append("image.path")
            size = _ROWS_WITH_IMAGES if embedded and with_images else _ROWS
            position = 0
            for group in range(file.num_row_groups):
                row = 0
                if "image" in columns and embedded:
                    _require_small_images(file.metadata, group, path)
                # Threads of pyarrow would not survive the fork of a data loader's workers.
                batches = file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False)
                for content in (content for batch in batches for content in batch.to_pylist()):
                    cell = ParquetCell(path, group, row) if embedded else None
                    yield _parquet_sample(content, path, position, cell)
                    position, row = position + 1, row + 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: texts are checked late
        raise _unreadable(path, caller, error) from None


def read_tar(path: Path, caller: str) -> Iterator[RawSample]:
    """Reads a tar shard in WebDataset's layout: `KEY.json` and beside it the image, `KEY.png` or another suffix.

    The key ends at the first dot of the file name. A sample without `id` or `image` gets the key and the member's name.

    Args:
        path: The archive, uncompressed.
        caller: Opens the message of errors.

    Raises:
        ValueError: The archive cannot be read, is compressed or incomplete.
    """
    position = 0
    for key, parts in itertools.groupby(_tar_parts(path, caller), key=lambda part: part.key):
        sample = _tar_sample(f"sample {position} of {path} ({key})", key, list(parts))
        if sample is not None:
            yield sample
            position += 1


def tar_members(path: Path, caller: str, read: str | None = None) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Reads the headers of an uncompressed tar archive in order; nothing is ever extracted to a folder.

    Args:
        path: The archive.
        caller: Opens the message of errors.
        read: Ending of the members to read.

    Yields:
        Each header, and the content where it was to be read.

    Raises:
        ValueError: The archive cannot be read, is compressed, damaged or cut off.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
            compression = next((name for magic, name in _COMPRESSIONS.items() if start.startswith(magic)), None)
            if compression is not None:
                raise ValueError(
                    f"{caller}: {path} must be an uncompressed tar archive, because images are read from any place in "
                    f"it; got {compression}. Unpack it first; the images in it are compressed anyway."
                )
            file.seek(0)
            most = most_sample_bytes()
            guarded = cast(IO[bytes], _ShortReads(file, most))
            with tarfile.open(fileobj=guarded, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # it would keep every header
                    wanted = read is not None and member.isreg() and member.name.lower().endswith(read)
                    if wanted and member.size > most:
                        raise too_long(caller, f"{member.name} in {path}", most, SAMPLE_VARIABLE)
                    content = archive.extractfile(member) if wanted else None
                    yield member, content.read() if content else b""
                # tarfile takes a damaged header for the end of the archive.
                file.seek(archive.offset)
                if file.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
                    raise tarfile.ReadError("the end is missing, or a header is damaged")
    except (tarfile.TarError, OSError) as error:
        raise _unreadable(path, caller, error) from None


@dataclass(frozen=True, slots=True)
class _TarPart:
    key: str
    suffix: str
    name: str
    place: FileRange
    content: bytes


class _ShortReads:
    """A file that reads no more at once than asked for in good faith: damaged headers ask for anything."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file, self._most = file, most

    def read(self, size: int = -1) -> bytes:
        """Reads as many bytes."""
        if size > self._most:
            raise tarfile.ReadError(f"a header says that {size} bytes follow")
        return self._file.read(size)


def _tar_parts(path: Path, caller: str) -> Iterator[_TarPart]:
    for member, content in tar_members(path, caller, read=".json"):
        folder, slash, file_name = member.name.rpartition("/")
        stem, _, suffix = file_name.partition(".")
        if stem and member.isreg() and not member.issparse():
            place = FileRange(path, member.offset_data, member.size)
            yield _TarPart(f"{folder}{slash}{stem}", suffix.lower(), member.name, place, content)


def _tar_sample(where: str, key: str, parts: list[_TarPart]) -> RawSample | None:
    texts = [part for part in parts if part.suffix == "json"]
    images = [part for part in parts if part.suffix in IMAGE_SUFFIXES]
    if not texts and not images:
        return None
    image = images[0].place if images else None
    if len(texts) != 1 or len(images) > 1:
        reason = (
            f"must be {key}.json and at most one image, one after the other in the archive; got {len(texts)} .json and "
            f"{len(images)} images. Write the shard again"
        )
        return RawSample(where, image=image, error=reason)
    sample = _decode_json(RawSample(where, image=image), texts[0].content)
    if isinstance(sample.content, dict):
        defaults = {"id": key} | ({"image": images[0].name} if images else {})
        sample = replace(sample, content=defaults | sample.content)
    return sample


def _parquet_sample(content: dict[str, Any], path: Path, position: int, cell: ParquetCell | None) -> RawSample:
    image: EncodedImage | None = cell
    if cell is not None:
        value = content.get("image")
        name = value.get("path") if isinstance(value, Mapping) else None
        data = value.get("bytes") if isinstance(value, Mapping) and "bytes" in value else value
        if isinstance(data, bytes):
            image = data
        elif isinstance(value, Mapping) and "bytes" in value:
            image = None
        content["image"] = name or f"{path.name}#{position}"
    for key in (*TURN_KEYS, *EXTENDED_KEYS):
        messages = content.get(key)
        if isinstance(messages, Mapping):  # a list of pairs that the datasets library has stored as a pair of lists
            pairs = zip(messages.get("from") or (), messages.get("value") or (), strict=False)
            content[key] = [{"from": speaker, "value": value} for speaker, value in pairs]
    return RawSample(f"sample {position} of {path}", {k: v for k, v in content.items() if v is not None}, image)


@functools.lru_cache(maxsize=2)
def _image_column(path: Path, row_group: int) -> Any:
    pyarrow, parquet = _pyarrow("open_image")
    try:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            _require_small_images(file.metadata, row_group, path)
            return file.read_row_group(row_group, columns=["image"], use_threads=False).column("image")
    except pyarrow.ArrowException as error:
        raise OSError(str(error).splitlines()[0]) from None


def _require_small_images(metadata: Any, row_group: int, path: Path) -> None:
    """Refuses a row group whose images would fill the memory."""
    group = metadata.row_group(row_group)
    columns = (group.column(place) for place in range(group.num_columns))
    size = sum(column.total_uncompressed_size for column in columns if column.path_in_schema.split(".")[0] == "image")
    if size > most_image_bytes():
        what = f"the images of row group {row_group} of {path}"
        raise ImageError(str(too_long("open_image", what, most_image_bytes(), IMAGE_VARIABLE)))


def _pyarrow(caller: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{caller}: parquet files need the package pyarrow; got an environment without it. "
            "Install it with: pip install pyarrow."
        ) from None
    return pyarrow, pyarrow.parquet


def _is_text(pyarrow: Any, kind: Any) -> bool:
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return not (pyarrow.types.is_struct(kind) or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _decode_json(sample: RawSample, text: bytes) -> RawSample:
    try:
        return replace(sample, content=json.loads(text.decode("utf-8")))
    except UnicodeDecodeError as error:
        reason = f"must be UTF-8 text; got byte {text[error.start]:#04x}. Convert it to UTF-8"
    except json.JSONDecodeError as error:
        reason = f"must be JSON; got an error at column {error.colno}: {error.msg}. Repair it"
    except (RecursionError, ValueError) as error:
        reason = f"must be JSON; got an error: {str(error).split(';')[0]}. Repair it"
    return replace(sample, error=reason)


def _open(path: Path, caller: str) -> IO[str]:
    return io.TextIOWrapper(open_unpacked(path, caller, by_name=True), encoding="utf-8-sig")


def _bad_line(path: Path) -> str:
    with open_unpacked(path, "read", by_name=True) as file:
        for number, line in enumerate(file, start=1):
            if "\ufffd" in line.decode("utf-8", errors="replace") and b"\xef\xbf\xbd" not in line:
                return f"line {number}"
    return "it"


def _unreadable(path: Path, caller: str, error: Exception) -> ValueError:
    if isinstance(error, FileNotFoundError):
        return ValueError(f"{caller}: path must name an existing file; got {path}. Check the spelling.")
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{caller}: {path} must be a readable file; got: {reason}. Check or replace the file.")
