"""Adds a protocol's finished runs to its data, whole blocks alone:

    python study/add.py study/v5 runs

A block is one task and one seed with all settings of plan.csv. It is added when all its runs are complete, were trained
within a day, and by the scripts of one commit, whose text their folders hold. Start it on the machine that trained: its
processor, and the variables that choose kernels, are recorded with each run. Runs of a block that never became complete
are trained anew, all of them, so that no two settings of a block come from two machines.
"""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "plots"), str(ROOT / "tools"), str(ROOT)]

import collect
import machine
import pandas as pd
import tyro


class Refused(Exception):
    """Why a block cannot be added."""


def text_at(commit, path):
    """The bytes of a file as of a commit."""
    return subprocess.run(["git", "show", f"{commit}:{path}"], cwd=ROOT, capture_output=True, check=True).stdout


def row_and_curve(planned, folder, commit):
    """A run's row of runs.csv and its curve, a table."""
    result, log = collect.read_folder(folder)
    for copy in folder.glob("*.py"):
        path = copy.name if copy.name.startswith("ppo_") else f"betas/{copy.name}"
        if copy.read_bytes() != text_at(commit, path):
            raise Refused(f"{folder} was trained by another {path} than that of {commit}")
    row = collect.run_row(planned["run"], result)
    curve, ended = collect.run_curve(log, row)
    curve = curve.reset_index()
    curve.insert(0, "run", planned["run"])
    row |= {"ended": ended, "setting": planned["setting"], "command": planned["command"], "code": commit}
    row |= {"processor": machine.processor(), "variables": machine.variables()}
    return row, curve


def block_of(plan, runs, commit):
    """The rows and the curves of a block's runs, whose part of plan.csv is given."""
    missing = [name for name in plan["run"] if not (runs / name / "result.json").exists()]
    if missing:
        raise Refused(f"{len(missing)} of {len(plan)} runs are missing: {', '.join(missing)}")
    found = [row_and_curve(planned, runs / planned["run"], commit) for planned in plan.to_dict("records")]
    rows = pd.DataFrame([row for row, _ in found])
    ended = pd.to_datetime(rows["ended"])
    if ended.max() - ended.min() > timedelta(days=1):
        raise Refused(f"its runs ended more than a day apart, from {ended.min()} to {ended.max()}")
    if rows["versions"].nunique() > 1:
        raise Refused(f"its runs have several versions: {', '.join(rows['versions'].unique())}")
    return rows, pd.concat([curve for _, curve in found])


def append(path, table):
    """Writes a table below what a file holds already, in place of rows of the same runs."""
    if path.exists():
        before = pd.read_csv(path, dtype=str, keep_default_na=False)
        table = pd.concat([before[~before["run"].isin(table["run"])], table])
    partial = path.with_name(f"partial_{path.name}")  # the end of its name says how it is compressed
    table.to_csv(partial, index=False)
    partial.replace(path)


def main(folder: tyro.conf.Positional[Path], runs: tyro.conf.Positional[Path], commit: str):
    """Adds the complete blocks of a protocol to its data, and names those that are begun.

    Args:
        folder: the folder with plan.csv, and the data once there are any
        runs: the folder in which the runs were trained
        commit: whose scripts trained them
    """
    plan = pd.read_csv(folder / "plan.csv", dtype=str)
    table = folder / "runs.csv"
    known = set(pd.read_csv(table, dtype=str)["run"]) if table.exists() else set()
    for (env_id, seed), block in plan.groupby(["env_id", "seed"], sort=False):
        begun = any((runs / name).exists() for name in block["run"])
        if known.issuperset(block["run"]) or not begun:
            continue
        try:
            rows, curves = block_of(block, runs, commit)
        except (Refused, collect.LogError) as error:
            print(f"{env_id}, seed {seed}: not added: {error}")
            continue
        append(folder / f"{env_id}.csv.xz", curves)
        append(table, rows)
        print(f"{env_id}, seed {seed}: {len(rows)} runs added")


if __name__ == "__main__":
    tyro.cli(main)
