"""PPO-Clip in its Φ form, for continuous actions, in the manner of CleanRL (Huang et al. 2022).

Maximises, per sample, with the ratio w = π_new(a|s) / π_old(a|s) and the advantage Â,

    w Â - Φ,   Φ = (w - (1+ε)) Â  if w > 1+ε and Â > 0;   (w - (1-ε)) Â  if w < 1-ε and Â < 0;   0 elsewhere

This is PPO-Clip's objective min(w Â, clip(w, 1-ε, 1+ε) Â), written as w Â less what it gains beyond the band [1-ε, 1+ε]
(Theorem 2 of Colletti & Holzinger 2026, arXiv 2606.23932).

With the same seed on the same machine ppo_clip, ppo_klip and ppo_phi end with the same parameters, bit for bit
(params_sha256), if a minibatch has 2^k samples: docs/exactness.md says why.

docs/cleanrl.md says what differs from CleanRL.

    python ppo_phi_continuous.py --env-id HalfCheetah-v4 --seed 0
    diff ppo_clip_continuous.py ppo_phi_continuous.py
"""

import hashlib
import json
import math
import os
import shutil
import sys
import sysconfig
import time
import traceback
import warnings
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

warnings.filterwarnings("ignore", message=".*out of date")  # the paper's tasks are v4


