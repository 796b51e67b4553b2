"""Collects runs, from their folders or from W&B, into two tidy files from which every picture is drawn:

results/runs.csv         a row a run
results/curves.csv.gz    a row an iteration of a run, in float32 as logged, in shortest decimals
"""

import gzip
import json
import os
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tqdm import tqdm

RUN_COLUMNS = ["run", "env_id", "variant", "seed", "final_return", "sps", "wall_time_s", "params_sha256"]
RUN_COLUMNS += ["versions", "args"]
TAGS = {
    "charts/episodic_return": "episodic_return",
    "losses/approx_kl": "approx_kl",
    **{f"partition/{name}": name for name in ("in", "kill", "pass")},
    **{f"beta/{name}": f"beta_{name}" for name in ("p01", "p10", "p50", "p90", "p99")},
}
CURVE_COLUMNS = ["run", "env_id", "variant", "seed", "global_step", *TAGS.values()]
# Where a run is kept, or what has a column of its own; runs that differ in any other argument are not averaged.
NOT_SETTINGS = {"seed", "env_id", "run_name", "capture_video", "save_model"}
NOT_SETTINGS |= {"track", "wandb_project_name", "wandb_entity"}


class LogError(Exception):
    """A run that cannot be used, and why."""


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
        yield f"{run.name}__{run.id}", lambda run=run: read_wandb(run)


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
    row = {
        "run": name,
        "variant": variant,
        "seed": int(result["seed"]),
        "final_return": "" if result["final_return"] is None else float(result["final_return"]),
        "versions": " ".join(f"{package}={number}" for package, number in sorted(result["versions"].items())),
        "args": json.dumps({name: value for name, value in args.items() if name not in NOT_SETTINGS}),
        **{name: float(result[name]) for name in ("sps", "wall_time_s")},
        **{name: result[name] for name in ("env_id", "params_sha256")},
    }
    return {name: str(row[name]) for name in RUN_COLUMNS}


def run_curve(log, row):
    """A run's rows of curves.csv, from the rows of its log."""
    iterations = {}
    for logged in log:
        values = {TAGS[tag]: value for tag, value in logged.items() if tag in TAGS and value is not None}
        if values:
            iterations.setdefault(int(logged["global_step"]), {}).update(values)
    args = json.loads(row["args"])
    batch_size = args["num_envs"] * args["num_steps"]
    expected = range(batch_size, args["total_timesteps"] + 1, batch_size)
    if list(iterations) != list(expected):
        raise LogError(f"its log holds {len(iterations)} of {len(expected)} iterations")
    curve = pd.DataFrame.from_dict(iterations, orient="index", columns=TAGS.values()).astype(np.float32)
    if curve.drop(columns="episodic_return").isna().any(axis=None):  # no episode may end in an iteration
        raise LogError("its log lacks a tag in some iterations")
    curve = curve.rename_axis("global_step").reset_index()
    return curve.assign(**{name: row[name] for name in CURVE_COLUMNS[:4]})[CURVE_COLUMNS]


def load(results):
    """runs.csv, as text, and curves.csv.gz."""
    dtypes = dict.fromkeys(TAGS.values(), np.float32) | {"run": str, "env_id": str, "variant": str}
    runs = pd.read_csv(results / "runs.csv", dtype=str, keep_default_na=False)[RUN_COLUMNS]
    curves = pd.read_csv(results / "curves.csv.gz", dtype=dtypes)[CURVE_COLUMNS]
    return runs, curves


def collect(found, results):
    """Brings the two files in results up to date with the runs found; returns their number, and a line for each that
    was left out. Of a run whose row is in the files already the log is not read again."""
    known = {}
    try:
        runs, curves = load(results)
        curves = dict(list(curves.groupby("run")))
        known = {row["run"]: (row, curves[row["run"]]) for row in runs.to_dict("records")}
    except FileNotFoundError:
        pass
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        print(f"{results} cannot be read ({error}); reading every run anew", file=sys.stderr)
    collected, left_out, new = {}, [], 0
    progress = tqdm(list(found), desc="runs", unit=" runs", disable=not sys.stderr.isatty())
    for name, read in progress:
        try:
            result, log = read()
            row = run_row(name, result)
            known_row, curve = known.get(name, (None, None))
            if row != known_row:
                curve, new = run_curve(log, row), new + 1
            collected[name] = row, curve
        except (OSError, LogError) as error:
            left_out.append(f"{name}: {error}")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            left_out.append(f"{name}: its result is broken ({type(error).__name__}: {error})")
    if collected:
        runs = pd.DataFrame([row for row, _ in collected.values()])
        order = ["env_id", "variant", "seed", "run"]
        runs = runs.sort_values(order, key=lambda column: column.astype(int) if column.name == "seed" else column)
        curves = pd.concat([collected[name][1] for name in runs["run"]])
        results.mkdir(parents=True, exist_ok=True)
        # The time in a gzip header would make equal data differ.
        write(results / "curves.csv.gz", gzip.compress(curves.to_csv(index=False).encode(), mtime=0))
        write(results / "runs.csv", runs.to_csv(index=False).encode())
    print(f"runs: {len(collected)}, of them new: {new}; left out: {len(left_out)}", file=sys.stderr)
    return len(collected), left_out
