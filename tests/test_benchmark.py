"""benchmark.sh, with real and short trainings: what it runs, what it refuses, and what it says of a run that fails."""

import contextlib
import importlib
import os
import pty
import re
import shlex
import shutil
import signal
import sys

import pytest
import tyro
from benchmark_helpers import CLIP, GATED, KLIP, PAIR, wait_for
from helpers import ROOT, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds and kills processes through /proc")


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


def test_filters(copy):
    filters = ("--tasks", "Hopper-v4,CartPole-v1", "--variants", "clip,phi", "--seeds", "3,7")
    filters += ("--total-timesteps", "4096")
    code, output = copy.call("--dry-run", *filters, "--into", "of mine", "--track", "--wandb-project-name", "two words")
    expected = [
        f"ppo_{form}_{family}.py --track --wandb-project-name 'two words' --env-id {task} --seed {seed} "
        f"--total-timesteps 4096 --run-name 'of mine/{task}__ppo_{form}_{family}__{seed}'"
        for seed in (3, 7)
        for task, family in (("Hopper-v4", "continuous"), ("CartPole-v1", "cartpole"))
        for form in ("clip", "phi")
    ]
    assert code == 0
    assert [shlex.split(line)[1:] for line in output.splitlines()] == [shlex.split(line) for line in expected]
    other_ways = ("--tasks=Hopper-v4, CartPole-v1", "--variants=clip,phi", *filters[4:], "--into=of mine")
    assert copy.call("--dry-run", *other_ways) == copy.call("--dry-run", *filters, "--into", "of mine")


@pytest.mark.parametrize("separator", [" ", ", ", " , ", ",,", "\n", "\t"])
def test_blanks_separate_as_commas_do(copy, separator):
    def planned(separator):
        lists = {"--tasks": ("Hopper-v4", "CartPole-v1"), "--variants": ("clip", "phi"), "--seeds": ("1", "2", "3")}
        arguments = [word for flag, words in lists.items() for word in (flag, separator.join(words))]
        return copy.call("--dry-run", *arguments)

    code, output = planned(separator)
    assert code == 0 and output.count("\n") == 2 * 2 * 3, output
    assert (code, output) == planned(",")


def test_a_list_of_blanks_is_no_list(copy):
    """It does not stand for all tasks, as an empty one would."""
    code, output = copy.call("--dry-run", "--tasks", " ")
    assert (code, output) == (2, "error: --tasks needs a value\n")


def test_a_link_to_it_does_the_same(copy, tmp_path):
    straight = copy.call("--status", *PAIR)
    copy.program = tmp_path / "linked"
    copy.program.symlink_to(copy.folder / "benchmark.sh")
    assert copy.call("--status", *PAIR) == straight
    assert "2 missing" in straight[1]


def test_a_script_in_betas_is_a_variant(copy):
    """Of either kind of task, with the flags of the task; asked for by name only."""
    shutil.copy(ROOT / "betas" / "soft.py", copy.folder / "betas" / "mine.py")
    arguments = (*PAIR, "--variants", "mine")
    code, output = copy.call(*arguments)
    assert code == 0 and "1 runs: 1 done" in output, output
    (result,) = copy.results().values()
    assert (result["exp_name"], result["args"]["num_envs"], result["args"]["width"]) == ("mine", 4, 0.1)
    code, output = copy.call(*arguments, "--script-args", "--width 0.2", "--status")
    assert code == 1 and "width 0.1, not 0.2" in output
    (copy.folder / "ppo_klip_cartpole.py").open("a").write("pass\n")
    assert "1 runs: 1 differs" in copy.call(*arguments, "--status")[1]
    assert "mine" not in copy.call("--dry-run")[1]
    for task, family in (("LunarLander-v3", "cartpole"), ("Hopper-v4", "continuous")):
        _, output = copy.call("--dry-run", "--tasks", task, "--variants", "mine,klip", "--seeds", "0")
        mine, klip = sorted(output.splitlines())
        assert mine.replace("betas/mine", f"ppo_klip_{family}") == klip.replace(f"ppo_klip_{family}__0", "mine__0")


