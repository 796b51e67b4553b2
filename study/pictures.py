"""The pictures that only the published study has; the others are those of plots/."""

import textwrap
from typing import NamedTuple

import compare
import contest
import estimates
import figures
import paper
import questions
import tables
import theory
from compare import present
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from style import finish, handles, panel_each, panels, style

figures.MODES.update(paper.MODES)


def with_caption(figure):
    """A figure with its caption below, in the picture."""
    width = int(figure.get_figwidth() * 15)
    figure.supxlabel(textwrap.fill(figure.caption, width), fontsize=9, x=0.01, ha="left", color="0.25")
    return figure


def partition(runs, curves):
    """Shares of samples in the three sets, a row a task."""
    if runs.empty:
        return None
    runs = compare.merged(runs)
    tasks = present(runs["env_id"])
    figure, axes = panels(len(tasks), 3, 1.55)
    for row, task in zip(axes, tasks, strict=True):
        for ax, (name, label) in zip(row, theory.SETS.items(), strict=True):
            for variant, cell in runs[runs["env_id"] == task].groupby("variant", observed=True):
                table = figures.wide(cell, curves, name)
                if len(table):
                    figures.draw_mean(ax, table, variant)
            ax.set_ylabel(f"share in {label}")
            ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
            ax.yaxis.set_major_locator(MaxNLocator(4))
            ax.set_ylim(*((None, 1) if name == "in" else (0, None)))
            figures.steps_axis(ax, task == tasks[-1])
        figures.write_remarks(row[1], runs, task, present(runs["variant"]))
        figures.row_title(row, figures.title(runs, task))
    caption = f"Shares of all samples of an iteration's minibatches, mean over seeds ({figures.SMOOTHED})."
    return finish(figure, caption, handles(present(runs["variant"])))


def draw_beside_paper(ax, cell, curves, variant, task):
    """Draws our curve and the paper's, and the paper's final return at the right edge."""
    table = figures.wide(cell, curves, "episodic_return", points=80)
    color = style(variant)["color"]
    mean = table.mean(axis=1)
    std = table.std(axis=1, ddof=0)
    ax.fill_between(table.index, mean - std, mean + std, color=color, alpha=0.25, linewidth=0)
    ax.plot(table.index, mean, color=color, linewidth=2.5)
    name = compare.first_name(variant)
    published = paper.CURVES
    published = published[(published["task"] == task) & (published["variant"] == name)]
    ax.plot(published["global_step"], published["episodic_return"], color="black", linewidth=1, zorder=3)
    final, spread, steps = paper.REFERENCE.returns.loc[(task, name), ["mean", "std", "steps"]]
    edge = 1.04 * steps
    ax.errorbar(edge, final, spread, color="black", marker="d", markersize=3.5, zorder=3)


def paper_curves(runs, curves):
    """Our curves and the paper's, a row a task, a column a variant, of runs as long as the paper's."""
    runs = tables.as_long_as(compare.merged(runs), paper.REFERENCE)
    names = ("clip", "kl_fixed", "kl_adaptive")
    variants = [variant for variant in present(runs["variant"]) if compare.first_name(variant) in names]
    tasks = present(runs["env_id"])
    figure, axes = panels(len(tasks), len(variants), 1.05, sharex="row", sharey="row")
    for row, task in zip(axes, tasks, strict=True):
        for ax, variant in zip(row, variants, strict=True):
            cell = runs[(runs["env_id"] == task) & (runs["variant"] == variant)]
            draw_beside_paper(ax, cell, curves, variant, task)
            figures.write_remarks(ax, runs, task, [variant])
            figures.steps_axis(ax, task == tasks[-1])
        figures.row_title(row, figures.title(runs, task))
    figure.supylabel("episodic return", fontsize=10)
    entries = [Line2D([], [], color=style(v)["color"], linewidth=2.5, label=v) for v in variants]
    entries.append(Line2D([], [], color="black", linewidth=1, label="paper"))
    caption = (
        f"Ours: mean ± one standard deviation ({figures.SMOOTHED}); paper: mean over 5 seeds, not smoothed, and as "
        "diamond its final return "
    )
    return finish(figure, caption + "± one standard deviation.", entries)


def argument_values(arguments):
    """The values in `--alpha 0.1 --eps 0.3`, given as a list of words; where there are several, with their names."""
    values = arguments[1::2]
    if len(values) < 2:
        return "".join(values)
    symbols = {"--alpha": "α", "--eps": "ε"}
    return ", ".join(f"{symbols[name]} {value}" for name, value in zip(arguments[::2], values, strict=True))


def two_lines(setting):
    """The name of a setting's file, and below it its arguments."""
    variant, *arguments = setting.split()
    return f"{variant}\n{argument_values(arguments)}".strip()


def in_a_row(setting):
    """The name of a setting's file and its arguments."""
    return two_lines(setting).replace("\n", " ")


class Chance(NamedTuple):
    """A row of a picture of probabilities of improvement: over all tasks with its interval, and {task: that on it}."""

    label: str
    variant: str
    improvement: tuple
    by_task: dict


