"""Bad input: a line that names the argument, exit code 2, no traceback, and nothing left behind."""

import ast
import ctypes.util
import importlib
import subprocess
import sys

import pytest
import torch
import tyro
from helpers import KL_SCALAR, ONE_OF_EACH, ROOT, SCRIPTS, environment, run, task

# Values out of an argument's range, which would train to nothing or to NaN, and how the line goes on.
OUT_OF_RANGE = {
    "seed": ("4294967296", "lie in [0, 2^32)"),
    "total_timesteps": ("0", "be at least one rollout, 512 steps"),
    "learning_rate": ("0.0", "lie in (0, inf)"),
    "num_envs": ("-1", "be at least 1"),
    "num_steps": ("0", "be at least 1"),
    "gamma": ("1.1", "lie in [0, 1]"),
    "gae_lambda": ("nan", "lie in [0, 1]"),
    "num_minibatches": (0, "be at least 1"),
    "update_epochs": ("0", "be at least 1"),
    "clip_coef": ("-0.2", "lie in (0, 1)"),
    "vloss_clip_coef": ("0.0", "lie in (0, inf)"),
    "ent_coef": ("nan", "lie in [0, inf)"),
    "vf_coef": ("-1.0", "lie in [0, inf)"),
    "max_grad_norm": ("inf", "lie in (0, inf)"),
    "target_kl": ("-inf", "lie in (0, inf)"),
    "beta": ("-1.0", "lie in [0, inf)"),
    "kl_target": ("nan", "lie in (0, inf)"),
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
def refuse(tmp_path, monkeypatch, capfd):
    """A function that starts training; it returns the one line with which a script refuses, leaving all as it was."""
    monkeypatch.chdir(tmp_path)

    def message(script, *flags, **arguments):
        module = importlib.import_module(script)
        there = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(SystemExit) as end:
            module.train(tyro.cli(module.Args, args=flags) if flags else module.Args(**arguments))
        assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == there
        return check_one_line(end.value.code, capfd.readouterr().err)

    return message


def check_one_line(returncode, stderr):
    assert returncode == 2, stderr
    (line,) = stderr.splitlines()
    assert line.startswith("error: --")
    return line


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_values_that_do_not_go_together(script, refuse):
    rollout = ("--num-envs", "2", "--num-steps", "35", "--num-minibatches", "7")
    module = importlib.import_module(script)
    module.check(tyro.cli(module.Args, args=[*rollout, "--total-timesteps", "70"]))
    assert "--total-timesteps must be" in refuse(script, *rollout, "--total-timesteps", "69")
    assert "--num-minibatches must divide" in refuse(script, *rollout, "--num-minibatches", "4")


@pytest.mark.parametrize(("field", "value"), OUT_OF_RANGE.items())
def test_a_value_out_of_range(field, value, refuse):
    number, requirement = value
    flag = "--" + field.replace("_", "-")
    assert refuse("ppo_kl_scalar_cartpole", f"{flag}={number}") == f"error: {flag} must {requirement}, not {number}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_number_has_a_range_and_defaults_are_within(script):
    """Whoever adds an argument is told to add its range."""
    module = importlib.import_module(script)
    module.check(module.Args())
    numbers = {name for name, hint in module.Args.__annotations__.items() if hint in (int, float, float | None)}
    assert numbers == OUT_OF_RANGE.keys() - (set() if script in KL_SCALAR else {"beta", "kl_target"})


def test_a_word_that_is_none_of_the_choices(capfd):
    """Types are tyro's to refuse."""
    with pytest.raises(SystemExit) as end:
        tyro.cli(importlib.import_module("ppo_clip_cartpole").Args, args=["--norm-adv", "sometimes"])
    assert end.value.code == 2
    assert "--norm-adv" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["", "a/../../x", "../x", "/x"])
@pytest.mark.parametrize("flag", ["--run-name", "--exp-name"])
def test_a_name_that_leads_out_of_runs(flag, name, refuse):
    assert f"{flag} must name a folder below runs/, not {name!r}" in refuse("ppo_clip_cartpole", f"{flag}={name}")


def test_bad_input_is_refused_under_python_o(tmp_path):
    """No check is an assert, which -O takes out."""
    for script in SCRIPTS:
        tree = ast.parse((ROOT / f"{script}.py").read_text(encoding="utf-8"))
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    command = [sys.executable, "-O", ROOT / "ppo_clip_cartpole.py", "--num-minibatches", "3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert "--num-minibatches must divide" in check_one_line(done.returncode, done.stderr)
    assert list(tmp_path.iterdir()) == []


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
    assert line.startswith(f"error: --env-id {env_id}: needs Box2D: pip install box2d==2.3.10, ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(refuse):
    assert "--cuda" in refuse("ppo_clip_cartpole", cuda=True)


def test_a_folder_that_exists_is_left_alone(tmp_path, refuse):
    (tmp_path / "runs/a/mine").mkdir(parents=True)
    (tmp_path / "runs/a/mine/precious").write_text("precious")
    line = refuse("ppo_clip_cartpole", run_name="a/mine", env_id=task("cartpole", "Endless"))
    assert line.startswith("error: --run-name: ") and "runs/a/mine" in line


# Folders that cannot be made. The root user may write in every folder but those of the kernel.


@pytest.mark.parametrize("run_name", [None, "mine"])
@pytest.mark.parametrize("kind", ["a link that leads nowhere", "a file"])
def test_runs_that_is_no_folder(kind, run_name, tmp_path):
    """A training without a name does not look for ever for a name that is free."""
    if kind == "a file":
        (tmp_path / "runs").write_text("precious")
    else:
        (tmp_path / "runs").symlink_to("gone")
    name = () if run_name is None else ("--run-name", run_name)
    done = run(tmp_path, "ppo_clip_cartpole", *name, "--total-timesteps", "512", timeout=60)
    assert "'runs" in check_one_line(done.returncode, done.stderr)  # and not the run's own folder, which is not there
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /sys")
def test_a_folder_that_cannot_be_written():
    done = run("/sys", "ppo_clip_cartpole", "--total-timesteps", "512")
    assert "'runs" in check_one_line(done.returncode, done.stderr)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /sys")
def test_wandb_with_a_folder_that_cannot_be_written(tmp_path):
    """The run's name stays free."""
    arguments = ("--track", "--run-name", "mine", "--total-timesteps", "512")
    done = run(tmp_path, "ppo_clip_cartpole", *arguments, WANDB_DIR="/sys")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("wandb:")]
    assert line.startswith("error: --track: ") and "/sys" in line
    assert list(tmp_path.glob("[rv]*/*")) == []


@pytest.mark.parametrize("renderer", ["osmesa", "nonsense"])
def test_a_renderer_that_is_not_installed(renderer, tmp_path):
    """MuJoCo loads what MUJOCO_GL names also where nothing is filmed."""
    if renderer == "osmesa" and ctypes.util.find_library("OSMesa"):
        pytest.skip("it is installed")
    arguments = ("--env-id", "Hopper-v4", "--total-timesteps", "2048", "--no-compile")
    done = run(tmp_path, "ppo_klip_continuous", *arguments, MUJOCO_GL=renderer)
    line = check_one_line(done.returncode, done.stderr)
    assert line.startswith("error: --env-id Hopper-v4: ") and f"MUJOCO_GL={renderer}" in line
    assert list(tmp_path.iterdir()) == []


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
