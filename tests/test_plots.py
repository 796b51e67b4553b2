"""The pictures and tables, from short real runs."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from gymnasium.envs.classic_control import PendulumEnv
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plots"), str(ROOT / "tools")]

import collect
import figures
import make
import random_policy
import stats
import theory

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
DISCRETE = {"total_timesteps": 1024, "num_steps": 32, "num_minibatches": 2}


class Unstable(PendulumEnv):
    """With seed 1 a reward is not finite after 600 steps."""

    left = np.inf

    def reset(self, *, seed=None, options=None):
        self.left = 600 if seed == 1 else self.left
        return super().reset(seed=seed, options=options)

    def step(self, action):
        obs, reward, *rest = super().step(action)
        self.left -= 1
        return obs, np.nan if self.left < 0 else float(reward), *rest


gym.register("Unstable-v0", Unstable, max_episode_steps=200)


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory):
    """Pendulum-v1: clip and klip with two seeds, phi, kl_fixed and a variant of the user's with one, kl_adaptive missing;
    CartPole-v1: clip and klip with two seeds, and clip with another --clip-coef in a folder below; Unstable-v0: kl_fixed
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
        unstable, module = CONTINUOUS | {"env_id": "Unstable-v0"}, ppo_kl_scalar_continuous
        module.train(module.Args(**unstable, run_name="unstable/0"))
        with pytest.raises(SystemExit):
            module.train(module.Args(**unstable, seed=1, run_name="unstable/1"))
        return Path("runs").resolve()
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def made(runs_dir, tmp_path_factory):
    """What `python plots/make.py` writes, in a process of its own."""
    out = tmp_path_factory.mktemp("made")
    command = [sys.executable, ROOT / "plots" / "make.py", "--runs-dir", runs_dir, "--out", out]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return SimpleNamespace(out=out, stdout=process.stdout, stderr=process.stderr)


@pytest.fixture
def copied(runs_dir, tmp_path):
    return Path(shutil.copytree(runs_dir, tmp_path / "runs"))


@pytest.fixture
def data(made):
    every_run, curves = collect.load(made.out / "results")
    runs, every_run, _ = stats.select(every_run)
    return runs, every_run, curves[curves["run"].isin(runs["run"])].copy()


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_every_picture_and_table_is_there_and_opens(made):
    names = [
        "overview",
        "learning_curves",
        "identity",
        "partition",
        "beta",
        "final_returns",
        "aggregate",
        "knobs",
        *make.THEORY,
    ]
    names += ["betas_learning_curves", "betas_kl", "betas_outside", "betas_final_returns"]
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    expected |= {"results.md", "final_return.tex", "index.html", "results/runs.csv"}
    expected |= {f"results/curves/{run}.csv.gz" for run in pd.read_csv(made.out / "results" / "runs.csv")["run"]}
    assert set(files(made.out)) == expected
    for name in names:
        assert plt.imread(made.out / f"{name}.png").std() > 0.01


def test_the_same_runs_give_the_same_bytes(made, runs_dir, tmp_path, capsys):
    make.main(make.Args(runs_dir=runs_dir, out=tmp_path))
    assert files(tmp_path) == files(made.out)
    assert f"{capsys.readouterr().out}" == made.stdout.replace(str(made.out), str(tmp_path))


def test_the_columns_and_that_each_value_is_a_logged_one(made, runs_dir):
    runs = pd.read_csv(made.out / "results" / "runs.csv")
    columns = (
        "run env_id variant seed final_return diverged_at sps wall_time_s params_sha256 script_sha256 versions args"
    )
    assert list(runs.columns) == columns.split()
    columns = "global_step episodic_return approx_kl in kill pass beta_p01 beta_p10 beta_p50 beta_p90 beta_p99"
    assert len(runs) == 14
    for run in runs.itertuples():
        result = json.loads((runs_dir / run.run / "result.json").read_text())
        for name in ("env_id", "seed", "sps", "wall_time_s", "params_sha256", "script_sha256"):
            assert getattr(run, name) == result[name]
        for name in ("final_return", "diverged_at"):
            assert np.isnan(getattr(run, name)) if result[name] is None else getattr(run, name) == result[name]
        events = EventAccumulator(str(runs_dir / run.run)).Reload()
        curve = pd.read_csv(collect.curve_path(made.out / "results", run.run))
        assert list(curve.columns) == columns.split()
        curve = curve.set_index("global_step")
        assert len(curve) == len(events.Scalars("partition/in")) >= (2 if run.diverged_at > 0 else 4)
        for tag, column in collect.TAGS.items():
            logged = {scalar.step: np.float32(scalar.value) for scalar in events.Scalars(tag)}
            if column != "episodic_return":
                logged = {step: np.float32(f"{value:.3e}") for step, value in logged.items()}
            assert curve[column].dropna().astype(np.float32).to_dict() == logged


def test_each_row_of_the_curves_is_of_its_run(made):
    runs, curves = collect.load(made.out / "results")
    for run, curve in curves.groupby("run"):
        row = runs.set_index("run").loc[run]
        assert {*zip(curve["env_id"], curve["variant"], curve["seed"])} == {
            (row["env_id"], row["variant"], int(row["seed"]))
        }
        alone = pd.read_csv(collect.curve_path(made.out / "results", run))
        assert curve["global_step"].tolist() == alone["global_step"].tolist()
        np.testing.assert_array_equal(curve["in"], alone["in"].astype(np.float32))


