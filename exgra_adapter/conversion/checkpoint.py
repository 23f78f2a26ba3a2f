"""Reading the weight files of a model folder, one tensor at a time, without ever running what a pickle asks for."""

from __future__ import annotations

import errno
import pickle
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from exgra_adapter import strict_json
from exgra_adapter.conversion.plan import summarize

# In this order: safetensors files are preferred, they cannot hold code.
_INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE_NAMES = ("model.safetensors", "pytorch_model.bin")
_SAFETENSORS_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
# Older versions can be made to run code even with weights_only=True (CVE-2025-32434).
_SAFE_TORCH = (2, 6)


@dataclass(frozen=True)
class TensorHeader:
    """What is known of a stored tensor without reading it.

    Attributes:
        shape: Its shape.
        dtype: Its type.
        file: The file it is in.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: Path


class Checkpoint:
    """The tensors of one model folder.

    Opening reads headers only. One file is open at a time and is mapped into memory where its format allows it, so
    reading needs memory for the tensors that the caller holds (and for one whole file in the pre-2020 pickle format).

    Args:
        folder: A folder with `model.safetensors` or `pytorch_model.bin`, single or sharded with an index.
        file: Read this one file of the folder instead.

    Attributes:
        folder: The folder.
        tensors: Name to header, in the order of the files.

    Raises:
        ValueError: No weights, a shard missing or damaged, a pickle that holds more than tensors, an index that does
            not fit its files.

    Example:
        >>> import pathlib, tempfile, torch
        >>> from safetensors.torch import save_file
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> save_file({"weight": torch.ones(2, 3)}, folder / "model.safetensors")
        >>> checkpoint = Checkpoint(folder)
        >>> checkpoint.tensors["weight"].shape
        (2, 3)
        >>> checkpoint.read("weight").sum()
        tensor(6.)
    """

    def __init__(self, folder: Path, file: str | None = None) -> None:
        self.folder = Path(folder)
        self.tensors: dict[str, TensorHeader] = {}
        self._open: tuple[Path, Any] | None = None
        weight_map = {} if file else _weight_map(self.folder)
        for path in sorted({self.folder / name for name in weight_map.values()} or {_single(self.folder, file)}):
            headers = self._headers(path)
            listed = {name for name, shard in weight_map.items() if self.folder / shard == path}
            if weight_map and listed != set(headers):
                wrong = [f"{name} is not in the file" for name in sorted(listed - set(headers))]
                wrong += [f"{name} is not in the index" for name in sorted(set(headers) - listed)]
                raise ValueError(
                    f"Checkpoint: {path} must hold what the index says; got: {summarize(wrong)}. "
                    "Copy the index and all shards again."
                )
            self.tensors.update(headers)
        self.close()

    def read(self, name: str) -> Tensor:
        """Returns one tensor; it may be a view of a file mapped into memory.

        Args:
            name: A key of `tensors`.
        """
        file = self.tensors[name].file
        content = self._content(file)
        with _damage_explained(file):
            return content[name] if isinstance(content, dict) else content.get_tensor(name)

    def close(self) -> None:
        """Lets go of the open file."""
        self._open = None

    def _headers(self, file: Path) -> dict[str, TensorHeader]:
        content = self._content(file)
        if isinstance(content, dict):
            return {name: TensorHeader(tuple(value.shape), value.dtype, file) for name, value in content.items()}
        headers = {}
        with _damage_explained(file):
            for name in content.keys():  # noqa: SIM118 - not a dict
                part = content.get_slice(name)
                kind = _SAFETENSORS_TYPES.get(part.get_dtype())
                if kind is None:
                    raise ValueError(
                        f"Checkpoint: {file} must hold tensors of common types; got {name} of type {part.get_dtype()}. "
                        "Convert an unquantized checkpoint."
                    )
                headers[name] = TensorHeader(tuple(part.get_shape()), kind, file)
        return headers

    def _content(self, file: Path) -> Any:
        if self._open is None or self._open[0] != file:
            self._open = None
            with _damage_explained(file):
                opened = safe_open(file, "pt") if file.suffix == ".safetensors" else _load_pickle(file)
            self._open = (file, opened)
        return self._open[1]


def _single(folder: Path, file: str | None) -> Path:
    return folder / (file or next(name for name in _SINGLE_NAMES if (folder / name).is_file()))


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor to file name, from the index; empty for a single file."""
    for index, single in zip(_INDEX_NAMES, _SINGLE_NAMES, strict=True):
        path = folder / index
        if path.is_file():
            return _read_index(path)
        if (folder / single).is_file():
            return {}
    raise ValueError(
        f"Checkpoint: folder must hold {' or '.join(_SINGLE_NAMES)}, or one of them in shards with its index; "
        f"got {folder}. Check the path."
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        content = strict_json.decode(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Checkpoint: {path} must be JSON; got an error: {error}. Copy it again.") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise ValueError(
            f"Checkpoint: {path} must have a weight_map from tensors to file names; got none. Copy it again."
        )
    shards = sorted(set(weight_map.values()))
    # An index must not lead out of its folder.
    outside = [name for name in shards if PurePath(name).name != name or name in {"", ".", ".."} or "\\" in name]
    if outside:
        raise ValueError(
            f"Checkpoint: {path} must name files of its own folder; got {outside[0]!r}. Do not trust this index."
        )
    missing = [name for name in shards if not (path.parent / name).is_file()]
    if missing:
        raise ValueError(
            f"Checkpoint: {path.parent} must hold all {len(shards)} shards that the index names; "
            f"got none called {summarize(missing)}. Copy the missing files."
        )
    return weight_map


def _load_pickle(file: Path) -> dict[str, Tensor]:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        raise ValueError(
            f"Checkpoint: reading {file} safely needs torch 2.6 or newer; got {torch.__version__}. "
            "Update torch, or take safetensors files."
        )
    with file.open("rb") as stream:
        is_archive = stream.read(4) == b"PK\x03\x04"
    # Only the archive format can be mapped into memory.
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(
            f"Checkpoint: {file} must hold one dict of tensors; got something else in it. "
            "Save model.state_dict() alone."
        )
    return dict(content)


@contextmanager
def _damage_explained(file: Path) -> Iterator[None]:
    """Turns the errors of damaged or unsafe files into sentences."""
    try:
        yield
    except pickle.UnpicklingError as error:
        text = str(error)
        found = re.search(r"GLOBAL (\S+)", text) or re.search(r"(?:Unsupported|callable|class)\s+(\S+\.\S+)", text)
        if "weights only" in text.lower() and ("GLOBAL" in text or "Unsupported" in text) and found:
            raise ValueError(
                f"Checkpoint: {file} must hold tensors only; got a pickle that asks for {found.group(1).rstrip('.')}, "
                "which could run code. Do not load it in another way; ask for safetensors files."
            ) from error
        raise ValueError(_damaged(file, error)) from error
    except (SafetensorError, RuntimeError, EOFError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(_damaged(file, error)) from error
    except OSError as error:
        # What torch says of an archive without its end.
        if error.errno != errno.EINVAL:
            raise
        raise ValueError(_damaged(file, error)) from error


def _damaged(file: Path, error: BaseException) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return (
        f"Checkpoint: {file} must be a complete weight file; got {file.stat().st_size} bytes that cannot be read "
        f"({reason}). It is cut off or damaged: copy it again."
    )
