"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import exgra_adapter
import graphmatch


def modules() -> list[str]:
    """All Python modules of both packages."""
    names = [graphmatch.__name__, exgra_adapter.__name__]
    for package in (graphmatch, exgra_adapter):
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [module.name for module in found if "._native_" not in module.name and "__main__" not in module.name]
    return names


@pytest.mark.parametrize("name", modules())
def test_examples_of_a_module(name: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(module, optionflags=flags).failed == 0
