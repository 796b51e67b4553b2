"""Decides which runs are compared, and how they are called.

A run is called by its variant: `clip`, `klip`, the name of a file in betas/. Of several settings of a variant on a task
the one with most runs has that name; each other setting has a name of its own, `clip --clip-coef 0.1`, so that none is
left out. What is left out, runs of another version and the earlier of two runs of one seed, is named.
"""

import json
import re
from typing import NamedTuple

import numpy as np
import pandas as pd
import sweep

FORMS = list(sweep.FORMS)  # of one update: trained with one seed, they end with the same bits
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


def ordered(values, known):
    """Values as an ordered categorical: those that are known first, in their order, the others by the alphabet."""
    found = set(values)
    others = sorted(found - set(known))
    categories = [name for name in known if name in found] + others
    return pd.Categorical(values, categories, ordered=True)


def present(column):
    """The categories that a column of ordered categoricals holds, in their order."""
    return list(column.cat.remove_unused_categories().cat.categories)


def comparable(value):
    """An argument's value such that equal ones are equal and sort: None and lists become text, and 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def arguments(runs):
    """The arguments that runs recorded, a column each (as on the command line) and a row a run; ABSENT where a run has
    none of that name."""
    rows = [
        {"--" + name.replace("_", "-"): comparable(value) for name, value in json.loads(text).items()}
        for text in runs["args"]
    ]
    return pd.DataFrame(rows, runs.index, dtype=object).drop(columns="--exp-name").fillna(ABSENT)


def typed(rows, tasks=(), variants=FORMS):
    """The rows of runs.csv with numbers as numbers, ordered categoricals (the tasks and variants that are named first)
    and a column an argument; and beside them

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


def differences(runs):
    """What differs from the setting after which a variant is called, as text for each run: `--clip-coef 0.1`.

    That setting has most runs: of the arguments that all scripts have, among all runs of a task; of the others, among
    those of the variant.
    """
    of_all = shared(runs)
    own = [name for name in flags(runs) if name not in of_all]
    found = pd.Series("", runs.index)
    for _, of_task in runs.groupby("env_id", observed=True):
        base = of_one_setting(of_task, of_all)
        for variant, of_variant in of_task.groupby("variant", observed=True):
            same = base[base["variant"] == variant]
            expected = of_one_setting(same if len(same) else of_variant, own).iloc[0].copy()
            expected[of_all] = base.iloc[0][of_all]
            for index, row in of_variant[of_all + own].iterrows():
                changed = [name for name in of_all + own if row[name] != expected[name]]
                found[index] = " ".join(f"{name} {row[name]}" for name in changed)
    return found


def by_number(name):
    """A key that sorts `--beta 3` before `--beta 10`."""
    return [float(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", name))]


def comparison(runs):
    """The runs to compare, of those that typed gives, and a line for each thing that is left out.

    A column more, method, is the variant as it was; in the column variant a setting has its name.
    """
    kept, notes = [], []
    for (task, variant), of_variant in runs.groupby(["env_id", "variant"], observed=True):
        current = of_one_version(of_variant)
        kept.append(current)
        for version, part in of_variant.drop(current.index).groupby("version"):
            notes.append(f"{task}, {variant}: runs of another version, {version[:8] or 'unknown'}: {len(part)}")
    of_version = pd.concat(kept).sort_index()
    changed = differences(of_version)
    names = (of_version["variant"].astype(str) + " " + changed).str.strip()
    methods = present(of_version["variant"])
    by_method = sorted(set(names), key=lambda name: (methods.index(name.split(" --")[0]), by_number(name)))
    named = of_version.assign(method=of_version["variant"], variant=ordered(names, by_method))
    latest = named.sort_values("ended", kind="stable").drop_duplicates(["env_id", "variant", "seed"], keep="last")
    for (task, variant), part in named.drop(latest.index).groupby(["env_id", "variant"], observed=True):
        notes.append(f"{task}, {variant}: runs of a seed that ended earlier than another: {', '.join(part['run'])}")
    return latest.sort_index(), notes


def other_libraries(runs):
    """A line for each task whose runs have several versions of a library: they are compared all the same."""
    lines = []
    for task, of_task in runs.groupby("env_id", observed=True):
        counts = of_task["versions"].value_counts()
        if len(counts) > 1:
            several = "; ".join(f"{count} with {versions}" for versions, count in counts.items())
            lines.append(f"{task}: runs with several versions of libraries are averaged: {several}")
    return lines


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
    runs = runs.assign(variant=ordered(variants, [together, *present(runs["variant"])]))
    return runs.drop_duplicates(["env_id", "variant", "seed"])


def first_name(variant):
    """A variant's name among the colours and in a reference: of the merged forms clip."""
    return variant.partition(" = ")[0]


def called(variants, name):
    """The variant of that name, of those that are there, also where it is merged with its other forms; else None."""
    return next((variant for variant in variants if first_name(variant) == name), None)


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
