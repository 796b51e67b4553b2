"""Prints the commands of a protocol's runs that its data lack:

    python study/missing.py study/v5
    python study/missing.py study/v5 --blocks 1 | xargs -d '\\n' -P 1 -n 1 sh -c

The folder has a plan.csv, a row a run in the order of training: its name, task, seed and command; and, once there are
data, a runs.csv. A run whose folder in runs/ is complete is passed over, too.
"""

import csv
import sys
from pathlib import Path

import tyro


def read(path):
    """The rows of a CSV file, dicts; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def missing(folder, runs):
    """The rows of a folder's plan that neither its runs.csv nor the folder of the runs has."""
    known = {row["run"] for row in read(folder / "runs.csv")}
    plan = read(folder / "plan.csv")
    return [row for row in plan if row["run"] not in known and not (runs / row["run"] / "result.json").exists()]


def first_blocks(rows, number):
    """Of some rows of a plan those of the first blocks, each one task and one seed."""
    blocks = list(dict.fromkeys((row["env_id"], row["seed"]) for row in rows))[:number]
    return [row for row in rows if (row["env_id"], row["seed"]) in blocks]


def main(folder: tyro.conf.Positional[Path], runs: Path = Path("runs"), blocks: int = 1000):
    """Prints the commands of a protocol's runs that its data lack, one a line.

    Args:
        folder: the folder with plan.csv
        runs: where the runs are trained
        blocks: of how many blocks, each one task and one seed, from the first that lacks a run
    """
    if not (folder / "plan.csv").is_file():
        sys.exit(f"error: {folder} has no plan.csv: name the folder of a protocol, such as study/v5")
    for row in first_blocks(missing(folder, runs), blocks):
        print(f"{sys.executable} {row['command']} --run-name {row['run']}")


if __name__ == "__main__":
    tyro.cli(main)
