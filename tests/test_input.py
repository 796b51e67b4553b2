"""Bad input: a message that names the argument, exit code 2, no traceback, and nothing left behind."""

import importlib
import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
import tyro
from countdown_env import Spaces
from helpers import CONTINUOUS, ROOT, SCRIPTS, environment, run

FULL = ("ppo_klip_continuous", "ppo_clip_cartpole")  # test_diff holds the scripts' texts together
KL_SCALAR = ("ppo_kl_scalar_continuous", "ppo_kl_scalar_cartpole")
POSITIVE = ("0", "-1", "nan", "inf")
UNIT = ("-0.1", "1.1", "nan")
OUT_OF_RANGE = {
    "seed": ("-1", str(2**32), "many"),
    "total_timesteps": ("0", "-1"),
    "learning_rate": POSITIVE,
    "num_envs": ("0", "-1"),
    "num_steps": ("0", "-1"),
    "gamma": UNIT,
    "gae_lambda": UNIT,
    "num_minibatches": ("0", "-1"),
    "update_epochs": ("0", "-1"),
    "norm_adv": ("sometimes",),
    "clip_coef": ("0", "1", "nan"),
    "ent_coef": ("-1", "nan", "inf"),
    "vf_coef": ("-1", "nan", "inf"),
    "max_grad_norm": POSITIVE,
    "target_kl": POSITIVE,
}
KL_SCALAR_OUT_OF_RANGE = {"beta": ("-1", "nan", "inf"), "kl_target": POSITIVE, "kl_penalty": ("reverse",)}
SPACES = [f"countdown_env:{name}-v0" for name in ("Dict", "Number", "MultiDiscrete")]
BAD_TASKS = {
    "ppo_klip_continuous": [
        "no_such_module:Task-v0",
        "Hopper-v1",
        "not an id",
        "CartPole-v1",
        "countdown_env:Integers-v0",
        *SPACES,
    ],
    "ppo_clip_cartpole": ["no_such_module:Task-v0", "CartPole-v7", "not an id", "Pendulum-v1", "Hopper-v4", *SPACES],
}


@pytest.fixture
def parse(tmp_path, monkeypatch, capfd):
    """A function that parses arguments; it returns the message with which a script refuses them."""
    monkeypatch.chdir(tmp_path)

    def message(script, *arguments):
        with pytest.raises(SystemExit) as end:
            tyro.cli(importlib.import_module(script).Args, args=arguments)
        assert end.value.code == 2
        return capfd.readouterr().err

    return message


