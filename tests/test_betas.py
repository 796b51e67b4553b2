"""betas/: each file's gradient against the published objective, written out here as its paper has it; and its runs."""

import dataclasses
import importlib
import inspect
import math
import re
from functools import partial

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, load, run_in_turn
from pydantic.dataclasses import dataclass

import ppo_klip_cartpole
import ppo_klip_continuous
from betas.loop import parse

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


RNG = np.random.default_rng(0)
FAR = np.repeat([-300.0, -30.0, 30.0, 300.0], 5)
LOG_RATIO = np.concatenate([RNG.normal(0, 0.5, 4000), RNG.uniform(-3, 3, 1000), FAR])
ADVANTAGES = np.concatenate([RNG.normal(0, 2, 5000), np.tile([-1e3, -0.5, 0.0, 0.5, 1e3], 4)])
OTHER = {
    **{"eps": 0.07, "eps_low": 0.13, "eps_high": 0.6, "c": 1.7, "alpha": 0.9, "eta": 1.9},
    **{"tau_pos": 3.0, "tau_neg": 0.4},
}


def check_close(ours, expected, w):
    """Up to the rounding of w Â + β_t, whose largest term grows with the squares of w and Â."""
    assert (np.abs(ours - expected) <= 1e-11 * (1 + w) ** 2 * (1 + np.abs(ADVANTAGES)) ** 2).all()
    assert (ours[ADVANTAGES == 0] == 0).all()


