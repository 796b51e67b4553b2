"""No trust region: the surrogate that PPO clips, L^CPI in Schulman et al. 2017, arXiv 1707.06347.

Published, per sample:       w Â
Same gradient: w Â - β_t kl, β_t = 0
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

import torch


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,). It has no ε."""
    ratio = (new_logprob - old_logprob).exp()
    beta = torch.zeros_like(ratio)
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
