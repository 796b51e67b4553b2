"""What a run leaves behind, read back from the real files: TensorBoard, W&B, result.json, agent.pt."""

import hashlib
import importlib
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import collect
import numpy as np
import pandas as pd
import pytest
import torch
import wandb_file
from helpers import FIELDS, ROOT, SHORT, Run, complaints, environment, load, run_all, run_in_turn, task

import ppo_clip_cartpole

TAGS = {
    *("charts/episodic_return", "charts/episodic_length", "charts/learning_rate", "charts/SPS"),
    *("losses/value_loss", "losses/policy_loss", "losses/entropy", "losses/old_approx_kl", "losses/approx_kl"),
    *("losses/clipfrac", "losses/explained_variance"),
    *("partition/in", "partition/kill", "partition/pass"),
    *("beta/p01", "beta/p10", "beta/p50", "beta/p90", "beta/p99"),
}
STEPS = 4096
COMMON = (*SHORT, "--total-timesteps", STEPS + 100, "--no-compile")  # rounded down to whole rollouts
CARTPOLE = ("--total-timesteps", STEPS, "--save-model")
CHEETAH = (*COMMON, "--env-id", "HalfCheetah-v4", "--total-timesteps", "512")
# A KL of any training is above the one target, so that β must double, and below the other, so that it must halve.
DOUBLE, HALVE = ("--adaptive-beta", "--kl-target", "1e-9", "--no-anneal-lr"), ("--adaptive-beta", "--kl-target", "1e3")
COMMANDS = {
    "clip cartpole": ("ppo_clip_cartpole", "--total-timesteps", "20480", "--learning-rate", "1e-3", "--save-model"),
    "clip": ("ppo_clip_continuous", *COMMON, "--track", "--save-model", "--seed", "3", "--wandb-project-name", "trial"),
    "kl_scalar": ("ppo_kl_scalar_continuous", *COMMON, *DOUBLE, "--track", "--save-model", "--run-name", "group/mine"),
    "kl_scalar cartpole": ("ppo_kl_scalar_cartpole", *CARTPOLE, *HALVE, "--kl-penalty", "sample"),
    "phi cartpole": ("ppo_phi_cartpole", *CARTPOLE, "--track"),
    "no episode ends": ("ppo_kl_scalar_continuous", *CHEETAH, "--beta", "3", "--kl-penalty", "k3"),
}
TRACKED = [name for name, command in COMMANDS.items() if "--track" in command]
SAVED = [name for name, command in COMMANDS.items() if "--save-model" in command]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    tracked = {name: command for name, command in COMMANDS.items() if name in TRACKED}
    others = {name: command for name, command in COMMANDS.items() if name not in TRACKED}
    folder = tmp_path_factory.mktemp("runs")
    return run_all(folder, tracked) | run_in_turn(folder, others)


def expected_tags(name):
    extra = {"beta/scalar", "kl/final"} if "kl_scalar" in COMMANDS[name][0] else set()
    missing = {"charts/episodic_return", "charts/episodic_length"} if name == "no episode ends" else set()
    return (TAGS | extra) - missing


@pytest.mark.parametrize("name", COMMANDS)
def test_tensorboard_holds_every_tag_and_the_arguments(runs, name):
    run = runs[name]
    assert set(run.scalars) == expected_tags(name)
    args, last = run.result["args"], run.result["global_step"]
    assert run.hyperparameters == {key: str(value) for key, value in args.items()}
    batch = args["num_envs"] * args["num_steps"]
    for tag in expected_tags(name) - {"charts/episodic_return", "charts/episodic_length"}:
        assert [step for step, _ in run.scalars[tag]] == list(range(batch, last + 1, batch)), tag
        assert np.isfinite(run.values(tag)).all(), tag
    rates = run.values("charts/learning_rate")
    annealed = 1 - args["anneal_lr"] * np.arange(len(rates)) / len(rates)
    np.testing.assert_allclose(rates, args["learning_rate"] * annealed, rtol=1e-6)


@pytest.mark.parametrize("name", TRACKED)
def test_wandb_holds_the_same_and_knows_which_run_it_is(runs, name):
    tracked, result = wandb_file.read(runs[name].cwd), runs[name].result
    for tag in expected_tags(name):
        steps, values = zip(*runs[name].scalars[tag], strict=True)
        logged = [(row["global_step"], row[tag]) for row in tracked.history if tag in row]
        wandb_steps, wandb_values = zip(*logged, strict=True)
        assert wandb_steps == steps
        assert wandb_values == pytest.approx(values, rel=1e-6)
    record = tracked.record
    assert (record.run_group, record.job_type) == (result["exp_name"], result["env_id"])
    assert record.project == result["args"]["wandb_project_name"]
    assert record.display_name == str(runs[name].folder.relative_to(runs[name].cwd / "runs"))
    assert {key: tracked.config[key] for key in result["args"]} == result["args"]
    for field in ("params_sha256", "script_sha256"):
        assert tracked.summary[field] == result[field]


