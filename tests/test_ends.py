"""Runs that diverge, cannot be compiled, or cannot go on: what they say, and that no other than a whole run looks whole."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from countdown_env import FAULTS
from helpers import FIELDS, ROOT, SCRIPTS, SHORT, Run, command, environment, run

LONG = (*SHORT, "--total-timesteps", "40960")


def train(folder, script, **arguments):
    """Trains in this process, with folder as the working directory."""
    folder.mkdir()
    os.chdir(folder)
    module = importlib.import_module(script)
    returncode, message = 0, ""
    try:
        module.train(module.Args(run_name="mine", compile=False, save_model=True, **arguments))
    except SystemExit as end:
        returncode, message = 1, end.code  # of a text Python makes a line on standard error and exit code 1
    return Run(folder, returncode, "", message)


def check_divergence(diverged, cause, step, batch):
    assert diverged.returncode == 1
    assert diverged.stderr == f"error: {cause} is not finite at step {step}"
    result = diverged.result
    assert list(result) == [*FIELDS, "versions"]
    assert (result["final_return"], result["diverged_at"], result["global_step"]) == (None, step, step)
    assert {path.name.split(".")[0] for path in diverged.folder.iterdir()} == {"events", "result"}  # no agent.pt
    logged = {tag: [step for step, _ in points] for tag, points in diverged.scalars.items()}
    assert all(steps == list(range(batch, step, batch)) for tag, steps in logged.items() if tag.startswith("losses"))


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("script", ["ppo_klip_continuous", "ppo_kl_scalar_cartpole"])
def test_a_fault_of_the_environment(script, fault, num_envs, tmp_path, monkeypatch):
    """It is told from a divergence of the networks, with its step, and before an update has seen it."""
    monkeypatch.chdir(tmp_path)  # and back at the end
    env_id = f"countdown_env:Faulty{'Discrete' * ('cartpole' in script)}-{fault}-v0"
    batch = 16 * num_envs
    task = {"num_steps": 16, "num_envs": num_envs, "num_minibatches": 2, "anneal_lr": False, "env_id": env_id}
    task["seed"] = 3 - num_envs  # the environments get this seed and those that follow: the last one gets 2
    diverged = train(tmp_path / "diverged", script, total_timesteps=3 * batch, **task)
    step = FAULTS[fault][0] * num_envs
    if fault == "reset" and "cartpole" in script:
        step += num_envs  # of the first action on it; normalisation spreads it at once
    check_divergence(diverged, "a reward or an observation of the environment", step, batch)
    before = train(tmp_path / "before", script, total_timesteps=batch, **task)
    assert before.result["diverged_at"] is None
    assert diverged.result["params_sha256"] == before.result["params_sha256"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_networks_that_diverge(script, tmp_path, monkeypatch):
    """After the first update squares of the values and of the actions' distances from their means are infinite."""
    monkeypatch.chdir(tmp_path)
    task = {"env_id": "Pendulum-v1", "num_steps": 512} if "continuous" in script else {}
    diverged = train(tmp_path / "run", script, total_timesteps=2048, learning_rate=1e30, **task)
    check_divergence(diverged, "a loss or a parameter", 512, 512)


@pytest.mark.parametrize(
    ("script", "arguments", "cause", "step"),
    [
        ("ppo_clip_cartpole", ("--learning-rate", "1e30", "--total-timesteps", "1024"), "a loss or a parameter", 512),
        (
            "ppo_phi_continuous",
            ("--env-id", "countdown_env:Faulty-reward-v0", "--seed", "2"),
            "a reward or an observation of the environment",
            FAULTS["reward"][0],
        ),
    ],
    ids=["networks", "environment"],
)
def test_a_divergence_ends_with_code_1_and_one_line(script, arguments, cause, step, tmp_path):
    done = run(tmp_path, script, *arguments)
    assert (done.returncode, done.stderr) == (1, f"error: {cause} is not finite at step {step}\n")
    assert done.result["diverged_at"] == step


