"""The pictures and tables, from short real runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import collect
import compare
import design_axis
import estimates
import figures
import make
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import tables
import theory
from helpers import ROOT, environment
from PIL import Image
from plot_helpers import panel, rows_of, texts, titles
from style import NARROWEST, STYLES, style
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import ppo_clip_cartpole
import ppo_clip_continuous
import ppo_kl_scalar_continuous
import ppo_klip_cartpole
import ppo_klip_continuous
import ppo_phi_continuous

CONTINUOUS = {
    "env_id": "Pendulum-v1",
    "compile": False,
    "total_timesteps": 1024,
    "num_steps": 256,
    "num_minibatches": 4,
}
FAULTY = "countdown_env:Faulty-reward-v0"  # with seed 2 a reward is not finite at step 24
DISCRETE = {"total_timesteps": 1024, "num_steps": 32, "num_minibatches": 2}


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory):
    """Pendulum-v1: clip and klip with two seeds; phi, kl_fixed and a variant of the user's with one; no kl_adaptive.
    CartPole-v1: clip and klip with two seeds, clip with another --clip-coef in a folder below. FAULTY: kl_fixed
    with two seeds, of which one diverges."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("trained"))
    try:
        for seed in (0, 1):
            for module in (ppo_clip_cartpole, ppo_klip_cartpole):
                module.train(module.Args(**DISCRETE, seed=seed, run_name=f"{module.__name__}__{seed}"))
            for module in (ppo_clip_continuous, ppo_klip_continuous):
                module.train(module.Args(**CONTINUOUS, seed=seed, run_name=f"{module.__name__}__{seed}"))
        ppo_klip_continuous.train(ppo_klip_continuous.Args(**CONTINUOUS, exp_name="mine", run_name="mine"))
        ppo_phi_continuous.train(ppo_phi_continuous.Args(**CONTINUOUS, run_name="phi"))
        ppo_kl_scalar_continuous.train(ppo_kl_scalar_continuous.Args(**CONTINUOUS, run_name="kl"))
        ppo_clip_cartpole.train(ppo_clip_cartpole.Args(**DISCRETE, clip_coef=0.1, run_name="knob/clip"))
        few = {"compile": False, "total_timesteps": 32, "num_steps": 8, "num_minibatches": 2}
        module = ppo_kl_scalar_continuous
        module.train(module.Args(**few, env_id=FAULTY, run_name="faulty/0"))
        with pytest.raises(SystemExit):
            module.train(module.Args(**few, env_id=FAULTY, seed=2, run_name="faulty/2"))
        return Path("runs").resolve()
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def made(runs_dir, tmp_path_factory):
    """What `python plots/make.py` writes, in a process of its own, of a sweep with a plan."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    shutil.copytree(runs_dir, runs)
    (runs / "plan.tsv").write_text("a\tPendulum-v1\tkl_fixed\t0\nb\tCartPole-v1\tclip\t0\n")
    command = [sys.executable, ROOT / "plots" / "make.py", runs]
    process = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return SimpleNamespace(out=runs / "plots", stdout=process.stdout, stderr=process.stderr)


@pytest.fixture
def copied(runs_dir, tmp_path):
    return Path(shutil.copytree(runs_dir, tmp_path / "runs"))


@pytest.fixture
def data(made):
    rows, curves = collect.load(made.out)
    runs, _ = compare.comparison(compare.typed(rows))
    return runs, curves


@pytest.fixture
def reference(tmp_path):
    """Published returns as a user passes them."""
    path = tmp_path / "published.csv"
    path.write_text(
        "task,variant,mean,std,seeds,steps,random_policy\n"
        "Hopper-v4,clip,2598,278,5,1000000,14.98\n"
        "Ant-v4,clip,2193,361,5,1000000,-106\n"
        "Walker2d-v4,clip,3717,425,5,1000000,1.4\n"
    )
    return compare.read_reference(path)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# aggregate needs a variant with several seeds beside the baseline, design_axis one that is a file of betas/.
PICTURES = ["learning_curves", "final_returns", "identity", "kl", "partition", "theory"]


def test_every_picture_and_table_is_there_and_opens(made):
    assert set(files(made.out)) == {f"{name}.png" for name in PICTURES} | {"summary.md", "runs.csv", "curves.csv.gz"}
    summary = (made.out / "summary.md").read_text(encoding="utf-8")
    with_captions = re.findall(r"^!\[(\w+)\]\((?:\w+)\.png\)\n\n\w.{40}", summary, re.MULTILINE)
    assert with_captions == PICTURES
    assert "NaN" not in summary and str(made.out / "summary.md") in made.stdout
    for name in PICTURES:
        image = Image.open(made.out / f"{name}.png")
        assert image.mode == "P"
        assert np.asarray(image.convert("L")).std() > 3


def test_tasks_and_variants_come_in_the_order_of_the_plan(made):
    tasks, variants = make.order(made.out.parent)
    assert (tasks, variants) == (["Pendulum-v1", "CartPole-v1"], ["clip", "klip", "phi", "kl_fixed"])
    _, *rows = table(made.out / "summary.md", "final_return")
    assert [row[0] for row in rows] == ["Pendulum-v1", "CartPole-v1", FAULTY]


def test_no_task_stage_or_paper_by_name():
    """What draws a user's sweep knows none of the study's; the looks and formulas of the files of betas/ aside."""
    for path in sorted((ROOT / "plots").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"-v[0-9]\b|stage ?[0-9]|\bpaper", text), path
        if path.name not in ("style.py", "design_axis.py"):
            assert not re.findall(r"\b(?:spo|sapo|rollback|clip_eps|dual_clip)\b", text), path


def test_the_columns_and_that_each_value_is_a_logged_one(made, runs_dir):
    runs = pd.read_csv(made.out / "runs.csv")
    columns = ["run", "env_id", "variant", "seed", "final_return", "diverged_at", "sps", "wall_time_s"]
    columns += ["params_sha256", "script_sha256", "versions", "args", "ended"]
    assert list(runs.columns) == columns
    assert len(runs) == 14
    _, loaded = collect.load(made.out)
    for row in runs.itertuples():
        result = json.loads((runs_dir / row.run / "result.json").read_text())
        for name in ("env_id", "seed", "sps", "wall_time_s", "params_sha256", "script_sha256"):
            assert getattr(row, name) == result[name]
        for name in ("final_return", "diverged_at"):
            assert np.isnan(getattr(row, name)) if result[name] is None else getattr(row, name) == result[name]
        events = EventAccumulator(str(runs_dir / row.run)).Reload()
        curve = loaded[loaded["run"] == row.run].set_index("global_step")
        assert set(curve["seed"]) == {row.seed}
        assert len(curve) == len(events.Scalars("partition/in")) >= (2 if row.diverged_at > 0 else 4)
        for tag, column in collect.TAGS.items():
            logged = {scalar.step: scalar.value for scalar in events.Scalars(tag)}
            rounding = 1e-6 if column == "episodic_return" else 1e-3
            assert curve[column].dropna().to_dict() == pytest.approx(logged, rel=rounding)


def table(path, name):
    """The rows of a section's table in summary.md, as lists of text."""
    heading, _ = tables.HOW_TO_READ[name]
    text = path.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \S", line)]


