"""Links and paths of the Markdown files: every file and heading that one names is there."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?\s*\)")
PATH = re.compile(r"`((?:services|shared|deploy|docs|examples|tests)/[\w./-]*\w)`")
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)


def documents() -> list[Path]:
    """All Markdown of the repository, in the folders that hold documents."""
    folders = ("docs", "deploy", "examples", ".github")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *found])


def links(text: str) -> Iterator[str]:
    """Targets of links to other places of the repository, outside of code."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    for target in LINK.findall(prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    found: dict[str, int] = {}
    for heading in HEADING.findall(FENCE.sub("", text)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{n}" if n else slug for slug, most in found.items() for n in range(most + 1)}


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    lost = []
    for target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            lost.append(target)
    return lost


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_of_the_repository_that_a_page_names_is_there(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    named = {path for path in PATH.findall(text) if "secrets" not in path}
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize(
    ("link", "lost"),
    [
        ("[a](there.md#two-words-here)", []),
        ("[a](there.md#the-same-1)", []),
        ("[a](#own)", []),
        ("[a](https://example.com/none)", []),
        ("`[a](none.md)`", []),
        ("```\n[a](none.md)\n```", []),
        ("[a](none.md)", ["none.md"]),
        ("[a](there.md#none)", ["there.md#none"]),
        ("[a](there.md#the-same-2)", ["there.md#the-same-2"]),
        ("[a](#none)", ["#none"]),
    ],
)
def test_a_link_to_nothing_is_found(link: str, lost: list[str], tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# Two `words`, here\n\n## The same\n\n## The same\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Own\n\n{link}\n")
    assert broken(page) == lost
