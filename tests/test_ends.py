"""Runs that cannot go on: one line, the right exit code, no traceback, no result.json."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, SHORT, command, environment, run

LONG = (*SHORT, "--total-timesteps", "40960")
CONTINUOUS = ("ppo_clip_continuous", *LONG, "--no-compile")


def check_end(done, returncode, lines=1):
    assert done.returncode == returncode, done.stderr
    assert len(done.stderr.splitlines()) == lines, done.stderr
    assert done.stderr.startswith("error:")
    assert "Traceback" not in done.stdout
    assert list(done.cwd.glob("**/result.json*")) == []


@pytest.mark.parametrize(
    "script", ["ppo_clip_continuous", "ppo_klip_continuous", "ppo_phi_continuous", "ppo_kl_scalar_continuous", "ppo_klip_cartpole"]
)
def test_divergence(script, tmp_path):
    task = LONG if "continuous" in script else ("--total-timesteps", "10240")
    done = run(tmp_path, script, *task, "--no-compile", "--learning-rate", "1e30", "--save-model")
    check_end(done, 1)
    assert "not finite" in done.stderr
    assert "--learning-rate" in done.stderr
    assert list(tmp_path.glob("**/agent.pt")) == []


def interrupt(started, when):
    """Ctrl-C, as a terminal sends it (to the whole process group), once when(process) says so."""
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command(*started["command"]), cwd=started["cwd"], env=started["env"], **how) as process:
        when(process)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


@pytest.mark.parametrize(
    "script", [("ppo_kl_scalar_continuous", *LONG, "--no-compile"), ("ppo_clip_cartpole",)], ids=lambda script: script[0]
)
def test_ctrl_c_while_training(script, tmp_path):
    def at_first_progress(process):
        assert process.stdout.readline().startswith("step ")

    started = {"command": (*script, "--save-model"), "cwd": tmp_path, "env": environment()}
    returncode, _, stderr = interrupt(started, at_first_progress)
    assert (returncode, stderr) == (130, "error: interrupted\n")
    assert list(tmp_path.glob("**/result.json*")) == []


def test_ctrl_c_while_compiling(tmp_path):
    def once_compiling(process):
        while not list(tmp_path.glob("cache/**/*.cpp")) and process.poll() is None:
            time.sleep(0.05)

    here = environment(TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    started = {"command": ("ppo_clip_continuous", *LONG), "cwd": tmp_path, "env": here}
    returncode, _, stderr = interrupt(started, once_compiling)
    assert (returncode, stderr) == (130, "error: interrupted\n")
    assert list(tmp_path.glob("**/result.json*")) == []


def test_without_a_compiler_a_run_goes_on(tmp_path):
    here = {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    arguments = ("ppo_klip_continuous", *SHORT, "--total-timesteps", "2048")
    (tmp_path / "without").mkdir()
    (tmp_path / "eager").mkdir()
    done = run(tmp_path / "without", *arguments, **here)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("--compile")
    assert "compiler" in line
    assert done.result["args"]["compile"] is False
    eager = run(tmp_path / "eager", *arguments, "--no-compile")
    assert done.result["params_sha256"] == eager.result["params_sha256"]


def test_a_coefficient_that_cannot_be_compiled_trains_uncompiled(tmp_path):
    """A change that a reader might try: torch cannot trace a branch that depends on the data in one graph."""
    text = (ROOT / "ppo_klip_continuous.py").read_text()
    changed = text.replace("beta = torch.where", "beta = (1.0 if advantages.mean() > 0 else 0.9) * torch.where")
    assert changed != text
    (tmp_path / "ppo_mine.py").write_text(changed)
    command = [sys.executable, "ppo_mine.py", *SHORT, "--total-timesteps", "512", "--run-name", "mine"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("--compile: ") and "Unsupported" in done.stderr and done.stderr.count("\n") == 1
    assert json.loads((tmp_path / "runs" / "mine" / "result.json").read_text())["args"]["compile"] is False


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


def test_a_disk_full_from_the_start(disk):
    cwd = disk("size=4k")
    (cwd / "full").write_bytes(bytes(4096))
    check_end(run(cwd, *CONTINUOUS), 2)
    assert not (cwd / "runs").exists()


def test_a_disk_that_fills_while_training(disk):
    """24 KiB hold the events of some fifteen rollouts."""
    done = run(disk("size=24k"), *CONTINUOUS, "--total-timesteps", "20480")
    assert "step 2048" in done.stdout
    check_end(done, 2)


@pytest.mark.parametrize("script", ["ppo_clip_continuous", "ppo_clip_cartpole"])
def test_a_disk_too_small_for_the_checkpoint(disk, script):
    """32 KiB hold the events of a few rollouts, but not agent.pt: no part of it must stay there."""
    task = SHORT if "continuous" in script else ()
    done = run(disk("size=32k"), script, *task, "--total-timesteps", "2048", "--no-compile", "--save-model")
    assert "step 2048" in done.stdout
    check_end(done, 2)
    assert list(done.cwd.glob("**/agent.pt")) == []


@pytest.mark.parametrize("script", ["ppo_clip_continuous", "ppo_clip_cartpole"])
def test_a_folder_that_cannot_be_written(disk, script):
    done = run(disk("ro"), script)
    check_end(done, 2)
    assert "runs" in done.stderr
