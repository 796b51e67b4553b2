"""The interactive page: one HTML file with everything in it, opened by a double click, without a network.

    python study/page.py               # of the study, into page.html
    python study/page.py runs/quick    # of your runs, into runs/quick/plots/index.html

It shows one recorded update (updates.npz, by record_update.py), β_t of every method, the runs of a data set, and
what is known of whether a β_t beats the clip.
page.html is its text and its controls, page.js moves what is prepared here: no value of a surrogate is computed there.
"""

import ast
import base64
import json
import re
import shlex
import sys
from functools import partial
from pathlib import Path

import matplotlib.colors
import numpy as np
import pandas as pd
import plotly.colors
import plotly.offline
import torch
import tyro

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "plots"), str(ROOT / "tools"), str(ROOT)]

import collect
import compare
import dataset
import figures
import paper
import sections
import sweep
import theory
import varied

import ppo_clip_continuous
import ppo_kl_scalar_continuous
import ppo_klip_continuous
import ppo_phi_continuous
from betas import loop

EPSILONS = np.round(np.arange(0.05, 0.501, 0.05), 2)
# Centres of cells, so that no edge 1 ± ε and no zero is in the middle of one.
PLANE_RATIOS = np.arange(136) * 0.025 + 0.0125
PLANE_ADVANTAGES = np.arange(40) * 0.1 - 1.95
LINE_RATIOS = np.arange(340) * 0.01 + 0.005
LARGEST_BETA = 3.0  # of the colours
POINTS = 120  # of a learning curve
QUANTITIES = {
    "episodic_return": "episodic return",
    "kill": "share switched off by the clip (I_kill)",
    "pass": "share outside, let through (I_pass)",
}
SMALLEST_INT16 = -(2**15)  # stands for NaN
DASHES = {"-": "solid", "--": "dash", "-.": "dashdot", ":": "dot"}  # what matplotlib's are called by plotly
SYMBOLS = {
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "p": "pentagon",
    "*": "star",
    "<": "triangle-left",
    ">": "triangle-right",
    "h": "hexagon",
    "X": "x",
    "d": "diamond-tall",
    "H": "hexagon2",
    "s": "square",
    "^": "triangle-up",
    "o": "circle",
}


# --- Numbers as text


def pack(values):
    """An array as 16-bit integers in base64, with the factor that they are to be multiplied by; NaN is allowed."""
    values = np.asarray(values, float)
    finite = np.isfinite(values)
    largest = np.abs(values[finite]).max(initial=0.0)
    scale = largest / 32767 or 1.0
    integers = np.full(values.shape, SMALLEST_INT16)
    integers[finite] = np.round(values[finite] / scale)
    return {"scale": scale, "data": base64.b64encode(integers.astype("<i2").tobytes()).decode()}


def in_order(names, order):
    """Distinct names, known ones in their order first, the others by the alphabet."""
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


# --- One update


def partition(ratio, advantages, clip_coef):
    """0 where a sample is in I_in, 1 in I_kill, 2 in I_pass: I_kill is where klip's surrogate has a β_t."""
    killed = theory.implied_beta(ppo_klip_continuous.surrogate, ratio, advantages, clip_coef) != 0
    outside = (np.abs(ratio - 1) > clip_coef) & (advantages != 0)
    return np.where(killed, 1, np.where(outside, 2, 0))


