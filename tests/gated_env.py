"""CartPole-v1 that stands still at its 200th step as long as the file $GATE exists, so that a test can be certain that
a training is under way, on any machine; and, where $TALKS is set, writes to standard output when it is made."""

import os
import time

import gymnasium as gym


class Gate(gym.Wrapper):
    """Counts steps, and waits at the 200th."""

    steps = 0

    def __init__(self, env):
        super().__init__(env)
        if os.environ.get("TALKS"):
            print("hello from a library\nversion 2.6")

    def step(self, action):
        self.steps += 1
        while self.steps == 200 and os.path.exists(os.environ.get("GATE", "")):
            time.sleep(0.05)
        return self.env.step(action)


gym.register("Gated-v0", entry_point=lambda **options: Gate(gym.make("CartPole-v1", **options)))
