"""The folder of a report: complete or absent, replaced only if it is a report, and safe with hostile names."""

import csv
import json
import os
import re
import stat
from html.parser import HTMLParser

import numpy as np
import pytest

from msg_ms import UserError
from msg_ms.report import Column, Report, Section, Table, check_report, write_report
from msg_ms.report.charts import matrix_chart
from msg_ms.report.images import jpeg

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a,b;c",
    "two\nlines",
    "=1+2",
    "@SUM(A1)",
    "{{ 7*7 }}{% for %}",
    r"$\frac{$",
    "\udcff\udc80",  # bytes that are no text, as file names have them
    "\u202egpj.exe",
    "\u6570\u5b57",
    "x" * 5000,
    "&amp;",
    "]]></text><script>",
)


@pytest.fixture
def report():
    table = Table("names", (Column("name"), Column("value", format="{:.2f}")), [(name, 0.5) for name in HOSTILE])
    chart = matrix_chart(np.eye(len(HOSTILE), dtype=int), HOSTILE, HOSTILE, HOSTILE[0])
    images = [[jpeg(np.zeros((8, 8, 3), np.uint8), name)] for name in HOSTILE]
    section = Section(HOSTILE[0], HOSTILE, [chart], table, images=images)
    return Report(HOSTILE[0], [("top1", HOSTILE[1], float("nan"), "nan")], [section], [table])


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(data)


def test_hostile_names_stay_text(report, tmp_path):
    folder = tmp_path / "report"
    write_report(folder, report, [("model", HOSTILE[0]), ("data", HOSTILE[8])])
    text = (folder / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.tags & {"script", "iframe", "object", "link", "form"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert all(value.startswith(("data:image/", "#section")) for value in sources)
    assert "default-src 'none'" in text and "49" not in text.split("{{ 7")[1][:20]
    shown = "\n".join(page.texts)
    for name in HOSTILE[:3] + HOSTILE[4:8] + HOSTILE[10:11] + HOSTILE[12:]:
        assert name in shown, name
    assert "two\\nlines" in shown and "\\xff\\x80" in shown and "\\u202egpj" in shown and "x" * 2001 not in shown

    with (folder / "names.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "value"] and len(rows) == 1 + len(HOSTILE)
    names = [row[0] for row in rows[1:]]
    assert names[:4] == list(HOSTILE[:4]) and names[4:6] == ["'=1+2", "'@SUM(A1)"]
    content = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert content["metrics"] == {"top1": None} and content["names"][3] == {"name": "two\nlines", "value": 0.5}
    assert content["model"] == HOSTILE[0]


def test_charts_are_safe_files_of_their_own(report):
    svg = report.sections[0].charts[0].content.decode("utf-8")
    assert "<script" not in svg and "\u6570\u5b57" in svg and "&lt;script&gt;" in svg
    assert re.findall(r'(?:xlink:)?href="(?!#|data:)', svg) == []
    again = matrix_chart(np.eye(len(HOSTILE), dtype=int), HOSTILE, HOSTILE, HOSTILE[0])
    assert again.content.decode("utf-8") == svg  # the same on each run


def test_a_report_is_replaced_and_nothing_else(report, tmp_path):
    folder = tmp_path / "new" / "report"
    check_report(folder)
    write_report(folder, report, [])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    (folder / "report.html").write_text("an older one", encoding="utf-8")
    check_report(folder)
    write_report(folder, report, [])
    assert "<!DOCTYPE" in (folder / "report.html").read_text("utf-8")
    assert os.listdir(folder.parent) == ["report"]

    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    for function in (lambda: check_report(folder), lambda: write_report(folder, report, [])):
        with pytest.raises(UserError, match=r"holds files that are no part of a report \(notes.txt\); name another"):
            function()
    assert (folder / "notes.txt").read_text("utf-8") == "mine" and os.listdir(folder.parent) == ["report"]


def test_other_paths_are_refused_in_one_line(report, tmp_path):
    file, foreign, link = tmp_path / "file", tmp_path / "foreign", tmp_path / "link"
    file.write_text("x", encoding="utf-8")
    foreign.mkdir()
    check_report(foreign)  # empty
    (foreign / "metrics.json").write_text('{"generator": "another", "files": ["metrics.json"]}', encoding="utf-8")
    link.symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"--report .*file: exists and is not a folder; name another one"):
        check_report(file)
    with pytest.raises(UserError, match=r"--report .*link: exists and is not a folder"):
        check_report(link)
    with pytest.raises(UserError, match=r"no part of a report \(metrics.json\)"):
        check_report(foreign)
    with pytest.raises(UserError, match=r"--report .*: .*file is not a folder"):
        check_report(file / "report")


def test_a_failure_leaves_the_older_report(report, tmp_path):
    folder = tmp_path / "report"
    write_report(folder, report, [("model", "first")])
    damaged = Report("", [], [], [Table("t", (Column("name"),), [(object(),)])])
    with pytest.raises(TypeError):
        write_report(folder, damaged, [])
    assert json.loads((folder / "metrics.json").read_text("utf-8"))["model"] == "first"
    assert os.listdir(tmp_path) == ["report"]