@pytest.fixture
def refuse(tmp_path, monkeypatch, capfd):
    """A function that starts training; it returns the one line with which a script refuses, leaving all as it was."""
    monkeypatch.chdir(tmp_path)

    def message(script, **arguments):
        module, there = importlib.import_module(script), {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(SystemExit) as end:
            module.train(module.Args(**arguments))
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == there
        return check_one_line(end.value.code, capfd.readouterr().err)

    return message


def check_one_line(returncode, stderr):
    assert returncode == 2
    (line,) = stderr.splitlines()
    assert line.startswith("error: --")
    return line


@pytest.mark.parametrize(
    ("script", "field"),
    [(script, field) for script in FULL for field in OUT_OF_RANGE]
    + [(script, field) for script in KL_SCALAR for field in KL_SCALAR_OUT_OF_RANGE],
)
def test_a_value_out_of_range(script, field, parse):
    flag = "--" + field.replace("_", "-")
    for value in (OUT_OF_RANGE | KL_SCALAR_OUT_OF_RANGE)[field]:
        message = parse(script, f"{flag}={value}")
        assert re.search(rf"^│ {field} |[ '(]{flag}['):]", message, re.MULTILINE), message


@pytest.mark.parametrize("script", SCRIPTS)
def test_values_that_do_not_go_together(script, parse):
    rollout = ("--num-envs", "2", "--num-steps", "35", "--num-minibatches", "7")
    tyro.cli(importlib.import_module(script).Args, args=[*rollout, "--total-timesteps", "70"])
    assert "--total-timesteps must be" in parse(script, *rollout, "--total-timesteps", "69")
    assert "--num-minibatches must divide" in parse(script, *rollout, "--num-minibatches", "4")
    assert "--clip-coeff" in parse(script, "--clip-coeff", "0.2")


@pytest.mark.parametrize("script", FULL)
def test_the_edges_of_what_is_allowed(script):
    Args = importlib.import_module(script).Args
    for edges in (
        {"gamma": 0.0, "gae_lambda": 1.0, "clip_coef": 1e-9, "ent_coef": 0.0, "seed": 2**32 - 1},
        {"gamma": 1.0, "gae_lambda": 0.0, "clip_coef": 1 - 1e-9, "vf_coef": 0.0, "seed": 0, "num_minibatches": 1},
        {"total_timesteps": 64, "num_envs": 1, "num_steps": 64, "num_minibatches": 64, "update_epochs": 1},
    ):
        assert vars(Args(**edges)).items() >= edges.items()


@pytest.mark.parametrize(("script", "env_id"), [(script, env_id) for script in FULL for env_id in BAD_TASKS[script]])
def test_a_task_that_is_none(script, env_id, refuse):
    assert refuse(script, env_id=env_id).startswith(f"error: --env-id {env_id}: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", SCRIPTS)
def test_cuda_without_a_gpu(script, refuse):
    assert "--cuda" in refuse(script, cuda=True)


@pytest.mark.parametrize("folder", ["runs/a/mine", "videos/a/mine"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_folder_that_exists_is_left_alone(script, folder, tmp_path, refuse):
    """Videos can be older than the run folder of that name, which may have been moved away."""
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "precious").write_text("precious")
    assert "--run-name" in refuse(script, run_name="a/mine", capture_video=True)


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("ppo_clip_continuous", ("--env-id", "NoSuchTask-v0", "--track", "--capture-video")),
        ("ppo_phi_cartpole", ("--env-id", "Pendulum-v1")),
        ("ppo_kl_scalar_continuous", ("--beta", "-1")),
    ],
)
def test_from_the_command_line(script, arguments, tmp_path):
    done = run(tmp_path, script, *arguments)
    assert done.returncode == 2
    assert re.search("^error: --env-id|^│ beta ", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_users_environment_keeps_its_traceback(tmp_path):
    done = run(tmp_path, "ppo_klip_cartpole", "--env-id", "countdown_env:Broken-v0")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "in broken\n" in done.stderr
    assert done.stderr.endswith("RuntimeError: no such simulator\non this machine\n")
    assert list(tmp_path.iterdir()) == []


SMALL = {"total_timesteps": 32, "num_envs": 2, "num_steps": 8, "num_minibatches": 2, "compile": False}


@pytest.mark.parametrize("script", SCRIPTS)
def test_observations_of_any_shape_are_flattened(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(script)
    env_id = f"countdown_env:Image{'Discrete' * ('cartpole' in script)}-v0"
    module.train(module.Args(env_id=env_id, run_name="mine", save_model=True, **SMALL))
    weights = torch.load("runs/mine/agent.pt", weights_only=True)["agent"]
    assert weights["critic.0.weight"].shape == (64, 8 * 8 * 3)


BOUNDS = {
    (100, 200): True,  # never reached
    (3.5, np.inf): True,
    (-100, 100): True,  # a small part of it is
    (-1, 1): False,
    (-0.4, 0.4): False,
    (0, np.inf): False,
    (-np.inf, np.inf): False,
}


@pytest.mark.parametrize(("low", "high"), BOUNDS)
@pytest.mark.parametrize("script", CONTINUOUS)
def test_bounds_that_the_initial_policy_misses_are_told(script, low, high, tmp_path, monkeypatch, capfd):
    """One of two actions has them."""
    monkeypatch.chdir(tmp_path)
    spaces = (
        gym.spaces.Box(-1, 1, (3,)),
        gym.spaces.Box(np.array([-1, low], np.float32), np.array([1, high], np.float32)),
    )
    monkeypatch.setitem(gym.registry, "Bounds-v0", gym.envs.registration.EnvSpec("Bounds-v0", lambda: Spaces(*spaces)))
    module = importlib.import_module(script)
    module.train(module.Args(env_id="Bounds-v0", **SMALL))
    warnings = capfd.readouterr().err.splitlines()
    assert len(warnings) == BOUNDS[low, high]
    assert all(line.startswith("warning: actions") and f"{float(high)}]" in line for line in warnings)


def test_bounds_as_wide_as_floats_go_are_none(tmp_path):
    """As some environments write an unbounded Box; their difference overflows."""
    task = ("--env-id", "countdown_env:Wide-v0", "--num-steps", "64", "--total-timesteps", "64", "--no-compile")
    done = run(tmp_path, "ppo_klip_continuous", *task)
    assert (done.returncode, done.stderr) == (0, "")


def track(tmp_path, **variables):
    """Tracking by somebody who never logged in to W&B."""
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    here = environment(HOME=str(tmp_path / "home"), **variables)
    del here["WANDB_MODE"]
    how = {"env": here, "cwd": tmp_path / "work", "stdin": subprocess.DEVNULL}
    command = [sys.executable, ROOT / "ppo_phi_cartpole.py", "--track"]
    return subprocess.run(command, **how, capture_output=True, text=True, check=False)


def test_wandb_without_a_key_says_how_to_go_offline(tmp_path):
    done = track(tmp_path)
    line = check_one_line(done.returncode, done.stderr)
    assert "--track" in line and "WANDB_MODE=offline" in line
    assert list((tmp_path / "work").iterdir()) == []


def test_wandb_unreachable_says_how_to_go_offline(tmp_path):
    """Nothing listens on port 9; W&B's patience of 90 s is set to 2 s."""
    done = track(tmp_path, WANDB_BASE_URL="http://127.0.0.1:9", WANDB_API_KEY="0" * 40, WANDB_INIT_TIMEOUT="2")
    assert done.returncode == 2
    assert "\nerror: --track: " in "\n" + done.stderr
    assert done.stderr.endswith("(to track offline, set WANDB_MODE=offline)\n")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "work/runs").exists()
