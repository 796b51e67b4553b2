"""A band that grows with the advantage (ours), as a KL penalty with a coefficient per sample.

The clip with the half width ε |Â|, |Â| kept between 1/2 and 2. PPO-λ (Chen et al. 2018, arXiv 1804.06461) adapts its
band to the advantage, too, in another way.
Same gradient: w Â - β_t kl, β_t = -w Â  where sign(Â) (w - 1) > ε clamp(|Â|, 1/2, 2),   0 elsewhere, held constant
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
    eps: PositiveFloat = 0.2  # ε, the half width of the band at |Â| = 1 (--clip-coef: of value loss and tags alone)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, eps=0.2):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    ratio = (new_logprob - old_logprob).exp()
    half_width = eps * advantages.abs().clamp(0.5, 2.0)
    beta = torch.where((ratio - 1) * torch.sign(advantages) > half_width, -ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, eps=args.eps))
