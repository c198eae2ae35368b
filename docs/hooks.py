"""MkDocs hooks: add the files outside docs/ that the guides link to, and join the two languages.

A guide links to such a file by its relative path, which works on GitHub. On the site, the file is a page under
``repository/``, and the links to it are rewritten.

The site is built twice: ``mkdocs.yml`` builds the English pages and the API reference, ``mkdocs.zh.yml`` the Chinese
pages below ``zh/``. A link from one part to the other becomes HTML, which MkDocs neither checks nor changes.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Link, Navigation
from mkdocs.structure.pages import Page
from mkdocs.structure.toc import AnchorLink

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "repository/"
CHINESE = "docs/zh/"
# English pages outside docs/, and their translations.
TRANSLATED = {"README.md": "README.zh-CN.md", "CONTRIBUTING.md": "docs/zh/CONTRIBUTING.md"}
# Inline links, reference definitions and HTML attributes.
LINK = re.compile(r"""(?P<before>\]\(|^\[[^\]]+\]: +|(?:src|href)=["'])(?P<target>[^)"'\s#]+)""", re.MULTILINE)
# An inline link or an image with its text and its anchor.
INLINE = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
AS_IS = "as-is:"  # before a link that the theme is not to change
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".toml": "toml", ".cc": "cpp", ".h": "cpp"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file of this part of the site that a page links to, and the files that those link to."""
    queue = list(files.documentation_pages())
    # Pages of the navigation that no other page needs to link to.
    extra = ("README.zh-CN.md",) if is_chinese(config) else ("CONTRIBUTING.md", "CHANGELOG.md")
    queue += [add(files, path, config) for path in extra]
    while queue:
        page = queue.pop()
        for match in LINK.finditer(page.content_string):
            path = linked_path(source_path(page.src_uri, config), match["target"])
            if path is None or is_elsewhere(path, config):
                continue
            if files.get_file_from_path(site_path(path)) is None:
                file = add(files, path, config)
                if file.is_documentation_page():
                    queue.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files outside docs/, links from those files, and links to the other language."""
    source = source_path(page.file.src_uri, config)

    def to_other_part(match: re.Match) -> str:
        path = linked_path(source, match["target"])
        if path is None or not is_elsewhere(path, config):
            return match[0]
        url = relative_url(path, page, config) + (match["anchor"] or "")
        if match["image"]:
            return f'<img alt="{html.escape(match["text"])}" src="{url}">'
        return f'<a href="{url}">{match["text"]}</a>'

    def rewritten(match: re.Match) -> str:
        path = linked_path(source, match["target"])
        file = None if path is None else files.get_file_from_path(site_path(path))
        if file is None:
            return match[0]
        if "=" in match["before"]:  # MkDocs translates Markdown links, but not HTML.
            return match["before"] + file.url_relative_to(page.file)
        return match["before"] + posixpath.relpath(file.src_uri, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(rewritten, INLINE.sub(to_other_part, markdown))


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Add the parts that only the English site has to the Chinese navigation."""
    if is_chinese(config):
        nav.items += [
            Link("API（英文）", "../api/index.html"),
            Link("更新日志（英文）", "../repository/CHANGELOG.html"),
        ]
    return nav


def on_page_context(context: dict, page: Page, config: MkDocsConfig, nav: Navigation) -> dict:
    """Let the switch of the language lead to the same page; pages that have no translation lead to the start page."""
    path = source_path(page.file.src_uri, config)
    originals = {translation: original for original, translation in TRANSLATED.items()}
    if is_chinese(config):
        english, chinese = originals.get(path, path.replace(CHINESE, "docs/")), path
    else:
        english, chinese = path, TRANSLATED.get(path, path.replace("docs/", CHINESE))
        if chinese == path or not (ROOT / chinese).exists():
            chinese = f"{CHINESE}index.md"
    for language, target in zip(config.extra["alternate"], (english, chinese), strict=True):
        # The theme expects a path below the root of this part, and cuts others short in pages below a folder.
        language["link"] = posixpath.relpath(url_of(target), "zh") if is_chinese(config) else url_of(target)
        if is_chinese(config) and "/" in page.url:
            language["link"] = AS_IS + posixpath.relpath(url_of(target), posixpath.dirname(f"zh/{page.url}"))
    return context


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Complete a notebook's page: headings without Latin letters have no anchor, and links lead to notebooks."""
    if not page.file.src_uri.endswith(".ipynb"):
        return content
    anchors = iter([item.id for item in flattened(page.toc)])
    content = re.sub(r'(<h\d id=")([^"]*)"', lambda match: f'{match[1]}{next(anchors, match[2])}"', content)
    return re.sub(r'(href="(?!\w+:)[^"#]*)\.ipynb(["#])', r"\1.html\2", content)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    return output.replace(AS_IS, "")


def flattened(items: Iterable[AnchorLink]) -> Iterator[AnchorLink]:
    for item in items:
        yield item
        yield from flattened(item.children)


def is_chinese(config: MkDocsConfig) -> bool:
    return Path(config.docs_dir) == ROOT / CHINESE


def is_elsewhere(path: str, config: MkDocsConfig) -> bool:
    """Return whether the other part of the site has this file."""
    return is_translation(path) != is_chinese(config)


def is_translation(path: str) -> bool:
    return path.startswith(CHINESE) or path in TRANSLATED.values()


def url_of(path: str) -> str:
    """Return the URL of a file in the repository below the root of the whole site."""
    url = File(site_path(path), None, "", use_directory_urls=False).url
    if url.endswith(".ipynb"):  # a page, by mkdocs-jupyter
        url = f"{url.removesuffix('.ipynb')}.html"
    return f"zh/{url}" if is_translation(path) else url


def relative_url(path: str, page: Page, config: MkDocsConfig) -> str:
    """Return the URL of a file in the repository relative to a page."""
    here = url_of(source_path(page.file.src_uri, config))
    return posixpath.relpath(url_of(path), posixpath.dirname(here) or ".")


def source_path(uri: str, config: MkDocsConfig) -> str:
    """Return the path in the repository of a page of the site."""
    if uri.startswith(PREFIX):
        return uri.removeprefix(PREFIX)
    if uri in TRANSLATED.values():
        return uri
    return f"{CHINESE if is_chinese(config) else 'docs/'}{uri}"


def linked_path(source: str, target: str) -> str | None:
    """Return the path in the repository that a file links to, or None if there is no such file."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if ":" in target or path.startswith(("..", "/")) or not (ROOT / path).exists():
        return None
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def site_path(path: str) -> str:
    """Return the site's source path for a path in the repository, in the part that has it."""
    if path in TRANSLATED.values():  # at the root, as the theme's links to the English part lead from there only
        return posixpath.basename(path)
    if path.startswith((CHINESE, "docs/")):
        return path.removeprefix("docs/").removeprefix("zh/")
    if (ROOT / path).is_dir():
        return f"{PREFIX}{path}/index.md"
    return f"{PREFIX}{path}" if Path(path).suffix in (".md", ".png", ".svg") else f"{PREFIX}{path}.md"


def add(files: Files, path: str, config: MkDocsConfig) -> File:
    source, uri = ROOT / path, site_path(path)
    if uri in (PREFIX + path, path):
        file = File.generated(config, uri, abs_src_path=str(source))
    else:
        file = File.generated(config, uri, content=listing(source, path) if source.is_dir() else code(source, path))
    files.append(file)
    return file


def listing(folder: Path, path: str) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    return f"# {path}\n\n" + "".join(f"- [{path}/{name}]({name})\n" for name in names)


def code(file: Path, path: str) -> str:
    return f"# {path}\n\n````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8')}\n````\n"
