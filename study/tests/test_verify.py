"""Training a published run anew."""

import subprocess

import collect
import machine
import pytest
import verify
from helpers import ROOT, run_in_turn

COMMAND = "ppo_clip_cartpole.py --env-id CartPole-v1 --seed 3 --total-timesteps 512"


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    """The row of a run that is published, as it were."""
    script, *arguments = COMMAND.split()
    runs = run_in_turn(tmp_path_factory.mktemp("published"), {"a": (script.removesuffix(".py"), *arguments)})
    return collect.run_row("a", runs["a"].result) | {"command": COMMAND, "code": "HEAD"}


def said(rows, monkeypatch, capfd, names, **options):
    """The exit code of verify and what it printed."""
    monkeypatch.setattr(verify, "published", lambda: rows)
    with pytest.raises(SystemExit) as end:
        verify.main(names, **options)
    return end.value.code, capfd.readouterr().out


def test_equal_and_other_bits(row, monkeypatch, capfd):
    code, out = said({"a": row}, monkeypatch, capfd, ("a",), today=True)
    assert code == 0 and out.count(row["params_sha256"]) >= 2 and "    equal bits\n" in out
    last = out.splitlines()[-1]
    assert last.startswith(f"1 of 1 with the published bits, on {machine.processor()}, with ")
    other = row | {"params_sha256": "0" * 64, "versions": "torch=1.0"}
    broken = row | {"command": f"{COMMAND} --gamma 2"}
    code, out = said({"a": row, "b": other, "c": broken}, monkeypatch, capfd, ("b", "c"), today=True)
    assert code == 1 and "    other bits\n" in out and "published with torch=1.0\n" in out
    assert "    the training failed\n" in out and "\n0 of 2 with" in out


def test_a_name_that_is_not_published_and_a_commit_that_is_not_here(row, monkeypatch, capfd):
    code, _ = said({"a": row}, monkeypatch, capfd, ("b",))
    assert code == "error: b is not in the column run of study/data/runs.csv or study/v5/runs.csv"
    code, _ = said({"a": row | {"code": "0" * 40}}, monkeypatch, capfd, ("a",))
    assert "git fetch --unshallow" in code


def test_the_scripts_of_a_commit_are_there_while_they_are_used():
    def trees():
        return subprocess.check_output(["git", "-C", ROOT, "worktree", "list"], text=True).splitlines()

    before = trees()
    with verify.scripts_of("HEAD") as tree:
        assert (tree / "ppo_clip_continuous.py").exists() and len(trees()) == len(before) + 1
    assert not tree.exists() and trees() == before


def test_the_short_ones_are_published():
    assert set(verify.SHORT) <= set(verify.published())