def test_a_missing_cell_is_shown_as_missing(made, data):
    runs, curves = data
    head, *rows = table(made.out / "summary.md", "final_return")
    setting = "clip --clip-coef 0.1"
    assert head == ["task", "", "clip = klip = phi", setting, "kl_fixed", "mine", "identical triples"]
    (ours,) = [row for row in rows if row[0] == "Pendulum-v1"]
    del head[3], ours[3]
    assert ours[1] == "ours, 1,024 steps"
    assert ours[2].endswith("(2)") and "±" in ours[2]
    assert ours[3].endswith("(1)") and "±" not in ours[3]
    assert ours[5] == "1 of 1"
    pendulum = panel(figures.learning_curves(runs, curves), "Pendulum-v1")
    assert texts(pendulum) == f"{setting}: missing"
    colors = {line.get_color() for line in pendulum.lines}
    assert colors == {style(variant)["color"] for variant in ("clip", "kl_fixed", "mine")}  # the forms are one line


def test_a_run_that_diverged_is_counted_and_not_averaged(made, data):
    every_run, curves = data
    runs = every_run[every_run["env_id"] == FAULTY].set_index("run")
    assert runs["diverged_at"].to_dict() == {"faulty/0": "", "faulty/2": "24"}
    (row,) = [row for row in table(made.out / "summary.md", "final_return") if row[0] == FAULTY]
    assert row[4] == f"{runs['final_return']['faulty/0']:,.0f} (1 of 2, 1 diverged)"
    wide = figures.wide(runs.reset_index(), curves, "in")
    assert (wide.index.tolist(), wide[2].last_valid_index()) == ([8, 16, 24, 32], 16)
    faulty = panel(figures.learning_curves(every_run, curves), FAULTY)
    assert [list(line.get_xdata()) for line in faulty.lines if line.get_marker() == "X"] == [[16]]
    assert "kl_fixed: 1 of 2 diverged" in texts(faulty)


