"""tools/sweep.py: what it makes of results."""

import json
import os
import shutil
from pathlib import Path

import pytest
import sweep
from helpers import ROOT

import ppo_clip_cartpole


def run_of(variant="clip", seed=0, folder="", more=()):
    name = f"{folder}CartPole-v1__ppo_{variant}_cartpole__{seed}"
    arguments = ("--num-steps", "32", "--num-minibatches", "2", "--env-id", "CartPole-v1", "--seed", str(seed))
    arguments += ("--total-timesteps", "256", "--run-name", name, *more)
    return sweep.Run(name, "CartPole-v1", variant, str(seed), f"ppo_{variant}_cartpole.py", arguments)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The result.json of a short run."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("trained"))
    try:
        ppo_clip_cartpole.train(sweep.asked(run_of()))
        return json.loads(Path("runs", run_of().name, "result.json").read_text())
    finally:
        os.chdir(before)


def write(base, run, content):
    (base / run.name).mkdir(parents=True)
    shutil.copy(ROOT / run.script, base / run.name)
    (base / run.name / "result.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_diverged_run_is_complete_and_counted(tmp_path, result):
    runs = [run_of(seed=seed) for seed in range(5)]
    for run in runs:
        end = {"diverged_at": 128, "final_return": None} if run.seed == "3" else {}
        args = result["args"] | {"seed": int(run.seed), "run_name": run.name}
        write(tmp_path, run, result | end | {"args": args})
    states = {run: sweep.inspect(run, tmp_path) for run in runs}
    assert [state.word for state in states.values()] == ["done", "done", "done", "diverged", "done"]
    row = sweep.summary(states)[1]
    assert f"{result['final_return']:.1f} ± 0.0" in row and "4 of 5, 1 diverged" in row
    assert sweep.remarks(states, ["diverged"])[0].startswith(f"diverged: {runs[3].name}: at step 128")


def test_a_script_that_is_no_longer_the_copy_in_the_folder_is_named(tmp_path, result):
    write(tmp_path, run_of(), result)
    assert sweep.inspect(run_of(), tmp_path).word == "done"
    copy = tmp_path / run_of().name / run_of().script
    copy.open("a").write("# another text\n")
    state = sweep.inspect(run_of(), tmp_path)
    assert state.word == "differs" and state.remark.startswith("ppo_clip_cartpole.py has changed since: move ")
    copy.unlink()
    assert sweep.inspect(run_of(), tmp_path).word == "differs"


@pytest.mark.parametrize(
    "log, word, remark",
    [
        ("ValueError: x\nbye\n=== exit code 1\n", "failed", "exit code 1, log {log}\n  ValueError: x"),
        ("new\n=== exit code 137\n", "failed", "exit code 137, log {log}\n  new"),
        ("step 1\n", "missing", ""),
    ],
)
def test_a_log_says_what_has_become_of_a_run(tmp_path, log, word, remark):
    path = tmp_path / "logs" / f"{run_of().name}.log"
    path.parent.mkdir()
    before = "=== 2026-01-01 00:00:00 python\nerror: old\n=== exit code 1\n"
    path.write_text(before + "=== 2026-01-02 00:00:00 python\n" + log)
    assert sweep.inspect(run_of(), tmp_path) == (word, remark.format(log=path), None)


def test_the_identity_is_counted_within_a_setting(result):
    def state(sha):
        return sweep.State("done", result=result | {"params_sha256": sha})

    states = {run_of(variant): state("a") for variant in ("clip", "klip", "phi")}
    states |= {run_of("clip", folder="beta=1/"): state("b"), run_of("klip", folder="beta=1/"): state("c")}
    states |= {run_of("clip", 1): state("d")}
    for other in states.values():
        other.result["args"] = result["args"] | {"num_steps": 24}
    counts, parted = sweep.identity(states)
    assert counts[0] == "1 of 1 triples identical to the bit (clip = klip = phi)"
    assert counts[1] == "0 of 1 pairs identical to the bit (clip = klip)" and "NOT IDENTICAL" in counts[2]
    power = "    a minibatch of 48 is not a power of two: klip may drift by rounding"
    assert parted == ["  CartPole-v1 seed 0: clip b, klip c", "  " + power]


def test_versions_that_were_not_tried_are_named(monkeypatch):
    """As in a Python of the user's own; a build of the same version is no other one."""
    installed = {"torch": "2.99.0", "numpy": f"{sweep.version('numpy')}+mine"}
    as_it_is = sweep.version
    monkeypatch.setattr(sweep, "version", lambda name: installed.get(name) or as_it_is(name))
    named = [line for line in sweep.untried() if line.startswith(("torch", "numpy"))]
    assert len(named) == 1 and named[0].startswith("torch 2.99.0 (==")


def test_what_was_installed_by_the_requirements_was_tried():
    if sweep.version("torch").partition("+")[0] not in (ROOT / "requirements.txt").read_text():
        pytest.skip("another torch is installed")
    assert sweep.untried() == []