def test_one_line_adds_a_task_and_one_a_variant(copy):
    """Between its words are blanks or tabs."""
    copy.edit("\nCartPole-v1       cartpole    100000", "\n \tSwimmer-v5\t\tcontinuous\t5 \t --gamma\t0.9\n")
    copy.edit("\nphi               cont", "\nwide\tcontinuous\tppo_clip_continuous.py\t--exp-name wide\nphi cont")
    arguments = ("--tasks", "Swimmer-v5", "--variants", "wide", "--seeds", "0")
    code, output = copy.call("--dry-run", *arguments)
    assert code == 0 and output.count("\n") == 1, output
    for words in ("--exp-name wide ", "--gamma 0.9 ", "--env-id Swimmer-v5 ", "--run-name Swimmer-v5__wide__0 "):
        assert words in output
    assert "1 runs: 1 missing" in copy.call("--status", *arguments)[1]


@pytest.mark.parametrize(
    "arguments, named",
    [
        ("--fast", "--fast"),
        ("--tasks Hoper-v4", "--tasks Hoper-v4"),
        ("--variants klipp", "betas/klipp.py"),
        ("--variants ../ppo_clip_cartpole", "--variants"),
        ("--variants loop", "--variants"),
        ("quick --tasks Ant-v4", "quick"),
        ("--seeds 0,0", "a seed once"),
        ("--seeds one", "--seeds one"),
        ("--seeds 0,-1", "--seeds -1"),
        ("--seeds 0-4", "--seeds 0-4"),
        ("--seeds 1e3", "--seeds 1e3"),
        ("--seeds 1,01", "--seeds 01"),
        ("--seeds 0;1", "--seeds 0;1"),
        ("--seeds ,", "--seeds needs a value"),
        ("--tasks ,,", "--tasks needs a value"),
        ("--workers two", "--workers"),
        ("--workers", "--workers"),
        ("--script-args --seed=3", "seeds"),
        ("--script-args --help", "--script-args"),
        ("--status -- --time=1", "--slurm"),
        ("--into a/../../x", "--into"),
    ],
)
def test_a_wrong_argument_is_one_line(copy, arguments, named):
    code, output = copy.call(*FEW, *arguments.split())
    assert code == 2 and output.count("\n") == 1 and output.startswith("error: ") and named in output, output
    assert not copy.runs.exists()


@pytest.mark.parametrize(
    "arguments, named", [("--total-timesteps 100", "--total-timesteps"), (f"--seeds {2**32}", "--seed must")]
)
def test_arguments_that_the_scripts_refuse_start_nothing(copy, arguments, named):
    code, output = copy.call(*FEW, *arguments.split())
    assert code == 2 and named in output.replace("_", "-") and "Traceback" not in output, output
    assert not copy.runs.exists()


def test_a_python_that_is_not_there_is_one_line(copy):
    code, output = copy.call(*PAIR, PYTHON="/no/such/python")
    assert code == 2 and "/no/such/python" in output and output.count("\n") == 1
    assert not copy.runs.exists()


@pytest.mark.parametrize("blocked_by", ["a dead link", "a file"])
def test_a_runs_that_is_no_folder_is_one_line(copy, blocked_by):
    if blocked_by == "a file":
        copy.runs.touch()
    else:
        copy.runs.symlink_to(copy.folder / "gone")
    code, output = copy.call(*PAIR)
    assert code == 2 and output.count("\n") == 1, output
    assert output.startswith("error: cannot make runs/logs: runs must be a folder to write to, or a link to one")


# What the two programs that make .venv say once a python3 of this version was found good enough.
GOES_ON = "cannot make .venv without Python's venv module"
UNTRIED = "requirements.txt is for Python 3.11 to 3.14 and may not install with Python "


@pytest.fixture(params=["benchmark.sh", "tests/run.sh"])
def with_python(request, copy, tmp_path):
    """A function that calls one of them with a python3 that says its version and can do nothing else; (code, lines).

    That some Python of this machine is too old or too new cannot be relied on.
    """
    (copy.folder / "tests").mkdir()
    for name in ("tests/run.sh", "tests/requirements.txt"):
        shutil.copy(ROOT / name, copy.folder / name)
    path = only(tmp_path, "env", "bash", "basename", "dirname", "realpath", "cmp", "cat", "tr")
    copy.program = copy.folder / request.param

    def call(version):
        python = tmp_path / "bin" / "python3"
        python.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version}\n')
        python.chmod(0o755)
        code, output = copy.call(PYTHON="", PATH=path)
        assert code == 2 and not (copy.folder / ".venv").exists(), output
        return output.splitlines()

    return call