def test_broken_runs_are_named_and_the_rest_is_kept(copied, made):
    for name in ("cut", "flipped", "running", "garbled", "hollow", "endless"):
        shutil.copytree(copied / "phi", copied / name)
    for name in ("cut", "flipped"):
        (events,) = (copied / name).glob("events*")
        whole = events.read_bytes()
        middle = len(whole) // 2
        rest = bytes([whole[middle] ^ 1]) + whole[middle + 1 :] if name == "flipped" else b""
        events.write_bytes(whole[:middle] + rest)
    (copied / "running" / "result.json").unlink()
    (copied / "garbled" / "result.json").write_text('{"env_id": "Pend')
    (copied / "hollow" / "result.json").write_text("{}")
    result = json.loads((copied / "endless" / "result.json").read_text())
    (copied / "endless" / "result.json").write_text(json.dumps(result | {"final_return": np.nan}))
    shutil.copytree(copied / "running", copied / "incomplete" / "aside")
    (copied / "link").symlink_to(copied)
    rows, curves, left_out = collect.collect(collect.from_folders(copied))
    kept, kept_curves = collect.load(made.out)
    pd.testing.assert_frame_equal(rows, kept)
    pd.testing.assert_frame_equal(curves[kept_curves.columns], kept_curves)
    named = {line.partition(":")[0]: line for line in left_out}
    assert set(named) == {"cut", "flipped", "garbled", "hollow", "endless", "link", "running"}
    assert named["endless"] == "endless: its final return is nan"
    assert all("its log holds 2 of 4 iterations" in named[name] for name in ("cut", "flipped"))


