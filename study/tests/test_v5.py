"""The study of the v5 tasks: its plan is that of its protocol, and its data are whole blocks."""

import shutil

import add
import dataset
import machine
import numpy as np
import pandas as pd
import pictures
import pytest
import questions
from helpers import ROOT, run_in_turn

V5 = ROOT / "study" / "v5"
TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5")
SEEDS = {
    **dict.fromkeys(("clip", "clip --clip-coef 0.25", "clip --clip-coef 0.3", "bpo"), range(100, 115)),
    **dict.fromkeys(("kl_fixed", "kl_adaptive"), range(100, 105)),
    **dict.fromkeys(("klip", "phi"), range(100, 101)),
}


def test_the_plan_is_that_of_the_protocol():
    plan = pd.read_csv(V5 / "plan.csv")
    planned = set(zip(plan["env_id"], plan["setting"], plan["seed"], strict=True))
    assert planned == {(task, setting, seed) for task in TASKS for setting, seeds in SEEDS.items() for seed in seeds}
    assert len(plan) == plan["run"].nunique() == plan["command"].nunique() == 360
    for row in plan.itertuples():
        words = row.command.split()
        assert words[1:5] == ["--env-id", row.env_id, "--seed", str(row.seed)]
        assert row.command.count("--vloss-clip-coef 0.2") == 1
        epsilon = words[words.index("--clip-coef") + 1] if "--clip-coef" in words else ""
        assert epsilon == (row.setting.split()[-1] if "--clip-coef" in row.setting else "")
    # A block is trained without a run of another in between.
    blocks = plan["env_id"] + plan["seed"].astype(str)
    assert (blocks != blocks.shift()).sum() == blocks.nunique() == 75


@pytest.mark.skipif(not (V5 / "runs.csv").exists(), reason="no run of the protocol is there yet")
def test_the_data_are_whole_blocks_of_one_machine():
    plan = pd.read_csv(V5 / "plan.csv", dtype=str)
    runs, curves = dataset.load(V5)
    assert set(curves["run"]) == set(runs["run"])
    rows = plan.merge(runs, on=["run", "env_id", "seed", "setting", "command"], validate="one_to_one")
    assert len(rows) == len(runs)
    for (env_id, seed), block in rows.groupby(["env_id", "seed"]):
        planned = plan[(plan["env_id"] == env_id) & (plan["seed"] == seed)]
        assert set(block["run"]) == set(planned["run"])
        assert (block[["versions", "code", "processor", "variables"]].nunique() == 1).all()
        ended = pd.to_datetime(block["ended"])
        assert ended.max() - ended.min() <= pd.Timedelta(days=1)
        forms = block[block["setting"].isin(("clip", "klip", "phi"))]
        assert forms["params_sha256"].nunique() == 1


def runs_of(better):
    """A run of every planned setting, with returns at random, but those of some settings far above."""
    plan = pd.read_csv(V5 / "plan.csv")
    returns = np.random.default_rng(0).normal(size=len(plan)) + 10 * plan["setting"].isin(better)
    return plan.assign(final_return=returns, diverged=False)


def answers_of(runs):
    return [line.partition("** ")[2] for line in questions.answers(runs).splitlines()]


def test_a_question_is_answered_when_all_its_runs_are_there():
    runs = runs_of(["clip", "clip --clip-coef 0.25", "bpo"])
    said = answers_of(runs)
    assert [line.partition(":")[0] for line in said] == ["Yes", "Yes", "Not shown", "Not shown", "Yes"]
    assert "is 0.000 [0.000, 0.000] (97.5 %)" in said[0] and "(95 %)" in said[2]
    assert questions.returns(runs, {"clip": {"Ant-v4": "2 ± 1 (5)"}}).count("2 ± 1 (5)") == 1
    without = runs[(runs["setting"] != "bpo") | (runs["seed"] != 107)]
    said = answers_of(without)
    assert [line.partition(":")[0] for line in said[:3]] == ["Yes", "Yes", "Not shown"]
    assert said[3:] == ["Not answered yet: 5 of its runs are missing."] * 2
    assert "|" not in questions.returns(without, {})


def test_the_picture_has_the_questions_in_their_order():
    (ax,) = pictures.v5_chances(runs_of(["clip --clip-coef 0.25", "bpo"])).axes
    labels = [label.get_text().replace("\n", " ") for label in ax.get_yticklabels()]
    assert labels[2:] == ["clip, ε = 0.25 over clip", "bpo over clip", "bpo over clip, ε = 0.3"]
    overall = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "d"]
    assert overall[2:] == [1, 1, 1] and max(overall[:2]) < 1
    of_tasks = [line.get_xdata()[0] for line in ax.lines if line.get_marker() in "os^vP"]
    assert np.reshape(of_tasks, (5, 5)).mean(1) == pytest.approx(overall)


