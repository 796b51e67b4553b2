"""benchmark.sh beside an undisturbed sweep: what a complete one says, and that a disturbed one loses nothing."""

import contextlib
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from benchmark_helpers import CLIP, GATED, KLIP, PAIR, SHORT, Copy, kill_session, wait_for
from helpers import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds and kills processes through /proc")
root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A copy with a sweep that nothing disturbed, and what the sweep said."""
    copy = Copy(tmp_path_factory.mktemp("undisturbed"))
    copy.code, copy.output = copy.call(*SHORT, OMP_NUM_THREADS="2")
    return copy


# What it tells


def test_a_sweep_ends_with_a_table_and_the_identity(undisturbed):
    assert undisturbed.code == 0, undisturbed.output
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in undisturbed.output.splitlines() if "1 of 1 " in line}
    hopper, gated = ([rows[task, form] for form in ("clip", "klip", "phi")] for task in ("Hopper-v4", GATED))
    assert hopper[0] == hopper[1] == hopper[2] != gated[0] == gated[1] == gated[2]
    result = undisturbed.results()["Hopper-v4__ppo_clip_continuous__0"]
    assert hopper[0] == [f"{result['final_return']:.1f}", "1", "of", "1", result["params_sha256"][:4]]
    assert "2 of 2 triples identical to the bit (clip = klip = phi)" in undisturbed.output
    assert "6/6, about 0 h 0 min left: " in undisturbed.output and "6 runs: 6 done" in undisturbed.output
    assert set(undisturbed.starts().values()) == {1} and len(undisturbed.starts()) == 6


def test_a_sweep_ends_with_pictures(copy, undisturbed):
    shutil.copytree(undisturbed.runs, copy.runs)
    left_out = shutil.ignore_patterns("results", "*.png", "*.svg")
    shutil.copytree(ROOT / "plots", copy.folder / "plots", ignore=left_out, dirs_exist_ok=True)
    code, output = copy.call(*SHORT)
    assert code == 0, output
    assert (copy.runs / "plots" / "learning_curves.png").exists() and not list((copy.folder / "plots").rglob("*.png"))


def test_pictures_that_fail_do_not_hide_the_table(copy, undisturbed):
    shutil.copytree(undisturbed.runs, copy.runs)
    (copy.folder / "plots" / "make.py").write_text("raise SystemExit('error: no pictures')")
    code, output = copy.call(*SHORT)
    assert code == 1 and "error: no pictures\n" in output and "6 runs: 6 done" in output


def test_a_complete_sweep_is_left_alone(undisturbed):
    times = undisturbed.times()
    code, output = undisturbed.call(*SHORT)
    assert code == 0 and "6 runs: 6 done" in output
    assert undisturbed.times() == times and set(undisturbed.starts().values()) == {1}


def test_a_complete_run_with_other_arguments_is_not_the_one_asked_for(undisturbed):
    times = undisturbed.times()
    code, output = undisturbed.call(*SHORT, "--total-timesteps", "4096")
    assert code == 1 and "6 runs: 6 differs" in output and " 0 of 1 " in output
    assert "total_timesteps 2048, not 4096" in output and "move runs/Hopper-v4__ppo_clip_continuous__0 away" in output
    code, output = undisturbed.call(*SHORT[:-2], "--script-args", "--no-compile --learning-rate 1e-3", "--status")
    assert code == 1 and "__0: learning_rate 0.0003, not 0.001: move runs/Hopper" in output
    assert undisturbed.times() == times and set(undisturbed.starts().values()) == {1}
    assert "20 missing" in undisturbed.call("quick", "--status")[1]


def test_a_change_of_a_script_is_noticed_and_one_of_a_comment_is_not(copy, undisturbed):
    shutil.copytree(undisturbed.runs, copy.runs)
    script = copy.folder / "ppo_klip_cartpole.py"
    script.write_text(script.read_text() + "# a comment\n")
    code, output = copy.call(*SHORT, "--status")
    assert code == 0 and "6 done" in output
    script.write_text(script.read_text() + "pass\n")
    code, output = copy.call(*SHORT, "--status")
    assert code == 1 and f"differs: {KLIP}: ppo_klip_cartpole.py has changed since: move runs/" in output


def test_tracking_is_no_other_training(undisturbed):
    code, output = undisturbed.call(*SHORT, "--status", "--track", "--wandb-project-name", "other")
    assert code == 0 and "6 done" in output


# That it loses nothing


def test_killed_at_random_it_ends_like_an_undisturbed_sweep(copy, undisturbed):
    """All processes, or the harness alone, whose workers end their runs while the next sweep begins, or a training. As
    long as the gate is shut no sweep ends, however fast the machine is."""
    copy.gate.touch()
    rng, done = random.Random(0), {}
    for victim in ("everything", "harness", "training", "everything"):
        process = copy.start(*SHORT, "--workers", "2")
        training = wait_for(lambda: [pid for name, pid in copy.trainings().items() if (copy.runs / name).exists()])[0]
        time.sleep(rng.uniform(0, 2))
        with contextlib.suppress(ProcessLookupError):  # the training may have ended
            os.kill({"harness": process.pid}.get(victim, training), signal.SIGKILL)
        if victim != "harness":
            time.sleep(rng.uniform(0, 1) if victim == "training" else 0)
            kill_session(process.pid)
        process.wait()
        process.stdout.close()
        times = copy.times()
        assert done.items() <= times.items()
        done = times
    copy.gate.unlink()
    code, output = copy.call(*SHORT)
    assert code == 0, output
    assert done.items() <= copy.times().items()
    assert copy.hashes() == undisturbed.hashes()
    aside = [path.name for path in (copy.runs / "incomplete").iterdir()]
    assert aside and sum(copy.starts().values()) >= 6 + len(aside)


def test_two_sweeps_at_once_share_the_runs(copy, undisturbed):
    copy.gate.touch()
    sweeps = [copy.start(*PAIR, "--variants", "clip,klip,phi", "--workers", "1") for _ in range(2)]
    wait_for(lambda: len(copy.trainings()) == 2)
    copy.gate.unlink()
    for sweep in sweeps:
        output = sweep.communicate(timeout=120)[0]
        assert sweep.returncode == 0 and "3 runs: 3 done" in output, output
    expected = {name: sha for name, sha in undisturbed.hashes().items() if GATED in name}
    assert copy.starts() == dict.fromkeys(expected, 1)
    assert copy.hashes() == expected
    assert not (copy.runs / "incomplete").exists()


@pytest.fixture
def small_disk(copy):
    """A disk of 1 MiB below the copy's runs/."""
    copy.runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", copy.runs], check=True)
    yield copy.runs
    subprocess.run(["umount", copy.runs], check=True)


