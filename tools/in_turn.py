"""Runs scripts one after the other in one process, because importing torch takes longer than a short training.

Reads JSON lists from the standard input, a line each: [folder, script, argument, ...]. Each script starts from its
first line as if by itself, in its folder, and what it prints goes to `stdout` and `stderr` there. When it has ended,
its exit code is printed on a line of its own. Exits with 1 if one of them failed.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path


def redirect(folder):
    """Send what this process prints from now on to files in folder."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, stream.fileno())
        os.close(file)


def forget(checkout):
    """Drop the modules imported from a checkout of the project, so that the next script imports them anew."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent in (checkout, checkout / "betas"):
            del sys.modules[name]


def run(script, arguments):
    """Run a script as python would; returns its exit code."""
    folder = script.parent
    forget(folder.parent if folder.name == "betas" else folder)
    sys.argv = [str(script), *arguments]
    sys.path[0] = str(folder)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main():
    """Run what the standard input asks for; returns the exit code."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    codes = []
    for line in sys.stdin:
        folder, script, *arguments = json.loads(line)
        os.chdir(folder)
        redirect(Path(folder))
        code = run(Path(script).resolve(), arguments)
        codes.append(code)
        print(code, file=answers, flush=True)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
