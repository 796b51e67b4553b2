"""What a run leaves behind, read back from the real files: TensorBoard, W&B, result.json, agent.pt."""

import hashlib
import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import collect
import countdown_env
import numpy as np
import pytest
import torch
import wandb_file
from helpers import FIELDS, ONE_OF_EACH, SHORT, load, run_all, run_in_turn, task

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
    return (TAGS | extra | ({"eval/episodic_return"} if name in SAVED else set())) - missing


@pytest.mark.parametrize("name", COMMANDS)
def test_tensorboard_holds_every_tag_and_the_arguments(runs, name):
    run = runs[name]
    assert set(run.scalars) == expected_tags(name)
    args, last = run.result["args"], run.result["global_step"]
    assert run.hyperparameters == {key: str(value) for key, value in args.items()}
    batch = args["num_envs"] * args["num_steps"]
    for tag in expected_tags(name) - {"charts/episodic_return", "charts/episodic_length", "eval/episodic_return"}:
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
    assert list(result) == [*FIELDS, "versions", *(["eval_returns"] if name in SAVED else [])]
    assert set(result["versions"]) == {"python", "torch", "gymnasium", "mujoco", "numpy"}
    for key in ("env_id", "exp_name", "seed"):
        assert result[key] == result["args"][key]
    assert result["exp_name"] == COMMANDS[name][0]
    assert result["diverged_at"] is None
    module = importlib.import_module(COMMANDS[name][0])
    assert result["script_sha256"] == module.script_sha256(module.Args())
    batch = result["args"]["num_envs"] * result["args"]["num_steps"]
    assert result["global_step"] == result["args"]["total_timesteps"] // batch * batch
    assert result["sps"] == pytest.approx(result["global_step"] / result["wall_time_s"])
    assert f": final return {result['final_return']}, params_sha256 {result['params_sha256']}\n" in run.stdout
    written = {path.name for path in run.folder.iterdir()} - {"result.json", "agent.pt"}
    assert len(written) == 1  # the events: nothing half-written is left
    assert (run.folder / "agent.pt").exists() == (name in SAVED)


def test_what_wandb_writes_gives_the_plots_the_same_data(runs, tmp_path):
    """A run as wandb's service would give it, from the file that wandb writes offline."""
    folder = runs["phi cartpole"].cwd
    tracked = wandb_file.read(folder)
    online = SimpleNamespace(summary_metrics=tracked.summary, state="crashed")
    online.scan_history = lambda: iter(tracked.history)
    assert collect.collect(collect.from_folders(folder / "runs"), tmp_path / "folders") == (1, [])
    assert collect.collect([("x", lambda: collect.read_wandb(online))], tmp_path / "wandb") == (1, [])
    (rows, curves), (wandb_rows, wandb_curves) = (collect.load(tmp_path / name) for name in ("folders", "wandb"))
    assert rows.drop(columns="run").equals(wandb_rows.drop(columns="run"))
    assert curves.drop(columns="run").equals(wandb_curves.drop(columns="run"))

    del online.summary_metrics["params_sha256"]
    left_out = ["x: no result in its W&B summary (crashed)"]
    assert collect.collect([("x", lambda: collect.read_wandb(online))], tmp_path / "none")[1] == left_out


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
    returns = runs[name].result["eval_returns"]
    assert len(returns) == 10
    assert runs[name].values("eval/episodic_return") == pytest.approx(returns, rel=1e-6)


