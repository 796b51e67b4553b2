"""benchmark.sh, with real and short trainings: what it runs, what it refuses, and what it says of a run that fails."""

import contextlib
import importlib
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest
import tyro
from benchmark_helpers import CLIP, GATED, KLIP, PAIR, wait_for
from helpers import ROOT, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds and kills processes through /proc")

MINE = """
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import ppo_klip_continuous as klip
import tyro
from pydantic.dataclasses import dataclass


@dataclass
class Args(klip.Args):
    exp_name: str = Path(__file__).stem
    pull: float = 1.0


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    return (new_logprob - old_logprob).exp() * advantages - args.pull * new_logprob.pow(2)


if __name__ == "__main__":
    args = tyro.cli(Args)
    klip.train(args, surrogate)
"""

LOOP = ROOT / "betas" / "loop.py"
FEW = ("--tasks", "CartPole-v1", "--variants", "clip")  # what follows overrides it


def parsed(command):
    """A line of --dry-run as the script's Args."""
    _, script, *arguments = shlex.split(command)
    return script, tyro.cli(importlib.import_module(script[:-3]).Args, args=arguments)


# What it runs


def test_the_grid(copy):
    code, output = copy.call("--dry-run")
    commands = [line for line in output.splitlines() if GATED not in line]
    assert code == 0 and len(commands) == 7 * 5 * 5
    names = set()
    for script, args in map(parsed, commands):
        assert args.run_name == f"{args.env_id}__{args.exp_name}__{args.seed}"
        assert args.exp_name == script[:-3].replace("scalar", "adaptive" if "adaptive" in args.exp_name else "fixed")
        assert args.total_timesteps == (100_000 if args.env_id == "CartPole-v1" else 1_000_000)
        assert getattr(args, "adaptive_beta", False) == ("adaptive" in args.run_name)
        assert ("cartpole" in script) == (args.env_id in ("CartPole-v1", "LunarLander-v3"))
        names.add(args.run_name)
    assert len(names) == len(commands)
    assert not copy.runs.exists()


def test_a_task_has_flags_of_its_own_which_the_users_override(copy):
    arguments = ("--dry-run", "--tasks", "LunarLander-v3", "--variants", "klip", "--seeds", "0")
    args = parsed(copy.call(*arguments)[1])[1]
    assert (args.num_envs, args.num_steps, args.num_minibatches) == (16, 1024, 256)
    assert (args.gamma, args.gae_lambda, args.ent_coef) == (0.999, 0.98, 0.01)
    assert parsed(copy.call(*arguments, "--script-args", "--gamma 0.9")[1])[1].gamma == 0.9


def test_quick_has_every_variant_in_a_folder_of_its_own(copy):
    output = copy.call("quick", "--dry-run")[1]
    assert output.count("Hopper-v4__") == output.count("CartPole-v1__") == 2 * 5
    assert output.count("--run-name quick/") == 2 * 10
    assert copy.call("--seeds", "3", "quick", "--dry-run")[1].count("--seed 3") == 10


def test_knobs(copy):
    output = copy.call("knobs", "--dry-run")[1]
    runs = [parsed(command)[1] for command in output.splitlines()]
    defaults = {"clip_coef": 0.2, "beta": 1.0, "kl_target": 0.02, "adaptive_beta": False}
    found = Counter()
    for args in runs:
        knob, _, value = args.run_name.split("/")[1].partition("=")
        changed = {name for name, default in defaults.items() if getattr(args, name, default) != default}
        assert changed == {knob} | ({"adaptive_beta"} if knob == "kl_target" else set())
        assert getattr(args, knob) == float(value)
        assert args.run_name == f"knobs/{knob}={value}/{args.env_id}__{args.exp_name}__{args.seed}"
        found[knob, value] += 1
    values = {
        "clip_coef": ("0.1", "0.3"),
        "beta": ("0.1", "0.3", "3", "10"),
        "kl_target": ("0.003", "0.01", "0.03", "0.1"),
    }
    assert found == {(knob, value): 9 for knob in values for value in values[knob]}
    assert {args.env_id for args in runs} == {"CartPole-v1", "HalfCheetah-v4", "Hopper-v4"}
    assert {args.seed for args in runs} == {0, 1, 2}


