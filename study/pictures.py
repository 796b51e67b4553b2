"""The pictures that only the published study has; the others are those of plots/."""

import textwrap

import compare
import contest
import estimates
import figures
import numpy as np
import paper
import sections
import tables
import theory
import varied
from compare import present
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from style import STYLES, finish, handles, panel_each, panels, style

OVERVIEW_TASK = "Ant-v4"
figures.MODES.update(paper.MODES)


def with_caption(figure):
    """A figure with its caption below, in the picture."""
    width = int(figure.get_figwidth() * 15)
    figure.supxlabel(textwrap.fill(figure.caption, width), fontsize=9, x=0.01, ha="left", color="0.25")
    return figure


def overview(runs, curves):
    """What the theorem says, and what one task returns."""
    runs = compare.merged(runs)
    figure, ((plane, returns),) = panels(1, 2, 2.7)
    theory.draw_plane(plane)
    plane.set_title(r"The clip as a KL penalty: $\beta_t(w, \hat{A})$")
    task = OVERVIEW_TASK
    figures.draw_returns(returns, runs, curves, task)
    figures.write_remarks(returns, runs, task, present(runs["variant"]))
    returns.set_title(f"{figures.title(runs, task)}: episodic return")
    caption = (
        "Left: the coefficient that the clip implies for a sample with ratio $w$ and advantage Â, 0 where white or "
        f"grey: I_in is inside the band 1 ± ε, I_kill outside in the direction of Â, I_pass outside against it. Right: "
        f"mean over seeds, and around it {figures.spread_caption(runs[runs['env_id'] == task])}."
    )
    return finish(figure, caption, handles(present(runs["variant"][runs["env_id"] == task])))


def draw_percentiles(ax, cell, curves):
    """Draws how β_t is distributed over the samples of an iteration: bands and the median, means over seeds."""
    p01, p10, p50, p90, p99 = (
        figures.wide(cell, curves, f"beta_p{percent}").mean(axis=1) for percent in ("01", "10", "50", "90", "99")
    )
    color = style(cell["variant"].iloc[0])["color"]
    ax.fill_between(p50.index, p01, p99, color=color, alpha=0.3, linewidth=0)
    ax.fill_between(p50.index, p10, p90, color=color, alpha=0.6, linewidth=0)
    ax.plot(p01.index, p01, color=color, linewidth=0.8)
    ax.plot(p99.index, p99, color=color, linewidth=0.8)
    ax.plot(p50.index, p50, color="black", linewidth=1.2)
    ax.margins(y=0.25)


def beta(runs, curves):
    """Percentiles of the β_t that a clip implies, a row a task, a column a variant."""
    if runs.empty:
        return None
    runs = compare.merged(runs)
    tasks = present(runs["env_id"])
    variants = present(runs["variant"])
    figure, axes = panels(len(tasks), len(variants), 1.55, sharey="row")
    for row, task in zip(axes, tasks, strict=True):
        of_task = runs[runs["env_id"] == task]
        for ax, variant in zip(row, variants, strict=True):
            cell = of_task[of_task["variant"] == variant]
            text = figures.remarks(runs, task, [variant]) or variant
            ax.text(0.04, 0.97, text, transform=ax.transAxes, va="top", zorder=4, fontsize=9)
            if cell.empty or not curves["run"].isin(cell["run"]).any():
                ax.set_axis_off()
                continue
            draw_percentiles(ax, cell, curves)
            figures.steps_axis(ax, task == tasks[-1])
        row[0].set_ylabel(r"$\beta_t$")
        if np.ptp(row[0].get_ylim()) > 50:
            row[0].set_yscale("symlog", linthresh=1)
            row[0].yaxis.set_major_formatter("{x:,g}")
        figures.row_title(row, figures.title(runs, task))
    caption = (
        "β_t = −wÂ on I_kill and 0 elsewhere, whichever variant trains: percentiles over an iteration's samples, mean "
        f"over seeds ({figures.SMOOTHED}); logarithmic beyond ±1 where an axis goes beyond 50."
    )
    entries = [
        Line2D([], [], color="black", label="median"),
        Patch(color="0.5", alpha=0.9, label="10 to 90 %"),
        Patch(color="0.5", alpha=0.4, label="1 to 99 %"),
    ]
    return finish(figure, caption, entries)


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


def draw_screening(ax, settings, finalists):
    """Draws {setting: (log KL, final returns)}: means, those of the finalists in a ring, the range of the seeds, and
    the parabola through all."""
    for setting, (log_kl, returns) in settings.items():
        variant, *arguments = setting.split()
        look = point_style(variant)
        place, mean = np.exp(log_kl), returns.mean()
        ax.plot([place] * 2, [returns.min(), returns.max()], color=look["color"], linewidth=1, alpha=0.5)
        ax.plot(place, mean, **look)
        if setting in finalists:
            ax.plot(place, mean, "o", color="black", markerfacecolor="none", markersize=13, zorder=3.5)
        # Left of the point for spo and ano, whose points lie near each other's.
        left, below = variant in ("spo", "ano"), variant == "ano"
        where = {"xytext": (-6 if left else 6, -4 if below else 4), "ha": "right" if left else "left"}
        where["va"] = "top" if below else "bottom"
        ax.annotate(argument_values(arguments), (place, mean), color=look["color"], **where, **varied.LABEL)
    log_kls, means = sections.clip_line(settings)
    ax.plot(np.exp(log_kls), means, color=STYLES["clip"]["color"], linewidth=1.5)
    log_kls, samples = zip(*settings.values(), strict=True)
    along = np.linspace(min(log_kls), max(log_kls), 100)
    ax.plot(np.exp(along), estimates.fitted_polynomial(log_kls, samples)(along), "--", color="0.6", zorder=1.8)
    varied.kl_axis(ax, np.exp(log_kls))


