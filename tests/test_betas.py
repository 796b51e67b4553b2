"""betas/: each file's gradient against the published objective, written out here as its paper has it; and its runs."""

import dataclasses
import importlib
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, definitions, environment, run_in_turn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass
from strategies import EDGE_CASES, samples

import ppo_klip_cartpole
import ppo_klip_continuous
from betas.loop import parse

sys.path.insert(0, str(ROOT / "plots"))
import design_axis

NAMES = (
    *("clip_higher", "dual_clip", "rollback", "spo", "sapo", "cispo", "soft"),
    *("ano", "dpo", "aband", "clip_eps", "none"),
)
MODULES = {name: importlib.import_module(f"betas.{name}") for name in NAMES}
BASE = {field.name for field in dataclasses.fields(ppo_klip_continuous.Args)}
README = (ROOT / "betas/README.md").read_text(encoding="utf-8")


def own(name):
    """A file's own arguments and their defaults."""
    return {field.name: field.default for field in dataclasses.fields(MODULES[name].Args) if field.name not in BASE}


# The published objectives of (w, Â, log π_new), ε and the methods' own constants.


def ppo_clip(w, advantages, low, high):
    return torch.min(w * advantages, torch.clamp(w, 1 - low, 1 + high) * advantages)


def clip_eps(w, advantages, _, clip_coef, eps=0.3):
    return ppo_clip(w, advantages, eps, eps)


def clip_higher(w, advantages, _, eps, eps_low=0.2, eps_high=0.28):
    return ppo_clip(w, advantages, eps_low, eps_high)


def dual_clip(w, advantages, _, eps, c=3.0):
    clipped = ppo_clip(w, advantages, eps, eps)
    return torch.where(advantages < 0, torch.max(clipped, c * advantages), clipped)


def rollback(w, advantages, _, clip_coef, eps=0.2, alpha=0.3):
    line = torch.where(w <= 1 - eps, -alpha * w + (1 + alpha) * (1 - eps), w)
    line = torch.where(w >= 1 + eps, -alpha * w + (1 + alpha) * (1 + eps), line)
    return torch.min(w * advantages, line * advantages)


def spo(w, advantages, _, clip_coef, eps=0.2):
    return w * advantages - advantages.abs() / (2 * eps) * (w - 1) ** 2


def sapo(w, advantages, _, eps, tau_pos=1.0, tau_neg=1.05):
    def f(tau):
        return torch.sigmoid(tau * (w - 1)) * 4 / tau

    return torch.where(advantages > 0, f(tau_pos), f(tau_neg)) * advantages


def cispo(w, advantages, new_logprob, eps, eps_low=1.0, eps_high=0.2):
    return torch.clamp(w, 1 - eps_low, 1 + eps_high).detach() * advantages * new_logprob


def ano(w, advantages, _, clip_coef, eps=0.2):
    def f(w):
        """The antiderivative of the published f'."""
        x = (w - 1 - eps) * math.log(2) / eps
        return eps / math.log(2) * 45 / 16 * (-0.5 * torch.logaddexp(-2 * x, torch.zeros_like(x)) - 2 * x.sigmoid())

    return torch.where(advantages >= 0, f(w), 2 - f(2 - w)) * advantages


def dpo(w, advantages, _, eps, alpha=2.0, eta=0.6):
    u = (w - 1) * advantages
    v = w.log() * advantages
    drift = torch.where(advantages >= 0, u - alpha * (u / alpha).tanh(), v - eta * (v / eta).tanh())
    return w * advantages - drift.relu()


def aband(w, advantages, _, clip_coef, eps=0.2):
    half_width = eps * advantages.abs().clamp(0.5, 2.0)
    return ppo_clip(w, advantages, half_width, half_width)


def none(w, advantages, _, eps):
    return w * advantages


PUBLISHED = {
    f.__name__: f for f in (clip_eps, clip_higher, dual_clip, rollback, spo, sapo, cispo, ano, dpo, aband, none)
}


def softmin(w, advantages, _, eps, width):
    """The log-sum-exp minimum of the two branches over |Â|, times |Â|, so that its gradient far inside is w Â."""
    sign = advantages.sign()
    branches = torch.stack([w * sign, torch.clamp(w, 1 - eps, 1 + eps) * sign])
    return advantages.abs() * -width * torch.logsumexp(-branches / width, 0)


