"""Trains with the surrogate of a file of this folder, in the loop of ppo_klip_continuous.py or ppo_klip_cartpole.py.

A file that is started, as in `python betas/spo.py --env-id Hopper-v4`, calls main. A sweep calls parse, pictures of β_t
call load and check_surrogate.
"""

import os
import sys

if __name__ == "loop":
    # It was imported by a file that was started. Python looks for modules in the folder of such a file first, where a
    # random.py would hide Python's own from torch. From here on it looks in the folder of the scripts instead.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import importlib.util
import inspect
import io
from contextlib import redirect_stdout
from dataclasses import fields, make_dataclass
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated
from unittest import mock

import gymnasium as gym
import torch
import tyro

import ppo_klip_cartpole
import ppo_klip_continuous


class Unusable(Exception):
    """A file that nothing can be trained with. The message says why, in one line."""


def main(path):
    """Train with the surrogate of a file, by the arguments of the command line, and end the program.

    The file itself is running, too, and would otherwise go on.
    """
    try:
        args, script, surrogate = parse(path)
    except Unusable as error:
        ppo_klip_continuous.fail(f"{Path(path).name}: {error}")
    script.train(args, surrogate, sources=(script.__file__, path))
    sys.exit()


def parse(path, arguments=None, prog=None):
    """What a command line asks of a file, as (args, script, surrogate). The command line's own words are the default.

    args are the arguments of the script and of the surrogate, script is the module that trains, and surrogate has its
    own arguments bound.
    """
    module = load(path)
    own, epsilon = parameters_of(module.surrogate)
    script = script_for(asked_env_id(arguments))
    for field in fields(script.Args):
        if field.name in own:
            raise Unusable(f"{Path(script.__file__).name} has an argument {field.name} already; choose another name")

    # Side by side in a third dataclass: one that is made from the script's Args loses the help of its arguments.
    Own = make_dataclass("Own", [(name, flag_type(parameter)) for name, parameter in own.items()])
    Both = make_dataclass("Both", [("surrogate", Own), ("training", script.Args)])
    own_defaults = Own(**{name: parameter.default for name, parameter in own.items()})
    script_defaults = script.Args(exp_name=Path(path).stem)
    if epsilon is not None:
        script_defaults.clip_coef = epsilon
    both = tyro.cli(
        tyro.conf.OmitArgPrefixes[Both],
        default=Both(own_defaults, script_defaults),
        args=arguments,
        prog=prog,
        description=(module.__doc__ or "").partition("\n")[0],
    )
    own_values = vars(both.surrogate)
    args = SimpleNamespace(**vars(both.training), **own_values)
    script.check(args)
    surrogate = partial(module.surrogate, **own_values)
    check_surrogate(surrogate, args.clip_coef)
    return args, script, surrogate


