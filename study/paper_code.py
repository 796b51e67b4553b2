"""Our training beside the paper's own code, on the same environment steps and minibatches: do they compute the same?

    git clone https://github.com/learning-mechanisms/KLip-PPO ../paper
    .venv/bin/pip install structlog typer rich pyyaml
    .venv/bin/python study/paper_code.py --checkout ../paper

The paper's code trains a few iterations of each of its 28 baselines. In each iteration our functions get the same
steps, parameters and minibatches, with the settings of our runs in study/data. A line a baseline has the largest
differences, over all iterations, of normalised observations and rewards, of advantages and of the parameters after an
iteration; how far the parameters moved at most; and the largest difference of the next β. Two known differences are
left out: our running statistics get the start of the paper's, and our updates its advantages, which it divides by a
standard deviation with divisor n - 1.
"""

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import tyro

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import ppo_kl_scalar_continuous

VARIANTS = {"clip": "clip", "kl_per_sample": "klip", "kl_fixed": "kl_fixed", "kl_adaptive": "kl_adaptive"}
RUNS = pd.read_csv(ROOT / "study" / "data" / "runs.csv")


@dataclass
class Args:
    checkout: Path  # a clone of the paper's code
    baselines: str = "*"  # which of its baselines, for example "hopper__*"
    iterations: int = 2  # how many iterations of each
    seed: int = 0  # the seed of the paper's code


def recorded(owner, name):
    """Wraps a method of a class; returns the list to which its calls' array arguments, keywords and results go."""
    method, calls = getattr(owner, name), []

    def call(self, *args, **kwargs):
        args_then = [np.array(arg, float) for arg in args]
        result = method(self, *args, **kwargs)
        calls.append((args_then, kwargs, np.asarray(result).astype(float)))
        return result

    setattr(owner, name, call)
    return calls


def as_ours(script, model):
    """The parameters of the paper's model in our Agent."""
    agent = script.Agent(model.policy_trunk[0].in_features, model.action_dim)
    actor = agent.actor if model.log_std is None else agent.actor_mean
    trunks = (actor, model.policy_trunk, model.policy_head), (agent.critic, model.value_trunk, model.value_head)
    for ours, trunk, head in trunks:
        for layer, theirs in zip(ours[::2], [*trunk[::2], head], strict=True):
            layer.load_state_dict(theirs.state_dict())
    if model.log_std is not None:
        agent.actor_logstd.data.copy_(model.log_std.data)
    return agent


def running_stats(shape):
    """Ours as the paper's start: with a weight of 10^-4 samples of mean 0 and variance 1."""
    stats = ppo_kl_scalar_continuous.RunningStats(shape)
    stats.m2, stats.count = stats.m2 + 1e-4, 1e-4
    return stats


def tensor(number):
    return torch.tensor(number, dtype=torch.float64)


def distance(ours, theirs):
    return np.abs(np.asarray(ours, float) - np.asarray(theirs, float)).max()


def flat(agent):
    return torch.cat([param.detach().flatten() for param in agent.parameters()])


