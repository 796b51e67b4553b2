"""BPO, Bounded Policy Optimization (Ao et al. 2026, arXiv 2604.18578), as a KL penalty with a coefficient per sample.

Published, per sample:       -|Â| |w - w*|, w* = 1 - ε + 2ε σ(Â/λ), σ: the logistic function, ε = 0.3, λ = 0.001
                             (in w* their Â is the return less a learned median; here it is the one Â that there is)
Same gradient: w Â - β_t kl, β_t = -2 w Â  where w > w*, Â > 0  or  w < w*, Â < 0,   0 elsewhere, held constant
                             (w* is 1 ± ε unless |Â| is as small as λ: rollback with α = 1 and ε = 0.3)
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
    clip_coef=0.3,
    lam: Annotated[float, "λ, how large |Â| must be for w* to come near to 1 ± ε"] = 0.001,
):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    target_ratio = 1 - clip_coef + 2 * clip_coef * torch.sigmoid(advantages / lam)
    beyond = ((ratio > target_ratio) & (advantages > 0)) | ((ratio < target_ratio) & (advantages < 0))
    beta = torch.where(beyond, -2 * ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
