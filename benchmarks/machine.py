"""What a number depends on: versions, machine, threads, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_PACKAGES = ("graphmatch", "torch", "numpy", "scipy", "pylibmgm", "lapx", "lapjv", "pygmtools", "pytest-benchmark")


def provenance() -> dict[str, Any]:
    """Returns versions, machine, threads and commit as one JSON object; packages not installed are left out."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


def _versions() -> dict[str, str]:
    names = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
    return {package: importlib.metadata.version(package) for package in _PACKAGES if package in names}


def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unversioned"
    return answer.stdout.strip() if answer.returncode == 0 else "unversioned"