@dataclass
class Args:
    exp_name: str = Path(__file__).stem  # the name of this experiment
    seed: int = 0  # seed of the experiment
    cuda: bool = False  # update the networks on the GPU (networks this small are faster on a CPU)
    compile: bool = True  # compile the minibatch update as one graph
    track: bool = False  # track the run with Weights & Biases (offline with WANDB_MODE=offline)
    wandb_project_name: str = "klip-ppo"  # the W&B project
    wandb_entity: str | None = None  # the W&B entity (team)
    capture_video: bool = False  # record videos of the agent, in the run's folder
    save_model: bool = False  # save `agent.pt` in the run's folder (tools/evaluate.py plays it)
    run_name: str | None = None  # folder in `runs/`; `{env_id}__{exp_name}__{seed}__{unix time}` if not given

    env_id: str = "HalfCheetah-v4"  # the id of the environment
    total_timesteps: int = 1_000_000  # total environment steps, rounded down to whole rollouts
    learning_rate: float = 3e-4  # the learning rate of Adam
    num_envs: int = 1  # the number of environments stepped side by side
    num_steps: int = 2048  # the number of steps in each environment per rollout
    anneal_lr: bool = True  # anneal the learning rate linearly to 0
    gamma: float = 0.99  # the discount factor γ
    gae_lambda: float = 0.95  # the λ of generalised advantage estimation
    num_minibatches: int = 32  # minibatches per epoch
    update_epochs: int = 10  # the number of epochs per rollout
    norm_adv: Literal["rollout", "minibatch", "none"] = "rollout"  # over what to normalise advantages
    clip_coef: float = 0.2  # ε, the half width of the band [1-ε, 1+ε]
    clip_vloss: bool = True  # clip the value loss
    vloss_clip_coef: float | None = None  # ε of the clipped value loss; clip_coef if not given
    ent_coef: float = 0.0  # the weight of the entropy bonus
    vf_coef: float = 0.5  # the weight of the value loss
    max_grad_norm: float = 0.5  # the maximum norm of the gradient
    target_kl: float | None = None  # stop updating on a rollout after an epoch whose mean KL is above this


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar; Theorem 2."""
    ratio = (new_logprob - old_logprob).exp()
    clipped_ratio = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    kill = ((ratio > 1 + clip_coef) & (advantages > 0)) | ((ratio < 1 - clip_coef) & (advantages < 0))
    phi = torch.where(kill, (ratio - clipped_ratio) * advantages, 0.0)
    return ratio * advantages - phi


def check(args):
    """End the program with one line if an argument has a value that nothing can be trained with."""

    def require(name, is_met, requirement):
        if not is_met:
            fail(f"--{name.replace('_', '-')} must {requirement}, not {getattr(args, name)!r}")

    batch_size = args.num_envs * args.num_steps
    for name in ("num_envs", "num_steps", "num_minibatches", "update_epochs"):
        require(name, getattr(args, name) >= 1, "be at least 1")
    for name in ("learning_rate", "max_grad_norm"):
        require(name, 0 < getattr(args, name) < math.inf, "lie in (0, inf)")
    for name in ("ent_coef", "vf_coef"):
        require(name, 0 <= getattr(args, name) < math.inf, "lie in [0, inf)")
    for name in ("gamma", "gae_lambda"):
        require(name, 0 <= getattr(args, name) <= 1, "lie in [0, 1]")
    for name in ("target_kl", "vloss_clip_coef"):
        require(name, getattr(args, name) is None or 0 < getattr(args, name) < math.inf, "lie in (0, inf)")
    for name in ("exp_name", "run_name"):
        require(name, getattr(args, name) is None or is_folder_name(getattr(args, name)), "name a folder below runs/")
    require("seed", 0 <= args.seed < 2**32, "lie in [0, 2^32)")
    require("clip_coef", 0 < args.clip_coef < 1, "lie in (0, 1)")
    require("num_minibatches", batch_size % args.num_minibatches == 0, f"divide num_envs * num_steps = {batch_size}")
    require("total_timesteps", args.total_timesteps >= batch_size, f"be at least one rollout, {batch_size} steps")


def is_folder_name(name):
    """Whether a name, such as mine or mine/first, leads to a folder below runs/: no absolute path, and no .. in it."""
    path = Path(name)
    return len(path.parts) > 0 and not path.is_absolute() and ".." not in path.parts


def fail(message):
    """End the program with one line on standard error and exit code 2."""
    print("error:", message, file=sys.stderr)
    sys.exit(2)


class DropInfo(gym.Wrapper):
    """Drop the environment's own info, which nothing here reads: merging that of all takes a tenth of a step.

    Copy observations: some environments return the same array each time, and their reset would overwrite final_obs.
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
        if "Box2D" in str(error):
            build = "apt install swig g++ python3-dev; pip install box2d-py==2.3.8"
            fail(f"--env-id {env_id}: needs Box2D: pip install box2d==2.3.10, or on Python 3.14 {build}")
        fail(f"--env-id {env_id}: {error}")
    except Exception:
        if "gl_context.py" not in traceback.format_exc():  # MuJoCo's file that loads the renderer
            raise
        fail(f"--env-id {env_id}: MuJoCo cannot load MUJOCO_GL={os.environ.get('MUJOCO_GL')}; unset it, or set egl")
    if not isinstance(gym.spaces.flatten_space(env.observation_space), gym.spaces.Box):
        fail(f"--env-id {env_id}: observations that cannot be flattened to a vector: {env.observation_space}")
    if not isinstance(env.action_space, gym.spaces.Box) or env.action_space.dtype.kind != "f":
        fail(f"--env-id {env_id}: actions must be a float Box (ppo_*_cartpole.py: Discrete), not {env.action_space}")
    is_vector = isinstance(env.observation_space, gym.spaces.Box) and len(env.observation_space.shape) == 1
    return DropInfo(env if is_vector else gym.wrappers.FlattenObservation(env))


class Agent(nn.Module):
    """Separate 64-64 tanh actor and critic; a diagonal Gaussian policy with a state-independent log std."""

    def __init__(self, obs_dim, action_dim):
        super().__init__()
        self.critic = mlp(obs_dim, 1, head_gain=1.0)
        self.actor_mean = mlp(obs_dim, action_dim, head_gain=0.01)
        self.actor_logstd = nn.Parameter(torch.zeros(action_dim))

    def forward(self, obs, actions):
        """obs (N, obs_dim), actions (N, action_dim) -> log π(a|s) (N,), entropy (N,), value (N,)."""
        mean = self.actor_mean(obs)
        logstd = self.actor_logstd
        # This is torch.distributions.Normal(mean, std), written out so that it is fast and compiles into one graph.
        logprob = -0.5 * ((actions - mean) * torch.exp(-logstd)) ** 2 - logstd - 0.5 * math.log(2 * math.pi)
        entropy = (logstd + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(obs))
        return logprob.sum(-1), entropy, self.critic(obs).squeeze(-1)