@pytest.mark.parametrize("args", [{}, {"runs": Path("absent")}, {"wandb_project_name": "klip-ppo"}])
def test_nothing_to_draw_is_one_line(args, tmp_path, monkeypatch, capsys):
    """No run, no folder, no account at W&B."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as error:
        make.main(make.Args(**{"runs": Path("empty")} | args))
    assert error.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not list((tmp_path / "empty").iterdir()) and not (tmp_path / "absent").exists()


def test_a_users_command_changes_nothing_that_is_published(copied, tmp_path):
    """In a clone with runs of the user's, among them one with the name of a published one, and published returns."""
    clone = tmp_path / "clone"
    for name in ("betas", "plots", "study", "tools", "docs"):
        shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("ppo_*.py"), ROOT / "README.md", ROOT / "benchmark.sh", ROOT / ".gitignore"):
        shutil.copy(path, clone)
    git = ["git", "-C", clone, "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "as it stands"]):
        subprocess.run([*git, *words], check=True)
    shutil.move(copied, clone / "runs")
    shutil.move(clone / "runs" / "ppo_clip_cartpole__0", clone / "runs" / "CartPole-v1__ppo_clip_cartpole__0")
    command = [sys.executable, clone / "plots" / "make.py", "--reference", "study/reference.csv"]
    done = subprocess.run(command, cwd=clone, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (clone / "runs" / "plots" / "learning_curves.png").exists()
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == ""


def test_each_setting_stands_under_its_own_name(made, data):
    runs, _ = data
    names = runs.set_index("run")["variant"].astype(str)
    assert names["knob/clip"] == "clip --clip-coef 0.1"
    assert names["ppo_clip_cartpole__0"] == "clip" and names["mine"] == "mine"
    head, *rows = table(made.out / "summary.md", "final_return")
    (cartpole,) = [row for row in rows if row[0] == "CartPole-v1"]
    result = runs.set_index("run")["final_return"]["knob/clip"]
    assert cartpole[head.index("clip --clip-coef 0.1")] == f"{result:,.0f} (1)"
    assert "note: " not in made.stderr


def changed_args(rows, which, **changes):
    """The rows, with the arguments of some changed, or dropped where a change is ...."""
    args = rows["args"].map(json.loads)
    for index in rows.index[which]:
        kept = {name: value for name, value in (args[index] | changes).items() if value is not ...}
        args[index] = kept
    return rows.assign(args=args.map(json.dumps))


def test_of_several_settings_the_one_with_most_runs_is_preferred_then_with_most_steps():
    def preferred(*settings):
        runs = pd.DataFrame(settings, columns=["steps", "--clip-coef"])
        return compare.of_one_setting(runs, ["steps", "--clip-coef"]).iloc[0][["steps", "--clip-coef"]].tolist()

    few, many, other = (10, 0.2), (20, 0.2), (20, 0.1)
    assert preferred(few, few, many) == [*few]
    assert preferred(few, many) == [*many]
    assert preferred(other, many) == [*other]


def test_a_setting_is_named_by_all_that_differs(made):
    """From the setting with most runs, of the arguments of all scripts and of those of its own."""
    rows, _ = collect.load(made.out)
    of_kl_fixed = rows[(rows["variant"] == "kl_fixed") & (rows["env_id"] == "Pendulum-v1")]
    both = changed_args(of_kl_fixed.assign(run="both"), [True], beta=10.0, kl_penalty="k3")
    loop = changed_args(of_kl_fixed.assign(run="loop"), [True], gamma=0.9, target_kl=0.5)
    runs, notes = compare.comparison(compare.typed(pd.concat([rows, both, loop], ignore_index=True)))
    names = runs.set_index("run")["variant"].astype(str)
    assert names["both"] == "kl_fixed --beta 10 --kl-penalty k3"
    assert names["loop"] == "kl_fixed --gamma 0.9 --target-kl 0.5"
    assert names["kl"] == "kl_fixed" and notes == []


def test_settings_come_in_the_order_of_their_values(made):
    rows, _ = collect.load(made.out)
    of_kl_fixed = rows[(rows["variant"] == "kl_fixed") & (rows["env_id"] == "Pendulum-v1")]
    swept = [changed_args(of_kl_fixed.assign(run=f"b{beta}"), [True], beta=beta) for beta in (10, 0.5, 3)]
    runs, _ = compare.comparison(compare.typed(pd.concat([rows, *swept], ignore_index=True)))
    names = [name for name in compare.present(runs["variant"]) if name.startswith("kl_fixed")]
    assert names == ["kl_fixed", "kl_fixed --beta 0.5", "kl_fixed --beta 3", "kl_fixed --beta 10"]


def test_of_two_runs_of_a_seed_the_one_that_ended_later_counts(made):
    """Whatever they are called; and the other one is named."""
    rows, _ = collect.load(made.out)
    first = rows[rows["run"] == "mine"]
    later = first.assign(run="a_second", ended="2100-01-01T00:00:00+00:00", final_return="-1.0")
    earlier = first.assign(run="z_first", ended="2000-01-01T00:00:00+00:00", final_return="-2.0")
    runs, notes = compare.comparison(compare.typed(pd.concat([rows, earlier, later], ignore_index=True)))
    assert runs["run"][runs["method"] == "mine"].tolist() == ["a_second"]
    (note,) = notes
    assert note == "Pendulum-v1, mine: runs of a seed that ended earlier than another: mine, z_first"


def test_other_versions_of_libraries_are_named(data):
    runs, _ = data
    assert compare.other_libraries(runs) == []
    runs.loc[runs["run"] == "mine", "versions"] = "torch=9"
    (line,) = compare.other_libraries(runs)
    assert line.startswith("Pendulum-v1: runs with several versions") and "; 1 with torch=9" in line


def test_another_baseline(data, tmp_path, capsys):
    runs, curves = data
    found = tables.aggregates_of(compare.merged(runs), "kl_fixed")
    assert found["kl_fixed"].improvement is None
    assert found["clip = klip = phi"].tasks == ["CartPole-v1", "Pendulum-v1"]
    sections = tables.sections(runs, curves, "mine")
    assert "probability of improvement over mine" in sections["aggregate"]
    assert figures.aggregate(runs, "absent") is None


def curves_of(runs):
    """Curves of two iterations with every quantity."""
    curves = runs[["run", "variant", "seed"]].merge(pd.DataFrame({"global_step": [10, 20]}), how="cross")
    return curves.assign(**dict.fromkeys(collect.TAGS.values(), 0.5) | {"episodic_return": curves["global_step"]})


def test_many_variants_have_a_panel_each():
    returns = {("Hopper-v4", f"mine{number}"): {0: 100.0 * number} for number in range(7)}
    returns["Hopper-v4", "clip"] = {0: 1.0}
    runs = rows_of(returns, steps=20)

    def panels(shown):
        """The variants that have a panel with their name."""
        figure = figures.learning_curves(shown, curves_of(shown))
        return sorted(name for ax in figure.axes for name in texts(ax).split() if name.startswith("mine"))

    assert panels(runs) == [f"mine{number}" for number in range(7)]
    assert panels(runs[runs["variant"].isin(["clip", "mine1"])]) == []


def test_the_design_axis_shows_what_was_trained():
    assert design_axis.of_trained(["clip", "klip", "mine"]) is None
    drawn = design_axis.of_trained(["clip", "spo"])
    names = [ax.get_title(loc="left").strip() for ax in drawn.axes]
    assert [name for name in names if name] == ["clip", "spo"]


def test_a_name_is_written_as_it_is(copied):
    """Also one that matplotlib would take for mathematics."""
    name = "cost_$x^$"
    for path in (copied / "mine").glob("result.json"):
        path.write_text(path.read_text().replace('"exp_name": "mine"', f'"exp_name": "{name}"'))
    make.main(make.Args(runs=copied))
    assert name in (copied / "plots" / "summary.md").read_text(encoding="utf-8")


def test_the_identity_counts_the_seeds_whose_hash_is_that_of_clip(data):
    runs, curves = data
    text = titles(figures.identity(runs, curves))
    assert "Pendulum-v1, 1 of 1 equal" in text  # phi has one seed
    assert "CartPole-v1, 2 of 2 equal" in text
    assert "differ by" not in text
    here = (runs["env_id"] == "Pendulum-v1") & (runs["variant"] == "klip")
    runs.loc[here, "params_sha256"] = "0"
    curves.loc[curves["run"].isin(runs["run"][here]), "episodic_return"] += 3
    text = titles(figures.identity(runs, curves))
    assert "Pendulum-v1, 0 of 1 equal" in text
    assert "differ by up to 3" in text


def test_aggregates_against_a_computation_by_hand(reference):
    rng = np.random.default_rng(1)
    counts = {("Hopper-v4", "clip"): 5, ("Hopper-v4", "spo"): 4, ("Ant-v4", "clip"): 9, ("Ant-v4", "spo"): 5}
    alone = {("Walker2d-v4", "clip"): 3, ("Pendulum-v1", "clip"): 3, ("Pendulum-v1", "spo"): 3}
    returns = {cell: dict(enumerate(rng.normal(1000, 500, n).round())) for cell, n in (counts | alone).items()}
    scores = compare.scores(rows_of(returns, ["Hopper-v4", "Walker2d-v4", "Ant-v4"]), reference)
    # Pendulum-v1 is not in the reference; of Walker2d-v4 there is nothing to compare.
    assert {variant: list(of_tasks) for variant, of_tasks in scores.items()} == {
        "clip": ["Hopper-v4", "Walker2d-v4", "Ant-v4"],
        "spo": ["Hopper-v4", "Ant-v4"],
    }
    anchors = {"Hopper-v4": (14.98, 2598), "Ant-v4": (-106, 2193)}
    for (task, variant), n in counts.items():
        low, high = anchors[task]
        by_hand = [(value - low) / (high - low) for value in returns[task, variant].values()]
        assert scores[variant][task] == pytest.approx(by_hand)
        assert len(by_hand) == n  # all seeds, whatever the other has
    found = estimates.aggregates(scores, "clip")
    assert found["clip"].improvement is None
    chances = []
    for task in anchors:
        spo, clip = (list(returns[task, variant].values()) for variant in ("spo", "clip"))
        chances.append(scipy.stats.mannwhitneyu(spo, clip).statistic / len(spo) / len(clip))
    value, *ends = found["spo"].improvement
    assert value == pytest.approx(np.mean(chances))

    draws = []
    for _ in range(2000):
        wins = []
        for task in anchors:
            spo, clip = (rng.choice(list(returns[task, v].values()), counts[task, v]) for v in ("spo", "clip"))
            wins.append(np.mean(spo[:, None] > clip) + 0.5 * np.mean(spo[:, None] == clip))
        draws.append(np.mean(wins))
    assert ends == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.03)
    assert estimates.aggregates(scores, "clip") == found  # the same draws each time
    assert found["spo"].score[0] == pytest.approx(np.mean([scores["spo"][task].mean() for task in anchors]))
    assert np.isnan(estimates.interval(estimates.mean_score, [np.array([0.5])])[1:]).all()


def test_without_a_reference_only_the_order_of_returns_counts():
    """A run that diverged is below all others; nothing has a score."""
    returns = {("Hopper-v4", "clip"): {0: -5.0, 1: -4.0}, ("Hopper-v4", "spo"): {0: None, 1: -3.0}}
    runs = rows_of(returns)
    found = tables.aggregates_of(runs)
    assert found["spo"].score is None
    drawn = figures.aggregate(runs)
    assert [ax.get_xlabel() for ax in drawn.axes] == ["probability of improvement over clip"]
    assert "0.50" in texts(drawn.axes[0])
    assert found["spo"].improvement[0] == 0.5
    assert "score" not in tables.aggregate_table(found)


@pytest.mark.parametrize(
    "text", ["task,variant\n", "", "task,variant,mean,std,seeds,steps,random_policy\na,b,c,d,e,f,g\n"]
)
def test_a_reference_that_cannot_be_read_is_one_line(text, made, tmp_path, capsys):
    path = tmp_path / "reference.csv"
    path.write_text(text)
    with pytest.raises(SystemExit) as error:
        make.main(make.Args(runs=made.out.parent, reference=path))
    assert error.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: --reference {path} cannot be read")


def test_a_diverged_run_scores_0(reference):
    scores = compare.scores(
        rows_of({("Hopper-v4", "clip"): {0: 14.98, 1: 2598.0}, ("Hopper-v4", "spo"): {0: None}}), reference
    )
    assert scores["clip"]["Hopper-v4"] == pytest.approx([0, 1])
    assert scores["spo"]["Hopper-v4"].tolist() == [0]


def test_welch_against_samples_with_the_published_moments():
    """The paper's ± has divisor n: a sample with exactly that mean and that ± gives scipy's p."""
    sample = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])
    published = 2616 + 208 * sample / sample.std()
    ours = [1500.0, 2300.0, 2100.0, 1300.0]
    by_hand = scipy.stats.ttest_ind(ours, published, equal_var=False).pvalue
    assert estimates.welch_published(ours, 2616, 208, 5) == pytest.approx(by_hand)
    assert estimates.welch(ours, published) == pytest.approx(by_hand)
    assert np.isnan([estimates.welch_published(ours[:1], 2616, 208, 5), estimates.welch(ours[:1], published)]).all()


