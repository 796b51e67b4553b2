"""What several test files share: the scripts' names, runs in processes of their own, and readers of what runs write."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parent.parent
THREE = ("clip", "klip", "phi")
SURROGATES = (*(f"ppo_{form}_continuous" for form in THREE), *(f"ppo_{form}_cartpole" for form in THREE))
SCRIPTS = (*SURROGATES, "ppo_kl_scalar_continuous", "ppo_kl_scalar_cartpole")
# test_diff.py holds the other scripts' texts to these.
ONE_OF_EACH = ("ppo_klip_continuous", "ppo_clip_cartpole")
KL_SCALAR = ("ppo_kl_scalar_continuous", "ppo_kl_scalar_cartpole")

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

    @property
    def folder(self):
        """The one run folder: the one with the events in it."""
        (events,) = self.cwd.glob("runs/**/events.out.tfevents.*")
        return events.parent

    @property
    def result(self):
        return json.loads((self.folder / "result.json").read_text(encoding="utf-8"))

    @cached_property
    def scalars(self):
        """The TensorBoard file read back: tag -> [(step, value)]."""
        events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0}).Reload()
        tags = events.Tags()["scalars"]
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}

    def values(self, tag):
        return [value for _, value in self.scalars[tag]]

    @property
    def hyperparameters(self):
        """The arguments in the TensorBoard file, as text: name -> value."""
        events = EventAccumulator(str(self.folder)).Reload()
        (text,) = events.Tensors("hyperparameters/text_summary")
        _, _, *rows = text.tensor_proto.string_val[0].decode().splitlines()
        return dict(row.strip("|").split("|") for row in rows)


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


def without_torchs_warnings(text):
    """The lines of a run's standard error but for torch's own, such as that a build for CUDA finds no GPU."""
    lines = text.splitlines()
    return [line for line in lines if "site-packages/torch/" not in line and line.strip() != "warnings.warn("]


def load(path):
    """A file of that path as a module of its own, as sys.modules must know it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def task(script, name):
    """The id of one of countdown_env's environments with the actions that a script trains."""
    family, _, kind = name.partition("-")
    discrete = "Discrete" if "cartpole" in script else ""
    return f"countdown_env:{family}{discrete}{'-' * bool(kind)}{kind}-v0"


def batch(module, **columns):
    """A script's Batch of which only these columns are filled."""
    return module.Batch(**dict.fromkeys(module.Batch._fields) | columns)


def env_seeds(seed, num_envs):
    """The seeds of the environments of a run with this seed."""
    _, _, _, others = np.random.SeedSequence(seed).spawn(4)
    return [seed, *others.generate_state(num_envs - 1).tolist()]


def definitions(path):
    """The text of a Python file's top-level functions and classes by name, and under "" what is left of the file
    without them and its docstring."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    tree = ast.parse(text)
    parts = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            parts[node.name] = "".join(lines[first - 1 : node.end_lineno])
            lines[first - 1 : node.end_lineno] = [""] * (node.end_lineno - first + 1)
    docstring = tree.body[0]
    parts[""] = "".join(line for line in lines[docstring.end_lineno :] if line.strip())
    return parts


def complaints(stderr):
    """The lines of standard error, but for what MuJoCo 4 says of Gymnasium's models."""
    return [line for line in stderr.splitlines() if line and not line.startswith("WARNING: compiler attr")]
