"""The tables and numbers, as Markdown.

`sections` has all of them by name. A document holds them between `<!-- results: NAME -->` and `<!-- end -->`, and
tables.md holds every table below the sentence that says how to read it.
"""

import compare
import contest
import estimates
import numpy as np
import pandas as pd
import paper
import tables
import varied
from tables import DASH, TEST

# The names of programs in speed.csv, and what the others are.
OURS, SB3, BARE = "ppo_clip_continuous.py", "SB3 PPO", "bare environment"
PROGRAMS = {
    OURS: f"`{OURS}`",
    SB3: "Stable-Baselines3's PPO",
    "rl-tools PPO": "rl-tools' PPO, in C++",
    "ppo_continuous_action.py": "CleanRL's `ppo_continuous_action.py`",
}
SCALAR = ["kl_fixed", "kl_adaptive"]
ENOUGH_TASKS = 4  # to say of a coefficient whether it beats the clip
# Heading of each table in tables.md, and how to read it.
HOW_TO_READ = {
    "final_return": (
        "Final returns beside the paper's",
        "Final return (the training episodes' mean return of an iteration, averaged over the iterations of the last "
        "10 % of steps): mean ± standard deviation with divisor n, and in brackets the seeds; below it the paper's, "
        "and p of Welch's test between both means after Holm's correction for all tests of the table.",
    ),
    "scalar_tests": (
        "Scalar penalties beside the clip",
        "p of Welch's test between the mean final returns of a scalar penalty and of the clip, after Holm's "
        "correction for all tests of the table; `differs` means that it is below 0.05.",
    ),
    "aggregate": (
        "All tasks together",
        "Score, averaged over seeds and tasks: 0 is a random policy, 1 the paper's PPO-Clip; and the probability that "
        "a run returns more than a run of the clip, averaged over tasks, where an interval that holds 0.5 decides "
        "nothing. In brackets 95 % stratified bootstrap intervals; a run that diverged scores 0.",
    ),
    "scalar_region": (
        "How far an iteration moves the policy",
        "Approximate KL in an iteration's last epoch (nats), and over all its epochs the share of the samples outside "
        "the band [1−ε, 1+ε]: medians over the iterations of all seeds. The KL that kl_adaptive holds near its target "
        "is another: the closed form, from the rollout's policy to the one after the last epoch (`kl/final`).",
    ),
    "kill_peak": (
        "Largest share that the clip switches off",
        "The share of I_kill under the clip, averaged over the five seeds of the protocol: its largest value over the "
        "iterations, beside the largest in the data of the paper's site.",
    ),
    "breakout": (
        "HalfCheetah-v4: seeds that break out",
        f"How many seeds end above {paper.BREAKOUT:,}, a limit in the gap between those of the clip.",
    ),
    "peer": (
        "Beside Stable-Baselines3",
        "Final returns here and of Stable-Baselines3's PPO with the same two objectives (study/peer.py), and p of "
        "Welch's tests after Holm's correction for all tests of the table.",
    ),
    "knobs": (
        "Final return over ε, β and the KL target",
        "Mean ± standard deviation, and in brackets the seeds, of runs in which this argument alone differs from the "
        "default; of the default those with the same seeds.",
    ),
    "knobs_region": (
        "How far the policy moves over ε, β and the KL target",
        "Median KL of an iteration and share outside the band of the same runs, whose band is that of their own ε.",
    ),
    "settings": (
        "Final return over other arguments",
        "The same for arguments other than ε, β and the KL target.",
    ),
    "betas": (
        "Other coefficients",
        "Final return with the files of betas/: mean ± standard deviation with divisor n, and in brackets the seeds.",
    ),
    "betas_tests": (
        "Other coefficients beside the clip",
        "p of Welch's test between the mean final returns of a coefficient and of the clip, after Holm's correction "
        "for all tests of the table; `differs` means that it is below 0.05.",
    ),
    "betas_aggregate": (
        "Other coefficients, all tasks together",
        "As the aggregate above, over the tasks that a coefficient was trained on.",
    ),
    "betas_region": (
        "How far the other coefficients let the policy move",
        "Median KL of an iteration and share outside the band, as above.",
    ),
    "screening": (
        "Does any β_t beat the clip? Stage 1",
        "Mean final return of seeds 0 to 2, and the screening score by which the rule of docs/protocol.md chooses.",
    ),
    "distance": (
        "Does any β_t beat the clip? Shape or step size",
        "Of each setting of stage 1 the mean final return minus what the clip returns at the same median KL of an "
        "iteration, interpolated between its values of ε; a dash where no two of them have that KL between them, and "
        "no row where that is so on every task. Below, p of the test that all settings are one parabola of log KL, "
        "after Holm's correction; `differs`: they are not.",
    ),
    "confirmation": (
        "Does any β_t beat the clip? Stages 2 and 3",
        "Final returns of seeds 20 to 34; and the probability that a run of one setting returns more than a run of "
        "another, on each task and on all, with its interval of 97.5 %: see docs/protocol.md. On a single task a "
        "probability within 0.29 to 0.71 does not differ significantly from 0.5, even without a correction. p is that "
        "of a stratified Wilcoxon test (van Elteren 1960), not corrected: it is to be below 0.025.",
    ),
    "confirmation_region": (
        "Does any β_t beat the clip? How far these settings let the policy move",
        "Median KL of an iteration and share outside the clip's band [0.8, 1.2], as above.",
    ),
    "transfer": (
        "Does any β_t beat the clip? Stage 3, other tasks",
        "The same as of stage 2, on two tasks on which nothing was tuned.",
    ),
    "transfer_region": (
        "Does any β_t beat the clip? How far stage 3 lets the policy move on other tasks",
        "The same as of stage 2.",
    ),
    "return_over_kl": (
        "Final return over KL, every setting",
        "Final return, and after @ the median KL of an iteration, of each variant and of each value of an argument of "
        "its surrogate.",
    ),
    "cost": (
        "Cost",
        "Core-hours of all runs, of one thread each, and the median rate of those that are compared, start included; "
        "a dash where only the contest of docs/protocol.md has runs.",
    ),
}