def test_holms_correction_by_hand():
    """0.01 of four, 0.02 of three and, not below the one before, 0.03 of two; tests that were not made do not count."""
    corrected = estimates.holm([0.03, np.nan, 0.01, 0.6, 0.02])
    np.testing.assert_allclose(corrected, [0.06, np.nan, 0.04, 0.6, 0.06])
    assert estimates.holm([0.9, 0.8]).tolist() == [1, 1]
    assert [tables.verdict(p) for p in (0.0001, 0.049, 0.051)] == [
        "p < 0.001, differs",
        "p = 0.049, differs",
        "p = 0.051",
    ]


def test_the_p_of_an_improvement():
    """With one task it is the Wilcoxon rank-sum test, with two of one size the sum of both statistics decides."""
    rng = np.random.default_rng(1)
    ours, theirs, others = rng.normal(0.8, 1, 9), rng.normal(0, 1, 12), rng.normal(0.5, 1, 9)
    alone = scipy.stats.mannwhitneyu(ours, theirs, use_continuity=False, method="asymptotic").pvalue
    assert estimates.improvement_p(ours, theirs) == pytest.approx(alone)
    z_values = [scipy.stats.ranksums(sample, theirs).statistic for sample in (ours, others)]
    both = 2 * scipy.stats.norm.sf(abs(sum(z_values)) / np.sqrt(2))
    assert estimates.improvement_p(ours, others, theirs, theirs) == pytest.approx(both)


