"""Plays the agent that a run saved (--save-model), with its statistics frozen:

    python tools/evaluate.py runs/NAME                  # ten episodes of its likeliest actions
    python tools/evaluate.py runs/NAME --video          # filmed, into runs/NAME/evaluation/

It runs the code of that folder: the copy of the script that trained the agent, so that an agent with another network is
played with that network. So evaluate only folders whose code you would run.
"""

import importlib.util
import math
import sys
from pathlib import Path
from typing import Annotated

import gymnasium as gym
import numpy as np
import torch
import tyro

MAX_STEPS = 10_000  # the longest episode: some environments never end one


def fail(message):
    """End the program with one line on standard error and exit code 2."""
    print("error:", message, file=sys.stderr)
    sys.exit(2)


def load_script(folder):
    """The copy of the training script in a run's folder, as a module."""
    for path in sorted(folder.glob("*.py")):
        if "class Agent" in path.read_text(encoding="utf-8"):
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    fail(f"{folder} holds no copy of the script that trained it: no class Agent in {folder}/*.py")


def load_policy(script, checkpoint, env):
    """A function of one observation that returns the agent's likeliest action, as the environment takes it."""
    discrete = isinstance(env.action_space, gym.spaces.Discrete)
    num_outputs = int(env.action_space.n) if discrete else math.prod(env.action_space.shape)
    agent = script.Agent(env.observation_space.shape[0], num_outputs)
    agent.load_state_dict(checkpoint["agent"])
    actor = script.numpy_actor(agent)
    if discrete:
        return lambda obs: env.action_space.start + actor(obs[None].astype(np.float32)).argmax()

    stats = script.RunningStats(())
    for name, value in checkpoint["obs_stats"].items():
        setattr(stats, name, value.numpy())
    low, high = env.action_space.low, env.action_space.high

    def likeliest_action(obs):
        action = actor(stats.normalise(obs[None]).astype(np.float32))
        return action.reshape(low.shape).clip(low, high)

    return likeliest_action


def play(env, policy, episodes, seed):
    """The undiscounted returns of some episodes, which all go on from one random stream."""
    returns = []
    for episode in range(episodes):
        obs, _ = env.reset(seed=seed if episode == 0 else None)
        total = 0.0
        for _ in range(MAX_STEPS):
            obs, reward, termination, truncation, _ = env.step(policy(obs))
            total += float(reward)
            if termination or truncation:
                break
        returns.append(total)
    return returns


def main(
    folder: tyro.conf.Positional[Path],
    episodes: Annotated[int, tyro.conf.arg(help="how many episodes")] = 10,
    seed: Annotated[int | None, tyro.conf.arg(help="seed of the environment; the run's own if not given")] = None,
    video: Annotated[bool, tyro.conf.arg(help="film every episode, into evaluation/ in the folder")] = False,
):
    """Plays the agent that a run saved, and prints what it returns. It runs the copy of the script in that folder.

    Args:
        folder: the run's folder, with agent.pt
    """
    if not (folder / "agent.pt").is_file():
        fail(f"{folder} has no agent.pt: train with --save-model")
    if episodes < 1:
        fail(f"--episodes must be at least 1, not {episodes}")
    checkpoint = torch.load(folder / "agent.pt", weights_only=True)
    args = checkpoint["args"]
    script = load_script(folder)
    env = script.make_env(args["env_id"], render=video)
    if video:
        env = gym.wrappers.RecordVideo(env, str(folder / "evaluation"), episode_trigger=lambda episode: True)
    if seed is None:
        *_, evaluation_seed, _ = np.random.SeedSequence(args["seed"]).spawn(4)
        seed = int(evaluation_seed.generate_state(1)[0])
    returns = play(env, load_policy(script, checkpoint, env), episodes, seed)
    env.close()
    for episode, total in enumerate(returns):
        print(f"episode {episode}: {total:.1f}")
    print(f"{folder}: mean {np.mean(returns):.1f} ± {np.std(returns):.1f} over {episodes} episodes")


if __name__ == "__main__":
    tyro.cli(main)