def differing(tests):
    """How many of these tests found a difference, as `3 of 14`."""
    made = [p for p in tests.values() if not np.isnan(p)]
    return f"{sum(p < estimates.LEVEL for p in made)} of {len(made)}"


def short_return_table(runs):
    """A row a task: of each variant our mean ± standard deviation, and the paper's."""
    variants = compare.present(runs["variant"])
    heads = [head for variant in variants for head in (variant, "paper")]
    rows = [["task", *heads]]
    for task, of_task in runs.groupby("env_id", observed=True):
        row = [task]
        for variant in variants:
            ours = tables.mean_and_std(of_task[of_task["variant"] == variant])
            row += [ours.partition(" (")[0], tables.published(task, variant, paper.REFERENCE, count=False)]
        rows.append(row)
    return tables.markdown(rows)


def returns_by_task(runs):
    """{variant: {task: mean ± standard deviation of the final returns, as text}}."""
    found = {}
    for (variant, task), cell in runs.groupby(["variant", "env_id"], observed=True):
        found.setdefault(variant, {})[task] = tables.mean_and_std(cell)
    return found


def equal_pairs(elsewhere, trainer):
    """Of how many pairs in elsewhere.csv, a trainer's own loss and klip's with one seed, the hashes are equal."""
    hashes = elsewhere[elsewhere["trainer"] == trainer].pivot(index="seed", columns="loss", values="params_sha256")
    hashes = hashes[["own", "klip"]].dropna()
    return f"{(hashes['own'] == hashes['klip']).sum()} of {len(hashes)}"


def newest_table(newest, of_pins):
    """Final returns of the clip with newer packages, and, from returns_by_task, with those of the study."""
    rows = [["task", "versions", "final return"]]
    for task, cell in newest.groupby("env_id", observed=True):
        rows.append([task, cell["versions"].iloc[0].replace("=", " "), tables.mean_and_std(cell)])
        rows.append(["", "those of the study", of_pins["clip"][task]])
    return tables.markdown(rows, labels=2)


