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
import contest
import estimates
import figures
import make
import numpy as np
import page
import pandas as pd
import pytest
import report
import scipy.stats
import tables
import theory
from helpers import ROOT, environment
from PIL import Image
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
    """What `python plots/make.py` writes, in a process of its own."""
    out = tmp_path_factory.mktemp("made")
    command = [sys.executable, ROOT / "plots" / "make.py", "--runs-dir", runs_dir, "--out", out]
    process = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return SimpleNamespace(out=out, stdout=process.stdout, stderr=process.stderr)


@pytest.fixture
def copied(runs_dir, tmp_path):
    return Path(shutil.copytree(runs_dir, tmp_path / "runs"))


@pytest.fixture
def data(made):
    rows, curves = collect.load(made.out / "results")
    runs, every_run, _ = compare.comparison(rows)
    return runs, every_run, curves


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


MAIN = ["overview", "learning_curves", "identity", "partition", "beta", "final_returns", "aggregate", "knobs"]
MAIN += ["return_over_kl"]
BETAS = ["betas_learning_curves", "betas_kl", "betas_final_returns"]


def test_every_picture_and_table_is_there_and_opens(made):
    names = [*MAIN, *BETAS, *make.THEORY]
    expected = {f"{name}.png" for name in names} | {"tables.md", "index.html", "results/runs.csv"}
    expected |= {f"results/curves/{run}.csv.gz" for run in pd.read_csv(made.out / "results" / "runs.csv")["run"]}
    assert set(files(made.out)) == expected
    for name in names:
        image = Image.open(made.out / f"{name}.png")
        assert image.mode == "P"
        assert np.asarray(image.convert("L")).std() > 3
        assert ("Source" in image.text) == (name not in make.THEORY)


def test_a_picture_changes_with_the_runs_that_it_shows_alone(made, tmp_path):
    """`mine` stands in those of betas and over the KL; without it there is nothing for the first ones to show."""
    out = Path(shutil.copytree(made.out, tmp_path / "out"))
    make.main(make.Args(redraw=True, out=out, drop=("mine",)))
    before, after = files(made.out), files(out)
    changed = {name for name in before if name.endswith(".png") and before[name] != after.get(name)}
    assert changed == {f"{name}.png" for name in [*BETAS, "return_over_kl"]}
    assert {name for name in after if name.startswith("betas")} == set()


def test_the_columns_and_that_each_value_is_a_logged_one(made, runs_dir):
    runs = pd.read_csv(made.out / "results" / "runs.csv")
    assert list(runs.columns) == collect.RUN_COLUMNS
    assert len(runs) == 14
    _, loaded = collect.load(made.out / "results")
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
    """The rows of a section's table in tables.md, as lists of text."""
    heading, _ = tables.HOW_TO_READ[name]
    text = path.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \S", line)]


def panel(figure, task):
    return next(ax for ax in figure.axes if ax.get_title(loc="left").startswith(task))


def texts(ax):
    return "\n".join(text.get_text() for text in ax.texts)


def test_a_missing_cell_is_shown_as_missing(made, data):
    runs, _, curves = data
    head, *rows = table(made.out / "tables.md", "final_return")
    assert head == ["task", "", "clip = klip = phi", "kl_fixed", "kl_adaptive", "identical triples"]
    (ours,) = [row for row in rows if row[0] == "Pendulum-v1"]
    assert ours[1] == "ours, 1,024 steps"
    assert ours[2].endswith("(2)") and "±" in ours[2]
    assert ours[3].endswith("(1)") and "±" not in ours[3]
    assert ours[4:] == ["—", "1 of 1"]
    pendulum = panel(figures.learning_curves(compare.main_runs(runs), curves), "Pendulum-v1")
    assert texts(pendulum) == "kl_adaptive: missing"
    colors = {line.get_color() for line in pendulum.lines}
    assert colors == {STYLES[variant]["color"] for variant in ("clip", "kl_fixed")}  # the forms are one line
    assert "Pendulum-v1, 1 to 2 seeds, kl_adaptive: missing: 1,024 steps\n" in made.stdout


def test_a_run_that_diverged_is_counted_and_not_averaged(made, data):
    every_run, _, curves = data
    runs = every_run[every_run["env_id"] == FAULTY].set_index("run")
    assert runs["diverged_at"].to_dict() == {"faulty/0": "", "faulty/2": "24"}
    (row,) = [row for row in table(made.out / "tables.md", "final_return") if row[0] == FAULTY]
    assert row[3] == f"{runs['final_return']['faulty/0']:,.0f} (1 of 2, 1 diverged)"
    wide = figures.wide(runs.reset_index(), curves, "in")
    assert (wide.index.tolist(), wide[2].last_valid_index()) == ([8, 16, 24, 32], 16)
    faulty = panel(figures.learning_curves(compare.main_runs(every_run), curves), FAULTY)
    assert [list(line.get_xdata()) for line in faulty.lines if line.get_marker() == "X"] == [[16]]
    assert "kl_fixed: 1 of 2 diverged" in texts(faulty)


