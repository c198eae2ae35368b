"""The drawing of the layers shows the table that tests/test_layout.py enforces."""

import importlib.util
import re

from pages import ROOT

ASSETS = ROOT / "docs" / "assets"


def test_the_drawing_is_up_to_date():
    spec = importlib.util.spec_from_file_location("make_layers", ASSETS / "make_layers.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    drawing = (ASSETS / "layers.svg").read_text(encoding="utf-8")
    assert drawing == script.draw(), "run python docs/assets/make_layers.py"


def test_the_modules_on_the_page_exist():
    """Its paths begin at the package, where the others begin at the repository."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tables = "\n".join(line for line in page.splitlines() if line.startswith("| "))
    names = set(re.findall(r"`([a-z_]+(?:/[\w.]+)*)`", tables))
    assert len(names) > 20
    assert not [
        name
        for name in names
        if not any((ROOT / parent / name).exists() for parent in ("msg_ms", "."))
        and not (ROOT / "msg_ms" / f"{name}.py").is_file()
    ]
