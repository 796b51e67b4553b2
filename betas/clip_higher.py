"""Clip-Higher, of DAPO (Yu et al. 2025, arXiv 2503.14476), as a KL penalty with a coefficient per sample.

Published, per sample:       min(w Â, clip(w, 1-ε_low, 1+ε_high) Â), ε_low = 0.2, ε_high = 0.28
Same gradient: w Â - β_t kl, β_t = -w Â  where w > 1+ε_high, Â > 0  or  w < 1-ε_low, Â < 0,   0 elsewhere, held constant
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
    eps_high: Annotated[float, "ε_high; --clip-coef is ε_low"] = 0.28,
):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef is ε_low, a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    kill = ((ratio > 1 + eps_high) & (advantages > 0)) | ((ratio < 1 - clip_coef) & (advantages < 0))
    beta = torch.where(kill, -ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
