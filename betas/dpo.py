"""DPO, Discovered Policy Optimisation (Lu et al. 2022, arXiv 2210.05639), as a KL penalty with β per sample.

Published, per sample:       w Â - relu(u - α tanh(u / α)), u = (w - 1) Â, where Â ≥ 0, α = 2
                             w Â - relu(v - η tanh(v / η)), v = Â log w, where Â < 0, η = 0.6
Same gradient: w Â - β_t kl, β_t = -w Â tanh²(u / α) if Â ≥ 0, w > 1; -Â tanh²(v / η) if Â < 0, w < 1; held constant
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
    alpha: PositiveFloat = 2.0  # α, how far w Â goes where Â ≥ 0 before the gradient fades
    eta: PositiveFloat = 0.6  # η, the same for Â log w where Â < 0 (--clip-coef: of the value loss and the tags alone)


def surrogate(new_logprob, old_logprob, advantages, clip_coef, alpha=2.0, eta=0.6):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef, the ε of the value loss, is not used."""
    log_ratio = new_logprob - old_logprob
    ratio = log_ratio.exp()
    fade_above = torch.tanh(torch.relu(ratio - 1) * advantages / alpha) ** 2
    fade_below = torch.tanh(torch.relu(-log_ratio) * advantages / eta) ** 2
    beta = torch.where(advantages >= 0, -ratio * advantages * fade_above, -advantages * fade_below).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


if __name__ == "__main__":
    args, script = parse(Args)
    script.train(args, partial(surrogate, alpha=args.alpha, eta=args.eta))
