"""Does any β_t beat the clip? The rule of stage 1 and the test of stages 2 and 3, as docs/protocol.md has them.

A setting is named as on the command line: a file of betas/ and those of its own arguments that depart from their
defaults; `clip` is PPO-Clip with ε = 0.2, and `clip_eps` (0.3) the clip with another ε of the policy.
"""

from typing import NamedTuple

import compare
import estimates
import numpy as np
import pandas as pd
import paper

CLIP = "clip"
CLIPS = [CLIP, "clip_eps", "clip_eps --eps 0.1", "clip_eps --eps 0.4"]
SETTINGS = [
    *CLIPS,
    "clip_higher",
    "dual_clip",
    "rollback",
    "rollback --alpha 0.1 --eps 0.3",
    "spo",
    "spo --eps 0.5",
    "spo --eps 0.7",
    "soft",
    "ano",
    "ano --eps 0.4",
    "dpo",
    "aband",
]
CONTROL = "clip_eps --eps 0.25"  # of stage 3: a clip that should move the policy about as far as the finalists do
SCREENING_TASKS = ["Hopper-v4", "Walker2d-v4", "Ant-v4", "Humanoid-v4"]
SCREENING_SEEDS = range(3)
CONFIRMATION_TASKS = ["HalfCheetah-v4", *SCREENING_TASKS]
CONFIRMATION_SEEDS = range(20, 35)
TRANSFER_TASKS = ["Swimmer-v4", "Reacher-v4"]  # on which nothing was tuned; with the seeds of the confirmation
MOST_FINALISTS = 2


def stage(every_run, tasks, seeds):
    """The runs of a stage that have a setting, a categorical in the order of SETTINGS, with a column more, score. Their
    tasks are in the order of tasks. By the protocol a run that diverged or has no return scores 0; none did."""
    here = every_run[every_run["env_id"].isin(tasks) & every_run["seed"].isin(seeds)]
    here = here[here["setting"].isin([*SETTINGS, CONTROL])]
    here = here.assign(setting=pd.Categorical(here["setting"], [*SETTINGS, CONTROL], ordered=True))
    here = here.assign(env_id=pd.Categorical(here["env_id"].astype(str), tasks, ordered=True))
    here = here.sort_values(["setting", "run"])
    return here.assign(score=compare.run_scores(here, paper.REFERENCE))


def first_stage(every_run):
    """The runs of the screening, as stage gives them."""
    runs = stage(every_run, SCREENING_TASKS, SCREENING_SEEDS)
    return runs[runs["setting"] != CONTROL]


def second_stage(every_run):
    """The runs of the confirmation, and on its tasks those of stage 3's control, as stage gives them."""
    return stage(paper.apart(every_run), CONFIRMATION_TASKS, CONFIRMATION_SEEDS)


def third_stage(every_run):
    """The runs of stage 3's own tasks, as stage gives them. These have no scores, and the test asks only which of two
    runs returns more: so a run's score is its final return."""
    runs = stage(paper.apart(every_run), TRANSFER_TASKS, CONFIRMATION_SEEDS)
    return runs.assign(score=runs["final_return"])


def cells(runs, tasks, seeds):
    """{setting: {task: scores (seeds,)}} of the settings that have all runs of a stage; others have fewer."""
    found = {}
    for setting, of_setting in runs.groupby("setting", observed=True):
        if len(of_setting) == len(tasks) * len(seeds):
            found[setting] = of_setting.groupby("env_id", observed=True)["score"].agg(np.array).to_dict()
    return found


def screening_scores(runs):
    """{setting: screening score} of the settings that have all runs of stage 1: the mean over the tasks of the mean
    score over the seeds."""
    complete = cells(runs, SCREENING_TASKS, SCREENING_SEEDS)
    return {name: float(np.mean([scores.mean() for scores in tasks.values()])) for name, tasks in complete.items()}


class Choice(NamedTuple):
    """What stage 1 decides: the clip with the best ε, and at most two finalists, all of them names of settings."""

    best_clip: str
    finalists: list


def chosen(scores):
    """The Choice that the rule makes from {setting: screening score} of all SETTINGS."""
    ranked = sorted(SETTINGS, key=scores.get, reverse=True)
    finalists = {}  # by file, of which there is at most one
    for name in ranked:
        if name not in CLIPS and scores[name] > scores[CLIP]:
            finalists.setdefault(name.split()[0], name)
    return Choice(max(CLIPS, key=scores.get), list(finalists.values())[:MOST_FINALISTS])


