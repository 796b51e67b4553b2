"""Decides which runs are compared: of a task one version of each script and one setting, and of these one run a seed.

`comparison` turns the rows of runs.csv, which are text, into a table in which task and variant are ordered
categoricals, so that whatever is grouped or sorted by them comes in the order of benchmark.sh, and each argument is a
column, named as on the command line (`--clip-coef`).
"""

import importlib
import json
import sys
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import report

import ppo_clip_continuous

HERE = Path(__file__).parent
TASKS = report.names("TASKS")
FORMS = list(report.FORMS)  # of one update: trained with one seed, they end with the same bits
MAIN = report.names("VARIANTS")
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
]
VARIANTS = [*MAIN, *BETAS]
SEEDS = range(5)  # of the paper's protocol
BIMODAL = "HalfCheetah-v4"
BREAKOUT = 3000  # lies in the gap between the two modes of the clip
PAPER = pd.read_csv(HERE / "paper_table.csv", comment="#", index_col="task")
PAPER_CURVES = pd.read_csv(HERE / "paper_curves.csv", comment="#")
PEER = pd.read_csv(HERE / "peer.csv", comment="#", dtype={"beta": str}, keep_default_na=False)
RANDOM = pd.read_csv(HERE / "random_policy.csv", comment="#", index_col="task")["mean"]
SCREENED = "stage1/"  # the folder of runs that, of all pictures, `screening` alone shows
APART = ("stage2/", "stage3/")  # the folders of runs that stand in no comparison but that of contest.py
ABSENT = ""  # of an argument that a script does not have; equal to itself, unlike NaN


def flag(name):
    """An argument's name as on the command line, which is also the name of its column."""
    return "--" + name.replace("_", "-")


KNOBS = [flag(name) for name in report.names("KNOBS")]
SHARED = [flag(field) for field in asdict(ppo_clip_continuous.Args()) if field != "exp_name"]


def ordered(values, known):
    """Values as an ordered categorical: those that are known first, in their order, the others by the alphabet."""
    found = set(values)
    others = sorted(found - set(known))
    categories = [name for name in known if name in found] + others
    return pd.Categorical(values, categories, ordered=True)


@cache
def script(variant, discrete):
    """The default Args of a variant's script as it stands here, and the module of its training loop; None if there is
    no such script, or, with a line on standard error, if it cannot be imported."""
    family = "cartpole" if discrete else "continuous"
    name = f"ppo_{'kl_scalar' if variant in ('kl_fixed', 'kl_adaptive') else variant}_{family}"
    if (HERE.parent / f"{name}.py").exists():
        module = importlib.import_module(name)
        return module.Args(), module
    if (HERE.parent / "betas" / f"{variant}.py").exists():
        try:
            module = importlib.import_module(f"betas.{variant}")
            task = importlib.import_module(f"ppo_klip_{family}").Args().env_id
            return importlib.import_module("betas.loop").parse(module.Args, ["--env-id", task])
        except Exception as error:  # the file may be the user's, and unfinished
            print(f"betas/{variant}.py cannot be imported: {type(error).__name__}: {error}", file=sys.stderr)
    return None


def present_sha256(variant, discrete):
    """script_sha256 of a variant's script as it stands here, or None if there is none."""
    found = script(variant, discrete)
    if found is None:
        return None
    args, loop = found
    return loop.script_sha256(args)


def versions(hashes, num_envs):
    """The versions that runs with these script_sha256 and numbers of environments are of: hashes that were found to
    train to the same bits have one."""
    names = {envs: report.version_names(envs) for envs in set(num_envs)}
    return [names[envs].get(sha, sha) for sha, envs in zip(hashes, num_envs, strict=True)]


