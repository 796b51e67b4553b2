"""The scripts' building blocks against independent references: torch.distributions, torch.optim, plain loops."""

import copy
import importlib
import itertools
import shutil

import numpy as np
import pytest
import references
import torch
from helpers import CONTINUOUS, SCRIPTS, SURROGATES
from torch import nn
from torch.distributions import Categorical, Independent, Normal, kl_divergence

import ppo_clip_cartpole as cartpole
import ppo_clip_continuous as continuous


def perturbed(agent):
    """The agent, away from its initial zeros and nearly uniform policy."""
    with torch.no_grad():
        for param in agent.parameters():
            param.add_(torch.randn_like(param) * 0.3)
    return agent


def test_gaussian_policy_is_that_of_torch_distributions():
    torch.manual_seed(0)
    agent, obs, actions = (
        perturbed(continuous.Agent(5, 3).double()),
        torch.randn(64, 5).double(),
        torch.randn(64, 3).double(),
    )
    logprob, entropy, value = agent(obs, actions)
    policy = Normal(agent.actor_mean(obs), agent.actor_logstd.exp().expand(64, 3))
    torch.testing.assert_close(logprob, policy.log_prob(actions).sum(-1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, policy.entropy().sum(-1), rtol=1e-12, atol=1e-12)
    assert value.shape == (64,)
    torch.testing.assert_close(value, agent.critic(obs)[:, 0])


def test_categorical_policy_is_that_of_torch_distributions():
    torch.manual_seed(0)
    agent, obs, actions = perturbed(cartpole.Agent(5, 3).double()), torch.randn(64, 5).double(), torch.randint(3, (64,))
    logprob, entropy, value = agent(obs, actions)
    policy = Categorical(logits=agent.actor(obs))
    torch.testing.assert_close(logprob, policy.log_prob(actions), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(entropy, policy.entropy(), rtol=1e-12, atol=1e-12)
    assert value.shape == (64,)
    torch.testing.assert_close(value, agent.critic(obs)[:, 0])


@pytest.mark.parametrize("module", [continuous, cartpole])
def test_networks_are_separate_and_initialised_as_the_protocol_says(module):
    torch.manual_seed(0)
    agent = module.Agent(7, 3)
    actor = agent.actor_mean if module is continuous else agent.actor
    for network, outputs, head_gain in ((actor, 3, 0.01), (agent.critic, 1, 1.0)):
        layers = [layer for layer in network if isinstance(layer, nn.Linear)]
        assert [layer.out_features for layer in layers] == [64, 64, outputs]
        assert sum(isinstance(layer, nn.Tanh) for layer in network) == 2
        for layer, gain in zip(layers, (2**0.5, 2**0.5, head_gain)):
            rows = layer.weight if layer.out_features <= layer.in_features else layer.weight.T
            torch.testing.assert_close(rows @ rows.T, gain**2 * torch.eye(len(rows)), rtol=1e-4, atol=1e-6)
            assert (layer.bias == 0).all()
    assert not {id(p) for p in actor.parameters()} & {id(p) for p in agent.critic.parameters()}
    if module is continuous:
        assert (agent.actor_logstd == 0).all()


def test_numpy_gaussian_policy_is_the_actor():
    torch.manual_seed(0)
    agent, obs = perturbed(continuous.Agent(5, 3)), torch.randn(1000, 5)
    mean, std = agent.actor_mean(obs).detach().numpy(), agent.actor_logstd.exp().detach().numpy()
    policy = continuous.numpy_policy(agent)
    np.testing.assert_allclose(policy(obs.numpy(), 0.0), mean, rtol=1e-4, atol=1e-5)
    noise = np.random.default_rng(0).standard_normal((1000, 3), np.float32)
    np.testing.assert_allclose(policy(obs.numpy(), noise), mean + std * noise, rtol=1e-4, atol=1e-5)


def test_numpy_categorical_policy_samples_the_actor():
    torch.manual_seed(0)
    agent, draws = perturbed(cartpole.Agent(5, 3)), 100_000
    obs = torch.randn(1, 5)
    probabilities = Categorical(logits=agent.actor(obs)).probs[0].detach().numpy()
    assert probabilities.min() > 0.01
    policy = cartpole.numpy_policy(agent)
    assert policy(obs.numpy(), 0.0) == probabilities.argmax()
    actions = policy(np.repeat(obs.numpy(), draws, 0), np.random.default_rng(0).gumbel(size=(draws, 3)))
    errors = np.sqrt(probabilities * (1 - probabilities) / draws)
    assert (np.abs(np.bincount(actions, minlength=3) / draws - probabilities) < 5 * errors).all()


def check_gae(module, rng, terminations, truncations, gamma=0.9, gae_lambda=0.8):
    rewards, values, next_values = rng.normal(size=(3, *terminations.shape))
    got = module.gae(rewards, values, next_values, terminations, terminations | truncations, gamma, gae_lambda)
    expected = references.advantages(rewards, values, next_values, terminations, truncations, gamma, gae_lambda)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_gae_for_every_mix_of_ends(script, steps):
    """Each step goes on, terminates, is truncated, or both at once; the rollout's boundary cuts off what goes on."""
    module, rng = importlib.import_module(script), np.random.default_rng(steps)
    for ends in itertools.product([(False, False), (True, False), (False, True), (True, True)], repeat=steps):
        terminations, truncations = np.array(ends).T[..., None]
        check_gae(module, rng, terminations, truncations)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.8, 1.0])