def table(path, heading):
    """The rows of a section's table in results.md, as lists of text."""
    lines = path.read_text().split(f"## {heading}\n")[1].split("\n## ")[0].splitlines()
    return [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]


def test_a_missing_cell_is_shown_as_missing(made, data):
    every_run, _, curves = data
    runs = stats.main_runs(every_run)
    assert figures.seeds(runs, "Pendulum-v1") == "2 seeds: clip, klip; 1 seed: phi, kl_fixed; missing: kl_adaptive"
    head, *rows = table(made.out / "results.md", "Final return")
    assert head == ["task", "", "clip = klip = phi", "kl_fixed", "kl_adaptive", "identical triples"]
    (ours,) = [row for row in rows if row[0] == "Pendulum-v1"]
    assert ours[1] == "ours, 1,024 steps"
    assert ours[2].endswith("(2)")
    assert "±" in ours[2]
    assert ours[3].endswith("(1)")
    assert "±" not in ours[3]
    assert ours[4:] == ["—", "1 of 1"]
    figure = figures.learning_curves(runs, curves)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert any("missing:\nkl_adaptive" in title or "missing: kl_adaptive" in title for title in titles)
    # A mean over fewer seeds than clip's would part from it: phi has one seed, klip both.
    assert figures.fewer(runs, "Pendulum-v1") == ["phi"]
    pendulum = figure.axes[titles.index(next(title for title in titles if title.startswith("Pendulum-v1")))]
    colors = {line.get_color() for line in pendulum.lines}
    assert colors >= {figures.STYLES[v]["color"] for v in ("clip", "klip", "kl_fixed")}
    assert figures.STYLES["phi"]["color"] not in colors
    assert figures.FEWER.split()[0] in figure.get_supxlabel()


def test_a_run_that_diverged_is_counted_and_not_averaged(made, data):
    every_run, _, curves = data
    runs = every_run[every_run["env_id"] == "Unstable-v0"].set_index("run")
    assert runs["diverged_at"].to_dict() == {"unstable/0": "", "unstable/1": "601"}
    (row,) = [row for row in table(made.out / "results.md", "Final return") if row[0] == "Unstable-v0"]
    assert row[3] == f"{runs['final_return']['unstable/0']:,.0f} (1 of 2, 1 diverged)"
    assert "kl_fixed: 1 of 2 diverged" in figures.seeds(every_run, "Unstable-v0")
    wide = figures.wide(curves, "Unstable-v0", "kl_fixed", "in")
    assert (wide.index.tolist(), wide[1].last_valid_index()) == ([256, 512, 768, 1024], 512)
    figure = figures.learning_curves(every_run, curves)
    crosses = [list(line.get_xdata()) for ax in figure.axes for line in ax.lines if line.get_marker() == "X"]
    assert crosses == [[512]]


def test_other_variants_than_the_main_ones_have_pictures_of_their_own(made, data):
    runs, _, curves = data
    assert "mine" not in table(made.out / "results.md", "Final return")[0]
    rows = table(made.out / "results.md", "Betas")
    assert [row[0] for row in rows] == ["coefficient", "clip", "kl_fixed", "mine"]
    assert all(row[1].endswith(" (1)") for row in rows[1:])  # of clip the seed that the other has
    assert set(stats.betas_runs(runs)["env_id"]) == {"Pendulum-v1"}
    runs["diverged"] = runs["run"] == "mine"
    texts = [text.get_text() for ax in figures.small_multiples(runs, curves, "kl").axes for text in ax.texts]
    assert "mine, 1 of 1 diverged" in texts


def test_each_variant_looks_the_same_whatever_else_is_drawn():
    looks = [tuple(sorted((k, str(v)) for k, v in figures.style(variant).items())) for variant in stats.ORDER]
    assert len(set(looks)) == len(stats.ORDER)
    assert figures.style("mine") in [{"zorder": 3, **look} for look in figures.OTHERS]


def test_broken_runs_are_named_and_the_rest_is_kept(copied, made, tmp_path):
    for name in ("cut", "flipped", "running", "garbled", "hollow"):
        shutil.copytree(copied / "phi", copied / name)
    events = {name: next((copied / name).glob("events*")) for name in ("cut", "flipped")}
    whole = events["cut"].read_bytes()
    events["cut"].write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    events["flipped"].write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    (copied / "running" / "result.json").unlink()
    (copied / "garbled" / "result.json").write_text('{"env_id": "Pend')
    (copied / "hollow" / "result.json").write_text("{}")
    shutil.copytree(copied / "running", copied / "incomplete" / "aside")
    shutil.copytree(copied / "running", copied / ".hidden" / "aside")
    count, left_out = collect.collect(collect.from_folders(copied), tmp_path / "results")
    assert count == 14
    assert [line.split(":")[0] for line in left_out] == ["cut", "flipped", "garbled", "hollow", "running"]
    assert all("its log holds 2 of 4 iterations" in line for line in left_out[:2])
    assert files(tmp_path / "results") == files(made.out / "results")


