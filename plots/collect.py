"""Collects runs, from their folders or from W&B, into the data set from which every picture is drawn:

results/runs.csv             a row a run
results/curves/RUN.csv.gz    a row an iteration: the return as logged (float32, shortest decimals), all else to 4 digits

Collecting adds: a run replaces the one of its name, and all others stay until they are dropped by name, so a data set
may outlive the folders and the machines that its runs were trained in. Only a data set inside the folder of the runs,
such as runs/plots/results, belongs to that folder and holds what is there, no more.

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
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import sweep
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tqdm import tqdm

RUN_COLUMNS = [
    *("run", "env_id", "variant", "seed", "final_return", "diverged_at", "sps", "wall_time_s"),
    *("params_sha256", "script_sha256", "versions", "args"),
]
TAGS = {
    "charts/episodic_return": "episodic_return",
    "losses/approx_kl": "approx_kl",
    **{f"partition/{name}": name for name in ("in", "kill", "pass")},
    **{f"beta/{name}": f"beta_{name}" for name in ("p01", "p10", "p50", "p90", "p99")},
}
EVENTS = "events.out.tfevents."  # how the names of TensorBoard's files begin


class LogError(Exception):
    """A run that cannot be used, and why."""


class DataError(Exception):
    """What cannot be done with a data set, and why."""


UNREADABLE = "{} cannot be read: {}. Restore it, or {}"


def write(path, data):
    """Writes bytes to a file, all or nothing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two sweeps may draw into one folder
    temporary.write_bytes(data)
    os.replace(temporary, path)


def from_folders(runs_dir):
    """The runs below a folder, a name each and a function that returns the content of its result.json and an iterator
    over the rows of its log, which are dicts of global_step and some tags. The function raises a LogError if the run
    cannot be used: links below the folder are not followed, so that none is read twice."""
    for parent, subfolders, files in os.walk(runs_dir):
        # benchmark.sh sets interrupted runs aside in incomplete/; quick/ is a sweep of its own.
        subfolders[:] = sorted(
            name for name in subfolders if name not in ("incomplete", "quick") and not name.startswith(".")
        )
        for name in subfolders:
            if (Path(parent) / name).is_symlink():
                yield (Path(parent) / name).relative_to(runs_dir).as_posix(), refuse_link
        if any(name == "result.json" or name.startswith(EVENTS) for name in files):
            folder = Path(parent)
            below = folder.relative_to(runs_dir).as_posix()
            yield runs_dir.resolve().name if below == "." else below, partial(read_folder, folder)


def refuse_link():
    """Leaves out a link in place of a run."""
    raise LogError("a link, which is not followed: if its folder is elsewhere, collect that, with --runs-dir")


def read_folder(folder):
    """The content of a folder's result.json, and an iterator over the rows of its log."""
    if not (folder / "result.json").exists():
        raise LogError("no result.json: still running, or stopped")
    return json.loads((folder / "result.json").read_text(encoding="utf-8")), event_rows(folder)


def event_rows(folder):
    """The scalars of a run's TensorBoard events, in dicts. The reader checks sums and stops where one is wrong."""
    for path in sorted(folder.glob(f"{EVENTS}*")):
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                yield {"global_step": event.step, value.tag: value.simple_value}


def from_wandb(entity, project):
    """The runs of a W&B project, as from_folders gives them. The service could not be tried: what follows from a run's
    summary and history is tested on those that wandb writes offline, the listing of runs is not."""
    import wandb

    for run in wandb.Api().runs(f"{entity}/{project}" if entity else project):
        yield path_of(f"{run.name}__{run.id}"), partial(read_wandb, run)


