"""The surrogates against the closed forms of Theorem 1 and 2 (arXiv 2606.23932), the KLs against torch; in float64."""

import importlib
import math

import numpy as np
import pytest
import torch
from helpers import KL_SCALAR, SURROGATES, batch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, Normal, kl_divergence

import ppo_kl_scalar_continuous as kl_scalar

KL_FORMS = [script for script in SURROGATES if "klip" in script]
OTHERS = [script for script in SURROGATES if "klip" not in script]


# What hypothesis tries surrogates on: log ratios anywhere, thick around the edges of bands, and advantages.


def log_exactly(ratio):
    """The log ratio whose exponential, as torch computes it, is this float64 to the bit."""
    near = math.log(ratio)
    candidates = near + np.arange(-8, 9) * np.spacing(near)
    return float(candidates[torch.as_tensor(candidates).exp().numpy() == ratio][0])


BAND = (0.8, 1.2)
# Not within some rounding steps of an edge: see test_float32_log_ratios_are_no_ties_in_float64.
beside = st.floats(1e-14, 1e-6) | st.floats(-1e-6, -1e-14)
near_an_edge = st.builds(lambda edge, by: math.log(edge) + by, st.sampled_from([*BAND, 1.28, 3.0]), beside)
log_ratios = st.floats(-300, 300) | st.floats(-1.5, 1.5) | st.sampled_from([*map(log_exactly, BAND)]) | near_an_edge
# Half of the smallest numbers is rounded, and at a tie min passes on two halves.
some_advantages = (st.floats(-1e6, 1e6) | st.floats(-3, 3)).map(lambda x: x if abs(x) > 1e-100 else 0.0)
samples = st.lists(st.tuples(log_ratios, some_advantages), min_size=1, max_size=20)
EDGE_CASES = [*((w, a) for w in (-300.0, 0.0, 300.0) for a in (-1e6, 0.0, 1e6)), (0.5, -1e-99)]


EPSILONS = (0.2, 0.1, 0.3, 0.01, 0.5)
EDGES = {eps: (log_exactly(1 - eps), log_exactly(1 + eps)) for eps in EPSILONS}


def closed_form(ratio, advantages, eps):
    """Theorem 1: the gradient with respect to log π_new is w Â, and 0 on I_kill."""
    kill = ((ratio > 1 + eps) & (advantages > 0)) | ((ratio < 1 - eps) & (advantages < 0))
    return np.where(kill, 0.0, ratio * advantages)


def check_theorem_1(script, gradient, ratio, advantages, eps):
    """To the bit. With w = 1±ε exactly, min and clamp have a kink, and which slope they have there is a convention that
    changed between torch 2.13 and 2.14: any from 0 to w Â will do for the clip."""
    expected = closed_form(ratio, advantages, eps)
    if "clip" in script:
        on_an_edge = (ratio == 1 - eps) | (ratio == 1 + eps)
        assert (gradient[on_an_edge] * np.sign(expected[on_an_edge]) >= 0).all()
        assert (np.abs(gradient[on_an_edge]) <= np.abs(expected[on_an_edge])).all()
        gradient, expected = gradient[~on_an_edge], expected[~on_an_edge]
    np.testing.assert_array_equal(gradient, expected)


def evaluated(script, log_ratio, advantages, eps, old_logprob=0.0):
    """The surrogate's values and gradients with respect to log π_new, and the ratios."""
    old = torch.full((len(log_ratio),), old_logprob, dtype=torch.float64)
    new = (torch.as_tensor(log_ratio, dtype=torch.float64) + old).requires_grad_()
    objective = importlib.import_module(script).surrogate(
        new, old, torch.as_tensor(advantages, dtype=torch.float64), eps
    )
    assert objective.shape == new.shape
    (gradient,) = torch.autograd.grad(objective.sum(), new)
    return objective.detach().numpy(), gradient.numpy(), (new - old).detach().exp().numpy()


