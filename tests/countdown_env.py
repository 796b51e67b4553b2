"""Environments for the tests: `--env-id countdown_env:Countdown-v0` with tests/ on PYTHONPATH.

Countdown's observation is (seed of its first reset, episode, step), its episodes last one to four steps, and they end
by termination, by truncation and by both in turn, so that every transition can be written down beforehand. Faulty is
the same with one number that is not finite. The others only have their spaces, or cannot be made.
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


class Faulty(Countdown):
    """Countdown; the environment that is seeded with 2 has one of FAULTS, once."""

    def __init__(self, fault, discrete=False):
        super().__init__(discrete)
        self.fault, (self.steps_left, self.value) = fault, FAULTS[fault]

    def observed(self, kind, x):
        return np.where(kind == self.fault and self.who == 2 and self.steps_left == 0, self.value, x)

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return self.observed("reset", obs), info

    def step(self, action):
        obs, gained, *over, info = super().step(action)
        self.steps_left -= 1
        return (
            self.observed("final" if any(over) else "observation", obs),
            float(self.observed("reward", gained)),
            *over,
            info,
        )


# At which step, and what. Seeded with 2, Countdown's fifth episode ends at step 23.
FAULTS = {"reward": (24, np.nan), "observation": (24, np.inf), "final": (23, -np.inf), "reset": (23, np.nan)}


class Spaces(gym.Env):
    """Samples of the spaces; an episode ends every third step."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space, self.steps = observation_space, action_space, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps % 3 == 0, False, {}


def broken():
    raise RuntimeError("no such simulator\non this machine")


widest = np.finfo(np.float32).max
vector, action = gym.spaces.Box(-1, 1, (3,)), gym.spaces.Box(-1, 1, (1,))
image, discrete = gym.spaces.Box(0, 255, (8, 8, 3), np.uint8), gym.spaces.Discrete(2)
spaces = {
    "Dict": (gym.spaces.Dict(x=vector), action),
    "Number": (gym.spaces.Discrete(4), action),
    "MultiDiscrete": (vector, gym.spaces.MultiDiscrete([2, 3])),
    "Integers": (vector, gym.spaces.Box(0, 9, (2,), np.int64)),
    "Wide": (vector, gym.spaces.Box(-widest, widest, (2,))),
    "Image": (image, action),
    "ImageDiscrete": (image, discrete),
}
gym.register("Broken-v0", broken)
for suffix, kwargs in (("", {}), ("Discrete", {"discrete": True})):
    gym.register(f"Countdown{suffix}-v0", Countdown, kwargs=kwargs)
    for fault in FAULTS:
        gym.register(f"Faulty{suffix}-{fault}-v0", Faulty, kwargs=kwargs | {"fault": fault})
for name, (observation_space, action_space) in spaces.items():
    gym.register(f"{name}-v0", Spaces, kwargs={"observation_space": observation_space, "action_space": action_space})