def clips_of_stage_2(choice):
    """The clip at its default and at its best ε, which may be one."""
    return list(dict.fromkeys([CLIP, choice.best_clip]))


def settings_of_stage_2(choice):
    """The settings of stage 2."""
    return [*choice.finalists, *clips_of_stage_2(choice)]


def level(choice):
    """What an interval of stage 2 is to cover: 95 % with one finalist, 97.5 % with two, after Bonferroni."""
    return 1 - estimates.LEVEL / len(choice.finalists)


class Comparison(NamedTuple):
    """A setting beside a clip: the scores of both, {task: (seeds,)}, and (probability of improvement, low, high)."""

    setting: str
    clip: str
    scores: dict
    clip_scores: dict
    improvement: tuple


def compared(complete, pairs, choice):
    """A Comparison of each pair (setting, clip), from what cells gives."""
    found = []
    for setting, clip in pairs:
        scores, clip_scores = complete[setting], complete[clip]
        samples = [*scores.values(), *clip_scores.values()]
        improvement = estimates.interval(estimates.improvement, samples, level=level(choice))
        found.append(Comparison(setting, clip, scores, clip_scores, improvement))
    return found


def confirmed(second, choice):
    """Stage 2: the finalists beside the clip at its default and at its best ε."""
    complete = cells(second, CONFIRMATION_TASKS, CONFIRMATION_SEEDS)
    pairs = [(finalist, clip) for finalist in choice.finalists for clip in clips_of_stage_2(choice)]
    return compared(complete, pairs, choice)


def transferred(third, choice):
    """Stage 3: the finalists beside the clip at its default on the tasks on which nothing was tuned."""
    complete = cells(third, TRANSFER_TASKS, CONFIRMATION_SEEDS)
    return compared(complete, [(finalist, CLIP) for finalist in choice.finalists], choice)


def with_control(second, choice):
    """Stage 3: the finalists beside the control, and the control beside the clip at its default."""
    complete = cells(second, CONFIRMATION_TASKS, CONFIRMATION_SEEDS)
    pairs = [(finalist, CONTROL) for finalist in choice.finalists]
    return compared(complete, [*pairs, (CONTROL, CLIP)], choice)


def over_all_tasks(second, third, choice):
    """The finalists beside the clip at its default on the tasks of stages 2 and 3 together. No part of the protocol."""
    of_second = cells(second, CONFIRMATION_TASKS, CONFIRMATION_SEEDS)
    of_third = cells(third, TRANSFER_TASKS, CONFIRMATION_SEEDS)
    complete = {name: of_second[name] | of_third[name] for name in of_third}
    return compared(complete, [(finalist, CLIP) for finalist in choice.finalists], choice)


def earlier_clip(every_run):
    """The scores of the clip at its default with the seeds of the published grid, {task: (seeds,)}. No part of the
    protocol."""
    runs = stage(paper.not_apart(every_run), CONFIRMATION_TASKS, paper.SEEDS)
    return cells(runs, CONFIRMATION_TASKS, paper.SEEDS)[CLIP]


def with_earlier_clip(second, earlier, choice):
    """The finalists and the control beside the clip at its default, to whose runs those of earlier_clip are added."""
    complete = cells(second, CONFIRMATION_TASKS, CONFIRMATION_SEEDS)
    complete[CLIP] = {task: np.append(scores, earlier[task]) for task, scores in complete[CLIP].items()}
    return compared(complete, [(setting, CLIP) for setting in [*choice.finalists, CONTROL]], choice)


def beside_earlier_clip(second, earlier, choice):
    """The finalists and the control beside the runs of earlier_clip alone."""
    complete = cells(second, CONFIRMATION_TASKS, CONFIRMATION_SEEDS) | {"earlier": earlier}
    return compared(complete, [(setting, "earlier") for setting in [*choice.finalists, CONTROL]], choice)


def earlier_beside_clip(second, earlier, choice):
    """The Comparison of the runs of earlier_clip and those of stage 2: the clip at its default, with other seeds."""
    complete = cells(second, CONFIRMATION_TASKS, CONFIRMATION_SEEDS) | {"earlier": earlier}
    (comparison,) = compared(complete, [("earlier", CLIP)], choice)
    return comparison
