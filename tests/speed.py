"""Steps per second of our scripts, of Stable-Baselines3's PPO and of the bare environment, in turn on this machine.

Each is a process of its own with one thread, timed from start to end, imports and compilation included; SB3's PPO gets
the same protocol (networks, rollouts, minibatches, epochs, normalisation). Run it while nothing else runs:

    .venv/bin/pip install stable-baselines3==2.9.2
    .venv/bin/python tests/speed.py --env-id HalfCheetah-v4
"""

import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Args:
    env_id: str = "HalfCheetah-v4"
    """the environment"""
    scripts: tuple[str, ...] = ("ppo_clip_continuous.py",)
    """our scripts to time (ppo_clip_cartpole.py for discrete actions)"""
    total_timesteps: int = 1_000_000
    """steps of each of our scripts"""
    reference_timesteps: int = 100_000
    """steps of SB3 and of the bare environment, whose rate does not depend on it"""
    repeats: int = 1
    """how many times to go round"""
    cold: bool = False
    """compile with an empty cache, as in the first run on a machine"""
    only: Literal["sb3", "bare"] | None = None
    """do this one in this process (what the benchmark itself calls)"""


def bare(args):
    """Steps one environment with random actions drawn beforehand."""
    import gymnasium as gym

    warnings.filterwarnings("ignore", message=".*out of date")
    env = gym.make(args.env_id)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(1000)]
    env.reset(seed=0)
    for step in range(args.reference_timesteps):
        _, _, terminated, truncated, _ = env.step(actions[step % 1000])
        if terminated or truncated:
            env.reset()


def sb3(args):
    """Stable-Baselines3's PPO with the protocol of our scripts."""
    import gymnasium as gym
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    warnings.filterwarnings("ignore", message=".*out of date")
    torch.set_num_threads(1)
    discrete = isinstance(gym.make(args.env_id).action_space, gym.spaces.Discrete)
    envs = make_vec_env(args.env_id, n_envs=4 if discrete else 1, seed=0)
    envs = envs if discrete else VecNormalize(envs)
    networks = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    steps = 128 if discrete else 2048
    model = PPO("MlpPolicy", envs, n_steps=steps, batch_size=64, n_epochs=10, policy_kwargs=networks, device="cpu", seed=0)
    model.learn(args.reference_timesteps)


def timed(command, folder, variables):
    """Runs a command; returns its wall time in seconds and its peak memory in MB."""
    start = time.perf_counter()
    files = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1)]
    os.chdir(folder)
    pid = os.posix_spawn(command[0], command, os.environ | variables, file_actions=files)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"error: {' '.join(command)} failed")
    return time.perf_counter() - start, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def main(args):
    own = [sys.executable, str(Path(__file__).resolve())]
    jobs = {"bare environment": ([*own, "--only", "bare"], args.reference_timesteps)}
    jobs["Stable-Baselines3 PPO"] = ([*own, "--only", "sb3"], args.reference_timesteps)
    for command, steps in jobs.values():
        command += ["--env-id", args.env_id, "--reference-timesteps", str(steps)]
    for script in args.scripts:
        command = [sys.executable, str(ROOT / script), "--env-id", args.env_id]
        jobs[script] = ([*command, "--total-timesteps", str(args.total_timesteps)], args.total_timesteps)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    print(f"{args.env_id:24} {'steps':>9} {'seconds':>8} {'steps/s':>8} {'x SB3':>6} {'x bare time':>11} {'peak MB':>8}")
    for _ in range(args.repeats):
        rates = {}
        for name, (command, steps) in jobs.items():
            with tempfile.TemporaryDirectory() as folder:
                cache = {"TORCHINDUCTOR_CACHE_DIR": folder} if args.cold else {}
                seconds, memory = timed(command, folder, threads | cache)
            rates[name] = rate = steps / seconds
            versus = f"{rate / rates['Stable-Baselines3 PPO']:6.2f}" if "Stable-Baselines3 PPO" in rates else f"{'':6}"
            against = rates["bare environment"] / rate
            print(f"{name:24} {steps:9} {seconds:8.1f} {rate:8.0f} {versus} {against:11.2f} {memory:8.0f}", flush=True)


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    {None: main, "sb3": sb3, "bare": bare}[arguments.only](arguments)
