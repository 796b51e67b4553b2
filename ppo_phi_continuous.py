"""PPO-Clip, the Φ form, for continuous actions, in the manner of CleanRL (Huang et al. 2022).

Maximises, per sample, with the ratio w = π_new(a|s) / π_old(a|s) and the advantage Â,

    w Â - Φ,   Φ = (w - (1+ε)) Â  if w > 1+ε and Â > 0;   (w - (1-ε)) Â  if w < 1-ε and Â < 0;   0 elsewhere

Theorem 2 (Colletti & Holzinger 2026, arXiv 2606.23932): this is PPO-Clip's objective, min(w Â, clip(w) Â).

With one seed and on one machine, ppo_clip, ppo_phi and ppo_klip end with the same parameters, bit for bit
(params_sha256), if a minibatch has 2^k samples: the factor 1/N of its mean is then exact (docs/exactness.md).

docs/cleanrl.md says what differs from CleanRL, and why.

    python ppo_phi_continuous.py --env-id HalfCheetah-v4 --seed 0
    diff ppo_clip_continuous.py ppo_phi_continuous.py
"""

import ast
import copy
import hashlib
import json
import math
import os
import platform
import re
import sys
import time
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

ADAM_BETA1 = 0.9
ADAM_BETA2 = 0.999
ADAM_EPS = 1e-5
ADVANTAGE_EPS = 1e-8  # keeps a division by the standard deviation of advantages finite
MIN_VARIANCE = 1e-8  # the least variance by which observations and rewards are scaled
NORM_CLIP = 10.0  # the largest normalised observation or scaled reward
MAX_EVAL_STEPS = 10_000  # the longest episode of an evaluation; some environments never end one
MAX_VIDEO_STEPS = 1_000  # the longest video; its frames are kept in memory

warnings.filterwarnings("ignore", message=".*out of date")  # the paper's tasks are v4