@pytest.mark.parametrize("args", [{"runs_dir": "empty"}, {"runs_dir": "absent"}, {"redraw": True}])
def test_nothing_to_draw_is_one_line(args, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    args = {name: tmp_path / value if name == "runs_dir" else value for name, value in args.items()}
    with pytest.raises(SystemExit) as error:
        make.main(make.Args(**args, out=tmp_path / "out"))
    assert error.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_second_call_reads_only_what_is_new(copied, made, tmp_path):
    shutil.move(copied / "phi", tmp_path / "phi")
    assert collect.collect(collect.from_folders(copied), tmp_path / "results") == (13, [])
    for path in copied.rglob("events*"):
        path.write_bytes(b"")  # whoever reads one of these again finds no iteration
    shutil.move(tmp_path / "phi", copied / "phi")
    assert collect.collect(collect.from_folders(copied), tmp_path / "results") == (14, [])
    assert files(tmp_path / "results") == files(made.out / "results")
    result = copied / "kl" / "result.json"
    result.write_text(result.read_text().replace('"wall_time_s": ', '"wall_time_s": 1'))
    left_out = ["kl: its log holds 0 of 4 iterations"]
    assert collect.collect(collect.from_folders(copied), tmp_path / "results") == (14, left_out)
    assert files(tmp_path / "results") == files(made.out / "results")


def names(results):
    """The runs of a data set, which are those that it has a curve of."""
    runs, curves = collect.load(results)
    assert {*runs["run"]} == {path.relative_to(results / "curves").as_posix()[:-7] for path in results.rglob("*.gz")}
    assert {*curves["run"]} == {*runs["run"]}
    return {*runs["run"]}


def test_collecting_adds_and_only_what_is_named_goes(copied, made, tmp_path, capsys):
    """The folders of two machines, one after the other, with a run in both."""
    other, results = tmp_path / "other", tmp_path / "out" / "results"
    every = names(made.out / "results")
    shutil.copytree(copied / "phi", other / "phi")
    shutil.move(copied / "kl", other / "kl")
    make.main(make.Args(runs_dir=copied, out=tmp_path / "out", draw=False))
    assert names(results) == every - {"kl"}
    result = json.loads((other / "phi" / "result.json").read_text())
    (other / "phi" / "result.json").write_text(json.dumps(result | {"sps": 7}))
    make.main(make.Args(runs_dir=other, out=tmp_path / "out", draw=False))
    assert names(results) == every
    assert collect.load_runs(results).set_index("run")["sps"]["phi"] == "7.0"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results"]

    before = files(results)
    for drop, where in ((("absent*",), {"redraw": True}), (("*",), {"redraw": True}), (("ab",), {"runs_dir": copied})):
        with pytest.raises(SystemExit):
            make.main(make.Args(**where, out=tmp_path / "out", drop=drop, draw=False))
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
        assert files(results) == before
    make.main(make.Args(redraw=True, out=tmp_path / "out", drop=("knob/*", "kl"), draw=False))
    assert names(results) == every - {"kl", "knob/clip"}
    assert "dropped: kl, knob/clip\n" in capsys.readouterr().err
    make.main(make.Args(runs_dir=copied, out=tmp_path / "out", drop=("*",), draw=False))  # begins anew from a folder
    assert names(results) == every - {"kl"}


def test_a_data_set_inside_the_folder_of_the_runs_holds_those_alone(copied, made):
    make.main(make.Args(runs_dir=copied, draw=False))
    assert names(copied / "plots" / "results") == names(made.out / "results")
    shutil.rmtree(copied / "phi")
    make.main(make.Args(runs_dir=copied, draw=False))
    assert names(copied / "plots" / "results") == names(made.out / "results") - {"phi"}


@pytest.mark.parametrize("at, iterations", [(600, 2), (768, 2), (769, 3), (256, 0)])
def test_the_log_of_a_run_that_diverged_ends_before_the_iteration(runs_dir, tmp_path, at, iterations):
    ((_, read),) = collect.from_folders(runs_dir / "phi")
    result, log = read()
    result |= {"final_return": None, "diverged_at": at}
    log = [row for row in log if row["global_step"] <= 256 * iterations]
    log = [
        {tag: np.nan if "approx_kl" in tag else np.inf if "p99" in tag else value for tag, value in row.items()}
        for row in log
    ]
    assert collect.collect([("a/b", lambda: (result, log))], tmp_path) == (1, [])
    runs, curves = collect.load(tmp_path)
    assert runs[["run", "final_return", "diverged_at"]].to_numpy().tolist() == [["a/b", "", str(at)]]
    assert curves["global_step"].tolist() == [256 * (i + 1) for i in range(iterations)]
    assert curves["approx_kl"].isna().all()
    assert np.isposinf(curves["beta_p99"]).all()
    log += [{"global_step": 256 * (iterations + 1), **dict.fromkeys(collect.TAGS, 0.0)}]
    line = f"other: its log holds {iterations + 1} of {iterations} iterations"
    assert collect.collect([("other", lambda: (result, log))], tmp_path) == (1, [line])


@pytest.mark.parametrize("damage", ["runs.csv lacks a column", "runs.csv is cut", "a curve is gone", "a curve is cut"])
def test_a_data_set_that_cannot_be_read_is_one_line(made, tmp_path, capsys, damage):
    results = Path(shutil.copytree(made.out / "results", tmp_path / "results"))
    curve = collect.curve_path(results, "phi")
    if damage == "runs.csv lacks a column":
        pd.read_csv(results / "runs.csv").drop(columns="diverged_at").to_csv(results / "runs.csv")
    elif damage == "runs.csv is cut":
        (results / "runs.csv").write_bytes(b"")
    elif damage == "a curve is gone":
        curve.unlink()
    else:
        curve.write_bytes(curve.read_bytes()[:-100])
    with pytest.raises(SystemExit) as error:
        make.main(make.Args(redraw=True, out=tmp_path))
    assert error.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {results / 'runs.csv' if 'runs' in damage else curve} cannot be read")


def test_other_arguments_are_not_averaged(made, data, monkeypatch):
    runs, every_run, curves = data
    assert "not compared: CartPole-v1, clip: runs with another clip_coef: 1\n" in made.stderr
    assert "knob/clip" not in set(runs["run"])
    points, others = stats.knob_points(runs, every_run)
    assert set(points["knob"]) == {"clip_coef"} and others.empty
    returns = every_run.set_index("run")["final_return"]  # of the default only the seed that the knob's run has
    expected = {0.1: returns["knob/clip"], 0.2: returns["ppo_clip_cartpole__0"]}
    assert points.set_index("value")["final_return"].to_dict() == expected
    head, row = table(made.out / "results.md", "Knobs")
    assert head == ["task", "variant", "`--clip-coef 0.1`", "`--clip-coef 0.2`"]
    assert row == ["CartPole-v1", "clip", *(f"{value:,.0f} (1)" for value in expected.values())]
    sections = stats.sections(runs, every_run, curves)
    monkeypatch.setattr(stats, "KNOBS", ["beta"])  # what ./benchmark.sh knobs does not sweep is a setting
    swapped = stats.sections(runs, every_run, curves)
    assert (
        (swapped["knobs"], swapped["settings"]) == (sections["settings"], sections["knobs"]) == ("", sections["knobs"])
    )


def test_an_argument_that_is_none_by_default_is_a_setting_as_others(made):
    every_run, _ = collect.load(made.out / "results")
    clip = every_run[every_run["run"] == "ppo_clip_cartpole__0"]
    default = float(clip["final_return"].item())
    for name, value in (("target_kl", 0.5), ("num_minibatches", 1), ("norm_adv", "minibatch")):
        changed = clip.assign(run=name, args=[json.dumps(json.loads(clip["args"].item()) | {name: value})])
        every_run = pd.concat([every_run, changed.assign(final_return=str(default + 1))])
    runs, every_run, _ = stats.select(every_run)
    points = stats.knob_points(runs, every_run)[1]
    tables = [
        [line.split(" | ") for line in text.splitlines()]
        for text in stats.knob_tables(points, stats.cell).split("\n\n")
    ]
    heads = [[name.strip("`| ") for name in head[2:]] for head, *_ in tables]
    assert heads == [
        ["--norm-adv minibatch", "--norm-adv rollout"],
        ["--num-minibatches 1", "--num-minibatches 2"],
        ["--target-kl 0.5", "--target-kl None"],
    ]
    for _, _, (_, _, *cells) in tables:
        assert sorted(float(cell.split()[0].replace(",", "")) for cell in cells) == [round(default), round(default + 1)]
    figure = figures.knobs(runs, points)
    assert [ax.get_xlabel() for ax in figure.axes] == ["--norm-adv", "--num-minibatches", "--target-kl"]


def test_the_most_steps_are_preferred_then_the_most_runs_then_the_defaults():
    def settings(*args):
        return pd.Series([stats.text(a) for a in args])

    few, many, other = ({"total_timesteps": n, "clip_coef": c} for n, c in ((10, 0.2), (20, 0.2), (20, 0.1)))
    assert stats.preferred(settings(few, few, many)) == stats.text(many)
    assert stats.preferred(settings(many, other, other)) == stats.text(other)
    assert stats.preferred(settings(many, other)) == stats.text(many)


def titles(figure):
    return "\n".join(ax.get_title(loc="left") for ax in figure.axes)


def test_the_identity_names_the_seeds_whose_hash_is_that_of_clip(data):
    runs, _, curves = data
    assert "klip = clip: seeds 0 1\nphi = clip: seed 0" in titles(figures.identity(runs, curves))
    assert "differ up to" not in titles(figures.identity(runs, curves))
    here = (runs["env_id"] == "Pendulum-v1") & (runs["seed"] == 1)
    runs.loc[here & (runs["variant"] == "klip"), "params_sha256"] = "0"
    curves.loc[(curves["variant"] == "klip") & (curves["env_id"] == "Pendulum-v1"), "episodic_return"] += 3
    text = titles(figures.identity(runs, curves))
    assert "klip = clip: seed 0\nklip ≠ clip: seed 1\nphi = clip: seed 0" in text
    assert "differ by up to 3" in text
    assert "differ nowhere" in text  # CartPole-v1
    assert "klip: 3 of 4 runs" in titles(figures.overview(runs, curves))


def rows_of(returns, **columns):
    """Runs as select gives them, from {(task, variant): {seed: final return, None where it diverged}}."""
    runs = [
        {"env_id": task, "variant": variant, "seed": seed, "final_return": value, "diverged": value is None, **columns}
        for (task, variant), values in returns.items()
        for seed, value in values.items()
    ]
    return pd.DataFrame(runs).astype({"final_return": float})


def test_aggregates_against_a_computation_by_hand():
    rng, returns = np.random.default_rng(1), {}
    table = [("Hopper-v4", "clip", 5), ("Hopper-v4", "klip", 4), ("Ant-v4", "clip", 9), ("Ant-v4", "klip", 5)]
    for task, variant, n in [
        *table,
        ("Walker2d-v4", "clip", 3),
        ("Pendulum-v1", "clip", 3),
        ("Pendulum-v1", "klip", 3),
    ]:
        returns[task, variant] = dict(enumerate(rng.normal(1000, 500, n).round()))
    cells, tasks = stats.scores(rows_of(returns))
    assert tasks == ["Hopper-v4", "Ant-v4"]  # Walker2d-v4 lacks klip, Pendulum-v1 is not in the paper

    anchors, seeds = {"Hopper-v4": (14.98, 2598), "Ant-v4": (-106, 2193)}, {"Hopper-v4": 4, "Ant-v4": 5}
    scaled = {}
    for task, (low, high) in anchors.items():
        for v in ("clip", "klip"):
            scaled[task, v] = [(returns[task, v][seed] - low) / (high - low) for seed in range(seeds[task])]
    for v in ("clip", "klip"):
        for found, task in zip(cells[v], tasks):
            assert found == pytest.approx(scaled[task, v])

    def middle_half(hopper, ant):
        """Repeated so that both tasks have 20 scores, of which the lowest and the highest quarter go."""
        return np.mean(sorted([*hopper] * 5 + [*ant] * 4)[10:-10])

    by_hand = middle_half(scaled["Hopper-v4", "klip"], scaled["Ant-v4", "klip"])
    assert stats.iqm(*cells["klip"]) == pytest.approx(by_hand)
    assert stats.iqm(np.arange(8.0)) == np.mean([2, 3, 4, 5])
    chances = [scipy.stats.mannwhitneyu(scaled[t, "klip"], scaled[t, "clip"]).statistic for t in tasks]
    by_hand = (chances[0] / 16 + chances[1] / 25) / 2
    assert stats.improvement(*cells["klip"], *cells["clip"]) == pytest.approx(by_hand)

    draws = []
    for _ in range(4000):
        draws.append(middle_half(*[rng.choice(scaled[task, "klip"], len(scaled[task, "klip"])) for task in tasks]))
    value, *ends = stats.interval(stats.iqm, cells["klip"])
    assert value == stats.iqm(*cells["klip"])
    assert ends == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.02)
    assert stats.interval(stats.iqm, cells["klip"]) == (value, *ends)
    assert np.isnan(stats.interval(stats.iqm, [np.array([0.5])])[1:]).all()


