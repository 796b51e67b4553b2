"""Measures what an untrained policy returns, the zero of the scores, into random_policy.csv:

    python study/random_policy.py

The policy is the scripts' initial one: a standard Gaussian around 0, clipped to the bounds, for Box actions, and
uniform for Discrete ones. 1000 episodes a task take some minutes.
"""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
from tqdm import tqdm

EPISODES = 1000
PAPER = Path(__file__).parent / "paper_table.csv"


def episode_return(env, rng, seed=None):
    env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        if isinstance(env.action_space, gym.spaces.Discrete):
            action = env.action_space.start + rng.integers(env.action_space.n)
        else:
            action = rng.standard_normal(env.action_space.shape).clip(env.action_space.low, env.action_space.high)
        _, reward, terminated, truncated, _ = env.step(action)
        total, ended = total + float(reward), terminated or truncated
    return total


def random_returns(task, episodes=EPISODES):
    """The returns of that many episodes on a task."""
    # The environment's own generator is default_rng(0): this one must be another.
    env, rng = gym.make(task), np.random.default_rng(1)
    return np.array([episode_return(env, rng, None if i else 0) for i in tqdm(range(episodes), task, disable=None)])


if __name__ == "__main__":
    returns = {task: random_returns(task) for task in pd.read_csv(PAPER, comment="#")["task"]}
    rows = [(task, EPISODES, f"{r.mean():.4g}", f"{r.std():.4g}") for task, r in returns.items()]
    with (Path(__file__).parent / "random_policy.csv").open("w", encoding="utf-8") as file:
        file.write(
            "# Return of an untrained policy: a clipped standard Gaussian, uniform if Discrete (random_policy.py).\n"
        )
        pd.DataFrame(rows, columns=["task", "episodes", "mean", "std"]).to_csv(file, index=False)
