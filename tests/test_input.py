"""Bad input: one line that names the argument, exit code 2, no traceback, and no folder left behind."""

import importlib
import subprocess
import sys

import pytest
import torch
import tyro
from helpers import CONTINUOUS, ROOT, SCRIPTS, SHORT, environment, run

INFINITE = ("0", "-1", "nan", "inf")
BAD = {
    "--env-id": ["NoSuchTask-v0", "no_such_module:Task-v0", "Hopper-v1", "Hopper-v3", "not an id", "countdown_env:Broken-v0"],
    "--total-timesteps": ["0", "-1", "1"],
    "--num-minibatches": ["0", "-1", "3", "7"],
    "--clip-coef": ["0", "1", "-0.2", "1.5", "nan"],
    "--gamma": ["-0.1", "1.1", "nan"],
    "--gae-lambda": ["-0.1", "1.1", "nan"],
    "--learning-rate": INFINITE,
    "--num-envs": ["0", "-1"],
    "--num-steps": ["0", "-1"],
    "--update-epochs": ["0", "-1"],
    "--max-grad-norm": INFINITE,
    "--target-kl": INFINITE,
    "--ent-coef": ["-1", "nan", "inf"],
    "--vf-coef": ["-1", "nan", "inf"],
    "--seed": ["-1", str(2**32)],
    "--run-name": ["", ".", "..", "../elsewhere", "/elsewhere", "a/../../b"],
}
SPACES = ["countdown_env:Dict-v0", "countdown_env:Image-v0", "countdown_env:Number-v0", "countdown_env:MultiDiscrete-v0"]
BAD_SPACES = {"continuous": ["CartPole-v1", *SPACES], "cartpole": ["Pendulum-v1", "Hopper-v4", *SPACES]}
BAD_KL_SCALAR = {"--beta": ["-1", "nan", "inf"], "--kl-target": INFINITE}


def cases():
    for script in SCRIPTS:
        bad = BAD | (BAD_KL_SCALAR if "kl_scalar" in script else {})
        bad = bad | {"--env-id": bad["--env-id"] + BAD_SPACES[script.rsplit("_", 1)[1]]}
        yield from ((script, argument, value) for argument, values in bad.items() for value in values)


@pytest.mark.parametrize(("script", "argument", "value"), list(cases()))
def test_a_bad_value_is_one_line(script, argument, value, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(script)
    with pytest.raises(SystemExit) as end:
        module.train(tyro.cli(module.Args, args=[f"{argument}={value}"]))
    check_one_line(argument, end.value.code, *capfd.readouterr())
    assert list(tmp_path.iterdir()) == []


def check_one_line(argument, returncode, stdout, stderr):
    assert returncode == 2
    (line,) = stderr.splitlines()
    assert line.startswith("error:")
    assert argument in line
    assert "Traceback" not in stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", SCRIPTS)
def test_cuda_without_a_gpu(script, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(script)
    with pytest.raises(SystemExit) as end:
        module.train(module.Args(cuda=True))
    check_one_line("--cuda", end.value.code, *capfd.readouterr())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_name_that_exists_is_left_alone(script, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/result.json").write_text("precious")
    module = importlib.import_module(script)
    with pytest.raises(SystemExit) as end:
        module.train(module.Args(run_name="mine"))
    check_one_line("--run-name", end.value.code, *capfd.readouterr())
    assert [path.name for path in (tmp_path / "runs/mine").iterdir()] == ["result.json"]
    assert (tmp_path / "runs/mine/result.json").read_text() == "precious"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("ppo_clip_continuous", ("--env-id", "NoSuchTask-v0")),
        ("ppo_klip_cartpole", ("--env-id", "Pendulum-v1")),
        ("ppo_phi_continuous", ("--clip-coef", "1.5")),
        ("ppo_kl_scalar_continuous", ("--beta", "-1")),
        ("ppo_klip_continuous", ("--run-name", "../elsewhere", "--track", "--capture-video")),
    ],
)
def test_from_the_command_line(script, arguments, tmp_path):
    done = run(tmp_path, script, *arguments)
    check_one_line(arguments[0], done.returncode, done.stdout, done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_no_value_at_all_ends_with_code_2(script, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for arguments in (["--seed", "many"], ["--norm-adv", "sometimes"], ["--no-such-argument"]):
        with pytest.raises(SystemExit) as end:
            tyro.cli(importlib.import_module(script).Args, args=arguments)
        assert end.value.code == 2
        assert arguments[0] in capfd.readouterr().err


@pytest.mark.parametrize("script", CONTINUOUS)
def test_the_edges_of_what_is_allowed(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(script)
    for edges in (
        {"gamma": 0.0, "gae_lambda": 1.0, "clip_coef": 1e-9, "ent_coef": 0.0, "seed": 2**32 - 1},
        {"gamma": 1.0, "gae_lambda": 0.0, "clip_coef": 1 - 1e-9, "seed": 0, "num_minibatches": 1},
        {"total_timesteps": 2048, "num_minibatches": 2048},
    ):
        module.check(module.Args(**edges))


def without_account(tmp_path, **variables):
    """The environment of somebody who never logged in to W&B."""
    here = environment(HOME=str(tmp_path / "home"), **variables)
    del here["WANDB_MODE"]
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    return {"env": here, "cwd": tmp_path / "work"}


def tracked(how):
    command = [sys.executable, ROOT / "ppo_clip_continuous.py", *SHORT, "--total-timesteps", "512", "--no-compile", "--track"]
    return subprocess.run(command, **how, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_wandb_without_a_key_says_how_to_go_offline(tmp_path):
    done = tracked(without_account(tmp_path))
    check_one_line("--track", done.returncode, done.stdout, done.stderr)
    assert "WANDB_MODE=offline" in done.stderr
    assert list((tmp_path / "work").iterdir()) == []


def test_wandb_unreachable_says_how_to_go_offline(tmp_path):
    """Nothing listens on port 9; W&B's patience of 90 s is set to 2 s."""
    server = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "2"}
    done = tracked(without_account(tmp_path, **server))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("wandb:")]
    check_one_line("--track", done.returncode, done.stdout, line)
    assert "WANDB_MODE=offline" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "work/runs").exists()