def test_broken_runs_are_named_and_the_rest_is_kept(copied, made, tmp_path):
    for name in ("cut", "flipped", "running", "garbled", "hollow"):
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
    shutil.copytree(copied / "running", copied / "incomplete" / "aside")
    (copied / "link").symlink_to(copied)
    count, left_out = collect.collect(collect.from_folders(copied), tmp_path / "results")
    assert count == 14
    named = {line.partition(":")[0]: line for line in left_out}
    assert set(named) == {"cut", "flipped", "garbled", "hollow", "link", "running"}
    assert all("its log holds 2 of 4 iterations" in named[name] for name in ("cut", "flipped"))
    assert files(tmp_path / "results") == files(made.out / "results")


@pytest.mark.parametrize("args", [{}, {"redraw": True}, {"wandb_project_name": "klip-ppo"}])
def test_nothing_to_draw_is_one_line(args, tmp_path, monkeypatch, capsys):
    """No run, no data set, no account at W&B."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as error:
        make.main(make.Args(runs_dir=Path("empty"), out=tmp_path / "out", **args))
    assert error.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_users_command_changes_nothing_that_is_published(copied, tmp_path):
    """In a clone with a user's runs, among them one that would replace a published one."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    for name in ("plots", "tools", "README.md", "docs"):  # as they stand here, committed or not
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, clone / name, dirs_exist_ok=True)
        else:
            shutil.copy(source, clone / name)
    git = ["git", "-C", clone, "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "as it stands"], check=True)
    shutil.move(copied, clone / "runs")
    shutil.move(clone / "runs" / "ppo_clip_cartpole__0", clone / "runs" / "CartPole-v1__ppo_clip_cartpole__0")
    command = [sys.executable, clone / "plots" / "make.py"]
    done = subprocess.run(command, cwd=clone, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (clone / "runs" / "plots" / "learning_curves.png").exists()
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == ""


@pytest.mark.parametrize("words", [["--out", str(ROOT / "plots")], ["--publish", "--out", "elsewhere"]])
def test_the_published_data_ask_for_a_flag(words, copied):
    command = [sys.executable, ROOT / "plots" / "make.py", "--runs-dir", copied, *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--publish" in done.stderr.splitlines()[-1]


def test_a_second_call_reads_only_what_is_new(copied, made, tmp_path):
    results = tmp_path / "results"
    shutil.move(copied / "phi", tmp_path / "phi")
    assert collect.collect(collect.from_folders(copied), results) == (13, [])
    for path in copied.rglob("events*"):
        path.write_bytes(b"")  # whoever reads one of these again finds no iteration
    shutil.move(tmp_path / "phi", copied / "phi")
    assert collect.collect(collect.from_folders(copied), results) == (14, [])
    result = copied / "kl" / "result.json"
    result.write_text(result.read_text().replace('"wall_time_s": ', '"wall_time_s": 1'))
    left_out = ["kl: its log holds 0 of 4 iterations"]
    assert collect.collect(collect.from_folders(copied), results) == (14, left_out)
    assert files(results) == files(made.out / "results")


def names(results):
    """The runs of a data set, which are those that it has a curve of."""
    runs, curves = collect.load(results)
    assert {*runs["run"]} == {path.relative_to(results / "curves").as_posix()[:-7] for path in results.rglob("*.gz")}
    assert {*curves["run"]} == {*runs["run"]}
    return {*runs["run"]}


def test_collecting_adds_and_only_what_is_named_goes(copied, made, tmp_path, capsys):
    """The folders of two machines, one after the other, with a run in both."""
    other, out = tmp_path / "other", tmp_path / "out"
    results = out / "results"
    every = names(made.out / "results")
    shutil.copytree(copied / "phi", other / "phi")
    shutil.move(copied / "kl", other / "kl")
    make.main(make.Args(runs_dir=copied, out=out, draw=False))
    assert names(results) == every - {"kl"}
    result = json.loads((other / "phi" / "result.json").read_text())
    (other / "phi" / "result.json").write_text(json.dumps(result | {"sps": 7}))
    make.main(make.Args(runs_dir=other, out=out, draw=False))
    assert names(results) == every
    assert collect.load_runs(results).set_index("run")["sps"]["phi"] == "7.0"
    assert [path.name for path in out.iterdir()] == ["results"]

    before = files(results)
    for drop in ("absent*", "*"):
        with pytest.raises(SystemExit):
            make.main(make.Args(redraw=True, out=out, drop=(drop,), draw=False))
        assert files(results) == before
    make.main(make.Args(redraw=True, out=out, drop=("knob/*", "kl"), draw=False))
    assert names(results) == every - {"kl", "knob/clip"}
    assert "dropped: kl, knob/clip\n" in capsys.readouterr().err


def test_a_data_set_inside_the_folder_of_the_runs_holds_those_alone(copied, made):
    make.main(make.Args(runs_dir=copied, draw=False))
    assert names(copied / "plots" / "results") == names(made.out / "results")
    shutil.rmtree(copied / "phi")
    make.main(make.Args(runs_dir=copied, draw=False))
    assert names(copied / "plots" / "results") == names(made.out / "results") - {"phi"}


def test_a_data_set_that_cannot_be_read_is_one_line(made, tmp_path, capsys):
    path = Path(shutil.copytree(made.out / "results", tmp_path / "results")) / "runs.csv"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SystemExit) as error:
        make.main(make.Args(redraw=True, out=tmp_path))
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {path} cannot be read")


def test_a_curve_that_cannot_be_read_costs_one_run(made, tmp_path, capsys):
    results = Path(shutil.copytree(made.out / "results", tmp_path / "results"))
    path = results / "curves" / "phi.csv.gz"
    path.write_bytes(path.read_bytes()[:100])
    runs, curves = collect.load(results)
    others = set(collect.load_runs(results)["run"]) - {"phi"}
    assert set(runs["run"]) == set(curves["run"]) == others
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: {path} cannot be read") and "--drop 'phi'" in line
    shutil.rmtree(results / "curves")
    with pytest.raises(collect.DataError, match="no run whose curve can be read"):
        collect.load(results)


def test_the_published_data_set_outlives_its_runs_wherever_one_collects_from(made, copied, tmp_path, monkeypatch):
    """Even from the folder above it, which for another data set would be that of its runs."""
    monkeypatch.setattr(make, "HERE", tmp_path / "plots")
    results = Path(shutil.copytree(made.out / "results", tmp_path / "plots" / "results"))
    before = set(collect.load_runs(results)["run"])
    make.update(make.Args(runs_dir=copied.parent, out=tmp_path / "plots"), results)
    assert set(collect.load_runs(results)["run"]) > before


def test_runs_that_stand_apart_are_all_there_may_be(made):
    rows, _ = collect.load(made.out / "results")
    apart = rows.assign(run="stage2/" + rows["run"])
    runs, every_run, _ = compare.comparison(apart)
    assert runs.empty and len(every_run) == len(rows)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("stage2/Hopper-v4__soft__20__1a", "stage2/Hopper-v4__soft__20__1a"),
        ("knobs/beta=3/x__1a", "knobs/beta=3/x__1a"),
        ("/../a b?/./x__1a", "a_b_/x__1a"),
    ],
)
def test_a_name_in_wandb_is_a_path_in_the_data_set(name, path):
    assert collect.path_of(name) == path


