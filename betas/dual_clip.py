"""Dual-clip PPO (Ye et al. 2020, arXiv 1912.09729), as a KL penalty with a coefficient per sample.

Published, per sample:       max(min(w Â, clip(w, 1-ε, 1+ε) Â), c Â) where Â < 0, PPO-Clip elsewhere, c = 3
Same gradient: w Â - β_t kl, β_t = -w Â  where PPO-Clip has it, and where w > c, Â < 0,   0 elsewhere, held constant
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

from typing import Annotated

import torch


def surrogate(
    new_logprob,
    old_logprob,
    advantages,
    clip_coef,
    c: Annotated[float, "nothing is learned from a sample with Â < 0 and w above this"] = 3.0,
):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    kill = ((ratio > 1 + clip_coef) & (advantages > 0)) | ((ratio < 1 - clip_coef) & (advantages < 0))
    beta = torch.where(kill | ((ratio > c) & (advantages < 0)), -ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
