"""What hypothesis tries surrogates on: log ratios anywhere, thick around the edges of bands, and advantages."""

import math

import numpy as np
import torch
from hypothesis import strategies as st


def log_exactly(ratio):
    """The log ratio whose exponential, as torch computes it, is this float64 to the bit."""
    near = math.log(ratio)
    candidates = near + np.arange(-8, 9) * np.spacing(near)
    return float(candidates[torch.as_tensor(candidates).exp().numpy() == ratio][0])


BAND = (0.8, 1.2)
# Not within some rounding steps of an edge: see test_float32_log_ratios_are_no_ties_in_float64.
beside = st.floats(1e-14, 1e-6) | st.floats(-1e-6, -1e-14)
near_an_edge = st.builds(lambda edge, by: math.log(edge) + by, st.sampled_from([*BAND, 1.28, 3.0]), beside)
log_ratios = st.floats(-300, 300) | st.floats(-1.5, 1.5) | st.sampled_from([*map(log_exactly, BAND)]) | near_an_edge
# Half of the smallest numbers is rounded, and at a tie min passes on two halves.
some_advantages = (st.floats(-1e6, 1e6) | st.floats(-3, 3)).map(lambda x: x if abs(x) > 1e-100 else 0.0)
samples = st.lists(st.tuples(log_ratios, some_advantages), min_size=1, max_size=20)
EDGE_CASES = [*((w, a) for w in (-300.0, 0.0, 300.0) for a in (-1e6, 0.0, 1e6)), (0.5, -1e-99)]