def argument_values(arguments):
    """The values in `--alpha 0.1 --eps 0.3`, given as a list of words; where there are several, with their names."""
    values = arguments[1::2]
    if len(values) < 2:
        return "".join(values)
    symbols = {"--alpha": "α", "--eps": "ε"}
    return ", ".join(f"{symbols[name]} {value}" for name, value in zip(arguments[::2], values, strict=True))


def point_style(variant):
    """A variant's look where it is a point."""
    return {"markersize": 7, "marker": "o", **style(variant), "linestyle": ""}


def screening(runs, curves):
    """Stage 1 of contest.py: final return over the median KL of an iteration, a panel a task."""
    found = sections.settings_over_kl(runs, curves)
    finalists = contest.chosen(contest.screening_scores(runs)).finalists
    figure, axes, blank = panel_each(found, 3.1, columns=2)
    for task, ax in axes.items():
        draw_screening(ax, found[task], finalists)
        ax.set_title(task)
        ax.set_xlabel("median KL of an iteration")
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("final return")
    caption = (
        "Seeds 0 to 2: mean and range. Numbers: the file's argument, where it is not the default; clip_eps without one "
        "has ε = 0.3. In a ring: the finalists, chosen for these returns. Blue line: the clip with ε = 0.1, 0.2, 0.3 "
        "and 0.4. Dashed: a parabola of log KL through all runs."
    )
    variants = dict.fromkeys(name.split()[0] for name in contest.SETTINGS)
    entries = [Line2D([], [], label=variant, **point_style(variant)) for variant in variants]
    return finish(figure, caption, entries, blank)


def two_lines(setting):
    """The name of a setting's file, and below it its arguments."""
    variant, *arguments = setting.split()
    return f"{variant}\n{argument_values(arguments)}".strip()


def in_a_row(setting):
    """The name of a setting's file and its arguments."""
    return two_lines(setting).replace("\n", " ")


def draw_confirmed(ax, comparisons):
    """Draws the probabilities of improvement of Comparisons, a row an interval, and below it the probability on each
    task, as the first letters of its name."""
    labels, drawn = [], []
    for y, comparison in enumerate(comparisons):
        variant = comparison.setting.split()[0]
        figures.draw_interval(ax, y, variant, comparison.improvement, tables.estimate(comparison.improvement, 3))
        chances = {
            task: estimates.improvement(scores, comparison.clip_scores[task])
            for task, scores in comparison.scores.items()
        }
        lines = [0.25, 0.45]  # below the interval; neighbours take turns, so that they do not overlap
        for rank, task in enumerate(sorted(chances, key=chances.get)):
            at = (chances[task], y + lines[rank % 2])
            ax.annotate(task[:2], at, ha="center", va="center", fontsize=7, color=style(variant)["color"])
        drawn += [*chances.values(), *comparison.improvement]
        # A finalist's arguments stand in the other panels.
        name = in_a_row(comparison.setting) if comparison.setting == contest.CONTROL else variant
        labels.append(f"{name}\nover {in_a_row(comparison.clip)}")
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.8)
    ax.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    reach = np.abs(np.array(drawn) - 0.5).max() + 0.05
    ax.set_xlim(0.5 - reach, 0.5 + reach)
    ax.set_title("probability of improvement")


def confirmation(runs, choice):
    """Stage 2 of contest.py, with stage 3's control: every run's final return, a panel a task, and the tests."""
    settings = [*contest.settings_of_stage_2(choice), contest.CONTROL]
    *over_control, control = contest.with_control(runs, choice)
    comparisons = [*contest.confirmed(runs, choice), control, *over_control]
    figure, axes, (last,) = panel_each(contest.CONFIRMATION_TASKS, 0.6 + 0.5 * len(comparisons), columns=2)
    for task, ax in axes.items():
        for y, setting in enumerate(settings):
            cell = runs[(runs["env_id"] == task) & (runs["setting"] == setting)]
            figures.draw_final(ax, y, cell, setting.split()[0])
        ax.set_yticks(range(len(settings)), map(two_lines, settings))
        ax.set_ylim(len(settings) - 0.4, -0.6)
        ax.set_title(task)
        ax.set_xlabel("final return")
        ax.xaxis.set_major_locator(MaxNLocator(4))
    last.set_axis_on()
    draw_confirmed(last, comparisons)
    percent = 100 * contest.level(choice)
    caption = (
        "Final returns of seeds 20 to 34, on scales of their own: dots every seed, diamonds their mean, line that of "
        "clip. Last panel: the probability that a run returns more than a run of the clip that its row names, diamonds "
        f"over all five tasks, letters on each (Ha is HalfCheetah-v4); bars: {percent:g} % bootstrap intervals."
    )
    return finish(figure, caption)


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
