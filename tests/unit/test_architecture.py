"""The plan of the house (docs/architecture.md) holds: every room is there, and the arrows point down its table."""

from __future__ import annotations

import logging.config
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "runtime" / "src" / "safekit"
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def rooms_of_the_page() -> list[str]:
    """The first column of the page's table of `runtime/src/safekit/`."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.split("### `runtime/src/safekit/`")[1].split("Arrows point down")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    rooms = [room for cell in cells for room in re.findall(r"`([^`]+)`", cell)]
    assert len(rooms) > 10, "the table of docs/architecture.md is no longer read right"
    return rooms


def test_every_room_of_the_page_exists() -> None:
    missing = [room for room in rooms_of_the_page() if not (PACKAGE / room).exists()]
    assert missing == []


def test_every_room_that_exists_is_on_the_page() -> None:
    rooms = {room.rstrip("/") for room in rooms_of_the_page()}
    there = {
        path.name
        for path in PACKAGE.iterdir()
        if (path.is_dir() and any(path.glob("*.py"))) or (path.suffix == ".py" and path.stem != "__init__")
    }
    assert there - rooms == set()


def test_every_room_of_the_page_has_its_layer() -> None:
    layers = " ".join(next(contract["layers"] for contract in CONTRACTS if contract["id"] == "layers"))
    layered = set(re.findall(r"\w+", layers))
    assert {room.removesuffix("/").removesuffix(".py") for room in rooms_of_the_page()} <= layered


def test_every_folder_says_what_lives_there() -> None:
    silent = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not path.read_text().lstrip().startswith(('"""', 'r"""', "# "))
    ]
    assert silent == []


def test_arrows_point_down_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE.parent))
    # It would silence the loggers of every later test.
    monkeypatch.setattr(logging.config, "dictConfig", lambda _: None)
    code = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert code == 0, capsys.readouterr().out