def test_a_score_does_not_move_when_a_run_is_added_and_a_diverged_run_scores_0():
    before, _ = stats.scores(
        rows_of({("Hopper-v4", "clip"): {0: 14.98, 1: 2598.0}, ("Hopper-v4", "spo"): {0: 100.0, 1: None}})
    )
    assert before["clip"][0] == pytest.approx([0, 1])
    assert before["spo"][0][1] == 0
    after, _ = stats.scores(
        rows_of({("Hopper-v4", "clip"): {0: 14.98, 1: 2598.0}, ("Hopper-v4", "spo"): {0: 100.0, 1: 9e9}})
    )
    assert after["clip"][0].tolist() == before["clip"][0].tolist()
    assert after["spo"][0][0] == before["spo"][0][0]


def test_the_zero_of_the_scores_is_what_a_random_policy_returns():
    committed = pd.read_csv(ROOT / "plots" / "random_policy.csv", comment="#", index_col="task")
    assert set(committed.index) == set(stats.PAPER.index)
    for task in ("CartPole-v1", "Hopper-v4"):
        returns = random_policy.random_returns(task, episodes=100)
        assert abs(returns.mean() - committed.loc[task, "mean"]) < 6 * committed.loc[task, "std"] / 10


def test_welch_against_samples_with_the_published_moments():
    """The paper's ± has divisor n: a sample with exactly that mean and that ± gives scipy's p."""
    sample = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])
    published = 2616 + 208 * sample / sample.std()
    ours = rows_of({("Hopper-v4", "kl_fixed"): {0: 1500.0, 1: 2300.0, 2: 2100.0, 3: 1300.0, 4: None}})
    by_hand = scipy.stats.ttest_ind(ours["final_return"].dropna(), published, equal_var=False).pvalue
    assert stats.welch(ours, 2616, 208) == pytest.approx(by_hand)
    assert stats.verdict(by_hand) == f"p = {by_hand:.2g}, differs"
    assert stats.verdict(0.051) == "p = 0.051"
    assert np.isnan(stats.welch(ours[:1], 2616, 208))


