"""What an installed wheel must be able to do; run it with the Python of an environment that has the wheel.

python smoke.py [VERSION]    VERSION: what the wheel must say it is
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import torch

import graphmatch as gm

SOURCES = Path(__file__).resolve().parent.parent.parent
DATA = {
    "graphmatch": ["py.typed"],
    "exgra_adapter": ["py.typed", "configs/stage1.yaml", "configs/fsdp.json", "evaluation/prompts/judge.txt"],
}


def check_origin(version: str) -> None:
    """The package is the installed one, complete, and says its version everywhere."""
    package = Path(gm.__file__).resolve().parent
    assert package != SOURCES / "graphmatch", f"{package} is the source folder, not the installed wheel"
    assert gm.__version__ == importlib.metadata.version("graphmatch") == version
    assert importlib.util.find_spec("graphmatch._native_cpu") is not None
    for name, files in DATA.items():
        missing = [file for file in files if not resources.files(name).joinpath(file).is_file()]
        assert missing == [], f"{name} lacks {missing}"


def check_solvers() -> None:
    """Problems whose optimum is known: by hand, and the cycle that only its own rotations and reflections match."""
    linear = gm.solve(gm.LinearProblem(torch.tensor([[[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]]])))
    assert linear.objective.tolist() == [5.0]
    assert linear.assignment.tolist() == [[1, 0, 2]]
    cycle = torch.eye(6).roll(1, 0)
    dense = gm.solve(
        gm.KoopmansBeckmannProblem(-(cycle + cycle.T)[None], (cycle + cycle.T)[None], torch.zeros(1, 6, 6))
    )
    assert dense.objective.tolist() == [-12.0]
    assert (dense.lower_bound <= dense.objective).all()


def check_command(version: str) -> None:
    """`graphmatch info`, by its name and as a module."""
    program = str(Path(sys.executable).with_name("graphmatch"))
    for command in ([program], [sys.executable, "-m", "graphmatch"]):
        answer = subprocess.run([*command, "info", "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
        assert json.loads(answer)["graphmatch"] == version


def main() -> None:
    """Runs every check; the first that fails ends with its traceback."""
    version = sys.argv[1] if len(sys.argv) > 1 else importlib.metadata.version("graphmatch")
    check_origin(version)
    check_solvers()
    check_command(version)
    sys.stdout.write(f"graphmatch {version} of {Path(gm.__file__).parent} works\n")


if __name__ == "__main__":
    main()
