"""SAPO, Soft Adaptive Policy Optimization (Gao et al. 2025, arXiv 2511.20347), as a KL penalty with β per sample.

Published, per sample:       (4/τ) σ(τ (w - 1)) Â, τ = 1 where Â > 0, 1.05 elsewhere
Same gradient: w Â - β_t kl, β_t = -w Â (1 - 4 p (1 - p)), p = σ(τ (w - 1)), held constant
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
    tau_pos: Annotated[float, "τ where Â > 0; the larger, the faster the gradient fades away from w = 1"] = 1.0,
    tau_neg: Annotated[float, "the same elsewhere"] = 1.05,
):
    """Per-sample objective, to be maximised. All tensors (N,). It has no ε."""
    ratio = (new_logprob - old_logprob).exp()
    p = torch.sigmoid(torch.where(advantages > 0, tau_pos * (ratio - 1), tau_neg * (ratio - 1)))
    beta = (-ratio * advantages * (1 - 4 * p * (1 - p))).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