def test_other_arguments_are_not_averaged(made, data):
    runs, every_run, _ = data
    assert "not compared: CartPole-v1, clip: runs with another clip-coef: 1\n" in made.stderr
    assert "knob/clip" not in set(runs["run"])
    points = compare.knob_points(runs, every_run)
    returns = every_run.set_index("run")["final_return"]  # of the default only the seed that the knob's run has
    expected = {"0.1": returns["knob/clip"], "0.2": returns["ppo_clip_cartpole__0"]}
    assert points.set_index("value")["final_return"].to_dict() == expected
    head, row = table(made.out / "tables.md", "knobs")
    assert head == ["task", "variant", "`--clip-coef 0.1`", "`--clip-coef 0.2`"]
    assert row == ["CartPole-v1", "clip", *(f"{value:,.0f} (1)" for value in expected.values())]


def changed_args(rows, which, **changes):
    """The rows, with the arguments of some changed, or dropped where a change is ...."""
    args = rows["args"].map(json.loads)
    for index in rows.index[which]:
        kept = {name: value for name, value in (args[index] | changes).items() if value is not ...}
        args[index] = kept
    return rows.assign(args=args.map(json.dumps))


def test_runs_are_compared_across_arguments_that_came_and_went(made):
    """One that no script has any more, and one that is new in the scripts and has its default in older runs."""
    rows, _ = collect.load(made.out / "results")
    runs, _, notes = compare.comparison(rows)
    first = (rows["seed"] == "0").to_numpy()
    older = changed_args(rows, first, gone="x", max_grad_norm=...)
    again, every_run, same_notes = compare.comparison(older)
    assert again["run"].tolist() == runs["run"].tolist()
    assert same_notes == notes
    assert set(every_run["--max-grad-norm"]) == {0.5}
    other = changed_args(older, first & (rows["variant"] == "kl_fixed").to_numpy(), max_grad_norm=0.25)
    assert any("kl_fixed: runs with another max-grad-norm: 1" in note for note in compare.comparison(other)[2])


def test_the_most_steps_are_preferred_then_the_most_runs_then_the_defaults():
    def preferred(*settings):
        runs = pd.DataFrame(settings, columns=["steps", "--clip-coef"]).assign(variant="clip", discrete=False)
        return compare.of_one_setting(runs, ["steps", "--clip-coef"]).iloc[0][["steps", "--clip-coef"]].tolist()

    few, many, other = (10, 0.2), (20, 0.2), (20, 0.1)
    assert preferred(few, few, many) == [*many]
    assert preferred(many, other, other) == [*other]
    assert preferred(other, many) == preferred(many, other) == [*many]


def titles(figure):
    return "\n".join(ax.get_title(loc="left") for ax in figure.axes)


def test_the_identity_counts_the_seeds_whose_hash_is_that_of_clip(data):
    runs, _, curves = data
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


def rows_of(returns, **columns):
    """Runs as comparison gives them, from {(task, variant): {seed: final return, None where it diverged}}."""
    runs = [
        {"env_id": task, "variant": variant, "seed": seed, "final_return": value, "diverged": value is None, **columns}
        for (task, variant), values in returns.items()
        for seed, value in values.items()
    ]
    runs = pd.DataFrame(runs).astype({"final_return": float})
    runs["env_id"] = compare.ordered(runs["env_id"], compare.TASKS)
    runs["variant"] = compare.ordered(runs["variant"], compare.VARIANTS)
    return runs.assign(run=[f"run{i}" for i in range(len(runs))], **{"params_sha256": ""} | columns)


