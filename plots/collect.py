"""Collects runs, from their folders or from W&B, into the data set from which every picture is drawn:

results/runs.csv             a row a run
results/curves/RUN.csv.gz    a row an iteration: the return as logged (float32 in shortest decimals), all else to 4 digits

Collecting adds: a run replaces the one of its name, and all others stay until they are dropped by name, so a data set may
outlive the folders and the machines that its runs were trained in. Only a data set inside the folder of the runs, such as
runs/plots/results, belongs to that folder and holds what is there, no more.

With a file a run, a commit adds what is new alone, and the curves of clip, klip and phi with one seed are equal files.
"""

import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tqdm import tqdm

RUN_COLUMNS = ["run", "env_id", "variant", "seed", "final_return", "diverged_at", "sps", "wall_time_s"]
RUN_COLUMNS += ["params_sha256", "script_sha256", "versions", "args"]
TAGS = {
    "charts/episodic_return": "episodic_return",
    "losses/approx_kl": "approx_kl",
    **{f"partition/{name}": name for name in ("in", "kill", "pass")},
    **{f"beta/{name}": f"beta_{name}" for name in ("p01", "p10", "p50", "p90", "p99")},
}
# Where a run is kept, or what has a column of its own; runs that differ in any other argument are not averaged.
NOT_SETTINGS = {"seed", "env_id", "run_name", "capture_video", "save_model"}
NOT_SETTINGS |= {"track", "wandb_project_name", "wandb_entity"}


class LogError(Exception):
    """A run that cannot be used, and why."""


class DataError(Exception):
    """What cannot be done with a data set, and why."""


UNREADABLE = "{} cannot be read: {}. Restore it, or move the data set away and collect again"


def write(path, data):
    """Writes bytes to a file, all or nothing."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, path)


def from_folders(runs_dir):
    """The runs below a folder: a name, and a function that returns the content of result.json and an iterator of log
    rows, which are dicts of global_step and some tags."""
    for folder, subfolders, files in os.walk(runs_dir):
        # benchmark.sh sets interrupted runs aside in incomplete/; those of ./benchmark.sh quick are a sweep of their own
        subfolders[:] = sorted(name for name in subfolders if name not in ("incomplete", "quick") and name[0] != ".")
        if "result.json" in files or any(name.startswith("events.out.tfevents.") for name in files):
            yield Path(folder).relative_to(runs_dir).as_posix(), lambda folder=Path(folder): read_folder(folder)


def read_folder(folder):
    if not (folder / "result.json").exists():
        raise LogError("no result.json: still running, or stopped")
    return json.loads((folder / "result.json").read_text()), event_rows(folder)


def event_rows(folder):
    """The scalars of a run's TensorBoard events, in dicts. The reader checks sums and stops where one is wrong."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                yield {"global_step": event.step, value.tag: value.simple_value}


def from_wandb(entity, project):
    """The runs of a W&B project, as from_folders gives them. The service could not be tried: what follows from a run's
    summary and history is tested on those that wandb writes offline, the listing of runs is not."""
    import wandb

    for run in wandb.Api().runs(f"{entity}/{project}" if entity else project):
        # What is typed there becomes a file's name here.
        yield re.sub(r"[^\w.=-]", "_", f"{run.name}__{run.id}"), lambda run=run: read_wandb(run)


def read_wandb(run):
    result = run.summary_metrics  # a script puts result.json into it when it ends
    if "params_sha256" not in result:
        raise LogError(f"no result in its W&B summary ({run.state})")
    return result, wandb_rows(run)


def wandb_rows(run):
    yield from run.scan_history()  # not called before the first row is asked for: it downloads


def run_row(name, result):
    """A run's row of runs.csv, as text."""
    args = dict(result["args"])
    variant = re.sub(r"^ppo_(.+)_(continuous|cartpole)$", r"\1", result["exp_name"])
    if variant == "kl_scalar":
        variant = "kl_adaptive" if args["adaptive_beta"] else "kl_fixed"
    # JSON elsewhere may have turned 1.0 into 1.
    args = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in sorted(args.items())}
    final_return, diverged_at = result["final_return"], result.get("diverged_at")
    row = {
        "run": name,
        "variant": variant,
        "seed": int(result["seed"]),
        "final_return": "" if final_return is None else float(final_return),
        "diverged_at": "" if diverged_at is None else int(diverged_at),
        "script_sha256": result.get("script_sha256", ""),
        "versions": " ".join(f"{package}={number}" for package, number in sorted(result["versions"].items())),
        "args": json.dumps({name: value for name, value in args.items() if name not in NOT_SETTINGS}),
        **{name: float(result[name]) for name in ("sps", "wall_time_s")},
        **{name: result[name] for name in ("env_id", "params_sha256")},
    }
    return {name: str(row[name]) for name in RUN_COLUMNS}


