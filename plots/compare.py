"""Decides which runs are compared: of a task one version of each script and one setting, and of these one run a seed.

`comparison` turns the rows of runs.csv, which are text, into a table in which task and variant are ordered
categoricals, so that whatever is grouped or sorted by them comes in their order, and each argument is a column, named
as on the command line (`--clip-coef`), with the value that the run recorded.
"""

import json
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import sweep

TASKS = sweep.names("TASKS")
FORMS = list(sweep.FORMS)  # of one update: trained with one seed, they end with the same bits
MAIN = [*FORMS, "kl_fixed", "kl_adaptive"]  # the variants that benchmark.sh trains if none is named
BETAS = [
    "clip_higher",
    "dual_clip",
    "rollback",
    "spo",
    "sapo",
    "cispo",
    "soft",
    "none",
    "ano",
    "dpo",
    "aband",
    "clip_eps",
    "bpo",
    "r2vpo",
    "dppo",
    "vespo",
]
VARIANTS = [*MAIN, *BETAS]
EPSILON = "--clip-coef"  # the argument of the surrogate that all scripts have
ABSENT = ""  # of an argument that a script does not have; equal to itself, unlike NaN


class Reference(NamedTuple):
    """Published returns to compare with: by task and variant the mean, the standard deviation std (divisor n), the
    number of seeds and the steps of a run; by task what a random policy returns; and how a caption calls all that."""

    returns: pd.DataFrame
    random: pd.Series
    name: str


class UnreadableReference(Exception):
    """Why a file of published returns cannot be used."""


def read_reference(path):
    """A Reference from a CSV file with the columns task, variant, mean, std, seeds, steps and random_policy."""
    try:
        table = pd.read_csv(path, comment="#")
        returns = table.set_index(["task", "variant"])[["mean", "std", "seeds", "steps"]].astype(float).sort_index()
        random = table.groupby("task")["random_policy"].first()
    except (OSError, ValueError, KeyError) as error:
        raise UnreadableReference(f"--reference {path} cannot be read: {error}") from error
    return Reference(returns, random, "reference")


def flag(name):
    """An argument's name as on the command line, which is also the name of its column."""
    return "--" + name.replace("_", "-")


def ordered(values, known):
    """Values as an ordered categorical: those that are known first, in their order, the others by the alphabet."""
    found = set(values)
    others = sorted(found - set(known))
    categories = [name for name in known if name in found] + others
    return pd.Categorical(values, categories, ordered=True)


def comparable(value):
    """An argument's value such that equal ones are equal and sort: None and lists become text, and 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def columns(args):
    """Arguments, a dict, by the names and with the values of their columns."""
    return {flag(name): comparable(value) for name, value in args.items()}


def arguments(runs):
    """The arguments that runs recorded, a column each (as on the command line) and a row a run; ABSENT where a run has
    none of that name."""
    rows = [columns(json.loads(text)) for text in runs["args"]]
    return pd.DataFrame(rows, runs.index, dtype=object).drop(columns="--exp-name").fillna(ABSENT)


def typed(rows, tasks=TASKS, variants=VARIANTS):
    """The rows of runs.csv with numbers as numbers, ordered categoricals and a column an argument; and beside them

    steps: how many a run was to train; diverged: whether it did.
    """
    args = rows["args"].map(json.loads)
    runs = rows.assign(
        env_id=ordered(rows["env_id"], tasks),
        variant=ordered(rows["variant"], variants),
        seed=rows["seed"].astype(int),
        final_return=pd.to_numeric(rows["final_return"]),
        diverged=rows["diverged_at"] != "",
        sps=rows["sps"].astype(float),
        wall_time_s=rows["wall_time_s"].astype(float),
        steps=args.map(lambda a: a["total_timesteps"]),
    )
    return pd.concat([runs, arguments(runs)], axis=1)


def flags(runs):
    """The columns of runs that are arguments."""
    return [name for name in runs if name.startswith("--")]


def shared(runs):
    """The arguments that every run has, whatever its variant."""
    return [name for name in flags(runs) if (runs[name] != ABSENT).all()]


def of_one_version(runs):
    """Of a variant's runs of a task those of the version with most runs."""
    counts = runs["version"].value_counts().sort_index()
    return runs[runs["version"] == counts.idxmax()]


