"""Source files: JSON lists, plain or compressed with gzip or xz, found by the names that data sets give them."""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from exgra_adapter.data.json_list import JsonList
from exgra_adapter.data.limits import open_unpacked

SUFFIXES = (".json", ".json.gz", ".json.xz")
_PICKLES = (".pkl", ".pickle", ".p")


def read_list(path: Path, caller: str = "prepare") -> Iterator[tuple[str, Any]]:
    """Reads a JSON list element by element, in constant memory.

    Args:
        path: A `.json` file, or one compressed with gzip or xz, whatever its name.
        caller: Opens the message of errors.

    Yields:
        Where each element lies, for messages, and the element.

    Raises:
        ValueError: The file cannot be read, is damaged, a pickle, not UTF-8, not JSON, or no list.
    """
    refuse_pickle(path, caller)
    try:
        with io.TextIOWrapper(open_unpacked(path, caller), encoding="utf-8-sig") as file:
            for position, element in enumerate(JsonList(file, path, caller)):
                yield f"{caller}: row {position} of {path}", element
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{caller}: {path} must be UTF-8 text; got byte {error.object[error.start]:#04x}. Convert it to UTF-8."
        ) from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ValueError(f"{caller}: {path} must be a readable file; got: {reason}. Check or replace it.") from None


def refuse_pickle(path: Path, caller: str) -> None:
    """Refuses a pickle, by its name or by its first byte: reading one may run whatever code its author wrote.

    Raises:
        ValueError: The file is a pickle, or there is none.
    """
    if not path.is_file():
        raise ValueError(f"{caller}: the source must be an existing file; got {path}. Check the path.")
    with path.open("rb") as file:
        start = file.read(1)
    if start == b"\x80" or path.name.lower().endswith(_PICKLES):
        raise ValueError(
            f"{caller}: the source must be JSON; got {path}, a pickle, which can run any code when it is read and is "
            "therefore never opened here. Take the JSON files of the data set, or convert the pickle where you trust "
            "its author."
        )


def find_file(folder: Path, stems: Sequence[str]) -> Path | None:
    """Finds the first file of a folder that has one of the stems and a suffix of `SUFFIXES`; None without one.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "val.json.gz").touch()
        >>> find_file(folder, ["validate", "val"]).name
        'val.json.gz'
    """
    places = (folder / f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES)
    return next((place for place in places if place.is_file()), None)


def find_splits(source: Path, stems: Mapping[str, Sequence[str]], data_set: str) -> dict[str, Path]:
    """Finds the files of a data set that has one per split.

    Args:
        source: A folder, or a single file whose name says which split it is.
        stems: The names, without suffix, that the file of each split may have; the first is the usual one.
        data_set: What errors call the data set.

    Returns:
        The files that there are.

    Raises:
        ValueError: There is none.
    """
    source = Path(source)
    if source.is_dir():
        found = {split: file for split, names in stems.items() if (file := find_file(source, names))}
        if found:
            return found
        pickles = [file for file in sorted(source.rglob("*")) if file.name.lower().endswith(_PICKLES)]
        if pickles:
            refuse_pickle(pickles[0], "prepare")
        usual = ", ".join(f"{names[0]}.json" for names in stems.values())
        raise ValueError(
            f"prepare: the {data_set} folder must hold {usual} (also .gz, .xz); got {source} without any of them. "
            "Name the folder that holds the data set's JSON files."
        )
    refuse_pickle(source, "prepare")
    stem = source.name.lower().split(".json")[0]
    for split, names in stems.items():
        if stem in names:
            return {split: source}
    usual = " or ".join(names[0] for names in stems.values())
    raise ValueError(
        f"prepare: the name of a single {data_set} file must say which split it is ({usual}); got {source.name}. "
        "Rename it, or name its folder."
    )
