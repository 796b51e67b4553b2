"""What the tests of benchmark.sh share: copies of the project to sweep in, and readers of what a sweep leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers import ROOT, environment

# A task that stands still after 200 steps while the file $GATE exists. Trained by SHORT, clip and klip on each of two
# tasks in runs of some seconds, and by PAIR.
GATED = "gated_env:Gated-v0"
SHORT = ("--tasks", f"Hopper-v4,{GATED}", "--variants", "clip,klip", "--seeds", "0", "--total-timesteps", "2048")
SHORT += ("--script-args", "--no-compile")
PAIR = ("--tasks", GATED, "--variants", "clip,klip", "--seeds", "0", "--total-timesteps", "2048")
CLIP, KLIP = (f"{GATED}__ppo_{form}_cartpole__0" for form in ("clip", "klip"))


class Copy:
    """A copy of the scripts and of benchmark.sh in a folder with a space in its name, with GATED as one more task. It
    draws no pictures, which would take longer than the trainings."""

    def __init__(self, folder):
        self.folder = Path(folder) / "a copy"
        (self.folder / "plots").mkdir(parents=True)
        (self.folder / "tools").mkdir()
        (self.folder / "betas").mkdir()
        # Without versions, so that none is called untried.
        requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
        (self.folder / "requirements.txt").write_text(re.sub(r"==[\d.]+", "", requirements), encoding="utf-8")
        others = ("benchmark.sh", "tools/install.sh", "tools/sweep.py", "betas/loop.py")
        for path in (*ROOT.glob("ppo_*.py"), *(ROOT / name for name in others)):
            shutil.copy(path, self.folder / path.relative_to(ROOT))
        self.program = self.folder / "benchmark.sh"
        self.runs = self.folder / "runs"
        self.gate = Path(folder) / "gate"
        self.edit('\nTASKS="\n', f'\nTASKS="\n{GATED} cartpole 2048\n')

    def edit(self, before, after):
        script = self.folder / "benchmark.sh"
        text = script.read_text()
        assert text.count(before) == 1
        script.write_text(text.replace(before, after))

    def start(self, *arguments, **variables):
        """Starts benchmark.sh, from another folder, as the leader of a session of its own.

        It hears SIGHUP, which some tests send, also where the tests were started to ignore it (nohup).
        """
        return subprocess.Popen(
            [str(self.program), *arguments],
            cwd="/",
            env=environment(**{"PYTHON": sys.executable, "GATE": str(self.gate), **variables}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    def call(self, *arguments, **variables):
        """Runs benchmark.sh to its end; (exit code, output)."""
        process = self.start(*arguments, **variables)
        try:
            output = process.communicate(timeout=600)[0]
        finally:
            kill_session(process.pid)
        return process.returncode, output

    def results(self):
        return {path.parent.name: json.loads(path.read_text()) for path in self.runs.glob("*/result.json")}

    def hashes(self):
        return {name: result["params_sha256"] for name, result in self.results().items()}

    def times(self):
        """When each complete run was completed."""
        return {path.parent.name: path.stat().st_mtime_ns for path in self.runs.glob("*/result.json")}

    def starts(self):
        """How often each run was started."""
        return {path.stem: path.read_text().count("\n=== 20") + 1 for path in self.runs.glob("logs/*.log")}

    def trainings(self):
        """The process ids of the trainings in this copy, by run name."""
        found = {}
        for pid, command in processes(lambda pid: os.readlink(f"/proc/{pid}/cwd") == str(self.folder)):
            if "--run-name" in command:
                found[command[command.index("--run-name") + 1]] = pid
        return found


def processes(holds):
    """(pid, command line) of the living processes for which holds(pid)."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_text().split("\0")[:-1]
            if command and holds(int(entry.name)):
                yield int(entry.name), command
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is not ours


def kill_session(session):
    """SIGKILL to all processes of a session, at once as far as possible."""
    for pid in [pid for pid, _ in processes(lambda pid: os.getsid(pid) == session)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def wait_for(condition, *arguments, timeout=90):
    """Waits until condition(*arguments) is true, and returns it."""
    end = time.monotonic() + timeout
    while not (value := condition(*arguments)):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return value