@pytest.mark.parametrize("name", COMMANDS)
def test_result_has_exactly_its_fields(runs, name):
    run = runs[name]
    result = run.result
    assert list(result) == [*FIELDS, "versions"]
    assert set(result["versions"]) == {"python", "torch", "gymnasium", "mujoco", "numpy"}
    for key in ("env_id", "exp_name", "seed"):
        assert result[key] == result["args"][key]
    assert result["exp_name"] == COMMANDS[name][0]
    assert result["diverged_at"] is None
    batch = result["args"]["num_envs"] * result["args"]["num_steps"]
    assert result["global_step"] == result["args"]["total_timesteps"] // batch * batch
    assert result["sps"] == pytest.approx(result["global_step"] / result["wall_time_s"])
    assert f": final return {result['final_return']}, params_sha256 {result['params_sha256']}\n" in run.stdout
    script = (ROOT / f"{COMMANDS[name][0]}.py").read_bytes()
    assert (run.folder / f"{COMMANDS[name][0]}.py").read_bytes() == script
    assert result["script_sha256"] == hashlib.sha256(script).hexdigest()
    written = {path.name for path in run.folder.iterdir()} - {"result.json", "agent.pt", f"{COMMANDS[name][0]}.py"}
    assert len(written) == 1  # the events: nothing half-written is left
    assert (run.folder / "agent.pt").exists() == (name in SAVED)


def test_what_wandb_writes_gives_the_plots_the_same_data(runs):
    """A run as wandb's service would give it, from the file that wandb writes offline."""
    folder = runs["phi cartpole"].cwd
    tracked = wandb_file.read(folder)
    online = SimpleNamespace(summary_metrics=tracked.summary, state="crashed")
    online.scan_history = lambda: iter(tracked.history)
    rows, curves, left_out = collect.collect(collect.from_folders(folder / "runs"))
    wandb_rows, wandb_curves, wandb_left_out = collect.collect([("x", lambda: collect.read_wandb(online))])
    assert (len(rows), left_out, wandb_left_out) == (1, [], [])
    columns = ["run", "ended"]  # the clocks of two logs
    assert rows.drop(columns=columns).equals(wandb_rows.drop(columns=columns))
    assert curves.drop(columns="run").equals(wandb_curves.drop(columns="run"))
    between = pd.to_datetime(wandb_rows["ended"]) - pd.to_datetime(rows["ended"])
    assert abs(between[0]) < pd.Timedelta(minutes=5)

    del online.summary_metrics["params_sha256"]
    left_out = ["x: no result in its W&B summary (crashed)"]
    assert collect.collect([("x", lambda: collect.read_wandb(online))])[2] == left_out


@pytest.mark.parametrize("name", COMMANDS)
def test_final_return_is_the_mean_over_the_last_tenth(runs, name):
    result = runs[name].result
    logged = runs[name].scalars.get("charts/episodic_return", [])
    last = [value for step, value in logged if step > 0.9 * result["global_step"]]
    assert result["final_return"] == (pytest.approx(np.mean(last), rel=1e-6) if last else None)
    if name in ("no episode ends", "clip cartpole"):  # in the others it depends on what was learned
        assert (name == "no episode ends") == (result["final_return"] is None)