def test_a_run_that_diverged_is_below_all_others():
    runs = runs_of(["bpo"])
    diverged = (runs["setting"] == "bpo") & (runs["seed"] < 108)
    runs.loc[diverged, ["final_return", "diverged"]] = [np.nan, True]
    question = questions.QUESTIONS[3]
    assert questions.improvement(runs, question)[0] == pytest.approx(7 / 15)
    both = diverged | (runs["setting"] == "clip")
    runs.loc[both, "final_return"] = np.nan
    assert questions.improvement(runs, question)[0] == pytest.approx((7 + 8 / 2) / 15)


NAMES = {"a": ("ppo_clip_cartpole", "7"), "b": ("betas/bpo", "7"), "c": ("ppo_clip_cartpole", "8")}


@pytest.fixture(scope="module")
def runs_of_two_blocks(tmp_path_factory):
    """A folder with the runs of NAMES."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = {seed: ("--env-id", "CartPole-v1", "--seed", seed, "--total-timesteps", "512") for seed in ("7", "8")}
    commands = {name: (script, *arguments[seed], "--run-name", name) for name, (script, seed) in NAMES.items()}
    for name, run in run_in_turn(folder, commands).items():
        shutil.copytree(run.folder, folder / "runs" / name)
    return folder / "runs"


@pytest.fixture
def trained(runs_of_two_blocks, tmp_path):
    """A folder with a plan of two blocks, of which one run, d, was not trained; and their runs."""
    runs = shutil.copytree(runs_of_two_blocks, tmp_path / "runs")
    folder = tmp_path / "protocol"
    folder.mkdir()
    plan = [(name, "CartPole-v1", seed, name, f"{script}.py --seed {seed}") for name, (script, seed) in NAMES.items()]
    plan.append(("d", "CartPole-v1", "8", "d", "betas/bpo.py --seed 8"))
    pd.DataFrame(plan, columns=["run", "env_id", "seed", "setting", "command"]).to_csv(folder / "plan.csv", index=False)
    return folder, runs


def test_whole_blocks_are_added_once(trained, monkeypatch, capsys):
    folder, runs = trained
    monkeypatch.setattr(add, "text_at", lambda _, path: (ROOT / path).read_bytes())
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    add.main(folder, runs, "abc1234")
    assert capsys.readouterr().out.splitlines() == [
        "CartPole-v1, seed 7: 2 runs added",
        "CartPole-v1, seed 8: not added: 1 of 2 runs are missing: d",
    ]
    rows, curves = dataset.load(folder)
    assert list(rows["run"]) == ["a", "b"] and set(rows["code"]) == {"abc1234"}
    assert set(rows["processor"]) == {machine.processor()} and "MKL_CBWR=COMPATIBLE" in rows["variables"][0]
    assert list(curves["global_step"]) == [512, 512] and (curves["approx_kl"] > 0).all()
    shutil.copytree(runs / "c", runs / "d")
    before = (folder / "CartPole-v1.csv.xz").read_bytes()
    add.main(folder, runs, "abc1234")
    assert capsys.readouterr().out == "CartPole-v1, seed 8: 2 runs added\n"
    assert list(dataset.load(folder)[0]["run"]) == ["a", "b", "c", "d"]
    assert (folder / "CartPole-v1.csv.xz").read_bytes() != before
    add.main(folder, runs, "abc1234")
    assert capsys.readouterr().out == ""


def test_a_block_of_two_days_or_of_other_scripts_is_refused(trained, monkeypatch, capsys):
    folder, runs = trained
    assert b"torch" in add.text_at("HEAD", "requirements.txt")
    monkeypatch.setattr(add, "text_at", lambda _, path: (ROOT / path).read_bytes())

    def two_days_ago(log, row, as_it_is=add.collect.run_curve):
        curve, ended = as_it_is(log, row)
        return curve, "2026-01-01T00:00:00+00:00" if row["run"] == "b" else ended

    monkeypatch.setattr(add.collect, "run_curve", two_days_ago)
    add.main(folder, runs, "abc1234")
    assert "seed 7: not added: its runs ended more than a day apart" in capsys.readouterr().out
    monkeypatch.setattr(add, "text_at", lambda *_: b"other")
    add.main(folder, runs, "abc1234")
    assert "was trained by another ppo_clip_cartpole.py than that of abc1234" in capsys.readouterr().out
    assert not (folder / "runs.csv").exists()
