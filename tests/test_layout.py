"""The layers of the package and of its rooms: nothing imports a higher layer, and imports form no cycle."""

import ast
import re
from graphlib import TopologicalSorter

from conftest import ROOT
from support.layers import KERNELS, LAYERS, ROOMS

PACKAGE = ROOT / "msg_ms"
MOST_ENTRIES = 10  # at the top of a package with rooms
TOP_LEVEL = {"__init__.py", "version.py", "cli.py", "errors.py"}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """Yield the package's modules that a file imports, at its top or inside functions."""
    own = module_name(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            target = ".".join([*base, *([node.module] if node.module else [])])
            if target.split(".")[0] == "msg_ms":
                for alias in node.names:
                    inner = f"{target}.{alias.name}"
                    yield inner if inner in MODULES else target


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_name(path) for path in FILES}


def test_the_top_of_the_package_holds_foundations_and_packages_only():
    assert {path.name for path in PACKAGE.glob("*.py")} == TOP_LEVEL
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages | {name.removesuffix(".py") for name in TOP_LEVEL} - {"__init__"} == set().union(*LAYERS)


def test_nothing_imports_a_higher_layer():
    layer = {name: i for i, names in enumerate(LAYERS) for name in names}
    upward = []
    for path in FILES:
        parts = module_name(path).split(".")
        if len(parts) == 1:  # the package's own __init__ exports from everywhere
            continue
        for target in imports(path):
            name = target.partition(".")[2].partition(".")[0]
            if not name or (name != parts[1] and layer[name] >= layer[parts[1]]):
                upward.append(f"{'.'.join(parts)} -> {target}")
    assert not upward


def test_rooms_import_lower_rooms_only():
    upward = []
    for package, rooms in ROOMS.items():
        for path in (path for room in rooms for path in (PACKAGE / package / room).rglob("*.py")):
            own = rooms.index(path.relative_to(PACKAGE / package).parts[0])
            for target in imports(path):
                _, name, room, *_ = f"{target}..".split(".")
                if name == package and (room not in rooms or rooms.index(room) > own):
                    upward.append(f"{module_name(path)} -> {target}")
    assert not upward


def test_a_package_with_rooms_has_few_entries():
    for package in ROOMS:
        entries = [path.name for path in (PACKAGE / package).iterdir() if path.name != "__pycache__"]
        assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_kernels_include_lower_folders_only():
    folder, upward = PACKAGE / "ops" / "csrc", []
    floor = {name: i for i, names in enumerate(KERNELS) for name in names}
    for path in (path for path in folder.rglob("*") if path.suffix in (".cc", ".h")):
        own = path.parent.name
        for target in re.findall(r'^#include "(\w+)/', path.read_text("utf-8"), re.MULTILINE):
            if target != own and floor[target] >= floor[own]:
                upward.append(f"{path.relative_to(folder)} -> {target}")
    assert not upward


def test_there_is_no_cycle():
    graph = {module_name(path): set(imports(path)) - {module_name(path)} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_engine_knows_no_task():
    words = ("top1", "top-1", "top5", "classif", "class_names", "label", "mixup", "cutmix", "boxes", "bbox", "mask")
    found = []
    for path in (PACKAGE / "engine").glob("*.py"):
        text = path.read_text("utf-8").lower()
        found += [f"{path.name}: {word}" for word in words if word in text]
    assert not found


def test_tests_mirror_the_package():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"visualize"}
    assert packages <= {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    rooms = [ROOT / "tests" / package / room for package, names in ROOMS.items() for room in names]
    assert not [room for room in rooms if not room.is_dir()]
