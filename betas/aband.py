"""A band that grows with the advantage (ours), as a KL penalty with a coefficient per sample.

The clip with the half width ε |Â|, |Â| kept between 1/2 and 2. PPO-λ (Chen et al. 2018, arXiv 1804.06461) adapts its
band to the advantage, too, in another way.
Same gradient: w Â - β_t kl, β_t = -w Â  where sign(Â) (w - 1) > ε clamp(|Â|, 1/2, 2),   0 elsewhere, held constant
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

import torch


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    half_width = clip_coef * advantages.abs().clamp(0.5, 2.0)
    beta = torch.where((ratio - 1) * torch.sign(advantages) > half_width, -ratio * advantages, 0.0).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