def peer_table(runs):
    """Clip and β = 1 beside Stable-Baselines3's, of runs as long as the paper's."""
    ours = tables.as_long_as(runs, paper.REFERENCE)
    sides, tests = {}, {}
    for task, of_task in paper.PEER.groupby("task"):
        here = {v: varied.runs_of(ours[ours["env_id"] == task], v) for v in ("clip", "kl_fixed")}
        there = {
            v: of_task[of_task["beta"] == beta].assign(diverged=False) for v, beta in (("clip", ""), ("kl_fixed", "1"))
        }
        sides[task] = {"ours": here, "Stable-Baselines3": there}
        for name, side in sides[task].items():
            tests[task, name] = estimates.welch(*(part["final_return"].dropna() for part in side.values()))
        for variant in here:
            pair = (here[variant], there[variant])
            tests[task, variant] = estimates.welch(*(part["final_return"].dropna() for part in pair))
    tests = tables.corrected(tests)
    rows = [["task", "", "clip", "kl_fixed", f"{TEST}, kl_fixed and clip"]]
    for task, of_task in sides.items():
        for name, side in of_task.items():
            rows.append([task, name, *map(tables.mean_and_std, side.values()), tables.verdict(tests[task, name])])
        rows.append(
            [
                task,
                f"{TEST}, ours and theirs",
                *(tables.verdict(tests[task, variant]) for variant in ("clip", "kl_fixed")),
                "",
            ]
        )
    return tables.markdown(rows, labels=2)


def breakout_table(runs):
    """On the bimodal task: how many seeds end above the gap between the modes."""
    rows = [["variant", "seeds", f"above {paper.BREAKOUT:,}"]]
    for variant, of_variant in runs[runs["env_id"] == paper.BIMODAL].groupby("variant", observed=True):
        above = (of_variant["final_return"] > paper.BREAKOUT).sum()
        rows.append([variant, f"{len(of_variant)}", f"{above}"])
    return tables.markdown(rows)


def kill_peak_table(runs, curves):
    """The largest share of I_kill in an iteration of clip, of the mean over the protocol's seeds, here and in the
    paper."""
    of_clip = varied.runs_of(tables.as_long_as(runs, paper.REFERENCE), "clip")
    of_clip = of_clip[of_clip["seed"].isin(paper.SEEDS)]
    rows = [["task", "ours", "paper"]]
    for task, of_task in of_clip.groupby("env_id", observed=True):
        published = paper.TABLE.loc[task, "kill_peak"]
        if not np.isnan(published):
            peak = curves[curves["run"].isin(of_task["run"])].groupby("global_step")["kill"].mean().max()
            rows.append([task, f"{100 * peak:.1f} % ({len(of_task)})", f"{100 * published:.1f} % (5)"])
    return tables.markdown(rows)


def screening_table(runs, scores):
    """Stage 1: of each setting the mean final return on each task, and its score."""
    rows = [["setting", *contest.SCREENING_TASKS, "screening score"]]

    for setting in contest.SETTINGS:
        of_setting = runs[runs["setting"] == setting]
        means = of_setting.groupby("env_id", observed=True)["final_return"].mean()
        entries = [tables.number(means[task]) for task in contest.SCREENING_TASKS]
        rows.append([f"`{setting}`", *entries, tables.number(scores[setting], 3)])
    return tables.markdown(rows)


def settings_over_kl(runs, curves):
    """{task: {setting: (log KL, final returns (seeds,))}} of the runs of a stage of contest.py that have a return."""
    found = {}
    for (task, setting), cell in runs.dropna(subset="final_return").groupby(["env_id", "setting"], observed=True):
        kl = tables.median_kl(cell, curves)
        if 0 < kl < np.inf:
            found.setdefault(task, {})[setting] = (np.log(kl), cell["final_return"].to_numpy())
    return found


def clip_line(settings):
    """The log KLs and mean returns of the clip at each ε, by KL, from {setting: (log KL, returns)} of a task."""
    places = sorted((settings[name][0], settings[name][1].mean()) for name in contest.CLIPS if name in settings)
    return [log_kl for log_kl, _ in places], [mean for _, mean in places]


