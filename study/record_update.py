"""Records one real update by several methods, from one policy and one rollout, for the page (page.py):

    python study/record_update.py                       # into study/updates.npz, in a few minutes
    python study/record_update.py --env-id Hopper-v4 --iteration 200 --out updates.npz

PPO-Clip trains until the given iteration. Each method then makes that iteration's update from a copy of the same policy
and of Adam's moments, with the same minibatches in the same order. Of every sample the file has the advantage and, for
each method and epoch, log w before the sample's step: what the scripts' `diagnostics` receives.
"""

import copy
import sys
import tempfile
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import torch
import tyro

import ppo_clip_continuous
import ppo_kl_scalar_continuous
import ppo_klip_continuous
from betas import none, rollback, spo


@dataclass
class Args:
    env_id: str = "HalfCheetah-v4"  # the task
    seed: int = 0  # the seed of the run
    iteration: int = 150  # the iteration whose update is recorded, counted from 1
    out: Path = ROOT / "study" / "updates.npz"  # the file to write


class Recorded(Exception):
    """Ends the training once the update is recorded."""


def start_and_minibatches(args, iteration):
    """Trains PPO-Clip until an iteration's update. Returns a copy of what that update starts from, (agent, adam,
    learning_rate), and its minibatches in the order of their steps."""
    steps = args.update_epochs * args.num_minibatches
    compile_update = ppo_clip_continuous.compile_update
    calls = 0
    start = []
    minibatches = []

    def recording(cuda):
        """What train takes for the compiled update: that, and a record of what it is called with."""
        update = compile_update(cuda)

        def recording_update(*inputs):
            nonlocal calls
            calls += 1
            _, _, agent, adam, learning_rate, *_, minibatch = inputs
            if calls == (iteration - 1) * steps + 1:
                start.extend(copy.deepcopy([agent, adam, learning_rate]))
            if start:
                minibatches.append(minibatch)
            if len(minibatches) == steps:
                raise Recorded
            return update(*inputs)

        return recording_update

    ppo_clip_continuous.compile_update = recording
    try:
        with tempfile.TemporaryDirectory() as folder, chdir(folder):
            ppo_clip_continuous.train(args)
    except Recorded:
        return start, minibatches
    finally:
        ppo_clip_continuous.compile_update = compile_update
    raise ValueError(f"the run has fewer than {iteration} iterations")


def clip_update(surrogate, start, minibatches):
    """The log w (N,) that each step of an update with a surrogate of clip's signature sees."""
    agent, adam, learning_rate = copy.deepcopy(start)
    args = ppo_klip_continuous.Args()
    clip_coef = torch.tensor(args.clip_coef, dtype=torch.float64)
    for minibatch in minibatches:
        inputs = (args, surrogate, agent, adam, learning_rate, clip_coef, clip_coef, minibatch)
        log_ratio, _ = ppo_klip_continuous.update(*inputs)
        yield log_ratio


def kl_fixed_update(start, minibatches):
    """The same with the fixed KL penalty, whose minibatches hold the old policy's mean and log std, too."""
    agent, adam, learning_rate = copy.deepcopy(start)
    old_agent = start[0]
    args = ppo_kl_scalar_continuous.Args()
    surrogate = ppo_kl_scalar_continuous.surrogate
    vloss_clip_coef = torch.tensor(args.clip_coef, dtype=torch.float64)
    beta = torch.tensor(args.beta, dtype=torch.float64)
    for minibatch in minibatches:
        with torch.no_grad():
            old_mean = old_agent.actor_mean(minibatch.obs)
            old_logstd = old_agent.actor_logstd.expand_as(old_mean)
        with_old_policy = ppo_kl_scalar_continuous.Batch(*minibatch, old_mean, old_logstd)
        inputs = (args, surrogate, agent, adam, learning_rate, vloss_clip_coef, beta, with_old_policy)
        log_ratio, _ = ppo_kl_scalar_continuous.update(*inputs)
        yield log_ratio


def in_rollout_order(columns, minibatches, epochs):
    """A column of the minibatches, (N,) each, as (epochs, samples) with every sample in one place in all epochs."""
    table = torch.stack(list(columns)).reshape(epochs, -1).numpy()
    # An epoch's samples are shuffled; log π_old, and Â where two agree in it, tell which is which.
    old_logprobs = torch.stack([minibatch.old_logprobs for minibatch in minibatches]).reshape(epochs, -1).numpy()
    advantages = torch.stack([minibatch.advantages for minibatch in minibatches]).reshape(epochs, -1).numpy()
    order = np.stack([np.lexsort(keys) for keys in zip(advantages, old_logprobs, strict=True)])
    return np.take_along_axis(table, order, axis=1)


def main(args):
    out = args.out.resolve()
    train_args = ppo_clip_continuous.Args(env_id=args.env_id, seed=args.seed)
    iterations = train_args.total_timesteps // (train_args.num_envs * train_args.num_steps)
    if not 1 <= args.iteration <= iterations:
        ppo_clip_continuous.fail(f"--iteration {args.iteration}: a run has {iterations}; choose one of them")
    if not out.parent.is_dir():
        ppo_clip_continuous.fail(f"--out {args.out}: there is no folder {out.parent}; make it, or choose another")
    if out.suffix != ".npz":
        ppo_clip_continuous.fail(f"--out {args.out}: name a file that ends in .npz")
    start, minibatches = start_and_minibatches(train_args, args.iteration)
    log_ratios = {
        "clip": clip_update(ppo_clip_continuous.surrogate, start, minibatches),
        "none": clip_update(none.surrogate, start, minibatches),
        "spo": clip_update(spo.surrogate, start, minibatches),
        "rollback": clip_update(rollback.surrogate, start, minibatches),
        "kl_fixed": kl_fixed_update(start, minibatches),
    }
    epochs = train_args.update_epochs
    advantages = in_rollout_order([minibatch.advantages for minibatch in minibatches], minibatches, epochs)
    tables = {name: in_rollout_order(steps, minibatches, epochs) for name, steps in log_ratios.items()}
    np.savez_compressed(
        out,
        env_id=args.env_id,
        seed=args.seed,
        iteration=args.iteration,
        clip_coef=train_args.clip_coef,
        advantages=advantages[0].astype(np.float16),
        **{f"log_ratio_{name}": table.astype(np.float16) for name, table in tables.items()},
    )
    for name, table in tables.items():
        outside = np.abs(np.exp(table[-1]) - 1) > train_args.clip_coef
        print(f"{name}: {outside.mean():.0%} of the last epoch's samples outside the band")
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
