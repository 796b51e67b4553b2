"""SPO, Simple Policy Optimization (Xie et al. 2024, arXiv 2401.16025), as a KL penalty with a coefficient per sample.

Published, per sample:       w Â - |Â| / (2ε) (w - 1)²
Same gradient: w Â - β_t kl, β_t = -|Â| w (w - 1) / ε, held constant
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

import torch


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    beta = (-torch.abs(advantages) * ratio * (ratio - 1) / clip_coef).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
