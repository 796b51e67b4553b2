"""PPO-RB, PPO with rollback (Wang et al. 2019, arXiv 1903.07940), as a KL penalty with a coefficient per sample.

Published, per sample:       min(w Â, F(w) Â), F(w) = w in the band, edge - α (w - edge) beyond an edge, α = 0.3
Same gradient: w Â - β_t kl, β_t = -(1+α) w Â  where w > 1+ε, Â > 0  or  w < 1-ε, Â < 0,   0 elsewhere, held constant
"""

import sys
from functools import partial
from pathlib import Path

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import ppo_klip_continuous
from betas.loop import parse


@dataclass(config={"allow_inf_nan": False})
class Args(ppo_klip_continuous.Args):
    exp_name: str = Path(__file__).stem  # the name of this experiment
    eps: PositiveFloat = 0.2  # ε of the policy (--clip-coef: of the value loss and the tags alone)
    alpha: NonNegativeFloat = 0.3  # α, how hard w is pulled back towards the band (0: PPO-Clip)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, eps=0.2, alpha=0.3):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    ratio = (new_logprob - old_logprob).exp()
    kill = ((ratio > 1 + eps) & (advantages > 0)) | ((ratio < 1 - eps) & (advantages < 0))
    beta = torch.where(kill, -(1 + alpha) * ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, eps=args.eps, alpha=args.alpha))
