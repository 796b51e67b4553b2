"""Environments for the tests: `--env-id countdown_env:Countdown-v0` with tests/ on PYTHONPATH.

Countdown's observation is (seed of its first reset, episode, step), its episodes last one to four steps, and they end
by termination, by truncation and by both in turn, so that every transition can be written down beforehand. The others
have spaces that the scripts refuse, or fail.
"""

import gymnasium as gym
import numpy as np


def length(who, episode):
    return 1 + (who + episode) % 4


def ends(episode):
    """(terminated, truncated) at the end of an episode; with the lengths, all twelve combinations come up."""
    return [(True, False), (False, True), (True, True)][episode % 3]


def reward(who, episode, step):
    return 100.0 * episode + step + 0.25 * (who % 4)


received = []  # (who, episode, step, action) of every Countdown in this process, for the tests to read


class Countdown(gym.Env):
    def __init__(self, discrete=False):  # without render_mode, as small environments often are
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        box = gym.spaces.Box(np.array([-0.5, -2.0], np.float32), np.array([0.5, 0.1], np.float32))
        self.action_space = gym.spaces.Discrete(3, start=5) if discrete else box
        self.who, self.episode, self.step_count = None, -1, 0

    def observation(self):
        return np.array([self.who, self.episode, self.step_count], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.who = self.who if seed is None else seed
        self.episode, self.step_count = self.episode + 1, 0
        return self.observation(), {}

    def step(self, action):
        received.append((self.who, self.episode, self.step_count, np.array(action)))
        gained = reward(self.who, self.episode, self.step_count)
        self.step_count += 1
        over = self.step_count == length(self.who, self.episode)
        return self.observation(), gained, *(ends(self.episode) if over else (False, False)), {}


class Odd(gym.Env):
    """Never stepped: only its spaces matter."""

    def __init__(self, observation_space, action_space, render_mode=None):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


def broken(render_mode=None):
    raise RuntimeError("no such simulator\non this machine")


vector, action = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (1,))
spaces = {
    "Dict": (gym.spaces.Dict(x=vector), action),
    "Image": (gym.spaces.Box(0, 255, (8, 8, 3), np.uint8), action),
    "Number": (gym.spaces.Discrete(4), action),
    "MultiDiscrete": (vector, gym.spaces.MultiDiscrete([2, 3])),
}
gym.register("Countdown-v0", Countdown)
gym.register("CountdownDiscrete-v0", Countdown, kwargs={"discrete": True})
gym.register("Broken-v0", broken)
for name, (observation_space, action_space) in spaces.items():
    gym.register(f"{name}-v0", Odd, kwargs={"observation_space": observation_space, "action_space": action_space})