def draw_chances(rows, caption, ends):
    """Probabilities of improvement, a Chance a row: on all tasks as a bar, and below it on each. ends: of the axis."""
    marks = dict(zip(rows[0].by_task, "os^vP", strict=True))
    figure, ((ax,),) = panels(1, 1, 0.6 + 0.55 * len(rows))
    for y, row in enumerate(rows):
        figures.draw_interval(ax, y, row.variant, row.improvement, tables.estimate(row.improvement, 3))
        for task, chance in row.by_task.items():
            ax.plot(chance, y + 0.3, marks[task], color=style(row.variant)["color"], markersize=6)
    ax.set_yticks(range(len(rows)), [row.label for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.8)
    ax.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    ax.set_xlim(*ends)
    ax.set_xlabel("probability of improvement")
    look = {"color": "0.4", "linestyle": "", "markersize": 6}
    entries = [Line2D([], [], marker=mark, label=task.rpartition("-")[0], **look) for task, mark in marks.items()]
    return finish(figure, caption, entries)


def chances(runs, choice):
    """Probabilities of improvement in stage 2 of contest.py and beside stage 3's control."""
    *over_control, control = contest.with_control(runs, choice)
    rows = []
    for setting, clip, scores, clip_scores, improvement in [*contest.confirmed(runs, choice), control, *over_control]:
        by_task = {task: estimates.improvement(scores[task], clip_scores[task]) for task in contest.CONFIRMATION_TASKS}
        label = f"{in_a_row(setting)}\nover {in_a_row(clip)}"
        rows.append(Chance(label, setting.split()[0], improvement, by_task))
    caption = (
        "The probability that a run returns more than a run of the clip that its row names, seeds 20 to 34. Diamonds "
        f"and bars: over all five tasks, with {100 * contest.level(choice):g} % bootstrap intervals; below them each "
        "task."
    )
    return draw_chances(rows, caption, (0.15, 0.85))


def v5_chances(runs):
    """The answers of study/v5/README.md."""
    rows = []
    for question in questions.QUESTIONS:
        label = f"{question.setting}\nover {question.baseline}".replace(" --clip-coef", ", ε =")
        variant = "clip_eps" if "--clip-coef" in question.setting else question.setting
        by_task = questions.improvement_by_task(runs, question)
        rows.append(Chance(label, variant, questions.improvement(runs, question), by_task))
    caption = (
        "The probability that a run returns more than a run of the clip that its row names; the penalties with seeds "
        "100 to 104, the others 100 to 114. Diamonds and bars: over all five v5 tasks, with bootstrap intervals of "
        "97.5 %, of 95 % for ε = 0.25; below them each task."
    )
    return draw_chances(rows, caption, (-0.15, 1.05))


def confirmation(runs, choice):
    """Stage 2 of contest.py, with stage 3's control: every run's final return, a panel a task."""
    settings = [*contest.settings_of_stage_2(choice), contest.CONTROL]
    figure, axes, blank = panel_each(contest.CONFIRMATION_TASKS, 0.6 + 0.4 * len(settings), columns=2)
    for task, ax in axes.items():
        for y, setting in enumerate(settings):
            cell = runs[(runs["env_id"] == task) & (runs["setting"] == setting)]
            figures.draw_final(ax, y, cell, setting.split()[0])
        ax.set_yticks(range(len(settings)), map(two_lines, settings))
        ax.set_ylim(len(settings) - 0.4, -0.6)
        ax.set_title(task)
        ax.set_xlabel("final return")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    caption = "Final returns of seeds 20 to 34: dots every seed, diamonds their mean, line that of clip."
    return finish(figure, caption, blank=blank)


def confirmation_kl(runs, curves, choice):
    """How far the settings of stage 2 and the control of stage 3 let the policy move: KL and the shares of the three
    sets, a column a task."""
    settings = [*contest.settings_of_stage_2(choice), contest.CONTROL]
    rows = {"approx_kl": "approximate KL"} | {name: f"share in {label}" for name, label in theory.SETS.items()}
    figure, axes = panels(len(rows), len(contest.CONFIRMATION_TASKS), 1.5, sharex="col", sharey="row")
    for column, task in zip(axes.T, contest.CONFIRMATION_TASKS, strict=True):
        for ax, name in zip(column, rows, strict=True):
            for setting in settings[::-1]:  # the clip, a thick line, below the others
                cell = runs[(runs["env_id"] == task) & (runs["setting"] == setting)]
                figures.draw_mean(ax, figures.wide(cell, curves, name, points=80), setting.split()[0])
            figures.steps_axis(ax, name == list(rows)[-1])
        column[0].set_title(task)
    axes[0, 0].set_yscale("log")
    for row, label in zip(axes, rows.values(), strict=True):
        row[0].set_ylabel(label)
    for row in axes[1:]:
        row[0].yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    caption = (
        "KL of an iteration's last epoch, and shares of all samples of an iteration's minibatches: inside the band "
        "1 ± 0.2 (in), outside where the clip with ε = 0.2 would switch the sample off (kill), outside where it would "
        f"not (pass), by this rule for all. Mean over seeds 20 to 34 ({figures.SMOOTHED})."
    )
    entries = [Line2D([], [], label=setting, **style(setting.split()[0])) for setting in settings]
    return finish(figure, caption, entries)