def run_curve(log, row):
    """A run's curve as text, from the rows of its log; that of a run which diverged ends before the iteration."""
    iterations = {}
    for logged in log:
        values = {TAGS[tag]: value for tag, value in logged.items() if tag in TAGS and value is not None}
        if values:
            iterations.setdefault(int(logged["global_step"]), {}).update(values)
    args = json.loads(row["args"])
    batch_size = args["num_envs"] * args["num_steps"]
    expected = range(batch_size, int(row["diverged_at"] or args["total_timesteps"] + 1), batch_size)
    if list(iterations) != list(expected):
        raise LogError(f"its log holds {len(iterations)} of {len(expected)} iterations")
    # Only the return may be missing: no episode ended. Before a run diverges, others may be infinite or NaN.
    if any(set(TAGS.values()) - set(values) - {"episodic_return"} for values in iterations.values()):
        raise LogError("its log lacks a tag in some iterations")
    curve = pd.DataFrame.from_dict(iterations, orient="index", columns=TAGS.values()).astype(np.float32)
    returns = curve.pop("episodic_return")
    curve = curve.map("{:.4g}".format)
    curve.insert(0, "episodic_return", returns)
    return curve.rename_axis("global_step").to_csv()


def curve_path(results, name):
    return results / "curves" / f"{name}.csv.gz"


def load_runs(results):
    """runs.csv, as text."""
    try:
        return pd.read_csv(results / "runs.csv", dtype=str, keep_default_na=False)[RUN_COLUMNS]
    except (ValueError, KeyError) as error:  # a column that another version of this program did not write
        raise DataError(UNREADABLE.format(results / "runs.csv", error)) from error


def load(results):
    """The runs, as text, and the curves of all, in one table with the run, its env_id, variant and seed in each row."""
    runs, curves = load_runs(results), []
    dtypes = {"global_step": int, **dict.fromkeys(TAGS.values(), np.float32)}
    for row in runs.to_dict("records"):
        path = curve_path(results, row["run"])
        try:
            curves.append(pd.read_csv(path, dtype=dtypes)[list(dtypes)])
        except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            raise DataError(UNREADABLE.format(path, error)) from error
    lengths = [len(curve) for curve in curves]
    curves = pd.concat(curves, ignore_index=True)
    for name in ("seed", "variant", "env_id", "run"):
        values = runs[name].astype(int).array if name == "seed" else pd.Categorical(runs[name])
        curves.insert(0, name, values.repeat(lengths))
    return runs, curves


def sha256(results):
    """A hash of a data set, of the tables alone: zlib's versions compress them differently."""
    names = sorted(load_runs(results)["run"])
    tables = [
        (results / "runs.csv").read_bytes(),
        *(gzip.decompress(curve_path(results, n).read_bytes()) for n in names),
    ]
    return hashlib.sha256(b"".join(tables)).hexdigest()


def collect(found, results, drop=(), alone=False):
    """Adds the runs found to the data set in results, after dropping from it those whose names match a pattern in drop,
    and if alone those that are not found. Returns the number of runs in it, and a line for each that was left out. Of a
    run whose row is in the data set already the log is not read again. Without any run nothing is written."""
    try:
        before = {row["run"]: row for row in load_runs(results).to_dict("records")}
    except FileNotFoundError:
        before = {}
    for pattern in drop:
        if not any(fnmatchcase(name, pattern) for name in before):
            raise DataError(f"--drop {pattern}: no run in {results} has such a name")
    known = {name: row for name, row in before.items() if not any(fnmatchcase(name, pattern) for pattern in drop)}
    rows, new, left_out = {} if alone else dict(known), {}, []
    for name, read in tqdm(list(found), desc="runs", unit=" runs", disable=not sys.stderr.isatty()):
        try:
            result, log = read()
            row = run_row(name, result)
            if row != known.get(name) or not curve_path(results, name).exists():
                new[name] = run_curve(log, row)
            rows[name] = row
        except (OSError, LogError) as error:
            left_out.append(f"{name}: {error}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            left_out.append(f"{name}: its result is broken ({type(error).__name__}: {error})")
    if rows:
        runs = pd.DataFrame(rows.values())
        order = ["env_id", "variant", "seed", "run"]
        runs = runs.sort_values(order, key=lambda column: column.astype(int) if column.name == "seed" else column)
        for name, curve in new.items():
            path = curve_path(results, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, gzip.compress(curve.encode(), mtime=0))  # with a time in it equal data would differ
        write(results / "runs.csv", runs.to_csv(index=False).encode())
        for name in before.keys() - rows.keys():
            curve_path(results, name).unlink(missing_ok=True)
    dropped = ", ".join(sorted(before.keys() - rows.keys())) if rows else ""
    print(f"runs: {len(rows)}, of them new: {len(new)}; left out: {len(left_out)}", file=sys.stderr)
    print(f"dropped: {dropped}\n" * bool(dropped), end="", file=sys.stderr)
    return len(rows), left_out
