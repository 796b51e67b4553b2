"""DPO, Discovered Policy Optimisation (Lu et al. 2022, arXiv 2210.05639), as a KL penalty with β per sample.

Published, per sample:       w Â - relu(u - α tanh(u / α)), u = (w - 1) Â, where Â ≥ 0, α = 2
                             w Â - relu(v - η tanh(v / η)), v = Â log w, where Â < 0, η = 0.6
Same gradient: w Â - β_t kl, β_t = -w Â tanh²(u / α) if Â ≥ 0, w > 1; -Â tanh²(v / η) if Â < 0, w < 1; held constant
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
    alpha: Annotated[float, "α, how far (w - 1) Â goes where Â ≥ 0 before the gradient fades"] = 2.0,
    eta: Annotated[float, "η, the same for Â log w where Â < 0"] = 0.6,
):
    """Per-sample objective, to be maximised. All tensors (N,). It has no ε."""
    log_ratio = new_logprob - old_logprob
    ratio = log_ratio.exp()
    fade_above = torch.tanh(torch.relu(ratio - 1) * advantages / alpha) ** 2
    fade_below = torch.tanh(torch.relu(-log_ratio) * advantages / eta) ** 2
    beta = torch.where(advantages >= 0, -ratio * advantages * fade_above, -advantages * fade_below).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