def path_of(name):
    """What is typed as a run's name in W&B as the path of a file within the folder of the data set."""
    parts = [re.sub(r"[^\w.=-]", "_", part) for part in name.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def read_wandb(run):
    """A W&B run's result, and an iterator over the rows of its history."""
    result = run.summary_metrics  # a script puts result.json into it when it ends
    if "params_sha256" not in result:
        raise LogError(f"no result in its W&B summary ({run.state})")
    return result, wandb_rows(run)


def wandb_rows(run):
    """The rows of a W&B run's history, downloaded when the first is asked for."""
    yield from run.scan_history()


def run_row(name, result):
    """A run's row of runs.csv, as text."""
    args = dict(result["args"])
    variant = re.sub(r"^ppo_(.+)_(continuous|cartpole)$", r"\1", result["exp_name"])
    if variant == "kl_scalar":
        variant = "kl_adaptive" if args["adaptive_beta"] else "kl_fixed"
    # JSON elsewhere may have turned 1.0 into 1.
    args = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in sorted(args.items())}
    final_return = result["final_return"]
    diverged_at = result.get("diverged_at")
    row = {
        "run": name,
        "env_id": result["env_id"],
        "variant": variant,
        "seed": int(result["seed"]),
        "final_return": "" if final_return is None else float(final_return),
        "diverged_at": "" if diverged_at is None else int(diverged_at),
        "sps": float(result["sps"]),
        "wall_time_s": float(result["wall_time_s"]),
        "params_sha256": result["params_sha256"],
        "script_sha256": result.get("script_sha256", ""),
        "versions": " ".join(f"{package}={number}" for package, number in sorted(result["versions"].items())),
        "args": json.dumps({name: value for name, value in args.items() if name not in sweep.NOT_COMPARED}),
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
    """Where the data set in results keeps the curve of the run of that name."""
    return results / "curves" / f"{name}.csv.gz"


def load_runs(results):
    """runs.csv, as text."""
    try:
        return pd.read_csv(results / "runs.csv", dtype=str, keep_default_na=False)[RUN_COLUMNS]
    except (ValueError, KeyError) as error:  # a column that another version of this program did not write
        remedy = "move the data set away and collect again"
        raise DataError(UNREADABLE.format(results / "runs.csv", error, remedy)) from error


def load(results):
    """The runs, as text, and the curves of all, in one table with the run, its env_id, variant and seed in each row. A
    run whose curve cannot be read is left out, with a line on standard error."""
    runs = load_runs(results)
    dtypes = {"global_step": int, **dict.fromkeys(TAGS.values(), np.float32)}
    tables, damaged = [], []
    for name in runs["run"]:
        path = curve_path(results, name)
        try:
            tables.append(pd.read_csv(path, dtype=dtypes)[list(dtypes)])
        except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
            damaged.append(name)
            remedy = f"take the run out with --drop '{name}': if its folder is there, it is collected anew"
            print(f"left out: {UNREADABLE.format(path, error, remedy)}", file=sys.stderr)
    if not tables:
        raise DataError(f"{results}: no run whose curve can be read")
    runs = runs[~runs["run"].isin(damaged)].assign(version=runs["script_sha256"])
    lengths = [len(table) for table in tables]
    curves = pd.concat(tables, ignore_index=True)
    curves.insert(0, "run", pd.Categorical(runs["run"]).repeat(lengths))
    curves.insert(1, "env_id", pd.Categorical(runs["env_id"]).repeat(lengths))
    curves.insert(2, "variant", pd.Categorical(runs["variant"]).repeat(lengths))
    curves.insert(3, "seed", runs["seed"].astype(int).array.repeat(lengths))
    return runs, curves


def sha256(results, names):
    """A hash of these runs' rows and curves, of the tables alone: zlib's versions compress them differently."""
    runs = load_runs(results)
    runs = runs[runs["run"].isin(set(names))].sort_values("run")
    tables = [runs.to_csv(index=False).encode()]
    tables += [gzip.decompress(curve_path(results, name).read_bytes()) for name in runs["run"]]
    return hashlib.sha256(b"".join(tables)).hexdigest()


def dropped_names(names, drop):
    """Those of the names that drop tells, each of which is a name or, if there is none such, a pattern."""
    dropped = set()
    for word in drop:
        matches = {word} if word in names else {name for name in names if fnmatchcase(name, word)}
        if not matches:
            raise DataError(f"--drop {word}: no run of the data set has such a name")
        dropped |= matches
    return dropped


def read_runs(found, known, results):
    """The rows of the runs found, by name, the curves of those that are new or have changed since they were known,
    and a line for each run that was left out."""
    rows, curves, left_out = {}, {}, []
    for name, read in tqdm(list(found), desc="runs", unit=" runs", disable=not sys.stderr.isatty()):
        try:
            result, log = read()
            row = run_row(name, result)
            if row != known.get(name) or not curve_path(results, name).exists():
                curves[name] = run_curve(log, row)
            rows[name] = row
        except (OSError, LogError) as error:
            left_out.append(f"{name}: {error}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            left_out.append(f"{name}: its result is broken ({type(error).__name__}: {error})")
    return rows, curves, left_out


def write_runs(results, rows, curves):
    """Writes runs.csv with these rows, and the curves of some of them."""
    runs = pd.DataFrame(rows.values())
    order = ["env_id", "variant", "seed", "run"]
    runs = runs.sort_values(order, key=lambda column: column.astype(int) if column.name == "seed" else column)
    for name, curve in curves.items():
        path = curve_path(results, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, gzip.compress(curve.encode(), mtime=0))  # with a time in it equal data would differ
    write(results / "runs.csv", runs.to_csv(index=False).encode())


def collect(found, results, drop=(), alone=False):
    """Adds the runs found to the data set in results, after dropping from it those that drop tells, by name or pattern,
    and if alone those that are not found. Returns the number of runs in it, and a line for each that was left out. Of a
    run whose row is in the data set already the log is not read again. Without any run nothing is written."""
    try:
        before = {row["run"]: row for row in load_runs(results).to_dict("records")}
    except FileNotFoundError:
        before = {}
    dropped = dropped_names(before, drop)
    known = {name: row for name, row in before.items() if name not in dropped}
    rows, curves, left_out = read_runs(found, known, results)
    if not alone:
        rows = known | rows
    gone = sorted(before.keys() - rows.keys()) if rows else []
    if rows:
        write_runs(results, rows, curves)
        for name in gone:
            curve_path(results, name).unlink(missing_ok=True)
    print(f"runs: {len(rows)}, of them new: {len(curves)}; left out: {len(left_out)}", file=sys.stderr)
    if gone:
        print(f"dropped: {', '.join(gone)}", file=sys.stderr)
    return len(rows), left_out
