"""R2VPO, Ratio-Variance Regularized Policy Optimization (Luo et al. 2026, arXiv 2605.26784), as a KL penalty with a
coefficient per sample.

Published, per sample:       w Â - λ (w - 1)², λ a dual variable; here it stays as it is
                             (λ = 2.5: the penalty of spo with ε = 0.2 where |Â| = 1)
Same gradient: w Â - β_t kl, β_t = -2 λ w (w - 1), held constant
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

from typing import Annotated


def surrogate(
    new_logprob,
    old_logprob,
    advantages,
    clip_coef,
    lam: Annotated[float, "λ, the weight of the variance of w"] = 2.5,
):
    """Per-sample objective, to be maximised. All tensors (N,). It has no ε."""
    ratio = (new_logprob - old_logprob).exp()
    beta = (-2 * lam * ratio * (ratio - 1)).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