@dataclass(config={"allow_inf_nan": False})
class Args:
    exp_name: str = Path(__file__).stem  # the name of this experiment
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # seed of the experiment
    torch_deterministic: bool = True  # the value of `torch.backends.cudnn.deterministic`, as in CleanRL
    cuda: bool = False  # update the networks on the GPU (networks this small are faster on a CPU)
    compile: bool = True  # compile the minibatch update as one graph
    track: bool = False  # track the run with Weights & Biases (offline with WANDB_MODE=offline)
    wandb_project_name: str = "klip-ppo"  # the W&B project
    wandb_entity: str | None = None  # the W&B entity (team)
    capture_video: bool = False  # record videos of the agent (in `videos/{run_name}`)
    save_model: bool = False  # save `agent.pt` in the run's folder and evaluate it for 10 episodes
    run_name: str | None = None  # folder in `runs/`; `{env_id}__{exp_name}__{seed}__{unix time}` if not given

    env_id: str = "HalfCheetah-v4"  # the id of the environment
    total_timesteps: PositiveInt = 1_000_000  # total environment steps, rounded down to whole rollouts
    learning_rate: PositiveFloat = 3e-4  # the learning rate of Adam
    num_envs: PositiveInt = 1  # the number of environments stepped side by side
    num_steps: PositiveInt = 2048  # the number of steps in each environment per rollout
    anneal_lr: bool = True  # anneal the learning rate linearly to 0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99  # the discount factor γ
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95  # the λ of generalised advantage estimation
    num_minibatches: PositiveInt = 32  # minibatches per epoch (of 2^k samples, so that clip and klip agree to the bit)
    update_epochs: PositiveInt = 10  # the number of epochs per rollout
    norm_adv: Literal["rollout", "minibatch", "none"] = "rollout"  # over what to normalise advantages
    clip_coef: Annotated[float, Field(gt=0, lt=1)] = 0.2  # ε, the half width of the band [1-ε, 1+ε]
    clip_vloss: bool = True  # clip the value loss, also at ε
    ent_coef: NonNegativeFloat = 0.0  # the weight of the entropy bonus
    vf_coef: NonNegativeFloat = 0.5  # the weight of the value loss
    max_grad_norm: PositiveFloat = 0.5  # the maximum norm of the gradient
    target_kl: PositiveFloat | None = None  # stop updating on a rollout after an epoch whose mean KL is above this

    def __post_init__(self):
        batch_size = self.num_envs * self.num_steps
        if batch_size % self.num_minibatches:
            raise ValueError(f"--num-minibatches must divide num_envs * num_steps = {batch_size}")
        if self.total_timesteps < batch_size:
            raise ValueError(f"--total-timesteps must be at least one rollout, num_envs * num_steps = {batch_size}")
        if not is_folder_name(self.exp_name):
            raise ValueError(f"--exp-name must name a folder below runs/, not {self.exp_name!r}")
        if self.run_name is not None and not is_folder_name(self.run_name):
            raise ValueError(f"--run-name must name a folder below runs/, not {self.run_name!r}")


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar; Theorem 2."""
    ratio = (new_logprob - old_logprob).exp()
    # By how much w is outside the band, where the clip silences the sample; 0 elsewhere.
    above = torch.where((ratio > 1 + clip_coef) & (advantages > 0), ratio - (1 + clip_coef), 0.0)
    below = torch.where((ratio < 1 - clip_coef) & (advantages < 0), ratio - (1 - clip_coef), 0.0)
    phi = (above + below) * advantages
    return ratio * advantages - phi


class Agent(nn.Module):
    """Separate 64-64 tanh actor and critic; a diagonal Gaussian policy with a state-independent log std."""

    def __init__(self, obs_dim, action_dim):
        super().__init__()
        self.critic = mlp(obs_dim, 1, head_std=1.0)
        self.actor_mean = mlp(obs_dim, action_dim, head_std=0.01)
        self.actor_logstd = nn.Parameter(torch.zeros(action_dim))

    def forward(self, obs, actions):
        """obs (N, obs_dim), actions (N, action_dim) -> log π(a|s) (N,), entropy (N,), value (N,)."""
        mean = self.actor_mean(obs)
        logstd = self.actor_logstd
        # This is torch.distributions.Normal(mean, std), written out so that it is fast and compiles into one graph.
        logprob = -0.5 * ((actions - mean) * torch.exp(-logstd)) ** 2 - logstd - 0.5 * math.log(2 * math.pi)
        entropy = (logstd + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(obs))
        return logprob.sum(-1), entropy, self.critic(obs).squeeze(-1)


def mlp(inputs, outputs, head_std):
    """Two hidden layers of 64 tanh units and a linear head. Orthogonal weights of gain √2, or head_std; zero biases.

    The rollout uses the same network in numpy: change numpy_actor, too.
    """
    hidden1 = nn.Linear(inputs, 64)
    hidden2 = nn.Linear(64, 64)
    head = nn.Linear(64, outputs)
    for layer, gain in ((hidden1, math.sqrt(2)), (hidden2, math.sqrt(2)), (head, head_std)):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(hidden1, nn.Tanh(), hidden2, nn.Tanh(), head)


def numpy_actor(agent):
    """A copy of agent.actor_mean as a numpy function of obs (n, obs_dim), ten times as fast as torch for one obs."""
    layers = [layer for layer in agent.actor_mean if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().cpu().numpy().T.copy() for layer in layers]
    biases = [layer.bias.detach().cpu().numpy().copy() for layer in layers]

    def actor(obs):
        hidden = np.tanh(obs @ weights[0] + biases[0])
        hidden = np.tanh(hidden @ weights[1] + biases[1])
        return hidden @ weights[2] + biases[2]

    return actor


def check_numpy_actor(agent, actor, obs):
    """End the program if the numpy copy of the actor is another network: it would collect off-policy data unnoticed."""
    with torch.no_grad():
        expected = agent.actor_mean(obs).cpu().numpy()
    actual = actor(obs.cpu().numpy())
    if actual.shape != expected.shape or not np.allclose(actual, expected, rtol=1e-3, atol=1e-5):
        fail("the networks of mlp() and numpy_actor() differ; what is changed in one must be changed in the other")


def fail(message):
    """End the program with one line on standard error and exit code 2."""
    print("error:", message, file=sys.stderr)
    sys.exit(2)


class DropInfo(gym.Wrapper):
    """Drop the environment's info: nothing here reads it, and merging that of all environments takes a tenth of a step.

    Copy observations: at an episode's end the vector environment keeps the last one, as final_obs for train, while it
    resets the environment. One that returns the same array each time would overwrite it.
    """

    def reset(self, **kwargs):
        obs, _ = self.env.reset(**kwargs)
        return np.array(obs), {}

    def step(self, action):
        obs, reward, termination, truncation, _ = self.env.step(action)
        return np.array(obs), reward, termination, truncation, {}


def make_env(env_id, render=False):
    """Make one environment whose observations are vectors. End the program if this script cannot train on it."""
    options = {"render_mode": "rgb_array"} if render else {}
    try:
        env = gym.make(env_id, **options)
    except (gym.error.Error, ImportError) as error:
        if "Box2D" in str(error):  # where it has no wheel, Gymnasium's own advice does not build it
            build = "on Python 3.14 apt install swig g++ python3-dev, then pip install box2d-py==2.3.8"
            fail(f"--env-id {env_id}: Box2D is not installed: pip install box2d==2.3.10; {build}")
        fail(f"--env-id {env_id}: {error}")
    if not isinstance(gym.spaces.flatten_space(env.observation_space), gym.spaces.Box):
        fail(f"--env-id {env_id}: observations that cannot be flattened to a vector: {env.observation_space}")
    if not isinstance(env.action_space, gym.spaces.Box) or env.action_space.dtype.kind != "f":
        fail(f"--env-id {env_id}: actions must be a float Box (ppo_*_cartpole.py: Discrete), not {env.action_space}")
    if render:
        env.reset()
        try:
            env.render()
        except Exception as error:  # every renderer has errors of its own
            fail(f"--capture-video: cannot render ({error!r}); set MUJOCO_GL=egl, or leave it out")
    is_vector = isinstance(env.observation_space, gym.spaces.Box) and len(env.observation_space.shape) == 1
    return DropInfo(env if is_vector else gym.wrappers.FlattenObservation(env))


def make_envs(args):
    """The vector of environments to train in; the first one can render if videos are asked for."""
    first_env = partial(make_env, args.env_id, render=args.capture_video)
    other_env = partial(make_env, args.env_id)
    env_fns = [first_env] + [other_env] * (args.num_envs - 1)
    # copy=False is safe: the training loop stores an observation before the next step overwrites it.
    return gym.vector.SyncVectorEnv(env_fns, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP, copy=False)


class RunningStats:
    """Running mean and variance of vectors, pooled over the environments (Welford 1962).

    m2 is the sum of squared deviations from the mean.
    """

    def __init__(self, shape):
        self.mean = np.zeros(shape)
        self.m2 = np.zeros(shape)
        self.count = 0

    def update(self, x):
        """Update the statistics with x (n, *shape)."""
        self.count += len(x)
        delta = x - self.mean
        self.mean = self.mean + delta.sum(0) / self.count
        self.m2 = self.m2 + (delta * (x - self.mean)).sum(0)

    def normalise(self, x):
        """Standardise x (n, *shape) and clip it to ±NORM_CLIP."""
        std = np.sqrt(np.maximum(self.m2 / self.count, MIN_VARIANCE))
        return ((x - self.mean) / std).clip(-NORM_CLIP, NORM_CLIP)


def scale_rewards(stats, rewards, dones, discounted_returns, gamma):
    """Divide rewards (T, n) by the standard deviation of the discounted returns up to each step; clip to ±NORM_CLIP.

    discounted_returns (n,) holds each environment's running discounted return, and stats their mean and variance. Both
    are updated in place and carry over to the next rollout.
    """
    running_returns = np.empty_like(rewards)
    for t in range(len(rewards)):
        discounted_returns[:] = gamma * discounted_returns + rewards[t]
        running_returns[t] = discounted_returns
        discounted_returns[dones[t]] = 0.0
    # This is stats.update(running_returns[t]) after each t, for all t at once. With delta = running_returns - (the mean
    # before this rollout) and sums over all environments and the steps up to t,
    #     m2_t = m2 + Σ delta² - (Σ delta)² / count_t
    num_envs = rewards.shape[1]
    counts = stats.count + num_envs * np.arange(1, len(rewards) + 1)
    delta = running_returns - stats.mean
    delta_sums = delta.sum(1).cumsum()
    square_sums = (delta**2).sum(1).cumsum()
    m2 = stats.m2 + square_sums - delta_sums**2 / counts
    stats.mean = stats.mean + delta_sums[-1] / counts[-1]
    stats.m2 = m2[-1]
    stats.count = int(counts[-1])
    std = np.sqrt(np.maximum(m2 / counts, MIN_VARIANCE))
    return (rewards / std[:, None]).clip(-NORM_CLIP, NORM_CLIP)


def gae(rewards, values, next_values, terminations, dones, gamma, gae_lambda):
    """Generalised advantage estimation (Schulman et al. 2016). All arrays are (T, n), and so is the result.

    next_values[t] are the values of the states that step t led to, before any reset. dones[t] says whether step t ended
    the episode. A time limit bootstraps from next_values, a terminal state does not; the recursion stops at both.
    """
    delta = rewards + gamma * next_values * ~terminations - values
    decay = gamma * gae_lambda * ~dones
    advantages = np.empty_like(delta)
    next_advantage = 0.0
    for t in reversed(range(len(rewards))):
        next_advantage = delta[t] + decay[t] * next_advantage
        advantages[t] = next_advantage
    return advantages


class Batch(NamedTuple):
    """The samples of a rollout or of a minibatch. The first dimension of each tensor is the sample."""

    obs: torch.Tensor
    actions: torch.Tensor
    logprobs: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    values: torch.Tensor

    def select(self, index):
        """The Batch of the samples that index, a tensor or a slice, selects."""
        return Batch(*(tensor[index] for tensor in self))


def zero_batch(size, envs, device):
    """A Batch of this many samples, all zero, with the environments' shapes, for compile_update to try update on."""
    obs_dim = envs.single_observation_space.shape[0]
    action_dim = math.prod(envs.single_action_space.shape)
    return Batch(
        obs=torch.zeros(size, obs_dim, device=device),
        actions=torch.zeros(size, action_dim, device=device),
        logprobs=torch.zeros(size, device=device),
        advantages=torch.zeros(size, device=device),
        returns=torch.zeros(size, device=device),
        values=torch.zeros(size, device=device),
    )


