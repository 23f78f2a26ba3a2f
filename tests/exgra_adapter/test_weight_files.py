"""Weights on the disk: who may read them, and what a full disk says."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from exgra_adapter.atomic import complete_folder, write_text
from exgra_adapter.complete_file import complete_file
from exgra_adapter.config import TrainingConfig
from exgra_adapter.models import export_model
from exgra_adapter.training import train
from exgra_adapter.weight_files import writing_weights


def config(small_data: Any, output: Path, **changes: Any) -> TrainingConfig:
    fast: dict[str, Any] = {"batch_size": 4, "max_steps": 2, "neighbours": 2, "save_steps": 1}
    return TrainingConfig("stage2", small_data.data, small_data.images, output, **(fast | changes))


def modes(folder: Path) -> set[str]:
    return {stat.filemode(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_weights_are_as_readable_as_other_files(small_data, tmp_path):
    (tmp_path / "plain").touch()
    plain = {stat.filemode((tmp_path / "plain").stat().st_mode)}
    train(config(small_data, tmp_path / "run"), console_progress=False)
    train(config(small_data, tmp_path / "adapted", lora_rank=2), console_progress=False)
    export_model(tmp_path / "run", tmp_path / "exported")
    assert [modes(tmp_path / name) for name in ("run", "adapted", "exported")] == [plain] * 3


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127])
def test_names_of_any_length_that_systems_take(tmp_path, name):
    write_text(tmp_path / "text" / name, "x")
    with complete_file(tmp_path / "lines" / name) as file:
        file.write("x")
    with complete_folder(tmp_path / name, "example") as folder:
        (folder / "part").touch()
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {Path("text", name), Path("lines", name), Path(name, "part")}


@pytest.mark.parametrize(("place", "folder", "file"), [(0o2777, 0o2755, 0o644), (0o700, 0o700, 0o600)])
def test_results_are_as_readable_as_their_place_and_nobody_elses_to_write(tmp_path, place, folder, file):
    before = os.umask(0o022)
    try:
        tmp_path.chmod(place)
        with complete_folder(tmp_path / "model", "example"), complete_file(tmp_path / "data.json"):
            pass
    finally:
        os.umask(before)
    found = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("model", "data.json")]
    assert found == [folder, file]


def test_permissions_are_added_and_none_is_taken(tmp_path):
    kept, private = tmp_path / "kept", tmp_path / "private"
    with writing_weights(tmp_path, "example"):
        for path, mode in ((kept, 0o777), (private, 0o600)):
            path.touch()
            path.chmod(mode)
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o777
    assert stat.S_IMODE(private.stat().st_mode) & 0o400


def test_what_torch_says_of_a_full_disk_is_an_error_of_the_disk(tmp_path):
    said = r"train: .* must be written to; got: \[enforce fail.*Look at the space on the disk"
    with pytest.raises(OSError, match=said), writing_weights(tmp_path, "train"):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 4305920 vs 4305812")
    with pytest.raises(RuntimeError, match="of another kind"), writing_weights(tmp_path, "train"):
        raise RuntimeError("of another kind")


@pytest.mark.parametrize("place", ["exgra_adapter.alignment.save_file", "transformers.modeling_utils.safe_save_file"])
def test_a_run_without_room_for_its_checkpoint_says_so_and_goes_on_later(small_data, tmp_path, monkeypatch, place):
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(place, full)
        with pytest.raises(OSError, match=r"train: .*checkpoints must be written to; got: I/O error: No space left"):
            train(config(small_data, tmp_path), console_progress=False)
    assert train(config(small_data, tmp_path, resume=True), console_progress=False).steps == 2


def test_a_conversion_without_room_leaves_nothing(small_data, tmp_path, monkeypatch):
    train(config(small_data, tmp_path / "run"), console_progress=False)

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(OSError, match=r"export_model: .* must be written to; got: No space left"):
        export_model(tmp_path / "run", tmp_path / "exported")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
