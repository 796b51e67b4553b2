"""Final returns of Stable-Baselines3's PPO on the protocol of our scripts, to tell a fault of ours from luck.

    .venv/bin/pip install stable-baselines3==2.9.2
    .venv/bin/python study/peer.py --env-id Hopper-v4 --seed 0 --beta 1 >> study/peer.csv

prints a row of study/peer.csv: task, β (empty for the clip), seed, final return (as in result.json), steps per second.
With --beta the clip gives way to a closed-form KL penalty with that coefficient, as in ppo_kl_scalar_continuous.py.
What stays SB3's own: random streams, running statistics, float32, a learning rate that anneals by one rollout more, and
with the clip the value loss, which is that of the clipped value alone, not the larger of both.
"""

import copy
import time
import warnings
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch.distributions import kl_divergence


@dataclass
class Args:
    env_id: str = "Hopper-v4"  # the environment
    seed: int = 0  # the seed
    total_timesteps: int = 1_000_000  # total environment steps, rounded down to whole rollouts
    beta: float | None = None  # β of the KL penalty (without it: the clip)


class ProtocolPPO(PPO):
    """PPO with advantages normalised over the rollout and, with β, the value loss of our scripts."""

    beta = None

    def train(self):
        buffer = self.rollout_buffer
        buffer.advantages = (buffer.advantages - buffer.advantages.mean()) / (buffer.advantages.std() + 1e-8)
        if self.beta is None:
            super().train()
            return
        self._update_learning_rate(self.policy.optimizer)
        old_policy = copy.deepcopy(self.policy)
        for _ in range(self.n_epochs):
            for batch in buffer.get(self.batch_size):
                values, logprob, _ = self.policy.evaluate_actions(batch.observations, batch.actions)
                with torch.no_grad():
                    old = old_policy.get_distribution(batch.observations).distribution
                new = self.policy.get_distribution(batch.observations).distribution
                ratio = (logprob - batch.old_log_prob).exp()
                objective = ratio * batch.advantages - self.beta * kl_divergence(old, new).sum(-1)
                values = values.flatten()
                clipped = batch.old_values + (values - batch.old_values).clamp(-0.2, 0.2)
                errors = torch.max((values - batch.returns) ** 2, (clipped - batch.returns) ** 2)
                loss = -objective.mean() + 0.25 * errors.mean()
                self.policy.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
                self.policy.optimizer.step()


class FinalReturn(BaseCallback):
    """The mean over the iterations of the last 10 % of steps of their episodes' mean return."""

    def __init__(self, total):
        super().__init__()
        self.total, self.episodes, self.recent = total, [], []

    def _on_step(self):
        self.episodes += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self):
        if self.episodes and self.num_timesteps > 0.9 * self.total:
            self.recent.append(np.mean(self.episodes))
        self.episodes = []


def main(args):
    warnings.filterwarnings("ignore", message=".*out of date")
    torch.set_num_threads(1)
    total, start = args.total_timesteps // 2048 * 2048, time.time()
    envs = VecNormalize(make_vec_env(args.env_id, n_envs=1, seed=args.seed))
    how = {"n_steps": 2048, "batch_size": 64, "n_epochs": 10, "normalize_advantage": False, "device": "cpu"}
    how |= {"policy_kwargs": {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}, "learning_rate": lambda left: 3e-4 * left}
    model = ProtocolPPO("MlpPolicy", envs, clip_range_vf=0.2, vf_coef=0.25, seed=args.seed, **how)
    model.beta = args.beta
    final = FinalReturn(total)
    model.learn(total, callback=final)
    beta = "" if args.beta is None else f"{args.beta:g}"
    rate = total / (time.time() - start)
    print(f"{args.env_id},{beta},{args.seed},{np.mean(final.recent):.2f},{rate:.0f}")


if __name__ == "__main__":
    main(tyro.cli(Args))