def gradients(objective, log_ratio, advantages, clip_coef, old_logprob=0.0, **arguments):
    """An objective's derivative in log π_new, and w, where log π_old is old_logprob; in numpy."""
    old = torch.full((len(log_ratio),), old_logprob, dtype=torch.float64)
    new = (torch.as_tensor(log_ratio, dtype=torch.float64) + old).requires_grad_()
    advantages = torch.as_tensor(advantages, dtype=torch.float64)
    if objective in MODULES:
        values = MODULES[objective].surrogate(new, old, advantages, clip_coef, **arguments)
    else:
        values = objective((new - old).exp(), advantages, new, clip_coef, **arguments)
    assert values.shape == new.shape
    assert values.dtype == torch.float64
    return torch.autograd.grad(values.sum(), new)[0].numpy(), (new - old).detach().exp().numpy()


def tolerance(w, advantages, eps, width=1.0):
    """Rounding of w Â + β_t: some steps of the largest term, which is spo's |Â| w (w - 1) / ε or a gate's d / width."""
    return 16 * np.finfo(float).eps * w * np.abs(advantages) * (1 + (1 + w) / eps + 1 / width)


def edges(name, eps, advantages, arguments):
    if name in ("clip_higher", "cispo"):
        return [1 - arguments["eps_low"], 1 + arguments["eps_high"]]
    if name in ("clip_eps", "rollback"):
        return [1 - arguments["eps"], 1 + arguments["eps"]]
    if name == "aband":
        half_width = arguments["eps"] * np.abs(advantages).clip(0.5, 2.0)
        return [1 - half_width, 1 + half_width]
    return [1 - eps, 1 + eps, arguments.get("c", 1 + eps)]


def away(w, kinks):
    """Where w is not within some rounding steps of a kink: there w Â and clip(w) Â may round to a tie. The kinks are
    test_the_edges_belong_to_the_band's."""
    return np.all([np.abs(w - kink) > 1e-12 * kink for kink in kinks], axis=0)


ARGUMENTS = {
    "clip_eps": {"eps": st.floats(0.01, 0.99)},
    "clip_higher": {"eps_low": st.floats(0.01, 0.99), "eps_high": st.floats(0.01, 5)},
    "cispo": {"eps_low": st.floats(0.01, 10), "eps_high": st.floats(0.01, 5)},
    "dual_clip": {"c": st.floats(1.01, 20)},
    "rollback": {"eps": st.floats(0.01, 0.99), "alpha": st.floats(0, 5)},
    "spo": {"eps": st.floats(0.01, 5)},
    "sapo": {"tau_pos": st.floats(0.01, 20), "tau_neg": st.floats(0.01, 20)},
    "ano": {"eps": st.floats(0.01, 5)},
    "dpo": {"alpha": st.floats(0.01, 20), "eta": st.floats(0.01, 20)},
    "aband": {"eps": st.floats(0.01, 0.49)},
}


def check(name, pairs, eps, old_logprob, arguments):
    log_ratio, advantages = np.array(pairs).T
    ours, w = gradients(name, log_ratio, advantages, eps, old_logprob, **arguments)
    published, _ = gradients(PUBLISHED[name], log_ratio, advantages, eps, old_logprob, **arguments)
    arguments = own(name) | arguments
    compared = away(w, edges(name, eps, advantages, arguments))
    # Where a gradient is larger than w Â it is as exact as itself; dpo's is of Â log w where Â < 0.
    step = 16 * np.finfo(float).eps
    rounding = tolerance(w, advantages, min(eps, arguments.get("eps", eps))) + step * np.abs(published)
    if name == "dpo":
        rounding += step * (np.abs(advantages) + advantages**2 / arguments["eta"])
    assert (np.abs(ours - published) <= rounding)[compared].all()
    assert (ours[advantages == 0] == 0).all()


@pytest.mark.parametrize("name", PUBLISHED)
@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([0.0, -7.5, 4.25]))
@example(EDGE_CASES, 0.0)
def test_gradient_is_the_published_one(name, pairs, old_logprob):
    check(name, pairs, 0.2, old_logprob, {})


