"""SPO, Simple Policy Optimization (Xie et al. 2024, arXiv 2401.16025), as a KL penalty with a coefficient per sample.

Published, per sample:       w Â - |Â| / (2ε) (w - 1)²
Same gradient: w Â - β_t kl, β_t = -|Â| w (w - 1) / ε, held constant
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
    eps: PositiveFloat = 0.2  # ε, the width of the parabola (--clip-coef: of the value loss and the tags alone)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, eps=0.2):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    ratio = (new_logprob - old_logprob).exp()
    beta = (-torch.abs(advantages) * ratio * (ratio - 1) / eps).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, eps=args.eps))
