"""The pictures and tables, from short real runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import wandb_file
from gymnasium.envs.classic_control import PendulumEnv
from helpers import ROOT
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

sys.path[:0] = [str(ROOT), str(ROOT / "plots"), str(ROOT / "tools")]

import collect
import compare
import estimates
import figures
import make
import random_policy
import report
import tables
import theory
from style import OTHERS, STYLES, style

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
    """Pendulum-v1: clip and klip with two seeds; phi, kl_fixed and a variant of the user's with one; no kl_adaptive.
    CartPole-v1: clip and klip with two seeds, clip with another --clip-coef in a folder below. Unstable-v0: kl_fixed
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


def test_the_same_runs_give_the_same_bytes(made, runs_dir, tmp_path, capsys):
    make.main(make.Args(runs_dir=runs_dir, out=tmp_path))
    assert files(tmp_path) == files(made.out)
    assert capsys.readouterr().out == made.stdout.replace(str(made.out), str(tmp_path))


def test_a_picture_changes_with_the_runs_that_it_shows_alone(made, tmp_path):
    """`mine` stands in those of betas and over the KL; without it there is nothing for the first ones to show."""
    out = Path(shutil.copytree(made.out, tmp_path / "out"))
    make.main(make.Args(redraw=True, out=out, drop=("mine",), svg=True))
    before, after = files(made.out), files(out)
    changed = {name for name in before if name.endswith(".png") and before[name] != after.get(name)}
    assert changed == {f"{name}.png" for name in [*BETAS, "return_over_kl"]}
    assert {name for name in after if name.startswith("betas")} == set()
    assert {name[:-4] for name in after if name.endswith(".svg")} == {*MAIN, *make.THEORY}


def test_the_columns_and_that_each_value_is_a_logged_one(made, runs_dir):
    runs = pd.read_csv(made.out / "results" / "runs.csv")
    assert list(runs.columns) == collect.RUN_COLUMNS
    assert len(runs) == 14
    _, loaded = collect.load(made.out / "results")
    for run in runs.itertuples():
        result = json.loads((runs_dir / run.run / "result.json").read_text())
        for name in ("env_id", "seed", "sps", "wall_time_s", "params_sha256", "script_sha256"):
            assert getattr(run, name) == result[name]
        for name in ("final_return", "diverged_at"):
            assert np.isnan(getattr(run, name)) if result[name] is None else getattr(run, name) == result[name]
        events = EventAccumulator(str(runs_dir / run.run)).Reload()
        curve = pd.read_csv(collect.curve_path(made.out / "results", run.run))
        of_run = loaded[loaded["run"] == run.run].reset_index(drop=True)
        pd.testing.assert_frame_equal(of_run[list(curve)], curve, check_dtype=False, rtol=1e-6)
        assert set(of_run["seed"]) == {run.seed}
        curve = curve.set_index("global_step")
        assert len(curve) == len(events.Scalars("partition/in")) >= (2 if run.diverged_at > 0 else 4)
        for tag, column in collect.TAGS.items():
            logged = {scalar.step: np.float32(scalar.value) for scalar in events.Scalars(tag)}
            if column != "episodic_return":
                logged = {step: np.float32(f"{value:.3e}") for step, value in logged.items()}
            assert curve[column].dropna().astype(np.float32).to_dict() == logged


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
    assert ours[2].endswith("(2)")
    assert "±" in ours[2]
    assert ours[3].endswith("(1)")
    assert "±" not in ours[3]
    assert ours[4:] == ["—", "1 of 1"]
    pendulum = panel(figures.learning_curves(compare.main_runs(runs), curves), "Pendulum-v1")
    assert pendulum.get_title(loc="left") == "Pendulum-v1, 1 to 2 seeds"
    assert texts(pendulum) == "kl_adaptive: missing"
    colors = {line.get_color() for line in pendulum.lines}
    assert colors == {STYLES[variant]["color"] for variant in ("clip", "kl_fixed")}  # the forms are one line
    assert "Pendulum-v1, 1 to 2 seeds, kl_adaptive: missing: 1,024 steps\n" in made.stdout