def test_a_sweep_over_a_knob(copy):
    arguments = ("knobs", "--tasks", "CartPole-v1", "--variants", "clip", "--seeds", "0", "--total-timesteps", "512")
    code, output = copy.call(*arguments)
    assert code == 0 and "2 runs: 2 done" in output, output
    results = [
        json.loads(path.read_text()) for path in copy.runs.glob("knobs/*/CartPole-v1__ppo_clip_cartpole__0/result.json")
    ]
    assert {result["args"]["clip_coef"] for result in results} == {0.1, 0.3}
    rows = [line.split() for line in output.splitlines() if line.startswith("CartPole-v1 ")]
    assert {tuple(row[1:3]) for row in rows} == {("clip", "clip_coef=0.1"), ("clip", "clip_coef=0.3")}
    assert (copy.runs / "knobs/logs/clip_coef=0.1/CartPole-v1__ppo_clip_cartpole__0.log").exists()
    assert copy.call(*arguments, "--dry-run") == (0, "")


def test_filters(copy):
    arguments = (
        "--tasks",
        "Hopper-v4,CartPole-v1",
        "--variants",
        "clip,phi",
        "--seeds",
        "3,7",
        "--total-timesteps",
        "4096",
    )
    output = copy.call("--dry-run", *arguments, "--track", "--wandb-project-name", "two words")[1]
    expected = [
        f"ppo_{form}_{family}.py --track --wandb-project-name 'two words' --env-id {task} --seed {seed} "
        f"--total-timesteps 4096 --run-name {task}__ppo_{form}_{family}__{seed}"
        for seed in (3, 7)
        for task, family in (("Hopper-v4", "continuous"), ("CartPole-v1", "cartpole"))
        for form in ("clip", "phi")
    ]
    assert [shlex.split(line)[1:] for line in output.splitlines()] == [shlex.split(line) for line in expected]


def test_other_ways_to_write_the_same(copy):
    expected = copy.call("--dry-run", "--tasks", "Hopper-v4,CartPole-v1", "--seeds", "0")
    assert copy.call("--dry-run", "--tasks=Hopper-v4, CartPole-v1", "--seeds=0") == expected


def test_a_folder_of_its_own(copy):
    arguments = ("--tasks", "CartPole-v1", "--variants", "clip", "--seeds", "0", "--total-timesteps", "512")
    code, output = copy.call(*arguments, "--into", "of mine", "--script-args", "--clip-coef 0.1")
    assert code == 0, output
    assert [path.parent for path in copy.runs.rglob("result.json")] == [
        copy.runs / "of mine" / "CartPole-v1__ppo_clip_cartpole__0"
    ]
    assert copy.call(*arguments, "--into=of mine", "--script-args=--clip-coef 0.1", "--dry-run") == (0, "")
    assert copy.call(*arguments, "--dry-run")[1].count("\n") == 1


def test_status_submits_nothing(copy):
    assert copy.call(*PAIR, "--status", "--slurm")[1] == copy.call(*PAIR, "--slurm", "--status", "--", "--time=1")[1]


def test_one_line_adds_a_task_and_one_a_variant(copy):
    copy.edit("\nCartPole-v1       cartpole    100000", "\nSwimmer-v5 continuous 5\nCartPole-v1 cartpole 100000")
    copy.edit(
        "\nphi               cont", "\nwide continuous ppo_clip_continuous.py --exp-name wide --clip-coef 0.4\nphi cont"
    )
    output = copy.call("--dry-run", "--tasks", "Swimmer-v5", "--variants", "wide", "--seeds", "0")[1]
    assert "--exp-name wide --clip-coef 0.4 --env-id Swimmer-v5" in output
    assert "--run-name Swimmer-v5__wide__0" in output and output.count("\n") == 1


