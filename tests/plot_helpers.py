"""What the tests of plots/ and of study/ share: rows without a training, and what stands in a picture."""

import compare
import pandas as pd


def panel(figure, task):
    return next(ax for ax in figure.axes if ax.get_title(loc="left").startswith(task))


def texts(ax):
    return "\n".join(text.get_text() for text in ax.texts)


def titles(figure):
    return "\n".join(ax.get_title(loc="left") for ax in figure.axes)


def rows_of(returns, tasks=(), variants=compare.FORMS, **columns):
    """Runs as comparison gives them, from {(task, variant): {seed: final return, None where it diverged}}."""
    runs = [
        {"env_id": task, "variant": variant, "seed": seed, "final_return": value, "diverged": value is None, **columns}
        for (task, variant), values in returns.items()
        for seed, value in values.items()
    ]
    runs = pd.DataFrame(runs).astype({"final_return": float})
    runs["env_id"] = compare.ordered(runs["env_id"], tasks)
    runs["variant"] = compare.ordered(runs["variant"], variants)
    filled = {"params_sha256": "", "steps": 1_000_000, "versions": ""} | columns
    return runs.assign(run=[f"run{i}" for i in range(len(runs))], **filled)
