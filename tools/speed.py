"""Time per step of our scripts, of Stable-Baselines3's PPO and of the bare environment, in turn on this machine.

Each is a process of its own with one thread, run at two lengths: the slope is the time of a step, the rest is the
start (imports, compilation). SB3's PPO gets the same protocol (networks, rollouts, minibatches, epochs, normalisation).
Run it while nothing else runs; the medians over the rounds come last:

    .venv/bin/pip install stable-baselines3==2.9.2
    .venv/bin/python tools/speed.py --env-id HalfCheetah-v4

A script of another project, such as CleanRL's ppo_continuous_action.py, is timed by its command, in absolute paths:

    .venv/bin/python tools/speed.py --scripts ppo_clip_continuous.py "/its/venv/bin/python /its/ppo_continuous_action.py"
"""

import os
import statistics
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
    env_id: str = "HalfCheetah-v4"  # the environment
    scripts: tuple[str, ...] = ("ppo_clip_continuous.py",)  # ours to time, or commands with CleanRL's arguments
    short: int = 51_200  # steps of the shorter run
    long: int = 204_800  # steps of the longer run
    repeats: int = 3  # how many times to go round
    cold: bool = False  # compile with an empty cache, as in the first run on a machine
    only: Literal["sb3", "bare"] | None = None  # do this one in this process (what the benchmark itself calls)


def bare(args):
    """Steps one environment with random actions drawn beforehand."""
    import gymnasium as gym

    warnings.filterwarnings("ignore", message=".*out of date")
    env = gym.make(args.env_id)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(1000)]
    env.reset(seed=0)
    for step in range(args.long):
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
    model = PPO(
        "MlpPolicy", envs, n_steps=steps, batch_size=64, n_epochs=10, policy_kwargs=networks, device="cpu", seed=0
    )
    model.learn(args.long)


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
    own = [sys.executable, str(Path(__file__).resolve()), "--env-id", args.env_id]
    jobs = {"bare environment": ([*own, "--only", "bare"], "--long"), "SB3 PPO": ([*own, "--only", "sb3"], "--long")}
    for script in args.scripts:
        command = script.split() if " " in script else [sys.executable, str(ROOT / script)]
        jobs[Path(command[1]).name] = ([*command, "--env-id", args.env_id], "--total-timesteps")
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    measured = {name: [] for name in jobs}  # (start in s, µs a step, peak MB) a round

    def show(figures):
        bare, sb3 = (figures[name][1] for name in ("bare environment", "SB3 PPO"))
        print(
            f"{args.env_id:24} {'start s':>8} {'us/step':>8} {'steps/s':>8} {'x SB3':>6} {'x bare':>6} {'peak MB':>8}"
        )
        for name, (start, micro, memory) in figures.items():
            rates = f"{start:8.1f} {micro:8.1f} {1e6 / micro:8.0f} {sb3 / micro:6.2f} {micro / bare:6.2f} {memory:8.0f}"
            print(f"{name:24} {rates}", flush=True)

    if not args.cold:  # or the first round compiles where this machine has not yet
        for command, flag in jobs.values():
            with tempfile.TemporaryDirectory() as folder:
                timed([*command, flag, "4096"], folder, threads)
    for _ in range(args.repeats):
        for name, (command, flag) in jobs.items():
            with tempfile.TemporaryDirectory() as folder:
                seconds, memory = {}, 0.0
                for steps in (args.short, args.long):
                    cache = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/{steps}"} if args.cold else {}
                    seconds[steps], memory = timed([*command, flag, str(steps)], folder, threads | cache)
            slope = (seconds[args.long] - seconds[args.short]) / (args.long - args.short)
            measured[name].append((seconds[args.short] - slope * args.short, 1e6 * slope, memory))
        show({name: rounds[-1] for name, rounds in measured.items()})
    print(f"medians of {args.repeats}")
    show({name: [statistics.median(column) for column in zip(*rounds)] for name, rounds in measured.items()})


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    {None: main, "sb3": sb3, "bare": bare}[arguments.only](arguments)
