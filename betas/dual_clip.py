"""Dual-clip PPO (Ye et al. 2020, arXiv 1912.09729), as a KL penalty with a coefficient per sample.

Published, per sample:     max(min(w Â, clip(w, 1-ε, 1+ε) Â), c Â) where Â < 0, PPO-Clip elsewhere, c = 3
Gradient of w Â - β_t KL:  β_t = -w Â  where PPO-Clip has it, and where w > c, Â < 0,   0 elsewhere, held constant
"""

import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import ppo_klip_continuous  # before torch, which reads the number of threads that it sets

# isort: split
import torch
import tyro
from pydantic import Field
from pydantic.dataclasses import dataclass


@dataclass(config={"allow_inf_nan": False})
class Args(ppo_klip_continuous.Args):
    exp_name: str = Path(__file__).stem  # the name of this experiment
    c: Annotated[float, Field(gt=1)] = 3.0  # above this w, nothing is learned where Â < 0


def surrogate(new_logprob, old_logprob, advantages, clip_coef, c=3.0):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    kill = ((ratio > 1 + clip_coef) & (advantages > 0)) | ((ratio < 1 - clip_coef) & (advantages < 0))
    beta = torch.where(kill | ((ratio > c) & (advantages < 0)), -ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args = tyro.cli(Args)
    ppo_klip_continuous.surrogate = lambda *batch: surrogate(*batch, c=args.c)
    ppo_klip_continuous.train(args)
