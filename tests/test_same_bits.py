"""tools/same_bits.py refuses what changes the bits of a training, and nothing else."""

import csv
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
import same_bits
from helpers import ROOT, load

CLIP, KLIP, PHI, SCALAR = (f"ppo_{form}_cartpole.py" for form in ("clip", "klip", "phi", "kl_scalar"))
# Another constant, another random stream, another order of two sums, and nothing that matters.
CHANGES = {
    CLIP: ("grad_norm + 1e-6", "grad_norm + 2e-6"),
    PHI: ("shuffle_rng.permutation(", "noise_rng.permutation("),
    KLIP: (
        "rewards + gamma * next_values * ~terminations - values",
        "gamma * next_values * ~terminations - values + rewards",
    ),
    SCALAR: ("def gae(", "# A comment and an unused name.\nunused = 1\n\n\ndef gae("),
}


class Repository:
    """A git repository with the tool and four scripts."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "tools").mkdir()
        for name in (*CHANGES, "tools/same_bits.py", "tools/in_turn.py"):
            shutil.copy(ROOT / name, folder / name)
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a version")

    def git(self, *arguments):
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        subprocess.run(["git", "-C", self.folder, *who, *arguments], check=True)

    def edit(self, script, old, new):
        """Replace what stands once in a script."""
        path = self.folder / script
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{script}: {old}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def compare(self, *arguments):
        """Compare the last commit with what is there now; returns the exit code and the printed lines."""
        command = [sys.executable, self.folder / "tools/same_bits.py", "HEAD", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def test_another_constant_random_stream_or_order_of_two_sums_is_refused(repository):
    for script, change in CHANGES.items():
        repository.edit(script, *change)
    table = repository.folder / "compared.csv"
    code, lines = repository.compare("--only=--save-model", "--out", table)
    assert code == 1
    for script, line in zip((CLIP, KLIP, PHI), lines, strict=False):
        assert line.startswith(f"{script} --env-id CartPole-v1 ")
        assert " at step 256: " in line
    assert lines[3:] == ["1 of 4"]
    with table.open(newline="", encoding="utf-8") as file:
        rows = {row["script"]: row for row in csv.DictReader(file)}
    assert {script for script in rows if rows[script]["same"] == "True"} == {SCALAR}
    assert len(rows[SCALAR]["params_sha256"]) == 64
    assert rows[SCALAR]["old_arguments"] == rows[SCALAR]["arguments"]
    assert not list((repository.folder / ".git" / "worktrees").glob("*"))


def test_a_training_that_fails_is_a_difference(repository):
    repository.edit(PHI, "def gae(", "raise RuntimeError('broken')\n\n\ndef gae(")
    (repository.folder / KLIP).rename(repository.folder / "ppo_mine_cartpole.py")
    code, lines = repository.compare("--only", same_bits.DEFAULTS["cartpole"])
    assert code == 1
    assert lines == [
        f"{KLIP}: gone since HEAD",
        "ppo_mine_cartpole.py: new since HEAD",
        f"{PHI} {same_bits.DEFAULTS['cartpole']}: failed now: RuntimeError: broken",
        "0 of 1",
    ]


def test_no_change_is_said(repository):
    assert repository.compare() == (0, ["no script that has changed since HEAD is to be compared"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: OLD_COMMIT"),
        (["nonsense"], "fatal: invalid reference: nonsense"),
        (["HEAD", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["HEAD", "--out", "nowhere/compared.csv"], "--out nowhere/compared.csv: there is no such folder"),
    ],
)
def test_wrong_use_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        same_bits.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_a_file_of_betas_changes_with_the_loop_and_with_klip():
    names = ("betas/loop.py", "betas/spo.py", "ppo_klip_cartpole.py", "ppo_phi_cartpole.py")
    scripts = dict.fromkeys(names, "text")

    def changed(name):
        return {comparison[0] for comparison in same_bits.comparisons(scripts, scripts | {name: "another text"})}

    assert changed("ppo_phi_cartpole.py") == {"ppo_phi_cartpole.py"}
    assert changed("ppo_klip_cartpole.py") == {"ppo_klip_cartpole.py", "betas/spo.py"}
    assert changed("betas/loop.py") == changed("betas/spo.py") == {"betas/spo.py"}
    assert changed("betas/other.py") == set()


def test_an_eps_of_a_file_s_own_became_the_clip_coef():
    old = dict.fromkeys(("betas/ano.py", "betas/clip_eps.py", "betas/spo.py"), same_bits.HAS_EPS)
    clips = dict.fromkeys(("ppo_clip_continuous.py", "ppo_clip_cartpole.py"), "")
    new = {"betas/ano.py": f"{same_bits.HAS_EPS} still", "betas/spo.py": ""} | clips
    translated = {
        (old_script, script)
        for old_script, old_arguments, script, arguments in same_bits.comparisons(old, new)
        if old_arguments != arguments
    }
    assert translated == {("betas/spo.py", "betas/spo.py"), *(("betas/clip_eps.py", script) for script in clips)}


@pytest.mark.parametrize("kind", ["continuous", "cartpole"])
def test_every_argument_that_decides_bits_is_tried(kind):
    others = {"exp_name", "run_name", "cuda", "track", "wandb_project_name", "wandb_entity", "capture_video"}
    args = load(ROOT / f"ppo_kl_scalar_{kind}.py").Args
    old = {f"ppo_kl_scalar_{kind}.py": "vloss_clip_coef"}
    found = same_bits.comparisons(old, dict.fromkeys(old, "changed"))
    words = {word.removeprefix("--no-").removeprefix("--") for _, arguments, *_ in found for word in arguments.split()}
    decisive = {field.name.replace("_", "-") for field in fields(args) if field.name not in others}
    assert decisive <= words
