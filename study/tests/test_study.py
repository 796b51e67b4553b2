"""The study: what is committed follows from its data, which no script that is here can change."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import compare
import contest
import estimates
import numpy as np
import pandas as pd
import paper
import pictures
import pytest
import scipy.stats
import sections
import varied
from helpers import ROOT, environment
from plot_helpers import rows_of

STUDY = ROOT / "study"
STATISTIC = re.compile(r"\bp\s*[<>=≤≥]\s*[\d.]+|\[-?\d[\d.,]*, -?\d[\d.,]*\]")


@pytest.fixture(scope="module")
def study():
    """study/make.py as a module, and what it reads."""
    spec = importlib.util.spec_from_file_location("study_make", STUDY / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    rows, runs, every_run, curves = make.load()
    return SimpleNamespace(make=make, rows=rows, runs=runs, every_run=every_run, curves=curves)


def test_what_is_committed_follows_from_the_data_whatever_the_scripts_are(tmp_path):
    """In a clone with other defaults at the top and in betas/ nothing differs but a table that was changed."""
    clone = tmp_path / "clone"
    for name in ("plots", "study", "tools", "betas", "docs"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("ppo_*.py"), ROOT / "README.md", ROOT / "benchmark.sh"):
        shutil.copy(path, clone)
    changed = 0
    for path in (*clone.glob("ppo_*.py"), *clone.glob("betas/*.py")):
        text = path.read_text(encoding="utf-8")
        other = re.sub(r"(?<= = )0\.(?=\d+\b)", "0.1", text)  # 0.2 becomes 0.12
        changed += other != text
        path.write_text(other, encoding="utf-8")
    assert changed > 8
    tables = clone / "study" / "tables.md"
    tables.write_text(tables.read_text(encoding="utf-8").replace("0.607", "0.608"), encoding="utf-8")
    command = [sys.executable, clone / "study" / "make.py", "--check"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, "differs from the data: tables.md; run python study/make.py")


def test_every_argument_is_written_out(study):
    """Runs of one variant have the same arguments, and each row says what it is."""
    for _, of_variant in study.every_run.groupby("variant", observed=True):
        recorded = of_variant["args"].map(lambda text: tuple(sorted(re.findall(r'"(\w+)": ', text))))
        assert recorded.nunique() == 1
    assert (study.rows[["setting", "command", "code"]] != "").all(axis=None)
    assert len(study.rows) == 1100


def test_the_label_is_proved():
    """All script_sha256 of a variant and family are joined by same_training.csv, so that one label stands for them."""
    with (STUDY / "data" / "same_training.csv").open(newline="", encoding="utf-8") as file:
        joins = [(row["old_script_sha256"], row["new_script_sha256"]) for row in csv.DictReader(file)]
    runs = pd.read_csv(STUDY / "data" / "runs.csv", dtype=str)
    runs["script"] = runs["command"].str.split().str[0]
    for (script, exp_name), of_script in runs.groupby(["script", runs["args"].str.contains('"num_envs": 1,')]):
        group = {of_script["script_sha256"].iloc[0]}
        for _ in joins:
            group |= {sha for pair in joins for sha in pair if group & set(pair)}
        assert set(of_script["script_sha256"]) <= group, (script, exp_name)
    assert set(runs["code"]) == {"7f6bbee"}


def test_todays_scripts_train_to_the_bits_of_the_study():
    """What same_bits.py said of every script and file of betas/ that the study trained, compiled and not."""
    compared = pd.read_csv(STUDY / "data" / "same_bits.csv")
    assert compared["same"].all() and compared["old_commit"].str.startswith("7f6bbee").all()
    trained = pd.read_csv(STUDY / "data" / "runs.csv")["command"].str.split().str[0]
    assert set(compared["old_script"]) >= set(trained)
    compiled = compared["script"].str.contains("continuous") & ~compared["arguments"].str.contains("--no-compile")
    assert compiled.sum() >= 4 and (~compiled).sum() >= 4


def test_nothing_outside_imports_the_study():
    modules = {path.stem for path in STUDY.glob("*.py")} - {"make"}
    outside = list(ROOT.glob("*.py"))
    for name in ("betas", "plots", "tools", "tests"):
        outside += (ROOT / name).glob("*.py")
    assert len(outside) > 40
    for path in outside:
        imported = re.findall(r"^\s*(?:from|import) ([\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not modules & {name.split(".")[0] for name in imported}, path
        assert not any(name.startswith("study") for name in imported), path
    names = [path.name for folder in ("plots", "study", "tools") for path in (ROOT / folder).glob("*.py")]
    assert sorted(name for name in names if names.count(name) > 1) == ["make.py", "make.py"]


def test_no_statistic_is_typed_by_hand_and_no_generated_block_is_empty(study):
    """A p value or an interval stands in a generated block, or is not said."""
    for path in study.make.DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for name, block in re.findall(r"<!-- results: (\w+) -->(.*?)<!-- end -->", text, re.DOTALL):
            assert block.strip(), f"{path}: {name}"
        by_hand = re.sub(r"<!-- results: .*?<!-- end -->", "", text, flags=re.DOTALL)
        assert not STATISTIC.findall(by_hand), path


def test_sections_are_filled_into_documents(study):
    text = "a <!-- results: triples -->old<!-- end --> b\n<!-- results: cost -->\nold\n\n|1|\n<!-- end -->\nc\n"
    after = "a <!-- results: triples -->3 of 3<!-- end --> b\n<!-- results: cost -->\n|2|\n|3|\n<!-- end -->\nc\n"
    found = {"triples": "3 of 3", "cost": "|2|\n|3|"}
    assert study.make.filled(text, found) == after
    assert study.make.filled(after, found) == after
    with pytest.raises(KeyError):
        study.make.filled("<!-- results: absent -->1<!-- end -->", found)


def test_what_a_protocol_lacks(tmp_path):
    """Not what the data have, nor what is complete in runs/."""
    folder, runs = tmp_path / "v5", tmp_path / "runs"
    (runs / "c").mkdir(parents=True)
    (runs / "c" / "result.json").write_text("{}")
    folder.mkdir()
    command = [sys.executable, STUDY / "missing.py", folder, "--runs", runs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "no plan.csv" in done.stderr
    plan = "run,env_id,seed,command\na,A,1,ppo_a.py --seed 1\nb,A,1,ppo_b.py\nc,A,1,ppo_c.py\nd,A,2,betas/d.py\n"
    (folder / "plan.csv").write_text(plan)
    (folder / "runs.csv").write_text("run\nb\n")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()]
    assert lines == ["ppo_a.py --seed 1 --run-name a", "betas/d.py --run-name d"]
    done = subprocess.run([*command, "--blocks", "1"], capture_output=True, text=True, check=True)
    assert [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()] == lines[:1]


def changed_args(rows, **changes):
    """The rows, with some arguments changed."""
    return rows.assign(args=rows["args"].map(lambda text: json.dumps(json.loads(text) | changes)))


def test_two_arguments_of_a_surrogate_are_one_setting(study):
    """As --beta and --kl-penalty of kl_scalar. --gamma belongs to the loop: a run with another one is no setting."""
    rows = study.rows[study.rows["run"].str.startswith("CartPole-v1__")]
    of_kl_fixed = rows[(rows["variant"] == "kl_fixed") & (rows["seed"] == "0")]
    both = changed_args(of_kl_fixed.assign(run="both"), beta=10.0, kl_penalty="k3")
    other = changed_args(of_kl_fixed.assign(run="other"), beta=10.0, gamma=0.9)
    ending = changed_args(of_kl_fixed.assign(run="ending"), target_kl=0.5)
    every_run = compare.typed(pd.concat([rows, both, other, ending], ignore_index=True), variants=paper.VARIANTS)
    runs = varied.compared(every_run)
    settings = varied.settings(runs, every_run).set_index("run")["setting"]
    assert settings["both"] == "kl_fixed --beta 10 --kl-penalty k3"
    assert "other" not in settings
    points = varied.knob_points(runs, every_run)
    assert points["value"][points["knob"] == "--target-kl"].tolist() == ["0.5", "None"]  # None by default


def test_every_setting_of_a_surrogate_is_a_point_over_its_kl(study):
    every_run = paper.not_apart(study.every_run)
    settings = varied.settings(study.runs, every_run)
    points = {(point["env_id"], point["setting"]): point for point in varied.setting_points(settings, study.curves)}
    knob = points["CartPole-v1", "clip --clip-coef 0.1"]
    assert (knob["variant"], knob["value"], knob["seeds"]) == ("clip", "0.1", 3)
    names = [f"knobs/clip_coef=0.1/CartPole-v1__ppo_clip_cartpole__{seed}" for seed in range(3)]
    assert knob["kl"] == pytest.approx(study.curves["approx_kl"][study.curves["run"].isin(names)].median())
    returns = every_run.set_index("run")["final_return"][names]
    assert knob["final_return"] == pytest.approx(returns.mean())


def study_rows(returns, **columns):
    """Rows without a training whose setting is the name of their variant."""
    rows = rows_of(returns, paper.TASKS, paper.VARIANTS, **columns)
    return rows.assign(setting=rows["variant"].astype(str))


def test_the_rule_of_stage_1():
    """The two with the highest scores above the clip's, of a file the better one."""
    scores = dict.fromkeys(contest.SETTINGS, 0.9) | {"clip": 1.0, "clip_eps --eps 0.4": 1.3}
    better = {"spo": 1.05, "spo --eps 0.5": 1.2, "soft": 1.1, "dpo": 1.01}
    assert contest.chosen(scores | better) == ("clip_eps --eps 0.4", ["spo --eps 0.5", "soft"])
    assert contest.chosen(scores) == ("clip_eps --eps 0.4", [])