@pytest.mark.parametrize("arguments", [{}, OTHER], ids=["defaults", "other arguments"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_gradient_is_the_published_one(name, arguments):
    arguments = {key: value for key, value in arguments.items() if key in own(name)}
    for eps, old_logprob in ((0.2, 0.0), (0.2, -7.5), (0.6, 4.25)):
        ours, w = gradients(name, LOG_RATIO, ADVANTAGES, eps, old_logprob, **arguments)
        published, _ = gradients(PUBLISHED[name], LOG_RATIO, ADVANTAGES, eps, old_logprob, **arguments)
        check_close(ours, published, w)


@pytest.mark.parametrize("width", [0.001, 0.1, 30.0])
@pytest.mark.parametrize("shape", ["ramp", "sigmoid", "softmin"])
def test_a_soft_gate_is_its_definition(shape, width):
    """How much of the clip's coefficient there is, from d, how far w lies beyond the edge on the side of I_kill."""
    ours, w = gradients("soft", LOG_RATIO, ADVANTAGES, 0.2, shape=shape, width=width)
    if shape == "softmin":
        expected, _ = gradients(softmin, LOG_RATIO, ADVANTAGES, 0.2, width=width)
    else:
        d = np.where(ADVANTAGES > 0, w - 1.2, 0.8 - w)
        gate = np.clip(d / width, 0, 1) if shape == "ramp" else 0.5 * (1 + np.tanh(d / width / 2))
        expected = w * ADVANTAGES * (1 - gate)
    check_close(ours, expected, w)


# The files.


def test_every_file_is_tested_and_in_the_readme():
    files = {path.stem for path in (ROOT / "betas").glob("*.py")}  # among them the user's own
    assert files >= set(NAMES)
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_reaches_the_surrogate(name):
    parameters = inspect.signature(MODULES[name].surrogate).parameters
    keywords = {key: value.default for key, value in parameters.items() if value.default is not inspect.Parameter.empty}
    assert keywords == own(name)
    assert MODULES[name].Args().exp_name == name
    _, _, handed_over = (ROOT / f"betas/{name}.py").read_text(encoding="utf-8").partition("\n    script.train(args, ")
    assert handed_over.startswith("partial(surrogate, " if keywords else "surrogate)")
    assert re.findall(r"(\w+)=args\.(\w+)", handed_over) == [(key, key) for key in keywords]


@pytest.mark.parametrize("name", [*NAMES, "soft sigmoid", "soft softmin"])
def test_the_update_is_one_graph_and_epsilon_may_change(name):
    name, _, shape = name.partition(" ")
    arguments = own(name) | ({"shape": shape} if shape else {})
    surrogate = partial(MODULES[name].surrogate, **arguments)
    torch._dynamo.reset()
    graph = torch.compile(ppo_klip_continuous.update, fullgraph=True, dynamic=False, backend="eager")
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


@dataclass
class Mine(ppo_klip_continuous.Args):
    """What a user's own file may set."""

    exp_name: str = "mine"
    learning_rate: float = 1e-2
    width: float = 0.5


def test_a_discrete_task_gets_cartpoles_defaults_but_for_what_the_file_sets():
    args, script = parse(Mine, ["--env_id=CartPole-v1", "--width", "0.25", "--num-steps", "64"])
    assert script is ppo_klip_cartpole
    cartpole = dataclasses.asdict(ppo_klip_cartpole.Args())
    own_values = {"exp_name": "mine", "learning_rate": 1e-2, "width": 0.25, "num_steps": 64}
    assert dataclasses.asdict(args) == cartpole | own_values
    for env_id in ("Pendulum-v1", "NoSuchTask-v0"):  # a task that is none is left to the training loop, which says so
        args, script = parse(Mine, ["--env-id", env_id])
        assert script is ppo_klip_continuous
        assert dataclasses.asdict(args) == dataclasses.asdict(Mine(env_id=env_id))


# Trainings. test_the_update_is_one_graph asks of every file that it can be compiled.

EAGER = (*SHORT, "--total-timesteps", "1024", "--no-compile", "--save-model")
CARTPOLE = ("--env-id", "CartPole-v1", "--total-timesteps", "2048", "--learning-rate", "3e-3")
# The clip as a β, and the script that must end with the same bytes.
PAIRS = {"continuous": ("ppo_clip_continuous", EAGER), "cartpole": ("ppo_klip_cartpole", CARTPOLE)}


def test_the_clip_as_a_beta_is_the_clip_to_the_bit(tmp_path):
    """With the ε that is not its default; and it is a run of klip's loop with an argument more."""
    commands = {}
    for case, (script, arguments) in PAIRS.items():
        commands[f"clip {case}"] = (script, *arguments)
        commands[f"beta {case}"] = ("betas/clip_eps", "--eps", 0.2, *arguments)
    runs = run_in_turn(tmp_path, commands)
    for case in PAIRS:
        beta, clip = runs[f"beta {case}"], runs[f"clip {case}"]
        assert beta.stderr == ""
        assert "__clip_eps__0__" in beta.folder.name
        assert beta.result["args"] == clip.result["args"] | {"exp_name": "clip_eps", "eps": 0.2}
        assert beta.result["script_sha256"] != clip.result["script_sha256"]
        assert max(beta.values("partition/kill")) > 0.01
        assert beta.result["params_sha256"] == clip.result["params_sha256"]
        assert beta.result.get("eval_returns") == clip.result.get("eval_returns")


def test_write_your_own_by_the_readme(tmp_path):
    """It changes a line of spo.py; its commands are those that test_docs.py parses."""
    diff = re.search(r"```diff\n(.*?)```", README[README.index("## Write your own") :], re.DOTALL)[1]
    (old,), (new,) = (re.findall(rf"^ *\{sign}(    .*)$", diff, re.MULTILINE) for sign in "-+")
    text = (ROOT / "betas/spo.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / "mine_of_the_readme.py").write_text(text.replace(old, new), encoding="utf-8")
    mine = load(tmp_path / "mine_of_the_readme.py")
    inputs = torch.tensor([0.3, -0.3]), torch.zeros(2), torch.ones(2), 0.2
    assert mine.surrogate(*inputs).isfinite().all()
    assert (mine.surrogate(*inputs) != MODULES["spo"].surrogate(*inputs)).all()
