"""Long evaluations in batches: shared by the processes that torchrun starts, continued after an interruption.

The batches are cut from the data once, whoever works on them and however often the work is interrupted. A batch that
was not written down completely is done again as a whole. So every question is always computed beside the same others,
and the results are the same to the last bit, which rounding would otherwise prevent on GPUs and in half precision.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from tqdm import tqdm

from exgra_adapter.distributed import is_main_process, on_main_process, world_size
from exgra_adapter.evaluation.journal import Entry, Journal, read_journals, remove_journals

logger = logging.getLogger(__name__)

_Prepared = TypeVar("_Prepared")
# What tells models apart; reports, histories and pictures in the same folder do not.
_MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".json", ".model", ".txt", ".jinja")
# One process may have much more to do than the others, which wait for it.
_PATIENCE = timedelta(days=7)
_DIGITS = 16


def join_processes() -> None:
    """Connects the processes that torchrun started, for the rest of their lives; does nothing in a single process.

    Only small messages are exchanged, on the CPU, so that any number of processes can share a GPU or have one each.
    """
    # A group that was left cannot be joined again: the first one stays until the process ends.
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=_PATIENCE)
        # Before Python takes the process apart, in the midst of which gloo may abort.
        atexit.register(_leave_processes)


@contextmanager
def evaluation_processes() -> Iterator[None]:
    """Connects the processes as `join_processes` does, around the code in which they talk; they stay connected.

    Example:
        >>> with evaluation_processes():
        ...     world_size()
        1
    """
    join_processes()
    yield


def _leave_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def evaluation_device() -> torch.device:
    """Returns the device of this process: the GPU of its local rank, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def run_batches(
    count: int,
    batch_size: int,
    prepare: Callable[[range], _Prepared],
    compute: Callable[[_Prepared], Sequence[Entry]],
    target: Path,
    settings: dict[str, Any],
    write: Callable[[list[Entry]], None],
    *,
    caller: str,
    resume: bool = True,
    description: str = "answering",
    console_progress: bool = True,
) -> list[Entry]:
    """Computes the results of all questions, batch by batch. Every process must call it, after `join_processes`.

    Args:
        count: Number of questions.
        batch_size: Questions of a batch; the last one may have fewer.
        prepare: Reads what a batch needs, given the indices of its questions; runs in a thread, one batch ahead.
        compute: Computes one batch. Returns a JSON object for each question.
        target: The result file. Journals lie beside it while the work is not finished.
        settings: What the results depend on, as JSON values; interrupted work is continued only with the same.
        write: Writes the result file from the results of all questions; called once, on the main process.
        caller: Begins error messages.
        resume: Continue interrupted work. Otherwise its journals are removed and all is done anew.
        description: Stands beside the progress bar, which the main process shows of its own share.
        console_progress: Whether to show the bar.

    Returns:
        The results of all questions, in their order, in every process.

    Raises:
        ValueError: The interrupted work had other settings.
    """
    whole = {**settings, "count": count, "batch_size": batch_size}

    def begin() -> list[int]:
        if not resume:
            remove_journals(target)
        done = read_journals(target, whole, caller)
        return [start for start in range(0, count, batch_size) if not done.keys() >= set(batch(start))]

    def batch(start: int) -> range:
        return range(start, min(start + batch_size, count))

    def finish() -> list[Entry]:
        done = read_journals(target, whole, caller)
        results = [done[index] for index in range(count)]
        write(results)
        remove_journals(target)
        return results

    pending = on_main_process(begin)
    process, processes = (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)
    mine = pending[process::processes]
    total = count if processes == 1 else sum(len(batch(start)) for start in mine)
    done_before = total - sum(len(batch(start)) for start in mine)
    label = description if processes == 1 else f"{description} (process 1 of {processes})"
    shown = console_progress and is_main_process()
    try:
        with (
            Journal(target, process, whole) as journal,
            tqdm(
                total=total, initial=done_before, desc=label, unit="question", disable=not shown, leave=False
            ) as progress,
        ):
            for questions, prepared in _prepare_ahead(prepare, [batch(start) for start in mine]):
                results = compute(prepared)
                journal.append({**result, "index": index} for index, result in zip(questions, results, strict=True))
                progress.update(len(questions))
    except (ValueError, OSError) as error:
        if processes > 1:  # torchrun may end this process before its error gets any further
            logger.error("process %d: %s", process + 1, error)
        raise
    _wait_for_others(caller)
    complete = on_main_process(finish)
    # A process that leaves while another one still listens would look like one that died.
    _wait_for_others(caller)
    return complete


def _prepare_ahead(
    prepare: Callable[[range], _Prepared], batches: Sequence[range]
) -> Iterator[tuple[range, _Prepared]]:
    """Yields every batch with what it needs, while a thread prepares the next one."""
    waiting: deque[tuple[range, Future[_Prepared]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as thread:
        for batch in batches:
            waiting.append((batch, thread.submit(prepare, batch)))
            if len(waiting) > 1:
                first, prepared = waiting.popleft()
                yield first, prepared.result()
        for first, prepared in waiting:
            yield first, prepared.result()


def _wait_for_others(caller: str) -> None:
    if world_size() == 1:
        return
    try:
        dist.barrier()
    except RuntimeError as error:
        raise OSError(
            f"{caller}: every process must finish its share; got one that ended early, whose message says why. "
            "Give the same command again; what was written down is not done again."
        ) from error


def model_digest(folder: Path) -> str:
    """Returns 16 digits of a SHA-256 over weights, configuration and tokenizer in a model folder.

    For a LoRA adapter this is the adapter with the name of its base model.

    Raises:
        ValueError: There is no such folder, or no model in it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> before = model_digest(folder)
        >>> _ = (folder / "model.safetensors").write_bytes(b"weights")
        >>> model_digest(folder) == before
        False
    """
    digest = hashlib.sha256()
    if not any((Path(folder) / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ValueError(
            f"model_digest: folder must be a model folder; got {folder}, which has no config.json. "
            "Give the output folder of a finished training."
        )
    for path in sorted(Path(folder).glob("*")):
        if path.is_file() and path.suffix in _MODEL_SUFFIXES:
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            with path.open("rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
    return digest.hexdigest()[:_DIGITS]


def content_digest(content: Any) -> str:
    """Returns 16 digits of a SHA-256 of JSON values."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:_DIGITS]