def compare(path, iterations, seed, calls):
    """The largest differences in the first iterations of the baseline at path."""
    from klip_ppo.cli._common import load_experiment_from_snapshot
    from klip_ppo.core.networks import ActorCritic
    from klip_ppo.core.ppo.strategies import build_strategy
    from klip_ppo.core.ppo.trainer import PPOTrainer
    from klip_ppo.envs.gym_env import probe_spaces
    from klip_ppo.envs.vec_env import VectorCollector
    from klip_ppo.runtime.local import _build_optimiser, _build_scheduler

    for of_method in calls.values():
        of_method.clear()
    cfg, device = load_experiment_from_snapshot(path, seed=seed), torch.device("cpu")
    torch.manual_seed(seed)
    model = ActorCritic(*probe_spaces(cfg.env), cfg.network)
    discounts = {"gamma": cfg.algorithm.gamma, "gae_lambda": cfg.algorithm.gae_lambda}
    collector = VectorCollector(cfg.env, cfg.rollout, **discounts, device=device, seed=seed)
    strategy, optim = build_strategy(cfg.algorithm), _build_optimiser(model, cfg.algorithm)
    parts = {"model": model, "collector": collector, "strategy": strategy, "optim": optim}
    scheduler, ctx = _build_scheduler(optim, cfg), SimpleNamespace(device=device, seed=seed)
    trainer = PPOTrainer(cfg=cfg, ctx=ctx, **parts, scheduler=scheduler, logger=None, ckpt=None)

    variant = VARIANTS[cfg.algorithm.kind.removeprefix("ppo_")]
    run = RUNS[(RUNS["env_id"] == cfg.env.id) & (RUNS["variant"] == variant)].iloc[0]
    args = json.loads(run["args"])
    family = args["exp_name"].rsplit("_", 1)[1]
    script = importlib.import_module(f"ppo_{'kl_scalar' if 'beta' in args else variant}_{family}")
    args = SimpleNamespace(**args)
    adam = script.Adam(list(as_ours(script, model).parameters()))
    obs_stats, return_stats = running_stats(model.policy_trunk[0].in_features), running_stats(())
    discounted = np.zeros(args.num_envs)
    beta, num_iterations = tensor(getattr(args, "beta", 0.0)), args.total_timesteps // (args.num_envs * args.num_steps)
    worst = dict.fromkeys(("observations", "rewards", "advantages", "parameters", "moved", "beta"), 0.0)

    def saw(name, difference):
        worst[name] = max(worst[name], float(difference))

    for iteration in range(1, num_iterations + 1)[:iterations]:
        rollout, _ = collector.collect(model)
        agent, shape = as_ours(script, model), (args.num_steps, args.num_envs)
        if family == "continuous":
            for (obs,), kwargs, normalised in calls["normalize_obs"]:
                if kwargs["update"]:
                    obs_stats.update(obs)
                saw("observations", distance(obs_stats.normalise(obs), normalised))
        rewards = np.stack([rewards for (rewards,), _, _ in calls["normalize_reward"]])
        ends = [[kwargs[name] for _, kwargs, _ in calls["normalize_reward"]] for name in ("terminated", "truncated")]
        terminations, truncations = np.array(ends)
        dones = terminations | truncations
        if family == "continuous":
            rewards = script.scale_rewards(return_stats, rewards, dones, discounted, args.gamma)
        saw("rewards", distance(rewards.ravel(), rollout.rewards))
        values = rollout.values.numpy().reshape(shape)
        last = agent.critic(torch.as_tensor(collector._obs)).detach().numpy().T
        at_limits = np.stack([value for _, _, value in calls["_value_truncated_final_obs"]])
        next_values = np.where(truncations, at_limits, np.concatenate([values[1:], last]))
        advantages = script.gae(rewards, values, next_values, terminations, dones, args.gamma, args.gae_lambda)
        saw("advantages", distance(advantages.ravel(), rollout.advantages))

        trainer._apply_rollout_advantage_norm(rollout)
        order_rng, start = torch.Generator().set_state(trainer._rng.get_state()), flat(agent)
        trainer._train_on_rollout(rollout, iteration=iteration)
        with torch.no_grad():
            logprobs, _, old_values = agent(rollout.obs, rollout.actions)
            old_policy = []
            if beta and family == "continuous":
                old_mean = agent.actor_mean(rollout.obs)
                old_policy = [old_mean, agent.actor_logstd.expand_as(old_mean).clone()]
            elif beta:
                old_policy = [agent.actor(rollout.obs).log_softmax(-1)]
        targets = (rollout.advantages, rollout.returns, old_values)
        batch = script.Batch(rollout.obs, rollout.actions, logprobs, *targets, *old_policy)
        learning_rate = tensor(args.learning_rate * (1 - (iteration - 1) / num_iterations))
        clip_coef = tensor(args.clip_coef)
        scalars = (clip_coef, beta if old_policy else clip_coef)  # clip: ε of the policy and of the value loss
        for _ in range(args.update_epochs):
            order = torch.randperm(len(rollout), generator=order_rng)
            for rows in order.chunk(args.num_minibatches):
                script.update(args, script.surrogate, agent, adam, learning_rate, *scalars, batch.select(rows))
        saw("parameters", distance(flat(agent), flat(as_ours(script, model))))
        saw("moved", distance(flat(agent), start))
        if getattr(args, "adaptive_beta", False):
            with torch.no_grad():
                new_logprobs, _, _ = agent(rollout.obs, rollout.actions)
                kl = script.kl_estimate(args.kl_penalty, agent, new_logprobs, batch).mean().item()
            beta = tensor(script.adapted_beta(beta.item(), kl, args.kl_target))
            saw("beta", distance(beta, strategy.beta))
        if scheduler:
            scheduler.step()
        for of_method in calls.values():
            of_method.clear()
    collector.close()
    return {"task": cfg.env.id, "variant": variant, **worst}


def main(args):
    sys.path.insert(0, str(args.checkout))
    from klip_ppo.envs.vec_env import EnvNormalizer, VectorCollector

    calls = {name: recorded(EnvNormalizer, name) for name in ("normalize_obs", "normalize_reward")}
    calls["_value_truncated_final_obs"] = recorded(VectorCollector, "_value_truncated_final_obs")
    rows, presets = [], args.checkout / "configs" / "snapshots" / "presets"
    for path in sorted(presets.glob(f"*-baselines/{args.baselines}.json")):
        row = compare(path, args.iterations, args.seed, calls)
        print(*(f"{value:.2g}" if isinstance(value, float) else value for value in row.values()), flush=True)
        rows.append(row)
    table = pd.DataFrame(rows)
    print(f"largest of {len(table)}:", *(f"{name} {table[name].max():.2g}," for name in table.columns[2:]))


if __name__ == "__main__":
    main(tyro.cli(Args))
