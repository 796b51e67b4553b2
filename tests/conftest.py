"""Makes the scripts importable from wherever pytest is started, and quiet as they are when run by themselves."""

import sys

from helpers import ROOT

sys.path.insert(0, str(ROOT))


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:.*out of date")  # the paper's tasks are v4; the scripts say so too