def test_aggregates_against_a_computation_by_hand():
    rng = np.random.default_rng(1)
    counts = {("Hopper-v4", "clip"): 5, ("Hopper-v4", "spo"): 4, ("Ant-v4", "clip"): 9, ("Ant-v4", "spo"): 5}
    alone = {("Walker2d-v4", "clip"): 3, ("Pendulum-v1", "clip"): 3, ("Pendulum-v1", "spo"): 3}
    returns = {cell: dict(enumerate(rng.normal(1000, 500, n).round())) for cell, n in (counts | alone).items()}
    scores = compare.scores(rows_of(returns))
    # Pendulum-v1 is not in the paper; of Walker2d-v4 there is nothing to compare.
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


def test_a_diverged_run_scores_0():
    scores = compare.scores(rows_of({("Hopper-v4", "clip"): {0: 14.98, 1: 2598.0}, ("Hopper-v4", "spo"): {0: None}}))
    assert scores["clip"]["Hopper-v4"] == pytest.approx([0, 1])
    assert scores["spo"]["Hopper-v4"].tolist() == [0]


def test_welch_against_samples_with_the_published_moments():
    """The paper's ± has divisor n: a sample with exactly that mean and that ± gives scipy's p."""
    sample = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])
    published = 2616 + 208 * sample / sample.std()
    ours = [1500.0, 2300.0, 2100.0, 1300.0]
    by_hand = scipy.stats.ttest_ind(ours, published, equal_var=False).pvalue
    assert estimates.welch_published(ours, 2616, 208) == pytest.approx(by_hand)
    assert estimates.welch(ours, published) == pytest.approx(by_hand)
    assert np.isnan([estimates.welch_published(ours[:1], 2616, 208), estimates.welch(ours[:1], published)]).all()


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


def test_a_setting_is_a_file_with_its_own_arguments():
    """Other arguments, seeds, tasks and variants have none. A run is scored as it would be beside the others."""
    returns = {
        ("Hopper-v4", "clip"): {0: 2598.0, 3: 0.0},
        ("Hopper-v4", "klip"): {0: 1.0},
        ("Ant-v4", "spo"): {1: None},
    }
    returns |= {("Humanoid-v4", "spo"): {0: 1.0}, ("Ant-v4", "none"): {0: 1.0}}
    runs = rows_of(returns, **{"discrete": False, "--gamma": 0.99, "--eps": 0.2, "--compile": False})
    every_run = pd.concat([runs.assign(**{"--gamma": 0.9}), runs, runs.assign(**{"--eps": 0.7})])
    found = contest.stage(every_run, ["Hopper-v4", "Ant-v4"], range(3))
    assert found["setting"].tolist() == ["clip", "spo", "spo --eps 0.7"]  # clip has no --eps
    assert found["score"].tolist() == [1.0, 0.0, 0.0]
    assert contest.screening_scores(found) == {}


def test_the_rule_of_stage_1():
    """The two with the highest scores above the clip's, of a file the better one; none before all are there."""
    scores = dict.fromkeys(contest.SETTINGS, 0.9) | {"clip": 1.0, "clip_eps --eps 0.4": 1.3}
    better = {"spo": 1.05, "spo --eps 0.5": 1.2, "soft": 1.1, "dpo": 1.01}
    assert contest.chosen(scores | better) == ("clip_eps --eps 0.4", ["spo --eps 0.5", "soft"])
    assert contest.chosen(scores) == ("clip_eps --eps 0.4", [])
    del scores["ano"]
    assert contest.chosen(scores) is None


def test_the_choice_is_the_one_that_was_committed_before_stage_2():
    every_run = compare.comparison(collect.load_runs(ROOT / "plots" / "results"))[1]
    scores = contest.screening_scores(contest.first_stage(every_run))
    assert contest.chosen(scores) == ("clip", ["rollback --alpha 0.1 --eps 0.3", "soft"])