def beside_clip_line(settings, setting):
    """How much more a setting returns than the clip does with the ε at which it has the same KL, as text; a dash where
    no ε has it."""
    log_kls, means = clip_line(settings)
    log_kl, returns = settings[setting]
    of_clip = np.interp(log_kl, log_kls, means, left=np.nan, right=np.nan)
    return DASH if np.isnan(of_clip) else f"{round(float(returns.mean() - of_clip), 9):+,.0f}"


def lack_of_fit(found):
    """{task: what the corrected test says, whether all settings are one function of the KL} of settings_over_kl's
    result."""
    fits = {task: estimates.lack_of_fit(*zip(*settings.values(), strict=True)) for task, settings in found.items()}
    return {task: tables.verdict(p) for task, p in tables.corrected(fits).items()}


def distance_table(found, fits):
    """Each setting of stage 1 beside the clip at the same KL; below it, whether all are one function of the KL. From
    what settings_over_kl and lack_of_fit give."""
    rows = [["setting", *found]]
    for setting in contest.SETTINGS:
        entries = [beside_clip_line(settings, setting) for settings in found.values()]
        if setting not in contest.CLIPS and set(entries) != {DASH}:
            rows.append([f"`{setting}`", *entries])
    return tables.markdown([*rows, ["lack of fit", *fits.values()]])


def contest_tables(runs, curves, comparisons):
    """Two tables of stage 2 or 3: of each setting the final returns and of each contest.Comparison the test; and how
    far each setting lets the policy move."""
    rows = [["comparison", *comparisons[0].scores, "all", "p", "interval"]]
    for comparison in comparisons:
        scores, clip_scores = comparison.scores.values(), comparison.clip_scores.values()
        of_tasks = [estimates.improvement(*pair) for pair in zip(scores, clip_scores, strict=True)]
        rows.append(
            [
                f"`{comparison.setting}` over `{comparison.clip}`",
                *(tables.number(chance, 2) for chance in of_tasks),
                tables.estimate(comparison.improvement, 3),
                tables.number(estimates.improvement_p(*scores, *clip_scores), 4),
                beside_even(comparison.improvement),
            ]
        )
    settings = {name for comparison in comparisons for name in (comparison.setting, comparison.clip)}
    runs = runs[runs["setting"].isin(settings)]
    returns = tables.crossed(runs, ["setting"], "env_id", tables.mean_and_std)
    regions = tables.crossed(runs, ["setting"], "env_id", lambda cell: tables.region(cell, curves))
    return f"{returns}\n\n{tables.markdown(rows)}", regions


def beside_even(improvement):
    """Where the interval of (probability of improvement, low, high) lies."""
    _, low, high = improvement
    if low > 0.5:
        return "above 0.5"
    return "below 0.5" if high < 0.5 else "contains 0.5"


def answer_table(choice, confirmed, over_control, control, beside_earlier):
    """The probabilities of improvement of the finalists and of the control of contest.py, a row a setting."""
    heads = ("the clip", "the clip with ε = 0.25", "the clip's seeds 0 to 4")
    rows = [["setting", *(f"over {head}" for head in heads)]]
    columns = [[*confirmed, control], over_control, beside_earlier]
    for setting in [*choice.finalists, contest.CONTROL]:
        found = [{each.setting: each.improvement for each in column}.get(setting) for column in columns]
        rows.append([f"`{setting}`", *(tables.estimate(improvement, 3) for improvement in found)])
    return tables.markdown(rows)


def chances(comparisons):
    """The probability of improvement of each setting, in words."""
    *others, last = [f"{tables.estimate(each.improvement, 3)} for `{each.setting}`" for each in comparisons]
    return f"{', '.join(others)} and {last}"


