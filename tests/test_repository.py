"""The house rules that a reader of one file cannot see broken: layers, file sizes, paths, versions, import weight."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphmatch

ROOT = Path(__file__).resolve().parent.parent
LARGEST_FILE = 450

# Modules of graphmatch from the ground up; a module imports from its own layer and from those before it.
LAYERS = (
    {"_check", "_device", "_native", "command_line"},
    {
        "_cuda_lawler_ops",
        "_cuda_linear_ops",
        "_cuda_qap_ops",
        "_dense_costs",
        "_multigraph_ops",
        "_ops",
        "_sampling_ops",
    },
    {"_reference", "affinity", "batch", "graph_affinities", "graphs", "noise", "problem", "result", "sinkhorn"},
    {"solvers"},
    {"solve"},
    {"gradients"},
    {
        "matching_batch",
        "matching_kinds",
        "matching_ops",
        "matching_oracle",
        "matching_projection",
        "matching_relaxation",
    },
    {
        "alignment",
        "assignment",
        "layers",
        "losses",
        "message_passing",
        "multigraph",
        "quadratic",
        "released",
        "supervised",
    },
    {"interop", "io", "testing", "viz"},
    {"__init__"},
    {"studies"},
    {"__main__", "cli"},
)
LAYER_OF = {name: layer for layer, names in enumerate(LAYERS) for name in names}
# What a solver or an estimator may know about solvers in general.
SOLVER_PROTOCOL = "graphmatch.solvers.base"
LIBRARY_DEPENDENCIES = {"graphmatch", "numpy", "scipy", "torch"}
FORBIDDEN_IN_LIBRARY = {"accelerate", "exgra_adapter", "peft", "tokenizers", "transformers"}
PUBLIC_MODULES = {"graphmatch.command_line", "graphmatch.io", "graphmatch.testing", "graphmatch.viz"}
# The project's headers that a folder of csrc may include, and the beginnings of foreign ones that it may not.
OWN_HEADERS = {"core": ("core/",), "cuda": ("core/", "cuda/"), "bindings": ("core/", "cuda/", "bindings/")}
TORCH_HEADERS = ("torch", "ATen", "c10")
PYTHON_HEADERS = ("pybind11", "Python")
FOREIGN_HEADERS = {
    "core": (*TORCH_HEADERS, *PYTHON_HEADERS, "cuda", "cub", "thrust"),
    "cuda": (*TORCH_HEADERS, *PYTHON_HEADERS),
    "bindings": TORCH_HEADERS,
}


def files(*patterns: str) -> list[Path]:
    """The project's own text files that match one of the patterns."""
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file())


def name_of(path: Path) -> str:
    """Where a file is, from the root."""
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    """The dotted module name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Yields each imported module or name, dotted and absolute, with its line and whether it is at the top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(node) for scope in ast.walk(tree) if isinstance(scope, ast.FunctionDef) for node in ast.walk(scope)}
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        at_top = id(node) not in inner
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, at_top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{source}.{alias.name}", node.lineno, at_top


def part_of(dotted: str) -> str:
    """The module or subpackage of graphmatch that a dotted name belongs to; names of the package itself: `__init__`."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYER_OF else "__init__"


LIBRARY_FILES = files("graphmatch/**/*.py")
ADAPTER_FILES = files("exgra_adapter/**/*.py")
EXAMPLE_FILES = files("examples/*.py")
NATIVE_FILES = files("csrc/**/*.[ch]pp", "csrc/**/*.cu", "csrc/**/*.cuh")
PYTHON_FILES = [
    *LIBRARY_FILES,
    *ADAPTER_FILES,
    *EXAMPLE_FILES,
    *files("tests/**/*.py", "benchmarks/**/*.py", "docs/*.py", "setup.py"),
]
CODE_FILES = [*PYTHON_FILES, *NATIVE_FILES, *files("tests/**/*.[ch]pp")]
TEXT_FILES = [
    *CODE_FILES,
    *files("*.md", "docs/**/*.md", "**/README.md", "*.toml", "*.yml", "*.txt", "Makefile", ".ci/run", ".gitignore"),
]


def test_library_imports_run_downwards():
    wrong = []
    for path in LIBRARY_FILES:
        parts = path.relative_to(ROOT / "graphmatch").with_suffix("").parts
        assert parts[0] in LAYER_OF, f"{name_of(path)}: give the module its place in LAYERS"
        for target, line, _ in imports(path):
            if target.split(".")[0] != "graphmatch" or (parts[0] == "cli" and part_of(target) == "__init__"):
                continue
            if LAYER_OF[part_of(target)] > LAYER_OF[parts[0]]:
                wrong.append(f"{name_of(path)}:{line} imports {target}")
    assert not wrong, "imports from a higher layer:\n" + "\n".join(wrong)


