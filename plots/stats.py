"""Which runs are compared, the table of final returns, and scores across tasks."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import report
from scipy.stats import bootstrap, trim_mean

import ppo_clip_continuous
import ppo_kl_scalar_continuous

VARIANTS = report.names("VARIANTS")
TASKS = report.names("TASKS")
DEFAULTS = asdict(ppo_kl_scalar_continuous.Args())
SHARED = asdict(ppo_clip_continuous.Args()).keys()
PAPER = Path(__file__).parent / "paper_table.csv"


def in_order(names, order):
    """Distinct names, known ones in their order first, the others by the alphabet."""
    return sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name))


def text(setting):
    """A dict of arguments as one sortable string."""
    return json.dumps(setting, sort_keys=True)


def preferred(settings):
    """Of a column of settings: the one with most steps, then most runs, then fewest departures from the defaults."""
    counts = settings.value_counts()

    def rank(setting):
        args = json.loads(setting)
        departures = sum(name in DEFAULTS and value != DEFAULTS[name] for name, value in args.items())
        return -args.get("total_timesteps", 0), -counts[setting], departures, setting

    return min(counts.index, key=rank)


def select(runs):
    """The runs to compare: one setting a task, within it one setting of a variant's own arguments, one run a seed.

    Returns them, all runs with their settings, and a line for each thing left out.
    """
    args = runs["args"].map(json.loads)
    runs = runs.assign(
        seed=runs["seed"].astype(int),
        final_return=pd.to_numeric(runs["final_return"]),
        steps=args.map(lambda a: a["total_timesteps"]),
        discrete=args.map(lambda a: a["exp_name"].endswith("_cartpole")),
        shared=args.map(lambda a: text({k: v for k, v in a.items() if k in SHARED and k != "exp_name"})),
        own=args.map(lambda a: text({k: v for k, v in a.items() if k not in SHARED})),
    )
    chosen, notes = [], []
    for task in in_order(runs["env_id"], TASKS):
        of_task = runs[runs["env_id"] == task]
        setting = preferred(of_task["shared"])
        for variant in in_order(of_task["variant"], VARIANTS):
            of_variant = of_task[of_task["variant"] == variant]
            same = of_variant[of_variant["shared"] == setting]
            if len(same):
                same = same[same["own"] == preferred(same["own"])]
            latest = same.drop_duplicates("seed", keep="last")  # names end in the time
            if len(same) > len(latest):
                notes.append(f"{task}, {variant}: older runs of the same seed: {len(same) - len(latest)}")
            if len(of_variant) > len(same):
                main = json.loads(setting) | json.loads(same["own"].iloc[0] if len(same) else "{}")
                others = of_variant.drop(same.index)
                other = [json.loads(run.shared) | json.loads(run.own) for run in others.itertuples()]
                names = sorted({name for a in other for name in main if a.get(name) != main[name]})
                notes.append(f"{task}, {variant}: runs with another {', '.join(names)}: {len(others)}")
            chosen.append(latest)
    return pd.concat(chosen, ignore_index=True), runs, notes


def expected(runs, task):
    """The variants that a task should have: those with a script for its kind of actions, and any other that ran."""
    of_task = runs[runs["env_id"] == task]
    return in_order([*VARIANTS[: 2 if of_task["discrete"].any() else None], *of_task["variant"]], VARIANTS)


def scores(runs):
    """Final returns as {variant: [(seeds,) a task]} over the tasks that have every variant, on a scale per task where
    its lowest run is 0 and its highest is 1; and those tasks. Empty without such a task."""
    runs = runs.dropna(subset="final_return")
    variants = in_order(runs["variant"], VARIANTS)
    having = runs.groupby("env_id")["variant"].nunique()
    tasks = [task for task in in_order(runs["env_id"], TASKS) if having[task] == len(variants)]
    low, high = (runs.groupby("env_id")["final_return"].agg(f) for f in ("min", "max"))
    cells = runs.assign(score=(runs["final_return"] - runs["env_id"].map(low)) / runs["env_id"].map(high - low))
    cells = cells.fillna({"score": 1.0})  # every run of the task is alike
    cells = cells.groupby(["variant", "env_id"])["score"]
    return {v: [cells.get_group((v, t)).to_numpy() for t in tasks] for v in variants} if tasks else {}, tasks


def iqm(*tasks, axis=-1):
    """The interquartile mean: of the scores of all tasks, the mean of the middle half."""
    return trim_mean(np.concatenate(tasks, axis), 0.25, axis)


def improvement(*tasks, axis=-1):
    """The chance that a run of the first half of the samples beats one of the second, a tie counting half, averaged
    over tasks: the first half holds one variant's tasks, the second the same tasks of the other."""
    ours, theirs = tasks[: len(tasks) // 2], tasks[len(tasks) // 2 :]
    beats = [(np.sign(x[..., :, None] - y[..., None, :]) / 2 + 0.5).mean((-2, -1)) for x, y in zip(ours, theirs)]
    return np.mean(beats, 0)


def interval(statistic, samples, resamples=5000):
    """The statistic and its 95 % bootstrap interval, stratified: seeds are drawn anew within each task. With a single
    seed there is none."""
    if min(len(sample) for sample in samples) < 2:
        return statistic(*samples), np.nan, np.nan
    options = {"vectorized": True, "method": "percentile", "n_resamples": resamples, "batch": 1000}
    low, high = bootstrap(samples, statistic, rng=np.random.default_rng(0), **options).confidence_interval
    return statistic(*samples), low, high


def final_returns(runs, untrained=True):
    """The table of final returns as rows of text: a head, then for each task (also those that only the paper trained,
    if untrained) ours and the paper's."""
    paper = pd.read_csv(PAPER, comment="#", index_col="task")
    variants = in_order([*VARIANTS, *runs["variant"]], VARIANTS)
    rows = [["task", "", *variants]]
    for task in in_order([*(paper.index if untrained else []), *runs["env_id"]], TASKS):
        of_task = runs[runs["env_id"] == task]
        steps = f", {of_task['steps'].iloc[0]:,} steps" if len(of_task) else ""
        row = [task, f"ours{steps}"]
        for variant in variants:
            returns = of_task.loc[of_task["variant"] == variant, "final_return"].dropna()
            row.append(cell(returns.mean(), returns.std(), len(returns)) if len(returns) else "—")
        rows.append(row)
        if task in paper.index:
            values = paper.loc[task]
            published = [v for v in variants if f"{v}_mean" in paper]
            cells = {v: cell(values[f"{v}_mean"], values[f"{v}_std"], 5) for v in published}
            rows.append(["", "paper", *(cells.get(v, "—") for v in variants)])
    return rows


def cell(mean, std, n):
    return f"{mean:,.0f} ± {std:,.0f} ({n})" if n > 1 else f"{mean:,.0f} ({n})"


NOTE = (
    "Final return (mean over the last 10 % of steps): mean ± standard deviation over seeds, whose number is in "
    "brackets. —: no complete run, or not in the paper. Paper: Colletti & Holzinger 2026, arXiv 2606.23932."
)


def markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---|---|" + "---:|" * (len(rows[0]) - 2))
    return "\n".join([*lines, "", NOTE, ""])


def latex(rows):
    def escape(line):
        for character, code in {"&": r"\&", "%": r"\%", "_": r"\_", "±": r"$\pm$", "—": "--"}.items():
            line = line.replace(character, code)
        return line

    lines = [" & ".join(map(escape, row)) + r" \\" for row in rows]
    head, body = lines[0], [r"\addlinespace " * bool(row[0]) + line for row, line in zip(rows[1:], lines[1:])]
    body[0] = lines[1]
    begin, end = r"\begin{tabular}{ll" + "r" * (len(rows[0]) - 2) + "}", r"\end{tabular}"
    return "\n".join(["% " + NOTE, begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end, ""])
