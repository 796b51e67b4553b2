"""DPPO, Divergence PPO with its binary total variation (Qi et al. 2026, arXiv 2602.04879), as a KL penalty with a
coefficient per sample. For discrete actions: δ bounds a probability, and a density knows no such scale.

Published, per sample:       M w Â, M = 0 where π_new - π_old > δ, Â > 0  or  π_new - π_old < -δ, Â < 0,   1 elsewhere,
                             M held constant; δ = 0.2 in prime-rl, which trains with it by default
Same gradient: w Â - β_t kl, β_t = -w Â where M = 0, 0 elsewhere, held constant
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

import torch


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef is δ, a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    difference = new_logprob.exp() - old_logprob.exp()
    beyond = ((difference > clip_coef) & (advantages > 0)) | ((difference < -clip_coef) & (advantages < 0))
    beta = torch.where(beyond, -ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
