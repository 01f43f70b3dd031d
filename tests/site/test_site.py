"""The documentation site, as 'make docs' built it: every public name and command has its place, and pages are short."""

import importlib
from pathlib import Path

import pytest
from mkdocs.config import load_config
from mkdocstrings import Inventory

from paraedge.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
FACADES = (
    "paraedge", "paraedge.data", "paraedge.model", "paraedge.training", "paraedge_converters", "paraedge_measure",
    "paraedge_runtime",
)  # fmt: skip


@pytest.mark.parametrize("facade", FACADES)
def test_every_public_name_has_a_place_on_a_page(facade):
    with (SITE / "objects.inv").open("rb") as file:
        known = Inventory.parse_sphinx(file)
    assert [name for name in importlib.import_module(facade).__all__ if f"{facade}.{name}" not in known] == []


def test_every_command_is_on_the_page_of_the_command_line():
    page = (SITE / "cli" / "index.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f'id="paraedge-{name}"' not in page] == []
    assert "\b" not in page


def test_pages_outside_the_laboratory_are_short():
    pages = [path for path in (ROOT / "docs").rglob("*.md") if ROOT / "docs" / "lab" not in path.parents]
    pages.append(ROOT / "README.md")
    words = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").split()) for path in pages}
    assert len(words) > 30
    assert {name: count for name, count in words.items() if count > 1500} == {}


def test_every_page_is_in_the_navigation():
    nav = str(load_config(str(ROOT / "mkdocs.yml")).nav)
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page not in nav] == []
