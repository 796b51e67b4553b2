"""Not the training loop, which is `train` of ppo_klip_*.py: this parses a file's arguments and chooses the script, the
continuous or the cartpole one, that trains with them."""

import argparse
from dataclasses import asdict
from functools import cache

import gymnasium as gym
import tyro

import ppo_klip_cartpole
import ppo_klip_continuous


def parse(Args, arguments=None, prog=None):
    """Parse sys.argv, or a list of arguments if one is given, into a file's Args.

    Returns them and the script whose train() is to be called: ppo_klip_continuous, or, if the actions of --env-id are
    discrete, ppo_klip_cartpole. In that case what the file does not set itself has the defaults of ppo_klip_cartpole.
    """
    env_id_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    env_id_parser.add_argument("--env-id", "--env_id", default=Args().env_id)
    known, _ = env_id_parser.parse_known_args(arguments)
    if not has_discrete_actions(known.env_id):
        return tyro.cli(Args, prog=prog, args=arguments), ppo_klip_continuous
    defaults = asdict(ppo_klip_cartpole.Args())
    for name in Args.__annotations__:  # the fields that the file itself declares
        defaults[name] = getattr(Args(), name)
    return tyro.cli(Args, prog=prog, args=arguments, default=Args(**defaults)), ppo_klip_cartpole


@cache
def has_discrete_actions(env_id):
    """Whether the actions of a task are Discrete; False for a task that does not exist, which train() will report."""
    try:
        env = gym.make(env_id)
    except (gym.error.Error, ImportError):
        return False
    env.close()
    return isinstance(env.action_space, gym.spaces.Discrete)
