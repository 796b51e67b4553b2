"""The surrogates against the closed forms of Theorem 1 and 2 (arXiv 2606.23932) and the KLs against torch, in float64."""

import importlib
import math

import numpy as np
import pytest
import torch
from helpers import SURROGATES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

import ppo_kl_scalar_continuous as kl_scalar

KL_FORMS = [script for script in SURROGATES if "klip" in script]
OTHERS = [script for script in SURROGATES if "klip" not in script]


def log_exactly(ratio):
    """The log ratio whose exponential, as torch computes it, is this float64 to the bit."""
    near = math.log(ratio)
    candidates = near + np.arange(-8, 9) * np.spacing(near)
    return float(candidates[torch.as_tensor(candidates).exp().numpy() == ratio][0])


EPSILONS = (0.2, 0.1, 0.3, 0.01, 0.5)
EDGES = {eps: (log_exactly(1 - eps), log_exactly(1 + eps)) for eps in EPSILONS}


def closed_form(ratio, advantages, eps):
    """Theorem 1: the gradient with respect to log π_new is w Â, and 0 on I_kill."""
    kill = ((ratio > 1 + eps) & (advantages > 0)) | ((ratio < 1 - eps) & (advantages < 0))
    return np.where(kill, 0.0, ratio * advantages)


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
    """Log ratios from e^-300 to e^300, thick around the band and on both edges, times advantages of both signs and 0."""
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
    np.testing.assert_array_equal(gradient, closed_form(ratio, advantages, eps))


@pytest.mark.parametrize("eps", EPSILONS)
@pytest.mark.parametrize("script", SURROGATES)
def test_the_edges_of_the_band_belong_to_it(script, eps):
    """At w = 1±ε to the bit nothing is killed: the gradient is w Â."""
    advantages = np.array([-2.0, 2.0, -0.3, 0.3])
    for log_ratio, edge in zip(EDGES[eps], (1 - eps, 1 + eps)):
        _, gradient, ratio = evaluated(script, np.full(4, log_ratio), advantages, eps)
        assert (ratio == edge).all()
        np.testing.assert_array_equal(gradient, edge * advantages)


# Not within some rounding steps of an edge: see test_float32_log_ratios_are_no_ties_in_float64.
beside = st.floats(1e-14, 1e-6) | st.floats(-1e-6, -1e-14)
near_an_edge = st.builds(float.__add__, st.sampled_from(EDGES[0.2]), beside)
log_ratios = st.floats(-650, 650) | st.floats(-1, 1) | st.sampled_from(EDGES[0.2]) | near_an_edge
# Half of the smallest numbers is rounded, and at a tie min passes on two halves.
some_advantages = (st.floats(-1e6, 1e6) | st.floats(-3, 3)).map(lambda x: x if abs(x) > 1e-300 else 0.0)
pairs = st.tuples(log_ratios, some_advantages)


@pytest.mark.parametrize("script", SURROGATES)
@settings(max_examples=300, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=20))
@example([(EDGES[0.2][0], -1.0), (EDGES[0.2][1], 1.0), (0.0, 0.0), (-650.0, 1e6), (650.0, -1e6), (1e-300, 2e-300)])
def test_gradient_is_theorem_1_anywhere(script, samples):
    log_ratio, advantages = np.array(samples).T
    _, gradient, ratio = evaluated(script, log_ratio, advantages, 0.2)
    np.testing.assert_array_equal(gradient, closed_form(ratio, advantages, 0.2))


@pytest.mark.parametrize("edge", [0.8, 1.2])
def test_float32_log_ratios_are_no_ties_in_float64(edge):
    """One rounding step outside the band, w Â = clip(w) Â also in float64, and min halves the gradient. But the ratio
    of two float32 log-probabilities beyond 2^-23 is exp of a multiple of 2^-46, and that never comes so close."""
    for bits in range(20, 47):
        nearest = round(math.log(edge) * 2**bits)
        log_ratio = torch.tensor([(nearest + k) / 2**bits for k in (-1, 0, 1)], dtype=torch.float64)
        assert (abs(log_ratio.exp().numpy() - edge) > 4 * np.spacing(edge)).all()


@pytest.mark.parametrize("script", OTHERS)
@settings(max_examples=300, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=20))
def test_objective_is_theorem_2(script, samples):
    """min(w Â, clip(w) Â), written out; w Â - Φ is equal in exact arithmetic, here up to rounding of its largest term."""
    log_ratio, advantages = np.array(samples).T
    objective, _, ratio = evaluated(script, log_ratio, advantages, 0.2)
    expected = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
    largest = np.maximum(ratio, 1.0) * np.abs(advantages)
    assert (np.abs(objective - expected) <= 4 * np.finfo(float).eps * largest).all()


@pytest.mark.parametrize("script", OTHERS)
def test_objective_on_the_plateaus(script):
    """Where the clip acts the objective no longer depends on w."""
    objective, _, _ = evaluated(script, np.log([1.3, 2.0, 0.5, 0.1]), np.array([3.0, 3.0, -3.0, -3.0]), 0.2)
    np.testing.assert_allclose(objective, [3.6, 3.6, -2.4, -2.4], rtol=1e-14)