def of_one_setting(runs, names):
    """Of some runs those with one setting of these arguments: the one with most runs, then with most steps, then the
    first."""
    if not names:
        return runs
    setting = runs.groupby(names, sort=False).ngroup()
    if setting.nunique() < 2:
        return runs
    firsts = runs[~setting.duplicated()]
    ranks = pd.DataFrame({"runs": -setting.value_counts().loc[setting[firsts.index]].array, "steps": -firsts["steps"]})
    best = ranks.sort_values(list(ranks), kind="stable").index[0]
    return runs[setting == setting[best]]


def left_out_line(place, others, kept):
    """A line that says in which arguments the runs that are left out depart from those that are kept, if any is."""
    main = kept.iloc[0]
    names = [name.removeprefix("--") for name in flags(others) if (others[name] != main[name]).any()]
    return f"{place}: runs with another {', '.join(sorted(names))}: {len(others)}"


def comparison(runs):
    """The runs to compare, of those that typed gives.

    Returns them, all runs of the same versions whatever their settings, and a line for each thing that is left out.
    """
    of_version, chosen, notes = [], [], []
    for (variant, task), of_variant in runs.groupby(["variant", "env_id"], observed=True):
        current = of_one_version(of_variant)
        of_version.append(current)
        others = of_variant.drop(current.index)
        for sha, part in others.groupby("script_sha256", observed=True):
            version = f"script_sha256 {sha[:8] or 'unknown'}"
            notes.append(f"{task}, {variant}: runs of another version, {version}: {len(part)}")
    every_run = pd.concat(of_version).sort_index()
    of_all = shared(every_run)
    own = [name for name in flags(every_run) if name not in of_all]
    for task, of_task in every_run.groupby("env_id", observed=True):
        setting = of_one_setting(of_task, of_all)
        for variant, of_variant in of_task.groupby("variant", observed=True):
            same = setting[setting["variant"] == variant]
            if len(same):
                same = of_one_setting(same, own)
            latest = same.drop_duplicates("seed", keep="last")  # names end in the time
            chosen.append(latest)
            if len(latest) < len(same):
                notes.append(f"{task}, {variant}: older runs of the same seed: {len(same) - len(latest)}")
            if len(same) < len(of_variant):
                kept = same if len(same) else setting
                notes.append(left_out_line(f"{task}, {variant}", of_variant.drop(same.index), kept))
    return (pd.concat(chosen) if chosen else every_run.iloc[:0]), every_run, notes


def main_runs(runs):
    """The runs of the variants that benchmark.sh names."""
    return runs[runs["variant"].isin(MAIN)]


def betas_runs(runs):
    """The runs of other variants than those of benchmark.sh, and the clip's on their tasks."""
    others = ~runs["variant"].isin(MAIN)
    beside = (runs["variant"] == "clip") & runs["env_id"].isin(runs["env_id"][others])
    return runs[others | beside]


def identical_triples(runs):
    """Of each (task, seed) that clip, klip and phi all have: whether they ended with the same parameters."""
    forms = runs[runs["variant"].isin(FORMS) & (runs["params_sha256"] != "")]
    hashes = forms.groupby(["env_id", "seed"], observed=True)["params_sha256"]
    return (hashes.nunique() == 1)[hashes.size() == len(FORMS)]


def merged(runs):
    """The runs with clip, klip and phi as one variant, named `clip = klip = phi`, if wherever all three ran they are
    identical; else as they are."""
    same = identical_triples(runs)
    if same.empty or not same.all():
        return runs
    together = " = ".join(FORMS)
    variants = runs["variant"].astype(str).replace(dict.fromkeys(FORMS, together))
    runs = runs.assign(variant=ordered(variants, [together, *VARIANTS]))
    return runs.drop_duplicates(["env_id", "variant", "seed"])


def once(runs):
    """The runs without klip and phi, where all three forms are identical: those of clip stand for them."""
    same = identical_triples(runs)
    if same.empty or not same.all():
        return runs
    return runs[~runs["variant"].isin(FORMS[1:])]


def first_name(variant):
    """A variant's name in the paper and among the colours: of the merged forms clip."""
    return variant.partition(" = ")[0]


def runs_of(runs, variant):
    """The runs of a variant; those of clip also where it is merged with its other forms."""
    return runs[runs["variant"].astype(str).map(first_name) == variant]


def present(column):
    """The categories that a column of ordered categoricals holds, in their order."""
    return list(column.cat.remove_unused_categories().cat.categories)


