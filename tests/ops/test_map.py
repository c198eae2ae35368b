"""The map of the kernels in msg_ms/ops/README.md names every file, kernel and header as the code has them."""

import re

from msg_ms.ops.backend import SOURCES

README = SOURCES.parent / "README.md"


def rows(columns: int) -> dict[str, list[list[str]]]:
    """Return the names in the cells of each table row that begins with a file of csrc."""
    found = {}
    for line in README.read_text(encoding="utf-8").splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.strip().strip("|").split("|")]
        if len(cells) == columns and cells[0] and (SOURCES / cells[0][0]).suffix in (".cc", ".h"):
            found[cells[0][0]] = cells[1:]
    return found


def code(suffix: str) -> dict[str, str]:
    return {str(path.relative_to(SOURCES)): path.read_text(encoding="utf-8") for path in SOURCES.rglob(f"*{suffix}")}


def headers(text: str) -> list[str]:
    return re.findall(r'^#include "([^"]+)"', text, re.MULTILINE)


def test_the_map_names_every_file_with_its_kernels_and_headers():
    kernels = {name: re.findall(r"^MSG_MS_KERNEL\((\w+)\)", text, re.MULTILINE) for name, text in code(".cc").items()}
    assert sum(map(len, kernels.values())) > 40
    found = rows(4)
    assert {name: cells[0] for name, cells in found.items()} == kernels
    assert {name: cells[1] for name, cells in found.items()} == {n: headers(text) for n, text in code(".cc").items()}
    for name, (names, _, operators) in found.items():
        assert bool(operators) == bool(names), name
        assert all("kernel(" in (SOURCES.parent / operator).read_text(encoding="utf-8") for operator in operators), name


def test_the_map_names_every_header_with_those_that_it_includes():
    assert {name: cells[-1] for name, cells in rows(3).items()} == {n: headers(text) for n, text in code(".h").items()}
