"""Build the documentation site and check its API pages. Needs pip install -e '.[docs]'."""

import ast
import os
import re
import subprocess
import sys

import pytest
from pages import ROOT

for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
    pytest.importorskip(package)

PACKAGES = sorted(
    set(re.findall(r"^::: ([\w.]+)", "\n".join(p.read_text("utf-8") for p in ROOT.glob("docs/api/*.md")), re.M))
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "build_docs.sh", folder],
        env={**os.environ, "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout  # with every warning of --strict
    return folder


@pytest.fixture(scope="module")
def api(site):
    return "".join(page.read_text("utf-8") for page in sorted(site.glob("api/*.html")))


def public_names(package):
    """Return the functions and classes in ``__all__``, without importing the package."""
    file = ROOT / package.replace(".", "/") / "__init__.py"
    if not file.is_file():
        return []
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [name for name in ast.literal_eval(node.value) if not name.isupper() and not name.startswith("_")]
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package, api):
    missing = [name for name in public_names(package) if not re.search(rf'id="{package}(\.\w+)*\.{name}"', api)]
    assert not missing, "without a docstring, or hidden"


def test_docstrings_are_markdown(api):
    assert not re.findall(r":(?:class|func|meth|mod|attr):", api)


def test_no_page_loads_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.search(r"<(?:script|img)[^>]* src=[\"']?(?:https?:)?//", text), page
        assert not re.search(r"<link[^>]* href=[\"']?(?:https?:)?//[^>]* rel=[\"']?stylesheet", text), page
