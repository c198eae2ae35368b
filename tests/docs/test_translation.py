"""Each page and its Chinese translation are equal, translations are readable, and every kind of difference is found."""

import json
import re

import pytest
from chinese import problems as unreadable
from pages import ROOT
from translation import TRANSLATED, Comparison, changed, copy_code, pairs, record

PAIRS = pairs()

ENGLISH = """# Page

See [the next section](#mixed-precision-and-resume), [other](other.md) and [elsewhere](https://example.org/en/page).

```bash
python train.py --data-path data   # a comment
```

```
epoch 1/9: top-1 84.89%
```

| key | default | meaning |
|---|---|---|
| `SEED` | `0` | of 1.5 million images |
| `TAG` | | August 2026 |

## Mixed precision and resume

- A checkpoint has 1,024 values.
- It is written atomically.
"""
CHINESE = """# 页面

见[下一节](#混合精度与断点续训)、[另一页](other.md)和[其他网站](https://example.org/page)。

```bash
python train.py --data-path data   # a comment
```

```
epoch 1/9: top-1 84.89%
```

| 配置项 | 默认值 | 含义 |
|---|---|---|
| `SEED` | `0` | 用于 150 万张图像 |
| `TAG` | | 2026 年 8 月 |

## 混合精度与断点续训

- checkpoint 包含 1,024 个值。
- 以原子方式写入。
"""


@pytest.fixture
def folder(tmp_path):
    """A repository with two translated pages."""
    (tmp_path / "docs" / "zh").mkdir(parents=True)
    for name, english, chinese in (("page.md", ENGLISH, CHINESE), ("other.md", "# Other\n", "# 另一页\n")):
        (tmp_path / "docs" / name).write_text(english, encoding="utf-8")
        (tmp_path / "docs" / "zh" / name).write_text(chinese, encoding="utf-8")
    return tmp_path


def compare(folder):
    return [problem for pair in pairs(folder) for problem in Comparison(folder, *pair).problems]


def replace(file, old, new):
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_equal_pages_have_no_difference(folder):
    assert compare(folder) == [] and len(pairs(folder)) == 2


@pytest.mark.parametrize(
    "old, new, line, kind",
    [
        ("## 混合", "### 混合", "page.md:18, docs/zh/page.md:18", "headings differ"),
        ("\n- 以原子方式写入。", "", "page.md:21, docs/zh/page.md:18", "blocks differ"),
        ("| `TAG` | | 2026 年 8 月 |\n", "", "page.md:16, docs/zh/page.md:1", "blocks differ"),
        ("--data-path data ", "--data-path 数据 ", "page.md:5, docs/zh/page.md:5", "code differs"),
        ("epoch 1/9: top-1", "top-1 epoch 1/9:", "page.md:9, docs/zh/page.md:9", "code differs"),
        ("84.89%", "84.98%", "page.md:9, docs/zh/page.md:9", "code differs"),
        ("`SEED`", "`SEEDS`", "page.md:15, docs/zh/page.md:15", "code spans differ"),
        ("150 万", "15 万", "page.md:15, docs/zh/page.md:15", "numbers differ"),
        ("8 月", "9 月", "page.md:16, docs/zh/page.md:16", "numbers differ"),
        ("1,024", "1,025", "page.md:20, docs/zh/page.md:20", "numbers differ"),
        ("| `TAG` | |", "| `TAG` | 无 |", "page.md:16, docs/zh/page.md:16", "cells differ"),
        ("| 默认值 ", "", "page.md:13, docs/zh/page.md:13", "columns differ"),
        ("(other.md)", "(page.md)", "page.md:3, docs/zh/page.md:3", "links differ"),
        ("(#混合精度与断点续训)", "(#断点续训)", "page.md:3, docs/zh/page.md:3", "links differ"),
        ("example.org/page", "example.org/pages", "page.md:3, docs/zh/page.md:3", "links differ"),
        ("混合精度与", "混合的精度与", "page.md:18, docs/zh/page.md:18", "terms differ: 'Mixed precision'"),
        ("checkpoint 包含", "checkpoint（检查点）包含", "page.md:20, docs/zh/page.md:20", "terms differ: not '检查点'"),
    ],
)
def test_a_difference_is_found(folder, old, new, line, kind):
    replace(folder / "docs" / "zh" / "page.md", old, new)
    assert any(f"docs/{line}: {kind}" in problem for problem in compare(folder)), compare(folder)


