"""PPO-RB, PPO with rollback (Wang et al. 2019, arXiv 1903.07940), as a KL penalty with a coefficient per sample.

Published, per sample:       min(w Â, F(w) Â), F(w) = w in the band, edge - α (w - edge) beyond an edge,
                             ε = 0.2, α = 0.3
Same gradient: w Â - β_t kl, β_t = -(1+α) w Â  where w > 1+ε, Â > 0  or  w < 1-ε, Â < 0,   0 elsewhere, held constant
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
    alpha: Annotated[float, "α, how hard w is pulled back towards the band; 0 is the clip"] = 0.3,
):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    kill = ((ratio > 1 + clip_coef) & (advantages > 0)) | ((ratio < 1 - clip_coef) & (advantages < 0))
    beta = torch.where(kill, -(1 + alpha) * ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