def test_the_choice_is_the_one_that_was_committed_before_stage_2(study):
    scores = contest.screening_scores(contest.first_stage(study.every_run))
    assert contest.chosen(scores) == ("clip", ["rollback --alpha 0.1 --eps 0.3", "soft"])


def test_the_test_of_stage_2():
    """With two finalists an interval is of 97.5 %."""
    rng = np.random.default_rng(0)
    means = {"clip": 1000, "clip_eps": 1200, "soft": 1500, "spo": 500}
    returns = {
        (task, variant): dict(zip(contest.CONFIRMATION_SEEDS, rng.normal(mean, 300, 15), strict=True))
        for task in contest.CONFIRMATION_TASKS
        for variant, mean in means.items()
    }
    place = contest.CONFIRMATION_TASKS, contest.CONFIRMATION_SEEDS
    runs = contest.stage(study_rows(returns), *place)
    choice = contest.Choice("clip_eps", ["soft", "spo"])
    confirmed = contest.confirmed(runs, choice)
    found = {(comparison.setting, comparison.clip): comparison.improvement for comparison in confirmed}
    samples = [list(returns[task, v].values()) for v in ("soft", "clip") for task in contest.CONFIRMATION_TASKS]
    pairs = list(zip(samples[:5], samples[5:], strict=True))
    chances = [scipy.stats.mannwhitneyu(*pair).statistic / 15**2 for pair in pairs]
    value, *ends = found["soft", "clip"]
    assert value == pytest.approx(np.mean(chances))
    draws = [
        [np.mean(np.subtract.outer(rng.choice(ours, 15), rng.choice(theirs, 15)) > 0) for ours, theirs in pairs]
        for _ in range(2000)
    ]
    assert ends == pytest.approx(np.percentile(np.mean(draws, 1), (1.25, 98.75)), abs=0.02)
    curves = pd.DataFrame({"run": runs["run"], "approx_kl": np.where(runs["variant"] == "soft", 0.04, 0.02), "in": 0.9})
    tests, regions = sections.contest_tables(runs, curves, confirmed)
    assert "| soft |" + " 0.040, 10 % |" * 5 in regions
    assert "| clip |" + " 0.020, 10 % |" * 5 in regions
    value, low, high = found["soft", "clip"]
    of_tasks = " | ".join(f"{chance:.2f}" for chance in chances)
    p = estimates.improvement_p(*map(np.array, samples))
    told = f"| `soft` over `clip` | {of_tasks} | {value:.3f} [{low:.3f}, {high:.3f}] | {p:.4f} | above 0.5 |"
    assert told in tests


