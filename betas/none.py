"""No trust region: the surrogate that PPO clips, L^CPI in Schulman et al. 2017, arXiv 1707.06347.

Published, per sample:       w Â
Same gradient: w Â - β_t kl, β_t = 0 (ε is of the value loss and the tags alone)
"""

import sys
from pathlib import Path

import torch
from pydantic.dataclasses import dataclass

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import ppo_klip_continuous
from betas.loop import parse


@dataclass(config={"allow_inf_nan": False})
class Args(ppo_klip_continuous.Args):
    exp_name: str = Path(__file__).stem  # the name of this experiment


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    ratio = (new_logprob - old_logprob).exp()
    beta = torch.zeros_like(ratio)
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, surrogate)
