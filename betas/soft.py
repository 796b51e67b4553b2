"""PPO-Clip with soft edges, in the shapes of the paper's code (Colletti & Holzinger 2026, arXiv 2606.23932).

Here: w Â - β_t kl, β_t = -w Â gate, held constant. PPO-Clip's gate is a step from 0 to 1 at the edge of its band, this
one takes a width to reach 1, in one of three shapes.
"""

if __name__ == "__main__":
    from loop import main

    main(__file__)  # loads this file once more, and trains with its surrogate

from typing import Annotated, Literal

import torch


def surrogate(
    new_logprob,
    old_logprob,
    advantages,
    clip_coef,
    shape: Annotated[Literal["ramp", "sigmoid", "softmin"], "how β_t goes from 0 to that of PPO-Clip"] = "ramp",
    width: Annotated[float, "how much of w that takes; towards 0 it is PPO-Clip"] = 0.1,
):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar."""
    ratio = (new_logprob - old_logprob).exp()
    beta = (-ratio * advantages * gate(ratio, advantages, clip_coef, shape, width)).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl


def gate(ratio, advantages, clip_coef, shape, width):
    """The share of PPO-Clip's β_t (N,), from 0 to 1.

    ramp: 0 in the band, 1 from one width beyond the edge on. sigmoid: 1/2 at the edge. softmin: 0 in the band; outside
    it, on both sides, the weight of clip(w) Â in the log-sum-exp minimum of w Â and clip(w) Â, whose temperature is
    width |Â|.
    """
    # How far w lies beyond the edge at which PPO-Clip switches this sign of Â off, in widths; negative before it.
    distance = (torch.sign(advantages) * (ratio - 1) - clip_coef) / width
    if shape == "ramp":
        return distance.clamp(0, 1)
    if shape == "sigmoid":
        return distance.sigmoid()
    band_width = 2 * clip_coef / width
    other_distance = distance + band_width  # from the band's other edge; negative beyond that edge
    weight = torch.where(distance > 0, distance, other_distance).sigmoid()
    return torch.where((distance > 0) | (other_distance < 0), weight, 0.0)