def contest_sections(every_run, curves):
    """The tables of all stages of contest.py, and the probabilities of improvement."""
    first = contest.first_stage(every_run)
    second = contest.second_stage(every_run)
    third = contest.third_stage(every_run)
    earlier = contest.earlier_clip(every_run)
    scores = contest.screening_scores(first)
    choice = contest.chosen(scores)
    confirmed = contest.confirmed(second, choice)
    transferred = contest.transferred(third, choice)
    *over_control, control = contest.with_control(second, choice)
    # First all that are over the clip at its default.
    confirmation, confirmation_region = contest_tables(second, curves, [*confirmed, control, *over_control])
    transfer, transfer_region = contest_tables(third, curves, transferred)
    over_kl = settings_over_kl(first, curves)
    fits = lack_of_fit(over_kl)
    return {
        "screening": screening_table(first, scores),
        "distance": distance_table(over_kl, fits),
        "lack_of_fit": ", ".join(f"{told} on {task}" for task, told in fits.items()),
        "confirmation": confirmation,
        "confirmation_region": confirmation_region,
        "over_clip": chances(confirmed),
        "over_control": chances(over_control),
        "answer": answer_table(
            choice, confirmed, over_control, control, contest.beside_earlier_clip(second, earlier, choice)
        ),
        "transfer": transfer,
        "transfer_region": transfer_region,
        "transfer_chances": chances(transferred),
        "over_all_tasks": chances(contest.over_all_tasks(second, third, choice)),
        "with_earlier_clip": chances(contest.with_earlier_clip(second, earlier, choice)),
        "earlier_beside_clip": tables.estimate(contest.earlier_beside_clip(second, earlier, choice).improvement, 3),
    }


def extreme_kls(runs, curves):
    """The smallest and the largest median KL of an iteration among tasks, each with its task."""
    kls = {task: tables.median_kl(of_task, curves) for task, of_task in runs.groupby("env_id", observed=True)}
    extremes = (min(kls, key=kls.get), max(kls, key=kls.get))
    return tuple(f"{tables.kl_text(kls[task])} ({task})" for task in extremes)


def kl_numbers(runs, curves):
    """The smallest and the largest median KL of an iteration, under β = 1 and under the clip."""
    of_fixed = runs[(runs["variant"] == "kl_fixed") & (runs.get("--beta") == 1)]
    names = ("smallest_kl", "largest_kl", "smallest_clip_kl", "largest_clip_kl")
    kls = [*extreme_kls(of_fixed, curves), *extreme_kls(varied.runs_of(runs, "clip"), curves)]
    return dict(zip(names, kls, strict=True))


def above_clip(found):
    """Of how many coefficients that were trained on enough tasks, from {variant: Aggregate}, the interval of the
    probability of improvement over clip lies above 0.5, as `0 of 12`."""
    improvements = [
        aggregate.improvement
        for variant, aggregate in found.items()
        if variant in paper.BETAS and aggregate.improvement and len(aggregate.tasks) >= ENOUGH_TASKS
    ]
    return f"{sum(low > 0.5 for _, low, _ in improvements)} of {len(improvements)}"


def split_table(runs, later_clip):
    """The probability of improvement over the clip of the scalar penalties, on all tasks and on each family of them;
    and of MuJoCo's tasks with later_clip, the clip's runs of the contest, as well."""
    discrete = runs["env_id"].isin(paper.DISCRETE)
    orders = {name: runs[name].dtype for name in ("env_id", "variant")}
    families = {
        "all seven": runs,
        "the five of MuJoCo, with continuous actions": runs[~discrete],
        "the same, with the clip's seeds 20 to 34, too": pd.concat([runs[~discrete], later_clip]).astype(orders),
        " and ".join(paper.DISCRETE): runs[discrete],
    }
    rows = [["tasks", *SCALAR]]
    for name, of_family in families.items():
        found = tables.aggregates_of(of_family, reference=paper.REFERENCE)
        rows.append([name, *(tables.estimate(found[variant].improvement) for variant in SCALAR)])
    return tables.markdown(rows)


def minutes_table(runs):
    """How long runs took, a row a task."""
    rows = [["task", "steps", "minutes (median)", "from", "to"]]
    for task, of_task in runs.groupby("env_id", observed=True):
        minutes = of_task["wall_time_s"] / 60
        spread = (minutes.median(), minutes.min(), minutes.max())
        rows.append([task, f"{of_task['steps'].iloc[0]:,}", *(tables.number(value, 1) for value in spread)])
    return tables.markdown(rows)


