"""The questions of study/v5/README.md, which fixed them before the first run. None is answered before all its runs are
there."""

from typing import NamedTuple

import estimates
import tables

TASKS = ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5"]
FIVE, FIFTEEN = range(100, 105), range(100, 115)


class Question(NamedTuple):
    """Is a setting above a baseline (or below), by the interval of the probability of improvement?"""

    text: str
    setting: str
    baseline: str
    side: str  # "above" or "below" 0.5
    seeds: range
    level: float  # what the interval covers


QUESTIONS = [
    Question("Is β = 1 below the clip?", "kl_fixed", "clip", "below", FIVE, 0.975),
    Question("Is an adaptive β below the clip?", "kl_adaptive", "clip", "below", FIVE, 0.975),
    Question("Is ε = 0.25 above ε = 0.2?", "clip --clip-coef 0.25", "clip", "above", FIFTEEN, 0.95),
    Question("Is bpo above the clip?", "bpo", "clip", "above", FIFTEEN, 0.975),
    Question("Is bpo above the clip with bpo's own ε = 0.3?", "bpo", "clip --clip-coef 0.3", "above", FIFTEEN, 0.975),
]


def ranked(runs):
    """The runs with a column more, score: the final return, and one below all others of the task where there is none,
    because the run diverged or no episode ended."""
    lowest = runs.groupby("env_id", observed=True)["final_return"].transform("min") - 1
    return runs.assign(score=runs["final_return"].fillna(lowest).fillna(0))


def missing(runs, question):
    """How many runs of a question are not there."""
    here = runs[runs["env_id"].isin(TASKS) & runs["seed"].isin(question.seeds)]
    here = here[here["setting"].isin((question.setting, question.baseline))]
    return 2 * len(TASKS) * len(question.seeds) - len(here)


def answered(runs):
    """Whether all runs of all questions are there."""
    return not any(missing(runs, question) for question in QUESTIONS)


def samples(runs, setting, seeds):
    """The scores of a setting, an array (seeds,) a task."""
    of_setting = runs[(runs["setting"] == setting) & runs["seed"].isin(seeds)]
    return [of_setting["score"][of_setting["env_id"] == task].to_numpy(float) for task in TASKS]


def both_samples(runs, question):
    """The scores of a question's setting and of its baseline, each an array (seeds,) a task."""
    runs = ranked(runs)
    return [samples(runs, setting, question.seeds) for setting in (question.setting, question.baseline)]


def improvement(runs, question):
    """The probability of improvement of a question whose runs are all there, and both ends of its interval."""
    scores, baseline = both_samples(runs, question)
    return estimates.interval(estimates.improvement, [*scores, *baseline], level=question.level)


def improvement_by_task(runs, question):
    """{task: the probability of improvement on it}, of a question whose runs are all there."""
    pairs = zip(TASKS, *both_samples(runs, question), strict=True)
    return {task: float(estimates.improvement(scores, baseline)) for task, scores, baseline in pairs}


def answer(runs, question):
    """A question, and its answer in a sentence."""
    count = missing(runs, question)
    if count:
        return f"**{question.text}** Not answered yet: {count} of its runs are missing."
    value, low, high = improvement(runs, question)
    is_so = high < 0.5 if question.side == "below" else low > 0.5
    said = "Yes" if is_so else "Not shown"
    found = f"{tables.estimate((value, low, high), 3)} ({100 * question.level:g} %)"
    excluded = f"a probability below {tables.number(low, 3)} or above {tables.number(high, 3)} is excluded"
    return f"**{question.text}** {said}: the probability of improvement is {found}; {excluded}."


def answers(runs):
    """All questions and answers, as a list."""
    return "\n".join(f"- {answer(runs, question)}" for question in QUESTIONS)


def returns(runs, of_v4):
    """The picture and final returns of every setting, and below them those of the v4 tasks, once all questions are
    answered.

    runs: of the v5 tasks; of_v4: {setting: {v4 task: text}} of the published study.
    """
    if not answered(runs):
        return "A picture, and a table of returns of all settings beside those of the v4 tasks,\ncome with the answers."
    rows = [["setting", "", *(task.removesuffix("-v5") for task in TASKS)]]
    for setting in dict.fromkeys(runs["setting"]):
        of_setting = runs[runs["setting"] == setting]
        cells = [tables.mean_and_std(of_setting[of_setting["env_id"] == task]) for task in TASKS]
        rows.append([f"`{setting}`", "v5", *cells])
        if setting in of_v4:
            rows.append(["", "v4", *(of_v4[setting].get(task.replace("v5", "v4"), tables.DASH) for task in TASKS)])
    picture = "![The probabilities of improvement, on all tasks and on each](../pictures/v5_chances.png)"
    return f"{picture}\n\n{tables.markdown(rows, labels=2)}"


def sections(runs, planned, of_v4):
    """What the documents say of the v5 tasks, by name, as Markdown."""
    return {
        "v5_progress": f"{len(runs)} of {planned} runs, {runs['diverged'].sum()} of them diverged",
        "v5_answers": answers(runs),
        "v5_returns": returns(runs, of_v4),
    }