def test_beside_clip_is_welchs_test_where_clip_does_not_vary(monkeypatch):
    """And the spread of all four means counts where it does."""
    paper = stats.PAPER.copy()
    paper.loc["Hopper-v4", ["clip_mean", "clip_std", "kl_fixed_mean", "kl_fixed_std"]] = [2500, 0, 2616, 208]
    monkeypatch.setattr(stats, "PAPER", paper)
    returns = [1500.0, 2300.0, 2100.0, 1300.0]
    runs = rows_of(
        {("Hopper-v4", "kl_fixed"): dict(enumerate(returns)), ("Hopper-v4", "clip"): dict.fromkeys(range(5), 2700.0)}
    )
    sample = np.array([-1.5, -0.5, 0.0, 0.5, 1.5])
    published = 2616 + 208 * sample / sample.std()
    test = scipy.stats.ttest_ind(np.array(returns) - 2700, published - 2500, equal_var=False)
    here, there, difference, half, p = stats.beside_clip(runs, "Hopper-v4", "kl_fixed")
    assert (here, there, difference) == (-900, 116, -1016)
    assert p == pytest.approx(test.pvalue)
    assert (difference - half, difference + half) == pytest.approx(tuple(test.confidence_interval()))
    paper.loc["Hopper-v4", "clip_std"] = 500
    assert stats.beside_clip(runs, "Hopper-v4", "kl_fixed")[3] > half
    assert np.isnan(stats.beside_clip(runs[:1], "Hopper-v4", "kl_fixed")[3:]).all()


