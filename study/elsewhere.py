"""Trains Stable-Baselines3's PPO with its own policy loss, or with another by the patch of docs/use.md:

    .venv/bin/pip install stable-baselines3==2.9.2
    .venv/bin/python study/elsewhere.py --seed 0 --loss own >> study/elsewhere.csv
    .venv/bin/python study/elsewhere.py --seed 0 --loss klip >> study/elsewhere.csv

prints a row of study/elsewhere.csv. With `klip`, the function of ppo_klip_continuous.py, its hash is to be that of own.
With the name of a file of betas/ it is another one.
"""

import csv
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "tools")]

import machine
import torch
import tyro


@dataclass
class Args:
    env_id: str = "Hopper-v4"  # the environment
    seed: int = 0  # the seed
    loss: str = "own"  # own, klip, or the name of a file of betas/
    total_timesteps: int = 1_000_000  # environment steps


def text_of(loss):
    """A file with a function surrogate, as text."""
    if loss != "klip":
        return (ROOT / "betas" / f"{loss}.py").read_text(encoding="utf-8")
    script = (ROOT / "ppo_klip_continuous.py").read_text(encoding="utf-8")
    return "import torch\n\n\n" + re.search(r"^def surrogate\(.*?(?=^\S|\Z)", script, re.DOTALL | re.MULTILINE)[0]


def patch_into(folder, loss):
    """Puts a copy of Stable-Baselines3 with another loss into a folder, where it is found before the installed one."""
    installed = importlib.util.find_spec("stable_baselines3").submodule_search_locations[0]
    shutil.copytree(installed, folder / "stable_baselines3", ignore=shutil.ignore_patterns("__pycache__"))
    document = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
    patch = re.search(r"## Stable-Baselines3\n.*?```diff\n(.*?)```", document, re.DOTALL)[1]
    subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, text=True, check=True)
    (folder / "spo.py").write_text(text_of(loss), encoding="utf-8")
    sys.path.insert(0, str(folder))


def main(args: Args):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="elsewhere.") as folder:
        if args.loss != "own":
            patch_into(Path(folder), args.loss)
        from stable_baselines3 import PPO

        model = PPO("MlpPolicy", args.env_id, seed=args.seed, device="cpu").learn(args.total_timesteps)
    parameters = b"".join(parameter.detach().numpy().tobytes() for parameter in model.policy.parameters())
    packages = ("stable-baselines3", "torch", "gymnasium", "mujoco", "numpy")
    versions = " ".join(f"{package}={version(package)}" for package in packages)
    row = ["Stable-Baselines3", args.env_id, args.total_timesteps, args.seed, args.loss]
    row += [hashlib.sha256(parameters).hexdigest(), f"{datetime.now(UTC):%Y-%m-%d}", versions, machine.processor()]
    csv.writer(sys.stdout, lineterminator="\n").writerow(row)


if __name__ == "__main__":
    main(tyro.cli(Args))
