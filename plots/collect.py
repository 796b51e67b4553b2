"""Reads runs, from their folders or from W&B, into two tables, from which everything is drawn:

runs    a row a run, as text: what its result.json says, with all arguments, and when it ended
curves  a row an iteration of a run, with the quantities of TAGS

They are kept beside the pictures: runs.csv, and curves.csv.gz, where the return is as logged (float32) and all else has
4 digits.
"""

import gzip
import json
import os
import re
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import sweep
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tqdm import tqdm

TAGS = {
    "charts/episodic_return": "episodic_return",
    "losses/approx_kl": "approx_kl",
    **{f"partition/{name}": name for name in ("in", "kill", "pass")},
    **{f"beta/{name}": f"beta_{name}" for name in ("p01", "p10", "p50", "p90", "p99")},
}
EVENTS = "events.out.tfevents."  # how the names of TensorBoard's files begin


class LogError(Exception):
    """A run that cannot be used, and why."""


def write(path, data):
    """Writes bytes to a file, all or nothing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two sweeps may draw into one folder
    temporary.write_bytes(data)
    os.replace(temporary, path)


def from_folders(runs_dir):
    """The runs below a folder, a name each and a function that returns the content of its result.json and an iterator
    over the rows of its log, which are dicts of global_step, wall_time and some tags. The function raises a LogError if
    the run cannot be used: links below the folder are not followed, so that none is read twice."""
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
    raise LogError("a link, which is not followed: if its folder is elsewhere, draw that")


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
                yield {"global_step": event.step, "wall_time": event.wall_time, value.tag: value.simple_value}


def from_wandb(entity, project):
    """The runs of a W&B project, as from_folders gives them. The service could not be tried: what follows from a run's
    summary and history is tested on those that wandb writes offline, the listing of runs is not."""
    import wandb

    for run in wandb.Api().runs(f"{entity}/{project}" if entity else project):
        yield f"{run.name}__{run.id}", partial(read_wandb, run)


def read_wandb(run):
    """A W&B run's result, and an iterator over the rows of its history."""
    result = run.summary_metrics  # a script puts result.json into it when it ends
    if "params_sha256" not in result:
        raise LogError(f"no result in its W&B summary ({run.state})")
    return result, ({**row, "wall_time": row.get("_timestamp", 0)} for row in run.scan_history())


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
    if final_return is not None and not np.isfinite(final_return):
        raise LogError(f"its final return is {final_return}")
    return {
        "run": name,
        "env_id": result["env_id"],
        "variant": variant,
        "seed": str(int(result["seed"])),
        "final_return": "" if final_return is None else str(float(final_return)),
        "diverged_at": "" if diverged_at is None else str(int(diverged_at)),
        "sps": str(float(result["sps"])),
        "wall_time_s": str(float(result["wall_time_s"])),
        "params_sha256": result["params_sha256"],
        "script_sha256": result.get("script_sha256") or "",
        "versions": " ".join(f"{package}={number}" for package, number in sorted(result["versions"].items())),
        "args": json.dumps({name: value for name, value in args.items() if name not in sweep.NOT_COMPARED}),
    }


def run_curve(log, row):
    """A run's curve, a table with an index of steps, and when its last line was logged (UTC, as text), from the rows of
    its log. That of a run which diverged ends before the iteration."""
    iterations, ended = {}, 0.0
    for logged in log:
        values = {TAGS[tag]: value for tag, value in logged.items() if tag in TAGS and value is not None}
        ended = max(ended, logged["wall_time"])
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
    digits = curve.drop(columns="episodic_return").map("{:.4g}".format).astype(np.float32)
    curve = curve.assign(**digits).rename_axis("global_step")
    return curve, datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds")


def collect(found):
    """The runs found, as text, their curves, and a line for each run that is left out."""
    rows, curves, left_out = [], [], []
    for name, read in tqdm(list(found), desc="runs", unit=" runs", disable=not sys.stderr.isatty()):
        try:
            result, log = read()
            row = run_row(name, result)
            curve, ended = run_curve(log, row)
        except (OSError, LogError) as error:
            left_out.append(f"{name}: {error}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            left_out.append(f"{name}: its result is broken ({type(error).__name__}: {error})")
        else:
            rows.append(row | {"ended": ended})
            curves.append(curve.reset_index().assign(run=name))
    if not rows:
        return pd.DataFrame(), pd.DataFrame(), left_out
    return *joined(pd.DataFrame(rows), pd.concat(curves)), left_out


def joined(rows, curves):
    """The runs with a column version, and the curves with env_id, variant and seed of their run."""
    of_run = rows.set_index("run")
    curves = curves.assign(**{name: curves["run"].map(of_run[name]) for name in ("env_id", "variant", "seed")})
    curves["seed"] = curves["seed"].astype(int)
    for name in ("run", "env_id", "variant"):
        curves[name] = curves[name].astype("category")
    return rows.assign(version=rows["script_sha256"]), curves.reset_index(drop=True)


def save(folder, rows, curves):
    """Writes both tables into a folder, from which load reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "runs.csv", rows.drop(columns="version").to_csv(index=False).encode())
    text = curves[["run", "global_step", *TAGS.values()]].to_csv(index=False)
    write(folder / "curves.csv.gz", gzip.compress(text.encode(), mtime=0))  # with a time in it equal data would differ


def load(folder):
    """The tables that save wrote."""
    rows = pd.read_csv(folder / "runs.csv", dtype=str, keep_default_na=False)
    dtypes = {"run": str, "global_step": int, **dict.fromkeys(TAGS.values(), np.float32)}
    return joined(rows, pd.read_csv(folder / "curves.csv.gz", dtype=dtypes))
