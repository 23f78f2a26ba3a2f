"""The pages: links lead somewhere, no public name is missing, pictures are current, the example keeps its contract."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import matplotlib
import pytest
import torch
import yaml

import exgra_adapter
import graphmatch as gm

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "csrc/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "benchmarks" / "results").rglob("*.md")),
]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!?\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
ENTRY = re.compile(r"^::: (\S+)$", re.M)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def text_of(page: Path) -> str:
    """A page without its code, in which brackets are no links."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "code", text)


def links(page: Path) -> Iterator[str]:
    """The targets of all links and pictures of a page."""
    for _, label, target in LINK.findall(text_of(page)):
        yield target
        yield from (inner for _, _, inner in LINK.findall(label))


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings that the web view of a repository and the site agree on."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        words = re.sub(r"[^\w\s-]", "", plain.lower()).strip()
        if re.sub(r"\s", "-", words) == re.sub(r"[-\s]+", "-", words):
            anchor = re.sub(r"\s", "-", words)
            found[anchor] = found.get(anchor, 0) + 1
    return frozenset(anchor for anchor, times in found.items() if times == 1)


def fault_of(page: Path, target: str) -> str | None:
    """What is wrong with a link; addresses of other servers are looked at, not fetched."""
    parts = urlsplit(target)
    if parts.scheme:
        holds = parts.scheme in ("https", "mailto") and ("." in parts.netloc or parts.scheme == "mailto")
        return None if holds else f"{target} must be a whole address that begins with https:"
    path = (page.parent / parts.path).resolve() if parts.path else page
    if not path.is_file() or ROOT not in path.parents:
        return f"{target} is no file of the repository"
    if parts.fragment and parts.fragment not in anchors(path):
        return f"{target}: no heading there has this anchor in both the web view and the site"
    return None


@every_page
def test_links_lead_somewhere(page: Path):
    assert [fault for target in links(page) if (fault := fault_of(page, target))] == []


