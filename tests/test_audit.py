"""The audit of dependencies with a pip-audit that is played: findings fail, what keeps it from looking does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "packaging" / "audit.py"
SOUND = {"name": "numpy", "version": "2.0.0", "vulns": []}
OWN = {"name": "graphmatch", "skip_reason": "not found on PyPI"}
BAD = {
    "name": "pillow",
    "version": "9.0.0",
    "vulns": [{"id": "PYSEC-2023-175", "fix_versions": ["10.0.1"], "description": "a heap overflow"},
              {"id": "GHSA-1", "fix_versions": [], "description": ""}],
}  # fmt: skip


def audit(folder: Path, body: str | None, *arguments: str, **variables: str) -> tuple[int, str]:
    """Runs the audit with a program called pip-audit on PATH, or with none and no package index."""
    tools = folder / "bin"
    tools.mkdir()
    if body is not None:
        (tools / "pip-audit").write_text(f"#!{sys.executable}\n{body}")
        (tools / "pip-audit").chmod(0o755)
    environment = os.environ | {"PATH": str(tools), "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    environment |= {"PIP_NO_CACHE_DIR": "1", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""} | variables
    command = [sys.executable, str(PROGRAM), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, cwd=folder)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def answering(*packages: dict, code: int = 0) -> str:
    return f"print({json.dumps(json.dumps({'dependencies': packages, 'fixes': []}))})\nraise SystemExit({code})"


def test_sound_packages_pass(tmp_path: Path):
    assert audit(tmp_path, answering(SOUND, OWN)) == (0, "Audit of 1 packages: 0 with known vulnerabilities.\n")


def test_known_vulnerabilities_fail(tmp_path: Path):
    code, said = audit(tmp_path, answering(SOUND, BAD, code=1))
    assert code == 1
    assert "pillow 9.0.0: PYSEC-2023-175, fixed in 10.0.1\n" in said
    assert "pillow 9.0.0: GHSA-1, fixed in no version yet\n" in said
    assert "Audit of 2 packages: 1 with known vulnerabilities." in said


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import sys\nsys.exit('ERROR: Max retries exceeded with url')", "could not be asked (ERROR: Max retries"),
        ("print('{')\nraise SystemExit(3)", "could not be asked (exit code 3)"),
        (answering(OWN), "knows none of the installed packages"),
        ("import time\ntime.sleep(100)", "did not end within 2 s"),
    ],
)
def test_what_cannot_be_looked_up_is_skipped_with_a_message(tmp_path: Path, body: str, reason: str):
    code, said = audit(tmp_path, body, "--timeout", "2")
    assert code == 0
    assert said.startswith("Audit SKIPPED: ")
    assert reason in said


def test_without_pip_audit_and_an_index_it_is_skipped(tmp_path: Path):
    code, said = audit(tmp_path, None)
    assert (code, said[:56]) == (0, "Audit SKIPPED: pip-audit could not be installed (ERROR: ")


def test_arguments_reach_pip_audit_and_the_path_is_ours(tmp_path: Path):
    body = f"import sys\nfrom pathlib import Path\nPath('seen').write_text(' '.join(sys.argv))\n{answering(SOUND)}"
    assert audit(tmp_path, body, "--ignore-vuln", "GHSA-1")[0] == 0
    seen = (tmp_path / "seen").read_text()
    assert "--ignore-vuln GHSA-1" in seen
    assert "site-packages --format json" in seen
