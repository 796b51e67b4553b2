"""Runs scripts in forks of a process that has imported torch, because importing it takes longer than a short training.

Reads JSON lists from the standard input, a line each: [folder, script, argument, ...]. They run one after the other,
each as if by itself, in its folder; what it prints goes to `stdout` and `stderr` there. Exits with 1 if one failed.
"""

import json
import multiprocessing
import os
import runpy
import sys

import torch.utils.tensorboard  # noqa: F401, for the scripts


def start(folder, script, *arguments):
    """Start a script in a folder, in a process of its own. Returns the process."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(folder, script, arguments))
    process.start()
    return process


def run(folder, script, arguments):
    """Run a script in a folder as python would. This process can do nothing else afterwards."""
    os.chdir(folder)
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        with open(name, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    failures = 0
    for line in sys.stdin:
        process = start(*json.loads(line))
        process.join()
        failures += process.exitcode != 0
    sys.exit(failures > 0)