def test_a_script_in_betas_is_a_variant(copy):
    (copy.folder / "betas").mkdir()
    (copy.folder / "betas" / "mine.py").write_text(MINE)
    arguments = ("--tasks", "Hopper-v4", "--seeds", "0", "--total-timesteps", "2048", "--script-args", "--no-compile")
    code, output = copy.call(*arguments, "--variants", "mine,klip")
    assert code == 0 and "2 runs: 2 done" in output, output
    results = copy.results()
    mine, klip = (results[f"Hopper-v4__{name}__0"] for name in ("mine", "ppo_klip_continuous"))
    assert mine["args"]["pull"] == 1 and mine["params_sha256"] != klip["params_sha256"]
    code, output = copy.call(*arguments[:-1], "--no-compile --pull 2", "--variants", "mine", "--status")
    assert code == 1 and "pull 1.0, not 2.0" in output
    assert "mine" not in copy.call("--dry-run")[1]  # asked for by name only
    code, output = copy.call("--dry-run", "--tasks", "LunarLander-v3", "--variants", "mine,klip", "--seeds", "0")
    mine, klip = sorted(output.splitlines())
    assert code == 0 and " --num-envs 16 " in mine
    assert mine.replace("betas/mine.py", "ppo_klip_cartpole.py") == klip.replace("ppo_klip_cartpole__0", "mine__0")


@pytest.mark.skipif(not LOOP.exists(), reason="betas/ has no loop for discrete actions here")
def test_a_script_in_betas_trains_discrete_actions(copy):
    (copy.folder / "betas").mkdir()
    shutil.copy(LOOP, copy.folder / "betas")
    shutil.copy(ROOT / "betas" / "spo.py", copy.folder / "betas" / "mine.py")
    arguments = ("--tasks", "CartPole-v1", "--variants", "mine,klip", "--seeds", "0", "--total-timesteps", "2048")
    code, output = copy.call(*arguments)
    assert code == 0 and "2 runs: 2 done" in output, output
    mine, klip = (copy.results()[f"CartPole-v1__{name}__0"] for name in ("mine", "ppo_klip_cartpole"))
    assert mine["args"]["num_envs"] == klip["args"]["num_envs"] and mine["params_sha256"] != klip["params_sha256"]
    (copy.folder / "ppo_klip_cartpole.py").open("a").write("pass\n")
    assert "2 runs: 2 differs" in copy.call(*arguments, "--status")[1]


@pytest.mark.parametrize("blanks", ["\t", "\t\t", " \t "])
def test_a_tab_in_the_tables_is_a_blank(copy, blanks):
    copy.edit(
        "\nCartPole-v1       cartpole    100000",
        f"\n{blanks}Swimmer-v5{blanks}continuous{blanks}5{blanks}--gamma\t0.9\n",
    )
    line = blanks.join(["wide", "continuous", "ppo_clip_continuous.py", "--exp-name", "wide"])
    copy.edit("\nphi               cont", f"\n{line}\nphi cont")
    arguments = ("--tasks", "Swimmer-v5", "--variants", "wide", "--seeds", "0")
    code, output = copy.call("--dry-run", *arguments)
    assert code == 0 and output.count("\n") == 1, output
    for words in ("--exp-name wide ", "--gamma 0.9 ", "--env-id Swimmer-v5 ", "--run-name Swimmer-v5__wide__0 "):
        assert words in output
    assert "1 runs: 1 missing" in copy.call("--status", *arguments)[1]


def test_help_fits_a_screen(copy):
    code, output = copy.call("--help")
    assert code == 0 and output.count("\n") <= 24 and max(map(len, output.splitlines())) <= 120


@pytest.mark.parametrize(
    "arguments, named",
    [
        ("--fast", "--fast"),
        ("--tasks Hoper-v4", "--tasks Hoper-v4"),
        ("--variants klipp", "betas/klipp.py"),
        ("knobs --variants phi", "knob"),
        ("--seeds 0,0", "twice|once"),
        ("--seeds 00", "--seeds|seeds"),
        ("--workers 0", "--workers"),
        ("--workers two", "--workers"),
        ("--workers", "--workers"),
        ("quick --tasks Ant-v4", "quick"),
        ("--script-args --exp_name=y", "names"),
        ("--script-args --seed=3", "seeds"),
        ("--script-args --help", "--script-args"),
        ("--status -- --time=1", "--slurm"),
        ("-- --time=1", "--slurm"),
        ("--into ../x", "--into"),
        ("--into /x", "--into"),
        ("--into a/../../x", "--into"),
        ("--into .", "--into"),
        ("--variants ../ppo_clip_cartpole", "--variants"),
        ("--variants loop", "--variants"),
        ("--wandb-project name", "--wandb-project"),
    ],
)
def test_a_wrong_argument_is_one_line(copy, arguments, named):
    code, output = copy.call(*FEW, *arguments.split())
    assert code == 2 and output.count("\n") == 1 and output.startswith("error: "), output
    assert any(word in output for word in named.split("|"))
    assert not copy.runs.exists()


