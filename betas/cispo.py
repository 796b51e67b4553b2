"""CISPO, of MiniMax-M1 (MiniMax 2025, arXiv 2506.13585), as a KL penalty with a coefficient per sample.

Published, per sample:       sg(clip(w, 1-ε_low, 1+ε_high)) Â log π_new, sg: held constant
                             ε_low ≥ 1, so that there is no lower edge; ε_high is not published
Same gradient: w Â - β_t kl, β_t = (clip(w, 1-ε_low, 1+ε_high) - w) Â, held constant
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
    eps_low: Annotated[float, "ε_low, no lower edge from 1 on; --clip-coef is ε_high"] = 1.0,
):
    """Per-sample objective, to be maximised. All tensors (N,); clip_coef is ε_high, a scalar."""
    excess = torch.relu(new_logprob - old_logprob - 20).detach()  # a w above e^20 would drown clip(w) in rounding
    ratio = (new_logprob - old_logprob - excess).exp()
    clipped_ratio = ratio.clamp(min=1 - eps_low).clamp(max=1 + clip_coef)
    beta = ((clipped_ratio - ratio) * advantages).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
