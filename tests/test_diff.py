"""The diff is the theorem: the scripts differ in their docstring and surrogate, and where this file says so."""

import importlib
import re
import subprocess
import tomllib
from dataclasses import asdict

import pytest
from helpers import ROOT, SCRIPTS, THREE, definitions

FORMS = (*THREE, "kl_scalar")
# What the scalar KL penalty needs of its own, beside its surrogate.
KL_SCALAR_SPECIFIC = {"Args", "Batch", "check", "update", "train", "kl_estimate", "adapted_beta"}
# What a cartpole script does not share with its continuous twin, and why.
TASK_SPECIFIC = {
    "Args": "defaults",
    "Agent": "categorical policy",
    "numpy_actor": "the actor's name",
    "make_env": "which action spaces are refused",
    "RunningStats": "normalisation, which cartpole has none of",
    "scale": "normalisation",
    "scale_rewards": "normalisation",
    "train": "actions and normalisation",
}


def path(script):
    return ROOT / f"{script}.py"


def differing(one, other):
    """The names of the top-level definitions in which two scripts differ, "" for what stands between them."""
    ours, theirs = definitions(path(one)), definitions(path(other))
    return {name for name in ours | theirs if ours.get(name) != theirs.get(name)}


@pytest.mark.parametrize("task", ["continuous", "cartpole"])
@pytest.mark.parametrize("form", FORMS[1:])
def test_the_forms_are_one_text_but_for_the_surrogate(form, task):
    specific = KL_SCALAR_SPECIFIC if form == "kl_scalar" else set()
    assert differing(f"ppo_clip_{task}", f"ppo_{form}_{task}") == {"surrogate"} | specific


@pytest.mark.parametrize("form", FORMS)
def test_cartpole_differs_from_continuous_only_where_the_task_does(form):
    specific = set(TASK_SPECIFIC) | ({"Batch", "kl_estimate"} if form == "kl_scalar" else set())
    assert differing(f"ppo_{form}_continuous", f"ppo_{form}_cartpole") == specific
    scripts = (importlib.import_module(f"ppo_{form}_{task}") for task in ("continuous", "cartpole"))
    continuous, cartpole = (asdict(script.Args()) for script in scripts)
    other_defaults = {name for name in continuous | cartpole if continuous.get(name) != cartpole.get(name)}
    assert other_defaults == {
        *("exp_name", "env_id", "total_timesteps", "num_envs", "num_steps", "num_minibatches", "compile"),
    }


def test_the_readme_shows_the_diff():
    """Its lines below the docstring, without the numbers of lines."""
    scripts = ("ppo_clip_continuous.py", "ppo_klip_continuous.py")
    diff = subprocess.run(["diff", *scripts], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    surrogate = diff[diff.index('<     """Per-sample objective') :]
    numbers = re.compile(r"^\d+(,\d+)?c\d+(,\d+)?\n", re.MULTILINE)
    assert numbers.sub("", surrogate) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_script_alone_installs_what_the_requirements_say():
    """Its block for `uv run` (PEP 723) is the part of requirements.txt that is for training."""
    training = (ROOT / "requirements.txt").read_text(encoding="utf-8").partition("# Training\n")[2].partition("\n#")[0]
    pins = [line.partition("#")[0].strip() for line in training.splitlines()]
    assert len(pins) > 5
    for script in SCRIPTS:
        (block,) = re.findall(r"^# /// script\n(.*?)^# ///$", path(script).read_text(encoding="utf-8"), re.M | re.S)
        metadata = tomllib.loads(re.sub(r"^# ?", "", block, flags=re.MULTILINE))
        assert metadata == {"requires-python": ">=3.11", "dependencies": pins}


@pytest.mark.parametrize("form", FORMS)
def test_the_defaults_are_the_protocol(form):
    """That of the paper (arXiv 2606.23932, §4); what cartpole has of its own is named above."""
    protocol = {
        "env_id": "HalfCheetah-v4", "total_timesteps": 10**6, "num_envs": 1, "num_steps": 2048, "num_minibatches": 32,
        "update_epochs": 10, "learning_rate": 3e-4, "anneal_lr": True, "gamma": 0.99, "gae_lambda": 0.95,
        "norm_adv": "rollout", "clip_coef": 0.2, "clip_vloss": True, "vloss_clip_coef": None, "ent_coef": 0.0,
        "vf_coef": 0.5, "max_grad_norm": 0.5, "target_kl": None,
    }  # fmt: skip
    if form == "kl_scalar":
        protocol |= {"beta": 1.0, "adaptive_beta": False, "kl_target": 0.02, "kl_penalty": "full"}
    args = asdict(importlib.import_module(f"ppo_{form}_continuous").Args())
    assert {name: args[name] for name in protocol} == protocol
    small = {"total_timesteps": 10**5, "num_envs": 4, "num_steps": 128, "num_minibatches": 8}
    args = asdict(importlib.import_module(f"ppo_{form}_cartpole").Args())
    assert {name: args[name] for name in small} == small