def test_the_test_of_stage_2():
    """With two finalists an interval is of 97.5 %, and none is given before all runs are there."""
    rng = np.random.default_rng(0)
    means = {"clip": 1000, "clip_eps": 1200, "soft": 1500, "spo": 500}
    returns = {
        (task, variant): dict(zip(contest.CONFIRMATION_SEEDS, rng.normal(mean, 300, 15), strict=True))
        for task in contest.CONFIRMATION_TASKS
        for variant, mean in means.items()
    }
    place = contest.CONFIRMATION_TASKS, contest.CONFIRMATION_SEEDS
    runs = contest.stage(rows_of(returns, discrete=False), *place)
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
    assert contest.answers(confirmed) == {"soft": "beats the clip", "spo": "is not shown to beat the clip"}
    over_clip, over_best = confirmed[:2]
    default_alone = [over_clip, over_best._replace(improvement=(0.55, 0.49, 0.6))]
    assert contest.answers(default_alone) == {"soft": "beats the clip at its default alone"}
    missing = runs.drop(index=runs.index[0])
    assert contest.confirmed(missing, choice) == []
    drawn = panel(figures.confirmation(runs, choice), "Ant-v4")
    assert [label.get_text() for label in drawn.get_yticklabels()] == ["soft", "spo", "clip", "clip_eps"]
    seeds = [sorted(line.get_xdata()) for line in drawn.lines if len(line.get_xdata()) == 15]
    assert seeds == [sorted(returns["Ant-v4", variant].values()) for variant in ("soft", "spo", "clip", "clip_eps")]
    drawn = panel(figures.confirmation(runs, choice), "probability of improvement")
    bars = [tuple(line.get_xdata()) for line in drawn.lines if line.get_linewidth() == 7]
    assert bars == [interval[1:] for interval in found.values()]
    assert figures.confirmation(missing, choice) is None
    assert figures.confirmation(runs, None) is None
    curves = pd.DataFrame({"run": runs["run"], "approx_kl": np.where(runs["variant"] == "soft", 0.04, 0.02), "in": 0.9})
    tests, regions = tables.contest_tables(runs, curves, confirmed)
    assert "| soft |" + " 0.040, 10 % |" * 5 in regions
    assert "| clip |" + " 0.020, 10 % |" * 5 in regions
    value, low, high = found["soft", "clip"]
    of_tasks = " | ".join(f"{chance:.2f}" for chance in chances)
    p = estimates.improvement_p(*map(np.array, samples))
    told = f"| `soft` over `clip` | {of_tasks} | {value:.3f} [{low:.3f}, {high:.3f}] | {p:.4f} | above 0.5 |"
    assert told in tests
    assert tables.contest_tables(missing, curves, []) == ("", "")


def test_the_p_of_an_improvement():
    """With one task it is the Wilcoxon rank-sum test, with two of one size the sum of both statistics decides."""
    rng = np.random.default_rng(1)
    ours, theirs, others = rng.normal(0.8, 1, 9), rng.normal(0, 1, 12), rng.normal(0.5, 1, 9)
    alone = scipy.stats.mannwhitneyu(ours, theirs, use_continuity=False, method="asymptotic").pvalue
    assert estimates.improvement_p(ours, theirs) == pytest.approx(alone)
    z_values = [scipy.stats.ranksums(sample, theirs).statistic for sample in (ours, others)]
    both = 2 * scipy.stats.norm.sf(abs(sum(z_values)) / np.sqrt(2))
    assert estimates.improvement_p(ours, others, theirs, theirs) == pytest.approx(both)


def test_stage_3_asks_only_which_run_returns_more():
    """Its tasks have no scores; a run that diverged is below every other."""
    returns = {
        (task, variant): {seed: sign * seed for seed in contest.CONFIRMATION_SEEDS}
        for task in contest.TRANSFER_TASKS
        for variant, sign in (("clip", -1), ("soft", 1))
    }
    returns["Swimmer-v4", "soft"][20] = None
    rows = rows_of(returns, discrete=False)
    choice = contest.Choice("clip", ["soft"])
    assert contest.third_stage(rows).empty  # they are in another folder
    runs = contest.third_stage(rows.assign(run="stage3/" + rows["run"]))

    def told_of(runs):
        return tables.chances(contest.transferred(runs, choice))

    assert told_of(runs).startswith("0.967 [")  # (14 / 15 + 1) / 2
    assert told_of(runs.assign(score=-runs["score"])).startswith("0.033 [")
    assert told_of(runs[1:]) == ""


def test_the_clip_with_its_earlier_seeds():
    """The finalist is above fifteen runs of the clip and below five."""
    returns = {
        (task, variant): dict.fromkeys(contest.CONFIRMATION_SEEDS, value)
        for task in contest.CONFIRMATION_TASKS
        for variant, value in (("soft", 1000), ("clip", 500))
    }
    second = rows_of(returns, discrete=False)
    second = second.assign(run="stage2/" + second["run"])
    earlier = {(task, "clip"): dict.fromkeys(compare.SEEDS, 2000) for task in contest.CONFIRMATION_TASKS}
    every_run = pd.concat([second, rows_of(earlier, discrete=False)], ignore_index=True)
    choice = contest.Choice("clip", ["soft"])
    runs = contest.second_stage(every_run)
    scores = contest.earlier_clip(every_run)
    (comparison,) = contest.with_earlier_clip(runs, scores, choice)
    value, low, high = comparison.improvement
    assert value == pytest.approx(0.75)
    assert low < 0.75 < high
    (comparison,) = contest.earlier_beside_clip(runs, scores, choice)
    assert comparison.improvement == (1, 1, 1)
    assert contest.earlier_clip(second) == {}
    assert contest.with_earlier_clip(runs, {}, choice) == contest.earlier_beside_clip(runs, {}, choice) == []


def test_all_tasks_of_stages_2_and_3():
    """The finalist is above the clip on the five tasks and below on the two."""

    def runs_of(tasks, mean):
        returns = {
            (task, variant): dict.fromkeys(contest.CONFIRMATION_SEEDS, value)
            for task in tasks
            for variant, value in (("soft", mean), ("clip", 500))
        }
        rows = rows_of(returns, discrete=False)
        return rows.assign(run="stage3/" + rows["run"])

    second = contest.second_stage(runs_of(contest.CONFIRMATION_TASKS, 1000))
    third = contest.third_stage(runs_of(contest.TRANSFER_TASKS, 100))
    choice = contest.Choice("clip", ["soft"])
    (comparison,) = contest.over_all_tasks(second, third, choice)
    assert comparison.improvement == pytest.approx((5 / 7, 5 / 7, 5 / 7))
    assert contest.over_all_tasks(second, third[1:], choice) == []