@pytest.mark.parametrize("steps", [1_000_000, 102_400])
def test_only_runs_as_long_as_the_papers_are_tested_against_them(steps):
    runs = rows_of({("Hopper-v4", "kl_fixed"): {0: 2000.0, 1: 2100.0}}, steps=steps, params_sha256="")
    rows = [row for row in stats.final_returns(runs) if row[1] == "Welch's test"]
    p = stats.verdict(stats.welch(runs, 2616, 208))
    assert rows == ([["", "Welch's test", "—", "—", "—", p, "—", ""]] if steps == 1_000_000 else [])
    assert stats.final_returns(runs, tests=False) == [row for row in stats.final_returns(runs) if row not in rows]


def test_what_a_cell_says_of_runs_that_diverged():
    runs = rows_of({("Hopper-v4", "spo"): {0: 1.0, 1: 3.0, 2: None}})
    assert stats.cell(runs) == "2 ± 1 (2 of 3, 1 diverged)"
    assert stats.cell(runs[2:]) == "1 of 1 diverged"
    assert stats.cell(runs[:2]) == "2 ± 1 (2)"
    assert stats.cell(runs[:0]) == "—"


def test_the_share_that_breaks_out_with_its_interval():
    runs = rows_of({("HalfCheetah-v4", "clip"): {0: 4000.0, 1: 3000.0, 2: 1700.0, 3: None}}, params_sha256="")
    row = stats.breakout_table(runs).splitlines()[-1]
    p, z = 0.25, scipy.stats.norm.ppf(0.975)  # Wilson 1927
    middle, half = p + z * z / 8, z * np.sqrt(p * (1 - p) / 4 + z * z / 64)
    low, high = (round(100 * (middle + sign * half) / (1 + z * z / 4)) for sign in (-1, 1))
    assert row == f"| clip | 4 | 1 | 25 % | {low} to {high} % |"


def test_the_three_forms_stand_in_one_column_only_if_all_triples_are_identical(data):
    runs, _, _ = data
    assert stats.triples(runs).to_dict() == {("Pendulum-v1", 0): True}
    assert stats.merged(runs)[1] == {"clip": "clip = klip = phi"}
    runs.loc[runs["variant"] == "phi", "params_sha256"] = "other"
    assert stats.triples(runs).to_dict() == {("Pendulum-v1", 0): False}
    head, *rows = stats.final_returns(runs)
    assert head[2:7] == stats.MAIN
    assert [row[7] for row in rows if row[0] == "Pendulum-v1"] == ["0 of 1"]
    assert stats.final_returns(runs[runs["variant"] != "phi"])[0][2:7] == stats.MAIN


def test_the_version_of_a_script_is_that_of_its_runs(made):
    versions = collect.load_runs(made.out / "results").set_index("run")["script_sha256"]
    names = {"phi": ("phi", False), "kl": ("kl_fixed", False), "knob/clip": ("clip", True)}
    assert {run: stats.present_sha256(*name) for run, name in names.items()} == versions[[*names]].to_dict()
    assert versions[[*names]].nunique() == len(names)
    assert stats.present_sha256("mine", False) is None


def test_runs_of_two_versions_of_a_script_are_not_averaged(made, monkeypatch):
    every_run, _ = collect.load(made.out / "results")
    of_clip = (every_run["variant"] == "clip") & (every_run["env_id"] == "Pendulum-v1")
    every_run.loc[of_clip & (every_run["seed"] == "1"), "script_sha256"] = "0123456789"
    every_run.loc[of_clip & (every_run["seed"] == "0"), "script_sha256"] = "abcdef"
    every_run = pd.concat([every_run, every_run[of_clip].assign(run="third", seed="2", script_sha256="0123456789")])
    for present, seeds, line in (
        (None, {1, 2}, "Pendulum-v1, clip: runs of another version, script_sha256 abcdef: 1"),
        ("abcdef", {0}, "Pendulum-v1, clip: runs of another version, script_sha256 01234567: 3"),
    ):
        monkeypatch.setattr(stats, "present_sha256", lambda *_, present=present: present)
        runs, _, notes = stats.select(every_run)
        assert set(runs.loc[(runs["variant"] == "clip") & (runs["env_id"] == "Pendulum-v1"), "seed"]) == seeds
        assert line in notes


def test_theory_against_the_closed_forms():
    eps = theory.CLIP_COEF
    w, a = (x.ravel() for x in np.meshgrid(np.linspace(0.4, 1.8, 140), [-2.0, -0.5, 0.7, 1.0]))
    kill = ((w > 1 + eps) & (a > 0)) | ((w < 1 - eps) & (a < 0))
    assert 0 < kill.mean() < 1
    for variant in ("clip", "klip", "phi"):
        objective, gradient = theory.objective_and_gradient(variant, w, a)
        np.testing.assert_allclose(gradient, np.where(kill, 0, a), atol=1e-12)
        np.testing.assert_allclose(theory.implied_beta(variant, w, a), np.where(kill, -w * a, 0), atol=1e-12)
        clip = np.minimum(w * a, np.clip(w, 1 - eps, 1 + eps) * a)
        np.testing.assert_allclose(objective, w * a * (1 - kill * np.log(w)) if variant == "klip" else clip, atol=1e-12)
    objective, gradient = theory.objective_and_gradient("kl_scalar", w, a)
    np.testing.assert_allclose(objective, w * a - theory.BETA * (w - 1 - np.log(w)), atol=1e-12)
    np.testing.assert_allclose(gradient, a - theory.BETA * (1 - 1 / w), atol=1e-12)