@pytest.mark.parametrize("name", PUBLISHED)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_gradient_is_the_published_one_for_other_arguments(name, data):
    arguments = {key: data.draw(strategy, key) for key, strategy in ARGUMENTS.get(name, {}).items()}
    check(name, data.draw(samples), data.draw(st.floats(0.01, 0.9), "eps"), 0.0, arguments)


def gate(shape, w, advantages, eps, width):
    """How much of the clip's coefficient there is, from d, how far w lies beyond the edge on the side of I_kill."""
    d = np.where(advantages > 0, w - (1 + eps), (1 - eps) - w)
    return np.clip(d / width, 0, 1) if shape == "ramp" else 0.5 * (1 + np.tanh(d / width / 2))


@pytest.mark.parametrize("shape", ["ramp", "sigmoid"])
@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([0.1, 0.001, 1.0, 30.0]))
@example(EDGE_CASES, 0.1)
def test_a_soft_gate_is_its_definition(shape, pairs, width):
    log_ratio, advantages = np.array(pairs).T
    ours, w = gradients("soft", log_ratio, advantages, 0.2, shape=shape, width=width)
    expected = w * advantages * (1 - gate(shape, w, advantages, 0.2, width))
    assert (np.abs(ours - expected) <= tolerance(w, advantages, 0.2, width)).all()


@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([0.1, 0.001, 1.0, 30.0]))
@example(EDGE_CASES, 0.1)
def test_softmin_is_the_gradient_of_a_soft_minimum(pairs, width):
    log_ratio, advantages = np.array(pairs).T
    ours, w = gradients("soft", log_ratio, advantages, 0.2, shape="softmin", width=width)
    expected, _ = gradients(softmin, log_ratio, advantages, 0.2, width=width)
    compared = away(w, [0.8, 1.2])
    assert (np.abs(ours - expected) <= tolerance(w, advantages, 0.2, width))[compared].all()


def test_the_edges_belong_to_the_band():
    """At an edge to the bit, where min has two gradients, β_t is 0. ε is made from w, so that no rounding decides."""
    advantages = np.array([-2.0, 2.0, -0.3, 0.3])
    for log_ratio in (np.full(4, 0.18), np.full(4, -0.22), np.full(4, 1.1)):
        for name in ("clip_eps", "clip_higher", "dual_clip", "rollback", "soft", "cispo"):
            _, w = gradients(name, log_ratio, advantages, 0.2)
            edge = float(w[0])
            eps = abs(edge - 1)
            assert (w == (1 + eps if edge > 1 else 1 - eps)).all()
            arguments = {"c": edge if edge > 1 else 3.0} if name == "dual_clip" else {}
            if name in ("clip_eps", "rollback"):
                arguments = {"eps": eps}
            if name in ("clip_higher", "cispo"):
                arguments = {"eps_high" if edge > 1 else "eps_low": eps}
            ours, _ = gradients(name, log_ratio, advantages, eps, **arguments)
            np.testing.assert_array_equal(ours, edge * advantages, err_msg=name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_gradient_is_lost_where_the_published_one_is_finite(name):
    """Up to e^700, near the largest float64: no infinity times 0 in a branch that is not taken."""
    log_ratio, advantages = np.meshgrid([-745.0, -700.0, -360.0, 360.0, 600.0, 700.0], [-1.0, -1e-3, 0.0, 1e-3, 1.0])
    ours, _ = gradients(name, log_ratio.ravel(), advantages.ravel(), 0.2)
    published, _ = gradients(PUBLISHED[name], log_ratio.ravel(), advantages.ravel(), 0.2)
    assert not np.isnan(ours).any()
    assert (np.isfinite(ours) >= np.isfinite(published)).all()


def test_cispo_keeps_its_gradient_however_large_the_ratio():
    """w Â + β_t is a small difference of large numbers there, and beyond e^709 of infinities."""
    log_ratio, advantages = (
        x.ravel() for x in np.meshgrid([5.0, 19.0, 21.0, 40.0, 300.0, 800.0, 1e4], [-1e3, -1.0, 0.1])
    )
    ours, _ = gradients("cispo", log_ratio, advantages, 0.2)
    published, _ = gradients(PUBLISHED["cispo"], log_ratio, advantages, 0.2)
    np.testing.assert_allclose(ours, published, rtol=1e-6)
    np.testing.assert_allclose(published, 1.2 * advantages, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("clip_eps", {"eps": 0.2}),
        ("clip_higher", {"eps_low": 0.2, "eps_high": 0.2}),
        ("dual_clip", {"c": 1e300}),
        ("rollback", {"alpha": 0.0}),
        ("soft", {"width": 1e-300}),
        ("soft", {"width": 1e-300, "shape": "softmin"}),
    ],
)
def test_the_clip_is_a_special_case(name, arguments):
    log_ratio, advantages = (x.ravel() for x in np.meshgrid(np.linspace(-3, 3, 997), [-2.0, -0.1, 0.0, 0.1, 2.0]))
    ours, _ = gradients(name, log_ratio, advantages, 0.2, **arguments)
    clip, _ = gradients(lambda w, a, _, eps: ppo_clip(w, a, eps, eps), log_ratio, advantages, 0.2)
    np.testing.assert_array_equal(ours, clip)