def test_adaptive_beta_moves_once_a_rollout(runs):
    doubled, halved = [min(2.0**i, 1e4) for i in range(STEPS // 256)], [0.5**i for i in range(STEPS // 512)]
    assert runs["kl_scalar"].values("beta/scalar") == doubled
    assert runs["kl_scalar cartpole"].values("beta/scalar") == halved
    assert runs["no episode ends"].values("beta/scalar") == [3.0, 3.0]


@pytest.mark.parametrize("name", SAVED)
def test_the_saved_parameters_have_the_hash(runs, name):
    module = importlib.import_module(COMMANDS[name][0])
    checkpoint = torch.load(runs[name].folder / "agent.pt", weights_only=True)
    assert module.Args(**checkpoint["args"]) == module.Args(**runs[name].result["args"])
    weights = checkpoint["agent"]
    outputs = weights["actor.4.bias" if "cartpole" in name else "actor_mean.4.bias"]
    agent = module.Agent(weights["critic.0.weight"].shape[1], len(outputs))
    agent.load_state_dict(weights)
    digest = hashlib.sha256()
    for _, param in agent.named_parameters():
        digest.update(param.detach().numpy().tobytes())
    assert digest.hexdigest() == runs[name].result["params_sha256"]
    if "cartpole" not in name:
        assert checkpoint["obs_stats"]["count"] == STEPS + 1  # each step's observation, and the first


def test_cartpole_learns(runs):
    """Pushed at random a pole stands for 22 steps; after 20,480 steps, with each of twelve seeds, for over 150. A CPU
    that rounds otherwise is like another seed."""
    assert runs["clip cartpole"].result["final_return"] > 75


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(ppo_clip_cartpole.make_run_folder, [ppo_clip_cartpole.Args()] * 40))
    assert len(set(folders)) == 40
    assert set(tmp_path.glob("runs/*")) == {tmp_path / folder for folder in folders}


def short(module, Args=None, **arguments):
    """Trains in the working directory, in this process; one rollout of CartPole."""
    module.train((Args or module.Args)(total_timesteps=512, run_name="mine", **arguments))
    return Run(Path.cwd(), 0, "", "")


def test_the_copy_is_of_the_script_that_runs(tmp_path, monkeypatch):
    """Also if the file is edited meanwhile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "copied", None)
    script = Path(shutil.copy(ROOT / "ppo_clip_cartpole.py", tmp_path / "copied.py"))
    copied = load(script)
    before = script.read_bytes()
    gae = copied.gae

    def edit(*args):
        script.write_text("edited")
        return gae(*args)

    monkeypatch.setattr(copied, "gae", edit)
    done = short(copied)
    assert (done.folder / "copied.py").read_bytes() == before
    assert done.result["script_sha256"] == hashlib.sha256(before).hexdigest()


def test_processes_for_the_environments_are_one_word_away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "copied", None)
    text = (ROOT / "ppo_clip_cartpole.py").read_text(encoding="utf-8")
    (tmp_path / "copied.py").write_text(text.replace("SyncVectorEnv", "AsyncVectorEnv"), encoding="utf-8")
    hashes = []
    for name, module in {"one": ppo_clip_cartpole, "four": load(tmp_path / "copied.py")}.items():
        module.train(module.Args(total_timesteps=1024, run_name=name))
        hashes.append(json.loads(Path("runs", name, "result.json").read_text())["params_sha256"])
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("names", [(), ("a.py", "b.py")])
def test_a_run_keeps_the_files_that_say_what_is_trained(names, tmp_path, monkeypatch):
    """Their texts in this order have the hash. What has no file, as in a notebook, has no copy."""
    monkeypatch.chdir(tmp_path)
    for name in names:
        (tmp_path / name).write_bytes(f"# {name}\r\n".encode())
    args = ppo_clip_cartpole.Args(total_timesteps=512, run_name="mine")
    ppo_clip_cartpole.train(args, ppo_clip_cartpole.surrogate, sources=names)
    result = json.loads((tmp_path / "runs/mine/result.json").read_text())
    texts = b"".join((tmp_path / "runs/mine" / name).read_bytes() for name in names)
    assert texts == b"".join((tmp_path / name).read_bytes() for name in names)
    assert result["script_sha256"] == (hashlib.sha256(texts).hexdigest() if names else None)
    assert len(list(tmp_path.glob("runs/mine/*.py"))) == len(names)


def test_arguments_of_a_class_without_a_file(tmp_path):
    """As in a notebook."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import dataclasses, ppo_clip_cartpole
Mine = dataclasses.make_dataclass("Mine", [("note", str, "mine")], bases=(ppo_clip_cartpole.Args,))
Mine.__module__ = "__main__"
ppo_clip_cartpole.train(Mine(total_timesteps=512, run_name="mine"))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert Run(tmp_path, 0, "", "").result["args"]["note"] == "mine"


@dataclass
class WithPath(ppo_clip_cartpole.Args):
    data: Path = Path("some/data")


def test_an_argument_that_json_cannot_hold_is_written_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = short(ppo_clip_cartpole, WithPath, save_model=True)
    checkpoint = torch.load(done.folder / "agent.pt", weights_only=True)
    for args in (done.result["args"], checkpoint["args"], done.hyperparameters):
        assert args["data"] == str(Path("some/data"))


@pytest.mark.parametrize("per_call", [0.0, -60.0])
def test_a_clock_that_stands_or_is_set_back(per_call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    now = [time.time()]

    def clock():
        now[0] += per_call
        return now[0]

    monkeypatch.setattr(time, "time", clock)
    done = short(ppo_clip_cartpole)
    assert 0 < done.result["wall_time_s"] < 60
    assert done.result["sps"] == pytest.approx(512 / done.result["wall_time_s"])
    assert done.values("charts/SPS")[0] > 0


def test_actions_far_from_the_policys_first_ones_are_named(tmp_path, monkeypatch, capfd):
    """It begins around 0, so that all its actions are clipped to the edge; the training goes on."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("ppo_clip_continuous")
    arguments = {"num_steps": 64, "num_minibatches": 2, "total_timesteps": 128, "compile": False}
    for num_envs in (1, 2):
        module.train(module.Args(env_id="countdown_env:Far-v0", num_envs=num_envs, **arguments))
        (line,) = capfd.readouterr().err.splitlines()
        assert "Box(90.0, 110.0, (2,), float32)" in line and "gym.wrappers.RescaleAction" in line
    module.train(module.Args(env_id=task("continuous", "Countdown"), **arguments))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_is_quiet(runs, name):
    """No warnings; on standard error nothing but W&B's own lines."""
    lines = complaints(runs[name].stderr)
    assert all(line.startswith("wandb:") for line in lines), runs[name].stderr
    assert "warning" not in "".join([runs[name].stdout, *lines]).lower()
    assert bool(lines) == (name in TRACKED)
    progress = [line for line in runs[name].stdout.splitlines() if line.startswith("step ")]
    assert 1 <= len(progress) < 20