def test_a_run_that_diverged_is_counted_and_not_averaged(made, data):
    every_run, _, curves = data
    runs = every_run[every_run["env_id"] == "Unstable-v0"].set_index("run")
    assert runs["diverged_at"].to_dict() == {"unstable/0": "", "unstable/1": "601"}
    (row,) = [row for row in table(made.out / "tables.md", "final_return") if row[0] == "Unstable-v0"]
    assert row[3] == f"{runs['final_return']['unstable/0']:,.0f} (1 of 2, 1 diverged)"
    wide = figures.wide(runs.reset_index(), curves, "in")
    assert (wide.index.tolist(), wide[1].last_valid_index()) == ([256, 512, 768, 1024], 512)
    unstable = panel(figures.learning_curves(compare.main_runs(every_run), curves), "Unstable-v0")
    assert [list(line.get_xdata()) for line in unstable.lines if line.get_marker() == "X"] == [[512]]
    assert "kl_fixed: 1 of 2 diverged" in texts(unstable)


def test_other_variants_than_the_main_ones_have_pictures_of_their_own(made, data):
    runs, _, curves = data
    assert "mine" not in table(made.out / "tables.md", "final_return")[0]
    rows = table(made.out / "tables.md", "betas")
    assert [row[0] for row in rows] == ["variant", "clip", "mine"]
    assert [row[1][-3:] for row in rows[1:]] == ["(2)", "(1)"]  # of clip all seeds
    runs["diverged"] = runs["run"] == "mine"
    figure = figures.small_multiples(compare.betas_runs(runs), curves, "kl")
    assert "mine: 1 of 1 diverged" in texts(figure.axes[0])


def test_each_variant_looks_the_same_whatever_else_is_drawn():
    looks = [sorted((name, str(value)) for name, value in style(variant).items()) for variant in compare.VARIANTS]
    assert all(look not in looks[:place] for place, look in enumerate(looks))
    assert style("clip = klip = phi") == style("clip")
    assert style("mine") in [{"zorder": 3, **look} for look in OTHERS]


def test_more_than_eight_seeds_are_a_band_and_those_that_break_out(made):
    """A line for the mean and, on the bimodal task alone, for the one of nine that broke out."""
    returns = {("HalfCheetah-v4", "clip"): dict(enumerate([4000.0, *[1700.0] * 8]))}
    returns |= {("Hopper-v4", "clip"): dict(enumerate([4000.0, *[1700.0] * 8])), ("Ant-v4", "clip"): {0: 1.0, 1: 2.0}}
    runs = rows_of(returns)
    curves = pd.DataFrame({"run": np.repeat(runs["run"], 3), "seed": np.repeat(runs["seed"], 3)})
    curves["global_step"] = np.tile([1, 2, 3], len(runs))
    curves["episodic_return"] = np.repeat(runs["final_return"], 3)
    figure = figures.learning_curves(runs, curves)
    assert {task: len(panel(figure, task).lines) for task in ("HalfCheetah-v4", "Hopper-v4", "Ant-v4")} == {
        "HalfCheetah-v4": 2,
        "Hopper-v4": 1,
        "Ant-v4": 3,
    }
    (band,) = panel(figure, "Hopper-v4").collections
    assert set(band.get_paths()[0].vertices[:, 1]) == {1700}


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


