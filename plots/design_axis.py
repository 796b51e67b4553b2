"""β_t as a design axis: what each trust region adds to w Â, by autograd from its file's own surrogate.

plots/make.py draws it with the other pictures. For files of your own, beside the clip, before any training:

    python plots/design_axis.py mine        # betas/mine.py, into runs/design_axis.png
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tools")]

import numpy as np
import style  # noqa: F401 (its fonts)
import tyro
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from theory import gradient, implied_beta

import ppo_clip_continuous
from betas import loop

CLIP_COEF = ppo_clip_continuous.Args().clip_coef
BETAS = HERE.parent / "betas"
# In the order of the picture: the clip and what moves, adds or bends its edges; then what has none.
FORMULAS = {
    "clip": r"$\beta_t=-w\hat{A}$ where it clips",
    "clip_higher": r"as clip, edges 0.8, 1.28",
    "dual_clip": r"as clip, and $w>3$, $\hat{A}<0$",
    "rollback": r"1.3 times that of clip",
    "bpo": r"twice that of clip, $\epsilon=0.3$",
    "dppo": r"as clip, where $\pi_{old}=1$",
    "aband": r"as clip, band in $|\hat{A}|$",
    "soft": r"as clip, ramped over 0.1",
    "spo": r"$\beta_t=-|\hat{A}|\,w(w-1)\,/\,\epsilon$",
    "r2vpo": r"$\beta_t=-2\lambda\,w(w-1)$",
    "ano": r"$\beta_t=w\hat{A}\,(f'-1)$",
    "dpo": r"$\beta_t=-w\hat{A}\,\tanh^2$ ($\hat{A}>0$)",
    "sapo": r"$\beta_t=-w\hat{A}\,(1-4p(1-p))$",
    "cispo": r"$\beta_t=(\min(w,1.2)-w)\hat{A}$",
    "vespo": r"$\beta_t=(\varphi(w)-w)\hat{A}$",
    "none": r"$\beta_t=0$",
}
RATIOS = np.linspace(0.01, 3.4, 679)
LARGEST = 3  # of the colours
SIGNS = {
    1: {"color": "black", "linewidth": 2.4},
    -1: {"color": "#7A3FB0", "linewidth": 2.4, "linestyle": (0, (3, 1.2))},
}
EDGE = {"color": "0.35", "linewidth": 0.8, "linestyle": (0, (1, 1.5))}
FREE = {"color": "0.35", "linewidth": 1.0}
AGAINST = {"facecolor": "0.9", "edgecolor": "none"}


def names():
    """The clip and the files of betas/ that came with it: a file of the user's may be unfinished."""
    return [name for name in FORMULAS if name == "clip" or (BETAS / f"{name}.py").exists()]


def surrogate_of(name):
    """The surrogate of the clip or of a file of betas/, and its ε: the file's own default, or else that of the clip."""
    if name == "clip":
        return ppo_clip_continuous.surrogate, CLIP_COEF
    surrogate = loop.load(BETAS / f"{name}.py").surrogate
    _, epsilon = loop.parameters_of(surrogate)
    if epsilon is None:
        epsilon = CLIP_COEF
    loop.check_surrogate(surrogate, epsilon)
    return surrogate, epsilon


def surrogates_of(names):
    """What surrogate_of returns for each of these names, {name: (surrogate, ε)}, without those of files that fail.

    A file may be the reader's, and unfinished: one that fails is named on standard error.
    """
    found = {}
    for name in names:
        try:
            found[name] = surrogate_of(name)
        except Exception as error:
            print(f"not drawn: betas/{name}.py: {type(error).__name__}: {error}", file=sys.stderr)
    return found


def factor(surrogate, epsilon, ratio, advantages):
    """g / Â, where g is a surrogate's derivative in log π_new; arrays of one shape, log π_old is 0, no Â is 0."""
    return gradient(surrogate, ratio, advantages, epsilon) / advantages


def draw_plane(ax, name, surrogate, epsilon):
    ratio, advantages = np.meshgrid(RATIOS, np.linspace(-2, 2, 200))  # an even number, so that no Â is 0
    beta = implied_beta(surrogate, ratio, advantages, epsilon)
    image = ax.pcolormesh(ratio, advantages, beta, cmap="PiYG", vmin=-LARGEST, vmax=LARGEST, rasterized=True)
    ax.axhline(0, color="0.35", linewidth=0.6)
    ax.set(xlim=(0, RATIOS[-1]), xticks=[0, 1, 2, 3], yticks=[-2, 0, 2])
    ax.tick_params(labelbottom=False)
    ax.grid(False)
    ax.set_title(f"{name}\n", loc="left", fontweight="bold", fontsize=12)
    formula = FORMULAS.get(name, rf"$\epsilon={epsilon:g}$")
    ax.text(0, 1.05, formula, transform=ax.transAxes, fontsize=11).set_in_layout(False)
    return image


