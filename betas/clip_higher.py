"""Clip-Higher, of DAPO (Yu et al. 2025, arXiv 2503.14476), as a KL penalty with a coefficient per sample.

Published, per sample:       min(w Â, clip(w, 1-ε_low, 1+ε_high) Â), ε_low = 0.2, ε_high = 0.28
Same gradient: w Â - β_t kl, β_t = -w Â  where w > 1+ε_high, Â > 0  or  w < 1-ε_low, Â < 0,   0 elsewhere, held constant
"""

import sys
from functools import partial
from pathlib import Path

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import ppo_klip_continuous
from betas.loop import parse


@dataclass(config={"allow_inf_nan": False})
class Args(ppo_klip_continuous.Args):
    exp_name: str = Path(__file__).stem  # the name of this experiment
    eps_low: PositiveFloat = 0.2  # ε_low (--clip-coef: of the value loss and the tags alone)
    eps_high: PositiveFloat = 0.28  # ε_high


def surrogate(new_logprob, old_logprob, advantages, clip_coef, eps_low=0.2, eps_high=0.28):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    ratio = (new_logprob - old_logprob).exp()
    kill = ((ratio > 1 + eps_high) & (advantages > 0)) | ((ratio < 1 - eps_low) & (advantages < 0))
    beta = torch.where(kill, -ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, eps_low=args.eps_low, eps_high=args.eps_high))
