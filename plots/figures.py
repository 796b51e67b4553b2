"""The pictures of a sweep. Each function draws one and returns the figure, with its caption, or None."""

import compare
import numpy as np
import tables
import theory
from compare import present
from matplotlib.ticker import EngFormatter, MaxNLocator
from style import STYLES, finish, handles, panel_each, panels, style

MANY_SEEDS = 8  # more are drawn as a band
MANY_VARIANTS = 6  # more could not be told apart in one panel
# Of a task with two modes of seeds the return that parts them: the seeds above are drawn as lines. The study fills it.
MODES = {}
SMOOTHED = "rolling mean over a fiftieth of the run"
CROSS = "; a cross at the foot: a seed diverged there"
NOTE = {"fontsize": 9, "color": "0.25"}


def shown(runs):
    """The runs as they are drawn: identical forms as one, and no name taken for mathematics."""
    runs = compare.merged(runs)
    return runs.assign(variant=runs["variant"].cat.rename_categories(lambda name: name.replace("$", r"\$")))


def steps_axis(ax, label=True):
    """Makes the x axis one of steps; says so if nothing was drawn."""
    if not np.isfinite(ax.dataLim.x1):  # every value to be drawn was NaN
        ax.text(0.5, 0.5, "no episode ended", transform=ax.transAxes, ha="center", color="0.4")
        ax.set(xticks=[], yticks=[])
        return
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    ax.set_xlim(left=0)
    ax.set_xlabel("steps" if label else "")


def row_title(row, text):
    """A title that may be wider than the leftmost panel of a row: the layout makes room for its height only."""
    for ax in row:
        ax.set_title(" ")
    row[0].text(0, 1.06, text, transform=row[0].transAxes).set_in_layout(False)


def plural(low, high):
    """A number of seeds, or a range of numbers."""
    span = f"{low}" if low == high else f"{low} to {high}"
    return f"{span} seeds" if high > 1 else f"{span} seed"


def title(runs, task):
    """A task and how many seeds its variants have: a number or a range."""
    counts = runs["variant"][runs["env_id"] == task].value_counts()
    counts = counts[counts > 0]
    return f"{task}, {plural(counts.min(), counts.max())}"


def remarks(runs, task, variants):
    """What a picture must say of a task: which of the variants are missing, and of how many runs there is no final
    return, and why."""
    of_task = runs[runs["env_id"] == task]
    lines = []
    for variant in variants:
        cell = of_task[of_task["variant"] == variant]
        endless = cell["final_return"].isna() & ~cell["diverged"]
        if cell.empty:
            lines.append(f"{variant}: missing")
        if cell["diverged"].any():
            lines.append(f"{variant}: {cell['diverged'].sum()} of {len(cell)} diverged")
        if endless.any():
            lines.append(f"{variant}: in {endless.sum()} of {len(cell)} no episode ended at last")
    return "\n".join(lines)


def write_remarks(ax, runs, task, variants):
    """Writes the remarks into the upper left corner of a panel."""
    text = remarks(runs, task, variants)
    if text:
        ax.text(0.03, 0.97, text, transform=ax.transAxes, va="top", zorder=5, **NOTE)