def test_the_table_in_latex(made):
    text = (made.out / "final_return.tex").read_text()
    assert r"Hopper-v4 & ours & -- & -- & -- & -- \\" in text
    assert r" & paper & 2,598 $\pm$ 278 (5) & 2,616 $\pm$ 208 (5) & 2,236 $\pm$ 365 (5) &  \\" in text
    table = text[text.index(r"\begin") :]
    assert not set("±—") & set(table)
    assert "_" not in table.replace(r"\_", "")
    assert r"a\_b\&c\$d & 50\% $<$ 1 \\" in stats.latex([["h"], ["a_b&c$d", "50% < 1"]])


def test_sections_are_filled_into_documents(capsys):
    text = "a <!-- results: triples -->old<!-- end --> b\n<!-- results: cost -->\nold\n\n|1|\n<!-- end -->\nc\n"
    sections = {"triples": "3 of 3", "cost": "|2|\n|3|", "betas": ""}
    after = "a <!-- results: triples -->3 of 3<!-- end --> b\n<!-- results: cost -->\n|2|\n|3|\n<!-- end -->\nc\n"
    assert make.filled(text, sections) == after
    assert make.filled(after, sections) == after
    assert (
        make.filled("<!-- results: betas --><!-- end -->", sections)
        == "<!-- results: betas -->no such runs<!-- end -->"
    )
    with pytest.raises(SystemExit):
        make.filled("<!-- results: absent -->1<!-- end -->", sections)
    assert "error: <!-- results: absent -->" in capsys.readouterr().err


def test_the_peak_of_the_killed_share_is_that_of_the_mean_over_seeds():
    names = {"run": list("abcd"), "variant": ["clip", "clip", "klip", "clip"], "steps": [10**6] * 3 + [10**5]}
    runs = pd.DataFrame(
        {**names, "env_id": ["Hopper-v4"] * 2 + ["Ant-v4"] * 2}
    )  # Ant-v4's clip is shorter than the paper's
    shares = {"run": list("aabbcd"), "global_step": [1, 2, 1, 2, 1, 1], "kill": [0.1, 0.4, 0.3, 0.2, 0.9, 0.8]}
    table = stats.kill_peak_table(runs, pd.DataFrame(shares))
    assert table.splitlines()[2:] == ["| Hopper-v4 | 30.0 % (2) | 10.7 % (5) |"]


def test_runs_that_never_left_the_clip_are_named():
    returns = {("Hopper-v4", "clip"): {0: 1, 1: 2}, ("Hopper-v4", "dual_clip"): {0: 1, 1: 2}, ("Ant-v4", "spo"): {0: 3}}
    runs = rows_of(returns)
    for hashes, named in (
        (["a", "b", "a", "c", "a"], "dual_clip on Hopper-v4 (1 of 2)."),
        (["a", "", "c", "", ""], None),
    ):
        note = stats.betas_table(runs.assign(params_sha256=hashes)).splitlines()[-1]
        assert note.startswith("| spo |") if named is None else note.endswith(f"bit for bit: {named}")


def test_each_coefficient_is_tested_beside_clip():
    clip, spo = {0: 3.0, 1: 5.0, 2: 4.5, 3: None}, {0: 1.0, 1: 2.0, 2: 1.5}
    returns = {
        ("Hopper-v4", "clip"): clip,
        ("Hopper-v4", "spo"): spo,
        ("Hopper-v4", "none"): {0: 1},
        ("Ant-v4", "spo"): {0: 3, 1: 4},
    }
    p = scipy.stats.ttest_ind([3, 5, 4.5], [1, 2, 1.5], equal_var=False).pvalue
    assert stats.tests_table(rows_of({key: value for key, value in returns.items() if "clip" in key})) == ""
    assert stats.tests_table(rows_of(returns)).splitlines()[2:] == [
        f"| spo | p = {p:.2g}, differs | — |",
        "| none | — | — |",
    ]
    # All three above all three is 1 of 20 orders, and its mirror image. 3 beats two of three, 1 ties with one: 2.5 of 6.
    assert stats.ranked([3, 5, 4.5], [1, 2, 1.5]) == "1.00, p = 0.1"
    assert stats.ranked([3, 1], [4, 2, 1]).startswith("0.42, p = ")
    assert stats.tests_table(rows_of(returns), stats.ranked).splitlines()[2] == "| spo | 0.00, p = 0.1 | — |"


