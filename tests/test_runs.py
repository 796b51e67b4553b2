"""What a run leaves behind, read back from the real files: TensorBoard, W&B, result.json, agent.pt."""

import ast
import hashlib
import importlib
import json
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import countdown_env
import numpy as np
import pytest
import torch
import wandb_file
from helpers import FIELDS, ONE_OF_EACH, ROOT, SHORT, command, environment, load, run, run_all, task

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
    return run_all(tmp_path_factory.mktemp("runs"), COMMANDS)


def expected_tags(name):
    extra = {"beta/scalar", "kl/final"} if "kl_scalar" in COMMANDS[name][0] else set()
    missing = {"charts/episodic_return", "charts/episodic_length"} if name == "no episode ends" else set()
    return (TAGS | extra | ({"eval/episodic_return"} if name in SAVED else set())) - missing


def wandb_run(run):
    """(run record, {tag: [(step, value)]}, summary) of the one W&B run in run's working directory."""
    (path,) = run.cwd.glob("wandb/offline-run-*/run-*.wandb")
    record, scalars, summary = None, defaultdict(list), {}
    for entry in wandb_file.records(path):
        if entry.HasField("run"):
            record = entry.run
        if entry.HasField("history"):
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in entry.history.item}
            for tag in row.keys() - {"global_step"}:
                scalars[tag].append((row["global_step"], row[tag]))
        if entry.HasField("summary"):
            summary |= {item.key or "/".join(item.nested_key): item.value_json for item in entry.summary.update}
    return record, scalars, summary


@pytest.mark.parametrize("name", COMMANDS)
def test_tensorboard_holds_every_tag(runs, name):
    run = runs[name]
    assert set(run.scalars) == expected_tags(name)
    args, last = run.result["args"], run.result["global_step"]
    batch = args["num_envs"] * args["num_steps"]
    for tag in expected_tags(name) - {"charts/episodic_return", "charts/episodic_length", "eval/episodic_return"}:
        assert [step for step, _ in run.scalars[tag]] == list(range(batch, last + 1, batch)), tag
        assert np.isfinite(run.values(tag)).all(), tag


@pytest.mark.parametrize("name", COMMANDS)
def test_tensorboard_holds_the_arguments(runs, name):
    assert runs[name].hyperparameters == {key: str(value) for key, value in runs[name].result["args"].items()}


@pytest.mark.parametrize("name", TRACKED)
def test_wandb_holds_the_same_tags_and_values(runs, name):
    _, scalars, _ = wandb_run(runs[name])
    assert expected_tags(name) <= set(scalars)
    for tag in expected_tags(name):
        (steps, values), (wandb_steps, wandb_values) = (
            zip(*runs[name].scalars[tag], strict=True),
            zip(*scalars[tag], strict=True),
        )
        assert wandb_steps == steps
        assert wandb_values == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize("name", TRACKED)
def test_wandb_knows_which_run_it_is(runs, name):
    record, _, summary = wandb_run(runs[name])
    result = runs[name].result
    assert (record.run_group, record.job_type) == (result["exp_name"], result["env_id"])
    assert record.project == result["args"]["wandb_project_name"]
    assert record.display_name == str(runs[name].folder.relative_to(runs[name].cwd / "runs"))
    config = {item.key: json.loads(item.value_json) for item in record.config.update}
    assert {key: config[key] for key in result["args"]} == result["args"]
    for field in ("params_sha256", "script_sha256"):
        assert json.loads(summary[field]) == result[field]