def test_gae_of_several_environments(gamma, gae_lambda):
    rng = np.random.default_rng(0)
    for _ in range(20):
        terminations, truncations = rng.random((2, 30, 3)) < 0.15
        check_gae(continuous, rng, terminations, truncations, gamma, gae_lambda)


@pytest.mark.parametrize("script", CONTINUOUS)
@pytest.mark.parametrize("envs", [1, 4])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e5, 1.0), (-3.0, 1e4), (0.0, 1e-3)])
def test_running_statistics_are_the_two_pass_ones(script, envs, offset, scale):
    rng, module = np.random.default_rng(0), importlib.import_module(script)
    x = offset + scale * rng.normal(size=(500, envs, 3))
    stats = module.RunningStats(3)
    for t in range(len(x)):
        normalised = stats.normalise(x[t])
        if t in (1, 2, 10, 499):
            seen = x[: t + 1].reshape(-1, 3)
            assert stats.count == len(seen)
            np.testing.assert_allclose(stats.mean, seen.mean(0), rtol=1e-12, atol=1e-12 * scale)
            np.testing.assert_allclose(stats.m2 / stats.count, seen.var(0), rtol=1e-5 if offset == 1e5 else 1e-9)
            np.testing.assert_array_equal(normalised, stats.normalise(x[t], frozen=True))
            assert stats.count == len(seen)
            np.testing.assert_allclose(normalised, references.normalised(x[t], seen), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("script", CONTINUOUS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 123.456])
def test_constant_observations_normalise_to_zero(script, value):
    stats = importlib.import_module(script).RunningStats(1)
    for _ in range(1000):
        assert abs(stats.normalise(np.full((3, 1), value))).max() < 1e-5


@pytest.mark.parametrize("script", CONTINUOUS)
def test_normalised_observations_stay_within_ten(script):
    stats = importlib.import_module(script).RunningStats(2)
    stats.normalise(np.random.default_rng(0).normal(size=(100, 2)))
    np.testing.assert_array_equal(stats.normalise(np.array([[1e6, -1e6]]), frozen=True), [[10.0, -10.0]])


@pytest.mark.parametrize("script", CONTINUOUS)
@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_rewards_are_scaled_as_by_a_plain_loop(script, envs, offset):
    """Three rollouts in a row; episodes end at random and run across the rollouts' boundaries."""
    rng, module = np.random.default_rng(0), importlib.import_module(script)
    rewards, dones = offset + rng.normal(size=(90, envs)), rng.random((90, envs)) < 0.1
    stats, discounted = module.RunningStats(()), np.zeros(envs)
    parts = [slice(0, 40), slice(40, 41), slice(41, 90)]
    got = [module.scale_rewards(stats, rewards[part], dones[part], discounted, 0.95) for part in parts]
    np.testing.assert_allclose(np.concatenate(got), references.scaled_rewards(rewards, dones, 0.95), rtol=1e-6)


@pytest.mark.parametrize("script", CONTINUOUS)
def test_scaled_rewards_stay_within_ten(script):
    stats = importlib.import_module(script).RunningStats(())
    rewards = np.array([[0.0], [0.0], [0.0], [0.0], [1e-3], [-1e-2]] + [[0.0]] * 200 + [[50.0], [-5000.0]])
    scaled = importlib.import_module(script).scale_rewards(stats, rewards, np.ones((208, 1), bool), np.zeros(1), 0.99)
    assert scaled.max() == 10.0 and scaled.min() == -10.0


def minibatches(agent, discrete, count, rng):
    """Minibatches near the agent's policy, some of their ratios outside the band, some values beyond the value clip."""
    for _ in range(count):
        obs = torch.as_tensor(rng.normal(size=(64, agent.critic[0].in_features)))
        actions = torch.as_tensor(rng.integers(3, size=64) if discrete else rng.normal(size=(64, 3)))
        with torch.no_grad():
            logprob, _, values = agent(obs, actions)
        noise = torch.as_tensor(rng.normal(size=(4, 64)))
        yield obs, actions, logprob + 0.3 * noise[0], noise[1], values + noise[2], values + 0.3 * noise[3]