def test_the_control_of_stage_3():
    """It stands beside the finalists in tables of its own, and in neither stage 1 nor the answer of stage 2."""
    returns = {
        (task, variant): {seed: mean + seed for seed in contest.CONFIRMATION_SEEDS}
        for task in contest.CONFIRMATION_TASKS
        for variant, mean in (("soft", 1000), ("clip", 900), ("clip_eps", 1100))
    }
    rows = rows_of(returns, discrete=False)
    rows.loc[rows["variant"] == "clip_eps", "--eps"] = 0.25
    rows = rows.assign(run="stage3/" + rows["run"])
    runs = contest.second_stage(rows)
    choice = contest.Choice("clip", ["soft"])
    is_control = runs["setting"] == contest.CONTROL

    runs = runs.assign(score=runs["final_return"])
    over_control, itself = contest.with_control(runs, choice)
    assert over_control.improvement == (0, 0, 0)
    assert itself.improvement == (1, 1, 1)
    drawn = panel(figures.confirmation(runs, choice), "probability of improvement")
    labels = ["soft\nover clip", "clip_eps 0.25\nover clip", "soft\nover clip_eps 0.25"]
    assert [label.get_text() for label in drawn.get_yticklabels()] == labels
    missing = runs.drop(index=runs.index[is_control][0])
    assert contest.with_control(missing, choice) == []
    (comparison,) = contest.confirmed(runs, choice)
    assert comparison.improvement[0] == 1
    assert contest.first_stage(rows.assign(seed=0)[rows["variant"] == "clip_eps"]).empty


def test_a_file_of_the_readers_own_has_a_look_of_its_own():
    """No published variant's, and one that the page can draw."""
    looks = [json.dumps(style(variant), sort_keys=True) for variant in compare.VARIANTS]
    names = [f"mine{number}" for number in range(20)]
    of_own = {json.dumps(style(name), sort_keys=True) for name in names}
    assert len(of_own) > 1
    assert not of_own & set(looks)
    page.looks([*compare.VARIANTS, *names])


def test_the_papers_returns_stand_beside_runs_of_its_length_alone():
    returns = {("Hopper-v4", "clip"): {0: 2600.0, 1: 2700.0}}

    def marked(steps):
        drawn = panel(figures.final_returns(rows_of(returns, steps=steps)), "Hopper-v4")
        return len(drawn.containers)  # the error bars of the paper

    assert marked(1_000_000) == 1
    assert marked(81_920) == 0


def test_more_tasks_make_a_picture_wider():
    tasks = compare.TASKS[:6]
    returns = {(task, variant): {0: 100.0} for task in tasks for variant in ("clip", "spo")}
    runs = rows_of(returns, steps=20)
    places = pd.DataFrame({"global_step": [10, 20]})
    curves = runs[["run", "variant", "seed"]].merge(places, how="cross")
    curves["episodic_return"] = curves["global_step"]
    drawn = figures.small_multiples(runs, curves, "learning_curves")
    assert drawn.get_figwidth() == pytest.approx(6 * NARROWEST)


def test_how_far_stage_2_lets_the_policy_move():
    returns = {
        (task, variant): dict.fromkeys(contest.CONFIRMATION_SEEDS, 1.0)
        for task in contest.CONFIRMATION_TASKS
        for variant in ("clip", "soft")
    }
    runs = contest.stage(rows_of(returns, discrete=False), contest.CONFIRMATION_TASKS, contest.CONFIRMATION_SEEDS)
    places = pd.DataFrame({"global_step": [10, 20]})
    curves = runs[["run", "variant", "seed"]].merge(places, how="cross")
    is_soft = curves["variant"] == "soft"
    curves = curves.assign(approx_kl=np.where(is_soft, 0.04, 0.02), kill=np.where(is_soft, 0.5, 0.25))
    curves = curves.assign(**{"in": 0.5, "pass": 0.2})
    choice = contest.Choice("clip", ["soft"])
    drawn = figures.confirmation_kl(runs, curves, choice)
    kl, _, kill, _ = (drawn.axes[place] for place in range(0, 20, 5))
    assert [line.get_ydata().tolist() for line in kl.lines] == [[0.02, 0.02], [0.04, 0.04]]  # the clip is below
    assert [line.get_ydata().tolist() for line in kill.lines] == [[0.25, 0.25], [0.5, 0.5]]
    assert figures.confirmation_kl(runs[1:], curves, choice) is None
    assert figures.confirmation_kl(runs, curves, None) is None


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


