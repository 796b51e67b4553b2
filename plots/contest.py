"""Does any β_t beat the clip? The rule of stage 1 and the test of stage 2, as docs/betas.md has them.

A setting is a file of betas/ with values of its own arguments, all other arguments at their defaults; the clip is one
with ε = 0.2, and betas/clip_eps.py gives it others.
"""

from typing import NamedTuple

import compare
import estimates
import numpy as np

SCREENING_TASKS = ["Hopper-v4", "Walker2d-v4", "Ant-v4", "Humanoid-v4"]
SCREENING_SEEDS = range(3)
CONFIRMATION_TASKS = ["HalfCheetah-v4", *SCREENING_TASKS]
CONFIRMATION_SEEDS = range(20, 35)
MOST_FINALISTS = 2
CLIP = "clip"
OTHER_CLIPS = "clip_eps"  # the clip with another ε of the policy


def setting_of(run):
    """A run's variant, with those of its own arguments that depart from the defaults as on the command line; None where
    another argument departs."""
    defaults = compare.default_arguments(run["variant"], run["discrete"])
    changed = [name for name in defaults if name in run and run[name] != defaults[name]]
    if any(name in compare.SHARED for name in changed):
        return None
    return " ".join([run["variant"], *(f"{name} {run[name]}" for name in changed)])


def stage(every_run, tasks, seeds):
    """The runs of a stage that have a setting, with columns setting (an ordered categorical) and score, which is NaN
    where a run that did not diverge has no return; of a setting, a task and a seed the latest."""
    variants = [variant for variant in compare.present(every_run["variant"]) if variant not in compare.MAIN]
    here = every_run[
        every_run["env_id"].isin(tasks) & every_run["seed"].isin(seeds) & every_run["variant"].isin([CLIP, *variants])
    ]
    here = here.assign(setting=[setting_of(run) for run in here.to_dict("records")]).dropna(subset="setting")
    here = here.drop_duplicates(["env_id", "setting", "seed"], keep="last").sort_values("variant", kind="stable")
    here = here.assign(setting=compare.ordered(here["setting"], here["setting"].unique()))
    return here.assign(score=compare.run_scores(here))


def screening_scores(runs):
    """{setting: mean over tasks of its mean score over seeds} of the runs of stage 1; NaN where a run is missing."""
    needed = len(SCREENING_TASKS) * len(SCREENING_SEEDS)
    found = {}
    for setting, of_setting in runs.groupby("setting", observed=True):
        of_tasks = of_setting.groupby("env_id", observed=True)["score"].mean()
        found[setting] = of_tasks.mean() if len(of_setting) == needed else np.nan
    return found


class Choice(NamedTuple):
    """What stage 1 decides: the clip with the best ε, and the finalists, all of them names of settings."""

    best_clip: str
    finalists: list


def chosen(scores):
    """The Choice that the rule makes from {setting: screening score}. Settings that are not complete do not count."""
    ranked = [name for name in sorted(scores, key=scores.get, reverse=True) if not np.isnan(scores[name])]
    finalists = {}  # by their files: at most one a file
    for name in ranked:
        file = name.partition(" ")[0]
        if file not in (CLIP, OTHER_CLIPS) and CLIP in ranked and scores[name] > scores[CLIP]:
            finalists.setdefault(file, name)
    clips = [name for name in ranked if name.partition(" ")[0] in (CLIP, OTHER_CLIPS)]
    return Choice(clips[0] if clips else CLIP, list(finalists.values())[:MOST_FINALISTS])


def confirmed(runs, choice):
    """{finalist: {clip: (probability of improvement, low, high)}} from the runs of stage 2, beside the clip at its
    default and at its best ε. With two finalists the intervals are of 97.5 %. None where a task is missing."""
    samples = {
        setting: dict(list(of_setting.groupby("env_id", observed=True)["score"]))
        for setting, of_setting in runs.groupby("setting", observed=True)
    }
    level = 1 - estimates.LEVEL / max(len(choice.finalists), 1)

    def beside(finalist, clip):
        sides = [samples.get(name, {}) for name in (finalist, clip)]
        if any(task not in side for side in sides for task in CONFIRMATION_TASKS):
            return None
        arrays = [side[task].to_numpy() for side in sides for task in CONFIRMATION_TASKS]
        return estimates.interval(estimates.improvement, arrays, level=level)

    return {
        finalist: {clip: beside(finalist, clip) for clip in dict.fromkeys([CLIP, choice.best_clip])}
        for finalist in choice.finalists
    }
