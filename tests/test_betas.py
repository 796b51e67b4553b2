"""betas/: each file's gradient against the published objective, written out here as its paper has it; and its runs."""

import dataclasses
import importlib
import inspect
import math
import re
from functools import partial

import design_axis
import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, load, run_in_turn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass
from strategies import EDGE_CASES, samples

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


@pytest.mark.parametrize("shape", ["ramp", "sigmoid", "softmin"])
@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([0.1, 0.001, 1.0, 30.0]))
@example(EDGE_CASES, 0.1)
def test_a_soft_gate_is_its_definition(shape, pairs, width):
    log_ratio, advantages = np.array(pairs).T
    ours, w = gradients("soft", log_ratio, advantages, 0.2, shape=shape, width=width)
    if shape == "softmin":
        expected, _ = gradients(softmin, log_ratio, advantages, 0.2, width=width)
        compared = away(w, [0.8, 1.2])
    else:
        expected = w * advantages * (1 - gate(shape, w, advantages, 0.2, width))
        compared = True
    close = np.abs(ours - expected) <= tolerance(w, advantages, 0.2, width)
    assert (close | ~np.asarray(compared)).all()


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
    log_ratio, advantages = (
        x.ravel()
        for x in np.meshgrid([-745.0, -700.0, -360.0, 21.0, 360.0, 600.0, 700.0], [-1.0, -1e-3, 0.0, 1e-3, 1.0])
    )
    ours, _ = gradients(name, log_ratio, advantages, 0.2)
    published, _ = gradients(PUBLISHED[name], log_ratio, advantages, 0.2)
    assert not np.isnan(ours).any()
    assert (np.isfinite(ours) >= np.isfinite(published)).all()
    if name == "cispo":  # whose w Â + β_t is a small difference of large numbers
        np.testing.assert_allclose(ours, published, rtol=1e-6)


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

EAGER = (*SHORT, "--total-timesteps", "1024", "--no-compile")
CARTPOLE = ("--env-id", "CartPole-v1", "--total-timesteps", "2048", "--learning-rate", "3e-3")
SOFT = ("--shape", "softmin", "--width", 0.05, "--save-model")
# The clip as a β, and the script that must end with the same bytes.
PAIRS = {"continuous": ("ppo_clip_continuous", EAGER), "cartpole": ("ppo_klip_cartpole", CARTPOLE)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    commands = {"soft": ("betas/soft", *EAGER, *SOFT), "soft by default": ("betas/soft", *EAGER)}
    for case, (script, arguments) in PAIRS.items():
        commands[f"clip {case}"] = (script, *arguments)
        commands[f"beta {case}"] = ("betas/clip_eps", "--eps", 0.2, *arguments)
    return run_in_turn(tmp_path_factory.mktemp("betas"), commands)


def test_a_run_is_one_of_klips_loop_with_arguments_of_its_own(trained):
    done = trained["soft"]
    assert done.stderr == ""
    assert done.folder.name.startswith("Hopper-v4__soft__0__")
    assert done.result["exp_name"] == "soft"
    assert set(done.result["args"]) == BASE | set(own("soft"))
    assert (done.result["args"]["shape"], done.result["args"]["width"]) == ("softmin", 0.05)
    assert len(done.result["eval_returns"]) == 10
    parameters = {run.result["params_sha256"] for run in trained.values()}
    assert len(parameters) == 4  # of six runs, of which two pairs are the same training


def test_every_file_has_a_hash_of_its_own():
    hashes = {ppo_klip_continuous.script_sha256(module.Args()) for module in (ppo_klip_continuous, *MODULES.values())}
    assert len(hashes) == 1 + len(NAMES)


@pytest.mark.parametrize("case", PAIRS)
def test_the_clip_as_a_beta_is_the_clip_to_the_bit(trained, case):
    beta, clip = (trained[f"{form} {case}"] for form in ("beta", "clip"))
    assert beta.result["args"] == clip.result["args"] | {"exp_name": "clip_eps", "eps": 0.2}
    assert beta.result["script_sha256"] != clip.result["script_sha256"]
    assert max(beta.values("partition/kill")) > 0.01
    assert beta.result["params_sha256"] == clip.result["params_sha256"]


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


def test_what_the_picture_draws_is_the_factor_of_the_gradient():
    ratio = np.array([0.5, 0.9, 1.0, 1.1, 1.5, 3.2])
    kept = {
        ("clip", 2.5): [1, 1, 1, 1, 0, 0],
        ("clip", -2.5): [0, 1, 1, 1, 1, 1],
        ("dual_clip", -2.5): [0, 1, 1, 1, 1, 0],
    }
    for (name, advantage), expected in kept.items():
        drawn = design_axis.factor(name, ratio, np.full(6, advantage))
        np.testing.assert_allclose(drawn, ratio * expected, rtol=1e-14)