def test_a_notebook_is_compared_by_cells(folder):
    cells = [
        {"cell_type": "markdown", "source": ["# Training\n", "It needs 3 epochs."]},
        {"cell_type": "code", "source": ["train('../../configs')"], "outputs": [{"text": "top-1 99%"}]},
    ]
    translated = [{"cell_type": "markdown", "source": ["# 训练\n", "需要 3 个 epoch。"]}, cells[1]]
    files = folder / "docs" / "notebooks" / "a.ipynb", folder / "docs" / "zh" / "notebooks" / "a.ipynb"
    for file, content in zip(files, (cells, translated), strict=True):
        file.parent.mkdir()
        file.write_text(json.dumps({"cells": content}), encoding="utf-8")
    copy_code(*files)
    assert "../../../configs" in files[1].read_text("utf-8") and compare(folder) == []
    for old, new, problem in (
        ("99%", "98%", "a.ipynb:2: output differs"),
        ("train(", "fit(", "a.ipynb:2: code differs"),
        ("3 个", "4 个", "a.ipynb:1: numbers differ"),
    ):
        replace(files[1], old, new)
        assert any(problem in line for line in compare(folder))
        replace(files[1], new, old)


@pytest.mark.parametrize("path", ["docs/zh/other.md", "docs/other.md"])
def test_a_missing_page_is_found(folder, path):
    (folder / path).unlink()
    assert f"docs/other.md, docs/zh/other.md: {path} is missing" in compare(folder)


def test_a_change_of_the_english_page_alone_is_found(folder, tmp_path):
    file = tmp_path / "translated.txt"
    english, chinese = "docs/page.md", "docs/zh/page.md"
    record(folder, english, file)
    replace(folder / english, "It is written", "It is\n  written")
    assert changed(folder, english, chinese, file) == []  # a paragraph is wrapped in another way
    replace(folder / english, "atomically", "at once")
    (problem,) = changed(folder, english, chinese, file)
    assert "docs/page.md:18 'Mixed precision and resume' has changed" in problem
    assert "docs/zh/page.md:18 '混合精度与断点续训'" in problem
    record(folder, english, file)
    assert changed(folder, english, chinese, file) == []
    replace(folder / english, "## Mixed precision and resume", "## Precision")
    assert any("is gone" in problem for problem in changed(folder, english, chinese, file))


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_a_page_equals_its_translation(pair):
    assert not Comparison(ROOT, *pair).problems


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_no_page_has_changed_without_its_translation(pair):
    assert not changed(ROOT, *pair, TRANSLATED)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_translations_are_readable(pair):
    assert not unreadable(ROOT / pair[1])


@pytest.mark.parametrize(
    "text, problem",
    [
        ("权重的形状的名称的列表", "too many 的"),
        ("模型的层的名称", "too many 的"),
        ("权重, 偏置", "half-width punctuation"),
        ("使用GPU训练", "no space"),
        ("权重，\n偏置", "line break"),
        ("权重。 偏置", "space beside"),
        ("训练时先读取权重再读取偏置" * 5 + "。训练。" * 17, "6% of the sentences have more than 60"),
        ("训练时先读取权重，再读取偏置，然后读取优化器状态，最后从下一张图像继续训练模型。", "characters a sentence"),
    ],
)
def test_an_unreadable_text_is_found(tmp_path, text, problem):
    page = tmp_path / "page.md"
    page.write_text(f"# 页面\n\n{text}\n", encoding="utf-8")
    assert any(problem in line for line in unreadable(page)), unreadable(page)


def test_each_readme_links_to_the_other():
    english, chinese = ((ROOT / page).read_text("utf-8") for page in PAIRS[0])
    assert re.search(r"\(README\.zh-CN\.md\)", english) and re.search(r"\(README\.md\)", chinese)
