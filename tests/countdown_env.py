"""Environments for the tests: `--env-id countdown_env:Countdown-v0` with tests/ on PYTHONPATH.

Countdown's observation is (who, episode, step), where who comes from the seed of its first reset. Its episodes last one
to four steps and end by termination, by truncation and by both in turn, so every transition can be written down
beforehand. Faulty is the same with one number that is not finite. Habitual is the same in the manners of users'
environments. Endless, Filmed, Film, CloseFails and Far say what they are. Spaces only has spaces, and Broken cannot be
made.
"""

from typing import NamedTuple

import gymnasium as gym
import numpy as np


def who_of(seed):
    """The first number of the observations of an environment with this seed: small, because networks see it."""
    return seed % 16


def length(who, episode):
    return 1 + (who + episode) % 4


def ends(episode):
    """(terminated, truncated) at the end of an episode; with the lengths, all twelve combinations come up."""
    return [(True, False), (False, True), (True, True)][episode % 3]


def reward(who, episode, step):
    return 100.0 * episode + step + 0.25 * (who % 4)


class Received(NamedTuple):
    """What an environment was asked to do, and when."""

    seed: int
    episode: int
    step: int
    action: np.ndarray


received = []  # by every Countdown in this process, for the tests to read


class Countdown(gym.Env):
    def __init__(self, discrete=False):  # without render_mode, as small environments often are
        box = gym.spaces.Box(np.array([-0.5, -2.0], np.float32), np.array([0.5, 0.1], np.float32))
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = gym.spaces.Discrete(3, start=5) if discrete else box
        self.seed = 0
        self.episode = -1
        self.step_count = 0

    @property
    def who(self):
        return who_of(self.seed)

    def observation(self):
        return np.array([self.who, self.episode, self.step_count], np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        self.episode += 1
        self.step_count = 0
        return self.observation(), {}

    def is_over(self):
        return self.step_count == length(self.who, self.episode)

    def step(self, action):
        received.append(Received(self.seed, self.episode, self.step_count, np.array(action)))
        gained = reward(self.who, self.episode, self.step_count)
        self.step_count += 1
        termination, truncation = ends(self.episode) if self.is_over() else (False, False)
        return self.observation(), gained, termination, truncation, {}


class Faulty(Countdown):
    """Countdown; the environment whose who is 2 has one of FAULTS, once."""

    def __init__(self, fault, discrete=False):
        super().__init__(discrete)
        self.fault = fault
        self.steps_left, self.value = FAULTS[fault]

    def observed(self, kind, x):
        return np.where(kind == self.fault and self.who == 2 and self.steps_left == 0, self.value, x)

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return self.observed("reset", obs), info

    def step(self, action):
        obs, gained, termination, truncation, info = super().step(action)
        self.steps_left -= 1
        kind = "final" if termination or truncation else "observation"
        return self.observed(kind, obs), float(self.observed("reward", gained)), termination, truncation, info


# At which step, and what. The fifth episode of the one whose who is 2 ends at step 23.
FAULTS = {"reward": (24, np.nan), "observation": (24, np.inf), "final": (23, -np.inf), "reset": (23, np.nan)}


class Habitual(Countdown):
    """Countdown with one of HABITS; none of them is a reason to train to other bits."""

    def __init__(self, habit, discrete=False):
        super().__init__(discrete)
        self.habit = habit
        self.state = np.zeros(3)
        box = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
        if habit == "dict":
            parts = {"a": gym.spaces.Box(-np.inf, np.inf, (1,), np.float64), "b": gym.spaces.Box(-9, 99, (2,), int)}
            self.observation_space = gym.spaces.Dict(parts)
        elif habit == "matrix":
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1, 3), np.float64)
        else:
            self.observation_space = box

    def observation(self):
        obs = super().observation()
        if self.habit == "list":
            return obs.tolist()
        if self.habit == "matrix":
            return obs[None]
        if self.habit == "dict":
            return {"a": obs[:1], "b": obs[1:].astype(int)}
        if self.habit == "reused":
            self.state[:] = obs
            return self.state
        return obs

    def info(self):
        return {"path": np.arange(1 + self.np_random.integers(3))} if self.habit == "ragged_info" else {}

    def reset(self, *, seed=None, options=None):
        obs, _ = super().reset(seed=seed)
        return obs, self.info()

    def step(self, action):
        obs, gained, termination, truncation, _ = super().step(action)
        return obs, gained, termination, truncation, self.info()


HABITS = {
    "ragged_info": "info holds an array of another length each time",
    "list": "observations are lists",
    "reused": "observations are one array that changes",
    "dict": "observations are a Dict",
    "matrix": "observations are no vector",
}


class Endless(Countdown):
    """Countdown whose episodes never end. It can be filmed."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 (as Gymnasium has it)

    def __init__(self, discrete=False, render_mode=None):
        super().__init__(discrete)
        self.render_mode = render_mode

    def is_over(self):
        return False

    def render(self):
        return np.full((64, 64, 3), self.step_count % 256, np.uint8)


class CloseFails(Countdown):
    """Cannot be closed, as a simulator whose connection is gone."""

    def close(self):
        raise RuntimeError("not connected")


class Filmed(Endless):
    """The first episode lasts 1,100 steps, and every other one 5."""

    def is_over(self):
        return self.step_count == (5 if self.episode else 1100)


class Film(Endless):
    """Its pictures are not all of one size, so that no film can be made of them."""

    def render(self):
        return np.zeros((64 + 2 * (self.step_count > 9), 64, 3), np.uint8)


class Far(Countdown):
    """Its actions are far from 0."""

    def __init__(self):
        super().__init__()
        self.action_space = gym.spaces.Box(90, 110, (2,), np.float32)


class Spaces(gym.Env):
    """Has these spaces, and is never stepped."""

    def __init__(self, observation_space, action_space):
        self.observation_space = observation_space
        self.action_space = action_space


def broken():
    raise RuntimeError("no such simulator\non this machine")


vector = gym.spaces.Box(-1, 1, (3,))
action = gym.spaces.Box(-1, 1, (1,))
spaces = {
    "Sequence": (gym.spaces.Sequence(vector), action),
    "MultiDiscrete": (vector, gym.spaces.MultiDiscrete([2, 3])),
    "Integers": (vector, gym.spaces.Box(0, 9, (2,), np.int64)),
}
gym.register("Broken-v0", broken)
gym.register("Far-v0", Far)
gym.register("Filmed-v0", Filmed, kwargs={"discrete": True})
for name, (observation_space, action_space) in spaces.items():
    gym.register(f"{name}-v0", Spaces, kwargs={"observation_space": observation_space, "action_space": action_space})
for suffix, kwargs in (("", {}), ("Discrete", {"discrete": True})):
    gym.register(f"Countdown{suffix}-v0", Countdown, kwargs=kwargs)
    gym.register(f"Endless{suffix}-v0", Endless, kwargs=kwargs)
    gym.register(f"Film{suffix}-v0", Film, kwargs=kwargs)
    gym.register(f"CloseFails{suffix}-v0", CloseFails, kwargs=kwargs)
    for fault in FAULTS:
        gym.register(f"Faulty{suffix}-{fault}-v0", Faulty, kwargs=kwargs | {"fault": fault})
    for habit in HABITS:
        gym.register(f"Habitual{suffix}-{habit}-v0", Habitual, kwargs=kwargs | {"habit": habit})
