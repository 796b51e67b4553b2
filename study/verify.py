"""Trains published runs anew, and says whether they end with the published bits:

    python study/verify.py                                              # a few short ones, some minutes
    python study/verify.py Hopper-v4__ppo_clip_continuous__0            # any name in the column run of runs.csv
    python study/verify.py --today Hopper-v4__ppo_clip_continuous__0    # with the scripts as they are here

What gives other bits is another version, kind of processor, or variable that chooses kernels. All three are printed.
"""

import csv
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "plots"), str(ROOT / "tools"), str(ROOT)]

import collect
import machine
import tyro

SHORT = (
    "CartPole-v1__ppo_clip_cartpole__0",
    "CartPole-v1__ppo_kl_adaptive_cartpole__0",
    "stage2/HalfCheetah-v4__ppo_clip_continuous__20",
)


def published():
    """The rows of all published runs, by name."""
    rows = {}
    for table in (HERE / "data" / "runs.csv", HERE / "v5" / "runs.csv"):
        if table.exists():
            with table.open(newline="", encoding="utf-8") as file:
                rows |= {row["run"]: row for row in csv.DictReader(file)}
    return rows


@contextmanager
def scripts_of(commit):
    """A folder with the scripts of a commit, for as long as it is used."""
    with tempfile.TemporaryDirectory(prefix="verify.") as folder:
        tree = Path(folder) / "scripts"
        git = ["git", "-C", str(ROOT), "worktree"]
        done = subprocess.run([*git, "add", "--detach", tree, commit], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"error: the scripts of {commit} are not here; after git clone --depth 1: git fetch --unshallow")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True, capture_output=True)


def train(tree, command):
    """The result of a training with the scripts in a folder, a dict; None if it failed, and said why."""
    script, *arguments = command.split()
    with tempfile.TemporaryDirectory(prefix="verify.") as folder:
        training = [sys.executable, tree / script, *arguments, "--run-name", "again"]
        if subprocess.run(training, cwd=folder, check=False).returncode:
            return None
        return json.loads((Path(folder) / "runs" / "again" / "result.json").read_text(encoding="utf-8"))


def verify(row, tree):
    """Trains a published run anew; whether it ended with the published bits."""
    print(f"\n{row['run']}: {row['command']}", flush=True)
    result = train(tree, row["command"])
    if result is None:
        print("    the training failed")
        return False
    now = collect.run_row(row["run"], result)
    same = now["params_sha256"] == row["params_sha256"]
    print(f"    published {row['params_sha256']}, final return {row['final_return']}")
    print(f"    here      {now['params_sha256']}, final return {now['final_return']}")
    print("    equal bits" if same else "    other bits")
    if now["versions"] != row["versions"]:
        print(f"    published with {row['versions']}")
    print(f"    here with      {now['versions']}", flush=True)
    return same


def main(names: tyro.conf.Positional[tuple[str, ...]] = SHORT, today: bool = False):
    """Trains published runs anew, and exits with 0 if all end with the published bits.

    Args:
        names: runs, as in the column run of study/data/runs.csv or study/v5/runs.csv
        today: with the scripts as they are here, not with those of the commit that is named with the run
    """
    rows = published()
    for name in names:
        if name not in rows:
            sys.exit(f"error: {name} is not in the column run of study/data/runs.csv or study/v5/runs.csv")
    same = 0
    for name in names:
        if today:
            same += verify(rows[name], ROOT)
        else:
            with scripts_of(rows[name]["code"]) as tree:
                same += verify(rows[name], tree)
    variables = machine.variables() or "no variable that chooses kernels"
    print(f"\n{same} of {len(names)} with the published bits, on {machine.processor()}, with {variables}")
    sys.exit(0 if same == len(names) else 1)


if __name__ == "__main__":
    tyro.cli(main)