# The files.


def outside_the_idea(name):
    """What stands in a file beside its docstring, imports, arguments and the lines that make β_t."""
    parts = definitions(ROOT / f"betas/{name}.py")
    between = [line for line in parts[""].splitlines() if not re.match(r"from |import |    script\.train\(", line)]
    decorator, heading, exp_name, *_ = parts["Args"].splitlines()
    *_, kl, objective = parts["surrogate"].splitlines()
    return [*between, decorator, heading, exp_name, kl, objective]


def test_outside_the_idea_the_files_are_one_text():
    for name in NAMES:
        assert outside_the_idea(name) == outside_the_idea("none")


def test_every_file_is_tested_and_in_the_readme():
    files = {path.stem for path in (ROOT / "betas").glob("*.py")}  # among them the user's own
    assert files >= set(NAMES)
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_is_a_keyword_of_the_surrogate(name):
    parameters = inspect.signature(MODULES[name].surrogate).parameters
    keywords = {key: value.default for key, value in parameters.items() if value.default is not inspect.Parameter.empty}
    assert keywords == own(name)
    handed_over = re.findall(r"(\w+)=args\.(\w+)", (ROOT / f"betas/{name}.py").read_text())
    assert handed_over == [(key, key) for key in keywords]


@pytest.mark.parametrize("name", [*NAMES, "soft sigmoid", "soft softmin"])
def test_the_update_is_one_graph_and_epsilon_may_change(name):
    name, _, shape = name.partition(" ")
    arguments = own(name) | ({"shape": shape} if shape else {})
    surrogate = partial(MODULES[name].surrogate, **arguments)
    torch._dynamo.reset()
    graph = torch.compile(ppo_klip_continuous.update, fullgraph=True, dynamic=False, backend="aot_eager")
    rng = np.random.default_rng(0)
    args, outputs = MODULES[name].Args(), []
    columns = [torch.as_tensor(rng.normal(size=size), dtype=torch.float32) for size in ((64, 3), (64, 2), *[64] * 4)]
    minibatch = ppo_klip_continuous.Batch(*columns)
    for update in (ppo_klip_continuous.update, graph):
        torch.manual_seed(0)
        agent = ppo_klip_continuous.Agent(3, 2)
        adam = ppo_klip_continuous.Adam(list(agent.parameters()))
        for step, eps in enumerate((0.2, 0.1)):
            scalars = [torch.tensor(x, dtype=torch.float64) for x in (3e-4, eps)]
            with torch._dynamo.config.patch(trace_autograd_ops=True, error_on_recompile=step > 0):
                update(args, surrogate, agent, adam, *scalars, minibatch)
        outputs.append(torch.cat([param.detach().flatten() for param in agent.parameters()]))
    assert outputs[0].isfinite().all()
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-6)


OUT_OF_RANGE = {
    "clip_eps": {"eps": 0},
    "clip_higher": {"eps_low": 0, "eps_high": -1},
    "cispo": {"eps_low": -1, "eps_high": 0},
    "dual_clip": {"c": 1},
    "rollback": {"eps": 0, "alpha": -0.1},
    "spo": {"eps": 0},
    "sapo": {"tau_pos": 0, "tau_neg": -1},
    "soft": {"width": 0, "shape": "square"},
    "ano": {"eps": 0},
    "dpo": {"alpha": 0, "eta": -1},
    "aband": {"eps": 0},
}


