"""Runs that diverge, cannot be compiled, or cannot go on: what they say, and that only a whole run looks whole."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
import wandb_file
from countdown_env import FAULTS, who_of
from helpers import FIELDS, KL_SCALAR, ONE_OF_EACH, ROOT, SHORT, Run, env_seeds, environment, run, task


def train(folder, script, **arguments):
    """Trains in this process, with folder as the working directory."""
    folder.mkdir()
    os.chdir(folder)
    module = importlib.import_module(script)
    returncode, message = 0, ""
    try:
        module.train(module.Args(**{"run_name": "mine", "compile": False, "save_model": True} | arguments))
    except SystemExit as end:
        returncode, message = 1, end.code  # of a text Python makes a line on standard error and exit code 1
    return Run(folder, returncode, "", message)


def check_divergence(diverged, cause, step, batch, script):
    assert diverged.returncode == 1
    assert diverged.stderr == f"error: {cause} is not finite at step {step}"
    result = diverged.result
    assert list(result) == [*FIELDS, "versions"]
    assert (result["final_return"], result["diverged_at"], result["global_step"]) == (None, step, step)
    written = {path.name.partition(".")[0] for path in diverged.folder.iterdir()}
    assert written == {script, "events", "result"}  # no agent.pt
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
    """It is told from a divergence of the networks, at its rollout's end, before an update has seen it."""
    monkeypatch.chdir(tmp_path)  # and back at the end
    batch = 16 * num_envs
    arguments = {"num_steps": 16, "num_envs": num_envs, "num_minibatches": 2, "anneal_lr": False}
    arguments["env_id"] = task(script, f"Faulty-{fault}")
    arguments["seed"] = seed_whose_last_environment_has_the_fault(num_envs)
    diverged = train(tmp_path / "diverged", script, total_timesteps=3 * batch, **arguments)
    assert 16 < FAULTS[fault][0] < 32, "not in the second rollout"
    check_divergence(diverged, "a reward or an observation of the environment", 2 * batch, batch, script)
    before = train(tmp_path / "before", script, total_timesteps=batch, **arguments)
    assert before.result["diverged_at"] is None
    assert diverged.result["params_sha256"] == before.result["params_sha256"]


@pytest.mark.parametrize("script", [*ONE_OF_EACH, *KL_SCALAR])
def test_networks_that_diverge(script, tmp_path, monkeypatch):
    """After the first update squares of the values and of the actions' distances from their means are infinite."""
    monkeypatch.chdir(tmp_path)
    arguments = {"env_id": "Pendulum-v1", "num_steps": 512} if "continuous" in script else {}
    diverged = train(tmp_path / "run", script, total_timesteps=2048, learning_rate=1e30, **arguments)
    check_divergence(diverged, "a loss or a parameter", 512, 512, script)


@pytest.mark.parametrize("diverges", [False, True])
@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_a_training_is_safe_before_the_environment_is_closed(script, diverges, tmp_path, monkeypatch):
    """Its model, too. One that has diverged is a result as well, and not to be tried again."""
    monkeypatch.chdir(tmp_path)
    rate = 1e30 if diverges else 3e-4
    with pytest.raises(RuntimeError, match="not connected"):
        train(tmp_path / "run", script, env_id=task(script, "CloseFails"), total_timesteps=2048, learning_rate=rate)
    done = Run(tmp_path / "run", 0, "", "")
    assert (done.result["diverged_at"] is not None) == diverges
    assert (done.folder / "agent.pt").exists() != diverges
    if not diverges:
        assert done.scalars["losses/value_loss"][-1][0] == done.result["global_step"] == 2048


NO_HEADER = """
import sysconfig
get_path = sysconfig.get_path
sysconfig.get_path = lambda name, *others: "/nonexistent" if name == "include" else get_path(name, *others)
"""


@pytest.mark.parametrize("missing", ["compiler", "Python.h"])
def test_without_a_compiler_a_run_goes_on(missing, tmp_path):
    """TensorBoard and W&B are told so, too."""
    here = {"CXX": "/nonexistent"} if missing == "compiler" else {"PYTHONPATH": str(tmp_path / "first")}
    if missing == "Python.h":
        (tmp_path / "first").mkdir()
        (tmp_path / "first/sitecustomize.py").write_text(NO_HEADER)
    done = run(tmp_path, "ppo_klip_continuous", *SHORT, "--total-timesteps", "512", "--track", **here)
    assert done.returncode == 0
    first, *others = done.stderr.splitlines()
    assert first.startswith("--compile is off: ") and "/nonexistent" in first
    assert all(line.startswith("wandb:") for line in others)
    assert done.result["args"]["compile"] is False
    assert done.hyperparameters["compile"] == "False"
    assert wandb_file.read(tmp_path).config["compile"] is False