def test_a_file_of_the_readers_own_has_a_look_of_its_own():
    """No published variant's, and one that the page can draw."""
    looks = [json.dumps(style(variant), sort_keys=True) for variant in STYLES]
    names = [f"mine{number}" for number in range(20)]
    of_own = {json.dumps(style(name), sort_keys=True) for name in names}
    assert len(of_own) > 1
    assert not of_own & set(looks)


def test_a_references_returns_stand_beside_runs_of_its_length_alone(reference):
    returns = {("Hopper-v4", "clip"): {0: 2600.0, 1: 2700.0}}

    def marked(steps):
        drawn = panel(figures.final_returns(rows_of(returns, steps=steps), reference=reference), "Hopper-v4")
        return len(drawn.containers)  # its error bars

    assert marked(1_000_000) == 1
    assert marked(81_920) == 0


def test_more_tasks_make_a_picture_wider():
    tasks = [f"Task{number}-v0" for number in range(6)]
    returns = {(task, variant): {0: 100.0} for task in tasks for variant in ("clip", "spo")}
    runs = rows_of(returns, steps=20)
    drawn = figures.small_multiples(runs, curves_of(runs))
    assert drawn.get_figwidth() == pytest.approx(6 * NARROWEST)


def test_lack_of_fit():
    """Of a constant it is one-way analysis of variance; of a parabola it tells one with an outlier from one without."""
    rng = np.random.default_rng(0)
    samples = [rng.normal(mean, 1, size) for mean, size in ((0, 3), (1, 2), (1, 5), (0, 3), (2, 4))]
    anova = scipy.stats.f_oneway(*samples).pvalue
    assert estimates.lack_of_fit(range(5), samples, degree=0) == pytest.approx(anova)
    places = np.linspace(-3, 3, 8)
    scatter = np.array([-1.0, 0, 1])
    on_it = [2 - place**2 + scatter for place in places]
    assert estimates.lack_of_fit(places, on_it) == pytest.approx(1)
    assert estimates.lack_of_fit(places, [*on_it[:4], on_it[4] + 9, *on_it[5:]]) < 0.001
    assert np.isnan(estimates.lack_of_fit(places[:3], on_it[:3]))
    assert np.isnan(estimates.lack_of_fit([0, 1] * 4, on_it))
    assert np.isnan(estimates.lack_of_fit(places, np.ones((8, 3))))


