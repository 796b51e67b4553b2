"""What several test files share: the scripts' names, runs in processes of their own, and readers of what runs write."""

import ast
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
THREE = ("clip", "klip", "phi")
SURROGATES = tuple(f"ppo_{form}_{task}" for task in ("continuous", "cartpole") for form in THREE)
CONTINUOUS = (*SURROGATES[:3], "ppo_kl_scalar_continuous")
SCRIPTS = (*CONTINUOUS, *SURROGATES[3:], "ppo_kl_scalar_cartpole")

# What result.json holds, in this order, before the versions.
FIELDS = [
    *("env_id", "exp_name", "seed", "args", "global_step", "final_return", "diverged_at", "wall_time_s", "sps"),
    *("params_sha256", "script_sha256"),
]

# Rollouts of 256 steps in minibatches of 64: as many updates a second as the defaults, in a few seconds.
SHORT = ("--env-id", "Hopper-v4", "--num-steps", "256", "--num-minibatches", "4", "--learning-rate", "1e-3")


@dataclass
class Run:
    """A script's process that has ended, and the working directory that it had to itself."""

    cwd: Path
    returncode: int
    stdout: str
    stderr: str
    cache: dict = field(default_factory=dict)

    @property
    def folder(self):
        """The one run folder: the one with the events in it."""
        (events,) = self.cwd.glob("runs/**/events.out.tfevents.*")
        return events.parent

    @property
    def result(self):
        return json.loads((self.folder / "result.json").read_text())

    @property
    def scalars(self):
        """The TensorBoard file read back: tag -> [(step, value)]."""
        if not self.cache:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0}).Reload()
            for tag in events.Tags()["scalars"]:
                self.cache[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
        return self.cache

    def values(self, tag):
        return [value for _, value in self.scalars[tag]]


def environment(**variables):
    """This process's environment, with tests/ importable, no display, and no W&B account but what variables say."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") and k not in ("DISPLAY", "MUJOCO_GL")}
    return kept | {"PYTHONPATH": str(ROOT / "tests"), "WANDB_MODE": "offline"} | variables


def command(script, *arguments):
    return [sys.executable, str(ROOT / f"{script}.py"), *map(str, arguments)]


def run(cwd, script, *arguments, timeout=300, **variables):
    """Runs a script to its end in cwd."""
    how = {"cwd": cwd, "env": environment(**variables), "timeout": timeout}
    done = subprocess.run(command(script, *arguments), **how, capture_output=True, text=True, check=False)
    return Run(Path(cwd), done.returncode, done.stdout, done.stderr)


def run_all(folder, commands, **variables):
    """Runs {name: (script, *arguments)} two at a time, each in its own folder; {name: Run}, all of which succeeded."""

    def one(name):
        cwd = folder / name.replace(" ", "_")
        cwd.mkdir()
        return run(cwd, *commands[name], **variables)

    with ThreadPoolExecutor(2) as pool:
        runs = dict(zip(commands, pool.map(one, commands), strict=True))
    for name, done in runs.items():
        assert done.returncode == 0, f"{name}: {done.stderr}"
    return runs


def run_in_turn(folder, commands):
    """The same, one after the other in each of two processes: importing torch takes longer than a short training."""
    cwds = {name: folder / name.replace(" ", "_") for name in commands}
    for cwd in cwds.values():
        cwd.mkdir()

    def half(names):
        plan = "\n".join(json.dumps([str(cwds[name]), *command(*commands[name])[1:]]) for name in names)
        in_turn = [sys.executable, ROOT / "tools/in_turn.py"]
        done = subprocess.run(in_turn, input=plan, env=environment(), stdout=subprocess.PIPE, text=True, check=False)
        return done.returncode

    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(half, (list(cwds)[::2], list(cwds)[1::2])))
    runs = {
        name: Run(cwd, 0, *((cwd / f"std{kind}").read_text() for kind in ("out", "err"))) for name, cwd in cwds.items()
    }
    assert codes == [0, 0], [run.stderr for run in runs.values()]
    return runs


def without(path, *functions, docstring=True):
    """The text of a script without its module docstring (if docstring) and without the named functions."""
    text = Path(path).read_text()
    lines, tree = text.splitlines(keepends=True), ast.parse(text)
    drop = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in functions]
    assert len(drop) == len(functions), f"{path} does not define all of {functions}"
    for node in [tree.body[0]] * docstring + drop:
        lines[node.lineno - 1 : node.end_lineno] = [None] * (node.end_lineno - node.lineno + 1)
    return "".join(line for line in lines if line is not None)