def test_what_cannot_be_compiled_is_an_error(tmp_path):
    """Going on without compiling would change the bits. The traceback leads to the mistake, the note to the way out."""
    text = (ROOT / "ppo_klip_continuous.py").read_text(encoding="utf-8")
    assert text.count("beta = torch.where") == 1
    text = text.replace("beta = torch.where", "beta = advanteges * torch.where")
    (tmp_path / "ppo_mine.py").write_text(text, encoding="utf-8")
    for flag, name in (("--compile", "Unsupported"), ("--no-compile", "NameError")):
        command = [sys.executable, "ppo_mine.py", *SHORT, "--total-timesteps", "512", flag, "--run-name", name]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert ", in surrogate\n" in done.stderr and "advanteges" in done.stderr
        assert f"{name}: " in done.stderr
        assert ("--no-compile" in done.stderr.splitlines()[-1]) == (flag == "--compile")
    assert not list(tmp_path.glob("**/result.json"))


def trained(script, surrogate, folder, monkeypatch, **arguments):
    """Trains in this process with a surrogate of the user's."""
    module = importlib.import_module(script)
    monkeypatch.chdir(folder)
    settings = {"env_id": task(script, "Countdown"), "num_envs": 1, "num_steps": 64, "total_timesteps": 192}
    module.train(module.Args(run_name="mine", num_minibatches=4, **settings, **arguments), surrogate)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without its compiler: what can be traced, and what is traced anew, are the same, sooner."""
    compiler = torch.compile

    def trace(function, *, fullgraph, dynamic, options):
        checks = {"guard_filter_fn": options["guard_filter_fn"]}
        return compiler(function, fullgraph=fullgraph, dynamic=dynamic, backend="eager", options=checks)

    monkeypatch.setattr(torch, "compile", trace)


def with_list(surrogate):
    calls = []

    def annealed(new_logprob, old_logprob, advantages, clip_coef):
        calls.append(None)
        return surrogate(new_logprob, old_logprob, advantages, clip_coef / len(calls))

    return annealed


def with_default(surrogate):
    def annealed(new_logprob, old_logprob, advantages, clip_coef, calls=[]):  # noqa: B006 (what is tested)
        calls.append(None)
        return surrogate(new_logprob, old_logprob, advantages, clip_coef / len(calls))

    return annealed


class WithNumber:
    def __init__(self, surrogate):
        self.surrogate = surrogate
        self.calls = 0

    def __call__(self, new_logprob, old_logprob, advantages, clip_coef):
        self.calls += 1
        return self.surrogate(new_logprob, old_logprob, advantages, clip_coef / self.calls)


@pytest.mark.parametrize("memory", [with_list, with_default, WithNumber])
def test_a_surrogate_with_a_memory_is_not_compiled_to_another(memory, traced, tmp_path, monkeypatch):
    """It would go on as at its first call. (What compiles is the same text in all scripts.)"""
    script = "ppo_clip_cartpole"
    surrogate = memory(importlib.import_module(script).surrogate)
    with pytest.raises(Exception, match="fullgraph=True") as error:
        trained(script, surrogate, tmp_path, monkeypatch, compile=True)
    assert "--no-compile" in error.value.__notes__[-1]
    assert not list(tmp_path.glob("**/result.json"))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("wrong", ["(16, 16)", "()", "(16, 1)"])
@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_a_surrogate_of_another_shape_is_refused(script, wrong, compiled, traced, tmp_path, monkeypatch):
    """It would train to other results: (N, N) has a mean, too."""
    surrogate = importlib.import_module(script).surrogate

    def mine(new_logprob, old_logprob, advantages, clip_coef):
        if wrong == "(16, 16)":
            return surrogate(new_logprob[:, None], old_logprob, advantages, clip_coef)
        objective = surrogate(new_logprob, old_logprob, advantages, clip_coef)
        return objective.mean() if wrong == "()" else objective[:, None]

    with pytest.raises(Exception, match="surrogate must return") as error:
        trained(script, mine, tmp_path, monkeypatch, compile=compiled)
    assert f"(16,), not {wrong}" in str(error.value)
    assert compiled or type(error.value) is ValueError
    assert not list(tmp_path.glob("**/result.json"))
