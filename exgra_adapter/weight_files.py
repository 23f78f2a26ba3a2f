"""Weights on the disk: as readable as other files, and one sentence where they cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from exgra_adapter.atomic import umask

_FROM_TORCH = ("PytorchStreamWriter", "inline_container")


@contextmanager
def writing_weights(folder: Path, caller: str) -> Iterator[None]:
    """Surrounds code that writes weights into a folder.

    The files in the folder get the permissions that a plain open() would give; safetensors makes private ones.

    Args:
        folder: The folder.
        caller: Begins error messages.

    Raises:
        OSError: A file cannot be written, mostly because the disk is full; torch and safetensors have errors of their
            own for that.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_file
        >>> folder = Path(tempfile.mkdtemp())
        >>> with writing_weights(folder, "example"):
        ...     save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
        >>> (folder / "model.safetensors").exists()
        True
    """
    try:
        yield
    except SafetensorError as error:
        raise _unwritable(folder, caller, error) from error
    except RuntimeError as error:
        if not any(name in str(error) for name in _FROM_TORCH):
            raise
        raise _unwritable(folder, caller, error) from error
    mode = 0o666 & ~umask()
    for path in Path(folder).glob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | mode)


def _unwritable(folder: Path, caller: str, error: Exception) -> OSError:
    reason = " ".join(str(error).split())
    return OSError(f"{caller}: {folder} must be written to; got: {reason}. Look at the space on the disk.")