def wide(cell, curves, column, smooth=True, points=160):
    """A column of the curves of a cell's runs, an index of steps by a column a seed. Iterations in which no episode
    ended are bridged; smoothing is a rolling mean over a fiftieth of the run. A run that diverged ends early."""
    of_cell = curves[curves["run"].isin(cell["run"])]
    table = of_cell.pivot(index="global_step", columns="seed", values=column).astype(float)
    if not smooth:
        return table
    last_steps = of_cell.groupby("seed")["global_step"].max()[table.columns]
    ended = table.index.to_numpy()[:, None] > last_steps.to_numpy()
    table = table.interpolate().rolling(max(1, len(table) // 50), min_periods=1).mean()
    thin = max(1, len(table) // points)
    return table.mask(ended)[(len(table) - 1) % thin :: thin]


PLACES = 17  # of markers along a line


def marks(variant, points):
    """Which of the points carry a marker: eight, at other places for each variant."""
    step = max(1, points // 8)
    names = list(STYLES)
    name = compare.first_name(variant)
    place = names.index(name) % PLACES if name in names else PLACES
    return step * (1 + place) // (PLACES + 2), step


def draw_mean(ax, table, variant):
    """Draws the mean over the seeds."""
    ax.plot(table.index, table.mean(axis=1), **style(variant), markevery=marks(variant, len(table)))


def draw_means(ax, runs, curves, task, column):
    """Draws the mean over the seeds of each variant on a task, of a column of the curves."""
    for variant, cell in runs[runs["env_id"] == task].groupby("variant", observed=True):
        draw_mean(ax, wide(cell, curves, column), variant)


def draw_seeds(ax, table, color):
    """Draws every seed as a thin line."""
    ax.plot(table.index, table, color=color, zorder=2, linewidth=0.6, alpha=0.7)


def draw_spread(ax, table, cell, band=True):
    """Draws how the seeds of a cell vary around their mean.

    Up to eight are a thin line each, with a band of one standard deviation. Of more the band holds the middle half, and
    on a task of MODES those in the upper one are lines. A cross at the foot marks where a seed diverged.
    """
    color = style(cell["variant"].iloc[0])["color"]
    as_lines = cell["seed"]
    if len(cell) > MANY_SEEDS:
        low, high = table.quantile(0.25, axis=1), table.quantile(0.75, axis=1)
        as_lines = cell["seed"][cell["final_return"] > cell["env_id"].astype(str).map(MODES)]
    else:
        mean, std = table.mean(axis=1), table.std(axis=1, ddof=0)
        low, high = mean - std, mean + std
    if band or len(cell) > MANY_SEEDS:
        ax.fill_between(table.index, low, high, color=color, alpha=0.2, linewidth=0, zorder=1)
    draw_seeds(ax, table[table.columns.intersection(as_lines)], color)
    for seed in table.columns.intersection(cell["seed"][cell["diverged"]]):
        cross = {"color": color, "markersize": 7, "markeredgecolor": "black", "zorder": 4}
        ax.plot(table[seed].last_valid_index(), 0.06, "X", transform=ax.get_xaxis_transform(), **cross)


def spread_caption(runs):
    """What the bands and thin lines of draw_spread are, in the pictures of these runs."""
    counts = runs.groupby(["env_id", "variant"], observed=True).size()
    parts = []
    if (counts <= MANY_SEEDS).any():
        parts.append("± one standard deviation and each seed")
    if (counts > MANY_SEEDS).any():
        parts.append("of more than eight seeds the middle half")
    parts += [
        f"on {task} with those that break out" for task in MODES if (counts.get(task, counts[:0]) > MANY_SEEDS).any()
    ]
    return ", ".join(parts)


def draw_returns(ax, runs, curves, task):
    """Draws the learning curves of a task, of every variant."""
    of_task = runs[runs["env_id"] == task]
    for variant, cell in of_task.groupby("variant", observed=True):
        table = wide(cell, curves, "episodic_return")
        if len(table):
            draw_spread(ax, table, cell)
            draw_mean(ax, table, variant)
    steps_axis(ax)


def learning_curves(runs, curves, baseline="clip"):
    """A panel a task: the mean over seeds, and how they vary; of many variants a panel for each."""
    runs = shown(runs)
    if len(present(runs["variant"])) > MANY_VARIANTS:
        return small_multiples(runs, curves, baseline)
    tasks = present(runs["env_id"])
    figure, axes, blank = panel_each(tasks, 2.3)
    for task, ax in axes.items():
        draw_returns(ax, runs, curves, task)
        write_remarks(ax, runs, task, present(runs["variant"]))
        ax.set_title(title(runs, task))
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("episodic return")
    caption = f"Mean over seeds ({SMOOTHED}), and around it {spread_caption(runs)}"
    caption += CROSS if runs["diverged"].any() else ""
    return finish(figure, caption + ".", handles(present(runs["variant"])), blank)


def draw_identity(above, below, of_task, curves, forms):
    """Draws the forms over each other and, below, what the others return minus what clip does, every seed and
    iteration. Returns the largest difference."""
    logged = {
        form: wide(of_task[of_task["variant"] == form], curves, "episodic_return", smooth=False) for form in forms
    }
    largest = 0.0
    for form in forms:
        draw_mean(above, wide(of_task[of_task["variant"] == form], curves, "episodic_return"), form)
        if form != "clip":
            difference = (logged[form] - logged["clip"]).dropna(axis=1, how="all")
            below.plot(difference.index, difference, **style(form), markevery=marks(form, len(difference)))
            largest = max(largest, np.nan_to_num(difference.abs().to_numpy()).max(initial=0))
    below.set_ylim(-1.2 * (largest or 1), 1.2 * (largest or 1))
    steps_axis(above, label=False)
    steps_axis(below)
    above.tick_params(labelbottom=False)
    return largest


def identity(runs, curves):
    """Clip, klip and phi over each other, and their difference, a column a task: of the seeds that all have."""
    cells = {}
    for task, of_task in runs[runs["variant"].isin(compare.FORMS)].groupby("env_id", observed=True):
        seeds = of_task.groupby("seed")["variant"].nunique()
        forms = present(of_task["variant"])
        common = of_task[of_task["seed"].isin(seeds.index[seeds == len(forms)])]
        if "clip" in forms and len(forms) > 1 and len(common):
            cells[task] = common
    if not cells:
        return None
    columns = min(len(cells), 3)
    bands = -(-len(cells) // columns)
    figure, axes = panels(2 * bands, columns, 1.7, height_ratios=[1.7, 1] * bands)
    for ax in axes.flat:
        ax.set_axis_off()
    for place, (task, common) in enumerate(cells.items()):
        band, column = divmod(place, columns)
        above, below = axes[2 * band, column], axes[2 * band + 1, column]
        above.set_axis_on()
        below.set_axis_on()
        largest = draw_identity(above, below, common, curves, present(common["variant"]))
        hashes = common.groupby("seed")["params_sha256"].nunique()
        above.set_title(f"{task}, {(hashes == 1).sum()} of {len(hashes)} equal", fontsize=9.5)
        below.set_title(f"differ by up to {largest:.3g}" if largest else "differ nowhere", fontsize=9.5)
        if column == 0:
            above.set_ylabel("episodic return")
            below.set_ylabel("minus clip")
    blank = list(axes[2 * bands - 2, len(cells) - columns * bands :]) if len(cells) < columns * bands else []
    caption = (
        f"Above: mean over the seeds that all have ({SMOOTHED}), and with how many of them the trained parameters are "
        "the same bytes; below: return minus that of clip, every seed and iteration, as logged."
    )
    forms = [form for form in compare.FORMS if any((cell["variant"] == form).any() for cell in cells.values())]
    return finish(figure, caption, handles(forms), blank)


def draw_interval(ax, y, variant, estimate, label=None):
    """Draws a value, a number or another label above it, and the bar of its interval."""
    value, low, high = estimate
    ax.plot([low, high], [y, y], color=style(variant)["color"], linewidth=7, solid_capstyle="butt", alpha=0.8, zorder=2)
    ax.plot(value, y, color="black", marker="d", markersize=6, zorder=3)
    label = label or tables.number(value, 2)
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # or lines would run through the number
    ax.annotate(label, (value, y), (0, 7), textcoords="offset points", ha="center", fontsize=9, bbox=ground)


def aggregate(runs, baseline="clip", reference=None):
    """Over all tasks the probability of improvement over a baseline, and with a reference the score, with their
    intervals; None where there is neither."""
    runs = shown(runs)
    found = tables.aggregates_of(runs, baseline, reference)
    if not any(both.score or both.improvement for both in found.values()):
        return None
    tasks = [task for task in present(runs["env_id"]) if any(task in both.tasks for both in found.values())]
    labels = [
        variant if len(both.tasks) == len(tasks) else f"{variant} ({len(both.tasks)} of {len(tasks)} tasks)"
        for variant, both in found.items()
    ]
    figure, (axes,) = panels(1, 2 if reference else 1, 0.5 + 0.36 * len(found), sharey=True)
    left, right = axes[0], axes[-1]
    for y, (variant, both) in enumerate(found.items()):
        if reference:
            draw_interval(left, y, variant, both.score)
        if both.improvement:
            draw_interval(right, y, variant, both.improvement)
    left.set_yticks(range(len(found)), labels)
    left.set_ylim(len(found) - 0.5, -0.7)
    if reference:
        left.set_xlabel("mean score")
    right.set_xlabel(f"probability of improvement over {baseline}")
    right.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    right.set_xlim(-0.05, 1.05)
    score = f"score: 0 is a random policy, 1 the {reference.name}'s PPO-Clip; " if reference else ""
    caption = (
        f"{', '.join(tasks)}, each of the same weight, with all seeds; {score}bars: 95 % bootstrap intervals, which "
        "draw the seeds of each task and variant anew."
    )
    if any(len(both.tasks) < len(tasks) for both in found.values()):
        caption += f" A variant with fewer tasks is compared with {baseline} on those alone."
    return finish(figure, caption)


def limits(values):
    """The ends of an axis for these values: a run that is about to diverge would set the scale, so the outermost are
    left out; None without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, (0.5, 99.5))
    room = 0.1 * (high - low)
    return low - room, high + room


def draw_beside(ax, cell, baseline_cell, curves, variant, baseline):
    """Draws a variant's returns on a task over the baseline's; returns all values drawn."""
    drawn = []
    for name, part in ((baseline, baseline_cell), (variant, cell)):
        table = wide(part, curves, "episodic_return", points=80)
        drawn.append(table.to_numpy().ravel())
        if len(table):
            draw_spread(ax, table, part, band=False)
            look = style(name)
            width = 3 if name == baseline else 1.6
            ax.plot(
                table.index, table.mean(axis=1), color=look["color"], linewidth=width, zorder=2.5 + (name != baseline)
            )
    return np.concatenate(drawn)


def small_multiples(runs, curves, baseline="clip"):
    """Episodic returns, a row a variant, a column a task, and the baseline in each panel."""
    tasks = present(runs["env_id"])
    baseline = compare.called(present(runs["variant"]), baseline)
    variants = [variant for variant in present(runs["variant"]) if variant != baseline]
    figure, axes = panels(len(variants), len(tasks), 1.1, sharex="col", sharey="col")
    for place, task in enumerate(tasks):
        of_task = runs[runs["env_id"] == task]
        values = []
        for ax, variant in zip(axes[:, place], variants, strict=True):
            cell = of_task[of_task["variant"] == variant]
            of_baseline = of_task[of_task["variant"] == baseline]
            values.append(draw_beside(ax, cell, of_baseline, curves, variant, baseline))
            text = remarks(runs, task, [variant])
            # A remark may be wider than its panel: at the right edge of the picture it goes to the left.
            x, side = (1, "right") if text and task == tasks[-1] else (0, "left")
            ax.text(x, 1.04, text or variant, ha=side, transform=ax.transAxes, fontsize=9).set_in_layout(False)
            ax.set_title(" ", fontsize=9)  # the layout makes room for a line of any width
            steps_axis(ax, variant == variants[-1])
        top = axes[0, place]
        top.set_ylim(limits(np.concatenate(values)))
        top.set_title(f"{task}\n")
    figure.supylabel("episodic return", fontsize=10)
    counts = runs.groupby(["env_id", "variant"], observed=True).size()
    seeds = plural(counts.min(), counts.max())
    caption = f"Widest: {baseline}, over it the variant; thick: mean over {seeds} ({SMOOTHED}), thin: each seed"
    if counts.max() > MANY_SEEDS:
        caption += ", of more than eight the band of the middle half"
    return finish(figure, caption + (CROSS if runs["diverged"].any() else "") + ".")


def draw_final(ax, y, cell, variant, baseline="clip"):
    """Draws the final return of every run of a cell at height y, and their mean, of the baseline as a line, too."""
    color = style(variant)["color"]
    returns = cell["final_return"].dropna()
    ax.plot(returns, [y] * len(returns), "o", color=color, markersize=5, alpha=0.8, zorder=2)
    ax.plot(returns.mean(), y, color="black", marker="d", markersize=6, zorder=3)
    if compare.first_name(variant) == baseline:
        ax.axvline(returns.mean(), color=color, linewidth=2, zorder=1.8)


def draw_final_of_reference(ax, y, cell, variant, task, reference):
    """Draws the reference's mean final return and standard deviation at height y, if it has them and no run of the cell
    has another length; whether it did."""
    key = (task, compare.first_name(variant))
    drawn = key in reference.returns.index and (cell["steps"] == reference.returns.loc[key, "steps"]).all()
    if drawn:
        mean, std = reference.returns.loc[key, ["mean", "std"]]
        ax.errorbar(mean, y, xerr=std, color="0.5", marker="d", markerfacecolor="white", linewidth=1.2)
    return drawn


def final_returns(runs, baseline="clip", reference=None):
    """Every run's final return, a panel a task, and beside them what a reference has."""
    runs = shown(runs)
    tasks = present(runs["env_id"])
    variants = present(runs["variant"])
    columns = min(len(tasks), 2)
    figure, axes = panels(-(-len(tasks) // columns), columns, 0.6 + 0.26 * len(variants), sharey=True)
    for ax in axes.flat[len(tasks) :]:
        ax.set_axis_off()
    beside = False
    for ax, task in zip(axes.flat, tasks, strict=False):
        for y, variant in enumerate(variants):
            cell = runs[(runs["env_id"] == task) & (runs["variant"] == variant)]
            draw_final(ax, y, cell, variant, baseline)
            if reference:
                beside |= draw_final_of_reference(ax, y + 0.3, cell, variant, task, reference)
            text = remarks(runs, task, [variant]).replace(f"{variant}: ", "")
            right = cell["final_return"].mean() < np.mean(ax.get_xlim())
            box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
            where = {"transform": ax.get_yaxis_transform(), "ha": "right" if right else "left", "va": "center"}
            ax.text(0.98 if right else 0.02, y, text, bbox=box if text else None, zorder=4, **where)
        ax.set_yticks(range(len(variants)), variants)
        ax.set_ylim(len(variants) - 0.4, -0.6)
        ax.set_title(title(runs, task))
        ax.xaxis.set_major_locator(MaxNLocator(4))
    caption = f"Final returns: dots every seed that finished, diamonds their mean, line that of {baseline}"
    if beside:
        seeds = {f"{seeds:.0f}" for seeds in reference.returns["seeds"]}
        over = f"over {seeds.pop()} seeds" if len(seeds) == 1 else "over its seeds"
        caption += f"; grey: the {reference.name}'s mean ± standard deviation {over}, where our runs are as long"
    return finish(figure, f"{caption}.")


def kl(runs, curves):
    """The KL of an iteration, a panel a task, the mean over seeds."""
    runs = shown(runs)
    figure, axes, blank = panel_each(present(runs["env_id"]), 2.3)
    for task, ax in axes.items():
        draw_means(ax, runs, curves, task, "approx_kl")
        ax.set_yscale("log")
        ax.set_title(title(runs, task))
        if ax.get_subplotspec().is_first_col():
            ax.set_ylabel("approximate KL")
        steps_axis(ax)
    caption = (
        f"KL (nats) of an iteration's last epoch, approximate: how far the policy moved. Mean over seeds ({SMOOTHED})."
    )
    return finish(figure, caption, handles(present(runs["variant"])), blank)


def partition(runs, curves):
    """Shares of the samples outside the band, a row a task, on one scale."""
    runs = shown(runs)
    tasks = present(runs["env_id"])
    outside = {name: label for name, label in theory.SETS.items() if name != "in"}
    figure, axes = panels(len(tasks), len(outside), 1.55, sharey=True)
    for row, task in zip(axes, tasks, strict=True):
        for ax, (name, label) in zip(row, outside.items(), strict=True):
            draw_means(ax, runs, curves, task, name)
            ax.set_ylabel(f"share in {label}")
            ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
            steps_axis(ax, task == tasks[-1])
        row_title(row, title(runs, task))
    axes[0, 0].set_ylim(bottom=0)
    caption = (
        "Shares of all samples of an iteration's minibatches, by the clip's rule whatever was trained: I_kill, which "
        "the clip switches off, and I_pass, outside the band too, which it leaves alone; the rest is I_in. "
        f"Mean over seeds ({SMOOTHED})."
    )
    return finish(figure, caption, handles(present(runs["variant"])))