def comparable(value):
    """An argument's value such that equal ones are equal and sort: None and lists become text, and 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def columns(args):
    """Arguments, a dict, by the names and with the values of their columns."""
    return {flag(name): comparable(value) for name, value in args.items()}


def default_arguments(variant, discrete):
    """The defaults of a variant's script, by name as on the command line; of one that is not here the clip's."""
    args, _ = script(variant, discrete) or script("clip", discrete)
    return columns(asdict(args))


def arguments(runs):
    """The arguments of runs, a column each (as on the command line) and a row a run.

    A run may lack an argument that is new in its script, or have one that its script had once. So what a run lacks is
    the default of its script, or else what most other runs of its variant have.
    """
    rows = [columns(json.loads(text)) for text in runs["args"]]
    table = pd.DataFrame(rows, runs.index, dtype=object).drop(columns="--exp-name")
    lacking = table.isna()
    for (variant, discrete), of_variant in runs.groupby(["variant", "discrete"], observed=True):
        defaults = default_arguments(variant, discrete)
        of_script = lacking.loc[of_variant.index]
        for name in of_script.columns[of_script.any()]:
            having = table.loc[of_script.index[~of_script[name]], name]
            usual = having.mode()[0] if len(having) else ABSENT
            table.loc[of_script.index[of_script[name]], name] = defaults.get(name, usual)
    return table


def has_discrete_actions(task, exp_names):
    """Whether a task's actions are discrete: the scripts at the top say it in their names; a file of betas/ trains both
    kinds with one name, so where it stands alone the task is asked."""
    for family, discrete in (("_cartpole", True), ("_continuous", False)):
        if any(name.endswith(family) for name in exp_names):
            return discrete
    return (HERE.parent / "betas").exists() and importlib.import_module("betas.loop").has_discrete_actions(task)


def typed(rows):
    """The rows of runs.csv with numbers as numbers, ordered categoricals and a column an argument; and beside them

    steps: how many a run was to train; discrete: whether the task's actions are; diverged: whether the run did;
    version: script_sha256, or what stands for all that train alike.
    """
    args = rows["args"].map(json.loads)
    exp_names = args.map(lambda a: a["exp_name"]).groupby(rows["env_id"]).agg(list)
    discrete = {task: has_discrete_actions(task, names) for task, names in exp_names.items()}
    runs = rows.assign(
        env_id=ordered(rows["env_id"], TASKS),
        variant=ordered(rows["variant"], VARIANTS),
        seed=rows["seed"].astype(int),
        final_return=pd.to_numeric(rows["final_return"]),
        diverged=rows["diverged_at"] != "",
        sps=rows["sps"].astype(float),
        wall_time_s=rows["wall_time_s"].astype(float),
        steps=args.map(lambda a: a["total_timesteps"]),
        discrete=rows["env_id"].map(discrete),
        version=versions(rows["script_sha256"], args.map(lambda a: a["num_envs"])),
    )
    return pd.concat([runs, arguments(runs)], axis=1)


def flags(runs):
    """The columns of runs that are arguments."""
    return [name for name in runs if name.startswith("--")]


def of_one_version(runs):
    """Of a variant's runs of a task those of the version that is compared: the present one if it has runs, else the one
    with most."""
    if runs["version"].nunique() == 1:
        return runs
    sha = present_sha256(runs["variant"].iloc[0], runs["discrete"].iloc[0])
    is_present = runs["version"] == versions([sha] * len(runs), runs["--num-envs"])
    if is_present.any():
        return runs[is_present]
    counts = runs["version"].value_counts().sort_index()
    return runs[runs["version"] == counts.idxmax()]


def departures(run, names):
    """In how many of these arguments a run departs from its script's defaults."""
    defaults = default_arguments(run["variant"], run["discrete"])
    return sum(name in defaults and run[name] != defaults[name] for name in names)