def adam_state(agent):
    return (*([torch.zeros_like(param) for param in agent.parameters()] for _ in range(2)), torch.zeros(()).double())


def reference_loss(agent, minibatch, args):
    """PPO's loss (Schulman et al. 2017, eq. 9) with a clipped value loss, from torch.distributions."""
    obs, actions, old_logprob, advantages, returns, old_values = minibatch
    if hasattr(agent, "actor_mean"):
        policy = Normal(agent.actor_mean(obs), agent.actor_logstd.exp())
        logprob, entropy = policy.log_prob(actions).sum(-1), policy.entropy().sum(-1)
    else:
        policy = Categorical(logits=agent.actor(obs))
        logprob, entropy = policy.log_prob(actions), policy.entropy()
    ratio = (logprob - old_logprob).exp()
    policy_loss = torch.max(
        -advantages * ratio, -advantages * torch.clamp(ratio, 1 - args.clip_coef, 1 + args.clip_coef)
    ).mean()
    values = agent.critic(obs)[:, 0]
    value_loss = (values - returns) ** 2
    if args.clip_vloss:
        clipped = old_values + torch.clamp(values - old_values, -args.clip_coef, args.clip_coef)
        value_loss = torch.max(value_loss, (clipped - returns) ** 2)
    return policy_loss - args.ent_coef * entropy.mean() + args.vf_coef * 0.5 * value_loss.mean()