def test_settings_of_stage_1_over_their_kl():
    """Four settings on a parabola of log KL, the clip with two ε at its ends."""
    returns = {"clip": (0, 10), "soft": (90, 100), "ano": (160, 170), "clip_eps": (210, 220), "spo": (None,)}
    returns = {("Ant-v4", variant): dict(enumerate(values)) for variant, values in returns.items()}
    runs = contest.stage(rows_of(returns, discrete=False), ["Ant-v4"], range(3))
    powers = {"clip": -4, "soft": -3, "ano": -2, "clip_eps": -1, "spo": 0}
    kls = [10.0 ** powers[variant] for variant in runs["variant"]]
    curves = pd.DataFrame({"run": runs["run"], "approx_kl": kls})
    over_kl = tables.settings_over_kl(runs, curves)
    distances = tables.distance_table(over_kl, tables.lack_of_fit(over_kl))
    assert "| `soft` | +20 |\n| `ano` | +20 |\n| lack of fit | p = 1 |" in distances  # 95 - (5 + 210 / 3), 165 - 145
    assert "spo" not in distances
    drawn = panel(figures.screening(runs, curves), "Ant-v4")
    means = {tuple(np.round(line.get_xydata()[0], 9)) for line in drawn.lines if line.get_linestyle() == "None"}
    assert means == {(1e-4, 5), (1e-3, 95), (1e-2, 165), (1e-1, 215)}
    (parabola,) = (line for line in drawn.lines if line.get_linestyle() == "--")
    assert np.allclose(parabola.get_ydata()[[0, -1]], (5, 215))
    assert "runs that diverged: 1" in texts(drawn)
    assert figures.screening(runs[runs["setting"].isin(contest.CLIPS)], curves) is None


def test_runs_of_the_confirmation_stand_in_no_other_comparison(made):
    rows, _ = collect.load(made.out / "results")
    runs, _, notes = compare.comparison(rows)
    more = rows.assign(run="stage2/" + rows["run"], seed="20")
    again, every_run, same_notes = compare.comparison(pd.concat([rows, more], ignore_index=True))
    assert again["run"].tolist() == runs["run"].tolist()
    assert same_notes == notes
    assert len(every_run) == 2 * len(rows)


def test_what_a_cell_says_of_runs_without_a_final_return():
    runs = rows_of({("Hopper-v4", "spo"): {0: 100.0, 1: 300.0, 2: None, 3: np.nan}})
    assert tables.mean_and_std(runs[:3]) == "200 ± 100 (2 of 3, 1 diverged)"
    assert tables.mean_and_std(runs[2:]) == "— (0 of 2, 1 diverged, 1 without an end of an episode)"
    assert tables.mean_and_std(rows_of({("Hopper-v4", "spo"): {0: -4.0, 1: -5.0}})) == "-4.5 ± 0.5 (2)"
    remarks = figures.remarks(runs, "Hopper-v4", ["spo"]).splitlines()
    assert remarks == ["spo: 1 of 4 diverged", "spo: in 1 of 4 no episode ended at last"]


def test_a_file_of_betas_has_the_version_of_the_loop_that_it_trains_with(made):
    """And where it stands alone, the task says which loop that is: both runs are of the present version."""
    rows = collect.load_runs(made.out / "results").set_index("run", drop=False)
    for run, *script in (("phi", "phi", False), ("kl", "kl_fixed", False), ("knob/clip", "clip", True)):
        assert compare.present_sha256(*script) == rows["script_sha256"][run]
    assert compare.present_sha256("mine", False) is None
    rows = rows.loc[["phi", "ppo_clip_cartpole__0"]].reset_index(drop=True)
    hashes = []
    for discrete, loop in ((False, ppo_klip_continuous), (True, ppo_klip_cartpole)):
        args, _ = compare.script("spo", discrete)
        hashes.append(loop.script_sha256(args))
        assert compare.present_sha256("spo", discrete) == hashes[-1]
        assert args.num_envs == loop.Args().num_envs
    rows = changed_args(rows.assign(variant="spo", script_sha256=hashes), [True, True], exp_name="spo")
    runs, _, notes = compare.comparison(rows)
    assert (len(runs), notes) == (2, [])


def test_runs_of_two_versions_of_a_script_are_not_averaged(made, monkeypatch):
    rows, _ = collect.load(made.out / "results")
    of_clip = (rows["variant"] == "clip") & (rows["env_id"] == "Pendulum-v1")
    rows.loc[of_clip & (rows["seed"] == "1"), "script_sha256"] = "0123456789"
    rows.loc[of_clip & (rows["seed"] == "0"), "script_sha256"] = "abcdef"
    third = rows[of_clip].iloc[:1].assign(run="third", seed="2", script_sha256="0123456789")
    rows = pd.concat([rows, third], ignore_index=True)

    def compared():
        runs, _, notes = compare.comparison(rows)
        here = (runs["variant"] == "clip") & (runs["env_id"] == "Pendulum-v1")
        return set(runs["seed"][here]), [note for note in notes if "another version" in note]

    note = "Pendulum-v1, clip: runs of another version, script_sha256 "
    monkeypatch.setattr(compare, "present_sha256", lambda *_: None)
    assert compared() == ({1, 2}, [f"{note}abcdef: 1"])
    monkeypatch.setattr(compare, "present_sha256", lambda *_: "abcdef")
    assert compared() == ({0}, [f"{note}01234567: 2"])
    join = {"old_script_sha256": "0123456789", "new_script_sha256": "abcdef", "num_envs": "1"}
    monkeypatch.setattr(report, "read_joins", lambda path=None: [join])  # they were found to train to the same bits
    assert compared() == ({0, 1, 2}, [])


