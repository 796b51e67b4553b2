"""What the scripts' surrogates do, by autograd from the scripts themselves: change a script and the sheet changes."""

import torch

import ppo_clip_continuous
import ppo_kl_scalar_continuous
import ppo_klip_continuous
import ppo_phi_continuous

CLIP_COEF = ppo_clip_continuous.Args().clip_coef
BETA = ppo_kl_scalar_continuous.Args().beta


def scalar(new_logprob, old_logprob, advantages, _):
    """kl_scalar's surrogate at its default β, with k3, the estimator of the KL that is a function of w alone."""
    kl = ppo_kl_scalar_continuous.kl_penalty("k3", new_logprob, old_logprob, None, None)
    return ppo_kl_scalar_continuous.surrogate(new_logprob, old_logprob, advantages, BETA, kl)


SURROGATES = {
    "clip": ppo_clip_continuous.surrogate,
    "klip": ppo_klip_continuous.surrogate,
    "phi": ppo_phi_continuous.surrogate,
    "kl_scalar": scalar,
}


def objective_and_gradient(variant, ratio, advantages):
    """The objective and its derivative in w at each ratio (N,) and advantage (N,), in numpy; log π_old is 0."""
    ratio = torch.as_tensor(ratio).double().requires_grad_()
    advantages = torch.as_tensor(advantages).double().expand_as(ratio)
    objective = SURROGATES[variant](ratio.log(), torch.zeros_like(ratio), advantages, CLIP_COEF)
    (gradient,) = torch.autograd.grad(objective.sum(), ratio)
    return objective.detach().numpy(), gradient.numpy()


def implied_beta(variant, ratio, advantages):
    """β_t: what a surrogate's derivative in log π_new has beyond that of w Â; arrays of one shape."""
    _, gradient = objective_and_gradient(variant, ratio, advantages)
    return ratio * gradient - ratio * advantages
