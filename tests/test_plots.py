"""The pictures and tables, from short real runs."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "plots")]

import collect
import figures
import make
import stats
import theory

import ppo_clip_cartpole
import ppo_clip_continuous
import ppo_kl_scalar_continuous
import ppo_klip_cartpole
import ppo_klip_continuous
import ppo_phi_continuous

CONTINUOUS = {"env_id": "Pendulum-v1", "compile": False, "total_timesteps": 1024, "num_steps": 256}
DISCRETE = {"total_timesteps": 1024, "num_steps": 32, "num_minibatches": 2}


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory):
    """Pendulum-v1: clip and klip with two seeds, phi and kl_fixed with one, kl_adaptive missing; CartPole-v1: clip and
    klip with two seeds, and clip with another --clip-coef in a folder below."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("trained"))
    try:
        for seed in (0, 1):
            for module in (ppo_clip_cartpole, ppo_klip_cartpole):
                module.train(module.Args(**DISCRETE, seed=seed, run_name=f"{module.__name__}__{seed}"))
            for module in (ppo_clip_continuous, ppo_klip_continuous):
                module.train(module.Args(**CONTINUOUS, seed=seed, run_name=f"{module.__name__}__{seed}"))
        ppo_phi_continuous.train(ppo_phi_continuous.Args(**CONTINUOUS, run_name="phi"))
        ppo_kl_scalar_continuous.train(ppo_kl_scalar_continuous.Args(**CONTINUOUS, run_name="kl"))
        ppo_clip_cartpole.train(ppo_clip_cartpole.Args(**DISCRETE, clip_coef=0.1, run_name="knob/clip"))
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
    names = ["overview", "learning_curves", "identity", "partition", "beta", "aggregate", "knobs", "theory"]
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    expected |= {"final_return.md", "final_return.tex", "results/runs.csv"}
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
    columns = "run env_id variant seed final_return diverged_at sps wall_time_s params_sha256 script_sha256 versions args"
    assert list(runs.columns) == columns.split()
    columns = "global_step episodic_return approx_kl in kill pass beta_p01 beta_p10 beta_p50 beta_p90 beta_p99"
    assert len(runs) == 11
    for run in runs.itertuples():
        result = json.loads((runs_dir / run.run / "result.json").read_text())
        for name in ("env_id", "seed", "final_return", "sps", "wall_time_s", "params_sha256"):
            assert getattr(run, name) == result[name]
        events = EventAccumulator(str(runs_dir / run.run)).Reload()
        curve = pd.read_csv(collect.curve_path(made.out / "results", run.run))
        assert list(curve.columns) == columns.split()
        curve = curve.set_index("global_step")
        assert len(curve) == len(events.Scalars("partition/in")) >= 4
        for tag, column in collect.TAGS.items():
            logged = {scalar.step: np.float32(scalar.value) for scalar in events.Scalars(tag)}
            if column != "episodic_return":
                logged = {step: np.float32(f"{value:.3e}") for step, value in logged.items()}
            assert curve[column].dropna().astype(np.float32).to_dict() == logged


def test_each_row_of_the_curves_is_of_its_run(made):
    runs, curves = collect.load(made.out / "results")
    for run, curve in curves.groupby("run"):
        row = runs.set_index("run").loc[run]
        assert {*zip(curve["env_id"], curve["variant"], curve["seed"])} == {(row["env_id"], row["variant"], int(row["seed"]))}
        alone = pd.read_csv(collect.curve_path(made.out / "results", run))
        assert curve["global_step"].tolist() == alone["global_step"].tolist()
        np.testing.assert_array_equal(curve["in"], alone["in"].astype(np.float32))