def test_a_second_implementation_is_tested_beside_ours(monkeypatch):
    returns = {
        ("Hopper-v4", "clip"): {0: 10, 1: 12, 2: None},
        ("Hopper-v4", "kl_fixed"): {0: 5, 1: 8},
        ("Ant-v4", "clip"): {0: 1},
    }
    peers = {"task": "Hopper-v4", "beta": ["", "", "", "1", "1", "3"], "seed": [0, 1, 2, 0, 1, 0]}
    monkeypatch.setattr(stats, "PEER", pd.DataFrame({**peers, "final_return": [9.0, 13, 11, 1, 3, 99]}))
    p = [
        f"p = {scipy.stats.ttest_ind(*side, equal_var=False).pvalue:.2g}"
        for side in (([10, 12], [5, 8]), ([10, 12], [9, 13, 11]), ([5, 8], [1, 3]))
    ]
    runs = rows_of(returns).assign(steps=10**6)
    lines = stats.peer_table(runs).splitlines()[2:]
    assert lines[0] == f"| Hopper-v4 | ours | 11 ± 1 (2 of 3, 1 diverged) | 6 ± 2 (2) | {p[0]} |"
    assert lines[1].startswith("|  | Stable-Baselines3 | 11 ± 2 (3) | 2 ± 1 (2) | p = ")
    assert lines[2] == f"|  | Welch's test | {p[1]} | {p[2]} |  |"
    assert stats.peer_table(runs.assign(steps=10**5)) == ""  # shorter than the paper's


def test_without_other_variants_there_is_nothing_to_say_of_them(data):
    every_run, _, curves = data
    sections = stats.sections(stats.main_runs(every_run), stats.main_runs(every_run), curves)
    assert [name for name, part in sections.items() if name.startswith("betas") and part] == []
    assert sections["final_return"]


def test_how_far_the_policy_moves_is_a_median_over_iterations_and_seeds():
    runs = pd.DataFrame(
        {"run": list("abc"), "variant": ["clip", "spo", "spo"], "env_id": ["Hopper-v4", "Hopper-v4", "Ant-v4"]}
    )
    curves = pd.DataFrame(
        {"run": list("aaabbb"), "approx_kl": [0.1, 0.2, 9, 0.01, 0.03, np.nan], "in": [1, 0.5, 0.75, 0.9, 0.8, 0.8]}
    )
    assert stats.region_table(runs, curves).splitlines()[2:] == [
        "| clip | 0.200, 25 % | — |",
        "| spo | 0.020, 20 % | — |",
    ]
    points = runs.assign(knob="beta", task=runs["env_id"], value=[0.1, 0.1, 1.0])
    assert stats.knob_tables(points, lambda cell: stats.region(cell, curves)).splitlines()[2:] == [
        "| Hopper-v4 | clip | 0.200, 25 % | — |",
        "| Hopper-v4 | spo | 0.020, 20 % | — |",
        "| Ant-v4 | spo | — | — |",
    ]


def test_what_is_committed_follows_from_the_committed_data():
    """The tables and numbers, to the letter; pictures by the hash of the data in them, since their bytes depend on how
    matplotlib was built. If it fails: python plots/make.py --redraw"""
    plots = ROOT / "plots"
    every_run, curves = collect.load(plots / "results")
    runs, every_run, _ = stats.select(every_run)
    sections = stats.sections(runs, every_run, curves)
    assert (plots / "results.md").read_text() == make.results_page(sections)
    assert (plots / "final_return.tex").read_text() == stats.latex(stats.final_returns(runs))
    for path in make.documents(plots):
        assert path.read_text() == make.filled(path.read_text(), sections)
    data_sha256 = collect.sha256(plots / "results")
    names = {path.stem for path in plots.glob("*.png")} - set(make.THEORY)
    assert names >= {
        "overview",
        "learning_curves",
        "identity",
        "partition",
        "beta",
        "final_returns",
        "aggregate",
        "paper_curves",
    }
    for name in names:
        assert Image.open(plots / f"{name}.png").text["Source"] == data_sha256
        assert data_sha256 in (plots / f"{name}.svg").read_text()


def wandb_run(path):
    """A run as wandb's service would give it, from the file that wandb writes offline: after 7 bytes, blocks of 32 KiB
    of LevelDB's log format, whose records are protocol buffers."""
    data, position, records, record = path.read_bytes(), 7, [], b""
    while position < len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(record))
            record = b""

    def values(items):
        return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

    summary, history = {}, []
    for record in records:
        summary |= values(record.summary.update)
        if record.history.item:
            history.append(values(record.history.item))
    return SimpleNamespace(summary_metrics=summary, scan_history=lambda: iter(history), state="finished")


def test_what_wandb_writes_gives_the_same_data(tmp_path):
    command = [sys.executable, ROOT / "ppo_clip_cartpole.py", "--track", "--save-model", "--total-timesteps", "5120"]
    command += ["--num-steps", "32"]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert path.stat().st_size > 32768
    assert collect.collect(collect.from_folders(tmp_path / "runs"), tmp_path / "folders") == (1, [])
    run = wandb_run(path)
    assert collect.collect([("x", lambda: collect.read_wandb(run))], tmp_path / "wandb") == (1, [])
    (runs, curves), (wandb_runs, wandb_curves) = (collect.load(tmp_path / name) for name in ("folders", "wandb"))
    assert runs.drop(columns="run").equals(wandb_runs.drop(columns="run"))
    assert curves.drop(columns="run").equals(wandb_curves.drop(columns="run"))
    assert len(curves) == 40

    del run.summary_metrics["params_sha256"]
    run.state = "crashed"
    assert collect.collect([("x", lambda: collect.read_wandb(run))], tmp_path / "none")[1] == [
        "x: no result in its W&B summary (crashed)"
    ]


def test_wandb_without_a_key_is_one_line(tmp_path):
    command = [sys.executable, ROOT / "plots" / "make.py", "--wandb-project-name", "klip-ppo", "--out", "out"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "WANDB_SILENT": "true"}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("error: --wandb-project-name klip-ppo")
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "out").exists()
