"""Dual-clip PPO (Ye et al. 2020, arXiv 1912.09729), as a KL penalty with a coefficient per sample.

Published, per sample:       max(min(w Â, clip(w, 1-ε, 1+ε) Â), c Â) where Â < 0, PPO-Clip elsewhere, c = 3
Same gradient: w Â - β_t kl, β_t = -w Â  where PPO-Clip has it, and where w > c, Â < 0,   0 elsewhere, held constant
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import ppo_klip_continuous
from betas.loop import parse


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
    args, script = parse(Args)
    script.train(args, partial(surrogate, c=args.c))