def asked_env_id(arguments):
    """The --env-id in a list of words, or its default: which other arguments there are depends on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env-id", "--env_id", default=ppo_klip_continuous.Args().env_id)
    known, _ = parser.parse_known_args(arguments)
    return known.env_id


@cache
def script_for(env_id):
    """The script whose loop trains a task: the cartpole one if its actions are discrete, else the continuous one."""
    try:
        action_space = gym.make(env_id).action_space
    except Exception:  # the continuous script says what is wrong
        return ppo_klip_continuous
    return ppo_klip_cartpole if isinstance(action_space, gym.spaces.Discrete) else ppo_klip_continuous


@cache
def load(path):
    """The module in a file. It may be the user's: if it prints, that goes to standard error, and it must not train."""
    path = Path(path)
    spec = importlib.util.spec_from_file_location(f"betas.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where torch.compile looks for it, or it would load the file once more
    printed = io.StringIO()
    try:
        with (
            redirect_stdout(printed),
            mock.patch.object(ppo_klip_continuous, "train", refuse_to_train),
            mock.patch.object(ppo_klip_cartpole, "train", refuse_to_train),
            mock.patch.object(sys.modules[__name__], "main", refuse_to_train),
        ):
            spec.loader.exec_module(module)
    except SystemExit:
        raise Unusable("it ends the program when it is imported") from None
    finally:
        for line in printed.getvalue().splitlines():
            print(f"{path.name} prints: {line}", file=sys.stderr)
    if not callable(getattr(module, "surrogate", None)):
        raise Unusable("it has no surrogate(new_logprob, old_logprob, advantages, clip_coef)")
    return module


def refuse_to_train(*_, **__):
    """What a file that is being imported finds in place of what trains."""
    raise Unusable("it trains when it is imported; let it do so only if __name__ is '__main__'")


def parameters_of(surrogate):
    """A surrogate's own parameters, {name: inspect.Parameter}, and its default for clip_coef, None if it has none."""
    signature = inspect.signature(surrogate, eval_str=True)
    try:
        signature.bind("new_logprob", "old_logprob", "advantages", "clip_coef")
    except TypeError as error:
        raise Unusable(
            f"surrogate must take (new_logprob, old_logprob, advantages, clip_coef), and defaults: {error}"
        ) from None
    parameters = list(signature.parameters.values())
    own = {parameter.name: parameter for parameter in parameters[4:] if parameter.default is not parameter.empty}
    epsilon = parameters[3].default if len(parameters) > 3 else None  # there may be *args in place of clip_coef
    return own, None if epsilon is inspect.Parameter.empty else epsilon


def flag_type(parameter):
    """The type of a parameter for tyro: a text in its annotation becomes its help."""
    if parameter.annotation is parameter.empty:
        return type(parameter.default)
    for text in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(text, str):
            return Annotated[parameter.annotation, tyro.conf.arg(help=text)]
    return parameter.annotation


def check_surrogate(surrogate, clip_coef):
    """Raise Unusable unless a surrogate returns w Â - β_t kl for each sample, with a β_t that is held constant.

    If it does, and g is its derivative in log π_new, then β_t = g - w Â, and its value follows from g. If β_t is not
    held constant, its derivative is a part of g, and the value is another one.
    """
    log_ratio, advantages = torch.cartesian_prod(
        torch.linspace(-3, 3, 25, dtype=torch.float64), torch.linspace(-2, 2, 8, dtype=torch.float64)
    ).unbind(1)
    old_logprob = torch.full_like(log_ratio, -1.5)
    new_logprob = (old_logprob + log_ratio).requires_grad_()
    objective = surrogate(new_logprob, old_logprob, advantages, torch.tensor(clip_coef, dtype=torch.float64))

    shape = tuple(log_ratio.shape)
    if not isinstance(objective, torch.Tensor):
        raise Unusable(f"surrogate must return a tensor of shape (N,), here {shape}, not {type(objective).__name__}")
    if objective.shape != log_ratio.shape:
        raise Unusable(f"surrogate must return shape (N,), here {shape}, not {tuple(objective.shape)}")
    if not objective.requires_grad:
        raise Unusable("the objective does not depend on new_logprob, so that nothing would be learned")
    (gradient,) = torch.autograd.grad(objective.sum(), new_logprob, materialize_grads=True)
    if (gradient == 0).all():
        raise Unusable("the objective does not depend on new_logprob, so that nothing would be learned")
    if not (objective.isfinite() & gradient.isfinite()).all():
        raise Unusable("the objective or its gradient is not finite")

    kl = old_logprob - new_logprob
    unpenalised = (new_logprob - old_logprob).exp() * advantages
    penalty = (gradient - unpenalised) * kl
    difference = objective - (unpenalised - penalty)
    # Rounding leaves about 1e-16 of this, a forgotten .detach() about all of it.
    size = unpenalised.abs() + penalty.abs()
    if (difference.abs() > 1e-6 * size).any():
        raise Unusable(
            "the objective must be w Â - β_t kl with kl = old_logprob - new_logprob and β_t held constant: "
            "end the line of beta with .detach(); a published objective is turned into its β_t first (betas/README.md)"
        )
