"""tools/same_bits.py joins two versions of a script if, and only if, they train to the same bits."""

import csv
import re
import shutil
import subprocess
import sys

import pytest
import report
import same_bits
from helpers import ROOT

CASES = {
    "one": "--num-envs 1 --num-steps 128 --num-minibatches 2 --total-timesteps 512",
    "three": "--num-envs 3 --num-steps 64 --num-minibatches 3 --total-timesteps 384",
}
CLIP, KLIP, PHI, SCALAR = (f"ppo_{form}_cartpole.py" for form in ("clip", "klip", "phi", "kl_scalar"))


class Repository:
    """A git repository with the four scripts for discrete actions."""

    def __init__(self, folder):
        self.folder = folder
        for script in (CLIP, KLIP, PHI, SCALAR):
            shutil.copy(ROOT / script, folder)
        self.git("init", "--quiet")
        self.joins = folder / report.SAME_TRAINING.relative_to(ROOT)

    def git(self, *arguments):
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        done = subprocess.run(["git", "-C", self.folder, *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self):
        """Commit everything; returns the name of the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a version")
        return self.git("rev-parse", "HEAD")

    def edit(self, script, pattern, replacement):
        """Replace what the pattern matches in a script; it must match."""
        path = self.folder / script
        text, count = re.subn(pattern, replacement, path.read_text(encoding="utf-8"))
        assert count, f"{script} has no {pattern}"
        path.write_text(text, encoding="utf-8")

    def compare(self, commit, *scripts):
        """Run same_bits.py; returns its exit code."""
        arguments = [commit, "--workers", "2", *(("--scripts", *scripts) if scripts else ())]
        return same_bits.main(arguments, root=self.folder, cases_of=lambda unit: CASES)

    def rows(self):
        """The rows of same_training.csv by script."""
        with self.joins.open(newline="", encoding="utf-8") as file:
            return {row["script"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Commits: the scripts as they are, and with a change in two of them."""
    repository = Repository(tmp_path_factory.mktemp("same bits"))
    repository.first = repository.commit()
    repository.edit(
        KLIP,
        r"rewards \+ gamma \* next_values \* ~terminations - values",
        "gamma * next_values * ~terminations - values + rewards",
    )
    repository.edit(SCALAR, r"\bclipped_values\b", "values_near_the_old")
    repository.edit(SCALAR, r"\Z", "# A comment changes nothing.\n")
    repository.second = repository.commit()
    return repository


@pytest.fixture(scope="module")
def compared(repository, tmp_path_factory):
    """What was printed of comparing the two commits, a line a script, with the exit code."""
    output = tmp_path_factory.mktemp("output") / "text"
    with output.open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        code = repository.compare(repository.first)
    lines = output.read_text().splitlines()
    return {"code": code, **{line.split()[0]: line for line in lines}}


def test_another_order_of_two_sums_is_another_version(repository, compared):
    assert compared["code"] == 1
    for group in ("1 environment", "several environments"):
        found = rf"{group}: 1 of 1 runs differ, first '\w+': [\w/]+ at step \d+: \S+ before and \S+ at step \d+ now"
        assert re.search(found, compared[KLIP]), compared[KLIP]
    assert KLIP not in repository.rows()


def test_a_new_name_or_comment_is_the_same_version(repository, compared):
    expected = "1 environment: all 1 runs agree; several environments: all 1 runs agree"
    assert compared[SCALAR] == f"{SCALAR} (cartpole): {expected}"
    (row,) = repository.rows().values()
    assert (row["script"], row["num_envs"], row["runs"]) == (SCALAR, "any", "2")
    assert (row["old_commit"], row["new_commit"]) == (repository.first, repository.second)
    assert len(row["new_script_sha256"]) == 64 and row["new_script_sha256"] != row["old_script_sha256"]
    assert re.search(r"numpy=\S+ python=\S+ torch=\S+", row["versions"])


def test_a_change_for_several_environments_only_and_the_chain(repository, compared, capsys):
    first = repository.rows()[SCALAR]
    environments = "        if self.num_envs > 1:\n            self.gamma = 0.9\n"
    repository.edit(SCALAR, r"def __post_init__\(self\):\n", rf"\g<0>{environments}")
    third = repository.commit()
    assert repository.compare(repository.second, SCALAR) == 0
    assert "1 environment: all 1 runs agree; several environments: 1 of 1 runs differ" in capsys.readouterr().out
    second = repository.rows()[SCALAR]
    assert (second["num_envs"], second["runs"], second["new_commit"]) == ("1", "1", third)
    assert second["old_script_sha256"] == first["new_script_sha256"]
    ends = first["old_script_sha256"], second["new_script_sha256"]
    joins = report.read_joins(repository.joins)
    assert report.same_version(*ends, 1, joins) and not report.same_version(*ends, 3, joins)


def test_a_failing_training_is_a_difference(repository, compared, capsys):
    """And of scripts that are not committed nothing is written, whatever agrees."""
    repository.edit(CLIP, r"\Z", "\nraise RuntimeError('broken')\n")
    repository.edit(PHI, r"\Z", "\n# A comment, and a name of no use.\nunused = 1\n")
    before = repository.joins.read_bytes()
    assert repository.compare("HEAD", CLIP, PHI) == 1
    output = capsys.readouterr().out
    assert "nothing will be written" in output
    assert "failed now: RuntimeError: broken" in output
    assert f"{PHI} (cartpole): 1 environment: all 1 runs agree" in output
    assert repository.joins.read_bytes() == before
