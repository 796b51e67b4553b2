"""The scripts' building blocks against independent references: torch.distributions, torch.optim, plain loops."""

import copy
import importlib
import itertools
import re
import shutil
import sys

import numpy as np
import pytest
import references
import torch
from helpers import KL_SCALAR, ONE_OF_EACH, ROOT, SCRIPTS, SURROGATES, definitions, load, task
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
        for layer, gain in zip(layers, (2**0.5, 2**0.5, head_gain), strict=True):
            rows = layer.weight if layer.out_features <= layer.in_features else layer.weight.T
            torch.testing.assert_close(rows @ rows.T, gain**2 * torch.eye(len(rows)), rtol=1e-4, atol=1e-6)
            assert (layer.bias == 0).all()
    assert not {id(p) for p in actor.parameters()} & {id(p) for p in agent.critic.parameters()}
    if module is continuous:
        assert (agent.actor_logstd == 0).all()


@pytest.mark.parametrize("module", [continuous, cartpole])
def test_the_numpy_actor_is_the_actor(module):
    torch.manual_seed(0)
    agent, obs = perturbed(module.Agent(5, 3)), torch.randn(1000, 5)
    expected = (agent.actor_mean if module is continuous else agent.actor)(obs).detach().numpy()
    actor = module.numpy_actor(agent)
    np.testing.assert_allclose(actor(obs.numpy()), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for param in agent.parameters():
            param.zero_()
    np.testing.assert_allclose(actor(obs.numpy()), expected, rtol=1e-4, atol=1e-5)  # a copy, not a view


@pytest.mark.parametrize("script", ONE_OF_EACH)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nn.Tanh()", "nn.ReLU()"),
        ("hidden @ weights[1] + biases[1]", "hidden @ weights[1]"),  # the biases are 0 in the first rollout
    ],
    ids=["ReLU", "no bias"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the log's writer is left behind
def test_a_network_that_is_changed_in_one_place_alone_is_told(script, old, new, tmp_path, monkeypatch, capsys):
    """It would collect data with another policy than the one that learns from them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "copied", None)
    text = (ROOT / f"{script}.py").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "copied.py").write_text(text.replace(old, new), encoding="utf-8")
    copied = load(tmp_path / "copied.py")
    with pytest.raises(SystemExit) as end:
        copied.train(copied.Args(env_id=task(script, "Countdown"), compile=False, total_timesteps=4096))
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert "mlp()" in message and "numpy_actor()" in message and message.count("\n") == 1


def test_gumbel_noise_samples_the_categorical_policy():
    """As the rollout of the cartpole scripts does: the largest of logit plus noise."""
    torch.manual_seed(0)
    agent, draws = perturbed(cartpole.Agent(5, 3)), 100_000
    obs = torch.randn(1, 5)
    probabilities = Categorical(logits=agent.actor(obs)).probs[0].detach().numpy()
    assert probabilities.min() > 0.01
    noise = np.random.default_rng(0).gumbel(size=(draws, 3))
    actions = (cartpole.numpy_actor(agent)(obs.numpy()) + noise).argmax(-1)
    errors = np.sqrt(probabilities * (1 - probabilities) / draws)
    assert (np.abs(np.bincount(actions, minlength=3) / draws - probabilities) < 5 * errors).all()


def check_gae(rng, terminations, truncations, gamma=0.9, gae_lambda=0.8):
    rewards, values, next_values = rng.normal(size=(3, *terminations.shape))
    got = continuous.gae(rewards, values, next_values, terminations, terminations | truncations, gamma, gae_lambda)
    expected = references.advantages(rewards, values, next_values, terminations, truncations, gamma, gae_lambda)
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_gae_for_every_mix_of_ends(steps):
    """Each step goes on, terminates, is truncated, or both at once; the rollout's boundary cuts off what goes on."""
    rng = np.random.default_rng(steps)
    for ends in itertools.product([(False, False), (True, False), (False, True), (True, True)], repeat=steps):
        terminations, truncations = np.array(ends).T[..., None]
        check_gae(rng, terminations, truncations)


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.8, 1.0])
def test_gae_of_several_environments(gamma, gae_lambda):
    rng = np.random.default_rng(0)
    for _ in range(20):
        terminations, truncations = rng.random((2, 30, 3)) < 0.15
        check_gae(rng, terminations, truncations, gamma, gae_lambda)