def grid(eps):
    """Log ratios from -300 to 300, thick around the band and on both edges, times advantages of both signs and 0."""
    low, high = EDGES[eps]
    around = np.concatenate([edge + np.array([-1e-3, -1e-9, 0.0, 1e-9, 1e-3]) for edge in (low, high)])
    log_ratio = np.concatenate([np.linspace(-1, 1, 81), around, [-300.0, -30.0, -3.0, 3.0, 30.0, 300.0]])
    advantages = np.concatenate([[0.0, -0.0], *([a, -a] for a in (1e-300, 1e-12, 0.1, 1.0, math.pi, 1e3, 1e6))])
    return (x.ravel() for x in np.meshgrid(log_ratio, advantages))


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("script", SURROGATES)
def test_gradient_is_theorem_1_on_a_grid(script, eps):
    log_ratio, advantages = grid(eps)
    _, gradient, ratio = evaluated(script, log_ratio, advantages, eps)
    check_theorem_1(script, gradient, ratio, advantages, eps)


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("script", SURROGATES)
def test_the_edges_of_the_band_belong_to_it(script, eps):
    """At w = 1±ε to the bit klip and phi switch nothing off: the gradient is w Â. For clip see check_theorem_1."""
    advantages = np.array([-2.0, 2.0, -0.3, 0.3])
    for log_ratio, edge in zip(EDGES[eps], (1 - eps, 1 + eps), strict=True):
        _, gradient, ratio = evaluated(script, np.full(4, log_ratio), advantages, eps)
        assert (ratio == edge).all()
        check_theorem_1(script, gradient, ratio, advantages, eps)


@pytest.mark.parametrize("script", SURROGATES)
@settings(max_examples=150, deadline=None)
@given(samples)
@example([(EDGES[0.2][0], -1.0), (EDGES[0.2][1], 1.0), (0.0, 0.0), (-650.0, 1e6), (650.0, -1e6), (1e-300, 2e-300)])
@example(EDGE_CASES)
def test_gradient_is_theorem_1_anywhere(script, pairs):
    log_ratio, advantages = np.array(pairs).T
    _, gradient, ratio = evaluated(script, log_ratio, advantages, 0.2)
    check_theorem_1(script, gradient, ratio, advantages, 0.2)


@pytest.mark.parametrize("edge", [0.8, 1.2])
def test_float32_log_ratios_are_no_ties_in_float64(edge):
    """One rounding step outside the band, w Â = clip(w) Â also in float64, and min halves the gradient. But the ratio
    of two float32 log-probabilities beyond 2^-23 is exp of a multiple of 2^-46, and that never comes so close."""
    for bits in range(20, 47):
        nearest = round(math.log(edge) * 2**bits)
        log_ratio = torch.tensor([(nearest + k) / 2**bits for k in (-1, 0, 1)], dtype=torch.float64)
        assert (abs(log_ratio.exp().numpy() - edge) > 4 * np.spacing(edge)).all()


@pytest.mark.parametrize("script", OTHERS)
@settings(max_examples=150, deadline=None)
@given(samples)
def test_objective_is_theorem_2(script, pairs):
    """min(w Â, clip(w) Â), written out; w Â - Φ is equal in exact arithmetic, here up to rounding."""
    log_ratio, advantages = np.array(pairs).T
    objective, _, ratio = evaluated(script, log_ratio, advantages, 0.2)
    expected = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
    largest = np.maximum(ratio, 1.0) * np.abs(advantages)
    assert (np.abs(objective - expected) <= 4 * np.finfo(float).eps * largest).all()


@pytest.mark.parametrize("script", KL_FORMS)
def test_beta_is_minus_w_times_advantage_where_killed_and_held_constant(script):
    """β_t read off the objective w Â - β_t kl, kl = -log w; were it not detached, the gradient would hold dβ_t kl."""
    log_ratio, advantages = grid(0.2)
    for old_logprob in (-7.5, 4.25):
        objective, gradient, ratio = evaluated(script, log_ratio, advantages, 0.2, old_logprob)
        kill = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
        assert kill.any()
        expected = ratio * advantages - np.where(kill, -ratio * advantages, 0.0) * -log_ratio
        largest = ratio * np.abs(advantages) * (1 + np.abs(log_ratio))  # of what is added, with rounding of log w
        assert (np.abs(objective - expected) <= 1e-13 * largest).all()
        np.testing.assert_array_equal(gradient, closed_form(ratio, advantages, 0.2))


def estimate(estimator, new_logprob, old_logprob):
    """One of kl_scalar's estimates of the KL from log-probabilities alone."""
    return kl_scalar.kl_estimate(estimator, None, new_logprob, batch(kl_scalar, old_logprobs=old_logprob))


