"""Bad input: a message that names the argument, exit code 2, no traceback, and nothing left behind."""

import importlib
import os
import re
import sys

import pytest
import torch
import tyro
from helpers import ONE_OF_EACH, run, task

# Values out of an argument's range, which would train to nothing or to NaN.
OUT_OF_RANGE = {
    "seed": 2**32,
    "total_timesteps": 0,
    "learning_rate": 0,
    "gamma": 1.1,
    "norm_adv": "sometimes",
    "clip_coef": 1,
    "ent_coef": "nan",
    "max_grad_norm": "inf",
    "beta": -1,
    "alpha": -1,
}
BAD_TASKS = [
    ("ppo_klip_continuous", "no_such_module:Task-v0", "no_such_module"),
    ("ppo_klip_continuous", "Hopper-v1", "v1"),
    ("ppo_klip_continuous", "CartPole-v1", "ppo_*_cartpole.py"),
    ("ppo_klip_continuous", "countdown_env:Integers-v0", "float Box"),
    ("ppo_klip_continuous", "countdown_env:Sequence-v0", "observations"),
    ("ppo_clip_cartpole", "Pendulum-v1", "ppo_*_continuous.py"),
    ("ppo_clip_cartpole", "countdown_env:MultiDiscrete-v0", "not MultiDiscrete"),
]


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
        module = importlib.import_module(script)
        there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
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


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_values_that_do_not_go_together(script, parse):
    rollout = ("--num-envs", "2", "--num-steps", "35", "--num-minibatches", "7")
    tyro.cli(importlib.import_module(script).Args, args=[*rollout, "--total-timesteps", "70"])
    assert "--total-timesteps must be" in parse(script, *rollout, "--total-timesteps", "69")
    assert "--num-minibatches must divide" in parse(script, *rollout, "--num-minibatches", "4")


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE.items())
def test_a_value_out_of_range(field, value, parse):
    flag = "--" + field.replace("_", "-")
    script = "betas.rollback" if field == "alpha" else "ppo_kl_scalar_continuous"
    message = parse(script, f"{flag}={value}")
    assert re.search(rf"^│ {field} |[ '(]{flag}['):]", message, re.MULTILINE), message


@pytest.mark.parametrize("name", ["", "a/../../x"])
@pytest.mark.parametrize("flag", ["--run-name", "--exp-name"])
def test_a_name_that_leads_out_of_runs(flag, name, parse):
    assert f"{flag} must name a folder below runs/" in parse("ppo_clip_cartpole", f"{flag}={name}")


@pytest.mark.parametrize(("script", "env_id", "named"), BAD_TASKS)
def test_a_task_that_is_none(script, env_id, named, refuse):
    line = refuse(script, env_id=env_id)
    assert line.startswith(f"error: --env-id {env_id}: ")
    assert named in line


@pytest.mark.parametrize(
    ("script", "env_id"), [("ppo_klip_continuous", "BipedalWalker-v3"), ("ppo_clip_cartpole", "LunarLander-v3")]
)
def test_without_box2d_it_says_how_to_install_it(script, env_id, refuse, monkeypatch):
    """From Python 3.14 on it is not in requirements.txt, and what Gymnasium says does not build it."""
    for name in list(sys.modules):
        if name.startswith(("gymnasium.envs.box2d", "Box2D")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "Box2D", None)  # so that it cannot be imported
    line = refuse(script, env_id=env_id)
    assert line.startswith(f"error: --env-id {env_id}: Box2D is not installed: ")
    assert "pip install box2d==2.3.10;" in line
    assert "apt install swig g++ python3-dev, then pip install box2d-py==2.3.8" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(refuse):
    assert "--cuda" in refuse("ppo_clip_cartpole", cuda=True)


@pytest.mark.parametrize("folder", ["runs/a/mine", "videos/a/mine"])
def test_a_folder_that_exists_is_left_alone(folder, tmp_path, refuse):
    """Videos can be older than the run folder of that name, which may have been moved away."""
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "precious").write_text("precious")
    arguments = {"env_id": task("cartpole", "Endless"), "capture_video": folder.startswith("videos")}
    assert f"--run-name: {folder} exists" in refuse("ppo_clip_cartpole", run_name="a/mine", **arguments)


@pytest.mark.parametrize("named", [(), ("--run-name", "group/mine")], ids=["unnamed", "named"])
def test_a_link_to_a_folder_that_is_gone_is_one_line(named, tmp_path):
    """As runs/ is where a scratch disk was purged. In a process of its own, which would not end by itself."""
    (tmp_path / "runs").symlink_to(tmp_path / "gone")
    done = run(tmp_path, "ppo_clip_cartpole", *named, "--total-timesteps", 512, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: cannot make runs/") and "runs must be a folder to write to, or a link to one" in line
    assert os.listdir(tmp_path) == ["runs"]


@pytest.mark.parametrize("run_name", [None, "mine"])
@pytest.mark.parametrize("blocked", ["runs", "videos"])
def test_a_file_where_a_folder_is_needed_is_one_line(blocked, run_name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / blocked).touch()
    module = importlib.import_module("ppo_clip_cartpole")
    args = module.Args(env_id=task("cartpole", "Endless"), run_name=run_name, capture_video=True)
    with pytest.raises(SystemExit) as end:
        module.train(args)
    assert end.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and f"{blocked} must be a folder" in line
    assert os.listdir(tmp_path) == [blocked]


def test_an_error_of_the_users_environment_keeps_its_traceback(tmp_path):
    done = run(tmp_path, "ppo_klip_cartpole", "--env-id", "countdown_env:Broken-v0")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "in broken\n" in done.stderr
    assert done.stderr.endswith("RuntimeError: no such simulator\non this machine\n")
    assert list(tmp_path.iterdir()) == []


def test_wandb_without_a_key_says_how_to_go_offline(tmp_path):
    """For somebody who never logged in to W&B."""
    done = run(tmp_path, "ppo_phi_cartpole", "--track", HOME=str(tmp_path), WANDB_MODE="online")
    line = check_one_line(done.returncode, done.stderr)
    assert "--track" in line and "WANDB_MODE=offline" in line
    assert list(tmp_path.glob("[rw]*/*")) == []
