"""Reads the study's data: a folder with

runs.csv      a row a run, with every argument written out; `code` is the commit whose scripts train it to these bits
TASK.csv.xz   a row an iteration of each run on that task: the return as logged (float32), all else to 4 digits
"""

import hashlib

import collect
import numpy as np
import pandas as pd


def load(folder):
    """The runs, as text, and the curves of all, in one table with the run, its env_id, variant and seed in each row."""
    runs = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    runs["version"] = runs["code"]
    dtypes = {"run": str, "global_step": int, **dict.fromkeys(collect.TAGS.values(), np.float32)}
    tables = [pd.read_csv(folder / f"{task}.csv.xz", dtype=dtypes) for task in dict.fromkeys(runs["env_id"])]
    curves = pd.concat(tables, ignore_index=True)
    of_run = runs.set_index("run")
    for place, name in enumerate(("env_id", "variant", "seed"), start=1):
        curves.insert(place, name, curves["run"].map(of_run[name]))
    curves["seed"] = curves["seed"].astype(int)
    for name in ("run", "env_id", "variant"):
        curves[name] = curves[name].astype("category")
    return runs, curves


def sha256(runs, curves, names):
    """A hash of the rows of these runs and of their curves."""
    rows = runs[runs["run"].isin(set(names))].sort_values("run")
    of_runs = curves[curves["run"].isin(set(names))]
    numbers = of_runs[["global_step", *collect.TAGS.values()]].to_numpy(np.float64)
    return hashlib.sha256(rows.to_csv(index=False).encode() + numbers.tobytes()).hexdigest()
