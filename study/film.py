"""Draws the recorded update (updates.npz) as the moving picture of the README, docs/update.gif:

python study/film.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "plots"), str(ROOT / "tools"), str(ROOT)]

import numpy as np
import page
import style  # noqa: F401 (its fonts)
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

PANELS = {"none": "no trust region", "clip": "PPO-Clip"}
# Inside the band, switched off by the clip, and outside but left alone: the colours of the page.
SETS = {
    0: ("#9AA0A6", "inside the band"),
    1: ("#D55E00", "outside: the clip switches it off"),
    2: ("#0072B2", "outside: the clip leaves it alone"),
}
TICKS = (0.25, 0.5, 1, 2, 4)
BETWEEN = 3  # frames from one epoch to the next
FRAME_MS = 120
LAST_MS = 2000
DPI = 100  # of a picture 8 inches wide: 800 pixels


def frames(log_ratios):
    """The recorded epochs and, between them, straight lines: an array (frames, samples)."""
    epochs = np.concatenate([np.zeros((1, log_ratios.shape[1])), log_ratios])
    places = np.linspace(0, len(epochs) - 1, BETWEEN * (len(epochs) - 1) + 1)
    whole = np.minimum(places.astype(int), len(epochs) - 2)
    part = (places - whole)[:, None]
    return epochs[whole] * (1 - part) + epochs[whole + 1] * part


def draw(ax, name, ratio, advantages, clip_coef, limits):
    """Draws the samples of one method at one moment."""
    sets = page.partition(ratio, advantages, clip_coef)
    for number, (color, _) in SETS.items():
        here = sets == number
        ax.scatter(np.clip(ratio[here], *limits), advantages[here], s=5, color=color, linewidths=0)
    for edge in (1 - clip_coef, 1 + clip_coef):
        ax.axvline(edge, color="0.3", linewidth=1, linestyle=":")
    ax.set(xscale="log", xlim=limits, ylim=(-4, 4), xlabel="ratio w = π_new / π_old")
    ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    ax.minorticks_off()
    ax.grid(False)
    ax.set_title(f"{PANELS[name]}: {100 * np.mean(sets == 1):.0f} % have gone too far")


def frame(ratios, advantages, clip_coef, limits, epoch):
    """One frame, an image."""
    figure = Figure((8, 3.9), dpi=DPI, layout="constrained")
    for ax, (name, ratio) in zip(figure.subplots(1, len(ratios), sharey=True), ratios.items(), strict=True):
        draw(ax, name, ratio, advantages, clip_coef, limits)
    figure.axes[0].set_ylabel("advantage Â")
    handles = [
        figure.axes[0].scatter([], [], s=20, color=color, label=label, linewidths=0) for color, label in SETS.values()
    ]
    figure.suptitle(f"One update on HalfCheetah-v4: epoch {epoch} of 10")
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def main(out: Path = ROOT / "docs" / "update.gif"):
    """Draws the recorded update.

    Args:
        out: the file
    """
    record = np.load(HERE / "updates.npz")
    clip_coef = float(record["clip_coef"])
    advantages = record["advantages"].astype(float)
    moving = {name: np.exp(frames(record[f"log_ratio_{name}"].astype(float))) for name in PANELS}
    reach = 2 * float(np.quantile(np.abs(record["log_ratio_clip"]), 0.999))
    limits = (np.exp(-reach), np.exp(reach))
    images = []
    for number in range(len(moving["clip"])):
        ratios = {name: ratio[number] for name, ratio in moving.items()}
        images.append(frame(ratios, advantages, clip_coef, limits, -(-number // BETWEEN)))
    palette = images[-1].quantize(32, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [FRAME_MS] * (len(images) - 1) + [LAST_MS]
    images[0].save(out, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
    print(out)


if __name__ == "__main__":
    tyro.cli(main)