@pytest.mark.parametrize("name", COMMANDS)
def test_result_has_exactly_its_fields(runs, name):
    run = runs[name]
    result = run.result
    assert list(result) == [*FIELDS, "versions", *(["eval_returns"] if name in SAVED else [])]
    assert set(result["versions"]) == {"python", "torch", "gymnasium", "mujoco", "numpy"}
    assert result["versions"]["torch"] == torch.__version__
    assert [result[key] for key in ("env_id", "exp_name", "seed")] == [
        result["args"][key] for key in ("env_id", "exp_name", "seed")
    ]
    assert result["exp_name"] == COMMANDS[name][0]
    assert result["diverged_at"] is None
    batch = result["args"]["num_envs"] * result["args"]["num_steps"]
    assert result["global_step"] == result["args"]["total_timesteps"] // batch * batch
    assert result["sps"] == pytest.approx(result["global_step"] / result["wall_time_s"])
    assert f": final return {result['final_return']}, params_sha256 {result['params_sha256']}\n" in run.stdout
    written = {path.name for path in run.folder.iterdir()} - {"result.json", "agent.pt"}
    assert len(written) == 1  # the events: nothing half-written is left
    assert (run.folder / "agent.pt").exists() == (name in SAVED)


@pytest.mark.parametrize("name", COMMANDS)
def test_final_return_is_the_mean_over_the_last_tenth(runs, name):
    result = runs[name].result
    logged = runs[name].scalars.get("charts/episodic_return", [])
    last = [value for step, value in logged if step > 0.9 * result["global_step"]]
    assert result["final_return"] == (pytest.approx(np.mean(last), rel=1e-6) if last else None)
    if name in ("no episode ends", "clip cartpole"):  # in the others it depends on what was learned
        assert (name == "no episode ends") == (result["final_return"] is None)


@pytest.mark.parametrize("name", COMMANDS)
def test_partition_adds_up_and_percentiles_rise(runs, name):
    run = runs[name]
    fractions = np.array([run.values(f"partition/{part}") for part in ("in", "kill", "pass")])
    assert (fractions >= -1e-7).all()
    np.testing.assert_allclose(fractions.sum(0), 1, rtol=1e-6)
    np.testing.assert_allclose(fractions[1:].sum(0), run.values("losses/clipfrac"), atol=1e-6)
    betas = np.array([run.values(f"beta/p{p}") for p in ("01", "10", "50", "90", "99")])
    assert (np.diff(betas, axis=0) >= 0).all()
    # β_t < 0 on the killed samples with Â > 0, > 0 on those with Â < 0: more than 2 % of killed must show at 1 or 99 %.
    assert ((betas[0] < 0) | (betas[-1] > 0))[fractions[1] > 0.02].all()


@pytest.mark.parametrize("name", COMMANDS)
def test_learning_rate_anneals_to_zero(runs, name):
    rates = runs[name].values("charts/learning_rate")
    args = runs[name].result["args"]
    expected = args["learning_rate"] * (1 - args["anneal_lr"] * np.arange(len(rates)) / len(rates))
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


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
    actor = "actor" if "cartpole" in name else "actor_mean"
    outputs = len(weights[f"{actor}.4.bias"])
    agent = module.Agent(weights["critic.0.weight"].shape[1], outputs)
    agent.load_state_dict(weights)
    digest = hashlib.sha256()
    for _, param in agent.named_parameters():
        digest.update(param.detach().numpy().tobytes())
    assert digest.hexdigest() == runs[name].result["params_sha256"]
    if "cartpole" not in name:
        assert checkpoint["obs_stats"]["count"] == STEPS + 1  # each step's observation, and the first


@pytest.mark.parametrize("name", SAVED)
def test_a_new_process_reproduces_the_evaluation(runs, name):
    script = f"import json, sys, {COMMANDS[name][0]} as m; print(json.dumps(m.evaluate(sys.argv[1]).tolist()))"
    command = [sys.executable, "-c", script, runs[name].folder / "agent.pt"]
    here = environment(PYTHONPATH=str(ROOT))
    done = subprocess.run(command, env=here, cwd=runs[name].cwd, capture_output=True, text=True, check=True)
    returns = runs[name].result["eval_returns"]
    assert json.loads(done.stdout) == returns
    assert len(returns) == 10
    assert runs[name].values("eval/episodic_return") == pytest.approx(returns, rel=1e-6)