def test_bad_arguments_end_with_code_2(capsys):
    for name, arguments in OUT_OF_RANGE.items():
        assert set(arguments) == set(own(name))
        for argument, value in arguments.items():
            with pytest.raises(SystemExit) as end:
                parse(MODULES[name].Args, [f"--{argument.replace('_', '-')}={value}"], prog=name)
            assert end.value.code == 2, (argument, value)
            assert argument in capsys.readouterr().err.replace("-", "_")


@dataclass
class Mine(ppo_klip_continuous.Args):
    """What a user's own file may set."""

    exp_name: str = "mine"
    learning_rate: float = 1e-2
    width: float = 0.5


@pytest.mark.parametrize("words", [["--env-id", "CartPole-v1"], ["--env_id=CartPole-v1"]], ids=str)
def test_a_discrete_task_gets_cartpoles_defaults_but_for_what_the_file_sets(words):
    args, script = parse(Mine, [*words, "--width", "0.25", "--num-steps", "64"])
    assert script is ppo_klip_cartpole
    cartpole = dataclasses.asdict(ppo_klip_cartpole.Args())
    own_values = {"exp_name": "mine", "learning_rate": 1e-2, "width": 0.25, "num_steps": 64}
    assert dataclasses.asdict(args) == cartpole | own_values


@pytest.mark.parametrize("env_id", [None, "Pendulum-v1", "NoSuchTask-v0"])
def test_another_task_keeps_the_continuous_defaults(env_id):
    """A task that is none is left to the training loop, which says so."""
    args, script = parse(Mine, ["--env-id", env_id] if env_id else [])
    assert script is ppo_klip_continuous
    assert dataclasses.asdict(args) == dataclasses.asdict(Mine(env_id=env_id or Mine().env_id))


# Trainings. --no-compile but where the clip as a β is compared: test_the_update_is_one_graph asks it of every file.