def test_stage_3_asks_only_which_run_returns_more():
    """Its tasks have no scores."""
    returns = {
        (task, variant): {seed: sign * seed for seed in contest.CONFIRMATION_SEEDS}
        for task in contest.TRANSFER_TASKS
        for variant, sign in (("clip", -1), ("soft", 1))
    }
    returns["Swimmer-v4", "soft"][20] = -1000.0
    rows = study_rows(returns)
    choice = contest.Choice("clip", ["soft"])
    assert contest.third_stage(rows).empty  # they are in another folder
    runs = contest.third_stage(rows.assign(run="stage3/" + rows["run"]))

    (comparison,) = contest.transferred(runs, choice)
    assert comparison.improvement[0] == pytest.approx((14 / 15 + 1) / 2)
    (comparison,) = contest.transferred(runs.assign(score=-runs["score"]), choice)
    assert comparison.improvement[0] == pytest.approx((1 / 15 + 0) / 2)


def test_the_clip_with_its_earlier_seeds():
    """The finalist is above fifteen runs of the clip and below five."""
    returns = {
        (task, variant): dict.fromkeys(contest.CONFIRMATION_SEEDS, value)
        for task in contest.CONFIRMATION_TASKS
        for variant, value in (("soft", 1000), ("clip", 500), (contest.CONTROL, 1000))
    }
    second = study_rows(returns)
    second = second.assign(run="stage2/" + second["run"])
    earlier = {(task, "clip"): dict.fromkeys(paper.SEEDS, 2000) for task in contest.CONFIRMATION_TASKS}
    every_run = pd.concat([second, study_rows(earlier)], ignore_index=True)
    choice = contest.Choice("clip", ["soft"])
    runs = contest.second_stage(every_run)
    scores = contest.earlier_clip(every_run)
    comparison, _ = contest.with_earlier_clip(runs, scores, choice)
    value, low, high = comparison.improvement
    assert value == pytest.approx(0.75)
    assert low < 0.75 < high
    assert contest.earlier_beside_clip(runs, scores, choice).improvement == (1, 1, 1)
    comparison, _ = contest.beside_earlier_clip(runs, scores, choice)
    assert comparison.improvement == (0, 0, 0)


