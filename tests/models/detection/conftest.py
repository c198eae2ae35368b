"""Print the errors against the vectors at the end: python -m pytest tests/models/detection -rA."""

import mindspore as ms
import pytest
from support.detection import TABLE, available, vectors


def pytest_terminal_summary(terminalreporter):
    if "A" in terminalreporter.config.option.reportchars and TABLE.rows:
        terminalreporter.section("array: largest error")
        terminalreporter.write_line(str(TABLE))


def _group(name):
    @pytest.fixture(name=name)
    def group():
        if not available(name):
            pytest.skip(f"the folder of the vectors has no {name}.npz")
        return vectors(name)

    return group


# The groups that come in other commits may be missing.
detector, inference = _group("detector"), _group("inference")


@pytest.fixture
def eager():
    """Run operators one by one, without compilation."""
    ms.set_context(mode=ms.PYNATIVE_MODE)


@pytest.fixture
def pieces():
    return vectors("ops")