@pytest.mark.parametrize("script", KL_FORMS)
def test_beta_is_minus_w_times_advantage_where_killed_and_held_constant(script):
    """β_t read off the objective w Â - β_t KL, KL = -log w; were it not detached, the gradient would hold dβ_t KL."""
    log_ratio, advantages = grid(0.2)
    for old_logprob in (-7.5, 4.25):
        objective, gradient, ratio = evaluated(script, log_ratio, advantages, 0.2, old_logprob)
        kill = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
        assert kill.any()
        expected = ratio * advantages - np.where(kill, -ratio * advantages, 0.0) * -log_ratio
        largest = ratio * np.abs(advantages) * (1 + np.abs(log_ratio))  # of what is added, with rounding of log w
        assert (np.abs(objective - expected) <= 1e-13 * largest).all()
        np.testing.assert_array_equal(gradient, closed_form(ratio, advantages, 0.2))


@pytest.mark.parametrize(
    ("estimator", "kl_gradient"), [("sample", lambda ratio: -np.ones_like(ratio)), ("k3", lambda ratio: ratio - 1)]
)
def test_kl_scalar_gradient_with_an_estimator(estimator, kl_gradient):
    """d/dlog π_new of w Â - β KL, where KL = -log w or (w - 1) - log w."""
    log_ratio, advantages = (x.ravel() for x in np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-2, 2, 9)))
    for beta in (0.0, 0.5, 30.0):
        new = torch.as_tensor(log_ratio).requires_grad_()
        old = torch.zeros_like(new)
        kl = kl_scalar.kl_penalty(estimator, new, old, None, None)
        objective = kl_scalar.surrogate(new, old, torch.as_tensor(advantages), torch.tensor(beta), kl)
        (gradient,) = torch.autograd.grad(objective.sum(), new)
        ratio = np.exp(log_ratio)
        np.testing.assert_allclose(gradient, ratio * advantages - beta * kl_gradient(ratio), rtol=1e-13, atol=1e-13)


def gaussians(rng, samples=200, actions=6):
    """Two policies: means (samples, actions) and log stds (actions,)."""
    return [
        (torch.as_tensor(rng.normal(size=(samples, actions))), torch.as_tensor(rng.normal(scale=0.7, size=actions)))
        for _ in range(2)
    ]


def test_full_kl_is_that_of_torch_distributions():
    for seed in range(20):
        new, old = gaussians(np.random.default_rng(seed))
        expected = kl_divergence(Normal(old[0], old[1].exp()), Normal(new[0], new[1].exp())).sum(-1)
        kl = kl_scalar.kl_penalty("full", None, None, new, old)
        torch.testing.assert_close(kl, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(kl_scalar.kl_penalty("full", None, None, old, old), torch.zeros_like(kl))


def test_full_kl_gradient_is_the_closed_form():
    """∂KL/∂μ = (μ - μ_old) / σ², ∂KL/∂log σ = 1 - (σ_old² + (μ - μ_old)²) / σ²."""
    (mean, logstd), (old_mean, old_logstd) = gaussians(np.random.default_rng(0))
    mean.requires_grad_(), logstd.requires_grad_()
    kl = kl_scalar.kl_penalty("full", None, None, (mean, logstd), (old_mean, old_logstd))
    mean_gradient, logstd_gradient = torch.autograd.grad(kl.sum(), (mean, logstd))
    mean, logstd, old_mean, old_logstd = (x.detach().numpy() for x in (mean, logstd, old_mean, old_logstd))
    np.testing.assert_allclose(mean_gradient, (mean - old_mean) / np.exp(2 * logstd), rtol=1e-12)
    expected = 1 - (np.exp(2 * old_logstd) + (mean - old_mean) ** 2) / np.exp(2 * logstd)
    np.testing.assert_allclose(logstd_gradient, expected.sum(0), rtol=1e-12)


@pytest.mark.parametrize("estimator", ["sample", "k3"])
def test_the_estimators_average_to_the_kl(estimator):
    torch.manual_seed(0)
    old, new = Normal(torch.tensor(0.3).double(), 1.1), Normal(torch.tensor(0.5).double(), 0.9)
    actions = old.sample((400_000,))
    kl = kl_scalar.kl_penalty(estimator, new.log_prob(actions), old.log_prob(actions), None, None)
    assert abs(kl.mean() - kl_divergence(old, new)) < 5 * kl.std() / len(actions) ** 0.5
    if estimator == "k3":
        assert (kl >= 0).all()


def test_beta_adapts_beyond_its_edges_only():
    target = 0.02
    above, below = 1.5 * target, target / 1.5
    for beta in (1.0, 0.3, 64.0):
        assert kl_scalar.adapted(beta, above, target) == beta
        assert kl_scalar.adapted(beta, math.nextafter(above, 1), target) == 2 * beta
        assert kl_scalar.adapted(beta, 100.0, target) == 2 * beta
        assert kl_scalar.adapted(beta, target, target) == beta
        assert kl_scalar.adapted(beta, below, target) == beta
        assert kl_scalar.adapted(beta, math.nextafter(below, 0), target) == beta / 2
        assert kl_scalar.adapted(beta, -1.0, target) == beta / 2  # the sampled estimate can be negative


def test_beta_stays_within_its_bounds():
    assert kl_scalar.adapted(8000.0, 1.0, 0.02) == 1e4
    assert kl_scalar.adapted(1e4, 1.0, 0.02) == 1e4
    assert kl_scalar.adapted(1.5e-4, 0.0, 0.02) == 1e-4
    assert kl_scalar.adapted(1e-4, 0.0, 0.02) == 1e-4
    assert kl_scalar.adapted(1e4, 0.0, 0.02) == 5e3
    assert kl_scalar.adapted(1e-4, 1.0, 0.02) == 2e-4
