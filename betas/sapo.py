"""SAPO, Soft Adaptive Policy Optimization (Gao et al. 2025, arXiv 2511.20347), as a KL penalty with β per sample.

Published, per sample:       (4/τ) σ(τ (w - 1)) Â, τ = 1 where Â > 0, 1.05 elsewhere
Same gradient: w Â - β_t kl, β_t = -w Â (1 - 4 p (1 - p)), p = σ(τ (w - 1)), held constant
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
    tau_pos: PositiveFloat = 1.0  # τ where Â > 0 (--clip-coef: of the value loss and the tags alone)
    tau_neg: PositiveFloat = 1.05  # τ where Â < 0; the larger, the faster the gradient fades away from w = 1


def surrogate(new_logprob, old_logprob, advantages, clip_coef, tau_pos=1.0, tau_neg=1.05):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    ratio = (new_logprob - old_logprob).exp()
    p = torch.sigmoid(torch.where(advantages > 0, tau_pos * (ratio - 1), tau_neg * (ratio - 1)))
    beta = (-ratio * advantages * (1 - 4 * p * (1 - p))).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, tau_pos=args.tau_pos, tau_neg=args.tau_neg))
