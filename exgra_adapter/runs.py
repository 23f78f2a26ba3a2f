"""The output folder of a training run: claimed, resumed, finished; never half written."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exgra_adapter.alignment import ALIGNMENT_FILE
from exgra_adapter.atomic import complete_folder, write_json, write_json_lines
from exgra_adapter.config import TrainingConfig
from exgra_adapter.distributed import is_main_process, on_main_process
from exgra_adapter.models.load import ADAPTER_CONFIG, without_weight_bars
from exgra_adapter.weight_files import writing_weights

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_SETTINGS, _HISTORY, _SUMMARY = "settings.json", "history.jsonl", "summary.json"
# Beginnings of temporary names: a run that is killed before it has written its settings leaves nothing else.
_LEFT_BY_A_KILL = (".partial", ".writable", f".{_SETTINGS}.")
# What `load_model` looks for: of an earlier run, it would be loaded instead of this one's, or with it.
_WHOLE_MODEL = ("config.json", "model*.safetensors", "model*.safetensors.index.json")
_ADAPTER = (ADAPTER_CONFIG, "adapter_model*.safetensors")
_BESIDE_MODEL = ("generation_config.json", "chat_template.jinja", "conversion.json", "tokenizer.model")
# Settings that say how a run is watched and stored, not what it computes: they may differ when a run is resumed.
_FREE_TO_CHANGE = {"output", "workers", "logging_steps", "save_steps", "resume", "overwrite", "report_to"}


@dataclass(frozen=True)
class TrainingSummary:
    """What a training run leaves behind.

    Attributes:
        output: Model folder that `exgra_adapter.models.load_model` loads, and transformers' own classes where model
            and training are stock; with `alignment.safetensors` where the alignment was on, `settings.json`,
            `history.jsonl`, `summary.json`, `README.md` (model card) and `report/`.
        history: One dict per logged or saved step: `step`, `epoch`, `loss`, `ar_loss`, `gradient_norm`,
            `learning_rate`, the values that `AlignmentTrainer` lists, and with alignment `alignment_loss` and the
            objective's metrics.
        samples: Samples trained on.
        skipped: Samples left out because of a bad image.
        steps: Optimizer steps in total.
        seconds: Duration of this call; a run that was resumed took longer.
    """

    output: Path
    history: list[dict[str, float]]
    samples: int
    skipped: int
    steps: int
    seconds: float


def check_output(config: TrainingConfig) -> TrainingSummary | None:
    """Makes the output folder or refuses one that must not be used; returns the run that is finished there already.

    Raises:
        ValueError: The folder cannot be written to, holds other files, or an earlier run with other settings.
    """
    return on_main_process(lambda: _check_output(config))


def last_checkpoint(config: TrainingConfig) -> Path | None:
    """Finds the last complete checkpoint to go on from."""
    return None if config.overwrite else on_main_process(lambda: _last_checkpoint(config.output / CHECKPOINTS))


def claim_output(config: TrainingConfig) -> None:
    """Removes an earlier run, if that is wanted, and writes the settings.

    Called when data and model are known to be right: a run that fails on them leaves the folder as it was.
    """
    on_main_process(lambda: _claim_output(config))


def save_model(model: Any, processor: Any, folder: Path) -> None:
    """Writes a model folder, complete or not at all; one that is there already is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    with complete_folder(folder, "save_model") as partial:
        with without_weight_bars(), writing_weights(partial, "save_model"):
            model.save_pretrained(partial)
        processor.save_pretrained(partial)


def write_result(summary: TrainingSummary, save: Callable[[Path], None], describe: Callable[[Path], None]) -> None:
    """Moves complete files into the output folder; the summary comes last and marks the run as finished.

    Args:
        summary: The run.
        save: Writes the model into a folder; every process calls it.
        describe: Adds report and model card on the main process.
    """
    output = summary.output
    folder = on_main_process(lambda: Path(tempfile.mkdtemp(dir=output, prefix=".partial")))
    try:
        with writing_weights(folder, "train"):
            save(folder)
        if is_main_process():
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle that repeats settings.json
            describe(folder)
            _remove_earlier_model(output, folder)
            for path in sorted(folder.iterdir()):
                target = output / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                path.replace(target)
    finally:
        if is_main_process():
            shutil.rmtree(folder, ignore_errors=True)
    on_main_process(lambda: _finish(summary))


def _remove_earlier_model(output: Path, folder: Path) -> None:
    """Removes the files of an earlier model that the new one in `folder` does not replace."""
    patterns = [*_WHOLE_MODEL, *_ADAPTER, *_BESIDE_MODEL]
    adapter = folder / ADAPTER_CONFIG
    if adapter.is_file():
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        if (output / base).resolve() == output.resolve():  # adapters that are trained in the folder of their model
            patterns = list(_ADAPTER)
    for pattern in patterns:
        for path in output.glob(pattern):
            if not (folder / path.name).exists():
                path.unlink()


def _check_output(config: TrainingConfig) -> TrainingSummary | None:
    output = config.output
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=output, prefix=".writable"):
            pass
    except OSError as error:
        raise ValueError(
            f"train: output must be a folder that can be written to; got {output} ({error.strerror}). "
            "Choose another one."
        ) from None
    settings = output / _SETTINGS
    if config.overwrite:
        return None
    if config.resume and settings.is_file():
        _require_same_settings(config, settings)
        return _read_summary(output) if (output / _SUMMARY).is_file() else None
    if any(not path.name.startswith(_LEFT_BY_A_KILL) for path in output.iterdir()):
        raise ValueError(
            f"train: output must be an empty folder; got {output} with files in it. "
            "Continue an interrupted run with --resume, start anew with --overwrite, or choose another folder."
        )
    return None


def _require_same_settings(config: TrainingConfig, path: Path) -> None:
    earlier, now = json.loads(path.read_text(encoding="utf-8")), config.to_json()
    changed = [name for name in now if name not in _FREE_TO_CHANGE and earlier.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise ValueError(
            f"train: {name} must be the same when a run is resumed ({earlier.get(name)!r}); got {now[name]!r}. "
            "Give the old settings, or start anew with --overwrite."
        )


def _claim_output(config: TrainingConfig) -> None:
    if config.overwrite:
        for name in (_SUMMARY, _HISTORY, ALIGNMENT_FILE):
            (config.output / name).unlink(missing_ok=True)
        shutil.rmtree(config.output / CHECKPOINTS, ignore_errors=True)
    for leftover in config.output.iterdir():
        if leftover.name.startswith(_LEFT_BY_A_KILL):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()
    write_json(config.output / _SETTINGS, config.to_json())


def _read_summary(output: Path) -> TrainingSummary:
    values = json.loads((output / _SUMMARY).read_text(encoding="utf-8"))
    lines = (output / _HISTORY).read_text(encoding="utf-8").splitlines()
    return TrainingSummary(output=output, history=[json.loads(line) for line in lines], **values)


def _last_checkpoint(folder: Path) -> Path | None:
    """The trainer state is written last, so a folder without it is half written."""
    complete: list[tuple[int, Path]] = []
    for path in folder.glob("checkpoint-*"):
        try:
            state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("%s is incomplete and is removed", path)
            shutil.rmtree(path)
            continue
        complete.append((int(state["global_step"]), path))
    return max(complete)[1] if complete else None


def _finish(summary: TrainingSummary) -> None:
    write_json_lines(summary.output / _HISTORY, summary.history)
    values = asdict(summary)
    write_json(summary.output / _SUMMARY, {name: values[name] for name in ("samples", "skipped", "steps", "seconds")})
    shutil.rmtree(summary.output / CHECKPOINTS, ignore_errors=True)