def check_no_result(folder):
    assert list(folder.glob("**/result.json")) == []
    for partial in folder.glob("**/result.json.partial"):
        with pytest.raises(json.JSONDecodeError):
            json.loads(partial.read_text())


@pytest.mark.parametrize("moment", ["training", "compiling"])
def test_ctrl_c(moment, tmp_path):
    """As a terminal sends it: to the whole process group."""
    here = environment(TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    how = {
        "cwd": tmp_path,
        "env": here,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "start_new_session": True,
    }
    how |= {"text": True}
    compiling = moment == "compiling"
    with subprocess.Popen(command("ppo_klip_continuous", *LONG, *["--no-compile"] * (not compiling)), **how) as process:
        if compiling:
            while not list(tmp_path.glob("cache/**/*.cpp")) and process.poll() is None:
                time.sleep(0.05)
        else:
            assert process.stdout.readline().startswith("step ")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert len(list(tmp_path.glob("runs/*"))) == 1
    check_no_result(tmp_path)


@pytest.fixture
def disk(tmp_path):
    """A function that makes a real file system of some size in tmp_path."""
    mounted = []

    def mount(*options):
        where = tmp_path / "disk"
        where.mkdir()
        how = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(where)]
        try:
            subprocess.run(how, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs the right to mount a tmpfs: {getattr(error, 'stderr', '') or error}")
        mounted.append(where)
        return where

    yield mount
    for where in mounted:
        subprocess.run(["umount", str(where)], check=True)


@pytest.mark.parametrize(("options", "started"), [("ro", False), ("size=32k", True)], ids=["read-only", "full"])
def test_a_disk_that_cannot_be_written(options, started, disk):
    """32 KiB hold the events of a few rollouts, but not agent.pt beside them."""
    task = ("ppo_phi_continuous", *SHORT, "--total-timesteps", "2048", "--no-compile", "--save-model")
    done = run(disk(options), *task)
    assert done.returncode != 0
    assert ("step " in done.stdout) == started
    check_no_result(done.cwd)


def test_without_a_compiler_a_run_goes_on(tmp_path):
    here = {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    for name in ("without", "eager"):
        (tmp_path / name).mkdir()
    arguments = ("ppo_klip_continuous", *SHORT, "--total-timesteps", "512")
    done = run(tmp_path / "without", *arguments, **here)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("--compile is off: no C++ compiler, or not one graph (")
    assert done.result["args"]["compile"] is False
    eager = run(tmp_path / "eager", *arguments, "--no-compile")
    assert done.result["params_sha256"] == eager.result["params_sha256"]


def changed(tmp_path, old, new, *arguments):
    """Runs klip with another text in its surrogate."""
    text = (ROOT / "ppo_klip_continuous.py").read_text()
    assert text.count(old) == 1
    (tmp_path / "ppo_mine.py").write_text(text.replace(old, new))
    command = [sys.executable, "ppo_mine.py", *SHORT, "--total-timesteps", "512", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    return Run(tmp_path, done.returncode, done.stdout, done.stderr)


def test_a_coefficient_that_cannot_be_compiled_trains_uncompiled(tmp_path):
    """A change that a reader might try: torch cannot trace a branch that depends on the data in one graph."""
    done = changed(tmp_path, "beta = torch.where", "beta = (1.0 if advantages.mean() > 0 else 0.9) * torch.where")
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.startswith("--compile is off: ") and "Unsupported" in done.stderr and done.stderr.count("\n") == 1
    )
    assert done.result["args"]["compile"] is False


@pytest.mark.parametrize("option", ["--compile", "--no-compile"])
def test_a_mistake_in_the_surrogate_keeps_its_traceback(option, tmp_path):
    done = changed(tmp_path, "beta = torch.where", "beta = advanteges * torch.where", option)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and ", in surrogate\n" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("NameError: name 'advanteges' is not defined")
    check_no_result(tmp_path)
