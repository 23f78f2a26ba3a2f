"""Installs a wheel into an empty environment, without compilers on PATH, and runs smoke.py there: `make check-dist`.

python install_wheel.py WHEEL
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

SMOKE = Path(__file__).resolve().with_name("smoke.py")
CONSTRAINTS = SMOKE.parent.parent.parent / "constraints.txt"
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "nvcc")


def main() -> None:
    """Installs, then checks; ends with the exit code of what failed."""
    wheel = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "venv"
        venv.create(environment, with_pip=True)
        programs = environment / "bin"
        # Neither the sources nor a compiler may help: the wheel alone has to do.
        unset = {"PYTHONPATH", "PYTHONHOME", "PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "CC", "CXX", "CUDA_HOME"}
        variables = {name: value for name, value in os.environ.items() if name not in unset} | {"PATH": str(programs)}
        assert not any((programs / name).exists() for name in COMPILERS)

        def run(*arguments: str) -> None:
            subprocess.run([str(programs / "python"), *arguments], check=True, cwd=folder, env=variables)

        install = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--constraint", str(CONSTRAINTS)]
        run(*install, str(wheel))
        run(str(SMOKE), wheel.name.split("-")[1])


if __name__ == "__main__":
    main()
