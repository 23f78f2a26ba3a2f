"""Looks up the installed packages among known vulnerabilities, with pip-audit.

    python tests/packaging/audit.py [--timeout SECONDS] [arguments of pip-audit ...]

Takes the pip-audit on PATH, or installs it apart from everything else. Exit code 1 if a package has a known
vulnerability; 0 if none has, and also, with a message, where pip-audit or its database cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any


def find_program(folder: Path, seconds: float) -> tuple[list[str], dict[str, str]] | str:
    """Returns a command and its environment, or why there is none."""
    program = shutil.which("pip-audit")
    if program:
        return [program], dict(os.environ)
    # The constraints of this project are for this project.
    environment = os.environ | {"PIP_CONSTRAINT": "", "PIP_BUILD_CONSTRAINT": ""}
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "pip-audit"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"pip-audit could not be installed within {seconds:.0f} s"
    if done.returncode:
        return f"pip-audit could not be installed ({last_line(done.stderr)})"
    return [sys.executable, "-m", "pip_audit"], environment | {"PYTHONPATH": str(folder)}


def audit(arguments: list[str], seconds: float) -> tuple[list[dict[str, Any]], int] | str:
    """Returns the vulnerable packages and the number of packages looked up, or why nothing was found out."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        found = find_program(Path(folder), seconds)
        if isinstance(found, str):
            return found
        command, environment = found
        # Without a path it would look at its own packages.
        command += [
            "--path",
            sysconfig.get_path("purelib"),
            "--format",
            "json",
            "--progress-spinner",
            "off",
            *arguments,
        ]
        try:
            left = max(end - time.monotonic(), 1.0)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return f"pip-audit did not end within {seconds:.0f} s"
    # pip-audit exits with 1 for vulnerabilities and for all else that goes wrong: only its answer tells them apart.
    try:
        packages = json.loads(done.stdout)["dependencies"]
        looked_up = [package for package in packages if "skip_reason" not in package]
        vulnerable = [package for package in looked_up if package["vulns"]]
    except (ValueError, KeyError, TypeError):
        return f"the database could not be asked ({last_line(done.stderr) or f'exit code {done.returncode}'})"
    if not looked_up:
        return "the database knows none of the installed packages"
    return vulnerable, len(looked_up)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:200]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=300.0, help="default: %(default)s")
    options, others = parser.parse_known_args()
    answer = audit(others, options.timeout)
    if isinstance(answer, str):
        say(f"Audit SKIPPED: {answer}.")
        return 0
    vulnerable, count = answer
    for package in vulnerable:
        for one in package["vulns"]:
            fixes = ", ".join(one.get("fix_versions", [])) or "no version yet"
            say(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixes}")
    say(f"Audit of {count} packages: {len(vulnerable)} with known vulnerabilities.")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
