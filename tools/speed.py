"""Time per step of our scripts, of other PPOs and of the bare environment, in turn on this machine.

Each is a process of its own with one thread, run at two lengths: the slope is the time of a step, the rest is the
start (imports, compilation). Stable-Baselines3's PPO and that of rl-tools get the same networks, rollouts, minibatches
and epochs, and normalised observations, the former normalised rewards, too; the rest are their defaults.
Run it while nothing else runs; the medians over the rounds come last:

    .venv/bin/pip install stable-baselines3==2.9.2
    .venv/bin/python tools/speed.py --env-id HalfCheetah-v4

With --rl-tools that is timed, too: PPO in C++, through its Python interface. It does not scale rewards, does not anneal
the learning rate, and does not bootstrap at a time limit. With --csv the figures go into a file:

    .venv/bin/pip install "rltools[mkl]==2.2.1"
    .venv/bin/python tools/speed.py --rl-tools --csv study/data/speed.csv

Two checkouts are compared in pairs: the last column is the time of a step over that of the first script in the same
round, which a machine that becomes slower or faster meanwhile changes least.

    .venv/bin/python tools/speed.py --no-sb3 --scripts ../before/ppo_clip_continuous.py ppo_clip_continuous.py

A script of another project, such as CleanRL's ppo_continuous_action.py, is timed by its command, in absolute paths:

    .venv/bin/python tools/speed.py --scripts ppo_clip_continuous.py "/its/bin/python /its/ppo_continuous_action.py"
"""

import contextlib
import csv
import os
import shlex
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

BARE = "bare environment"
SB3 = "SB3 PPO"
RL_TOOLS = "rl-tools PPO"
PACKAGES = ("torch", "gymnasium", "mujoco", "numpy", "stable-baselines3", "rltools")
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class Args:
    env_id: str = "HalfCheetah-v4"  # the environment
    scripts: tuple[str, ...] = (
        "ppo_clip_continuous.py",
    )  # paths of ours to time, or commands with CleanRL's arguments
    sb3: bool = True  # time Stable-Baselines3, too
    rl_tools: bool = False  # time rl-tools, too
    short: int = 51_200  # steps of the shorter run
    long: int = 204_800  # steps of the longer run
    repeats: int = 3  # how many times to go round
    cold: bool = False  # compile with an empty cache, as in the first run on a machine
    csv: Path | None = None  # append the figures of every round to this file
    only: Literal["sb3", "rl_tools", "bare"] | None = None  # do this one in this process


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


def rl_tools(args):
    """rl-tools' PPO with the protocol of our scripts, as far as it has one. It compiles at the first use."""
    import gymnasium as gym
    from rltools import PPO

    def make_env():
        return gym.wrappers.RescaleAction(gym.make(args.env_id), -1.0, 1.0)

    warnings.filterwarnings("ignore", message=".*out of date")
    networks = {f"{which}_ACTIVATION_FUNCTION": "TANH" for which in ("ACTOR", "CRITIC")}  # 64-64, its default
    policy = {"INITIAL_ACTION_STD": 1.0, "ACTION_ENTROPY_COEFFICIENT": 0.0}
    adam = {"OPTIMIZER_ALPHA": 3e-4, "OPTIMIZER_EPSILON": 1e-5}
    ppo = PPO(
        make_env,
        N_ENVIRONMENTS=1,
        ON_POLICY_RUNNER_STEPS_PER_ENV=2048,
        BATCH_SIZE=64,
        N_EPOCHS=10,
        NORMALIZE_OBSERVATIONS=True,
        TOTAL_STEP_LIMIT=1_000_000_000,  # compiled in, so that of all lengths
        enable_evaluation=False,
        interface_name="speed",
        **networks,
        **policy,
        **adam,
    )
    state = ppo.State(0)
    for _ in range(args.long // 2048):
        state.step()


def timed(command, folder, variables):
    """Runs a command; returns its wall time in seconds and its peak memory in MB."""
    start = time.perf_counter()
    files = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1)]
    with contextlib.chdir(folder):
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
    if args.rl_tools:
        jobs[RL_TOOLS] = ([*own, "--only", "rl_tools"], "--long")
    for script in args.scripts:
        is_script = Path(script).is_file()
        command = [sys.executable, str(Path(script).resolve())] if is_script else shlex.split(script)
        if len(command) < 2 or not Path(command[1]).is_file():
            print(
                f"error: --scripts {script}: neither a script that is there nor a command that runs one",
                file=sys.stderr,
            )
            sys.exit(2)
        label = script if is_script else Path(command[1]).name
        jobs[label] = ([*command, "--env-id", args.env_id], "--total-timesteps")
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


def versions():
    """What is installed of PACKAGES: "torch=2.13.0 gymnasium=1.4.0"."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package}={version(package)}")
        except PackageNotFoundError:
            continue
    return " ".join(found)


def write(path, env_id, number, figures):
    """Append a row a job of a round to a CSV file, which is made if it is not there."""
    import machine  # it imports torch, with which rl-tools refuses to run

    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(["date", "processor", "versions", "env_id", "round", "program", *Figures._fields])
        common = [f"{datetime.now(UTC):%Y-%m-%d}", machine.processor(), versions(), env_id, number]
        for label, (start, step, memory) in figures.items():
            writer.writerow([*common, label, f"{start:.1f}", f"{step:.1f}", f"{memory:.0f}"])


def main(args):
    """Time all jobs in turn, as many rounds as asked for, and print a table a round and the medians."""
    jobs = jobs_of(args)
    first = args.scripts[0]
    if not args.cold:  # or the first round compiles where this machine has not yet
        for command, flag in jobs.values():
            with tempfile.TemporaryDirectory() as folder:
                timed([*command, flag, "4096"], folder, THREADS)
    rounds, ratios = [], []
    for number in range(args.repeats):
        figures = {label: measure(args, command, flag) for label, (command, flag) in jobs.items()}
        rounds.append(figures)
        ratios.append({label: taken.step / figures[first].step for label, taken in figures.items()})
        show(args.env_id, figures, ratios[-1])
        if args.csv:
            write(args.csv, args.env_id, number, figures)
    print(f"medians of {args.repeats}")
    medians = {}
    for label in jobs:
        columns = zip(*(figures[label] for figures in rounds), strict=True)
        medians[label] = Figures(*map(statistics.median, columns))
    pairs = {label: statistics.median(ratio[label] for ratio in ratios) for label in jobs}
    show(args.env_id, medians, pairs)


if __name__ == "__main__":
    arguments = tyro.cli(Args)
    {None: main, "sb3": sb3, "rl_tools": rl_tools, "bare": bare}[arguments.only](arguments)