def sample_to_follow(advantages, clip_ratio, free_ratio, clip_coef):
    """The number of a sample that tells the story: better than expected, switched off by the clip at the end of the
    update, and in the same set without a trust region. Of those it is the one that goes there as far as the median."""
    switched_off = partition(clip_ratio, advantages, clip_coef) == 1
    gone = partition(free_ratio, advantages, clip_coef) == 1
    examples = np.flatnonzero((advantages > 1) & switched_off & gone)
    if len(examples) == 0:
        return 0
    farther = examples[np.argsort(free_ratio[examples])]
    return int(farther[len(farther) // 2])


def recorded_update(path):
    """The recording as what the page draws: for each method and epoch the samples' log w, sets and shares."""
    record = np.load(path)
    clip_coef = float(record["clip_coef"])
    advantages = record["advantages"].astype(float)
    methods = {}
    for key in record.files:
        if not key.startswith("log_ratio_"):
            continue
        epochs = []
        for log_ratio in record[key].astype(float):
            ratio = np.exp(log_ratio)
            sets = partition(ratio, advantages, clip_coef)
            epochs.append(
                {
                    "log_ratio": pack(log_ratio),
                    "sets": base64.b64encode(sets.astype(np.uint8).tobytes()).decode(),
                    "shares": np.bincount(sets, minlength=3) / len(sets),
                    "kl": (ratio - 1 - log_ratio).mean(),
                }
            )
        methods[key.removeprefix("log_ratio_")] = epochs
    names = ("env_id", "seed", "iteration")
    return {
        **{name: record[name].item() for name in names},
        "clip_coef": clip_coef,
        # Wide enough for twice the way of clip's samples; what runs away is shown at the edge.
        "half_width": 2 * float(np.quantile(np.abs(record["log_ratio_clip"]), 0.999)),
        "follow": sample_to_follow(
            advantages, np.exp(record["log_ratio_clip"][-1]), np.exp(record["log_ratio_none"][-1]), clip_coef
        ),
        "advantages": pack(advantages),
        "methods": methods,
    }


# --- The coefficient


def docstring(path):
    """The docstring in a file, from its text: under python -OO a module has none."""
    return ast.get_docstring(ast.parse(Path(path).read_text(encoding="utf-8"))) or ""


def surrogates(folder=ROOT / "betas"):
    """{name: (surrogate, text)} of the scripts and of every file in betas/, and a line for each file that fails."""
    scripts = {"clip": ppo_clip_continuous, "klip": ppo_klip_continuous, "phi": ppo_phi_continuous}
    found = {name: (script.surrogate, docstring(script.__file__)) for name, script in scripts.items()}
    for estimator in ("sample", "k3"):
        surrogate = partial(theory.scalar, estimator=estimator)
        found[f"kl_scalar --kl-penalty {estimator}"] = (surrogate, docstring(ppo_kl_scalar_continuous.__file__))
    failures = []
    for path in sorted(folder.glob("*.py")):
        if path.name == "loop.py":
            continue
        try:
            module = loop.load(path)
            loop.check_surrogate(module.surrogate, theory.CLIP_COEF)
            found[path.stem] = (module.surrogate, docstring(path))
        except Exception as error:  # the file may be the user's, and unfinished
            failures.append(f"betas/{path.name}: {type(error).__name__}: {error}")
    return found, failures


def coefficient(surrogate):
    """For each ε the plane of β_t, and the gradient over Â for both signs of Â."""
    ratio, advantages = np.meshgrid(PLANE_RATIOS, PLANE_ADVANTAGES)
    planes = []
    lines = []
    for epsilon in EPSILONS:
        clip_coef = torch.tensor(epsilon, dtype=torch.float64)
        beta = theory.implied_beta(surrogate, ratio, advantages, clip_coef)
        signs = np.repeat([1.0, -1.0], len(LINE_RATIOS))
        factor = theory.gradient(surrogate, np.tile(LINE_RATIOS, 2), signs, clip_coef) / signs
        planes.append(pack(beta))
        lines.append(pack(factor))
    return planes, lines


def coefficients(found, failures):
    """β_t of what surrogates found. Arrays of many are equal (clip, klip and phi; none has no ε): each is kept once."""
    arrays = {}

    def number(packed):
        return arrays.setdefault(json.dumps(packed), len(arrays))

    methods = {}
    for name, (surrogate, text) in found.items():
        try:
            planes, lines = coefficient(surrogate)
        except Exception as error:  # the surrogate may be the user's
            failures.append(f"{name}: {type(error).__name__}: {error}")
            continue
        methods[name] = {
            "text": text.strip(),
            "planes": [number(plane) for plane in planes],
            "lines": [number(line) for line in lines],
        }
    for line in failures:
        print(f"not on the page: {line}", file=sys.stderr)
    return {
        "epsilons": EPSILONS,
        "plane_ratios": PLANE_RATIOS,
        "plane_advantages": PLANE_ADVANTAGES,
        "line_ratios": LINE_RATIOS,
        "largest": LARGEST_BETA,
        "methods": methods,
        "arrays": [json.loads(text) for text in arrays],
        "failures": failures,
    }


# --- Runs


def command(row):
    """The command that trains a run again: of the study at the commit of its label, else with every argument that the
    run recorded. Empty if no script has the name of the run's experiment."""
    if row.get("command"):
        return f"git checkout --quiet {row['code']} && python {row['command']}"
    arguments = json.loads(row["args"])
    name = arguments.pop("exp_name")
    script = re.sub("kl_(fixed|adaptive)", "kl_scalar", name)
    path = next((path for path in (f"{script}.py", f"betas/{script}.py") if (ROOT / path).is_file()), None)
    if path is None:
        return ""
    words = ["python", path, "--env-id", row["env_id"], "--seed", row["seed"]]
    words += ["--exp-name", name] * (name != script)
    for argument, value in arguments.items():
        flag = argument.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


def smooth(values, planned):
    """A rolling mean over a fiftieth of a run, as in the pictures. Iterations in which no episode ended are bridged."""
    return values.interpolate().rolling(max(1, planned // 50), min_periods=1).mean()


def thinned(curve, planned):
    """Every n-th row of a curve, at most 2 POINTS of them, with the last one of a complete run."""
    step = max(1, planned // POINTS)
    return curve.iloc[(planned - 1) % step :: step]


def curve_table(curve, row):
    """What the page draws of a run: global_step and the quantities, smoothed and thinned."""
    arguments = json.loads(row["args"])
    planned = arguments["total_timesteps"] // (arguments["num_envs"] * arguments["num_steps"])
    curve = curve.set_index("global_step")[list(QUANTITIES)].astype(float)
    curve = curve.replace([np.inf, -np.inf], np.nan)
    return thinned(smooth(curve, planned), planned)


def setting(row):
    """The arguments of a run as text, without its name: runs that agree in it have one mean."""
    arguments = json.loads(row["args"])
    del arguments["exp_name"]
    return json.dumps(arguments, sort_keys=True)


def same_runs(rows):
    """The rows of runs, in order of their variants, in lists of those that are one line: clip, klip and phi, if they
    ended with the same parameters on one task from one seed."""
    variants = in_order([row["variant"] for row in rows], paper.MAIN)
    rank = {variant: number for number, variant in enumerate(variants)}
    together = {}
    for row in sorted(rows, key=lambda row: rank[row["variant"]]):
        is_form = row["variant"] in sweep.FORMS and row["params_sha256"]
        result = row["params_sha256"] if is_form else row["run"]
        together.setdefault((row["env_id"], folder(row), row["seed"], result), []).append(row)
    return list(together.values())


def folder(row):
    """The folder of a run below that of its sweep, such as knobs/beta=3."""
    return row["run"].rpartition("/")[0]


def finite(text):
    """A number of runs.csv, or None where there is none or it is infinite."""
    number = float(text or "nan")
    return number if np.isfinite(number) else None


def line_of(rows, table):
    """A line of the page: the runs that it stands for, and their curve."""
    first = rows[0]
    return {
        "task": first["env_id"],
        "folder": folder(first),
        "method": first["variant"],
        "name": " = ".join(dict.fromkeys(row["variant"] for row in rows)),
        "seed": int(first["seed"]),
        "runs": [row["run"] for row in rows],
        "commands": [command(row) for row in rows],
        "final_return": finite(first["final_return"]),
        "diverged_at": int(first["diverged_at"]) if first["diverged_at"] else None,
        "steps": json.loads(first["args"])["total_timesteps"],
        "params_sha256": first["params_sha256"],
        "versions": first["versions"],
        **drawn(table),
    }


def drawn(table):
    """A curve's steps, which are evenly spaced, and its values, packed."""
    steps = table.index
    first = int(steps[0]) if len(steps) else 0
    spacing = int(steps[1] - steps[0]) if len(steps) > 1 else 1
    return {"x0": first, "dx": spacing, **{name: pack(table[name]) for name in QUANTITIES}}


def learning_curves(runs, curves):
    """The lines of all runs, and of each method with several seeds of one version and setting the mean over them."""
    of_run = dict(list(curves.groupby("run", observed=True)))
    lines = []
    alike = {}
    for rows in same_runs(runs.to_dict("records")):
        first = rows[0]
        table = curve_table(of_run[first["run"]], first) if first["run"] in of_run else pd.DataFrame(columns=QUANTITIES)
        lines.append(line_of(rows, table))
        key = (first["env_id"], folder(first), first["variant"], first["version"], setting(first))
        alike.setdefault(key, []).append((table, finite(first["final_return"])))
    means = []
    for (task, of_folder, method, *_), seeds in alike.items():
        if len(seeds) < 2:
            continue
        tables_of_seeds, returns = zip(*seeds, strict=True)
        returns = [value for value in returns if value is not None]
        mean = {
            "task": task,
            "folder": of_folder,
            "method": method,
            "seeds": len(seeds),
            "returns": len(returns),
            "final_return": np.mean(returns) if returns else None,
        }
        means.append(mean | drawn(pd.concat(tables_of_seeds).groupby(level=0).mean()))
    return lines, means


def published():
    """The paper's curves and final returns, by task and variant."""
    found = {}
    for (task, variant), curve in paper.CURVES.groupby(["task", "variant"]):
        found.setdefault(task, {})[variant] = {
            "x": curve["global_step"].to_numpy(),
            "episodic_return": pack(curve["episodic_return"]),
        }
    for task, row in paper.TABLE.iterrows():
        for variant in paper.MAIN:
            if f"{variant}_mean" not in row:
                continue
            entry = found.setdefault(task, {}).setdefault(variant, {})
            entry |= {"mean": row[f"{variant}_mean"], "std": row[f"{variant}_std"], "steps": row["steps"]}
    return found


# --- Settings


def over_kl(runs, every_run, curves):
    """The settings of each task that have a return and a KL, those of stage 1 too, in lines along an argument."""
    points = varied.setting_points(varied.settings(runs, every_run), curves)
    points = [point for point in points if 0 < point["kl"] < np.inf and np.isfinite(point["final_return"])]
    lines = []
    for task in compare.present(runs["env_id"]):
        for line in varied.along_knobs([point for point in points if point["env_id"] == task]):
            shown = [
                {name: point[name] for name in ("setting", "kl", "final_return", "std", "seeds")} for point in line
            ]
            lines.append({"task": task, "method": line[0]["variant"], "points": shown})
    return lines


# --- The page


def on_dark(color):
    """A colour for a dark ground: black and dark greys become as light as they were dark."""
    channels = matplotlib.colors.to_rgb(color)
    return color if max(channels) > 0.5 else matplotlib.colors.to_hex([1 - channel for channel in channels])


def looks(variants):
    """Colour, dashes and marker of each variant, as in the pictures."""
    found = {}
    for variant in variants:
        look = figures.style(variant)
        found[variant] = {
            "color": look["color"],
            "color_on_dark": on_dark(look["color"]),
            "dash": DASHES.get(look.get("linestyle", "-"), "dash"),
            "symbol": SYMBOLS[look.get("marker", "o")] + ("-open" if look.get("markerfacecolor") == "white" else ""),
        }
    return found


def as_json(value):
    """For json.dumps: arrays as lists, numbers of numpy as those of Python."""
    if isinstance(value, np.ndarray):
        return [round(number, 6) for number in value.tolist()]
    return value.item()


def page(runs, curves, is_study=False):
    """The page as text, of runs and curves as collect.load or dataset.load returns them."""
    lines, means = learning_curves(runs, curves)
    every_run = compare.typed(runs, paper.TASKS, paper.VARIANTS)
    own = paper.not_apart(every_run) if is_study else every_run
    answer = sections.contest_sections(every_run, curves) if is_study else {}
    content = {
        "update": recorded_update(HERE / "updates.npz"),
        "coefficients": coefficients(*surrogates()),
        "quantities": QUANTITIES,
        "tasks": in_order(runs["env_id"], paper.TASKS),
        "methods": in_order(runs["variant"], paper.MAIN),
        "main": paper.MAIN,
        "looks": looks([*paper.MAIN, *runs["variant"]]),
        "colors": plotly.colors.diverging.PiYG,
        "lines": lines,
        "means": means,
        "paper": published(),
        "settings": over_kl(varied.compared(own), own, curves),
        "over_clip": answer.get("over_clip", "").replace("`", ""),
        "over_control": answer.get("over_control", "").replace("`", ""),
    }
    parts = {
        "library": plotly.offline.get_plotlyjs(),
        # A text, such as a run's name, may hold "</script>", which would end the element, or "<!--<script>".
        "data": json.dumps(content, default=as_json, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "script": (HERE / "page.js").read_text(encoding="utf-8"),
    }
    text = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub("@(library|data|script)@", lambda match: parts[match[1]], text)


def main(runs: tyro.conf.Positional[Path | None] = None, out: Path | None = None):
    """Writes the interactive page, of the study or of a folder of runs.

    Args:
        runs: the folder, of which plots/make.py has drawn the pictures; if not given, the page is the study's
        out: the file; if not given, plots/index.html in that folder, and page.html here for the study
    """
    if runs is None:
        text = page(*dataset.load(HERE / "data"), is_study=True)
        out = out or Path("page.html")
    elif (runs / "plots" / "runs.csv").is_file():
        text = page(*collect.load(runs / "plots"))
        out = out or runs / "plots" / "index.html"
    else:
        sys.exit(f"error: {runs} has no plots/runs.csv: draw it first, with plots/make.py {runs}")
    out.parent.mkdir(parents=True, exist_ok=True)
    collect.write(out, text.encode())
    print(f"Open {out} in a browser: an update, β_t and every run, to play with")


if __name__ == "__main__":
    tyro.cli(main)