def of_one_setting(runs, names):
    """Of some runs those with one setting of these arguments: of the settings the one with most steps, then with most
    runs, then with fewest departures from the defaults, then the first."""
    if not names:
        return runs
    setting = runs.groupby(names, sort=False).ngroup()
    if setting.nunique() < 2:
        return runs
    firsts = runs[~setting.duplicated()]
    ranks = pd.DataFrame({"steps": -firsts["steps"], "runs": -setting.value_counts().loc[setting[firsts.index]].array})
    ranks["departures"] = [departures(run, names) for run in firsts.to_dict("records")]
    best = ranks.sort_values(list(ranks), kind="stable").index[0]
    return runs[setting == setting[best]]


def apart(runs):
    """The runs in the folders of those that stand apart."""
    return runs[runs["run"].str.startswith(APART)]


def not_apart(runs):
    """The others."""
    return runs[~runs["run"].str.startswith(APART)]


def left_out_line(place, others, kept):
    """A line that says in which arguments the runs that are left out depart from those that are kept, if any is."""
    main = kept.iloc[0]
    names = [name.removeprefix("--") for name in flags(others) if (others[name] != main[name]).any()]
    return f"{place}: runs with another {', '.join(sorted(names))}: {len(others)}"


def comparison(rows):
    """The runs to compare, from the rows of runs.csv.

    Returns them, all runs of the same versions whatever their settings, and a line for each thing that is left out.
    """
    every_run = typed(rows)
    of_version, chosen, notes = [], [], []
    for (variant, task), of_variant in every_run.groupby(["variant", "env_id"], observed=True):
        current = of_one_version(of_variant)
        of_version.append(current)
        others = of_variant.drop(current.index)
        for sha, part in others.groupby("script_sha256", observed=True):
            version = f"script_sha256 {sha[:8] or 'unknown'}"
            notes.append(f"{task}, {variant}: runs of another version, {version}: {len(part)}")
    every_run = pd.concat(of_version).sort_index()
    shared = [name for name in SHARED if name in every_run]
    own = [name for name in flags(every_run) if name not in SHARED]
    for task, of_task in not_apart(every_run).groupby("env_id", observed=True):
        setting = of_one_setting(of_task, shared)
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


def first_name(variant):
    """A variant's name in the paper and among the colours: of the merged forms clip."""
    return variant.partition(" = ")[0]


def runs_of(runs, variant):
    """The runs of a variant; those of clip also where it is merged with its other forms."""
    return runs[runs["variant"].astype(str).map(first_name) == variant]


def present(column):
    """The categories that a column of ordered categoricals holds, in their order."""
    return list(column.cat.remove_unused_categories().cat.categories)


def run_scores(runs):
    """The score of each run: 0 is a random policy, 1 the paper's PPO-Clip, and a run that diverged scores 0. NaN where
    there is no return, or where the task has no such anchors."""
    tasks = runs["env_id"].astype(str)
    zero = tasks.map(RANDOM)
    score = (runs["final_return"] - zero) / (tasks.map(PAPER["clip_mean"]) - zero)
    return score.mask(runs["diverged"] & zero.notna(), 0.0)


def scores(runs):
    """The scores of the runs as {variant: {task: array (seeds,)}}.

    Tasks without anchors are left out, and tasks with a single run, which shows no spread, if there are others.
    """
    scored = runs.assign(score=run_scores(runs)).dropna(subset="score")
    cells = scored.groupby(["variant", "env_id"], observed=True)["score"].agg(np.array)
    found = {}
    for variant in present(scored["variant"]):
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
        alike = not_apart(every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)])
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
    compared = runs[~runs["variant"].isin(FORMS[1:])]
    points = [compared.assign(setting=compared["variant"].astype(str), knob="", value="")]
    for (task, variant), chosen in compared.groupby(["env_id", "variant"], observed=True):
        alike = not_apart(every_run[(every_run["env_id"] == task) & (every_run["variant"] == variant)])
        differs = alike[flags(alike)] != chosen[flags(alike)].iloc[0]
        of_surrogate = [name for name in differs if name in KNOBS or name not in SHARED]
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
