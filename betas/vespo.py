"""VESPO, Variational Sequence-Level Soft Policy Optimization (2026, arXiv 2602.10693), as a KL penalty with a
coefficient per sample.

Published, per sequence:     sg(φ(w)) Â log π_new, φ = w^k e^(λ (1 - w)), sg: held constant; here per sample.
                             k = 2, λ = 3 where Â ≥ 0, k = 3, λ = 2 where Â < 0, as in TRL
Same gradient: w Â - β_t kl, β_t = (φ(w) - w) Â, held constant
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
    k_pos: Annotated[float, "k where Â ≥ 0"] = 2.0,
    lam_pos: Annotated[float, "λ where Â ≥ 0"] = 3.0,
    k_neg: Annotated[float, "k where Â < 0"] = 3.0,
    lam_neg: Annotated[float, "λ where Â < 0"] = 2.0,
):
    """Per-sample objective, to be maximised. All tensors (N,). It has no ε."""
    log_ratio = new_logprob - old_logprob
    ratio = log_ratio.exp()
    # log φ(w)/w, where Â ≥ 0 and where Â < 0: of φ - w nothing would be left of φ where w is large.
    kept_pos = (k_pos - 1) * log_ratio + lam_pos * (1 - ratio)
    kept_neg = (k_neg - 1) * log_ratio + lam_neg * (1 - ratio)
    kept = torch.where(advantages >= 0, kept_pos, kept_neg).exp()
    beta = (-(1 - kept) * ratio * advantages).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
