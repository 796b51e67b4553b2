"""Time per step of our scripts, of Stable-Baselines3's PPO and of the bare environment, in turn on this machine.

Each is a process of its own with one thread, run at two lengths: the slope is the time of a step, the rest is the
start (imports, compilation). SB3's PPO gets the same networks, rollouts, minibatches and epochs, and normalised
observations and rewards; the rest are its defaults.
Run it while nothing else runs; the medians over the rounds come last:

    .venv/bin/pip install stable-baselines3==2.9.2
    .venv/bin/python tools/speed.py --env-id HalfCheetah-v4

Two checkouts are compared in pairs: the last column is the time of a step over that of the first script in the same
round, which a machine that becomes slower or faster meanwhile changes least.

    .venv/bin/python tools/speed.py --no-sb3 --scripts ../before/ppo_clip_continuous.py ppo_clip_continuous.py

A script of another project, such as CleanRL's ppo_continuous_action.py, is timed by its command, in absolute paths:

    .venv/bin/python tools/speed.py --scripts ppo_clip_continuous.py "/its/bin/python /its/ppo_continuous_action.py"
"""

import os
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

BARE = "bare environment"
SB3 = "SB3 PPO"
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class Args:
    env_id: str = "HalfCheetah-v4"  # the environment
    scripts: tuple[str, ...] = (
        "ppo_clip_continuous.py",
    )  # paths of ours to time, or commands with CleanRL's arguments
    sb3: bool = True  # time Stable-Baselines3, too
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


class Figures(NamedTuple):
    """What one job took in one round, or the medians of that."""

    start: float  # seconds before the first step
    step: float  # µs a step
    memory: float  # peak MB


def jobs_of(args):
    """The commands to time, {label: (command, the flag for the number of steps)}."""
    own = [sys.executable, str(Path(__file__).resolve()), "--env-id", args.env_id]
    jobs = {BARE: ([*own, "--only", "bare"], "--long")}
    if args.sb3:
        jobs[SB3] = ([*own, "--only", "sb3"], "--long")
    for script in args.scripts:
        is_script = Path(script).is_file()
        command = [sys.executable, str(Path(script).resolve())] if is_script else shlex.split(script)
        if len(command) < 2 or not Path(command[1]).is_file():
            print(
                f"error: --scripts {script}: neither a script that is there nor a command that runs one",
                file=sys.stderr,
            )
            sys.exit(2)
        jobs[script] = ([*command, "--env-id", args.env_id], "--total-timesteps")
    return jobs


def measure(args, command, flag):
    """The Figures of a job: it runs at both lengths."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, memory = {}, 0.0
        for steps in (args.short, args.long):
            cache = {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/{steps}"} if args.cold else {}
            seconds[steps], memory = timed([*command, flag, str(steps)], folder, THREADS | cache)
    step = (seconds[args.long] - seconds[args.short]) / (args.long - args.short)
    return Figures(seconds[args.short] - step * args.short, 1e6 * step, memory)


def show(env_id, figures, ratios):
    """Print a table of {label: Figures} and {label: time of a step over the first script's}."""
    peer = figures.get(SB3)
    columns = ["start s", "us/step", "steps/s", "x SB3", "x bare", "peak MB", "pair"]
    width = max(map(len, [env_id, *figures]))
    print(f"{env_id:{width}}", *(f"{column:>8}" for column in columns))
    for label, (start, step, memory) in figures.items():
        cells = [f"{start:.1f}", f"{step:.1f}", f"{1e6 / step:.0f}", f"{peer.step / step:.2f}" if peer else "-"]
        cells += [f"{step / figures[BARE].step:.2f}", f"{memory:.0f}", f"{ratios[label]:.3f}"]
        print(f"{label:{width}}", *(f"{cell:>8}" for cell in cells), flush=True)


def main(args):
    """Time all jobs in turn, as many rounds as asked for, and print a table a round and the medians."""
    jobs = jobs_of(args)
    first = args.scripts[0]
    if not args.cold:  # or the first round compiles where this machine has not yet
        for command, flag in jobs.values():
            with tempfile.TemporaryDirectory() as folder:
                timed([*command, flag, "4096"], folder, THREADS)
    rounds, ratios = [], []
    for _ in range(args.repeats):
        figures = {label: measure(args, command, flag) for label, (command, flag) in jobs.items()}
        rounds.append(figures)
        ratios.append({label: taken.step / figures[first].step for label, taken in figures.items()})
        show(args.env_id, figures, ratios[-1])
    print(f"medians of {args.repeats}")
    medians = {}
    for label in jobs:
        columns = zip(*(figures[label] for figures in rounds), strict=True)
        medians[label] = Figures(*map(statistics.median, columns))
    pairs = {label: statistics.median(ratio[label] for ratio in ratios) for label in jobs}
    show(args.env_id, medians, pairs)


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    {None: main, "sb3": sb3, "bare": bare}[arguments.only](arguments)
