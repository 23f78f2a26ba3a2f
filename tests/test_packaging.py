"""What the sdist and the wheel hold: every file that the code needs, and nothing of what runs write."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from setuptools import Distribution

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

import graphmatch as gm

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PATTERNS = [
    (package, pattern)
    for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
    for pattern in patterns
]
# What Python and the build leave in a package; nothing of it is read as data.
MADE = ("*.py[cod]", "*.so", "*.dylib")
# Files without which the sdist cannot be built, read or tested.
IN_SDIST = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "setup.py",
    "tests/packaging/smoke.py",
}
NOT_IN_SDIST = ("*.so", "*.o", "*.pyc", "*.png", "*.csv", "*.safetensors", "benchmarks/results/*", "runs/*", "build/*")


def is_made(path: Path) -> bool:
    return any(fnmatch(path.name, pattern) for pattern in MADE)


def data_files(package: str) -> set[str]:
    """The files of a package that are not Python, from its folder."""
    folder = ROOT / package
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py" and not is_made(path))
    return {path.relative_to(folder).as_posix() for path in files if "__pycache__" not in path.parts}


def matching(package: str, pattern: str) -> set[str]:
    """The files that a pattern of package-data takes in."""
    return {path.relative_to(ROOT / package).as_posix() for path in (ROOT / package).glob(pattern)}


def manifest() -> list[list[str]]:
    """The commands of MANIFEST.in, in words."""
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize(("package", "pattern"), PATTERNS, ids="/".join)
def test_pattern_of_package_data_takes_files_in(package: str, pattern: str):
    assert matching(package, pattern), f"package-data names {package}/{pattern}, which is nothing"


@pytest.mark.parametrize("package", ["graphmatch", "exgra_adapter"])
def test_every_data_file_is_in_the_wheel(package: str):
    taken = set().union(*(matching(package, pattern) for owner, pattern in PATTERNS if owner == package))
    assert data_files(package) - taken == set(), "files that no pattern of package-data takes in"
    assert "py.typed" in taken


def test_every_folder_of_python_files_is_a_package():
    folders = {path.parent for package in ("graphmatch", "exgra_adapter") for path in (ROOT / package).rglob("*.py")}
    without = {folder.relative_to(ROOT).as_posix() for folder in folders if not (folder / "__init__.py").is_file()}
    assert without == set(), "folders that setuptools may leave out: give them an __init__.py"


def test_version_is_written_in_one_place():
    assert "version" in PROJECT["project"]["dynamic"]
    assert "version" not in PROJECT["project"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "graphmatch.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", gm.__version__)
    sources = [path for folder in ("graphmatch", "exgra_adapter", "csrc") for path in (ROOT / folder).rglob("*.[pch]*")]
    literal = re.compile(rf"""["']{re.escape(gm.__version__)}["']""")
    found = [path for path in [*sources, ROOT / "setup.py"] if path.suffix in (".py", ".cpp", ".hpp")]
    names = [path.relative_to(ROOT).as_posix() for path in found if literal.search(path.read_text(encoding="utf-8"))]
    assert names == ["graphmatch/__init__.py"]


def test_version_can_be_read_without_importing():
    # setuptools imports the package, and with it PyTorch and the compiled module, where the value is no literal.
    tree = ast.parse((ROOT / "graphmatch" / "__init__.py").read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert [ast.literal_eval(value) for value in values] == [gm.__version__]


def test_manifest_names_what_is_there():
    for command, *words in manifest():
        if command == "include":
            assert [word for word in words if not list(ROOT.glob(word))] == []
        elif command == "graft":
            assert [word for word in words if not (ROOT / word).is_dir()] == []
        else:
            assert command == "global-exclude", f"this test does not know {command}: teach it"


def test_manifest_takes_the_native_sources_in():
    assert "csrc" in {word for command, *words in manifest() if command == "graft" for word in words}
    excluded = [word for command, *words in manifest() if command == "global-exclude" for word in words]
    lost = [path for path in (ROOT / "csrc").rglob("*.*") for word in excluded if fnmatch(path.name, word)]
    assert [path for path in lost if path.suffix in (".cpp", ".hpp", ".cu", ".cuh")] == []


def test_wheels_are_built_for_every_python_that_is_promised():
    settings = PROJECT["tool"]["cibuildwheel"]
    built = {f"3.{re.fullmatch(r'cp3([0-9]+)-.*', build)[1]}" for build in settings["build"]}
    prefix = "Programming Language :: Python :: 3."
    classified = {f"3.{name.removeprefix(prefix)}" for name in PROJECT["project"]["classifiers"] if prefix in name}
    assert built == classified
    assert PROJECT["project"]["requires-python"] == f">={min(built, key=lambda name: int(name[2:]))}"
    script = settings["test-command"].removeprefix("python {project}/")
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("found", ["C:/LLVM/bin/clang-cl.exe", None])
def test_windows_builds_take_clang_in_place_of_msvc(monkeypatch: pytest.MonkeyPatch, found: str | None):
    setup = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
    command = setup["BuildNative"](Distribution())
    command.extensions = []
    command.compiler = SimpleNamespace(compiler_type="msvc", cc="cl.exe", initialize=lambda: None)
    monkeypatch.setattr(shutil, "which", lambda name, **_: found if name == "clang-cl" else None)
    if found is None:
        with pytest.raises(setup["CompileError"], match="clang-cl must be on PATH"):
            command.build_extensions()
    else:
        command.build_extensions()
        assert command.compiler.cc == found


def test_sdist_is_built_with_what_isolated_builds_take():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert " ".join(f'"{requirement}"' for requirement in PROJECT["build-system"]["requires"]) in makefile


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dist folder of a copy of the sources, made and checked by the Makefile's own targets."""
    copy = tmp_path_factory.mktemp("packaging") / "source"
    left_out = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "*.so", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=left_out)
    # Clutter that must not be packed.
    for name in ("graphmatch/_native_cpu.old.so", "tests/left.pyc", "runs/demo/report.png"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(b"")
    targets = ["dist", "check-dist", f"VENV={sys.prefix}", "GRAPHMATCH_CUDA=0"]
    subprocess.run(["make", "-C", str(copy), *targets], check=True)
    return copy / "dist"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sdist_holds_the_sources_and_nothing_else(built: Path):
    (file,) = built.glob("*.tar.gz")
    assert file.name == f"graphmatch-{gm.__version__}.tar.gz"
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.*") if path.is_file()}
    data = {f"{package}/{name}" for package in ("graphmatch", "exgra_adapter") for name in data_files(package)}
    assert (IN_SDIST | sources | data) - names == set()
    assert {name for name in names for pattern in NOT_IN_SDIST if fnmatch(name, pattern)} == set()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_wheel_holds_the_packages_and_nothing_else(built: Path):
    (file,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(file).namelist())
    packages = ("graphmatch", "exgra_adapter")
    python = {path.relative_to(ROOT).as_posix() for package in packages for path in (ROOT / package).rglob("*.py")}
    data = {f"{package}/{name}" for package in packages for name in data_files(package)}
    (native,) = {name for name in names if fnmatch(name, "graphmatch/_native_cpu.*")}
    licence = f"graphmatch-{gm.__version__}.dist-info/licenses/LICENSE"
    assert licence in names
    assert {name for name in names if ".dist-info/" not in name} == python | data | {native}
