import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tally


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["engine"] = tally.LINES


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    tally.LINES += getattr(node, "workeroutput", {}).get("engine", [])


def pytest_terminal_summary(terminalreporter):
    for line in tally.LINES:
        terminalreporter.write_line(line)