@pytest.mark.parametrize(
    "arguments, named",
    [
        ("--script-args --learning-rat=1", "--learning-rat"),
        ("--script-args --num-minibatches=7", "--num-minibatches"),
        ("--total-timesteps 100", "--total-timesteps"),
        ("--total-timesteps -5", "total-timesteps"),
        ("--seeds one", "--seed"),
        ("--seeds 0,4294967296", "seed"),
    ],
)
def test_arguments_that_the_scripts_refuse_start_nothing(copy, arguments, named):
    code, output = copy.call(*FEW, *arguments.split())
    assert code == 2 and named in output.replace("_", "-") and "Traceback" not in output, output
    assert not copy.runs.exists()


def test_without_the_python_asked_for_it_says_so(copy):
    code, output = copy.call("--status", PYTHON="/no/such/python")
    assert code == 2 and "/no/such/python" in output and output.count("\n") == 1


def test_a_missing_folder_for_temporary_files_is_one_line(copy):
    code, output = copy.call(*PAIR, TMPDIR="/no/such folder")
    assert code == 2 and output == "error: TMPDIR=/no/such folder: there is no such folder; make it, or unset TMPDIR\n"
    assert not copy.runs.exists()


@pytest.mark.parametrize("kind", ["a link that leads nowhere", "a folder whose Python is gone"])
def test_a_broken_venv_is_one_line(copy, kind):
    venv = copy.folder / ".venv"
    if kind == "a link that leads nowhere":
        venv.symlink_to("/no/such/folder")
    else:
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to("/no/such/python")
        (venv / "notes").write_text("kept")
    code, output = copy.call(*PAIR, PYTHON="")
    assert (
        code == 2 and output.startswith("error: .venv has no Python that runs: remove it") and output.count("\n") == 1
    )
    assert venv.is_symlink() or (venv / "notes").read_text() == "kept"


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "3.1.1", "2.7.18"])
def test_a_python_for_which_the_requirements_do_not_install_is_one_line(copy, tmp_path, version):
    """That some Python of this machine is too old or too new cannot be relied on, so one only says that it is."""
    path = only(tmp_path, "env", "bash", "basename", "dirname", "cmp", "cat", "tr")
    python = tmp_path / "bin" / "python3"
    python.write_text(f"#!/bin/sh\necho Python {version}\n")
    python.chmod(0o755)
    code, output = copy.call(*PAIR, PYTHON="", PATH=path)
    assert code == 2 and output.count("\n") == 1, output
    assert f"Python 3.11, 3.12 or 3.13 as python3, not Python {version}" in output
    assert not (copy.folder / ".venv").exists()