def mlp(inputs, outputs, head_gain):
    """Two hidden layers of 64 tanh units and a linear head. Orthogonal weights of gain √2, or head_gain; zero biases.

    The rollout uses the same network in numpy: change numpy_actor, too.
    """
    hidden1 = nn.Linear(inputs, 64)
    hidden2 = nn.Linear(64, 64)
    head = nn.Linear(64, outputs)
    for layer, gain in ((hidden1, math.sqrt(2)), (hidden2, math.sqrt(2)), (head, head_gain)):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(hidden1, nn.Tanh(), hidden2, nn.Tanh(), head)


def numpy_actor(agent):
    """A copy of agent.actor_mean as a numpy function of obs (n, obs_dim), ten times as fast as torch for one obs.

    It ends the program if the two are not one network: the rollout would then follow another policy than the update.
    """
    layers = [layer for layer in agent.actor_mean if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().cpu().numpy().T.copy() for layer in layers]
    biases = [layer.bias.detach().cpu().numpy().copy() for layer in layers]

    def actor(obs):
        hidden = np.tanh(obs @ weights[0] + biases[0])
        hidden = np.tanh(hidden @ weights[1] + biases[1])
        return hidden @ weights[2] + biases[2]

    some_obs = torch.linspace(-3, 3, layers[0].in_features)
    expected = agent.actor_mean(some_obs.to(layers[0].weight.device)).detach().cpu().numpy()
    if not np.allclose(actor(some_obs.numpy()), expected, rtol=1e-3, atol=1e-5):
        fail("the networks of mlp() and numpy_actor() differ; what is changed in one must be changed in the other")
    return actor


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
        """Standardise x (n, *shape) and clip it to ±10."""
        return scale(x - self.mean, self.m2 / self.count)


def scale(x, variance):
    """Divide x by the standard deviation and clip it to ±10. A variance near 0 counts as 1e-8."""
    return (x / np.sqrt(np.maximum(variance, 1e-8))).clip(-10, 10)


def scale_rewards(stats, rewards, dones, discounted_returns, gamma):
    """Divide rewards (T, n) by the standard deviation of the discounted returns up to each step; clip to ±10.

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
    variances = m2 / counts
    return scale(rewards, variances[:, None])


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
    old_logprobs: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    old_values: torch.Tensor

    def select(self, index):
        """The Batch of the samples that index, a tensor or a slice, selects."""
        return Batch(*(tensor[index] for tensor in self))


class Adam:
    """Adam (Kingma & Ba 2015), with the gradient's norm clipped; it changes params in place as torch.optim.Adam would.

    Written out, because torch.optim.Adam cannot be compiled into one graph with the loss: an update with that one takes
    1.6 times as long.
    """

    def __init__(self, params):
        self.exp_avgs = [torch.zeros_like(param) for param in params]
        self.exp_avg_sqs = [torch.zeros_like(param) for param in params]
        self.step_count = torch.zeros((), dtype=torch.float64, device=params[0].device)

    def step(self, params, grads, learning_rate, max_grad_norm, beta1=0.9, beta2=0.999, eps=1e-5):
        """Change params by one step along grads, tensors of the same shapes."""
        grad_norm = torch.sqrt(sum((grad**2).sum() for grad in grads))
        shrinkage = (max_grad_norm / (grad_norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
        self.step_count += 1
        step_size = learning_rate / (1 - beta1**self.step_count)
        correction = torch.sqrt(1 - beta2**self.step_count)
        for param, grad, exp_avg, exp_avg_sq in zip(params, grads, self.exp_avgs, self.exp_avg_sqs, strict=True):
            clipped_grad = grad * shrinkage
            exp_avg.lerp_(clipped_grad, 1 - beta1)
            exp_avg_sq.mul_(beta2).addcmul_(clipped_grad, clipped_grad, value=1 - beta2)
            param.sub_(step_size * exp_avg / (exp_avg_sq.sqrt() / correction + eps))


def update(args, surrogate, agent, adam, learning_rate, clip_coef, vloss_clip_coef, minibatch):
    """Take one step of Adam on one minibatch. Returns log w (N,) and the policy loss, value loss and entropy (3,)."""
    new_logprobs, entropy, new_values = agent(minibatch.obs, minibatch.actions)
    old_logprobs = minibatch.old_logprobs
    log_ratio = new_logprobs - old_logprobs

    # The surrogate is computed in float64. In float32, w Â and clip(w) Â can round to the same number just outside the
    # band. There ppo_clip's torch.min passes on half of the gradient, but ppo_phi and ppo_klip all or none of it.
    advantages = minibatch.advantages.double()
    objective = surrogate(new_logprobs.double(), old_logprobs.double(), advantages, clip_coef)
    if objective.shape != log_ratio.shape:
        raise ValueError(f"the surrogate must return shape {tuple(log_ratio.shape)}, not {tuple(objective.shape)}")
    policy_loss = -objective.mean().float()

    value_error = (new_values - minibatch.returns) ** 2
    if args.clip_vloss:
        change = (new_values - minibatch.old_values).clamp(-vloss_clip_coef, vloss_clip_coef)
        clipped_values = minibatch.old_values + change
        value_error = torch.max(value_error, (clipped_values - minibatch.returns) ** 2)
    value_loss = 0.5 * value_error.mean()

    entropy_mean = entropy.mean()
    loss = policy_loss - args.ent_coef * entropy_mean + args.vf_coef * value_loss
    params = list(agent.parameters())
    grads = torch.autograd.grad(loss, params)
    with torch.no_grad():
        adam.step(params, grads, learning_rate, args.max_grad_norm)
    return log_ratio.detach(), torch.stack([policy_loss, value_loss, entropy_mean]).detach()


def compile_update(cuda):
    """Compile update as one graph, at its first call. Return it as it is where torch.compile lacks what it needs."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not shutil.which(compiler) or not header.is_file():
        remedy = "on Debian and Ubuntu: apt-get install g++ python3-dev"
        print(f"--compile is off: it needs a C++ compiler ({compiler}) and {header}; {remedy}", file=sys.stderr)
        return update
    torch._dynamo.reset()  # without it, a second train() in one process would use the first one's surrogate
    torch._dynamo.config.trace_autograd_ops = True  # lets torch.autograd.grad be part of the graph
    # Kernels are called from C++, and tensors are not checked at each call: both together 1.3 times as fast.
    # Remove guard_filter_fn if a tensor's shape or dtype changes between calls.
    options = {"cpp_wrapper": not cuda, "guard_filter_fn": keep_cheap_guards}
    compiled_update = torch.compile(update, fullgraph=True, dynamic=False, options=options)

    def update_with_note(*inputs):
        try:
            return compiled_update(*inputs)
        except Exception as error:
            error.add_note("This is the compiled update. --no-compile trains without compiling, to other bits.")
            raise

    return update_with_note