@pytest.mark.parametrize("variant", compare.FORMS)
def test_theory_against_the_closed_forms(variant):
    w, a = (x.ravel() for x in np.meshgrid(np.linspace(0.4, 1.8, 140), [-2.0, -0.5, 0.7, 1.0]))
    kill = ((w > 1 + theory.CLIP_COEF) & (a > 0)) | ((w < 1 - theory.CLIP_COEF) & (a < 0))
    beta = theory.implied_beta(theory.SURROGATES[variant], w, a)
    np.testing.assert_allclose(beta, np.where(kill, -w * a, 0), atol=1e-12)


def test_a_picture_can_be_svg():
    assert make.svg(theory.theory_sheet(), None).startswith(b"<?xml")


def test_sections_are_filled_into_documents(capsys):
    text = "a <!-- results: triples -->old<!-- end --> b\n<!-- results: cost -->\nold\n\n|1|\n<!-- end -->\nc\n"
    after = "a <!-- results: triples -->3 of 3<!-- end --> b\n<!-- results: cost -->\n|2|\n|3|\n<!-- end -->\nc\n"
    sections = {"triples": "3 of 3", "cost": "|2|\n|3|"}
    assert make.filled(text, sections) == after
    assert make.filled(after, sections) == after
    with pytest.raises(SystemExit):
        make.filled("<!-- results: absent -->1<!-- end -->", sections)


def test_two_arguments_of_a_surrogate_are_one_setting(made):
    """As --beta and --kl-penalty of kl_scalar. --gamma belongs to the loop: a run with another one is no setting."""
    rows, _ = collect.load(made.out / "results")
    of_kl_fixed = rows[(rows["variant"] == "kl_fixed") & (rows["env_id"] == "Pendulum-v1")]
    both = changed_args(of_kl_fixed.assign(run="both"), [True], beta=10.0, kl_penalty="k3")
    other = changed_args(of_kl_fixed.assign(run="other"), [True], beta=10.0, gamma=0.9)
    ending = changed_args(of_kl_fixed.assign(run="ending"), [True], target_kl=0.5)
    runs, every_run, _ = compare.comparison(pd.concat([rows, both, other, ending], ignore_index=True))
    settings = compare.settings(runs, every_run).set_index("run")["setting"]
    assert settings["both"] == "kl_fixed --beta 10 --kl-penalty k3"
    assert "other" not in settings
    points = compare.knob_points(runs, every_run)
    assert points["value"][points["knob"] == "--target-kl"].tolist() == ["0.5", "None"]  # None by default


def test_every_setting_of_a_surrogate_is_a_point_over_its_kl(data):
    runs, every_run, curves = data
    settings = compare.settings(runs, every_run)
    points = {(point["env_id"], point["setting"]): point for point in figures.setting_points(settings, curves)}
    assert [setting for task, setting in points if task == "CartPole-v1"] == ["clip", "clip --clip-coef 0.1"]
    knob = points["CartPole-v1", "clip --clip-coef 0.1"]
    assert (knob["variant"], knob["value"]) == ("clip", "0.1")
    assert knob["kl"] == pytest.approx(curves["approx_kl"][curves["run"] == "knob/clip"].median())
    assert knob["final_return"] == every_run.set_index("run")["final_return"]["knob/clip"]
    assert "runs that diverged: 1" in texts(panel(figures.return_over_kl(settings, curves), FAULTY))


def test_what_is_committed_follows_from_the_committed_data():
    """The tables and numbers, to the letter; pictures by the hash of the runs in them, since their bytes depend on how
    matplotlib was built. If it fails: python plots/make.py --publish --redraw"""
    plots = ROOT / "plots"
    rows, curves = collect.load(plots / "results")
    runs, every_run, _ = compare.comparison(rows)
    sections = tables.sections(runs, every_run, curves)
    tables_md, others = make.documents(plots)
    assert tables_md.read_text(encoding="utf-8") == tables.page(sections)
    for path in others:
        text = path.read_text(encoding="utf-8")
        assert text == make.filled(text, sections)
    pictures = make.pictures(runs, every_run, curves)
    shown = {name: of_picture for name, _, of_picture in pictures}
    assert {path.stem for path in plots.glob("*.png")} == set(shown)
    for name in shown.keys() - set(make.THEORY):
        source = Image.open(plots / f"{name}.png").text["Source"]
        assert source == collect.sha256(plots / "results", shown[name]["run"]), name
    assert not list(plots.glob("*.svg"))


STATISTIC = re.compile(r"\bp\s*[<>=≤≥]\s*[\d.]+|\[-?\d[\d.,]*, -?\d[\d.,]*\]")


def test_no_statistic_is_typed_by_hand_and_no_generated_block_is_empty():
    """A p value or an interval stands in a generated block, or is not said."""
    tables_md, documents = make.documents(ROOT / "plots")
    for path in (tables_md, *documents):
        text = path.read_text(encoding="utf-8")
        for name, block in re.findall(r"<!-- results: (\w+) -->(.*?)<!-- end -->", text, re.DOTALL):
            assert block.strip(), f"{path}: {name}"
        by_hand = re.sub(r"<!-- results: .*?<!-- end -->", "", text, flags=re.DOTALL)
        assert path == tables_md or not STATISTIC.findall(by_hand), path
