"""What the study fixed, and what was published elsewhere: the paper's returns and curves, those of
Stable-Baselines3, and what a random policy returns."""

from pathlib import Path

import compare
import pandas as pd

HERE = Path(__file__).resolve().parent

# In this order pictures and tables show them; the last two are of stage 3 alone.
TASKS = [
    *("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4", "Humanoid-v4", "CartPole-v1", "LunarLander-v3"),
    *("Reacher-v4", "Swimmer-v4"),
]
DISCRETE = ["CartPole-v1", "LunarLander-v3"]
MAIN = [*compare.FORMS, "kl_fixed", "kl_adaptive"]  # the variants of the paper
BETAS = [
    *("clip_higher", "dual_clip", "rollback", "spo", "sapo", "cispo", "soft", "none", "ano", "dpo", "aband"),
    "clip_eps",
]
VARIANTS = [*MAIN, *BETAS]
SEEDS = range(5)  # of the paper's protocol
KNOBS = ["--clip-coef", "--beta", "--kl-target"]  # the arguments that were swept
BIMODAL = "HalfCheetah-v4"
BREAKOUT = 3000  # lies in the gap between the two modes of the clip
MODES = {BIMODAL: BREAKOUT}
SCREENED = "stage1/"  # the folder of runs that no picture shows
APART = ("stage2/", "stage3/")  # the folders of runs that stand in no comparison but that of contest.py

TABLE = pd.read_csv(HERE / "paper_table.csv", comment="#", index_col="task")
CURVES = pd.read_csv(HERE / "paper_curves.csv", comment="#")
PEER = pd.read_csv(HERE / "peer.csv", comment="#", dtype={"beta": str}, keep_default_na=False)


def reference():
    """The paper's returns, and those of a random policy, as plots/ compares with them."""
    of_variants = {}
    for variant in MAIN:
        if f"{variant}_mean" in TABLE:
            columns = {f"{variant}_mean": "mean", f"{variant}_std": "std"}
            of_variants[variant] = TABLE[["steps", *columns]].rename(columns=columns)
    returns = pd.concat(of_variants, names=["variant"]).reorder_levels(["task", "variant"]).sort_index()
    returns["seeds"] = len(SEEDS)
    random = pd.read_csv(HERE / "random_policy.csv", comment="#", index_col="task")["mean"]
    return compare.Reference(returns, random, "paper")


REFERENCE = reference()


def main_runs(runs):
    """The runs of the paper's variants."""
    return runs[runs["variant"].isin(MAIN)]


def betas_runs(runs):
    """The runs of the files of betas/, and the clip's on their tasks."""
    others = ~runs["variant"].isin(MAIN)
    beside = (runs["variant"] == "clip") & runs["env_id"].isin(runs["env_id"][others])
    return runs[others | beside]


def apart(runs):
    """The runs in the folders of those that stand apart."""
    return runs[runs["run"].str.startswith(APART)]


def not_apart(runs):
    """The others."""
    return runs[~runs["run"].str.startswith(APART)]