@pytest.mark.parametrize("version", ["3.10.13", "3.1.1", "2.7.18"])
def test_a_python_that_is_too_old_is_one_line(with_python, version):
    (line,) = with_python(version)
    assert f"needs Python 3.11 or newer as python3, not Python {version}" in line


@pytest.mark.parametrize("version", ["3.11.2", "3.13.0", "3.14.0", "3.14.0rc1"])
def test_a_python_for_which_the_requirements_are_is_used(with_python, version):
    (line,) = with_python(version)
    assert GOES_ON in line


@pytest.mark.parametrize("version", ["3.15", "3.15.0a1", "3.20.1", "4.0.0"])
def test_a_newer_python_is_used_and_called_untried(with_python, version):
    untried, line = with_python(version)
    assert untried.endswith(UNTRIED + version)
    assert GOES_ON in line


def only(folder, *programs):
    """A PATH of its own with these programs in it."""
    (folder / "bin").mkdir()
    for program in programs:
        (folder / "bin" / program).symlink_to(shutil.which(program))
    return str(folder / "bin")


def test_without_slurm_it_says_so(copy, tmp_path):
    code, output = copy.call("--slurm", PATH=only(tmp_path, "env", "bash", "basename", "dirname", "realpath"))
    assert code == 2 and "no sbatch" in output and output.count("\n") == 1
    assert not copy.runs.exists()


def test_without_flock_it_says_so_and_trains(copy, tmp_path):
    programs = "env bash basename date dirname grep mkdir mkfifo mktemp nproc realpath rm sleep tr xargs"
    code, output = copy.call(*PAIR, "--variants", "clip", PATH=only(tmp_path, *programs.split()))
    assert code == 0 and output.count("two sweeps in one folder are not kept apart") == 1, output
    assert "1 runs: 1 done" in output


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


def test_a_diverged_run_is_a_result(copy):
    arguments = (*PAIR, "--variants", "clip", "--script-args", "--learning-rate 1e38")
    code, output = copy.call(*arguments)
    assert code == 0 and "1 runs: 1 diverged" in output and "0 of 1, 1 diverged" in output, output
    assert f"diverged: {CLIP}: at step 512" in output
    times = copy.times()
    assert copy.call(*arguments)[0] == 0
    assert copy.times() == times and copy.starts() == {CLIP: 1}


def test_a_failure_is_shown_does_not_stop_the_rest_and_is_retried_alone(copy):
    """clip's process is killed, klip has a mistake."""
    script = copy.folder / "ppo_klip_cartpole.py"
    script.write_text(script.read_text().replace("beta = torch.where(", "beta = torch.were("))
    arguments = (*PAIR, "--variants", "clip,klip,phi")
    copy.gate.touch()
    process = copy.start(*arguments)
    wait_for(lambda: (copy.runs / CLIP).exists())
    os.kill(copy.trainings()[CLIP], signal.SIGKILL)
    copy.gate.unlink()
    output = process.communicate(timeout=300)[0]
    *_, summary = output.partition("3 runs: ")
    assert process.returncode == 1 and summary.startswith("1 done, 2 failed\n"), output
    for run, code in ((KLIP, 1), (CLIP, 137)):
        assert f"failed: {run}: exit code {code}, log runs/logs/{run}.log" in summary
    assert "AttributeError: module 'torch' has no attribute 'were'" in summary
    assert copy.call(*arguments, "--status")[1].endswith(summary)

    (phi,) = times = copy.times()
    code, output = copy.call(*arguments)
    assert code == 1 and "3 runs: 2 done, 1 failed" in output
    assert copy.starts() == {CLIP: 2, KLIP: 2, phi: 1}
    assert times.items() <= copy.times().items()
    assert (copy.runs / "incomplete" / f"{CLIP}.1").is_dir()