def keep_cheap_guards(guards):
    """Tell torch.compile to check only numbers and the lengths of lists at each call.

    A surrogate that changes one of these from call to call is compiled anew each time, and the ninth time is an error.
    Any other memory of a surrogate goes unnoticed.
    """
    return [guard.guard_type in ("CONSTANT_MATCH", "SEQUENCE_LENGTH") for guard in guards]


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


def package_versions():
    """Versions of Python and of the packages that decide the bits, by name; None for one that is not installed."""
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in ("torch", "gymnasium", "mujoco", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def make_run_folder(args):
    """Make a folder in runs/ that no other run has, and return it."""
    unix_time = int(time.time())
    while True:
        folder = Path("runs", args.run_name or f"{args.env_id}__{args.exp_name}__{args.seed}__{unix_time}")
        try:
            folder.mkdir(parents=True)
            return folder
        except OSError as error:
            if args.run_name or not folder.is_dir():
                fail(f"--run-name: cannot make {folder} ({error}); choose another name, or move it away")
            unix_time += 1  # another run of this name started in the same second


def train(args, surrogate=surrogate, sources=(__file__,)):
    """Train one agent, from the first rollout to result.json.

    A file of betas/ passes another surrogate, and itself as one of the sources, of which the run's folder gets copies.
    """
    start_time = time.perf_counter()
    source_texts = [Path(source).read_bytes() for source in sources]  # now: a file may be edited while it runs
    check(args)
    if args.cuda and not torch.cuda.is_available():
        fail("--cuda: torch finds no GPU here; leave it out")

    # Environments and networks.
    torch.set_num_threads(1)  # networks this small are slower on more threads
    first_env = partial(make_env, args.env_id, render=args.capture_video)
    other_envs = [partial(make_env, args.env_id)] * (args.num_envs - 1)
    same_step = gym.vector.AutoresetMode.SAME_STEP
    # copy=False is safe: the loop below stores an observation before the next step overwrites it.
    envs = gym.vector.SyncVectorEnv([first_env, *other_envs], autoreset_mode=same_step, copy=False)
    low = envs.action_space.low
    high = envs.action_space.high
    if (low > 0).any() or (high < 0).any():
        advice = "but the policy begins around 0: rescale them with gym.wrappers.RescaleAction"
        print(f"warning: --env-id {args.env_id} has actions in {envs.single_action_space}, {advice}", file=sys.stderr)
    obs_dim = envs.single_observation_space.shape[0]
    action_dim = math.prod(envs.single_action_space.shape)
    rollout_shape = (args.num_steps, args.num_envs)
    batch_size = args.num_steps * args.num_envs
    minibatch_size = batch_size // args.num_minibatches
    num_iterations = args.total_timesteps // batch_size

    # Random streams that are independent of each other and of the first environment's; tools/evaluate.py has the third.
    noise_seed, shuffle_seed, _, env_seed = np.random.SeedSequence(args.seed).spawn(4)
    noise_rng = np.random.default_rng(noise_seed)
    shuffle_rng = np.random.default_rng(shuffle_seed)
    # Gymnasium's own choice, seed, seed + 1, …, would give runs with successive seeds the same environments.
    env_seeds = [args.seed, *env_seed.generate_state(args.num_envs - 1).tolist()]
    torch.manual_seed(args.seed)

    device = torch.device("cuda" if args.cuda else "cpu")
    agent = Agent(obs_dim, action_dim).to(device)
    adam = Adam(list(agent.parameters()))
    # Tensors, so that they may change during a run, as learning_rate does: torch.compile compiles anew for every value
    # of a Python number.
    learning_rate = torch.tensor(args.learning_rate, dtype=torch.float64, device=device)
    clip_coef = torch.tensor(args.clip_coef, dtype=torch.float64, device=device)
    vloss_clip_coef = clip_coef
    if args.vloss_clip_coef is not None:
        vloss_clip_coef = torch.tensor(args.vloss_clip_coef, dtype=torch.float64, device=device)
    update_minibatch = compile_update(args.cuda) if args.compile else update
    args.compile = update_minibatch is not update  # logs and result.json say what was done, not what was asked for

    # The run's folder and logs. Only --run-name and --track are unchecked by now: no other mistake leaves a folder.
    plain_args = json.loads(json.dumps(vars(args), default=str))  # what JSON cannot hold, such as a Path, as text
    folder = make_run_folder(args)
    for source, text in zip(sources, source_texts, strict=True):
        (folder / Path(source).name).write_bytes(text)
    if args.track:
        import wandb

        try:
            wandb.init(
                project=args.wandb_project_name,
                entity=args.wandb_entity,
                name=folder.relative_to("runs").as_posix(),
                group=args.exp_name,
                job_type=args.env_id,
                config=plain_args,
                sync_tensorboard=True,
                save_code=True,
            )
        except (wandb.Error, OSError) as error:
            shutil.rmtree(folder)
            fail(f"--track: {error} (to track offline, set WANDB_MODE=offline)")
    if args.capture_video:  # only now, since its folder did not exist before
        envs.envs[0] = gym.wrappers.RecordVideo(envs.envs[0], str(folder / "videos"))
    writer = SummaryWriter(folder)
    lines = [f"|{name}|{value}|" for name, value in plain_args.items()]
    writer.add_text("hyperparameters", "\n".join(["|param|value|", "|-|-|", *lines]))

    # The rollout: one row a step, one column an environment.
    obs = np.zeros((*rollout_shape, obs_dim), np.float32)
    reached_obs = np.zeros((*rollout_shape, obs_dim), np.float32)  # what each step led to, before any reset
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
    progress = tqdm(total=num_iterations * batch_size, unit=" steps", disable=None)  # None: only in a terminal

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
            reached_obs[t] = current_obs
            episode_return += rewards[t]
            episode_length += 1
            if dones[t].any():  # final_obs is an ended episode's last observation, raw_obs the next one's first
                done = dones[t]
                final_obs = np.stack(infos["final_obs"][done])
                final_obs = np.where(np.isinf(final_obs), np.nan, final_obs)  # or ±10 would hide it
                reached_obs[t, done] = obs_stats.normalise(final_obs)
                ended_episodes.extend(zip(episode_return[done], episode_length[done], strict=True))
                episode_return[done] = 0
                episode_length[done] = 0
        if not all(np.isfinite(array).all() for array in (rewards, obs, reached_obs)):
            divergence = "a reward or an observation of the environment"
            break

        # Values, log-probabilities, advantages and returns, each in one batch.
        batch_obs = torch.as_tensor(obs, device=device).flatten(0, 1)
        batch_actions = torch.as_tensor(actions, device=device).flatten(0, 1)
        with torch.no_grad():
            old_logprobs, _, old_values = agent(batch_obs, batch_actions)
            next_values = agent.critic(torch.as_tensor(reached_obs, device=device)).squeeze(-1).cpu().numpy()
        values = old_values.cpu().numpy().reshape(rollout_shape)
        scaled_rewards = scale_rewards(return_stats, rewards, dones, discounted_returns, args.gamma)
        advantages = gae(scaled_rewards, values, next_values, terminations, dones, args.gamma, args.gae_lambda)
        returns = advantages + values
        if args.norm_adv == "rollout":
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        batch = Batch(
            obs=batch_obs,
            actions=batch_actions,
            old_logprobs=old_logprobs,
            advantages=torch.as_tensor(advantages, dtype=torch.float32, device=device).flatten(),
            returns=torch.as_tensor(returns, dtype=torch.float32, device=device).flatten(),
            old_values=old_values,
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
                    minibatch = minibatch._replace(advantages=(minibatch.advantages - mean) / (std + 1e-8))
                log_ratio, minibatch_losses = update_minibatch(
                    args, surrogate, agent, adam, learning_rate, clip_coef, vloss_clip_coef, minibatch
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
        scalars["charts/SPS"] = global_step / (time.perf_counter() - start_time)
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
        if progress.disable and iteration % max(1, num_iterations // 10) == 0:
            print(f"step {global_step}, {scalars['charts/SPS']:.0f} steps/s, {progress_text}", flush=True)
    progress.close()

    # Save everything before anything is closed, and result.json last: if it is there, the training is over.
    wall_time = time.perf_counter() - start_time
    final_return = None
    if final_returns and not divergence:
        final_return = float(np.mean(final_returns))
    result = {
        "env_id": args.env_id,
        "exp_name": args.exp_name,
        "seed": args.seed,
        "args": plain_args,
        "global_step": global_step,
        "final_return": final_return,
        "diverged_at": global_step if divergence else None,
        "wall_time_s": wall_time,
        "sps": global_step / wall_time,
        "params_sha256": params_sha256(agent),
        "script_sha256": hashlib.sha256(b"".join(source_texts)).hexdigest() if sources else None,
        "versions": package_versions(),
    }
    if args.save_model and not divergence:
        stats = {name: torch.as_tensor(value) for name, value in vars(obs_stats).items()}
        torch.save({"agent": agent.cpu().state_dict(), "obs_stats": stats, "args": plain_args}, folder / "agent.pt")
    writer.flush()
    partial_result = folder / "result.json.partial"
    partial_result.write_text(json.dumps(result, indent=2), encoding="utf-8")
    partial_result.replace(folder / "result.json")
    if args.track:
        wandb.summary.update(result)
    if not divergence:
        print(f"{folder}: final return {final_return}, params_sha256 {result['params_sha256']}", flush=True)
    envs.close()
    writer.close()
    if divergence:
        sys.exit(f"error: {divergence} is not finite at step {global_step}")


if __name__ == "__main__":
    train(tyro.cli(Args))


# What `uv run` installs for this file alone: the first part of requirements.txt.
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "torch==2.13.0",
#     "gymnasium[box2d,classic-control,mujoco]==1.4.0; python_version < '3.14'",
#     "gymnasium[classic-control,mujoco]==1.4.0; python_version >= '3.14'",
#     "mujoco==3.6.0; python_version < '3.14'",
#     "mujoco==3.8.1; python_version >= '3.14'",
#     "numpy==2.4.6",
#     "tyro==1.0.17",
#     "wandb==0.31.0",
#     "tensorboard==2.21.0",
#     "tqdm==4.70.1",
#     "moviepy==2.2.1",
# ]
# ///
