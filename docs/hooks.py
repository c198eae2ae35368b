"""MkDocs hooks: add the files outside docs/ that the guides link to.

A guide links to such a file by its relative path, which works on GitHub. On the site, the file is a page under
``repository/``, and the links to it are rewritten.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "repository/"
# Inline links, reference definitions and HTML attributes.
LINK = re.compile(r"""(?P<before>\]\(|^\[[^\]]+\]: +|(?:src|href)=["'])(?P<target>[^)"'\s#]+)""", re.MULTILINE)
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".toml": "toml", ".cc": "cpp", ".h": "cpp"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside docs/ that a page links to, and the files that those link to."""
    queue = list(files.documentation_pages())
    # Pages of the navigation that no other page needs to link to.
    queue += [add(files, path, config) for path in ("CONTRIBUTING.md", "CHANGELOG.md")]
    while queue:
        page = queue.pop()
        for match in LINK.finditer(page.content_string):
            path = linked_path(page.src_uri, match["target"])
            if path is not None and files.get_file_from_path(site_path(path)) is None:
                file = add(files, path, config)
                if file.is_documentation_page():
                    queue.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to files outside docs/, and links from those files."""

    def rewritten(match: re.Match) -> str:
        path = linked_path(page.file.src_uri, match["target"])
        file = None if path is None else files.get_file_from_path(site_path(path))
        if file is None:
            return match[0]
        if "=" in match["before"]:  # MkDocs translates Markdown links, but not HTML.
            return match["before"] + file.url_relative_to(page.file)
        return match["before"] + posixpath.relpath(file.src_uri, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(rewritten, markdown)


def linked_path(page: str, target: str) -> str | None:
    """Return the path in the repository that a page of the site links to, or None if there is no such file."""
    source = page.removeprefix(PREFIX) if page.startswith(PREFIX) else f"docs/{page}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if ":" in target or path.startswith(("..", "/")) or not (ROOT / path).exists():
        return None
    return f"{path}/README.md" if (ROOT / path / "README.md").is_file() else path


def site_path(path: str) -> str:
    """Return the site's source path for a path in the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{PREFIX}{path}/index.md"
    return f"{PREFIX}{path}" if Path(path).suffix in (".md", ".png", ".svg") else f"{PREFIX}{path}.md"


def add(files: Files, path: str, config: MkDocsConfig) -> File:
    source, uri = ROOT / path, site_path(path)
    if uri == PREFIX + path:
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