def test_a_link_to_it_is_followed(copy, tmp_path):
    expected = copy.call(*PAIR, "--dry-run")
    (tmp_path / "first").symlink_to(copy.folder / "benchmark.sh")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "second").symlink_to("../first")
    for link in (tmp_path / "first", tmp_path / "elsewhere" / "second"):
        command = [str(link), *PAIR, "--dry-run"]
        done = subprocess.run(
            command, env=environment(PYTHON=sys.executable), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == expected, done.stderr


def test_a_clone_on_windows_keeps_its_line_ends(tmp_path):
    for name in ("benchmark.sh", ".gitattributes"):
        shutil.copy(ROOT / name, tmp_path)
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for command in (
        ("init", "--quiet"),
        ("add", "--all"),
        (*who, "commit", "--quiet", "--message", "one"),
        ("clone", "--quiet", "--config", "core.autocrlf=true", ".", "clone"),
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert (tmp_path / "clone" / "benchmark.sh").read_bytes() == (ROOT / "benchmark.sh").read_bytes()


def only(folder, *programs):
    """A PATH of its own with these programs in it."""
    (folder / "bin").mkdir()
    for program in programs:
        (folder / "bin" / program).symlink_to(shutil.which(program))
    return str(folder / "bin")


def test_without_slurm_it_says_so(copy, tmp_path):
    code, output = copy.call("--slurm", PATH=only(tmp_path, "env", "bash", "dirname", "basename"))
    assert code == 2 and "no sbatch" in output and output.count("\n") == 1
    assert not copy.runs.exists()


def test_without_flock_it_says_so_and_trains(copy, tmp_path):
    programs = "env bash basename date dirname grep mkdir mkfifo mktemp nproc rm sleep tr xargs"
    code, output = copy.call(*PAIR, PATH=only(tmp_path, *programs.split()))
    assert code == 0 and output.count("two sweeps in one folder are not kept apart") == 1, output
    assert "2 runs: 2 done" in output and copy.results()[CLIP]["params_sha256"] == copy.results()[KLIP]["params_sha256"]


def test_a_python_without_the_requirements_is_one_line(copy, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -S "$@"\n')
    python.chmod(0o755)
    code, output = copy.call(*PAIR, PYTHON=str(python))
    assert code == 2 and "requirements.txt" in output and "tyro" in output and output.count("\n") == 1


def test_a_line_with_a_script_that_is_not_there(copy):
    copy.edit("\nphi               cont", "\nmine continuous ppo_mine.py\nphi               cont")
    code, output = copy.call()
    assert code == 2 and output == "error: variant mine: there is no script ppo_mine.py\n"


# What it says, and that a failure or an end costs no other run


def test_forms_that_part_are_reported_with_the_likely_reasons(copy):
    script = copy.folder / "ppo_klip_cartpole.py"
    before, after = "beta = torch.where(", "beta = 0.5 * torch.where("
    assert script.read_text().count(before) == 1
    script.write_text(script.read_text().replace(before, after))
    code, output = copy.call(*PAIR, "--script-args", "--num-steps 120 --num-minibatches 10 --learning-rate 0.01")
    assert code == 1 and "2 runs: 2 done" in output
    assert "0 of 1 pairs identical" in output and "NOT IDENTICAL" in output and "different machines" in output
    assert f"{GATED} seed 0: clip " in output and "a minibatch of 48 is not a power of two" in output


def test_tracked_runs_go_to_wandb(copy):
    arguments = ("--variants", "klip", "--track", "--wandb-project-name", "of mine")
    code, output = copy.call(*PAIR, *arguments, WANDB_SILENT="true")
    assert code == 0, output
    (run,) = (copy.folder / "wandb").glob("offline-run-*")
    text = (run / f"run-{run.name.rsplit('-')[-1]}.wandb").read_bytes()
    for word in (b"of mine", KLIP.encode(), b"ppo_klip_cartpole", GATED.encode()):
        assert word in text
    assert [path.name for path in (run / "files" / "code").rglob("*.py")] == ["ppo_klip_cartpole.py"]


def test_a_diverged_run_is_a_result(copy):
    arguments = (*PAIR, "--script-args", "--learning-rate 1e38")
    code, output = copy.call(*arguments)
    assert code == 0 and "2 runs: 2 diverged" in output and "1 of 1 pairs identical" in output, output
    assert f"diverged: {CLIP}: at step 512" in output
    assert [line.split()[2:] for line in output.splitlines() if "0 of 1, 1 diverged" in line]
    assert all(result["diverged_at"] == 512 for result in copy.results().values())
    times = copy.times()
    assert copy.call(*arguments)[0] == 0
    assert copy.times() == times and set(copy.starts().values()) == {1}


def test_a_failure_does_not_stop_the_rest_and_is_retried_alone(copy):
    copy.edit("\nCartPole-v1       cartpole    100000", "\nNoSuch-v4 cartpole 2048\nCartPole-v1 cartpole 100000")
    arguments = ("--tasks", f"NoSuch-v4,{GATED}", "--variants", "clip", "--seeds", "0,1")
    copy.gate.touch()
    process = copy.start(*arguments)
    wait_for(lambda: (copy.runs / CLIP).exists())
    os.kill(copy.trainings()[CLIP], signal.SIGKILL)
    copy.gate.unlink()
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert list(copy.results()) == [CLIP[:-1] + "1"]
    *_, summary = output.partition("4 runs: ")
    assert summary.startswith("1 done, 3 failed\n"), output
    for run, code in (("NoSuch-v4__ppo_clip_cartpole__0", 2), ("NoSuch-v4__ppo_clip_cartpole__1", 2), (CLIP, 137)):
        assert f"failed: {run}: exit code {code}, log runs/logs/{run}.log" in summary
    assert "error: --env-id NoSuch-v4" in summary
    assert copy.starts() == dict.fromkeys(copy.starts(), 1)
    assert copy.call(*arguments, "--status")[1].endswith(summary)

    times = copy.times()
    code, output = copy.call(*arguments)
    assert code == 1 and "4 runs: 2 done, 2 failed" in output
    starts = copy.starts()
    assert starts.pop(CLIP[:-1] + "1") == 1 and set(starts.values()) == {2}
    assert times.items() <= copy.times().items()
    assert (copy.runs / "incomplete" / f"{CLIP}.1").is_dir()


def test_a_mistake_in_a_script_is_shown(copy):
    script = copy.folder / "ppo_klip_cartpole.py"
    script.write_text(script.read_text().replace("beta = torch.where(", "beta = torch.were("))
    code, output = copy.call(*PAIR)
    assert code == 1 and "1 done, 1 failed" in output
    *_, summary = output.partition("2 runs: ")
    assert "exit code 1" in summary and "AttributeError: module 'torch' has no attribute 'were'" in summary


def test_a_launch_that_fails_is_listed_with_its_reason(copy):
    (copy.runs / "logs").mkdir(parents=True)
    (copy.runs / "logs" / f"{CLIP}.log").mkdir()
    (copy.runs / "incomplete").touch()
    (copy.runs / KLIP).mkdir()
    code, output = copy.call(*PAIR)
    *_, summary = output.partition("2 runs: ")
    assert code == 1 and summary.startswith("2 failed\n"), output
    assert f"failed: {CLIP}: exit code 1: runs/logs/{CLIP}.log: Is a directory" in summary
    assert f"failed: {KLIP}: exit code 1: mkdir: " in summary and "File exists" in summary
    assert (copy.runs / KLIP).is_dir()


def test_a_killed_harness_leaves_no_workers_behind(copy):
    copy.gate.touch()
    process = copy.start(*PAIR[:-3], "0,1,2", *PAIR[-2:], "--workers", "2")
    wait_for(lambda: len(copy.trainings()) == 2)
    process.kill()
    process.wait()
    copy.gate.unlink()
    wait_for(lambda: not copy.trainings())
    output = process.stdout.read()  # to its end: all that had it open have ended
    process.stdout.close()
    assert len(copy.results()) == 2 and len(copy.starts()) == 2, output


def test_on_a_terminal_it_stops_at_ctrl_c(copy):
    copy.gate.touch()
    arguments = [str(copy.folder / "benchmark.sh"), *PAIR]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(arguments[0], arguments, environment(PYTHON=sys.executable, GATE=str(copy.gate)))
    wait_for(lambda: len(list(copy.runs.glob(f"{GATED}*"))) == min(2, len(os.sched_getaffinity(0))))
    os.write(terminal, b"\x03")
    output = b""
    with contextlib.suppress(OSError):  # once the other end is closed
        while chunk := os.read(terminal, 4096):
            output += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    os.close(terminal)
    lines = output.decode().splitlines()
    assert lines[0].startswith("2 runs to train, ") and lines[-1].endswith("stopped; the same command resumes"), lines
    wait_for(lambda: not copy.trainings(), timeout=10)
    assert not copy.results()
    assert "2 runs: 2 missing" in copy.call(*PAIR, "--status")[1]


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGHUP])
def test_ended_by_a_signal_it_starts_nothing_more(copy, ended_by):
    copy.gate.touch()
    process = copy.start(*PAIR[:-3], "0,1,2", *PAIR[-2:], "--workers", "1")
    wait_for(lambda: len(copy.trainings()) == 1)
    process.send_signal(ended_by)
    copy.gate.unlink()
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "the same command resumes" in output, output
    wait_for(lambda: not copy.trainings())
    assert len(copy.starts()) <= 2