def test_cartpole_learns(runs):
    """Pushed at random a pole stands for 22 steps; after 20,480 steps, with each of twelve seeds, for over 150. A CPU
    that rounds otherwise is like another seed."""
    result = runs["clip cartpole"].result
    assert result["final_return"] > 75
    assert np.mean(result["eval_returns"]) > 100


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_evaluation_has_a_random_stream_of_its_own(script, tmp_path, monkeypatch):
    """Seeded once, before the first episode, with a seed that is none of training's."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(script)
    arguments = {"num_envs": 2, "num_steps": 8, "total_timesteps": 16, "num_minibatches": 2, "compile": False}
    env_id = task(script, "Countdown")
    module.train(module.Args(env_id=env_id, seed=5, run_name="mine", save_model=True, **arguments))
    before = (tmp_path / "runs/mine/agent.pt").read_bytes()
    countdown_env.received.clear()
    assert len(module.evaluate("runs/mine/agent.pt")) == 10
    assert {order.seed for order in countdown_env.received} == {
        np.random.SeedSequence(5).spawn(4)[2].generate_state(1)[0]
    }
    episodes = [order.episode for order in countdown_env.received]
    assert sorted(set(episodes)) == list(range(episodes[0], episodes[0] + 10))
    assert (tmp_path / "runs/mine/agent.pt").read_bytes() == before


def test_an_evaluation_freezes_the_statistics_and_takes_the_likeliest_action(tmp_path, monkeypatch):
    """Its actions are those of the saved network on observations normalised by the saved statistics."""
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("ppo_klip_continuous")
    arguments = {"num_steps": 64, "total_timesteps": 256, "num_minibatches": 2, "compile": False, "learning_rate": 0.01}
    module.train(module.Args(env_id=task("", "Countdown"), run_name="mine", save_model=True, **arguments))
    checkpoint = torch.load("runs/mine/agent.pt", weights_only=True)
    stats = {name: value.numpy() for name, value in checkpoint["obs_stats"].items()}
    agent = module.Agent(3, 2)
    agent.load_state_dict(checkpoint["agent"])
    countdown_env.received.clear()
    module.evaluate("runs/mine/agent.pt", episodes=4)
    orders = countdown_env.received
    obs = np.array([[countdown_env.who_of(order.seed), order.episode, order.step] for order in orders])
    normalised = ((obs - stats["mean"]) / np.sqrt(np.maximum(stats["m2"] / stats["count"], 1e-8))).clip(-10, 10)
    with torch.no_grad():
        actions = agent.actor_mean(torch.as_tensor(normalised, dtype=torch.float32)).numpy()
    expected = np.clip(actions, [-0.5, -2.0], [0.5, 0.1])
    np.testing.assert_allclose([order.action for order in orders], expected, rtol=1e-4, atol=1e-5)


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    """Three at once, and then forty folders of one name."""
    rates = ("1e-3", "2e-3", "3e-3")
    arguments = ("--total-timesteps", "512", "--learning-rate")
    how = {"cwd": tmp_path, "env": environment(), "stdout": subprocess.DEVNULL}
    processes = [subprocess.Popen(command("ppo_clip_cartpole", *arguments, rate), **how) for rate in rates]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    folders = list(tmp_path.glob("runs/*"))
    results = [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in folders]
    assert sorted(result["args"]["learning_rate"] for result in results) == [float(rate) for rate in rates]
    assert [len(list(folder.glob("events*"))) for folder in folders] == [1, 1, 1]

    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(ppo_clip_cartpole.make_run_folder, [ppo_clip_cartpole.Args()] * 40))
    assert len(set(names)) == 40
    assert {folder.name for folder in tmp_path.glob("runs/*")} == {*names, *(folder.name for folder in folders)}


def test_a_package_that_is_not_installed_has_no_version(tmp_path, monkeypatch):
    """CartPole-v1 needs no MuJoCo. Here nothing is installed but one package."""
    (tmp_path / "torch-9.9.dist-info").mkdir()
    (tmp_path / "torch-9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    versions = ppo_clip_cartpole.package_versions()
    assert versions == {**dict.fromkeys(("gymnasium", "mujoco", "numpy")), "torch": "9.9", "python": versions["python"]}


def test_another_locale_changes_nothing(tmp_path):
    """The scripts are UTF-8, whatever the locale's encoding is: here ASCII."""
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run(tmp_path, "ppo_clip_cartpole", "--total-timesteps", "512", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.result["script_sha256"] == ppo_clip_cartpole.script_sha256(ppo_clip_cartpole.Args())


BETA = """
import copied
from pydantic.dataclasses import dataclass


@dataclass
class Args(copied.Args):
    width: float = 0.1
"""


@pytest.fixture
def digests(tmp_path, monkeypatch):
    """A function of the texts of a script and of a file of betas/ that returns the hashes of both's code."""
    for name in ("copied", "beta"):
        monkeypatch.setitem(sys.modules, name, None)

    def both(script, beta):
        (tmp_path / "copied.py").write_text(script, encoding="utf-8")
        (tmp_path / "beta.py").write_text(beta, encoding="utf-8")
        module = load(tmp_path / "copied.py")
        return module.script_sha256(module.Args()), module.script_sha256(load(tmp_path / "beta.py").Args())

    return both


def test_script_sha256_is_that_of_the_code(digests):
    """Of the file that defines Args too, if that is another one, as in betas/; without comments, docstrings, layout."""
    text = (ROOT / "ppo_clip_cartpole.py").read_text(encoding="utf-8")
    alone, both = digests(text, BETA)
    assert ppo_clip_cartpole.script_sha256(ppo_clip_cartpole.Args()) == alone != both
    for old in ('"""PPO-Clip', '"""End the program'):
        assert old in text
        text = text.replace(old, old + " of others")
    tidied = ast.unparse(ast.parse(text))
    assert digests(tidied + "\n# a comment", BETA.replace("Args):", 'Args):\n    """One."""\n')) == (alone, both)
    beta_changed = digests(text, BETA.replace("0.1", "0.2"))
    script_changed = digests(text.replace("1e-5", "1e-6"), BETA)
    assert beta_changed[0] == alone != script_changed[0]
    assert len({both, beta_changed[1], script_changed[1]}) == 3


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


def test_a_script_that_is_edited_while_it_runs(tmp_path, monkeypatch):
    """Its result has the hash of what runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "copied", None)
    path, text = tmp_path / "copied.py", (ROOT / "ppo_klip_cartpole.py").read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    copied = load(path)
    before, gae = copied.script_sha256(copied.Args()), copied.gae

    def edit(*args):
        path.write_text(text + "edited = True\n", encoding="utf-8")
        return gae(*args)

    monkeypatch.setattr(copied, "gae", edit)
    copied.train(copied.Args(total_timesteps=512, run_name="mine"))
    assert copied.script_sha256(copied.Args()) != before
    assert json.loads((tmp_path / "runs/mine/result.json").read_text(encoding="utf-8"))["script_sha256"] == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_knows_its_code(runs, name):
    module = importlib.import_module(COMMANDS[name][0])
    assert runs[name].result["script_sha256"] == module.script_sha256(module.Args())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_is_quiet(runs, name):
    """No warnings; on standard error nothing but W&B's own lines."""
    lines = runs[name].stderr.splitlines()
    assert all(line.startswith("wandb:") for line in lines), runs[name].stderr
    assert "warning" not in (runs[name].stdout + runs[name].stderr).lower()
    assert bool(lines) == (name in TRACKED)
    progress = [line for line in runs[name].stdout.splitlines() if line.startswith("step ")]
    assert 1 <= len(progress) < 20