def run_scores(runs, reference):
    """The score of each run: 0 is a random policy, 1 the reference's clip, and a run that diverged scores 0. NaN where
    there is no return, or where the reference has no such anchors for the task, or runs of another length."""
    tasks = runs["env_id"].astype(str)
    steps = tasks.map(reference.returns["steps"].groupby("task").first())
    zero = tasks.map(reference.random).where(runs["steps"] == steps)
    one = tasks.map(reference.returns["mean"].xs("clip", level="variant"))
    score = (runs["final_return"] - zero) / (one - zero)
    return score.mask(runs["diverged"] & zero.notna(), 0.0)


def scores(runs, reference):
    """The scores of the runs as {variant: {task: array (seeds,)}}.

    Tasks without anchors are left out, and tasks with a single run, which shows no spread, if there are others.
    """
    return by_cell(runs.assign(score=run_scores(runs, reference)).dropna(subset="score"))


def ranks(runs):
    """What can be compared without a reference, as scores gives it: final returns; a run that diverged or has none is
    below all others of its task."""
    lowest = runs.groupby("env_id", observed=True)["final_return"].transform("min")
    return by_cell(runs.assign(score=runs["final_return"].fillna(lowest.fillna(0) - 1)))


def by_cell(runs):
    """The column score as {variant: {task: array (seeds,)}}; of a variant the tasks with several runs, if there are
    any."""
    cells = runs.groupby(["variant", "env_id"], observed=True)["score"].agg(np.array)
    found = {}
    for variant in present(runs["variant"]):
        of_tasks = cells[variant].to_dict()
        several = {task: values for task, values in of_tasks.items() if len(values) > 1}
        found[variant] = several or of_tasks
    return found


def knob_points(runs, every_run):
    """The runs in which one argument alone differs from those that are compared, and of these the ones with the same
    seeds; beside the columns of runs

    knob: the argument; value: its value as an ordered categorical of text.
    """
    points = []
    for place, chosen in runs.groupby(["env_id", "variant"], observed=True):
        task, variant = place
        alike = every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)]
        differs = alike[flags(alike)] != chosen[flags(alike)].iloc[0]
        alone = differs.sum(axis=1) == 1
        for knob in differs.columns[differs[alone].any()].drop("--total-timesteps", errors="ignore"):
            swept = alike[alone & differs[knob]]
            default = chosen[chosen["seed"].isin(swept["seed"])]
            points += [part.assign(knob=knob, value=part[knob]) for part in (swept, default)]
    if not points:
        return every_run.iloc[:0].assign(knob="", value="")
    points = pd.concat(points).drop_duplicates(["knob", "env_id", "variant", "value", "seed"], keep="last")
    words = [isinstance(value, (str, bool)) for value in points["value"]]
    numbers = points["value"][~np.array(words)]
    texts = [*map(str, sorted(set(numbers))), *sorted(set(points["value"][words].map(str)))]
    return points.assign(value=pd.Categorical(points["value"].map(str), texts, ordered=True))


def settings(runs, every_run):
    """The runs that are compared (of the three forms clip's) and those in which arguments of the surrogate differ:
    ε, or what the variant alone has. Beside the columns of runs

    knob and value: those arguments and their values as text, empty for the runs that are compared; setting: the variant
    with both, an ordered categorical.
    """
    compared = once(runs)
    of_all = shared(every_run)
    points = [compared.assign(setting=compared["variant"].astype(str), knob="", value="")]
    for (task, variant), chosen in compared.groupby(["env_id", "variant"], observed=True):
        alike = every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)]
        differs = alike[flags(alike)] != chosen[flags(alike)].iloc[0]
        of_surrogate = [name for name in differs if name == EPSILON or name not in of_all]
        others_agree = ~differs.drop(columns=of_surrogate).any(axis=1)
        is_swept = differs[of_surrogate].any(axis=1) & others_agree
        in_order = alike[is_swept].sort_values(of_surrogate, key=partial(pd.to_numeric, errors="coerce"))
        for index in in_order.index:
            changed = differs.loc[index, of_surrogate]
            names = sorted(changed.index[changed])
            values = [str(alike.loc[index, name]) for name in names]
            words = [word for pair in zip(names, values, strict=True) for word in pair]
            labels = {"setting": " ".join([variant, *words]), "knob": " ".join(names), "value": " ".join(values)}
            points.append(alike.loc[[index]].assign(**labels))
    points = pd.concat(points).drop_duplicates(["env_id", "setting", "seed"], keep="last")
    points = points.sort_values(["variant", "knob"], kind="stable")
    return points.assign(setting=ordered(points["setting"], points["setting"].unique()))