def test_the_check_of_links_sees_faults(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text("# One two\n[a](other.md#there) ![b](none.png) [c](http://x.org) [![d](e.svg)](other.md)\n`[f](g)`")
    other.write_text("## There\n```\n## Not there\n```\n## Twice\n## Twice\n")
    assert list(links(page)) == ["other.md#there", "none.png", "http://x.org", "other.md", "e.svg"]
    faults = {
        target: fault_of(page, target) for target in (*links(page), "other.md#not-there", "other.md#twice", "#one-two")
    }
    assert {target for target, fault in faults.items() if fault is None} == {"other.md#there", "other.md", "#one-two"}


def navigation(entries: list[Any]) -> Iterator[str]:
    """The pages that mkdocs.yml names."""
    for entry in entries:
        content = next(iter(entry.values())) if isinstance(entry, dict) else entry
        yield from navigation(content) if isinstance(content, list) else [content]


def test_every_page_is_in_the_navigation_once():
    named = list(navigation(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    pages = [page.relative_to(DOCS if DOCS in page.parents else ROOT).as_posix() for page in PAGES]
    assert sorted(named) == sorted(set(pages) - {"README.md"})


def test_links_between_pages_stay_within_the_site():
    outside = {page for page in PAGES if page != ROOT / "README.md"}
    wrong = []
    for page in outside:
        for target in links(page):
            path = urlsplit(target).path
            if path.endswith(".md") and (page.parent / path).resolve() not in {*outside, ROOT / "README.md"}:
                wrong.append(f"{page.name}: {target}")
    assert wrong == []


def reference() -> dict[str, Path]:
    """Every entry of the API pages, with its page."""
    found: dict[str, Path] = {}
    for page in sorted((DOCS / "api").glob("*.md")):
        for entry in ENTRY.findall(page.read_text(encoding="utf-8")):
            assert entry not in found, f"{entry} stands in {found[entry].name} and in {page.name}"
            found[entry] = page
    return found


def target_of(entry: str) -> Any:
    """The object that an entry of the API pages stands for."""
    parts = entry.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        return functools.reduce(getattr, parts[length:], found)
    raise AssertionError(f"{entry} cannot be found")


def test_no_public_name_is_missing_from_the_reference():
    documented = {id(target_of(entry)) for entry in reference() if entry.startswith(f"{gm.__name__}.")}
    modules = [gm, gm.gradients, *(value for name in gm.__all__ if inspect.ismodule(value := getattr(gm, name)))]
    public = {
        f"{module.__name__}.{name}": getattr(module, name)
        for module in modules
        for name in module.__all__
        if not inspect.ismodule(getattr(module, name))
    }
    assert len(public) > 100
    assert [name for name, value in public.items() if id(value) not in documented] == []


def test_every_entry_of_the_reference_exists_and_has_a_docstring():
    for entry in reference():
        target = target_of(entry)
        assert not inspect.ismodule(target), f"{entry} is a module"
        assert inspect.getdoc(target) or not callable(target), f"{entry} has no docstring"
        package = importlib.import_module(entry.split(".")[0])
        assert package in (gm, exgra_adapter)


def load(path: Path, name: str) -> types.ModuleType:
    """A Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def words_of(picture: Path) -> list[str]:
    """The words and numbers that a picture shows; paths stand for the letters, with the text beside them."""
    ElementTree.parse(picture)
    return re.findall(r"<!-- (.*?) -->", picture.read_text(encoding="utf-8"))


def test_pictures_are_those_that_the_script_draws(tmp_path):
    matplotlib.use("svg")
    load(DOCS / "draw_pictures.py", "draw_pictures").draw(tmp_path)
    committed = sorted((DOCS / "images").glob("*.svg"))
    assert [picture.name for picture in committed] == sorted(path.name for path in tmp_path.iterdir())
    for picture in committed:
        assert words_of(picture) == words_of(tmp_path / picture.name), f"draw {picture.name} again"
        assert len(words_of(picture)) > 3
    shown = {(page.parent / target).resolve() for page in PAGES for target in links(page) if target.endswith(".svg")}
    assert {picture for picture in committed if not picture.stem.endswith("-dark")} == shown


@pytest.fixture(scope="module")
def example() -> types.ModuleType:
    """The code of docs/extending.md."""
    module = types.ModuleType("extending")
    sys.modules[module.__name__] = module
    text = (DOCS / "extending.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S):
        if "@dataclass" in block:
            exec(compile(block, "extending.md", "exec", dont_inherit=True), module.__dict__)
    return module


CONTRACTS = load(Path(__file__).with_name("test_solvers.py"), "solver_contracts")
ARGUMENTS = [
    {"seed": seed, "n1": 3 + seed % 2, "n2": 4 - seed % 3, "e1": 3 + seed, "e2": 9 - seed, "dtype": torch.float64}
    | {"unmatched_cost": (None, None, 0.0, -0.5, 2.0)[seed % 5], "forbidden": 0.3 * (seed % 2), "integers": seed > 4}
    for seed in range(8)
]
CHOICES = {
    "arguments": ARGUMENTS,
    "constant": [-3.0, 100.0],
    "exponent": [-40, 60],
    "factor": [1e-3, 1e30],
    "dtype": [torch.float32],
    "garbage": [float("nan"), -1e9],
    "unmatched_cost": [None, 0.1],
    "shape": [(0, 0), (0, 3), (3, 0), (1, 1)],
    "batch": [0, 2],
}


def contract_tests() -> dict[str, Callable[..., None]]:
    """The contract tests of solvers, without hypothesis around them."""
    found = {}
    for name, test in vars(CONTRACTS).items():
        inner = test.hypothesis.inner_test if hasattr(test, "hypothesis") else test
        if name.startswith("test_") and {"contract", "make_problem"} <= set(inspect.signature(inner).parameters):
            found[name] = inner
    threaded = {"test_any_number_of_threads_gives_the_same_answer", "test_eight_python_threads_at_once"}
    assert threaded < set(found)
    return {name: test for name, test in found.items() if name not in threaded}


@pytest.mark.parametrize("name", contract_tests())
def test_the_solver_of_the_example_keeps_the_contract(name: str, example, make_problem):
    test = contract_tests()[name]
    contract = CONTRACTS.Contract(example.AlternatingAssignment(), "lawler", exact=False, threaded=False)
    varied = [each for each in inspect.signature(test).parameters if each not in ("contract", "make_problem")]
    dtypes = [torch.float16, torch.bfloat16] if "half_precision" in name else CHOICES["dtype"]
    for case in range(max([len(CHOICES[each]) for each in varied], default=1)):
        chosen = {**CHOICES, "dtype": dtypes}
        test(contract, make_problem, **{each: chosen[each][case % len(chosen[each])] for each in varied})