@root
def test_a_full_disk_is_reported_and_resumed(copy, small_disk, undisturbed):
    (small_disk / "filler").write_bytes(bytes(1024 * 1024 - 24 * 1024))  # some runs of 16 KiB each
    code, output = copy.call(*PAIR[:-3], "0,1", *PAIR[-2:], "--workers", "1")
    done = copy.times()
    assert code == 1 and f"4 runs: {len(done)} done, {4 - len(done)} failed" in output, output
    *_, summary = output.partition("4 runs: ")
    assert len(done) < 4 and "No space left" in summary
    (small_disk / "filler").unlink()
    code, output = copy.call(*PAIR)
    assert code == 0, output
    assert done.items() <= copy.times().items()
    expected = undisturbed.hashes()
    assert {name: copy.hashes()[name] for name in (CLIP, KLIP)} == {name: expected[name] for name in (CLIP, KLIP)}


@root
def test_no_half_written_result_is_left_on_a_full_disk(copy, small_disk, undisturbed):
    """There is room for all that the run writes before its result."""
    before = [undisturbed.runs / "logs" / f"{CLIP}.log", *(undisturbed.runs / CLIP).glob("events*")]
    pages = sum(-(-path.stat().st_size // 4096) for path in before)
    (small_disk / "filler").write_bytes(bytes(1024 * 1024 - 4096 * pages))
    code, output = copy.call(*PAIR, "--variants", "clip")
    assert code == 1 and "1 runs: 1 failed" in output and "No space left" in output, output
    (events,) = (small_disk / CLIP).iterdir()
    assert events.name.startswith("events")


@root
def test_a_read_only_folder_is_said_to_be_one(copy, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, output = copy.call(*PAIR)
    *_, summary = output.partition("2 runs: ")
    assert code == 1 and summary.startswith("2 failed\n") and summary.count("Read-only file system") == 2, output


def test_damaged_results_are_named_and_left_alone(copy, undisturbed):
    shutil.copytree(undisturbed.runs, copy.runs)
    one, *others = sorted(copy.runs.glob("*/result.json"))
    contents = ("[]", "{}", "null", one.read_text()[:100])
    for path, content in zip(others, contents, strict=False):
        path.write_text(content)
    others[-1].unlink()
    others[-1].mkdir()
    code, output = copy.call(*SHORT)
    assert code == 1 and "6 runs: 5 damaged, 1 done" in output and "Traceback" not in output, output
    *_, summary = output.partition("6 runs: ")
    for path in others:
        assert f"damaged: {path.parent.name}: " in summary
    assert [path.read_text() for path in others[:-1]] == list(contents)
    assert copy.starts() == undisturbed.starts()


# Across machines


def collect(copy, undisturbed, **changes):
    """Writes a data set that has the run CLIP of another copy, with changes."""
    sys.path.insert(0, str(ROOT / "plots"))
    import collect

    result = undisturbed.results()[CLIP]
    row = {**collect.run_row(CLIP, result), "script_sha256": result["script_sha256"], **changes}
    with (copy.folder / "plots" / "results" / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)


def test_what_is_collected_is_passed_over_if_asked(copy, undisturbed):
    arguments = (*PAIR, "--script-args", "--save-model")
    collect(copy, undisturbed)
    assert "2 runs: 1 collected, 1 missing" in copy.call(*arguments, "--status", "--skip-collected")[1]
    assert "2 runs: 2 missing" in copy.call(*arguments, "--status")[1]
    commands = copy.call(*arguments, "--dry-run", "--skip-collected")[1]
    assert commands.count("\n") == 1 and KLIP in commands
    code, output = copy.call(*arguments, "--skip-collected")
    assert code == 0 and "2 runs: 1 collected, 1 done" in output and "0 of 1, 1 collected" in output, output
    assert list(copy.results()) == [KLIP]


def test_a_version_that_trains_to_the_same_bits_is_the_same(copy, undisturbed):
    """A run of the script as it was counts, collected or in runs/, once same_training.csv joins the two versions."""
    collect(copy, undisturbed)
    script = copy.folder / "ppo_clip_cartpole.py"
    script.write_text(script.read_text(encoding="utf-8") + "pass\n", encoding="utf-8")
    program = "import ppo_clip_cartpole as script; print(script.script_sha256(script.Args()))"
    command = [sys.executable, "-c", program]
    new = subprocess.run(command, cwd=copy.folder, capture_output=True, text=True, check=True).stdout.strip()
    old = undisturbed.results()[CLIP]["script_sha256"]
    arguments = (*PAIR, "--variants", "clip", "--status")
    assert "1 missing" in copy.call(*arguments, "--skip-collected")[1]
    joins = copy.folder / "plots" / "results" / "same_training.csv"
    columns = "script,old_script_sha256,new_script_sha256,num_envs"
    for num_envs, state in (("1", "missing"), ("any", "collected")):  # the run has four environments
        joins.write_text(f"{columns}\nppo_clip_cartpole.py,{old},{new},{num_envs}\n")
        assert f"1 runs: 1 {state}" in copy.call(*arguments, "--skip-collected")[1]
    shutil.copytree(undisturbed.runs / CLIP, copy.runs / CLIP)
    assert "1 runs: 1 done" in copy.call(*arguments)[1]
    joins.unlink()
    assert "1 runs: 1 differs" in copy.call(*arguments)[1]


@pytest.mark.parametrize("changes", [{"seed": "1"}, {"env_id": "CartPole-v1"}, {"script_sha256": "0"}, {"run": "x"}])
def test_what_is_collected_otherwise_is_missing(copy, undisturbed, changes):
    collect(copy, undisturbed, **changes)
    assert "1 missing" in copy.call(*PAIR, "--variants", "clip", "--status", "--skip-collected")[1]


def test_what_is_collected_with_other_arguments_or_of_an_unknown_script_is_missing(copy, undisturbed):
    collect(copy, undisturbed)
    arguments = (*PAIR, "--variants", "clip", "--status", "--skip-collected")
    assert "1 collected" in copy.call(*arguments)[1]
    assert "1 missing" in copy.call(*arguments, "--script-args", "--ent-coef 0.1")[1]
    path = copy.folder / "plots" / "results" / "runs.csv"
    path.write_text(path.read_text().replace("script_sha256", "other"))
    assert "1 missing" in copy.call(*arguments)[1]
