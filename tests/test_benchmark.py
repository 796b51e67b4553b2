"""benchmark.sh, with real and short trainings: what it runs, that it loses nothing, and that it tells."""

import contextlib
import importlib
import json
import os
import pty
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tyro
from benchmark_helpers import PAIR, SHORT, Copy, kill_session, wait_for
from helpers import environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds and kills processes through /proc")


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A copy with a sweep that nothing disturbed, and what the sweep said."""
    copy = Copy(tmp_path_factory.mktemp("undisturbed"))
    copy.code, copy.output = copy.call(*SHORT, OMP_NUM_THREADS="2")
    return copy


# What it runs


def test_the_grid(copy):
    code, output = copy.call("--dry-run")
    commands = [shlex.split(line) for line in output.splitlines()]
    assert code == 0 and len(commands) == 5 * (5 * 5 + 2)
    names = set()
    for _, script, *arguments in commands:
        args = tyro.cli(importlib.import_module(script[:-3]).Args, args=arguments)
        assert args.run_name == f"{args.env_id}__{args.exp_name if 'kl_' in args.exp_name else script[:-3]}__{args.seed}"
        assert args.total_timesteps == (100_000 if args.env_id == "CartPole-v1" else 1_000_000)
        assert getattr(args, "adaptive_beta", False) == ("adaptive" in args.run_name)
        names.add(args.run_name)
    assert len(names) == len(commands)
    assert not copy.runs.exists()


def test_quick_has_every_variant_in_a_folder_of_its_own(copy):
    output = copy.call("quick", "--dry-run")[1]
    assert output.count("Hopper-v4__") == 2 * 5 and output.count("CartPole-v1__") == 2 * 2
    assert output.count("--run-name quick/") == 2 * 7


def test_filters(copy):
    arguments = ("--tasks", "Hopper-v4,CartPole-v1", "--variants", "clip,phi", "--seeds", "3,7", "--total-timesteps", "4096")
    output = copy.call("--dry-run", *arguments, "--track", "--wandb-project-name", "two words")[1]
    expected = [
        f"{script}.py --track --wandb-project-name 'two words' --env-id {task} --seed {seed} --total-timesteps 4096 "
        f"--run-name {task}__{script}__{seed}"
        for seed in (3, 7)
        for task, script in (
            ("Hopper-v4", "ppo_clip_continuous"),
            ("Hopper-v4", "ppo_phi_continuous"),
            ("CartPole-v1", "ppo_clip_cartpole"),
        )
    ]
    assert [shlex.split(line)[1:] for line in output.splitlines()] == [shlex.split(line) for line in expected]


def test_other_ways_to_write_the_same(copy):
    expected = copy.call("--dry-run", "--tasks", "Hopper-v4,CartPole-v1", "--seeds", "0")
    assert copy.call("--dry-run", "--tasks=Hopper-v4, CartPole-v1", "--seeds=0") == expected


def test_a_folder_of_its_own(copy):
    code, output = copy.call(*PAIR, "--variants", "clip", "--into", "of mine", "--script-args", "--clip-coef 0.1")
    assert code == 0, output
    assert [path.parent for path in copy.runs.rglob("result.json")] == [copy.runs / "of mine" / "CartPole-v1__ppo_clip_cartpole__0"]
    code, output = copy.call(*PAIR, "--variants", "clip", "--status")
    assert code == 1 and "1 missing" in output
    assert "1 done" in copy.call(*PAIR, "--variants", "clip", "--into=of mine", "--status", "--script-args=--clip-coef 0.1")[1]


def test_status_submits_nothing(copy):
    assert copy.call(*PAIR, "--status", "--slurm")[1] == copy.call(*PAIR, "--slurm", "--status")[1]


def test_one_line_adds_a_task_and_one_a_variant(copy):
    copy.edit("\nCartPole-v1       cartpole    100000", "\nSwimmer-v5 continuous 5\nCartPole-v1 cartpole 100000")
    copy.edit("\nphi  ", "\nwide continuous ppo_clip_continuous.py --exp-name wide --clip-coef 0.4\nphi  ")
    output = copy.call("--dry-run", "--tasks", "Swimmer-v5", "--variants", "wide", "--seeds", "0")[1]
    assert "--exp-name wide --clip-coef 0.4 --env-id Swimmer-v5" in output
    assert "--run-name Swimmer-v5__wide__0" in output and output.count("\n") == 1


def test_help_fits_a_screen(copy):
    code, output = copy.call("--help")
    assert code == 0 and output.count("\n") <= 24 and max(map(len, output.splitlines())) <= 120


@pytest.mark.parametrize(
    "arguments, named",
    [
        ("--fast", "--fast"),
        ("--tasks Hoper-v4", "Hopper-v4"),
        ("--variants klipp", "klip,"),
        ("--tasks CartPole-v1 --variants phi", "family"),
        ("--seeds one", "--seeds"),
        ("--seeds 0,0", "twice|once"),
        ("--total-timesteps -5", "--total-timesteps"),
        ("--workers 0", "--workers"),
        ("--workers", "--workers"),
        ("--seeds 00,0", "--seeds"),
        ("--seeds 10000000000", "--seeds"),
        ("--into a/b", "--into"),
        ("--into logs", "--into"),
        ("quick --tasks Ant-v4", "Hopper-v4,CartPole-v1"),
        ("--script-args --exp_name=y", "--script-args"),
        ("--script-args --help", "--script-args"),
        ("--script-args --num-minibatches=7", "--num-minibatches"),
        ("--total-timesteps 100", "--total-timesteps"),
        ("--status -- --time=1", "--slurm"),
        ("--script-args --seed=3", "--script-args"),
        ("-- --time=1", "--slurm"),
    ],
)
def test_a_wrong_argument_is_one_line(copy, arguments, named):
    code, output = copy.call(*arguments.split())
    assert code == 2 and output.count("\n") == 1 and output.startswith("error: ")
    assert any(word in output for word in named.split("|"))
    assert not copy.runs.exists()


def test_without_the_python_asked_for_it_says_so(copy):
    code, output = copy.call("--status", PYTHON="/no/such/python")
    assert code == 2 and "/no/such/python" in output and output.count("\n") == 1


def test_without_slurm_it_says_so(copy, tmp_path):
    (tmp_path / "bin").mkdir()
    for program in ["env", "bash", "dirname", "basename", "awk", "cut", "sort", "uniq", "head", "grep"]:
        (tmp_path / "bin" / program).symlink_to(shutil.which(program))
    code, output = copy.call("--slurm", PATH=str(tmp_path / "bin"))
    assert code == 2 and "no sbatch" in output and output.count("\n") == 1
    assert not copy.runs.exists()


def test_arguments_that_the_scripts_refuse_start_nothing(copy):
    code, output = copy.call(*PAIR, "--script-args", "--learning-rat 1")
    assert code == 2 and "--learning-rat" in output
    assert not copy.runs.exists()


def test_a_python_without_the_requirements_is_one_line(copy, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    python.chmod(0o755)
    code, output = copy.call(*PAIR, PYTHON=str(python))
    assert code == 2 and "requirements.txt" in output and "tyro" in output and output.count("\n") == 1


def test_a_line_with_a_script_that_is_not_there(copy):
    copy.edit("\nphi  ", "\nmine continuous ppo_mine.py\nphi  ")
    code, output = copy.call("--dry-run")
    assert code == 2 and output == "error: variant mine: there is no script ppo_mine.py\n"


# What it tells


def test_a_sweep_ends_with_a_table_and_the_identity(undisturbed):
    assert undisturbed.code == 0, undisturbed.output
    rows = {tuple(line.split()[:2]): line.split() for line in undisturbed.output.splitlines() if line.count("1/1")}
    assert len(rows) == 7
    hopper = [rows["Hopper-v4", variant][2:] for variant in ("clip", "klip", "phi")]
    assert hopper[0] == hopper[1] == hopper[2] != rows["Hopper-v4", "kl_fixed"][2:]
    result = undisturbed.results()["Hopper-v4__ppo_clip_continuous__0"]
    assert hopper[0] == [f"{result['final_return']:.1f}", "1/1", result["params_sha256"][:4]]
    assert "1 of 1 triples identical to the bit (clip = klip = phi)" in undisturbed.output
    assert "1 of 1 pairs identical to the bit (clip = klip)" in undisturbed.output
    assert "7/7 done, 0 failed" in undisturbed.output and "\r" not in undisturbed.output
    assert set(undisturbed.starts().values()) == {1} and len(undisturbed.starts()) == 7


def test_a_complete_sweep_is_left_alone(undisturbed):
    times = undisturbed.times()
    code, output = undisturbed.call(*SHORT)
    assert code == 0 and "7 runs: 7 done" in output
    assert undisturbed.times() == times and set(undisturbed.starts().values()) == {1}


def test_a_complete_run_with_other_arguments_is_not_the_one_asked_for(undisturbed):
    times = undisturbed.times()
    code, output = undisturbed.call(*SHORT, "--total-timesteps", "4096")
    assert code == 1 and "7 runs: 7 differs" in output and " 0/1 " in output
    assert "total_timesteps 2048, not 4096" in output and "move runs/Hopper-v4__ppo_clip_continuous__0 away" in output
    code, output = undisturbed.call(*SHORT[:-2], "--script-args", "--learning-rate 1e-3", "--status")
    assert code == 1 and "__0: learning_rate 0.0003, not 0.001: move runs/Hopper" in output
    assert undisturbed.times() == times and set(undisturbed.starts().values()) == {1}
    assert "14 missing" in undisturbed.call("quick", "--status")[1]


def test_tracking_is_no_other_training(undisturbed):
    code, output = undisturbed.call(*SHORT, "--status", "--track", "--wandb-project-name", "other")
    assert code == 0 and "7 done" in output


def test_forms_that_part_are_reported_with_the_likely_reasons(copy):
    script = copy.folder / "ppo_klip_cartpole.py"
    script.write_text(script.read_text().replace("default_rng(args.seed)", "default_rng(args.seed + 1)"))
    code, output = copy.call(*PAIR, "--script-args", "--num-steps 120 --num-minibatches 10")
    assert code == 1 and "2 runs: 2 done" in output
    assert "0 of 1 pairs identical" in output and "NOT IDENTICAL" in output and "different machines" in output
    assert "CartPole-v1 seed 0: clip " in output and "a minibatch of 48 is not a power of two" in output


def test_tracked_runs_go_to_wandb(copy):
    code, output = copy.call(*PAIR, "--variants", "klip", "--track", "--wandb-project-name", "of mine", WANDB_SILENT="true")
    assert code == 0, output
    (run,) = (copy.folder / "wandb").glob("offline-run-*")
    text = (run / f"run-{run.name.rsplit('-')[-1]}.wandb").read_bytes()
    for word in (b"of mine", b"CartPole-v1__ppo_klip_cartpole__0", b"ppo_klip_cartpole", b"CartPole-v1"):
        assert word in text
    assert [path.name for path in (run / "files" / "code").rglob("*.py")] == ["ppo_klip_cartpole.py"]


# That it loses nothing


def test_killed_at_random_it_ends_like_an_undisturbed_sweep(copy, undisturbed):
    """All processes, or the harness alone, whose workers end their runs while the next sweep begins, or a training."""

    def under_way(process):
        """The process id of a training that has its folder; True after the end of the sweep."""
        pids = [pid for name, pid in copy.trainings().items() if (copy.runs / name).exists()]
        return pids[0] if pids else process.poll() is not None

    rng, done, kills = random.Random(0), {}, 0
    for victim in ("everything", "harness", "training", "everything", "everything"):
        process = copy.start(*SHORT, "--workers", "2")
        if (training := wait_for(under_way, process)) is True:
            break  # on a fast machine the runs may all be complete by now
        time.sleep(rng.uniform(0, 2) if kills else 0)  # the first kill hits for certain
        with contextlib.suppress(ProcessLookupError):  # the training may have ended
            os.kill({"harness": process.pid}.get(victim, training), signal.SIGKILL)
        if victim != "harness":
            time.sleep(rng.uniform(0, 1) if victim == "training" else 0)
            kill_session(process.pid)
        process.wait()
        process.stdout.close()
        times = copy.times()
        assert done.items() <= times.items()
        done, kills = times, kills + 1
    assert kills >= 3
    code, output = copy.call(*SHORT)
    assert code == 0, output
    assert done.items() <= copy.times().items()
    assert copy.hashes() == undisturbed.hashes()
    aside = [path.name for path in (copy.runs / "incomplete").iterdir()]
    assert aside and sum(copy.starts().values()) >= 7 + len(aside)


def test_a_failure_does_not_stop_the_rest_and_is_retried_alone(copy):
    copy.edit("\nCartPole-v1       cartpole    100000", "\nNoSuch-v4 cartpole 100000\nCartPole-v1 cartpole 100000")
    arguments = ("--tasks", "NoSuch-v4,CartPole-v1", "--variants", "clip", "--seeds", "0,1", "--total-timesteps", "8192")
    process = copy.start(*arguments)
    name = "CartPole-v1__ppo_clip_cartpole__0"
    wait_for(lambda: (copy.runs / name).exists())
    os.kill(copy.trainings()[name], signal.SIGKILL)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert list(copy.results()) == ["CartPole-v1__ppo_clip_cartpole__1"]
    *_, summary = output.partition("4 runs: ")
    assert summary.startswith("1 done, 3 failed\n")
    for run, code in (("NoSuch-v4__ppo_clip_cartpole__0", 2), ("NoSuch-v4__ppo_clip_cartpole__1", 2), (name, 137)):
        assert f"failed: {run}: exit code {code}, log runs/logs/{run}.log" in summary
    assert "error: --env-id NoSuch-v4" in summary
    assert copy.starts() == dict.fromkeys(copy.starts(), 1)

    times = copy.times()
    code, output = copy.call(*arguments)
    assert code == 1 and "4 runs: 2 done, 2 failed" in output
    starts = copy.starts()
    assert starts.pop("CartPole-v1__ppo_clip_cartpole__1") == 1 and set(starts.values()) == {2}
    assert times.items() <= copy.times().items()
    assert (copy.runs / "incomplete" / f"{name}.1").is_dir()


def test_a_mistake_in_a_script_is_shown(copy):
    script = copy.folder / "ppo_klip_cartpole.py"
    script.write_text(script.read_text().replace("beta = torch.where(", "beta = torch.were("))
    code, output = copy.call(*PAIR)
    assert code == 1 and "1 done, 1 failed" in output
    *_, summary = output.partition("2 runs: ")
    assert "exit code 1" in summary and "AttributeError: module 'torch' has no attribute 'were'" in summary


def test_two_sweeps_at_once_share_the_runs(copy, undisturbed):
    sweeps = [copy.start(*SHORT, "--workers", "1") for _ in range(2)]
    for sweep in sweeps:
        output = sweep.communicate(timeout=120)[0]
        assert sweep.returncode == 0 and "7 runs: 7 done" in output, output
    assert copy.starts() == dict.fromkeys(undisturbed.hashes(), 1)
    assert copy.hashes() == undisturbed.hashes()
    assert not (copy.runs / "incomplete").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_reported_and_resumed(copy, undisturbed):
    copy.runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", copy.runs], check=True)
    try:
        (copy.runs / "filler").write_bytes(bytes(1024 * 1024 - 24 * 1024))  # some runs of 16 KiB each
        code, output = copy.call(*PAIR[:-3], "0,1", *PAIR[-2:], "--workers", "1")
        done = copy.times()
        assert code == 1 and f"4 runs: {len(done)} done, {4 - len(done)} failed" in output, output
        assert len(done) < 4 and "No space left" in output
        (copy.runs / "filler").unlink()
        code, output = copy.call(*PAIR)
        assert code == 0, output
        assert done.items() <= copy.times().items()
        expected = undisturbed.hashes()
        assert copy.hashes() == {name: expected[name] for name in expected if "CartPole" in name}
    finally:
        subprocess.run(["umount", copy.runs], check=True)


def test_on_a_terminal_it_shows_one_line_and_stops_at_ctrl_c(copy):
    arguments = [str(copy.folder / "benchmark.sh"), *PAIR[:-1], "1000000"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(arguments[0], arguments, environment(PYTHON=sys.executable))
    wait_for(lambda: len(list(copy.runs.glob("CartPole*"))) == min(2, len(os.sched_getaffinity(0))))
    os.write(terminal, b"\x03")
    output = b""
    with contextlib.suppress(OSError):  # once the other end is closed
        while chunk := os.read(terminal, 4096):
            output += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    os.close(terminal)
    lines = output.decode().splitlines()
    assert output.count(b"\n") == 1 and b"\r\x1b[K0/2 done, 0 failed" in output, output
    assert lines[-1].endswith("stopped; the same command resumes")
    assert not copy.trainings() and not copy.results()


def test_a_damaged_result_is_not_a_complete_run(copy, undisturbed):
    shutil.copytree(undisturbed.runs, copy.runs)
    path = copy.runs / "CartPole-v1__ppo_clip_cartpole__0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()))[:100])
    code, output = copy.call(*SHORT)
    assert code == 1 and "1 differs, 6 done" in output and "damaged" in output
