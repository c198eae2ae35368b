"""The layers of the package: nothing imports a higher layer, no modules import each other in a cycle."""

import ast
from graphlib import TopologicalSorter

from conftest import ROOT

PACKAGE = ROOT / "msg_ms"
# From low to high. A package may import those in the lines above its own, and only those.
LAYERS = (
    {"errors", "version"},
    {"files"},
    {"config"},
    {"ops"},
    {"boxes"},
    {"models", "data", "cli"},
    {"checkpoint"},
    {"convert"},
    {"engine"},
    {"tasks"},
    {"deploy", "visualize"},
    {"launch", "commands"},
)
TOP_LEVEL = {"__init__.py", "version.py", "cli.py", "errors.py", "files.py"}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """Yield the package's modules that a file imports, at its top or inside functions."""
    own = module_name(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_there_is_no_cycle():
    graph = {module_name(path): set(imports(path)) - {module_name(path)} for path in FILES}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


def test_the_engine_knows_no_task():
    words = ("top1", "top-1", "top5", "classif", "class_names", "label", "mixup", "cutmix", "boxes", "bbox", "mask")
    found = []
    for path in (PACKAGE / "engine").glob("*.py"):
        text = path.read_text().lower()
        found += [f"{path.name}: {word}" for word in words if word in text]
    assert not found


def test_tests_mirror_the_package():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"tasks", "visualize"}
    assert packages <= {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
