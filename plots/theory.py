"""What the scripts' surrogates do, by autograd from the scripts themselves: change a script and the picture changes."""

from types import SimpleNamespace

import numpy as np
import torch
from matplotlib.lines import Line2D
from style import STYLES, finish, panels

import ppo_clip_continuous
import ppo_kl_scalar_continuous
import ppo_klip_continuous
import ppo_phi_continuous

CLIP_COEF = ppo_clip_continuous.Args().clip_coef
BETA = ppo_kl_scalar_continuous.Args().beta
SETS = {"in": r"$I_\mathrm{in}$", "kill": r"$I_\mathrm{kill}$", "pass": r"$I_\mathrm{pass}$"}
RATIOS = np.linspace(0.4, 1.8, 1400)  # misses the kinks
ROUNDING = 1e-9  # the difference of two floats that stands for 0


def scalar(new_logprob, old_logprob, advantages, _, estimator="k3"):
    """kl_scalar's surrogate at its default β, with an estimator of the KL that is a function of w alone."""
    batch = SimpleNamespace(old_logprobs=old_logprob)  # what these estimators read of a Batch
    kl = ppo_kl_scalar_continuous.kl_estimate(estimator, None, new_logprob, batch)
    return ppo_kl_scalar_continuous.surrogate(new_logprob, old_logprob, advantages, BETA, kl)


SURROGATES = {
    "clip": ppo_clip_continuous.surrogate,
    "klip": ppo_klip_continuous.surrogate,
    "phi": ppo_phi_continuous.surrogate,
    "kl_scalar": scalar,
}
LOOKS = {"clip": STYLES["clip"], "klip": STYLES["klip"], "phi": STYLES["phi"], "kl_scalar": STYLES["kl_fixed"]}


def objective_and_gradient(surrogate, ratio, advantages, clip_coef):
    """A surrogate's objective and its derivative in log π_new; ratio and advantages are arrays of one shape, log π_old
    is 0."""
    new_logprob = torch.tensor(ratio.ravel(), dtype=torch.float64).log().requires_grad_()
    advantages = torch.tensor(advantages.ravel(), dtype=torch.float64)
    clip_coef = torch.as_tensor(clip_coef, dtype=torch.float64)
    objective = surrogate(new_logprob, torch.zeros_like(new_logprob), advantages, clip_coef)
    (derivative,) = torch.autograd.grad(objective.sum(), new_logprob)
    return objective.detach().numpy().reshape(ratio.shape), derivative.numpy().reshape(ratio.shape)


def gradient(surrogate, ratio, advantages, clip_coef=CLIP_COEF):
    """The derivative alone."""
    return objective_and_gradient(surrogate, ratio, advantages, clip_coef)[1]


def implied_beta(surrogate, ratio, advantages, clip_coef=CLIP_COEF):
    """β_t: what a surrogate's derivative in log π_new has beyond that of w Â; arrays of one shape."""
    beta = gradient(surrogate, ratio, advantages, clip_coef) - ratio * advantages
    return np.where(np.abs(beta) < ROUNDING, 0.0, beta)


def draw_surrogates(ax, which, advantage):
    """Draws the objective (which 0) or its derivative in w (1) of every surrogate over w, at one advantage."""
    advantages = np.full_like(RATIOS, advantage)
    for place, (variant, look) in enumerate(LOOKS.items()):
        objective, derivative = objective_and_gradient(SURROGATES[variant], RATIOS, advantages, CLIP_COEF)
        values = (objective, derivative / RATIOS)[which]
        ax.plot(RATIOS, values, zorder=3, markevery=(40 * place, 175), **look)
    ax.axvspan(1 - CLIP_COEF, 1 + CLIP_COEF, color="0.93", zorder=0, linewidth=0)
    ax.set_xlabel("$w$")
    ax.set_xlim(RATIOS[0], RATIOS[-1])


def draw_plane(ax):
    """Draws β_t from klip's surrogate over the (w, Â) plane, and the three sets."""
    ratio, advantage = np.meshgrid(RATIOS[::2], np.linspace(-2, 2, 400))
    beta = implied_beta(SURROGATES["klip"], ratio, advantage)
    killed = beta != 0
    beta = np.where(killed, beta, np.nan)
    ax.pcolormesh(ratio, advantage, beta, cmap="PiYG", vmin=-3.6, vmax=3.6, rasterized=True)
    for at, levels in ((1.35, (-2, -1)), (0.68, (0.5, 1))):
        lines = ax.contour(ratio, advantage, beta, levels, colors="black", linewidths=0.7, linestyles="-")
        ax.clabel(lines, fmt="%g", fontsize=9, manual=[(at, -level / at) for level in levels])
    passed = ~killed & (np.abs(ratio - 1) > CLIP_COEF)
    ax.contourf(ratio, advantage, np.where(passed, 1.0, np.nan), [0.5, 1.5], colors="0.92")
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
    for w, a, name in ((1, 1, "in"), (1.62, 1, "kill"), (0.54, -0.45, "kill"), (1.5, -1, "pass"), (0.6, 1, "pass")):
        ax.text(w, a, SETS[name], ha="center", va="center", bbox=box)
    ax.grid(False)
    ax.set_xlabel("$w$")
    ax.set_ylabel(r"$\hat{A}$", rotation=0)


def theory_sheet():
    """Objective and derivative of every surrogate for both signs of the advantage, and below them the plane of β_t."""
    figure, axes = panels(3, 2, 2.3)
    for column, advantage in enumerate((1, -1)):
        draw_surrogates(axes[0, column], 0, advantage)
        draw_surrogates(axes[1, column], 1, advantage)
        axes[0, column].set_title(rf"$\hat{{A}} = {advantage:+d}$", loc="center")
    axes[0, 0].set_ylabel("objective")
    axes[1, 0].set_ylabel("its derivative in $w$")
    spec = axes[2, 0].get_gridspec()
    for ax in axes[2]:
        ax.remove()
    plane = figure.add_subplot(spec[2, :])
    draw_plane(plane)
    plane.set_title(r"The clip as a KL penalty: $\beta_t(w, \hat{A})$, 0 where white or grey")
    caption = (
        "By autograd from the scripts' own surrogates. klip has another value than clip, but the same derivative. "
        f"kl_scalar's has β = {BETA:g} and the KL as k3; it trains with the closed form, which is no function of w. "
        f"Grey band: 1 ± ε with ε = {CLIP_COEF:g}."
    )
    return finish(figure, caption, [Line2D([], [], label=name, **look) for name, look in LOOKS.items()])