def speed_table(speed):
    """Of each measurement in speed.csv, one machine on one day, a line that says which, and a table of medians."""
    parts = []
    for (task, processor, date, versions), of_machine in speed.groupby(["env_id", "processor", "date", "versions"]):
        medians = of_machine.groupby("program")["step"].median().sort_values()
        rows = [["program", "µs a step", "times as fast as Stable-Baselines3"]]
        for program, step in medians.drop(BARE).items():
            rows.append([PROGRAMS[program], tables.number(step), tables.number(medians[SB3] / step, 1)])
        where = f"{task}, {processor}, {date}; {versions.replace('=', ' ')}. Medians of {of_machine['round'].nunique()}"
        parts += [f"{where} rounds:", tables.markdown(rows)]
    return "\n\n".join(parts)


def sections(runs, every_run, curves, speed):
    """What the documents say of the results, by name, as Markdown: tables, and numbers to stand within a sentence."""
    main = compare.merged(paper.main_runs(runs))
    scalar = main[~main["variant"].isin(compare.FORMS[1:])]
    betas = paper.betas_runs(runs)
    same = compare.identical_triples(runs)
    points = varied.knob_points(runs, paper.not_apart(every_run))
    of_knobs = points["knob"].isin(paper.KNOBS)
    beside_paper = tables.tests_beside_reference(main, paper.REFERENCE)
    overall = tables.aggregates_of(scalar, reference=paper.REFERENCE)
    betas_overall = tables.aggregates_of(betas, reference=paper.REFERENCE)
    later_clip = contest.second_stage(every_run)
    later_clip = later_clip[later_clip["setting"] == contest.CLIP].assign(variant=scalar["variant"].iloc[0])
    protocol = paper.main_runs(runs)
    protocol = protocol[protocol["seed"].isin(paper.SEEDS)]

    def region_of(cell):
        return tables.region(cell, curves)

    def return_and_kl(cell):
        return f"{tables.mean_and_std(cell)} @ {tables.kl_text(tables.median_kl(cell, curves))}"

    found = {
        "final_return": tables.final_return_table(main, compare.present(main["variant"]), same, paper.REFERENCE),
        "short_return": short_return_table(main),
        "scalar_tests": tables.tests_table(scalar),
        "aggregate": tables.aggregate_table(overall),
        "scalar_region": tables.crossed(scalar, ["variant"], "env_id", region_of),
        "kill_peak": kill_peak_table(main, curves),
        "breakout": breakout_table(scalar),
        "peer": peer_table(main),
        "knobs": varied.knob_tables(points[of_knobs], tables.mean_and_std),
        "knobs_region": varied.knob_tables(points[of_knobs], region_of),
        "settings": varied.knob_tables(points[~of_knobs], tables.mean_and_std),
        "betas": tables.crossed(betas, ["variant"], "env_id", tables.mean_and_std),
        "betas_tests": tables.tests_table(betas),
        "betas_aggregate": tables.aggregate_table(betas_overall),
        "betas_region": tables.crossed(betas, ["variant"], "env_id", region_of),
        "return_over_kl": tables.crossed(
            varied.settings(runs, paper.not_apart(every_run)), ["setting"], "env_id", return_and_kl
        ),
        "cost": tables.cost_table(runs, every_run),
        "triples": f"{same.sum()} of {len(same)}",
        "differing": differing(beside_paper),
        "scalar_differing": differing(tables.tests_beside(scalar)),
        "split": split_table(scalar, later_clip),
        "minutes": minutes_table(every_run),
        "speed": speed_table(speed),
        "memory": tables.number(speed["memory"][speed["program"] == OURS].max()),
        "grid_runs": f"{len(protocol):,}",
        "grid_core_hours": tables.number(tables.core_hours(protocol), 1),
        "runs": f"{len(every_run):,}",
        "core_hours": tables.number(tables.core_hours(every_run), 1),
    }
    # Ant-v4 is the only task on which both penalties differ from the clip.
    others = scalar[~scalar["env_id"].isin(["Ant-v4", *paper.DISCRETE])]
    without_ant = tables.aggregates_of(others, reference=paper.REFERENCE)
    for variant in SCALAR:
        found[f"improvement_{variant}_without_Ant_v4"] = tables.estimate(without_ant[variant].improvement)
    numbers = kl_numbers(main, curves) | {"coefficients_above_clip": above_clip(betas_overall)}
    return found | numbers | contest_sections(every_run, curves)
