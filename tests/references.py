"""Plain, slow statements of what the scripts compute fast: explicit sums over steps, one environment at a time."""

import numpy as np


def advantages(rewards, values, next_values, terminations, truncations, gamma, gae_lambda):
    """Â_t = Σ_k (γλ)^k δ_{t+k} up to the end of the episode or of the rollout (Schulman et al. 2016, eq. 16)."""
    steps, envs = rewards.shape
    result = np.zeros((steps, envs))
    for i in range(envs):
        for t in range(steps):
            for k in range(steps - t):
                s = t + k
                bootstrap = 0.0 if terminations[s, i] else next_values[s, i]
                delta = rewards[s, i] + gamma * bootstrap - values[s, i]
                result[t, i] += (gamma * gae_lambda) ** k * delta
                if terminations[s, i] or truncations[s, i]:
                    break
    return result


def scaled_rewards(rewards, dones, gamma):
    """rewards (T, n) from the first step ever on, over the standard deviation of all discounted returns so far."""
    steps, envs = rewards.shape
    seen, result = [], np.zeros((steps, envs))
    for t in range(steps):
        for i in range(envs):
            start = max([0, *(s + 1 for s in range(t) if dones[s, i])])
            seen.append(sum(gamma ** (t - s) * rewards[s, i] for s in range(start, t + 1)))
        result[t] = np.clip(rewards[t] / np.sqrt(max(np.var(seen), 1e-8)), -10, 10)
    return result


def normalised(x, seen):
    """x, in standard deviations from the mean of all observations seen (N, dim), within ±10."""
    return np.clip((x - np.mean(seen, 0)) / np.sqrt(np.maximum(np.var(seen, 0), 1e-8)), -10, 10)
