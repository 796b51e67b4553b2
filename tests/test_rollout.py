"""What the training loop makes of episodes that end: run for real on an environment whose transitions are known.

train() runs unchanged, in this process; what it hands to the agent, to gae and to update is copied on the way.
"""

import copy
import importlib
from itertools import pairwise
from types import SimpleNamespace

import countdown_env
import numpy as np
import pytest
import references
import torch
from helpers import KL_SCALAR, ONE_OF_EACH, Run, env_seeds, task
from torch.distributions import Categorical, Normal, kl_divergence

SEED, STEPS, ITERATIONS, EPOCHS = 22, 5, 10, 2
GAMMA, LAMBDA = 0.9, 0.8


def observe(script, envs, folder, monkeypatch, **arguments):
    """Trains in folder. Returns what each rollout handed on, the actions that the environments got, and the Run."""
    module, rollouts, latest = importlib.import_module(script), [], SimpleNamespace()
    original_gae, original_update = module.gae, module.update

    class Agent(module.Agent):
        def forward(self, obs, actions):
            if not torch.is_grad_enabled():
                latest.agent, latest.obs, latest.actions = self, obs.numpy(), actions.numpy()
            return super().forward(obs, actions)

    def gae(rewards, values, next_values, *others):
        rollout = SimpleNamespace(
            **vars(latest), rewards=rewards, values=values, next_values=next_values, minibatches=[]
        )
        rollouts.append(copy.deepcopy(rollout))
        return original_gae(rewards, values, next_values, *others)

    def update(*inputs):
        rollouts[-1].minibatches.append([x.numpy().copy() for x in inputs[-1][:6]])
        return original_update(*inputs)

    for name, value in (("Agent", Agent), ("gae", gae), ("update", update)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.chdir(folder)
    countdown_env.received.clear()
    how = {
        "env_id": task(script, "Countdown"),
        "seed": SEED,
        "num_envs": envs,
        "num_steps": STEPS,
        "total_timesteps": ITERATIONS * STEPS * envs,
        "num_minibatches": envs,
        "update_epochs": EPOCHS,
        "gamma": GAMMA,
        "gae_lambda": LAMBDA,
        "norm_adv": "none",
        "compile": False,
        "learning_rate": 0.01,  # moves the values, so that one of another state or rollout is far off
    }
    module.train(module.Args(**how | arguments))
    return rollouts, list(countdown_env.received), Run(folder, 0, "", "")


def transitions(envs):
    """What must happen, step by step: raw (T, n, ...) observations, where each step led, its reward and its ends."""
    steps = ITERATIONS * STEPS
    world = SimpleNamespace(obs=np.zeros((steps, envs, 3)), led_to=np.zeros((steps, envs, 3)), episodes=[])
    world.seeds = env_seeds(SEED, envs)
    all_who = [countdown_env.who_of(seed) for seed in world.seeds]
    assert len(set(all_who)) == envs, "choose another SEED: the test tells environments apart by it"
    world.rewards, world.terminations, world.truncations = np.zeros((steps, envs)), *np.zeros((2, steps, envs), bool)
    for i, who in enumerate(all_who):
        episode, step, start = 0, 0, 0
        for t in range(steps):
            world.obs[t, i] = who, episode, step
            world.rewards[t, i] = countdown_env.reward(who, episode, step)
            world.led_to[t, i] = who, episode, step + 1  # at an end: the final observation
            step += 1
            if step == countdown_env.length(who, episode):
                world.terminations[t, i], world.truncations[t, i] = countdown_env.ends(episode)
                world.episodes.append((t, world.rewards[start : t + 1, i].sum(), step))
                episode, step, start = episode + 1, 0, t + 1
    return world


def as_seen(world, script):
    """The agent's (T, n, 3) view of obs and led_to: raw, or normalised by all observations up to then.

    Each is counted before it is normalised, but for final observations: those are not counted.
    """
    if "cartpole" in script:
        return world.obs, world.led_to
    obs, led_to = np.zeros_like(world.obs), np.zeros_like(world.obs)
    done = world.terminations | world.truncations
    for t in range(len(obs)):
        seen = world.obs[: t + 1].reshape(-1, 3)
        obs[t] = references.normalised(world.obs[t], seen)
        # The observations after step t: where an episode ended the first one of the next.
        after = np.where(done[t][:, None], world.led_to[t] * [1, 1, 0] + [0, 1, 0], world.led_to[t])
        counted = np.concatenate([seen, after])
        led_to[t] = references.normalised(world.led_to[t], counted)
    return obs, led_to


# test_diff.py holds the text of the other scripts' loops to these.
OBSERVED = [(ONE_OF_EACH[0], 1), *((script, 3) for script in (*ONE_OF_EACH, *KL_SCALAR))]


@pytest.fixture(scope="module", params=OBSERVED, ids=str)
def observed(request, tmp_path_factory):
    script, envs = request.param
    world = transitions(envs)
    done = world.terminations | world.truncations
    world.seen, world.seen_led_to = as_seen(world, script)
    world.scaled = world.rewards if "cartpole" in script else references.scaled_rewards(world.rewards, done, GAMMA)
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("rollout")
        rollouts, received, run = observe(script, envs, folder, monkeypatch)
    slices = [slice(iteration * STEPS, (iteration + 1) * STEPS) for iteration in range(ITERATIONS)]
    assert len(rollouts) == ITERATIONS
    return SimpleNamespace(**locals())


def value(rollout, seen):
    """What the rollout's critic says of observations (..., 3)."""
    with torch.no_grad():
        return rollout.agent.critic(torch.as_tensor(seen, dtype=torch.float32))[..., 0].numpy()


def test_every_kind_of_end_came_up(observed):
    world = observed.world
    kinds = set(zip(world.terminations.ravel().tolist(), world.truncations.ravel().tolist(), strict=True))
    assert kinds == {(False, False), (True, False), (False, True), (True, True)}
    at_boundary = observed.done[STEPS - 1 :: STEPS]
    assert at_boundary.any() and not at_boundary.all()


def test_the_agent_sees_each_observation_and_after_an_end_the_next_episodes_first(observed):
    for now, rollout in zip(observed.slices, observed.rollouts, strict=True):
        expected = observed.world.seen[now]
        np.testing.assert_allclose(rollout.obs.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(rollout.rewards, observed.world.scaled[now], rtol=1e-6)


def test_bootstraps_are_from_the_state_that_a_step_led_to(observed):
    """Also at a truncation, where that is the final observation, and at the rollout's boundary."""
    distances = []
    for now, rollout in zip(observed.slices, observed.rollouts, strict=True):
        expected, going_on = value(rollout, observed.world.seen_led_to[now]), ~observed.world.terminations[now]
        np.testing.assert_allclose(rollout.values, value(rollout, observed.world.seen[now]), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(rollout.next_values[going_on], expected[going_on], rtol=1e-4, atol=1e-4)
        # Were it the value of the next episode's first observation, it would be this far off.
        truncated = observed.done[now][:-1] & going_on[:-1]
        distances += list(np.abs(expected[:-1] - rollout.values[1:])[truncated])
    assert np.median(distances) > 5e-3


def test_each_epoch_uses_each_sample_once_with_what_belongs_to_it(observed):
    """Observation, action, log-probability, advantage (nothing bootstrapped at a termination), return and value."""
    world, envs = observed.world, observed.envs
    for now, rollout in zip(observed.slices, observed.rollouts, strict=True):
        ends = world.terminations[now], world.truncations[now]
        values, next_values = value(rollout, world.seen[now]), value(rollout, world.seen_led_to[now])
        advantages = references.advantages(world.scaled[now], values, next_values, *ends, GAMMA, LAMBDA)
        with torch.no_grad():
            logprobs = rollout.agent(torch.as_tensor(rollout.obs), torch.as_tensor(rollout.actions))[0].numpy()
        returns = advantages + values
        expected = [rollout.obs, rollout.actions, logprobs, advantages.ravel(), returns.ravel(), values.ravel()]
        position = {row.tobytes(): at for at, row in enumerate(rollout.obs)}
        assert len(position) == STEPS * envs
        assert len(rollout.minibatches) == EPOCHS * envs
        for epoch in range(EPOCHS):
            used = []
            for minibatch in rollout.minibatches[epoch * envs : (epoch + 1) * envs]:
                at = [position[row.tobytes()] for row in minibatch[0]]
                for got, wanted in zip(minibatch, expected, strict=True):
                    np.testing.assert_allclose(got, wanted[at], rtol=1e-3, atol=1e-3)
                used += at
            assert sorted(used) == list(range(STEPS * envs))


def test_noise_and_order_have_random_streams_of_their_own(observed):
    """Independent of each other, and of default_rng(seed), which Gymnasium gives the first environment."""
    noise_rng, shuffle_rng, *_ = map(np.random.default_rng, np.random.SeedSequence(SEED).spawn(4))
    for rollout in observed.rollouts:
        obs, size = torch.as_tensor(rollout.obs), (STEPS, observed.envs)
        with torch.no_grad():
            if "cartpole" in observed.script:
                noisy = rollout.agent.actor(obs).numpy() + noise_rng.gumbel(size=(*size, 3)).reshape(-1, 3)
                second, first = np.sort(noisy)[:, -2:].T
                clear = first - second > 1e-3  # or the rounding of one CPU decides
                np.testing.assert_array_equal(rollout.actions[clear], noisy.argmax(-1)[clear])
            else:
                noise = noise_rng.standard_normal((*size, 2), np.float32).reshape(-1, 2)
                expected = rollout.agent.actor_mean(obs) + rollout.agent.actor_logstd.exp() * torch.as_tensor(noise)
                np.testing.assert_allclose(rollout.actions, expected, rtol=1e-4, atol=1e-4)
        for epoch in range(EPOCHS):
            used = [minibatch[0] for minibatch in rollout.minibatches[epoch * observed.envs :][: observed.envs]]
            np.testing.assert_array_equal(np.concatenate(used), rollout.obs[shuffle_rng.permutation(len(obs))])


def test_the_environment_gets_the_action_and_the_agent_keeps_its_own(observed):
    """Clipped to the box in the environment, unclipped in the buffer; counted from the space's start, and from 0."""
    actions = np.concatenate([rollout.actions for rollout in observed.rollouts])
    when = [(countdown_env.who_of(order.seed), order.episode, order.step) for order in observed.received]
    assert when == [tuple(obs) for obs in observed.world.obs.reshape(-1, 3)]
    assert [order.seed for order in observed.received[: observed.envs]] == observed.world.seeds
    got = np.array([order.action for order in observed.received])
    if "cartpole" in observed.script:
        assert set(actions) == {0, 1, 2}
        np.testing.assert_array_equal(got, 5 + actions)
    else:
        np.testing.assert_array_equal(got, np.clip(actions, [-0.5, -2.0], [0.5, 0.1]).astype(np.float32))
        assert (got != actions).any(0).all()
        assert (got == actions).any(0).all()


def test_the_raw_returns_and_lengths_of_ended_episodes_are_logged(observed):
    steps, returns, lengths = [], [], []
    for iteration in range(ITERATIONS):
        ended = [episode for episode in observed.world.episodes if episode[0] // STEPS == iteration]
        if ended:
            steps.append((iteration + 1) * STEPS * observed.envs)
            returns.append(np.mean([episode[1] for episode in ended]))
            lengths.append(np.mean([episode[2] for episode in ended]))
    for tag, expected in (("charts/episodic_return", returns), ("charts/episodic_length", lengths)):
        assert [step for step, _ in observed.run.scalars[tag]] == steps
        assert observed.run.values(tag) == pytest.approx(expected, rel=1e-6)
    assert observed.run.result["final_return"] == pytest.approx(returns[-1], rel=1e-12)


def test_explained_variance_is_that_of_the_returns(observed):
    expected = []
    for rollout in observed.rollouts:
        returns, values = (np.concatenate([x[at] for x in rollout.minibatches[: observed.envs]]) for at in (4, 5))
        expected.append(1 - np.var(returns - values) / np.var(returns))
    assert observed.run.values("losses/explained_variance") == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("observed", [case for case in OBSERVED if case[0] in KL_SCALAR], indirect=True, ids=str)
def test_kl_final_is_from_the_rollouts_policy_to_the_next(observed):
    """Of the whole rollout, after its last update; β's adaptation reads it."""
    expected = []
    for rollout, following in pairwise(observed.rollouts):
        obs = torch.as_tensor(rollout.obs)
        if "cartpole" in observed.script:
            old, new = (Categorical(logits=x.agent.actor(obs)) for x in (rollout, following))
            expected.append(kl_divergence(old, new).mean().item())
        else:
            old, new = (Normal(x.agent.actor_mean(obs), x.agent.actor_logstd.exp()) for x in (rollout, following))
            expected.append(kl_divergence(old, new).sum(-1).mean().item())
    assert observed.run.values("kl/final")[:-1] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_advantages_are_normalised_over_what_norm_adv_says(script, tmp_path, monkeypatch):
    for norm_adv in ("rollout", "minibatch"):
        folder = tmp_path / norm_adv
        folder.mkdir()
        with monkeypatch.context() as patch:
            rollouts, _, _ = observe(script, 3, folder, patch, norm_adv=norm_adv)
        for rollout in rollouts:
            groups = [minibatch[3] for minibatch in rollout.minibatches[:3]]
            groups = [np.concatenate(groups)] if norm_adv == "rollout" else groups
            for advantages in groups:
                assert np.mean(advantages) == pytest.approx(0, abs=1e-5)
                assert np.std(advantages) == pytest.approx(1, rel=1e-5)


def test_target_kl_ends_the_epochs(tmp_path, monkeypatch):
    rollouts, _, _ = observe("ppo_clip_continuous", 3, tmp_path, monkeypatch, target_kl=1e-12)
    assert [len(rollout.minibatches) for rollout in rollouts] == [3] * ITERATIONS


@pytest.fixture(scope="module", params=ONE_OF_EACH)
def plain(request, tmp_path_factory):
    """A script, and what a run of it on Countdown returns."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _, _, run = observe(request.param, 3, tmp_path_factory.mktemp("plain"), monkeypatch)
    return request.param, run.result


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")  # of the habits
@pytest.mark.parametrize("habit", countdown_env.HABITS)
def test_an_environments_habits_make_no_difference(habit, plain, tmp_path, monkeypatch):
    """A final observation, for one, is the value to bootstrap from also where its array is used again."""
    script, expected = plain
    env_id = task(script, f"Habitual-{habit}")
    _, _, run = observe(script, 3, tmp_path, monkeypatch, env_id=env_id)
    for name in ("params_sha256", "final_return"):
        assert run.result[name] == expected[name]
