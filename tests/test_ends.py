"""Runs that diverge, cannot be compiled, or cannot go on: what they say, and that only a whole run looks whole."""

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import wandb_file
from countdown_env import FAULTS, CloseFails, Faulty, reward, who_of
from helpers import FIELDS, KL_SCALAR, ONE_OF_EACH, ROOT, SHORT, Run, env_seeds, environment, run, task


def train(folder, script, **arguments):
    """Trains in this process, with folder as the working directory."""
    folder.mkdir()
    os.chdir(folder)
    module = importlib.import_module(script)
    returncode = 0
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            module.train(module.Args(**{"run_name": "mine", "compile": False, "save_model": True} | arguments))
        except SystemExit as end:
            returncode = end.code
        except Exception as error:
            error.add_note(stderr.getvalue())  # what was said before
            raise
    return Run(folder, returncode, "", stderr.getvalue())


def check_divergence(diverged, cause, step, batch):
    assert diverged.returncode == 1
    assert diverged.stderr == f"error: {cause} is not finite at step {step}\n"
    result = diverged.result
    assert list(result) == [*FIELDS, "versions"]
    assert (result["final_return"], result["diverged_at"], result["global_step"]) == (None, step, step)
    assert {path.name.split(".")[0] for path in diverged.folder.iterdir()} == {"events", "result"}  # no agent.pt
    logged = {tag: [step for step, _ in points] for tag, points in diverged.scalars.items()}
    assert all(steps == list(range(batch, step, batch)) for tag, steps in logged.items() if tag.startswith("losses"))


def seed_whose_last_environment_has_the_fault(num_envs):
    """Which seed gives the last of num_envs environments, and no other, the who that Faulty waits for."""
    for seed in range(10_000):
        *others, last = map(who_of, env_seeds(seed, num_envs))
        if last == 2 and 2 not in others:
            return seed
    raise AssertionError("no such seed")


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("script", ["ppo_klip_continuous", "ppo_kl_scalar_cartpole"])
def test_a_fault_of_the_environment(script, fault, num_envs, tmp_path, monkeypatch):
    """It is told from a divergence of the networks, with its step, and before an update has seen it."""
    monkeypatch.chdir(tmp_path)  # and back at the end
    batch = 16 * num_envs
    arguments = {"num_steps": 16, "num_envs": num_envs, "num_minibatches": 2, "anneal_lr": False}
    arguments["env_id"] = task(script, f"Faulty-{fault}")
    arguments["seed"] = seed_whose_last_environment_has_the_fault(num_envs)
    diverged = train(tmp_path / "diverged", script, total_timesteps=3 * batch, **arguments)
    step = FAULTS[fault][0] * num_envs
    if fault == "reset" and "cartpole" in script:
        step += num_envs  # of the first action on it; normalisation spreads it at once
    check_divergence(diverged, "a reward or an observation of the environment", step, batch)
    before = train(tmp_path / "before", script, total_timesteps=batch, **arguments)
    assert before.result["diverged_at"] is None
    assert diverged.result["params_sha256"] == before.result["params_sha256"]


@pytest.mark.parametrize("script", [*ONE_OF_EACH, *KL_SCALAR])
def test_networks_that_diverge(script, tmp_path, monkeypatch):
    """After the first update squares of the values and of the actions' distances from their means are infinite."""
    monkeypatch.chdir(tmp_path)
    arguments = {"env_id": "Pendulum-v1", "num_steps": 512} if "continuous" in script else {}
    diverged = train(tmp_path / "run", script, total_timesteps=2048, learning_rate=1e30, **arguments)
    check_divergence(diverged, "a loss or a parameter", 512, 512)


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_an_evaluation_ends_after_the_result_is_safe(script, tmp_path, monkeypatch):
    """Also where no episode ends. What is written first has all but the evaluation's returns."""
    monkeypatch.chdir(tmp_path)
    module, written = importlib.import_module(script), []
    evaluate = module.evaluate

    def look_and_evaluate(path):
        written.append(json.loads((path.parent / "result.json").read_text(encoding="utf-8")))
        return evaluate(path)

    monkeypatch.setattr(module, "evaluate", look_and_evaluate)
    monkeypatch.setattr(module, "MAX_EVAL_STEPS", 100)
    done = train(tmp_path / "run", script, env_id=task(script, "Endless"), total_timesteps=2048)
    (first,) = written
    assert list(first) == [*FIELDS, "versions"]
    assert first | {"eval_returns": done.result["eval_returns"]} == done.result
    who = who_of(np.random.SeedSequence(0).spawn(4)[2].generate_state(1)[0])
    expected = [sum(reward(who, episode, step) for step in range(100)) for episode in range(1, 11)]
    assert done.result["eval_returns"] == pytest.approx(expected)