@pytest.mark.parametrize("script", SURROGATES)
@pytest.mark.parametrize(("max_grad_norm", "clip_vloss"), [(0.05, True), (0.5, True), (1e6, False)])
def test_update_is_adam_with_clipped_gradients(script, max_grad_norm, clip_vloss):
    """Against torch.optim.Adam and clip_grad_norm_ on the min form's loss; in float64, so that only errors differ."""
    module, steps = importlib.import_module(script), 150
    args = module.Args(max_grad_norm=max_grad_norm, clip_vloss=clip_vloss, ent_coef=0.01)
    torch.manual_seed(0)
    agent = module.Agent(5, 3).double()
    reference = copy.deepcopy(agent)
    optimizer = torch.optim.Adam(reference.parameters(), eps=1e-5)
    adam, eps, clipped = adam_state(agent), torch.tensor(args.clip_coef, dtype=torch.float64), 0
    for step, minibatch in enumerate(minibatches(reference, "cartpole" in script, steps, np.random.default_rng(0))):
        learning_rate = 1e-3 * (1 - step / steps)
        rate = torch.tensor(learning_rate, dtype=torch.float64)
        log_ratio, losses = module.update(args, agent, adam, rate, eps, minibatch)
        assert log_ratio.shape == (64,) and losses.shape == (3,) and not losses.requires_grad
        optimizer.param_groups[0]["lr"] = learning_rate
        optimizer.zero_grad()
        reference_loss(reference, minibatch, args).backward()
        clipped += nn.utils.clip_grad_norm_(reference.parameters(), max_grad_norm).item() > max_grad_norm
        optimizer.step()
    assert clipped == {0.05: steps, 1e6: 0}.get(max_grad_norm, clipped)
    for param, expected in zip(agent.parameters(), reference.parameters()):
        torch.testing.assert_close(param, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch's own, while it compiles
@pytest.mark.parametrize("script", ["ppo_clip_continuous", "ppo_kl_scalar_continuous"])
def test_the_compiled_update_follows_what_is_annealed(script):
    """ε, β, the learning rate and the parameters change from update to update: none of them is compiled in, and none
    compiles the update anew (torch gives up at the ninth time)."""
    module = importlib.import_module(script)
    torch.manual_seed(0)
    agents = [perturbed(module.Agent(11, 3).double())]
    batch = list(minibatches(agents[0], False, 12, np.random.default_rng(0)))
    agents = [agents[0].float(), copy.deepcopy(agents[0])]
    names = ["rate", "eps"] + ["beta"] * ("kl_scalar" in script)
    scalars = [[torch.zeros((), dtype=torch.float64) for _ in names] for _ in agents]
    adams = [adam_state(agent) for agent in agents]
    torch._dynamo.utils.counters.clear()
    steps, args = [module.update, None], module.Args()
    for k, minibatch in enumerate(batch):
        minibatch = [x.float() for x in minibatch]
        if "kl_scalar" in script:
            minibatch += [torch.zeros(64, 3), torch.full((64, 3), -0.1)]
        losses = []
        for i in range(2):
            for scalar, value in zip(scalars[i], (3e-4 * (k + 1), 0.02 + 0.05 * (k % 5), 10.0 ** (k % 3))):
                scalar.fill_(value)
            inputs = (agents[i], adams[i], *scalars[i], minibatch)
            steps[i] = steps[i] or module.compiled(args, *inputs)
            losses.append(steps[i](args, *inputs)[1])
        torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    assert steps[1] is not module.update
    counters = torch._dynamo.utils.counters["stats"]
    assert counters["unique_graphs"] == 1, counters
    for eager, compiled in zip(agents[0].parameters(), agents[1].parameters()):
        torch.testing.assert_close(eager, compiled, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("task", ["continuous", "cartpole"])
@pytest.mark.parametrize("kl_penalty", ["full", "sample", "k3"])
def test_kl_scalar_update_is_adam_on_the_penalised_loss(task, kl_penalty):
    module, steps = importlib.import_module(f"ppo_kl_scalar_{task}"), 100
    args = module.Args(kl_penalty=kl_penalty)
    rate, eps, beta = (torch.tensor(x, dtype=torch.float64) for x in (1e-3, 0.2, 0.7))
    torch.manual_seed(0)
    agent = module.Agent(5, 3).double()
    reference, adam = copy.deepcopy(agent), adam_state(agent)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-3, eps=1e-5)

    def policy(logits_or_mean, logstd):
        return (
            Categorical(logits=logits_or_mean)
            if task == "cartpole"
            else Independent(Normal(logits_or_mean, logstd.exp()), 1)
        )

    for minibatch in minibatches(reference, task == "cartpole", steps, np.random.default_rng(0)):
        obs, actions, old_logprob, advantages, returns, old_values = minibatch
        if task == "cartpole":
            stored = [(reference.actor(obs).detach() + torch.tensor([0.1, 0.0, -0.2])).log_softmax(-1)]
            old, new = policy(stored[0], None), policy(reference.actor(obs), None)
        else:
            stored = [reference.actor_mean(obs).detach() + 0.1, torch.full((64, 3), -0.1, dtype=torch.float64)]
            old, new = policy(*stored), policy(reference.actor_mean(obs), reference.actor_logstd.expand(64, 3))
        module.update(args, agent, adam, rate, eps, beta, (*minibatch, *stored))
        log_ratio = new.log_prob(actions) - old_logprob
        k3 = log_ratio.exp() - 1 - log_ratio
        kl = {"full": kl_divergence(old, new), "sample": -log_ratio, "k3": k3}[kl_penalty]
        values = reference.critic(obs)[:, 0]
        clipped = old_values + torch.clamp(values - old_values, -0.2, 0.2)
        value_loss = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()
        optimizer.zero_grad()
        (-(log_ratio.exp() * advantages - beta * kl).mean() + 0.5 * value_loss).backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimizer.step()
    for param, expected in zip(agent.parameters(), reference.parameters()):
        torch.testing.assert_close(param, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("script", SCRIPTS)
def test_diagnostics_are_those_of_a_plain_loop(script):
    rng = np.random.default_rng(0)
    log_ratio, advantages = 0.2 * rng.normal(size=(12, 64)), rng.normal(size=(12, 64))
    advantages[0, :5], losses = 0.0, rng.normal(size=(12, 3))
    tags = importlib.import_module(script).diagnostics(log_ratio, losses, advantages, 0.2, 4)
    counts, betas, k1, k3 = {"in": 0, "kill": 0, "pass": 0}, [], [], []
    for n, (x, a) in enumerate(zip(log_ratio.flat, advantages.flat)):
        w = np.exp(x)
        kill = (w > 1.2 and a > 0) or (w < 0.8 and a < 0)
        passes = (w > 1.2 and a < 0) or (w < 0.8 and a > 0)
        counts["kill" if kill else "pass" if passes else "in"] += 1
        betas.append(-w * a if kill else 0.0)
        if n >= 8 * 64:  # the last of three epochs
            k1.append(-x)
            k3.append(w - 1 - x)
    expected = {f"partition/{name}": count / 768 for name, count in counts.items()}
    expected |= {f"beta/p{p:02}": np.quantile(betas, p / 100) for p in (1, 10, 50, 90, 99)}
    expected |= {"losses/old_approx_kl": np.mean(k1), "losses/approx_kl": np.mean(k3)}
    expected |= {"losses/clipfrac": np.mean(np.abs(np.exp(log_ratio) - 1) > 0.2)}
    expected |= dict(zip(("losses/policy_loss", "losses/value_loss", "losses/entropy"), losses[8:].mean(0)))
    assert tags == pytest.approx(expected)