@pytest.mark.parametrize("envs", [1, 4])
@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (1e5, 1.0), (-3.0, 1e4), (0.0, 1e-3)])
def test_running_statistics_are_the_two_pass_ones(envs, offset, scale):
    x = offset + scale * np.random.default_rng(0).normal(size=(500, envs, 3))
    stats = continuous.RunningStats(3)
    for t in range(len(x)):
        stats.update(x[t])
        if t in (1, 2, 10, 499):
            seen = x[: t + 1].reshape(-1, 3)
            normalised = stats.normalise(x[t])
            np.testing.assert_allclose(normalised, references.normalised(x[t], seen), rtol=1e-5, atol=1e-7)
            assert stats.count == len(seen)
            np.testing.assert_allclose(stats.mean, seen.mean(0), rtol=1e-12, atol=1e-12 * scale)
            np.testing.assert_allclose(stats.m2 / stats.count, seen.var(0), rtol=1e-5 if offset == 1e5 else 1e-9)


def test_normalising_is_clipped_and_leaves_the_statistics_alone():
    stats = continuous.RunningStats(2)
    stats.update(np.random.default_rng(0).normal(size=(100, 2)))
    before = copy.deepcopy(vars(stats))
    np.testing.assert_array_equal(stats.normalise(np.array([[1e6, -1e6]])), [[10.0, -10.0]])
    np.testing.assert_equal(vars(stats), before)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 123.456])
def test_constant_observations_normalise_to_zero(value):
    stats = continuous.RunningStats(1)
    for _ in range(1000):
        stats.update(np.full((3, 1), value))
        assert abs(stats.normalise(np.full((3, 1), value))).max() < 1e-5


