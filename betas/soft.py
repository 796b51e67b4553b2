"""PPO-Clip with soft edges, of KLip-PPO (Colletti & Holzinger 2026, arXiv 2606.23932), whose code has these shapes.

In w Â - β_t KL: β_t = -w Â gate, held constant; w lies d widths beyond the edge that PPO-Clip has for this sign of Â
gate, by shape: ramp clip(d, 0, 1); sigmoid σ(d); softmin, outside the band, the weight of clip(w) Â in the log-sum-exp
minimum of w Â and clip(w) Â at the temperature |Â| width
"""

import functools
import sys
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import ppo_klip_continuous  # before torch, which reads the number of threads that it sets

# isort: split
import torch
import tyro
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass


@dataclass(config={"allow_inf_nan": False})
class Args(ppo_klip_continuous.Args):
    exp_name: str = Path(__file__).stem  # the name of this experiment
    shape: Literal["ramp", "sigmoid", "softmin"] = "ramp"  # how β_t rises from 0 to PPO-Clip's
    width: PositiveFloat = 0.1  # over how much of w it does (towards 0: PPO-Clip)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, shape="ramp", width=0.1):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    d = (torch.where(advantages > 0, ratio - 1, 1 - ratio) - clip_coef) / width
    outside = torch.sign(advantages) * (ratio - torch.clamp(ratio, 1 - clip_coef, 1 + clip_coef))
    gates = {"ramp": d.clamp(0, 1), "sigmoid": d.sigmoid(), "softmin": (outside != 0) * (outside / width).sigmoid()}
    beta = (-ratio * advantages * gates[shape]).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args = tyro.cli(Args)
    ppo_klip_continuous.surrogate = functools.partial(surrogate, shape=args.shape, width=args.width)
    ppo_klip_continuous.train(args)