def draw_factor(ax, surrogate, epsilon):
    ax.axhspan(-9, 0, **AGAINST, zorder=0)
    ax.plot(RATIOS, RATIOS, **FREE)
    for sign, look in SIGNS.items():
        ax.plot(RATIOS, factor(surrogate, epsilon, RATIOS, np.full_like(RATIOS, sign)), **look)
    ax.set(xlim=(0, RATIOS[-1]), ylim=(-1.4, 3.4), xticks=[0, 1, 2, 3], yticks=[-1, 0, 1, 2, 3], xlabel="$w$")
    ax.grid(False)


def draw_key(upper, lower, image):
    """What the colours and the lines mean, in the place of a method."""
    upper.text(
        0,
        1.05,
        "Each is\n" + r"$w\hat{A}-\beta_t\,\mathrm{KL},\;\mathrm{KL}=-\log w$",
        fontsize=11,
        transform=upper.transAxes,
    )
    upper.text(
        0, 0.72, "with the gradient\n" + r"$(w\hat{A}+\beta_t)\,\nabla\log\pi$", fontsize=11, transform=upper.transAxes
    )
    bar = upper.figure.colorbar(
        image, cax=upper.inset_axes([0, 0.34, 1, 0.11]), orientation="horizontal", extend="both"
    )
    bar.set_ticks([-LARGEST, 0, LARGEST])
    bar.set_label(r"$\beta_t$: pushes $\log\pi$ down | up")
    handles = [
        *(Line2D([], [], label=rf"$\hat{{A}} = {sign}$", **look) for sign, look in SIGNS.items()),
        Line2D([], [], label="$w$, no trust region", **FREE),
        Patch(label=r"against $\hat{A}$", **AGAINST),
        Line2D([], [], label=rf"$1\pm\epsilon$, $\epsilon={CLIP_COEF:g}$", **EDGE),
    ]
    lower.legend(handles=handles, loc="center left", bbox_to_anchor=(-0.06, 0.5), handlelength=2.2)


def design_axis(shown=None):
    """Two panels a method, and a key in the last place. shown is what surrogates_of returns; by default of names()."""
    shown = shown or surrogates_of(names())
    methods = list(shown.items())
    columns = min(6, len(shown) + 1)
    bands = -(-(len(shown) + 1) // columns)
    figure = Figure((2.2 * columns, 3.9 * bands), layout="constrained")
    axes = figure.subplots(2 * bands, columns, squeeze=False, height_ratios=[1.15, 1] * bands)
    for place in range(bands * columns):
        upper, lower = axes[place // columns * 2 : place // columns * 2 + 2, place % columns]
        if place >= len(shown):
            upper.set_axis_off()
            lower.set_axis_off()
            continue
        name, (surrogate, epsilon) = methods[place]
        image = draw_plane(upper, name, surrogate, epsilon)
        draw_factor(lower, surrogate, epsilon)
        for ax in (upper, lower):
            for edge in (1 - epsilon, 1 + epsilon):
                ax.axvline(edge, **EDGE)
        if place % columns == 0:
            upper.set_ylabel(r"$\hat{A}$", rotation=0, fontsize=12)
            lower.set_ylabel(r"gradient / $\hat{A}\,\nabla\log\pi$")
        else:
            upper.tick_params(labelleft=False)
            lower.tick_params(labelleft=False)
    draw_key(*axes[-2:, -1], image)
    figure.caption = (
        "Above: β_t over w and Â, by autograd from each file's own surrogate; below: what is left of the gradient, "
        "over w. Nothing here was trained."
    )
    return figure


def of_trained(methods):
    """The clip and, of the methods that were trained, those that are files of betas/; None without any."""
    shown = surrogates_of(["clip", *(name for name in methods if (BETAS / f"{name}.py").exists())])
    return design_axis(shown) if len(shown) > 1 else None


def main(names: tyro.conf.Positional[tuple[str, ...]], out: Path = Path("runs/design_axis.png")):
    """Draws the clip and files of betas/ beside it.

    Args:
        names: names of files in betas/, without .py
        out: the picture: .png, .svg or .pdf
    """
    for name in names:
        if not (BETAS / f"{name}.py").exists():
            sys.exit(f"error: {name}: there is no betas/{name}.py")
    shown = surrogates_of(["clip", *names])
    out.parent.mkdir(parents=True, exist_ok=True)
    design_axis(shown).savefig(out)
    print(out)
    if len(shown) < 1 + len(set(names)):
        sys.exit(1)


if __name__ == "__main__":
    tyro.cli(main)
