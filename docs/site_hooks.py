"""Brings the repository's other Markdown pages into the site, and keeps the site free of other servers.

Links in all pages are those of the repository: they work in its web view, and are rewritten here. A picture that has a
`-dark` twin is shown with it, each in its own colour scheme.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).resolve().parent.parent
# Pages outside of docs, at the same place below the site as in the repository; their pictures come with them.
_OUTSIDE = (
    "CHANGELOG.md",
    "csrc/README.md",
    "benchmarks/README.md",
    *(path.relative_to(_ROOT).as_posix() for path in sorted(_ROOT.glob("benchmarks/results/**/*.md"))),
)
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
_FENCE = re.compile(r"^(```.*?^```$)", re.M | re.S)
_ENTRY = re.compile(r"^::: (\S+)$", re.M)
_NAME = re.compile(r"<code>(gm\.)?(\w+)</code>")
_NOT_LINKED = re.compile(r"<(a|pre|h[1-6])\b.*?</\1>", re.S)
_LOADED = re.compile(
    r"<(?:script|img|link|iframe|source|video|audio)\b[^>]*\b(?:src|href)=\"?((?:https?:)?//[^\s\">]+)"
)
_LOADED_BY_STYLES = re.compile(r"(?:@import\s+[\"']?|url\([\"']?)((?:https?:)?//[^\s\"')]+)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages outside of docs, the pictures beside them, and the examples, which pages link to."""
    pictures = {
        posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
        for page in _OUTSIDE
        for _, link, _ in _LINK.findall((_ROOT / page).read_text(encoding="utf-8"))
        if link.endswith((".png", ".svg"))
    }
    for uri in (*_OUTSIDE, *sorted(pictures)):
        files.append(File.generated(config, uri, abs_src_path=str(_ROOT / uri)))
    for path in sorted(_ROOT.glob("examples/*.py")):  # which exclude_docs would leave out
        uri = path.relative_to(_ROOT).as_posix()
        files.append(File.generated(config, uri, abs_src_path=str(path), inclusion=InclusionLevel.INCLUDED))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Rewrites the links of a page from places in the repository to places in the site."""
    uri = page.file.src_uri
    place = uri if uri in _OUTSIDE else f"docs/{uri}"

    def rewritten(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        if re.match(r"[a-z]+:|#", link):
            return match[0]
        target, _, anchor = link.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        path = path.removeprefix("docs/")
        path = posixpath.relpath("index.md" if path == "README.md" else path, posixpath.dirname(uri) or ".")
        text = f"{before}{path}{'#' + anchor if anchor else ''}{after}"
        dark = re.sub(r"(\.\w+)$", r"-dark\1", path)
        if before.startswith("!") and files.get_file_from_path(
            posixpath.normpath(posixpath.join(posixpath.dirname(uri), dark))
        ):
            return f"{before}{path}#only-light{after}{before}{dark}#only-dark{after}"
        return text

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(rewritten, part) for part in parts)


def on_page_content(html: str, page: Page, config: Any, files: Files) -> str:
    """Makes public names in code (`IMLE`, `gm.solve`) links to the reference, in pages and in docstrings alike."""
    names = _names()

    def linked(match: re.Match[str]) -> str:
        prefix, name = match.groups()
        tells = prefix or "_" in name or name[0].isupper()  # `solve` alone may be a word or an argument
        if name not in names or not tells:
            return match[0]
        return f'<autoref identifier="{names[name]}">{match[0]}</autoref>'

    done, end = [], 0
    for kept in _NOT_LINKED.finditer(html):
        done += [_NAME.sub(linked, html[end : kept.start()]), kept[0]]
        end = kept.end()
    return "".join([*done, _NAME.sub(linked, html[end:])])


@functools.cache
def _names() -> dict[str, str]:
    """The entries of the reference that are names of graphmatch itself, by name."""
    text = (_ROOT / "graphmatch" / "__init__.py").read_text(encoding="utf-8")
    public = set(re.findall(r'^    "(\w+)",$', text, re.M))
    pages = (_ROOT / "docs" / "api").glob("*.md")
    entries = [entry for page in pages for entry in _ENTRY.findall(page.read_text(encoding="utf-8"))]
    return {name: entry for entry in entries if (name := entry.split(".")[-1]) in public and "exgra" not in entry}


def on_post_build(config: Any) -> None:
    """Refuses a site of which a page loads something from another server."""
    found = []
    for folder, _, names in os.walk(config["site_dir"]):
        for name in names:
            pattern = {".html": _LOADED, ".css": _LOADED_BY_STYLES}.get(Path(name).suffix)
            if pattern is not None:
                path = Path(folder) / name
                found += [f"{path}: {address}" for address in pattern.findall(path.read_text(encoding="utf-8"))]
    if found:
        raise PluginError("pages must load nothing from other servers; these do:\n" + "\n".join(found))