TRAINED = (*SHORT, "--total-timesteps", "1024", "--no-compile")
CHANGED = {
    "clip_eps": ("--eps", 0.1),
    "clip_higher": ("--eps-low", 0.1, "--eps-high", 0.4),
    "dual_clip": ("--c", 1.3),  # above it a sample must come within the run
    "rollback": ("--eps", 0.1, "--alpha", 0.1),
    "spo": ("--eps", 0.1),
    "sapo": ("--tau-pos", 2.0, "--tau-neg", 3.0),
    "cispo": ("--eps-low", 0.5, "--eps-high", 0.5),
    "soft": ("--shape", "softmin", "--width", 0.05, "--save-model"),
    "ano": ("--eps", 0.1),
    "dpo": ("--alpha", 1.0, "--eta", 0.3),
    "aband": ("--eps", 0.1),
}
COMPILED = (*SHORT, "--total-timesteps", "1024")
CARTPOLE = ("--env-id", "CartPole-v1", "--total-timesteps", "2048", "--learning-rate", "3e-3")
# The clip as a β, and the script that must end with the same bytes.
PAIRS = {
    "eager": ("ppo_clip_continuous", TRAINED),
    "compiled": ("ppo_clip_continuous", COMPILED),
    "cartpole": ("ppo_klip_cartpole", CARTPOLE),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    commands = {name: (f"betas/{name}", *TRAINED, *CHANGED.get(name, ())) for name in NAMES}
    commands["rollback as published"] = ("betas/rollback", *TRAINED)
    for case, (script, arguments) in PAIRS.items():
        commands[f"clip {case}"] = (script, *arguments)
        commands[f"beta {case}"] = ("betas/clip_eps", "--eps", 0.2, *arguments)
    return run_in_turn(tmp_path_factory.mktemp("betas"), commands)


def test_a_run_is_one_of_klips_loop_with_arguments_of_its_own(trained):
    hashes = {ppo_klip_continuous.script_sha256(ppo_klip_continuous.Args())}
    for name in NAMES:
        done = trained[name]
        assert done.stderr == ""
        assert done.folder.name.startswith(f"Hopper-v4__{name}__0__")
        result = done.result
        assert result["exp_name"] == name
        assert result["diverged_at"] is None
        assert set(result["args"]) == BASE | set(own(name))
        flags = dict(zip(CHANGED.get(name, ())[::2], CHANGED.get(name, ())[1::2], strict=False))
        for key in own(name):
            assert result["args"][key] == flags["--" + key.replace("_", "-")] != own(name)[key]
        assert result["script_sha256"] == ppo_klip_continuous.script_sha256(MODULES[name].Args())
        hashes.add(result["script_sha256"])
    assert len(hashes) == 1 + len(NAMES)
    assert len(trained["soft"].result["eval_returns"]) == 10


def test_the_arguments_reach_the_training(trained):
    """Another parameter hash for every method, and for other arguments."""
    names = [*NAMES, "rollback as published", "clip eager"]
    hashes = {name: trained[name].result["params_sha256"] for name in names}
    assert len(set(hashes.values())) == len(hashes), hashes


@pytest.mark.parametrize("case", PAIRS)
def test_the_clip_as_a_beta_is_the_clip_to_the_bit(trained, case):
    beta, clip = (trained[f"{form} {case}"] for form in ("beta", "clip"))
    assert beta.result["args"] == clip.result["args"] | {"exp_name": "clip_eps", "eps": 0.2}
    assert beta.result["args"]["compile"] == (case == "compiled")
    assert max(beta.values("partition/kill")) > 0.01
    assert beta.result["params_sha256"] == clip.result["params_sha256"]
    assert beta.scalars.keys() == clip.scalars.keys()


def test_write_your_own_by_the_readme(tmp_path):
    """Its commands in order as they stand there, trainings cut short and sweeps only planned."""
    for folder in ("betas", "plots", "tools"):
        ignored = shutil.ignore_patterns("__pycache__", "results", "*.png", "*.svg")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for file in (*ROOT.glob("ppo_*.py"), ROOT / "benchmark.sh"):
        shutil.copy(file, tmp_path)
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    shell = {"cwd": tmp_path, "env": environment(PATH=path), "capture_output": True, "text": True}
    seen = set()
    for kind, block in re.findall(r"```(\w+)\n(.*?)```", README[README.index("## Write your own") :], re.DOTALL):
        text = re.sub(r"(?m)^   ", "", block).strip()
        if kind == "diff":
            ours = tmp_path / "betas/mine.py"
            (old,), (new,) = (re.findall(rf"^\{sign}(    .*)$", text, re.MULTILINE) for sign in "-+")
            assert ours.read_text(encoding="utf-8").count(old) == 1
            ours.write_text(ours.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
            continue
        for line in text.replace("\\\n", " ").splitlines():
            command = line.partition("#")[0].strip()
            if command.startswith("python betas/"):
                command += " --total-timesteps 1024 --num-steps 256 --num-minibatches 4 --num-envs 1 --no-compile"
            elif command.startswith("./benchmark.sh"):
                command += " --dry-run"
            done = subprocess.run(["bash", "-c", command], check=False, **shell)
            assert (done.returncode, done.stderr) == (0, ""), command
            assert "--dry-run" not in command or " --total-timesteps " in done.stdout
            seen.add(" ".join(command.split()[:2]))
    assert seen >= {"cp betas/spo.py", "python plots/design_axis.py", "python betas/mine.py", "./benchmark.sh --tasks"}
    assert (tmp_path / "runs/design_axis.png").stat().st_size > 10_000
    results = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.glob("runs/*/result.json")]
    assert results and {result["exp_name"] for result in results} == {"mine"}


def test_what_the_picture_draws_is_the_factor_of_the_gradient():
    ratio = np.array([0.5, 0.9, 1.0, 1.1, 1.5, 3.2])
    for sign, clip, dual in (
        (1.0, [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]),
        (-1.0, [0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]),
    ):
        for advantages in (sign, 2.5 * sign):
            for name, kept in (("clip", clip), ("dual_clip", dual), ("none", np.ones(6))):
                drawn = design_axis.factor(name, ratio, np.full(6, advantages))
                np.testing.assert_allclose(drawn, ratio * kept, rtol=1e-14)
