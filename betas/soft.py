"""PPO-Clip with soft edges, of KLip-PPO (Colletti & Holzinger 2026, arXiv 2606.23932), whose code has these shapes.

Gradient of w Â - β_t KL:  β_t = -w Â gate, held constant, w lying d widths beyond PPO-Clip's edge for this sign of Â
"""

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
    shape: Literal["ramp", "sigmoid", "softmin"] = "ramp"  # how β_t goes from 0 to PPO-Clip's
    width: PositiveFloat = 0.1  # over how much of w (towards 0: PPO-Clip)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, shape="ramp", width=0.1):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    d, band = (torch.sign(advantages) * (ratio - 1) - clip_coef) / width, 2 * clip_coef / width  # both in widths
    softmin = torch.where(d > 0, d, d + band).sigmoid().where((d > 0) | (d < -band), 0.0)  # of clip(w) Â in a soft min
    beta = (-ratio * advantages * {"ramp": d.clamp(0, 1), "sigmoid": d.sigmoid(), "softmin": softmin}[shape]).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args = tyro.cli(Args)
    ppo_klip_continuous.surrogate = lambda *batch: surrogate(*batch, shape=args.shape, width=args.width)
    ppo_klip_continuous.train(args)
