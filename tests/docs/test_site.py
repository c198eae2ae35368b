"""Build the documentation site and check its API pages. Needs pip install -e '.[docs]'."""

import ast
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from pages import ROOT

for package in ("jieba", "mkdocs", "material", "mkdocs_jupyter", "mkdocstrings_handlers.python"):
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


def test_every_link_leads_to_a_page_and_its_anchor(site):
    """MkDocs checks neither the links between the languages nor those of the theme."""
    texts = {page: page.read_text("utf-8") for page in site.rglob("*.html") if page.name != "404.html"}
    anchors = {page: {html.unescape(name) for name in re.findall(r'\bid="?([^" >]+)', texts[page])} for page in texts}
    broken = []
    for page, text in texts.items():
        for link in re.findall(r'\b(?:href|src)="?([^" >]+)', text):
            path, _, anchor = unquote(html.unescape(link)).partition("#")
            target = Path(os.path.normpath(page.parent / path)) if path else page
            if re.match(r"[a-z]+:|//", link):
                continue
            if not target.exists() or (anchor and target in anchors and anchor not in anchors[target]):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


def test_the_switch_leads_to_the_same_page_in_the_other_language(site):
    for english, chinese in (
        ("training.html", "zh/training.html"),
        ("repository/CONTRIBUTING.html", "zh/CONTRIBUTING.html"),
        ("repository/index.html", "zh/README.zh-CN.html"),
    ):
        for page in (english, chinese):
            found = re.findall(r'href="([^"]+)" hreflang="?(\w+)', (site / page).read_text("utf-8"))
            targets = {lang: os.path.relpath((site / page).parent / link, site) for link, lang in found}
            assert targets == {"en": english, "zh": chinese}, page


@pytest.mark.parametrize("words, page", [("混合 精度", "training.html"), ("断点 续训", "training.html")])
def test_the_search_index_has_chinese_words(site, words, page):
    """A zero-width space separates words, which jieba finds."""
    index = json.loads((site / "zh" / "search" / "search_index.json").read_text("utf-8"))
    texts = [d["title"] + d["text"] for d in index["docs"] if d["location"].startswith(page)]
    assert any(re.search(words.replace(" ", "\u200b?"), text) and "\u200b" in text for text in texts)