@pytest.mark.parametrize(
    ("estimator", "kl_gradient"), [("sample", lambda ratio: -np.ones_like(ratio)), ("k3", lambda ratio: ratio - 1)]
)
def test_kl_scalar_gradient_with_an_estimator(estimator, kl_gradient):
    """d/dlog π_new of w Â - β kl, where kl = -log w or (w - 1) - log w."""
    log_ratio, advantages = (x.ravel() for x in np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-2, 2, 9)))
    for beta in (0.0, 0.5, 30.0):
        new = torch.as_tensor(log_ratio).requires_grad_()
        old = torch.zeros_like(new)
        kl = estimate(estimator, new, old)
        objective = kl_scalar.surrogate(new, old, torch.as_tensor(advantages), torch.tensor(beta), kl)
        (gradient,) = torch.autograd.grad(objective.sum(), new)
        ratio = np.exp(log_ratio)
        np.testing.assert_allclose(gradient, ratio * advantages - beta * kl_gradient(ratio), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("script", KL_SCALAR)
@pytest.mark.parametrize("seed", range(5))
def test_full_kl_is_that_of_torch_distributions(script, seed):
    """Its value, and its gradient with respect to every parameter of the new policy; 0 for the old policy itself."""
    module = importlib.import_module(script)
    torch.manual_seed(seed)
    agent, old_agent = (module.Agent(4, 6).double() for _ in range(2))
    with torch.no_grad():
        for param in (*agent.parameters(), *old_agent.parameters()):
            param.add_(torch.randn_like(param) * 0.3)
    obs = torch.randn(200, 4, dtype=torch.float64)
    unused = torch.zeros(200)
    if "cartpole" in script:
        old, new = (Categorical(logits=x.actor(obs)) for x in (old_agent, agent))
        stored = {"old_policy": old.logits.detach()}
        expected = kl_divergence(old, new)
    else:
        old, new = (Normal(x.actor_mean(obs), x.actor_logstd.exp()) for x in (old_agent, agent))
        stored = {"old_mean": old.mean.detach(), "old_logstd": old_agent.actor_logstd.detach().expand(200, 6)}
        expected = kl_divergence(old, new).sum(-1)
    old_policy = batch(module, obs=obs, old_logprobs=unused, **stored)
    kl = module.kl_estimate("full", agent, unused, old_policy)
    torch.testing.assert_close(kl, expected, rtol=1e-11, atol=1e-11)
    params = [param for name, param in agent.named_parameters() if name.startswith("actor")]
    gradients = (torch.autograd.grad(x.mean(), params, retain_graph=True) for x in (kl, expected))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    same = module.kl_estimate("full", old_agent, unused, old_policy)
    torch.testing.assert_close(same, torch.zeros_like(same))


@pytest.mark.parametrize("estimator", ["sample", "k3"])
def test_the_estimators_average_to_the_kl(estimator):
    torch.manual_seed(0)
    old, new = Normal(torch.tensor(0.3).double(), 1.1), Normal(torch.tensor(0.5).double(), 0.9)
    actions = old.sample((400_000,))
    kl = estimate(estimator, new.log_prob(actions), old.log_prob(actions))
    assert abs(kl.mean() - kl_divergence(old, new)) < 5 * kl.std() / len(actions) ** 0.5
    if estimator == "k3":
        assert (kl >= 0).all()


@pytest.mark.parametrize("script", KL_SCALAR)
def test_beta_adapts_beyond_its_edges_only_and_within_its_bounds(script):
    adapted = importlib.import_module(script).adapted_beta
    target = 0.02
    above, below = 1.5 * target, target / 1.5
    for beta in (1.0, 0.3, 64.0):
        for kl in (below, target, above):
            assert adapted(beta, kl, target) == beta
        for kl in (math.nextafter(above, 1), 100.0):
            assert adapted(beta, kl, target) == 2 * beta
        for kl in (math.nextafter(below, 0), -1.0):  # the sampled estimate can be negative
            assert adapted(beta, kl, target) == beta / 2
    assert [adapted(beta, 1.0, target) for beta in (8000.0, 1e4, 1e-4)] == [1e4, 1e4, 2e-4]
    assert [adapted(beta, 0.0, target) for beta in (1.5e-4, 1e-4, 1e4)] == [1e-4, 1e-4, 5e3]