@pytest.mark.parametrize("script", ONE_OF_EACH)
@pytest.mark.parametrize(
    ("name", "usual", "error"), [("CloseFails", "Countdown", "not connected"), ("Growing", "Endless", "same size")]
)
@pytest.mark.filterwarnings("ignore:.*Unable to save last video")
def test_a_finished_training_is_safe_where_closing_fails(script, name, usual, error, tmp_path, monkeypatch, capfd):
    """The simulator's close(), or the film of an episode that had not ended. The error comes after all else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.import_module(script), "MAX_EVAL_STEPS", 20)
    arguments = {"num_envs": 2, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 64}
    arguments["capture_video"] = name == "Growing"
    with pytest.raises(Exception, match=error):
        train(tmp_path / "fails", script, env_id=task(script, name), **arguments)
    fails = Run(tmp_path / "fails", 1, *capfd.readouterr())
    well = train(tmp_path / "well", script, env_id=task(script, usual), **arguments)
    for field in ("global_step", "final_return", "params_sha256", "eval_returns"):
        assert fails.result[field] == well.result[field]
    assert {path.name.split(".")[0] for path in fails.folder.iterdir()} == {"events", "result", "agent"}
    assert set(fails.scalars) == set(well.scalars) and "eval/episodic_return" in fails.scalars
    assert f", params_sha256 {well.result['params_sha256']}\n" in fails.stdout


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_a_divergence_is_told_where_closing_fails(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Faulty, "close", CloseFails.close)
    arguments = {"num_envs": 1, "num_steps": 16, "num_minibatches": 2, "total_timesteps": 64}
    arguments |= {"env_id": task(script, "Faulty-reward"), "seed": seed_whose_last_environment_has_the_fault(1)}
    with pytest.raises(RuntimeError, match="not connected") as error:
        train(tmp_path / "run", script, **arguments)
    diverged = Run(tmp_path / "run", 1, "", *error.value.__notes__)
    check_divergence(diverged, "a reward or an observation of the environment", FAULTS["reward"][0], 16)


def test_an_error_of_close_keeps_its_traceback(tmp_path):
    arguments = ("--env-id", task("cartpole", "CloseFails"), "--total-timesteps", 512)
    done = run(tmp_path, "ppo_klip_cartpole", *arguments)
    assert done.returncode == 1 and done.result["final_return"] is not None
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("RuntimeError: not connected\n")
    assert ": final return " in done.stdout


def test_without_a_compiler_a_run_goes_on(tmp_path):
    """TensorBoard and W&B are told so, too."""
    here = {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = run(tmp_path, "ppo_klip_continuous", *SHORT, "--total-timesteps", "512", "--track", **here)
    assert done.returncode == 0
    first, *others = done.stderr.splitlines()
    assert first.startswith("--compile is off: no C++ compiler, ")
    assert all(line.startswith("wandb:") for line in others)
    assert done.result["args"]["compile"] is False
    assert done.hyperparameters["compile"] == "False"
    assert wandb_file.read(tmp_path).config["compile"] is False


def test_a_mistake_in_the_surrogate_keeps_its_traceback(tmp_path):
    """The update is then not compiled, as with what torch cannot compile, and the mistake shows when it runs."""
    text = (ROOT / "ppo_klip_continuous.py").read_text(encoding="utf-8")
    assert text.count("beta = torch.where") == 1
    text = text.replace("beta = torch.where", "beta = advanteges * torch.where")
    (tmp_path / "ppo_mine.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "ppo_mine.py", *SHORT, "--total-timesteps", "512"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("--compile is off: ")
    assert "Traceback" in done.stderr and ", in surrogate\n" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("NameError: name 'advanteges' is not defined")
    assert not list(tmp_path.glob("**/result.json"))