def test_all_tasks_of_stages_2_and_3():
    """The finalist is above the clip on the five tasks and below on the two."""

    def runs_of(tasks, mean):
        returns = {
            (task, variant): dict.fromkeys(contest.CONFIRMATION_SEEDS, value)
            for task in tasks
            for variant, value in (("soft", mean), ("clip", 500))
        }
        rows = study_rows(returns)
        return rows.assign(run="stage3/" + rows["run"])

    second = contest.second_stage(runs_of(contest.CONFIRMATION_TASKS, 1000))
    third = contest.third_stage(runs_of(contest.TRANSFER_TASKS, 100))
    choice = contest.Choice("clip", ["soft"])
    (comparison,) = contest.over_all_tasks(second, third, choice)
    assert comparison.improvement == pytest.approx((5 / 7, 5 / 7, 5 / 7))


def test_the_control_of_stage_3():
    """It stands beside the finalists in tables of its own, and in neither stage 1 nor the answer of stage 2."""
    returns = {
        (task, variant): {seed: mean + seed for seed in contest.CONFIRMATION_SEEDS}
        for task in contest.CONFIRMATION_TASKS
        for variant, mean in (("soft", 1000), ("clip", 900), (contest.CONTROL, 1100))
    }
    rows = study_rows(returns)
    rows = rows.assign(run="stage3/" + rows["run"])
    runs = contest.second_stage(rows)
    choice = contest.Choice("clip", ["soft"])
    runs = runs.assign(score=runs["final_return"])
    over_control, itself = contest.with_control(runs, choice)
    assert over_control.improvement == (0, 0, 0)
    assert itself.improvement == (1, 1, 1)
    (drawn,) = pictures.chances(runs, choice).axes
    labels = ["soft\nover clip", "clip_eps 0.25\nover clip", "soft\nover clip_eps 0.25"]
    assert [label.get_text() for label in drawn.get_yticklabels()] == labels
    (comparison,) = contest.confirmed(runs, choice)
    assert comparison.improvement[0] == 1
    assert contest.first_stage(rows.assign(seed=0)[rows["setting"] == contest.CONTROL]).empty


