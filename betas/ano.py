"""ANO, "A Principled Approach to Robust Policy Optimization" (2026, arXiv 2605.02320), as a KL penalty with β_t.

Published, per sample:       f(w) Â where Â ≥ 0, else (2 - f(2 - w)) Â, with f'(w) = 45/16 (σ(-2x) - 2 σ(x) σ(-x)),
                             x = (w - 1 - ε) ln 2 / ε, ε = 0.2
Same gradient: w Â - β_t kl, β_t = w Â (f' - 1), f' taken at w where Â ≥ 0, else at 2 - w, held constant
"""

import math
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
    eps: PositiveFloat = 0.2  # ε, where the gradient begins to turn back (--clip-coef: of value loss and tags alone)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, eps=0.2):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    ratio = (new_logprob - old_logprob).exp()
    x = ((ratio - 1) * torch.sign(advantages) - eps) * math.log(2) / eps
    slope = 45 / 16 * (torch.sigmoid(-2 * x) - 2 * torch.sigmoid(x) * torch.sigmoid(-x))
    beta = (ratio * advantages * (slope - 1)).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, eps=args.eps))