# Files of betas/ with which nothing can be trained, and what is said of them.
SPO = (ROOT / "betas" / "spo.py").read_text(encoding="utf-8")
UNUSABLE = {
    "lost": ("import torc\n", "ModuleNotFoundError: No module named 'torc'"),
    "ends": (SPO + "raise SystemExit(0)\n", "it ends the program when it is imported"),
    "trains": (SPO + "import ppo_klip_cartpole as c\nc.train(c.Args(), surrogate)\n", "it trains when it is imported"),
    "empty": ("import torch\n", "it has no surrogate"),
    "sums": (
        SPO.replace("beta * kl", "beta * kl.sum()").replace(").detach()", ")"),
        "end the line of beta with .detach()",
    ),
}


@pytest.fixture
def copy_with_betas(copy):
    """A copy of the project with those files beside spo.py."""
    (copy.folder / "betas" / "spo.py").write_text(SPO, encoding="utf-8")
    for name, (text, _) in UNUSABLE.items():
        (copy.folder / "betas" / f"{name}.py").write_text(text, encoding="utf-8")
    return copy


@pytest.mark.parametrize("name", ["lost", "trains"])
def test_a_file_of_betas_that_cannot_be_used_is_one_line(copy_with_betas, name):
    code, output = copy_with_betas.call("--variants", name)
    assert code == 2 and output.count("\n") == 1, output
    assert output.startswith(f"error: betas/{name}.py: ") and UNUSABLE[name][1] in output
    assert not copy_with_betas.runs.exists()


def test_files_of_betas_that_cannot_be_used_stop_no_other_variant(copy_with_betas):
    copy = copy_with_betas
    arguments = (*PAIR, "--variants", ",".join(["spo", *UNUSABLE]))
    code, output = copy.call(*arguments)
    assert code == 1 and "6 runs: 1 done, 5 failed" in output, output
    before, _, after = output.partition("1 runs to train")
    for name, (_, told) in UNUSABLE.items():
        assert re.search(rf"^error: betas/{name}\.py: .*{re.escape(told)}", before, re.MULTILINE), before
        assert re.search(rf"^failed: .*: betas/{name}\.py: .*{re.escape(told)}", after, re.MULTILINE), after
    assert list(copy.results()) == [f"{GATED}__spo__0"]
    with (copy.folder / "betas" / "spo.py").open("a") as file:
        file.write("surrogate = None\n")
    code, output = copy.call(*PAIR, "--variants", "spo", "--status")
    assert code == 1 and "1 runs: 1 failed" in output and "betas/spo.py: Unusable: it has no surrogate" in output


def test_what_a_file_of_betas_or_a_task_prints_is_no_run(copy_with_betas):
    copy = copy_with_betas
    (copy.folder / "betas" / "talks.py").write_text(SPO + "print('hello\\tto all')\n", encoding="utf-8")
    code, output = copy.call(*PAIR, "--variants", "talks", TALKS="1")
    assert "hello from a library" in output
    assert code == 0 and "1 runs to train" in output and "1 runs: 1 done" in output, output
    assert "talks.py prints: hello\tto all" in output
    assert [path.stem for path in copy.runs.glob("logs/*")] == [f"{GATED}__talks__0"]


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
    assert lines[0].startswith("2 runs to train, ") and lines[-1].endswith("the same command resumes"), lines
    wait_for(lambda: not copy.trainings(), timeout=10)
    assert not copy.results()
    assert "2 runs: 2 missing" in copy.call(*PAIR, "--status")[1]


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_ended_by_a_signal_it_starts_nothing_more(copy, ended_by):
    """Nor do its workers, which outlive it if it is killed."""
    copy.gate.touch()
    process = copy.start(*PAIR[:-3], "0,1,2", *PAIR[-2:], "--workers", "1")
    wait_for(lambda: len(copy.trainings()) == 1)
    process.send_signal(ended_by)
    if ended_by == signal.SIGKILL:
        process.wait()
    copy.gate.unlink()
    output = process.communicate(timeout=300)[0]  # to its end: all that had it open have ended
    assert process.returncode == (-ended_by if ended_by == signal.SIGKILL else 130), output
    assert ("the same command resumes" in output) == (ended_by != signal.SIGKILL)
    wait_for(lambda: not copy.trainings())
    assert len(copy.starts()) <= 2