def test_how_far_stage_2_lets_the_policy_move():
    returns = {
        (task, variant): dict.fromkeys(contest.CONFIRMATION_SEEDS, 1.0)
        for task in contest.CONFIRMATION_TASKS
        for variant in ("clip", "soft", contest.CONTROL)
    }
    runs = contest.stage(study_rows(returns), contest.CONFIRMATION_TASKS, contest.CONFIRMATION_SEEDS)
    places = pd.DataFrame({"global_step": [10, 20]})
    curves = runs[["run", "variant", "seed"]].merge(places, how="cross")
    is_soft = curves["variant"] == "soft"
    curves = curves.assign(approx_kl=np.where(is_soft, 0.04, 0.02), kill=np.where(is_soft, 0.5, 0.25))
    curves = curves.assign(**{"in": 0.5, "pass": 0.2})
    choice = contest.Choice("clip", ["soft"])
    drawn = pictures.confirmation_kl(runs, curves, choice)
    kl, _, kill, _ = (drawn.axes[place] for place in range(0, 20, 5))
    assert [line.get_ydata().tolist() for line in kl.lines][1:] == [[0.02, 0.02], [0.04, 0.04]]  # the clip is below
    assert [line.get_ydata().tolist() for line in kill.lines][1:] == [[0.25, 0.25], [0.5, 0.5]]


def test_settings_of_stage_1_over_their_kl():
    """Four settings on a parabola of log KL, the clip with two ε at its ends."""
    returns = {"clip": (0, 10), "soft": (90, 100), "ano": (160, 170), "clip_eps": (210, 220), "spo": (None,)}
    returns = {("Ant-v4", variant): dict(enumerate(values)) for variant, values in returns.items()}
    runs = contest.stage(study_rows(returns), ["Ant-v4"], range(3))
    powers = {"clip": -4, "soft": -3, "ano": -2, "clip_eps": -1, "spo": 0}
    kls = [10.0 ** powers[variant] for variant in runs["variant"]]
    curves = pd.DataFrame({"run": runs["run"], "approx_kl": kls})
    over_kl = sections.settings_over_kl(runs, curves)
    of_task = over_kl["Ant-v4"]
    assert sections.beside_clip_line(of_task, "soft") == "+20"  # 95 - (5 + 210 / 3)
    assert sections.beside_clip_line(of_task, "ano") == "+20"  # 165 - 145
    assert "spo" not in of_task
    assert sections.lack_of_fit(over_kl) == {"Ant-v4": "p = 1"}


def test_what_was_trained_elsewhere_ended_with_equal_bytes():
    """Each run with klip's function has that with the trainer's own loss beside it, and its hash."""
    rows = pd.read_csv(STUDY / "elsewhere.csv")
    pairs = rows.pivot(index=["trainer", "env_id", "total_timesteps", "seed"], columns="loss", values="params_sha256")
    assert len(pairs) and pairs[["own", "klip"]].notna().all(axis=None)
    assert (pairs["own"] == pairs["klip"]).all()
