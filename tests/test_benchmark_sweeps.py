"""benchmark.sh beside an undisturbed sweep: what a complete one says, and that a disturbed one loses nothing."""

import contextlib
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
    assert rows["Hopper-v4", "clip"] == rows["Hopper-v4", "klip"] != rows[GATED, "clip"] == rows[GATED, "klip"]
    result = undisturbed.results()["Hopper-v4__ppo_clip_continuous__0"]
    expected = [f"{result['final_return']:.1f}", "1", "of", "1", result["params_sha256"][:4]]
    assert rows["Hopper-v4", "clip"] == expected
    assert "2 of 2 pairs identical to the bit (clip = klip)" in undisturbed.output
    assert "4/4, about 0 h 0 min left: " in undisturbed.output and "4 runs: 4 done" in undisturbed.output
    assert set(undisturbed.starts().values()) == {1} and len(undisturbed.starts()) == 4


def test_a_sweep_ends_with_pictures_and_a_complete_one_is_left_alone(copy, undisturbed):
    """If the pictures fail, the table is there nevertheless."""
    shutil.copytree(undisturbed.runs, copy.runs)
    left_out = shutil.ignore_patterns("results", "*.png", "*.svg")
    shutil.copytree(ROOT / "plots", copy.folder / "plots", ignore=left_out, dirs_exist_ok=True)
    times = copy.times()
    code, output = copy.call(*PAIR)
    assert code == 0 and "2 runs: 2 done" in output, output
    assert (copy.runs / "plots" / "learning_curves.png").exists() and not list((copy.folder / "plots").rglob("*.png"))
    (copy.folder / "plots" / "make.py").write_text("raise SystemExit('error: no pictures')")
    code, output = copy.call(*PAIR)
    assert code == 1 and "error: no pictures\n" in output and "2 runs: 2 done" in output
    assert copy.times() == times and copy.starts() == undisturbed.starts()


def test_a_complete_run_with_other_arguments_is_not_the_one_asked_for(undisturbed):
    times = undisturbed.times()
    code, output = undisturbed.call(*SHORT, "--total-timesteps", "4096")
    assert code == 1 and "4 runs: 4 differs" in output and " 0 of 1 " in output
    assert "total_timesteps 2048, not 4096" in output and "move runs/Hopper-v4__ppo_clip_continuous__0 away" in output
    assert undisturbed.times() == times and set(undisturbed.starts().values()) == {1}
    assert "4 runs: 4 done" in undisturbed.call(*SHORT, "--track", "--status")[1]


def test_what_is_not_the_same_any_more_is_noticed(copy, undisturbed):
    """A run's other bits, and a script's other text."""
    shutil.copytree(undisturbed.runs, copy.runs)
    result = copy.runs / KLIP / "result.json"
    result.write_text(result.read_text().replace(copy.hashes()[KLIP], "another"))
    code, output = copy.call(*PAIR, "--status")
    assert code == 1 and "2 done" in output and "0 of 1 pairs identical" in output and "NOT IDENTICAL" in output
    script = copy.folder / "ppo_klip_cartpole.py"
    script.write_text(script.read_text() + "# a comment\n")
    code, output = copy.call(*PAIR, "--status")
    assert code == 1 and f"differs: {KLIP}: ppo_klip_cartpole.py has changed since: move runs/" in output


# That it loses nothing


def test_killed_at_random_it_ends_like_an_undisturbed_sweep(copy, undisturbed):
    """All processes, or the harness alone, whose workers end their runs while the next sweep begins, or a training. As
    long as the gate is shut no sweep ends, however fast the machine is."""
    copy.gate.touch()
    rng, done = random.Random(0), {}
    for victim in ("everything", "harness", "training"):
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
    assert aside and sum(copy.starts().values()) >= 4 + len(aside)


def test_two_sweeps_at_once_share_the_runs(copy, undisturbed):
    copy.gate.touch()
    sweeps = [copy.start(*PAIR, "--workers", "1") for _ in range(2)]
    wait_for(lambda: len(copy.trainings()) == 2)
    copy.gate.unlink()
    for sweep in sweeps:
        output = sweep.communicate(timeout=300)[0]
        assert sweep.returncode == 0 and "2 runs: 2 done" in output, output
    expected = {name: sha for name, sha in undisturbed.hashes().items() if GATED in name}
    assert copy.starts() == dict.fromkeys(expected, 1)
    assert copy.hashes() == expected
    assert not (copy.runs / "incomplete").exists()


@root
def test_a_full_disk_is_reported_and_resumed(copy, undisturbed):
    copy.runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", copy.runs], check=True)
    try:
        (copy.runs / "filler").write_bytes(bytes(1024 * 1024 - 64 * 1024))  # a run needs 48 KiB
        code, output = copy.call(*PAIR, "--workers", "1")
        done = copy.times()
        assert code == 1 and f"2 runs: {len(done)} done, {2 - len(done)} failed" in output, output
        *_, summary = output.partition("2 runs: ")
        assert "No space left" in summary
        (copy.runs / "filler").unlink()
        code, output = copy.call(*PAIR)
        assert code == 0, output
        assert done.items() <= copy.times().items()
        expected = undisturbed.hashes()
        assert copy.hashes() == {name: expected[name] for name in (CLIP, KLIP)}
    finally:
        subprocess.run(["umount", copy.runs], check=True)


def test_damaged_results_are_named_and_left_alone(copy, undisturbed):
    shutil.copytree(undisturbed.runs, copy.runs)
    one, *others = sorted(copy.runs.glob("*/result.json"))
    contents = ("{}", one.read_text()[:100])
    for path, content in zip(others, contents, strict=False):
        path.write_text(content)
    others[-1].unlink()
    others[-1].mkdir()
    code, output = copy.call(*SHORT)
    assert code == 1 and "4 runs: 3 damaged, 1 done" in output and "Traceback" not in output, output
    *_, summary = output.partition("4 runs: ")
    for path in others:
        assert f"damaged: {path.parent.name}: " in summary
    assert [path.read_text() for path in others[:-1]] == list(contents)
    assert copy.starts() == undisturbed.starts()
