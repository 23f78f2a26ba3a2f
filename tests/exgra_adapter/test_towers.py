"""Vision towers from timm, and what is said where timm is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from exgra_adapter.models import load_model
from exgra_adapter.models.towers import timm_vision_config

INSTALLED = importlib.util.find_spec("timm") is not None
TESTS = Path(__file__).with_name("timm_towers.py")


@pytest.mark.skipif(not INSTALLED and not (Path(sys.prefix) / "timm").is_dir(), reason="timm is not installed")
def test_towers_of_timm():
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", str(TESTS)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout, run.stdout


@pytest.mark.skipif(INSTALLED, reason="timm is installed")
def test_a_missing_timm_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"timm_vision_config: .* must have timm .* Install both: pip install timm"):
        timm_vision_config("vit_base_patch16_224")
    (tmp_path / "config.json").write_text('{"model_type": "llava", "vision_config": {"model_type": "timm_wrapper"}}')
    with pytest.raises(ValueError, match=r"load_model: a timm vision tower must have timm"):
        load_model(tmp_path)
