"""ANO, "A Principled Approach to Robust Policy Optimization" (2026, arXiv 2605.02320), as a KL penalty with β_t.

Published, per sample:       f(w) Â where Â ≥ 0, else (2 - f(2 - w)) Â, with f'(w) = 45/16 (σ(-2x) - 2 σ(x) σ(-x)),
                             x = (w - 1 - ε) ln 2 / ε, ε = 0.2
Same gradient: w Â - β_t kl, β_t = w Â (f' - 1), f' taken at w where Â ≥ 0, else at 2 - w, held constant
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

import torch


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    ln_2 = 0.6931471805599453
    x = ((ratio - 1) * torch.sign(advantages) - clip_coef) * ln_2 / clip_coef
    slope = 45 / 16 * (torch.sigmoid(-2 * x) - 2 * torch.sigmoid(x) * torch.sigmoid(-x))
    beta = (ratio * advantages * (slope - 1)).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
