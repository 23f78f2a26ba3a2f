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
_PACKAGES = (
    "graphmatch",
    "torch",
    "numpy",
    "scipy",
    "pylibmgm",
    "lapx",
    "lapjv",
    "pygmtools",
    "POT",
    "pyepo",
    "lpmp_py",
    "transformers",
    "pytest-benchmark",
)
# What benchmarks write: it changes while they run, and no number depends on it.
_WRITTEN = ("benchmarks/results", "README.md")


def provenance() -> dict[str, Any]:
    """Returns versions, machine, threads and commit as one JSON object; packages not installed are left out."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"cpu": _cpu_name(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def _versions() -> dict[str, str]:
    names = {
        (distribution.metadata["Name"] or "").lower().replace("-", "_")
        for distribution in importlib.metadata.distributions()
    }
    found = [package for package in _PACKAGES if package.lower().replace("-", "_") in names]
    return {package: importlib.metadata.version(package) for package in found}


def _cpu_name() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Returns the commit of the tree, "-dirty" where files but results differ from it; "unversioned" without git."""
    described = _git("describe", "--always", "--abbrev=12", "--exclude=*")
    if described is None:
        return "unversioned"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in _WRITTEN))
    return f"{described}-dirty" if changed else described


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