def test_cartpole_learns(runs):
    """Pushed at random a pole stands for 22 steps; after 20,480 steps, with each of twelve seeds, for over 150. A CPU
    that rounds otherwise is like another seed."""
    result = runs["clip cartpole"].result
    assert result["final_return"] > 75
    assert np.mean(result["eval_returns"]) > 100


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_an_evaluation_repeats_itself_with_frozen_statistics_and_a_seed_of_its_own(script, tmp_path, monkeypatch):
    """Its actions are the likeliest of the saved network, on observations normalised by the saved statistics."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(script)
    arguments = {"num_envs": 1, "num_steps": 64, "total_timesteps": 256, "num_minibatches": 2, "learning_rate": 0.01}
    env_id = task(script, "Countdown")
    module.train(module.Args(env_id=env_id, seed=5, run_name="mine", save_model=True, compile=False, **arguments))
    path = tmp_path / "runs/mine/agent.pt"
    before = path.read_bytes()
    countdown_env.received.clear()
    returns = module.evaluate(path).tolist()
    orders = countdown_env.received
    assert returns == json.loads((tmp_path / "runs/mine/result.json").read_text(encoding="utf-8"))["eval_returns"]
    assert path.read_bytes() == before
    assert {order.seed for order in orders} == {np.random.SeedSequence(5).spawn(4)[2].generate_state(1)[0]}
    episodes = [order.episode for order in orders]
    assert sorted(set(episodes)) == list(range(episodes[0], episodes[0] + 10))

    checkpoint = torch.load(path, weights_only=True)
    agent = module.Agent(3, 3 if "cartpole" in script else 2)
    agent.load_state_dict(checkpoint["agent"])
    obs = np.array([[countdown_env.who_of(order.seed), order.episode, order.step] for order in orders])
    got = np.array([order.action for order in orders])
    with torch.no_grad():
        if "cartpole" in script:
            np.testing.assert_array_equal(got, 5 + agent.actor(torch.as_tensor(obs, dtype=torch.float32)).argmax(-1))
        else:
            stats = {name: value.numpy() for name, value in checkpoint["obs_stats"].items()}
            deviation = np.sqrt(np.maximum(stats["m2"] / stats["count"], 1e-8))
            normalised = ((obs - stats["mean"]) / deviation).clip(-10, 10)
            actions = agent.actor_mean(torch.as_tensor(normalised, dtype=torch.float32)).numpy()
            np.testing.assert_allclose(got, np.clip(actions, [-0.5, -2.0], [0.5, 0.1]), rtol=1e-4, atol=1e-5)


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(ppo_clip_cartpole.make_run_folder, [ppo_clip_cartpole.Args()] * 40))
    assert len(set(names)) == 40
    assert {folder.name for folder in tmp_path.glob("runs/*")} == set(names)


SMALL = '''
"""A docstring."""
from dataclasses import dataclass
@dataclass
class Args:  # Ä
    """Another."""
    seed: int = 0
    text: str = "é, x=[]"
def empty():
    pass
def shadow(x, *rest, key=[1, 2], **more):
    global empty
    return lambda: {**more, "a": [], 2: (x, 1j, 3e8)}
'''


def test_script_sha256_of_a_small_file(tmp_path, monkeypatch):
    """Pinned, because the data set's rows are found by it; and the same under every Python."""
    monkeypatch.setitem(sys.modules, "small", None)
    (tmp_path / "small.py").write_text(SMALL, encoding="utf-8")
    small = load(tmp_path / "small.py")
    monkeypatch.setattr(ppo_clip_cartpole, "__file__", str(tmp_path / "small.py"))
    pinned = "53e825b3b9998310646197e367cad172426f817b346b9ed39ac34312d81ef79b"
    assert ppo_clip_cartpole.script_sha256(small.Args()) == pinned


def test_the_hash_is_of_the_script_that_runs(tmp_path, monkeypatch):
    """Also if the file is edited meanwhile."""
    monkeypatch.chdir(tmp_path)
    gae = ppo_clip_cartpole.gae

    def edit(*args):
        monkeypatch.setattr(ppo_clip_cartpole, "script_sha256", lambda args: "edited")
        return gae(*args)

    monkeypatch.setattr(ppo_clip_cartpole, "gae", edit)
    ppo_clip_cartpole.train(ppo_clip_cartpole.Args(total_timesteps=512, run_name="mine"))
    assert json.loads((tmp_path / "runs/mine/result.json").read_text())["script_sha256"] != "edited"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_is_quiet(runs, name):
    """No warnings; on standard error nothing but W&B's own lines."""
    lines = runs[name].stderr.splitlines()
    assert all(line.startswith("wandb:") for line in lines), runs[name].stderr
    assert "warning" not in (runs[name].stdout + runs[name].stderr).lower()
    assert bool(lines) == (name in TRACKED)
    progress = [line for line in runs[name].stdout.splitlines() if line.startswith("step ")]
    assert 1 <= len(progress) < 20
