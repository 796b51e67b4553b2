"""Makes the scripts importable from wherever pytest is started, quiet and on one thread as when run by themselves."""

import signal
import sys

import pytest
import torch
from benchmark_helpers import Copy
from helpers import ROOT

sys.path[:0] = [str(ROOT), str(ROOT / "plots"), str(ROOT / "tools")]
torch.set_num_threads(1)
# Some tests send Ctrl-C to what they start, which would ignore it if this process did, as in the background of a shell.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line(
        "filterwarnings", "ignore:.*out of date"
    )  # the paper's tasks are v4; the scripts say so too


@pytest.fixture
def copy(tmp_path):
    """A copy of the project to sweep in."""
    return Copy(tmp_path)