def test_what_a_cell_says_of_runs_without_a_final_return():
    runs = rows_of({("Hopper-v4", "spo"): {0: 100.0, 1: 300.0, 2: None, 3: np.nan}})
    assert tables.mean_and_std(runs[:3]) == "200 ± 100 (2 of 3, 1 diverged)"
    assert tables.mean_and_std(runs[2:]) == "— (0 of 2, 1 diverged, 1 without an end of an episode)"
    assert tables.mean_and_std(rows_of({("Hopper-v4", "spo"): {0: -4.0, 1: -5.0}})) == "-4.5 ± 0.5 (2)"
    remarks = figures.remarks(runs, "Hopper-v4", ["spo"]).splitlines()
    assert remarks == ["spo: 1 of 4 diverged", "spo: in 1 of 4 no episode ended at last"]


def test_runs_of_two_versions_of_a_script_are_not_averaged(made):
    rows, _ = collect.load(made.out)
    of_clip = (rows["variant"] == "clip") & (rows["env_id"] == "Pendulum-v1")
    columns = ["script_sha256", "version"]
    rows.loc[of_clip & (rows["seed"] == "1"), columns] = "0123456789"
    rows.loc[of_clip & (rows["seed"] == "0"), columns] = "abcdef"
    third = rows[of_clip & (rows["seed"] == "1")].assign(run="third", seed="2")
    rows = pd.concat([rows, third], ignore_index=True)

    def compared():
        runs, notes = compare.comparison(compare.typed(rows))
        here = (runs["variant"] == "clip") & (runs["env_id"] == "Pendulum-v1")
        return set(runs["seed"][here]), [note for note in notes if "another version" in note]

    assert compared() == ({1, 2}, ["Pendulum-v1, clip: runs of another version, abcdef: 1"])


@pytest.mark.parametrize("variant", compare.FORMS)
def test_theory_against_the_closed_forms(variant):
    w, a = (x.ravel() for x in np.meshgrid(np.linspace(0.4, 1.8, 140), [-2.0, -0.5, 0.7, 1.0]))
    kill = ((w > 1 + theory.CLIP_COEF) & (a > 0)) | ((w < 1 - theory.CLIP_COEF) & (a < 0))
    beta = theory.implied_beta(theory.SURROGATES[variant], w, a)
    np.testing.assert_allclose(beta, np.where(kill, -w * a, 0), atol=1e-12)