def test_a_missing_cell_is_shown_as_missing(made, data):
    runs, _, curves = data
    assert figures.seeds(runs, "Pendulum-v1") == "2 seeds: clip, klip; 1 seed: phi, kl_fixed; missing: kl_adaptive"
    assert figures.seeds(runs, "CartPole-v1") == "2 seeds"
    rows = [line.split(" | ") for line in (made.out / "final_return.md").read_text().splitlines()]
    (ours,) = [row for row in rows if row[0] == "| Pendulum-v1"]
    assert ours[1] == "ours, 1,024 steps"
    assert ours[2].endswith("(2)")
    assert ours[4].endswith("(1)")
    assert "±" not in ours[4]
    assert ours[6] == "— |"
    titles = [ax.get_title(loc="left") for ax in figures.learning_curves(runs, curves).axes]
    assert any("missing:\nkl_adaptive" in title or "missing: kl_adaptive" in title for title in titles)


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
    assert count == 11
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
    assert collect.collect(collect.from_folders(copied), tmp_path / "results") == (10, [])
    for path in copied.rglob("events*"):
        path.write_bytes(b"")  # whoever reads one of these again finds no iteration
    shutil.move(tmp_path / "phi", copied / "phi")
    assert collect.collect(collect.from_folders(copied), tmp_path / "results") == (11, [])
    assert files(tmp_path / "results") == files(made.out / "results")
    result = copied / "kl" / "result.json"
    result.write_text(result.read_text().replace('"wall_time_s": ', '"wall_time_s": 1'))
    left_out = ["kl: its log holds 0 of 4 iterations"]
    assert collect.collect(collect.from_folders(copied), tmp_path / "results") == (11, left_out)
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
    assert collect.collect([("a/b", lambda: (result, log))], tmp_path) == (1, [])
    runs, curves = collect.load(tmp_path)
    assert runs[["run", "final_return", "diverged_at"]].to_numpy().tolist() == [["a/b", "", str(at)]]
    assert curves["global_step"].tolist() == [256 * (i + 1) for i in range(iterations)]
    log += [{"global_step": 256 * (iterations + 1), **{tag: 0.0 for tag in collect.TAGS}}]
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
    assert "not compared: CartPole-v1, clip: runs with another clip_coef: 1\n" in made.stderr
    assert "knob/clip" not in set(runs["run"])
    points = figures.knob_points(runs, every_run)
    assert set(points["knob"]) == {"clip_coef"}
    assert points.groupby("value").size().to_dict() == {0.1: 1, 0.2: 2}
    knob = every_run.set_index("run").loc["knob/clip", "final_return"]
    assert points.loc[points["value"] == 0.1, "return"].tolist() == [knob]


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


def test_aggregates_against_a_computation_by_hand():
    rng = np.random.default_rng(1)
    table = [("A", "clip", 5), ("A", "klip", 4), ("B", "clip", 5), ("B", "klip", 5), ("C", "clip", 3)]
    returns = {(task, variant): rng.normal(50, 20, n).round() for task, variant, n in table}
    rows = [(task, variant, value) for (task, variant), values in returns.items() for value in values]
    cells, tasks = stats.scores(pd.DataFrame(rows, columns=["env_id", "variant", "final_return"]))
    assert tasks == ["A", "B"]  # C lacks klip

    scaled = {}
    for task in tasks:
        low, high = (f([*returns[task, "clip"], *returns[task, "klip"]]) for f in (min, max))
        scaled |= {(task, v): [(x - low) / (high - low) for x in returns[task, v]] for v in ("clip", "klip")}
    pool = sorted(scaled["A", "klip"] + scaled["B", "klip"])  # 9 scores, of which int(9 / 4) go at each end
    assert stats.iqm(*cells["klip"]) == pytest.approx(np.mean(pool[2:-2]))
    chances = [scipy.stats.mannwhitneyu(returns[t, "klip"], returns[t, "clip"]).statistic for t in tasks]
    by_hand = (chances[0] / 20 + chances[1] / 25) / 2
    assert stats.improvement(*cells["klip"], *cells["clip"]) == pytest.approx(by_hand)

    draws = []
    for _ in range(4000):
        again = np.concatenate([rng.choice(scaled[task, "klip"], len(scaled[task, "klip"])) for task in tasks])
        draws.append(np.mean(sorted(again)[2:-2]))
    value, *ends = stats.interval(stats.iqm, cells["klip"])
    assert value == stats.iqm(*cells["klip"])
    assert ends == pytest.approx(np.percentile(draws, (2.5, 97.5)), abs=0.02)
    assert stats.interval(stats.iqm, cells["klip"]) == (value, *ends)
    assert np.isnan(stats.interval(stats.iqm, [np.array([0.5])])[1:]).all()


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
    assert r"Hopper-v4 & ours & -- & -- & -- & -- & -- \\" in text
    assert r" & paper & 2,598 $\pm$ 278 (5) & 2,598 $\pm$ 278 (5) & -- & 2,616 $\pm$ 208 (5) &" in text
    table = text[text.index(r"\begin") :]
    assert not set("±—") & set(table)
    assert "_" not in table.replace(r"\_", "")


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
    command = [sys.executable, ROOT / "ppo_clip_cartpole.py", "--track", "--save-model", "--total-timesteps", "20480"]
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
