"""CISPO, of MiniMax-M1 (MiniMax 2025, arXiv 2506.13585), as a KL penalty with a coefficient per sample.

Published, per sample:       sg(clip(w, 1-ε_low, 1+ε_high)) Â log π_new, sg: held constant
Same gradient: w Â - β_t kl, β_t = (clip(w, 1-ε_low, 1+ε_high) - w) Â, held constant
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
    eps_low: PositiveFloat = 1.0  # ε_low; from 1 on no lower edge, as its authors trained
    eps_high: PositiveFloat = 0.2  # ε_high, not published (--clip-coef: of the value loss and the tags alone)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, eps_low=1.0, eps_high=0.2):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    excess = torch.relu(new_logprob - old_logprob - 20).detach()  # a w above e^20 would drown clip(w) in rounding
    ratio = (new_logprob - old_logprob - excess).exp()
    beta = ((torch.clamp(ratio, 1 - eps_low, 1 + eps_high) - ratio) * advantages).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, eps_low=args.eps_low, eps_high=args.eps_high))