def test_library_imports_torch_numpy_scipy_only():
    wrong = []
    for path in LIBRARY_FILES:
        for target, line, at_top in imports(path):
            package = target.split(".")[0]
            foreign = at_top and package not in LIBRARY_DEPENDENCIES | set(sys.stdlib_module_names)
            if package in FORBIDDEN_IN_LIBRARY or foreign:
                wrong.append(f"{name_of(path)}:{line} imports {target}")
    assert not wrong, "graphmatch imports what it does not depend on:\n" + "\n".join(wrong)


def test_only_operators_call_the_native_modules():
    allowed = {
        "_cuda_lawler_ops": {"_native"},
        "_cuda_linear_ops": {"_native"},
        "_cuda_qap_ops": {"_native"},
        "_device": {"_native"},
        "_multigraph_ops": {"_native"},
        "_ops": {"_native"},
        "_sampling_ops": {"_native"},
        "_native": {"_native_cpu", "_native_cuda"},
    }
    wrong = []
    for path in [*LIBRARY_FILES, *ADAPTER_FILES]:
        for target, line, _ in imports(path):
            native = next((name for name in target.split(".")[1:2] if name.startswith("_native")), None)
            in_library = target.startswith("graphmatch.")
            if native and in_library and native not in allowed.get(path.stem, set()):
                wrong.append(f"{name_of(path)}:{line} imports {target}")
    assert not wrong, "native modules are loaded by _native and called by operators:\n" + "\n".join(wrong)


def test_gradients_know_no_solver_by_name():
    wrong = [
        f"{name_of(path)}:{line} imports {target}"
        for path in files("graphmatch/gradients/*.py")
        for target, line, _ in imports(path)
        if target.startswith("graphmatch.solvers") and not target.startswith(SOLVER_PROTOCOL)
    ]
    assert not wrong, "gradients take any solver:\n" + "\n".join(wrong)


def test_adapter_and_examples_use_public_names_only():
    wrong = []
    for path in [*ADAPTER_FILES, *EXAMPLE_FILES]:
        for target, line, _ in imports(path):
            if target.split(".")[0] != "graphmatch" or target == "graphmatch":
                continue
            name = target.removeprefix("graphmatch.")
            in_public_module = any(target == module or target.startswith(f"{module}.") for module in PUBLIC_MODULES)
            if name not in graphmatch.__all__ and not (in_public_module and "._" not in target):
                wrong.append(f"{name_of(path)}:{line} imports {target}")
        private = re.findall(r"\b(?:gm|graphmatch)\._\w+", path.read_text(encoding="utf-8"))
        wrong += [f"{name_of(path)} uses {name}" for name in private if not name.endswith(".__version__")]
    assert not wrong, "names that graphmatch does not publish:\n" + "\n".join(wrong)


def test_examples_need_nothing_but_the_library_and_its_pictures():
    allowed = LIBRARY_DEPENDENCIES | set(sys.stdlib_module_names) | {"_script"}
    wrong = [
        f"{name_of(path)}:{line} imports {target}"
        for path in EXAMPLE_FILES
        for target, line, at_top in imports(path)
        if at_top and target.split(".")[0] not in allowed
    ]
    assert not wrong, "packages that graphmatch[viz] may not bring, or that not everybody has:\n" + "\n".join(wrong)


def test_public_names_exist():
    names = graphmatch.__all__
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if not hasattr(graphmatch, name)] == []


def test_native_includes_run_downwards():
    wrong = []
    for path in NATIVE_FILES:
        folder = path.relative_to(ROOT / "csrc").parts[0]
        for kind, header in re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)', path.read_text(encoding="utf-8"), re.M):
            own = kind == '"'
            if not header.startswith(OWN_HEADERS[folder]) if own else header.startswith(FOREIGN_HEADERS[folder]):
                wrong.append(f"{name_of(path)} includes {header}")
    assert not wrong, "core includes core, cuda includes core and cuda, only bindings know Python:\n" + "\n".join(wrong)


def test_no_file_is_long():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in CODE_FILES}
    assert {name: length for name, length in lengths.items() if length > LARGEST_FILE} == {}


def test_no_machine_paths():
    pattern = re.compile(r"(?<![\w.*])/(?:work|tmp|opt|root|home|mnt)/")
    found = {
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in TEXT_FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if path != Path(__file__).resolve() and pattern.search(line)
    }
    assert found == set()


def test_version_is_the_same_everywhere():
    version = graphmatch.__version__
    assert importlib.metadata.version("graphmatch") == version, "the installed metadata are old: install again"
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)


def test_readme_names_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in readme
    assert "make test" in readme


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import graphmatch", ["exgra_adapter", "matplotlib", "scipy.optimize", "transformers"]),
        ("import exgra_adapter.cli", ["matplotlib", "transformers"]),
    ],
)
def test_import_is_light(statement: str, unwanted: list[str]):
    # Only what comes on top of torch counts: some versions import more than they need.
    code = f"import sys, torch; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert sorted(set(unwanted) & set(loaded)) == []