class Adam:
    """Adam (Kingma & Ba 2015), with the gradient's norm clipped; it changes params in place as torch.optim.Adam would.

    Written out, because torch.optim.Adam cannot be compiled into one graph with the loss: an update with that one takes
    1.6 times as long.
    """

    def __init__(self, params):
        self.exp_avgs = [torch.zeros_like(param) for param in params]
        self.exp_avg_sqs = [torch.zeros_like(param) for param in params]
        self.step_count = torch.zeros((), dtype=torch.float64, device=params[0].device)

    def step(self, params, grads, learning_rate, max_grad_norm):
        grad_norm = torch.sqrt(sum((grad**2).sum() for grad in grads))
        scale = (max_grad_norm / (grad_norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        self.step_count += 1
        step_size = learning_rate / (1 - ADAM_BETA1**self.step_count)
        correction = torch.sqrt(1 - ADAM_BETA2**self.step_count)
        for param, grad, exp_avg, exp_avg_sq in zip(params, grads, self.exp_avgs, self.exp_avg_sqs, strict=True):
            clipped_grad = grad * scale
            exp_avg.lerp_(clipped_grad, 1 - ADAM_BETA1)
            exp_avg_sq.mul_(ADAM_BETA2).addcmul_(clipped_grad, clipped_grad, value=1 - ADAM_BETA2)
            param.sub_(step_size * exp_avg / (exp_avg_sq.sqrt() / correction + ADAM_EPS))


def update(args, surrogate, agent, adam, learning_rate, clip_coef, minibatch):
    """Take one step of Adam on one minibatch. Returns log w (N,) and the policy loss, value loss and entropy (3,)."""
    new_logprobs, entropy, values = agent(minibatch.obs, minibatch.actions)
    log_ratio = new_logprobs - minibatch.logprobs

    # The surrogate is computed in float64. In float32, w Â and clip(w) Â can round to the same number just outside the
    # band. There ppo_clip's torch.min passes on half of the gradient, but ppo_phi and ppo_klip all or none of it.
    objective = surrogate(new_logprobs.double(), minibatch.logprobs.double(), minibatch.advantages.double(), clip_coef)
    policy_loss = -objective.mean().float()

    value_error = (values - minibatch.returns) ** 2
    if args.clip_vloss:
        clipped_values = minibatch.values + (values - minibatch.values).clamp(-clip_coef, clip_coef)
        value_error = torch.max(value_error, (clipped_values - minibatch.returns) ** 2)
    value_loss = 0.5 * value_error.mean()

    entropy_mean = entropy.mean()
    loss = policy_loss - args.ent_coef * entropy_mean + args.vf_coef * value_loss
    params = list(agent.parameters())
    grads = torch.autograd.grad(loss, params)
    with torch.no_grad():
        adam.step(params, grads, learning_rate, args.max_grad_norm)
    return log_ratio.detach(), torch.stack([policy_loss, value_loss, entropy_mean]).detach()


def compile_update(args, *inputs):
    """Compile update as one graph, and try it out on copies of these inputs.

    If that fails, say so and return update itself. A mistake in the surrogate then raises its own traceback at the
    first update.
    """
    try:
        torch._dynamo.reset()  # without it, a second train() in one process would use the first one's surrogate
        torch._dynamo.config.trace_autograd_ops = True  # lets torch.autograd.grad be part of the graph
        # Kernels are called from C++, and tensors are not checked at each call: both together 1.3 times as fast.
        # Remove guard_filter_fn if a tensor's shape or dtype changes between calls.
        options = {"cpp_wrapper": not args.cuda, "guard_filter_fn": keep_guards_on_constants}
        compiled_update = torch.compile(update, fullgraph=True, dynamic=False, options=options)
        compiled_update(args, *copy.deepcopy(inputs))
    except Exception as error:  # torch's versions and compilers fail in many ways
        reason = "no C++ compiler, a damaged cache (TORCHINDUCTOR_CACHE_DIR), or not one graph"
        print(f"--compile is off: {reason} ({type(error).__name__})", file=sys.stderr)
        return update
    return compiled_update


def keep_guards_on_constants(guards):
    """Tell torch.compile to check constants, such as numbers, at each call, but neither tensors nor the surrogate."""
    return [guard.guard_type == "CONSTANT_MATCH" for guard in guards]


def is_folder_name(name):
    """Whether a name, such as mine or mine/first, leads to a folder below runs/: no absolute path, and no .. in it."""
    path = Path(name)
    return len(path.parts) > 0 and not path.is_absolute() and ".." not in path.parts


def make_run_folder(args):
    """Make a folder in runs/ that no other run has, and return the run's name."""
    if args.capture_video and os.path.lexists("videos") and not os.path.isdir("videos"):
        fail("--capture-video: videos must be a folder, or a link to one; move it away")
    if args.capture_video and args.run_name is not None and Path("videos", args.run_name).exists():
        fail(f"--run-name: videos/{args.run_name} exists; choose another name, or move it away")
    unix_time = int(time.time())
    while True:
        run_name = args.run_name or f"{args.env_id}__{args.exp_name}__{args.seed}__{unix_time}"
        folder = Path("runs", run_name)
        try:
            folder.mkdir(parents=True)
            return run_name
        except OSError as error:
            if not os.path.lexists(folder):  # runs may be a file, or a link to a folder that is gone
                fail(f"cannot make {folder} ({error.strerror}): runs must be a folder to write to, or a link to one")
        if args.run_name is not None:
            fail(f"--run-name: {folder} exists; choose another name, or move it away")
        unix_time += 1  # another run of this name started in the same second


def first_bad_step(rewards, obs, next_obs):
    """The first step of a rollout at which a reward (T, n) or an observation (T, n, obs_dim) is not finite, or None."""
    finite = np.isfinite(rewards) & np.isfinite(obs).all(-1) & np.isfinite(next_obs).all(-1)
    finite_steps = finite.all(-1)
    return None if finite_steps.all() else int(finite_steps.argmin())


def diagnostics(log_ratio, losses, advantages, clip_coef, num_minibatches):
    """The scalars to log for one iteration. log_ratio and advantages are (updates, N), losses is (updates, 3).

    Losses and KL are means over the last epoch; the clip fraction, the shares of the three sets (partition/in, kill and
    pass) and the percentiles of β_t are of all epochs.
    """
    # PPO-Clip's sets and β_t, also where another surrogate is trained.
    ratio = np.exp(log_ratio)
    above = ratio > 1 + clip_coef
    below = ratio < 1 - clip_coef
    kill = (above & (advantages > 0)) | (below & (advantages < 0))
    passed = (above & (advantages < 0)) | (below & (advantages > 0))
    beta = np.where(kill, -ratio * advantages, 0.0)
    beta_p01, beta_p10, beta_p50, beta_p90, beta_p99 = np.percentile(beta, [1, 10, 50, 90, 99])
    last_epoch = slice(-num_minibatches, None)
    policy_loss, value_loss, entropy = losses[last_epoch].mean(0)
    return {
        "losses/policy_loss": policy_loss,
        "losses/value_loss": value_loss,
        "losses/entropy": entropy,
        "losses/old_approx_kl": -log_ratio[last_epoch].mean(),
        "losses/approx_kl": (ratio - 1 - log_ratio)[last_epoch].mean(),
        "losses/clipfrac": (above | below).mean(),
        "partition/in": (~kill & ~passed).mean(),
        "partition/kill": kill.mean(),
        "partition/pass": passed.mean(),
        "beta/p01": beta_p01,
        "beta/p10": beta_p10,
        "beta/p50": beta_p50,
        "beta/p90": beta_p90,
        "beta/p99": beta_p99,
    }


def params_sha256(agent):
    """SHA-256 of the bytes of all parameters: if it is equal, two runs ended with the same parameters, bit for bit."""
    params_bytes = [param.detach().cpu().numpy().tobytes() for param in agent.parameters()]
    return hashlib.sha256(b"".join(params_bytes)).hexdigest()


def script_sha256(args):
    """SHA-256 of the code of this file and, if a file in betas/ defines the class of args, of that file as well.

    Comments, docstrings, layout and the version of Python make no difference.
    """
    files = [Path(__file__).resolve()]
    args_file = Path(sys.modules[type(args).__module__].__file__).resolve()
    if args_file not in files:
        files.append(args_file)
    code = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
                del node.body[0]
        # Before 3.13, Python writes empty lists into a dump; later it leaves them out. So take them out here, and with
        # them every comma, because those next to an empty list would be left over.
        code.append(re.sub(r"\w+=\[\]|, ", "", ast.dump(tree)))
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def package_versions():
    """Versions of Python and of the packages that decide the bits, by name; None for one that is not installed."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("torch", "gymnasium", "mujoco", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def write_result(result, folder):
    """Write result.json, all or nothing: if it is there, the training is over (a diverged one, too: diverged_at)."""
    temporary = folder / "result.json.partial"
    temporary.write_text(json.dumps(result, indent=2), encoding="utf-8")
    os.replace(temporary, folder / "result.json")


class Seeds(NamedTuple):
    """Seeds of the random streams of a run, all of type np.random.SeedSequence."""

    noise: np.random.SeedSequence
    shuffle: np.random.SeedSequence
    evaluation: np.random.SeedSequence
    other_envs: np.random.SeedSequence  # of all environments but the first


def make_seeds(seed):
    """Seeds of streams that are independent of each other and of the first environment's, whose seed is seed."""
    return Seeds(*np.random.SeedSequence(seed).spawn(4))


def evaluate(path, episodes=10):
    """Undiscounted returns (episodes,) of a saved agent's most likely actions, its normalisation frozen."""
    checkpoint = torch.load(path, weights_only=True)
    saved_args = checkpoint["args"]
    env = make_env(saved_args["env_id"])
    agent = Agent(env.observation_space.shape[0], math.prod(env.action_space.shape))
    agent.load_state_dict(checkpoint["agent"])
    actor = numpy_actor(agent)
    saved_stats = checkpoint["obs_stats"]
    obs_stats = RunningStats(())  # all of it is set below, so the shape does not matter
    obs_stats.mean = saved_stats["mean"].numpy()
    obs_stats.m2 = saved_stats["m2"].numpy()
    obs_stats.count = saved_stats["count"].item()
    low = env.action_space.low
    high = env.action_space.high

    returns = np.zeros(episodes)
    seed = make_seeds(saved_args["seed"]).evaluation
    env.reset(seed=int(seed.generate_state(1)[0]))  # every episode below goes on from this stream
    for episode in range(episodes):
        obs, _ = env.reset()
        for _ in range(MAX_EVAL_STEPS):
            action = actor(obs_stats.normalise(obs[None]).astype(np.float32))
            obs, reward, termination, truncation, _ = env.step(action.reshape(low.shape).clip(low, high))
            returns[episode] += reward
            if termination or truncation:
                break
    return returns


def train(args, surrogate=surrogate):
    """Train one agent, from the first rollout to result.json.

    The surrogate is this file's, unless a file of betas/ passes its own.
    """
    start_time = time.time()
    script_hash = script_sha256(args)  # now, because the file may be edited while it runs
    versions = package_versions()
    torch.set_num_threads(1)  # networks this small are slower on more threads
    if args.cuda and not torch.cuda.is_available():
        fail("--cuda: torch finds no GPU here; leave it out")

    envs = make_envs(args)
    low = envs.action_space.low
    high = envs.action_space.high
    obs_dim = envs.single_observation_space.shape[0]
    action_dim = math.prod(envs.single_action_space.shape)
    rollout_shape = (args.num_steps, args.num_envs)
    batch_size = args.num_steps * args.num_envs
    minibatch_size = batch_size // args.num_minibatches
    num_iterations = args.total_timesteps // batch_size

    seeds = make_seeds(args.seed)
    noise_rng = np.random.default_rng(seeds.noise)
    shuffle_rng = np.random.default_rng(seeds.shuffle)
    # Gymnasium's own choice, seed, seed + 1, …, would give runs with successive seeds the same environments.
    env_seeds = [args.seed, *seeds.other_envs.generate_state(args.num_envs - 1).tolist()]
    torch.manual_seed(args.seed)
    torch.backends.cudnn.deterministic = args.torch_deterministic
    device = torch.device("cuda" if args.cuda else "cpu")
    agent = Agent(obs_dim, action_dim).to(device)
    adam = Adam(list(agent.parameters()))
    # Tensors, so that they may change during a run, as learning_rate does: torch.compile compiles anew for every value
    # of a Python number.
    learning_rate = torch.tensor(args.learning_rate, dtype=torch.float64, device=device)
    clip_coef = torch.tensor(args.clip_coef, dtype=torch.float64, device=device)
    update_minibatch = update
    if args.compile:
        example = zero_batch(minibatch_size, envs, device)
        update_minibatch = compile_update(args, surrogate, agent, adam, learning_rate, clip_coef, example)
        args.compile = update_minibatch is not update  # logs and result.json say what was done, not what was asked for

    # The run's folder and logs. Bad arguments have ended the program by now, so that they leave no folder behind.
    run_name = make_run_folder(args)
    folder = Path("runs", run_name)
    if args.track:
        import wandb

        try:
            wandb.init(
                project=args.wandb_project_name,
                entity=args.wandb_entity,
                name=run_name,
                group=args.exp_name,
                job_type=args.env_id,
                config=vars(args),
                sync_tensorboard=True,
                save_code=True,
            )
        except wandb.Error as error:
            folder.rmdir()
            fail(f"--track: {error} (to track offline, set WANDB_MODE=offline)")
    if args.capture_video:
        envs.envs[0] = gym.wrappers.RecordVideo(
            envs.envs[0], f"videos/{run_name}", video_length=MAX_VIDEO_STEPS, disable_logger=True
        )
    writer = SummaryWriter(folder)
    lines = [f"|{name}|{value}|" for name, value in vars(args).items()]
    writer.add_text("hyperparameters", "\n".join(["|param|value|", "|-|-|", *lines]))

    # The rollout: one row a step, one column an environment.
    obs = np.zeros((*rollout_shape, obs_dim), np.float32)
    next_obs = np.zeros((*rollout_shape, obs_dim), np.float32)  # what each step led to, before any reset
    actions = np.zeros((*rollout_shape, action_dim), np.float32)
    rewards = np.zeros(rollout_shape)
    terminations = np.zeros(rollout_shape, bool)
    dones = np.zeros(rollout_shape, bool)  # whether each step ended the episode
    # What carries over from one rollout to the next.
    obs_stats = RunningStats(obs_dim)
    return_stats = RunningStats(())
    discounted_returns = np.zeros(args.num_envs)
    episode_return = np.zeros(args.num_envs)
    episode_length = np.zeros(args.num_envs)
    raw_obs, _ = envs.reset(seed=env_seeds)
    obs_stats.update(raw_obs)
    current_obs = obs_stats.normalise(raw_obs)

    final_returns = []  # each rollout's mean episodic return, in the last tenth of the steps
    progress_text = "no episode has ended"
    divergence = None  # what is not finite, in a run that diverges
    has_terminal = sys.stderr.isatty()
    progress = tqdm(total=num_iterations * batch_size, unit=" steps", disable=not has_terminal)

    for iteration in range(1, num_iterations + 1):
        global_step = iteration * batch_size
        if args.anneal_lr:
            learning_rate.fill_(args.learning_rate * (1 - (iteration - 1) / num_iterations))

        # Collect a rollout.
        actor = numpy_actor(agent)
        action_std = agent.actor_logstd.detach().exp().cpu().numpy()
        noise = action_std * noise_rng.standard_normal(actions.shape, np.float32)
        ended_episodes = []  # (return, length) of each
        for t in range(args.num_steps):
            obs[t] = current_obs
            actions[t] = actor(obs[t]) + noise[t]
            clipped_actions = actions[t].reshape(low.shape).clip(low, high)
            raw_obs, reward, termination, truncation, infos = envs.step(clipped_actions)
            rewards[t] = reward
            terminations[t] = termination
            dones[t] = termination | truncation
            obs_stats.update(raw_obs)
            current_obs = obs_stats.normalise(raw_obs)
            next_obs[t] = current_obs
            episode_return += rewards[t]
            episode_length += 1
            if dones[t].any():  # final_obs is an ended episode's last observation, raw_obs the next one's first
                done = dones[t]
                final_obs = np.stack(infos["final_obs"][done]).astype(np.float64)
                final_obs[np.isinf(final_obs)] = np.nan  # normalise would hide an infinity as ±10
                next_obs[t, done] = obs_stats.normalise(final_obs)
                ended_episodes.extend(zip(episode_return[done], episode_length[done], strict=True))
                episode_return[done] = 0
                episode_length[done] = 0
        bad_step = first_bad_step(rewards, obs, next_obs)
        if bad_step is not None:
            divergence = "a reward or an observation of the environment"
            global_step = (iteration - 1) * batch_size + (bad_step + 1) * args.num_envs
            break

        # Values, log-probabilities, advantages and returns, each in one batch.
        batch_obs = torch.as_tensor(obs, device=device).flatten(0, 1)
        batch_actions = torch.as_tensor(actions, device=device).flatten(0, 1)
        if iteration <= 2:  # twice: at first all biases are 0, and a mistake with them would not show
            check_numpy_actor(agent, actor, batch_obs)
        with torch.no_grad():
            batch_logprobs, _, batch_values = agent(batch_obs, batch_actions)
            next_values = agent.critic(torch.as_tensor(next_obs, device=device)).squeeze(-1).cpu().numpy()
        values = batch_values.cpu().numpy().reshape(rollout_shape)
        scaled_rewards = scale_rewards(return_stats, rewards, dones, discounted_returns, args.gamma)
        advantages = gae(scaled_rewards, values, next_values, terminations, dones, args.gamma, args.gae_lambda)
        returns = advantages + values
        if args.norm_adv == "rollout":
            advantages = (advantages - advantages.mean()) / (advantages.std() + ADVANTAGE_EPS)
        batch = Batch(
            obs=batch_obs,
            actions=batch_actions,
            logprobs=batch_logprobs,
            advantages=torch.as_tensor(advantages, dtype=torch.float32, device=device).flatten(),
            returns=torch.as_tensor(returns, dtype=torch.float32, device=device).flatten(),
            values=batch_values,
        )

        # Update the networks.
        log_ratios = []
        losses = []
        used_advantages = []
        for _ in range(args.update_epochs):
            shuffled = batch.select(torch.as_tensor(shuffle_rng.permutation(batch_size), device=device))
            for start in range(0, batch_size, minibatch_size):
                minibatch = shuffled.select(slice(start, start + minibatch_size))
                if args.norm_adv == "minibatch":
                    mean = minibatch.advantages.mean()
                    std = minibatch.advantages.std(correction=0)
                    minibatch = minibatch._replace(advantages=(minibatch.advantages - mean) / (std + ADVANTAGE_EPS))
                log_ratio, minibatch_losses = update_minibatch(
                    args, surrogate, agent, adam, learning_rate, clip_coef, minibatch
                )
                log_ratios.append(log_ratio)
                losses.append(minibatch_losses)
                used_advantages.append(minibatch.advantages)
            if args.target_kl is not None:
                epoch_log_ratio = torch.cat(log_ratios[-args.num_minibatches :])
                approx_kl = (epoch_log_ratio.exp() - 1 - epoch_log_ratio).mean()
                if approx_kl > args.target_kl:
                    break
        all_log_ratios = torch.stack(log_ratios).double().cpu().numpy()
        all_losses = torch.stack(losses).double().cpu().numpy()
        all_advantages = torch.stack(used_advantages).double().cpu().numpy()
        if not np.isfinite(all_losses).all() or not all(param.isfinite().all() for param in agent.parameters()):
            divergence = "a loss or a parameter"
            break

        # Diagnose and log.
        scalars = diagnostics(all_log_ratios, all_losses, all_advantages, clip_coef.item(), args.num_minibatches)
        returns_variance = returns.var()
        unexplained = (returns - values).var() / returns_variance if returns_variance > 0 else np.nan
        scalars["losses/explained_variance"] = 1 - unexplained
        scalars["charts/learning_rate"] = learning_rate.item()
        scalars["charts/SPS"] = global_step / (time.time() - start_time)
        if ended_episodes:
            mean_return, mean_length = np.mean(ended_episodes, axis=0)
            scalars["charts/episodic_return"] = mean_return
            scalars["charts/episodic_length"] = mean_length
            progress_text = f"return {mean_return:.1f}"
            if global_step > 0.9 * num_iterations * batch_size:
                final_returns.append(mean_return)
        for tag, value in scalars.items():
            writer.add_scalar(tag, value, global_step)
        progress.set_postfix_str(progress_text, refresh=False)
        progress.update(batch_size)
        if not has_terminal and iteration % max(1, num_iterations // 10) == 0:
            print(f"step {global_step}, {scalars['charts/SPS']:.0f} steps/s, {progress_text}", flush=True)
    progress.close()

    # Write the model and the result now, before what can fail or take long.
    wall_time = time.time() - start_time
    final_return = None
    if final_returns and not divergence:
        final_return = float(np.mean(final_returns))
    result = {
        "env_id": args.env_id,
        "exp_name": args.exp_name,
        "seed": args.seed,
        "args": vars(args),
        "global_step": global_step,
        "final_return": final_return,
        "diverged_at": global_step if divergence else None,
        "wall_time_s": wall_time,
        "sps": global_step / wall_time,
        "params_sha256": params_sha256(agent),
        "script_sha256": script_hash,
        "versions": versions,
    }
    writer.flush()
    if args.save_model and not divergence:
        stats = {name: torch.as_tensor(value) for name, value in vars(obs_stats).items()}
        torch.save({"agent": agent.cpu().state_dict(), "obs_stats": stats, "args": vars(args)}, folder / "agent.pt")
    write_result(result, folder)

    # Close, evaluate.
    try:
        envs.close()
    finally:  # where close() fails, on a simulator or on the film of the last episode, its traceback comes last
        if args.save_model and not divergence:
            result["eval_returns"] = evaluate(folder / "agent.pt").tolist()
            write_result(result, folder)
            for episode, episodic_return in enumerate(result["eval_returns"]):
                writer.add_scalar("eval/episodic_return", episodic_return, episode)
        writer.close()
        if args.track:
            wandb.summary.update(result)
        if divergence:
            print(f"error: {divergence} is not finite at step {global_step}", file=sys.stderr)
        else:
            print(f"{folder}: final return {final_return}, params_sha256 {result['params_sha256']}")
    if divergence:
        sys.exit(1)


if __name__ == "__main__":
    train(tyro.cli(Args))


# What `uv run` installs for this file alone: the first part of requirements.txt.
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch==2.13.0",
#     'gymnasium[box2d,classic-control,mujoco]==1.4.0; python_version < "3.14"',
#     'gymnasium[classic-control,mujoco]==1.4.0; python_version >= "3.14"',
#     'mujoco==3.6.0; python_version < "3.14"',
#     'mujoco==3.8.1; python_version >= "3.14"',
#     "numpy==2.4.6",
#     "tyro==1.0.17",
#     "pydantic==2.14.3",
#     "wandb==0.31.0",
#     "tensorboard==2.21.0",
#     "tqdm==4.70.1",
#     "moviepy==2.2.1",
# ]
# ///
