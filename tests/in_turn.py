"""Runs scripts one after the other in one process, each as if by itself: from its first line, with arguments, a working
directory and output of its own. Reads [[folder, script, *arguments], ...] as JSON; output goes to folder/stdout and
folder/stderr; the first failure is the end."""

import json
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
plan = json.load(sys.stdin)
for cwd, *_ in plan:
    for stream in ("stdout", "stderr"):
        Path(cwd, stream).touch()
for cwd, script, *arguments in plan:
    os.chdir(cwd)
    for stream in ("stdout", "stderr"):
        getattr(sys, stream).flush()
        os.dup2(os.open(stream, os.O_WRONLY), getattr(sys, stream).fileno())
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "").parent in (ROOT, ROOT / "betas"):
            del sys.modules[name]  # a file in betas/ changes ppo_klip_continuous
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
