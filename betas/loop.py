"""Which arguments and which script's training loop a file of this folder uses: the task's actions decide."""

import argparse
from dataclasses import asdict
from functools import cache

import gymnasium as gym
import tyro

import ppo_klip_cartpole
import ppo_klip_continuous


def parse(Args, arguments=None, prog=None):
    """Parse the command line of a file with these Args, or a list of arguments in its place.

    Returns its Args, and the script whose train() is to be called: ppo_klip_continuous, or ppo_klip_cartpole where the
    task's actions are discrete, with the defaults of that script.
    """
    task = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    task.add_argument("--env-id", "--env_id", default=Args().env_id)
    env_id = task.parse_known_args(arguments)[0].env_id
    if not has_discrete_actions(env_id):
        return tyro.cli(Args, prog=prog, args=arguments), ppo_klip_continuous
    own = {name: getattr(Args(), name) for name in Args.__annotations__}  # what the file has set itself stays
    defaults = asdict(ppo_klip_cartpole.Args()) | own
    return tyro.cli(Args, prog=prog, args=arguments, default=Args(**defaults)), ppo_klip_cartpole


@cache
def has_discrete_actions(env_id):
    """Whether the actions of a task are Discrete; not if there is no such task, which the training loop will say."""
    try:
        env = gym.make(env_id)
    except (gym.error.Error, ImportError):
        return False
    env.close()
    return isinstance(env.action_space, gym.spaces.Discrete)