@pytest.mark.parametrize("envs", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_rewards_are_scaled_as_by_a_plain_loop(envs, offset):
    """Three rollouts in a row; episodes end at random and run across the rollouts' boundaries."""
    rng = np.random.default_rng(0)
    rewards, dones = offset + rng.normal(size=(90, envs)), rng.random((90, envs)) < 0.1
    stats, discounted = continuous.RunningStats(()), np.zeros(envs)
    parts = [slice(0, 40), slice(40, 41), slice(41, 90)]
    got = [continuous.scale_rewards(stats, rewards[part], dones[part], discounted, 0.95) for part in parts]
    np.testing.assert_allclose(np.concatenate(got), references.scaled_rewards(rewards, dones, 0.95), rtol=1e-6)


def test_scaled_rewards_stay_within_ten():
    rewards = np.array([[0.0], [0.0], [0.0], [0.0], [1e-3], [-1e-2]] + [[0.0]] * 200 + [[50.0], [-5000.0]])
    dones = np.ones((208, 1), bool)
    scaled = continuous.scale_rewards(continuous.RunningStats(()), rewards, dones, np.zeros(1), 0.99)
    assert scaled.max() == 10.0 and scaled.min() == -10.0


def minibatches(module, agent, count, rng):
    """Minibatches near the agent's policy, some of their ratios outside the band, some values beyond the value clip.

    For kl_scalar the old policy stands beside them.
    """
    discrete = hasattr(agent, "actor")
    for _ in range(count):
        obs = torch.as_tensor(rng.normal(size=(64, agent.critic[0].in_features)))
        actions = torch.as_tensor(rng.integers(3, size=64) if discrete else rng.normal(size=(64, 3)))
        noise = torch.as_tensor(rng.normal(size=(4, 64)))
        with torch.no_grad():
            logprobs, _, values = agent(obs, actions)
            columns = {"obs": obs, "actions": actions, "advantages": noise[1], "returns": values + noise[2]}
            columns |= {"old_logprobs": logprobs + 0.3 * noise[0], "old_values": values + 0.3 * noise[3]}
            if "old_policy" in module.Batch._fields:
                columns["old_policy"] = (agent.actor(obs) + torch.tensor([0.1, 0.0, -0.2])).log_softmax(-1)
            if "old_mean" in module.Batch._fields:
                columns["old_mean"] = agent.actor_mean(obs) + 0.1
                columns["old_logstd"] = torch.full((64, 3), -0.1, dtype=torch.float64)
        yield module.Batch(**columns)


def policy(logits_or_mean, logstd=None):
    """The distribution of actions, by torch.distributions."""
    if logstd is None:
        return Categorical(logits=logits_or_mean)
    return Independent(Normal(logits_or_mean, logstd.exp()), 1)


def reference_loss(agent, minibatch, args):
    """PPO's loss (Schulman et al. 2017, eq. 9, or with kl_scalar's β eq. 8) with a clipped value loss."""
    if hasattr(agent, "actor"):
        new = policy(agent.actor(minibatch.obs))
    else:
        new = policy(agent.actor_mean(minibatch.obs), agent.actor_logstd.expand(64, 3))
    log_ratio = new.log_prob(minibatch.actions) - minibatch.old_logprobs
    ratio = log_ratio.exp()
    if hasattr(args, "beta"):
        k3 = ratio - 1 - log_ratio
        kl = {"full": kl_divergence(policy(*minibatch[6:]), new), "sample": -log_ratio, "k3": k3}[args.kl_penalty]
        policy_loss = -(ratio * minibatch.advantages - args.beta * kl).mean()
    else:
        clipped = torch.clamp(ratio, 1 - args.clip_coef, 1 + args.clip_coef)
        policy_loss = torch.max(-minibatch.advantages * ratio, -minibatch.advantages * clipped).mean()
    values = agent.critic(minibatch.obs)[:, 0]
    value_loss = (values - minibatch.returns) ** 2
    if args.clip_vloss:
        width = args.vloss_clip_coef or args.clip_coef
        clipped = minibatch.old_values + torch.clamp(values - minibatch.old_values, -width, width)
        value_loss = torch.max(value_loss, (clipped - minibatch.returns) ** 2)
    return policy_loss - args.ent_coef * new.entropy().mean() + args.vf_coef * 0.5 * value_loss.mean()


CASES = [
    *((script, {"max_grad_norm": 0.5}) for script in SURROGATES),
    ("ppo_klip_continuous", {"max_grad_norm": 0.05, "ent_coef": 0.01}),
    ("ppo_clip_cartpole", {"max_grad_norm": 1e6, "clip_vloss": False, "ent_coef": 0.01}),
    ("ppo_clip_continuous", {"clip_coef": 0.3, "vloss_clip_coef": 0.1}),
    ("ppo_klip_cartpole", {"clip_coef": 0.1, "vloss_clip_coef": 0.3}),
    *((script, {"kl_penalty": kl, "beta": 0.7}) for script in KL_SCALAR for kl in ("full", "sample", "k3")),
]


@pytest.mark.parametrize(("script", "arguments"), CASES, ids=str)
def test_update_is_adam_with_clipped_gradients(script, arguments):
    """Against torch.optim.Adam and clip_grad_norm_ on the reference loss; in float64, so that only errors differ."""
    module, steps = importlib.import_module(script), 120
    args = module.Args(**arguments)
    torch.manual_seed(0)
    agent = module.Agent(5, 3).double()
    reference = copy.deepcopy(agent)
    optimizer = torch.optim.Adam(reference.parameters(), eps=1e-5)
    adam, clipped = module.Adam(list(agent.parameters())), 0
    vloss_clip_coef = args.vloss_clip_coef or args.clip_coef
    scalars = [1e-3, vloss_clip_coef, args.beta] if "beta" in arguments else [1e-3, args.clip_coef, vloss_clip_coef]
    rate, *others = (torch.tensor(x, dtype=torch.float64) for x in scalars)
    for step, minibatch in enumerate(minibatches(module, reference, steps, np.random.default_rng(0))):
        rate.fill_(1e-3 * (1 - step / steps))
        log_ratio, losses = module.update(args, module.surrogate, agent, adam, rate, *others, minibatch)
        assert log_ratio.shape == (64,) and losses.shape == (3,) and not losses.requires_grad
        optimizer.param_groups[0]["lr"] = rate.item()
        optimizer.zero_grad()
        reference_loss(reference, minibatch, args).backward()
        norm = nn.utils.clip_grad_norm_(reference.parameters(), args.max_grad_norm).item()
        clipped += norm > args.max_grad_norm
        optimizer.step()
    assert clipped == {0.05: steps, 1e6: 0}.get(args.max_grad_norm, clipped)
    for param, expected in zip(agent.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_may_be_annealed_reaches_the_update_as_a_tensor(script):
    """It reads nothing of that from the arguments, where it would stay as it was at the start."""
    read = set(re.findall(r"\bargs\.(\w+)", definitions(ROOT / f"{script}.py")["update"]))
    assert read - {"kl_penalty"} == {"clip_vloss", "ent_coef", "vf_coef", "max_grad_norm"}


@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("clang++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")  # torch's own, while it compiles
def test_the_compiled_update_follows_what_is_annealed():
    """ε, β, the learning rate and the parameters change from update to update: none of them is compiled in, and none
    compiles the update anew (torch gives up at the ninth time)."""
    module = importlib.import_module("ppo_kl_scalar_continuous")
    torch.manual_seed(0)
    agent = perturbed(module.Agent(11, 3).double())
    batches = list(minibatches(module, agent, 12, np.random.default_rng(0)))
    agents = [agent.float(), copy.deepcopy(agent.float())]
    adams = [module.Adam(list(agent.parameters())) for agent in agents]
    scalars = [[torch.zeros((), dtype=torch.float64) for _ in range(3)] for _ in agents]
    torch._dynamo.utils.counters.clear()
    steps, args = [module.update, module.compile_update(cuda=False)], module.Args()
    for k, minibatch in enumerate(batches):
        minibatch = module.Batch(*(column.float() for column in minibatch))
        losses = []
        for i in range(2):
            for scalar, value in zip(scalars[i], (3e-4 * (k + 1), 0.02 + 0.05 * (k % 5), 10.0 ** (k % 3)), strict=True):
                scalar.fill_(value)
            losses.append(steps[i](args, module.surrogate, agents[i], adams[i], *scalars[i], minibatch)[1])
        torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-4)
    assert steps[1] is not module.update
    counters = torch._dynamo.utils.counters["stats"]
    assert counters["unique_graphs"] == 1, counters
    for eager, compiled in zip(agents[0].parameters(), agents[1].parameters(), strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-2, atol=1e-4)


def test_diagnostics_are_those_of_a_plain_loop():
    rng = np.random.default_rng(0)
    log_ratio, advantages = 0.2 * rng.normal(size=(12, 64)), rng.normal(size=(12, 64))
    advantages[0, :5], losses = 0.0, rng.normal(size=(12, 3))
    tags = continuous.diagnostics(log_ratio, losses, advantages, 0.2, 4)
    counts, betas, k1, k3 = {"in": 0, "kill": 0, "pass": 0}, [], [], []
    for n, (x, a) in enumerate(zip(log_ratio.flat, advantages.flat, strict=True)):
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
    names = ("losses/policy_loss", "losses/value_loss", "losses/entropy")
    expected |= dict(zip(names, losses[8:].mean(0), strict=True))
    assert tags == pytest.approx(expected)