def test_a_folder_that_is_a_link_is_read_or_named(copied, made, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    shutil.move(copied / "phi", tmp_path / "elsewhere" / "phi")
    shutil.move(copied / "knob", tmp_path / "elsewhere" / "knob")
    (copied / "phi").symlink_to(tmp_path / "elsewhere" / "phi")
    (copied / "knob").symlink_to(tmp_path / "elsewhere" / "knob")
    (copied / "again").symlink_to(copied / "kl")
    (copied / "loop").symlink_to(copied)
    (copied / "gone").symlink_to(tmp_path / "nowhere")
    count, left_out = collect.collect(collect.from_folders(copied), tmp_path / "results")
    assert count == 14
    assert [line.split(":")[0] for line in left_out] == ["again", "gone", "loop"]
    assert files(tmp_path / "results") == files(made.out / "results")


def test_a_name_is_a_name_first_and_a_pattern_second():
    runs = ["a[1]", "a1", "b*", "bc"]
    assert collect.dropped_names(runs, ["a[1]"]) == {"a[1]"}
    assert collect.dropped_names(runs, ["a[12]"]) == {"a1"}
    assert collect.dropped_names(runs, ["b*"]) == {"b*"}
    assert collect.dropped_names(runs, ["b?"]) == {"b*", "bc"}
    with pytest.raises(collect.DataError, match="absent"):
        collect.dropped_names(runs, ["absent"])


def test_text_files_are_utf_8_whatever_the_locale(copied, tmp_path):
    """In the C locale, without Python's UTF-8 mode, a file of no named encoding is ASCII."""
    path = copied / "phi" / "result.json"
    result = json.loads(path.read_text()) | {"exp_name": "β"}
    path.write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")
    document = tmp_path / "README.md"
    document.write_text("Â <!-- results: triples -->—<!-- end --> β", encoding="utf-8")
    code = f"""
import sys
sys.path[:0] = {[str(ROOT / "plots"), str(ROOT), str(ROOT / "tools")]}
from pathlib import Path
import collect, make
make.documents = lambda out: (out / "tables.md", [out / "README.md"])
make.write_documents(Path({str(tmp_path)!r}), dict.fromkeys(make.tables.HOW_TO_READ, "") | {{"triples": "3 \\u00b1 1"}})
assert collect.read_folder(Path({str(path.parent)!r}))[0]["exp_name"] == "\\u03b2"
"""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert document.read_text(encoding="utf-8") == "Â <!-- results: triples -->3 ± 1<!-- end --> β"


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


def test_other_arguments_are_not_averaged(made, data):
    runs, every_run, _ = data
    assert "not compared: CartPole-v1, clip: runs with another clip-coef: 1\n" in made.stderr
    assert "knob/clip" not in set(runs["run"])
    points = compare.knob_points(runs, every_run)
    returns = every_run.set_index("run")["final_return"]  # of the default only the seed that the knob's run has
    expected = {"0.1": returns["knob/clip"], "0.2": returns["ppo_clip_cartpole__0"]}
    assert points.set_index("value")["final_return"].to_dict() == expected
    assert points.set_index("value")["swept"].to_dict() == {"0.1": True, "0.2": False}
    head, row = table(made.out / "tables.md", "knobs")
    assert head == ["task", "variant", "`--clip-coef 0.1`", "`--clip-coef 0.2`"]
    assert row == ["CartPole-v1", "clip", *(f"{value:,.0f} (1)" for value in expected.values())]


def test_an_argument_that_is_none_by_default_is_a_setting_as_others(made):
    rows, _ = collect.load(made.out / "results")
    clip = rows[rows["run"] == "ppo_clip_cartpole__0"].assign(run="changed", final_return="7")
    clip = changed_args(clip, [True], target_kl=0.5)
    runs, every_run, _ = compare.comparison(pd.concat([rows, clip], ignore_index=True))
    points = compare.knob_points(runs, every_run)
    points = points[points["knob"] == "--target-kl"]
    assert points["value"].tolist() == ["0.5", "None"]
    head, _, row = tables.knob_tables(points, tables.mean_and_std).splitlines()
    assert head == "| task | variant | `--target-kl 0.5` | `--target-kl None` |"
    assert row.startswith("| CartPole-v1 | clip | 7 (1) | ")
    assert [ax.get_xlabel() for ax in figures.knobs(runs, points).axes] == ["--target-kl"]


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
    assert "differ nowhere" in text  # CartPole-v1


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


def test_the_zero_of_the_scores_is_what_a_random_policy_returns():
    committed = pd.read_csv(ROOT / "plots" / "random_policy.csv", comment="#", index_col="task")
    assert set(committed.index) == set(compare.PAPER.index)
    for task in ("CartPole-v1", "Hopper-v4"):
        returns = random_policy.random_returns(task, episodes=100)
        assert abs(returns.mean() - committed.loc[task, "mean"]) < 6 * committed.loc[task, "std"] / 10


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
    assert estimates.holm([]).tolist() == []
    assert [tables.verdict(p) for p in (np.nan, 0.0001, 0.049, 0.051)] == [
        "—",
        "p < 0.001, differs",
        "p = 0.049, differs",
        "p = 0.051",
    ]


@pytest.mark.parametrize("steps", [1_000_000, 102_400])
def test_only_runs_as_long_as_the_papers_are_tested_against_them(steps):
    runs = rows_of({("Hopper-v4", "kl_fixed"): {0: 2000.0, 1: 2100.0}}, steps=steps)
    tests = tables.tests_beside_paper(runs)
    p = estimates.welch_published([2000.0, 2100.0], 2616, 208)
    assert tests == ({("Hopper-v4", "kl_fixed"): p} if steps == 1_000_000 else {})
    rows = tables.final_return_table(runs, compare.identical_triples(runs), tests).splitlines()
    assert sum("Welch" in row for row in rows) == len(tests)


def test_what_a_cell_says_of_runs_without_a_final_return():
    runs = rows_of({("Hopper-v4", "spo"): {0: 1.0, 1: 3.0, 2: None, 3: np.nan}})
    assert tables.mean_and_std(runs[:3]) == "2 ± 1 (2 of 3, 1 diverged)"
    assert tables.mean_and_std(runs[2:3]) == "— (0 of 1, 1 diverged)"
    assert tables.mean_and_std(runs[2:]) == "— (0 of 2, 1 diverged, 1 without an end of an episode)"
    assert tables.mean_and_std(runs[:2]) == "2 ± 1 (2)"
    assert tables.mean_and_std(runs[:0]) == "—"
    assert figures.remarks(runs, "Hopper-v4", ["spo"]).splitlines() == [
        "spo: 1 of 4 diverged",
        "spo: in 1 of 4 no episode ended at last",
    ]


def test_the_three_forms_are_one_variant_only_if_all_triples_are_identical(data):
    runs, _, _ = data
    assert compare.identical_triples(runs).to_dict() == {("Pendulum-v1", 0): True}
    assert compare.present(compare.merged(runs)["variant"])[0] == "clip = klip = phi"
    runs.loc[runs["variant"] == "phi", "params_sha256"] = "other"
    assert compare.identical_triples(runs).to_dict() == {("Pendulum-v1", 0): False}
    assert tables.main_variants(compare.merged(runs)) == compare.MAIN
    assert tables.main_variants(compare.merged(runs[runs["variant"] != "phi"])) == compare.MAIN


def test_the_version_of_a_script_is_that_of_its_runs(made):
    versions = collect.load_runs(made.out / "results").set_index("run")["script_sha256"]
    names = {"phi": ("phi", False), "kl": ("kl_fixed", False), "knob/clip": ("clip", True)}
    assert {run: compare.present_sha256(*name) for run, name in names.items()} == versions[[*names]].to_dict()
    assert versions[[*names]].nunique() == len(names)
    assert compare.present_sha256("mine", False) is None


def test_a_file_of_betas_has_the_version_of_the_loop_that_it_trains_with(made):
    """And where it stands alone, the task says which loop that is: both runs are of the present version."""
    rows = collect.load_runs(made.out / "results").set_index("run", drop=False)
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


def test_the_peak_of_the_killed_share_is_that_of_the_mean_over_the_five_seeds():
    returns = {("Hopper-v4", "clip"): {0: 1.0, 1: 1.0, 5: 1.0}, ("Ant-v4", "klip"): {0: 1.0}}
    runs = rows_of(returns, steps=10**6)
    short = rows_of({("Ant-v4", "clip"): {0: 1.0}}, steps=10**5).assign(run="short")
    shares = {"run": ["run0", "run0", "run1", "run1", "run2", "run3", "short"]}
    shares |= {"global_step": [1, 2, 1, 2, 1, 1, 1], "kill": [0.1, 0.4, 0.3, 0.2, 0.9, 0.9, 0.8]}
    table = tables.kill_peak_table(pd.concat([runs, short]), pd.DataFrame(shares))
    assert table.splitlines()[2:] == ["| Hopper-v4 | 30.0 % (2) | 10.7 % (5) |"]


def test_runs_that_never_left_the_clip_are_named():
    returns = {("Hopper-v4", "clip"): {0: 1, 1: 2}, ("Hopper-v4", "dual_clip"): {0: 1, 1: 2}, ("Ant-v4", "spo"): {0: 3}}
    runs = rows_of(returns)
    assert tables.like_clip(runs.assign(params_sha256=["a", "b", "a", "c", "a"])) == "dual_clip on Hopper-v4 (1 of 2)"
    assert tables.like_clip(runs.assign(params_sha256=["a", "", "c", "", ""])) == ""


def test_each_coefficient_is_tested_beside_clip_and_corrected():
    clip, spo, sapo = {0: 3.0, 1: 5.0, 2: 4.5, 3: None}, {0: 1.0, 1: 2.0, 2: 1.5}, {0: 3.5, 1: 4.0}
    returns = {("Hopper-v4", "clip"): clip, ("Hopper-v4", "spo"): spo, ("Hopper-v4", "sapo"): sapo}
    returns |= {("Hopper-v4", "none"): {0: 1.0}, ("Ant-v4", "spo"): {0: 3.0, 1: 4.0}}
    smaller, larger = (
        scipy.stats.ttest_ind([3, 5, 4.5], other, equal_var=False).pvalue for other in ([1, 2, 1.5], [3.5, 4])
    )
    assert tables.tests_table(rows_of({key: value for key, value in returns.items() if "clip" in key})) == ""
    assert tables.tests_table(rows_of(returns)).splitlines()[2:] == [
        f"| spo | {tables.verdict(2 * smaller)} | — |",
        f"| sapo | {tables.verdict(max(2 * smaller, larger))} | — |",
        "| none | — | — |",
    ]
    assert tables.differing(tables.tests_beside_clip(rows_of(returns))) == f"{int(2 * smaller < 0.05)} of 2"


def test_a_second_implementation_is_tested_beside_ours(monkeypatch):
    returns = {("Hopper-v4", "clip"): {0: 10, 1: 12, 2: None}, ("Hopper-v4", "kl_fixed"): {0: 5, 1: 8}}
    returns |= {("Ant-v4", "clip"): {0: 1}}
    peers = {"task": "Hopper-v4", "beta": ["", "", "", "1", "1", "3"], "seed": [0, 1, 2, 0, 1, 0]}
    monkeypatch.setattr(compare, "PEER", pd.DataFrame({**peers, "final_return": [9.0, 13, 11, 1, 3, 99]}))
    pairs = ([10, 12], [5, 8]), ([9, 13, 11], [1, 3]), ([10, 12], [9, 13, 11]), ([5, 8], [1, 3])
    p_values = [scipy.stats.ttest_ind(*pair, equal_var=False).pvalue for pair in pairs]
    ours, theirs, clip, penalty = (tables.verdict(p) for p in estimates.holm(p_values))
    runs = rows_of(returns, steps=10**6)
    assert tables.peer_table(runs).splitlines()[2:] == [
        f"| Hopper-v4 | ours | 11 ± 1 (2 of 3, 1 diverged) | 6 ± 2 (2) | {ours} |",
        f"| Hopper-v4 | Stable-Baselines3 | 11 ± 2 (3) | 2 ± 1 (2) | {theirs} |",
        f"| Hopper-v4 | Welch's test | {clip} | {penalty} |  |",
    ]
    assert tables.peer_table(runs.assign(steps=10**5)) == ""  # shorter than the paper's


def test_without_other_variants_there_is_nothing_to_say_of_them(data):
    runs, every_run, curves = data
    sections = tables.sections(compare.main_runs(runs), compare.main_runs(every_run), curves)
    said = [name for name, part in sections.items() if part and re.match("betas|best|published", name)]
    assert said == ["betas_differing"]
    assert sections["betas_differing"] == "0 of 0"
    assert sections["final_return"]


def test_how_far_the_policy_moves_is_a_median_over_iterations_and_seeds():
    runs = rows_of({("Hopper-v4", "clip"): {0: 1.0}, ("Hopper-v4", "spo"): {0: 1.0}, ("Ant-v4", "spo"): {0: 1.0}})
    curves = {"run": ["run0"] * 3 + ["run1"] * 3, "approx_kl": [0.1, 0.2, 9, 0.01, 0.03, np.nan]}
    curves = pd.DataFrame(curves | {"in": [1, 0.5, 0.75, 0.9, 0.8, 0.8]})
    table = tables.crossed(runs, ["variant"], "env_id", lambda cell: tables.region(cell, curves))
    assert table.splitlines()[2:] == ["| clip | 0.200, 25 % | — |", "| spo | 0.020, 20 % | — |"]


def test_every_setting_of_a_surrogate_is_a_point_over_its_kl(data):
    runs, every_run, curves = data
    settings = compare.settings(runs, every_run)
    points = {(point["env_id"], point["setting"]): point for point in figures.setting_points(settings, curves)}
    assert [setting for task, setting in points if task == "CartPole-v1"] == ["clip", "clip --clip-coef 0.1"]
    knob = points["CartPole-v1", "clip --clip-coef 0.1"]
    of_run = curves[curves["run"] == "knob/clip"]
    assert (knob["variant"], knob["value"]) == ("clip", "0.1")
    assert knob["kl"] == pytest.approx(of_run["approx_kl"].median())
    assert knob["final_return"] == every_run.set_index("run")["final_return"]["knob/clip"]
    figure = figures.return_over_kl(settings, curves)
    assert "0.1" in texts(panel(figure, "CartPole-v1"))
    assert "runs that diverged: 1" in texts(panel(figure, "Unstable-v0"))


def test_the_numbers_of_the_findings():
    """Of β = 1 the tasks with the smallest and the largest KL; of the published coefficients the best one."""
    returns = {(task, "kl_fixed"): {0: 1.0} for task in ("Hopper-v4", "Ant-v4", "CartPole-v1")}
    runs = rows_of(returns, **{"--beta": 1})
    curves = pd.DataFrame({"run": ["run0", "run1", "run2"], "approx_kl": [0.5, 1851.6, 0.0012]})
    found = tables.beta_one_numbers(runs, curves)
    assert found == {"smallest_kl": "0.001 (CartPole-v1)", "largest_kl": "1,852 (Ant-v4)"}
    assert set(tables.beta_one_numbers(runs.assign(**{"--beta": 3}), curves).values()) == {""}

    def aggregate(*improvement):
        return estimates.Aggregate(["Hopper-v4"], (1, 1, 1), improvement or None)

    found = {"clip": aggregate(), "spo": aggregate(0.2, 0.1, 0.3), "soft": aggregate(0.7, 0.51, 0.9)}
    assert tables.published_numbers(found | {"mine": aggregate(0.9, 0.8, 1.0)}) == {
        "published": "2",
        "best_coefficient": "soft",
        "best_improvement": "0.70 [0.51, 0.90]",
        "published_above_clip": "1 of 2",
    }
    assert tables.mean_numbers(runs)["mean_CartPole_v1_kl_fixed"] == "1"


def test_what_is_committed_follows_from_the_committed_data():
    """The tables and numbers, to the letter; pictures by the hash of the runs in them, since their bytes depend on how
    matplotlib was built. If it fails: python plots/make.py --redraw"""
    plots = ROOT / "plots"
    rows, curves = collect.load(plots / "results")
    runs, every_run, _ = compare.comparison(rows)
    sections = tables.sections(runs, every_run, curves)
    tables_md, others = make.documents(plots)
    assert tables_md.read_text(encoding="utf-8") == tables.page(sections)
    for path in others:
        text = path.read_text(encoding="utf-8")
        assert text == make.filled(text, sections)
    shown = {name: of_picture for name, _, of_picture in make.pictures(runs, every_run, curves)}
    assert {path.stem for path in plots.glob("*.png")} == set(shown)
    for name in shown.keys() - set(make.THEORY):
        source = Image.open(plots / f"{name}.png").text["Source"]
        assert source == collect.sha256(plots / "results", shown[name]["run"]), name
    assert not list(plots.glob("*.svg"))


STATISTIC = re.compile(r"\bp\s*[<>=≤≥]\s*[\d.]+|\[-?\d[\d.,]*, -?\d[\d.,]*\]")


def test_no_statistic_is_typed_by_hand():
    """A p value or an interval stands in a generated block, or is not said."""
    tables_md, documents = make.documents(ROOT / "plots")
    assert STATISTIC.findall("p = 0.03, p<0.001, p ≥ 0.2, [0.25, 0.36], [-1, 2]") == [
        *("p = 0.03", "p<0.001", "p ≥ 0.2", "[0.25, 0.36]", "[-1, 2]")
    ]
    typed = []
    for path in documents:
        assert path != tables_md
        text = path.read_text(encoding="utf-8")
        # The lines of a block stay, empty, so that those after it keep their numbers.
        text = re.sub(
            r"<!-- results: .*?<!-- end -->", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL
        )
        for number, line in enumerate(text.splitlines(), 1):
            typed += [f"{path.relative_to(ROOT)}:{number}: {found}" for found in STATISTIC.findall(line)]
    assert not typed, "\n".join(typed)


def wandb_run(path):
    """A run as wandb's service would give it, from the file that wandb writes offline."""

    def values(items):
        return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

    summary, history = {}, []
    for record in wandb_file.records(path):
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
