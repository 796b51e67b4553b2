"""PPO-Clip, the min form, for continuous actions.

Maximises, per sample, with the ratio w = π_new(a|s) / π_old(a|s) and the advantage Â,

    min(w Â, clip(w, 1-ε, 1+ε) Â)                                    (Schulman et al. 2017, eq. 7)

Theorem 1 (Colletti & Holzinger 2026, arXiv 2606.23932): its gradient is that of w Â + β_t log π_new(a|s), a KL
penalty whose coefficient β_t = -w Â on the samples that the clip kills and 0 elsewhere varies per sample. With one
seed, ppo_clip, ppo_phi and ppo_klip end training with the same parameters, bit for bit (params_sha256).

    python ppo_clip_continuous.py --env-id HalfCheetah-v4 --seed 0
    diff ppo_clip_continuous.py ppo_klip_continuous.py

In the manner of CleanRL's ppo_continuous_action.py (Huang et al. 2022): one file, one loop, the same names and tags.
"""

import copy
import hashlib
import io
import json
import logging
import math
import os
import random
import shlex
import signal
import sys
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # networks this small are slower on more threads; libraries read this when imported
logging.getLogger("torch.utils.cpp_extension").setLevel("ERROR")  # or it warns where CUDA's tools are, but no GPU

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import nn
from torch.utils import cpp_extension
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

warnings.filterwarnings("ignore", message=".*out of date")  # the paper's tasks are v4


@dataclass
class Args:
    exp_name: str = os.path.basename(__file__)[: -len(".py")]
    """the name of this experiment"""
    seed: int = 0
    """seed of the experiment"""
    torch_deterministic: bool = True
    """if toggled, `torch.backends.cudnn.deterministic=True`"""
    cuda: bool = False
    """if toggled, update the networks on the GPU (networks this small are faster on a CPU)"""
    compile: bool = True
    """if toggled, compile the minibatch update as one graph"""
    track: bool = False
    """if toggled, track the run with Weights & Biases (offline with WANDB_MODE=offline)"""
    wandb_project_name: str = "klip-ppo"
    """the W&B project"""
    wandb_entity: str | None = None
    """the W&B entity (team)"""
    capture_video: bool = False
    """whether to record videos of the agent (in `videos/{run_name}`)"""
    save_model: bool = False
    """whether to save `agent.pt` in the run folder and evaluate it for 10 episodes"""
    run_name: str | None = None
    """the run's folder below `runs/`; `{env_id}__{exp_name}__{seed}__{unix time}` if not given"""

    env_id: str = "HalfCheetah-v4"
    """the id of the environment"""
    total_timesteps: int = 1_000_000
    """total environment steps, rounded down to whole rollouts"""
    learning_rate: float = 3e-4
    """the learning rate of Adam"""
    num_envs: int = 1
    """the number of environments stepped side by side"""
    num_steps: int = 2048
    """the number of steps in each environment per rollout"""
    anneal_lr: bool = True
    """whether to anneal the learning rate linearly to 0"""
    gamma: float = 0.99
    """the discount factor γ"""
    gae_lambda: float = 0.95
    """the λ of generalised advantage estimation"""
    num_minibatches: int = 32
    """the number of minibatches per epoch (a minibatch of 2^k samples makes the bit identity certain)"""
    update_epochs: int = 10
    """the number of epochs per rollout"""
    norm_adv: Literal["rollout", "minibatch", "none"] = "rollout"
    """over what to normalise advantages"""
    clip_coef: float = 0.2
    """ε, the half width of the band [1-ε, 1+ε]"""
    clip_vloss: bool = True
    """whether to clip the value loss, also at ε"""
    ent_coef: float = 0.0
    """the weight of the entropy bonus"""
    vf_coef: float = 0.5
    """the weight of the value loss"""
    max_grad_norm: float = 0.5
    """the maximum norm of the gradient"""
    target_kl: float | None = None
    """stop the epochs of a rollout once the mean approximate KL of one is above this"""


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,); Schulman et al. 2017, eq. 7."""
    ratio = (new_logprob - old_logprob).exp()
    clipped_ratio = ratio.clamp(1 - clip_coef, 1 + clip_coef)
    return torch.min(ratio * advantages, clipped_ratio * advantages)


class Agent(nn.Module):
    """Separate 64-64 tanh actor and critic; a diagonal Gaussian policy with a state-independent log std."""

    def __init__(self, obs_dim, action_dim):
        super().__init__()
        self.critic = mlp(obs_dim, 1, head_std=1.0)
        self.actor_mean = mlp(obs_dim, action_dim, head_std=0.01)
        self.actor_logstd = nn.Parameter(torch.zeros(action_dim))

    def forward(self, obs, actions):
        """obs (N, obs_dim), actions (N, action_dim) -> log π(a|s) (N,), entropy (N,), value (N,)."""
        mean, logstd = self.actor_mean(obs), self.actor_logstd
        logprob = -0.5 * ((actions - mean) * torch.exp(-logstd)) ** 2 - logstd - 0.5 * math.log(2 * math.pi)
        entropy = (logstd + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(obs))
        return logprob.sum(-1), entropy, self.critic(obs).squeeze(-1)


def mlp(inputs, outputs, head_std):
    """Two hidden layers of 64 tanh units, orthogonal weights of gain √2 (the head: head_std), zero biases."""
    layers = [nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)]
    for layer, gain in zip(layers[::2], (math.sqrt(2), math.sqrt(2), head_std)):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def numpy_policy(agent):
    """The policy as a function of obs (n, obs_dim) and noise (n, action_dim), in numpy: between two environment steps
    a call of torch costs ten times as much. Zero noise gives the most likely actions."""
    w1, b1, w2, b2, w3, b3 = [p.detach().cpu().numpy().T.copy() for p in agent.actor_mean.parameters()]
    std = agent.actor_logstd.detach().exp().cpu().numpy()
    return lambda obs, noise: np.tanh(np.tanh(obs @ w1 + b1) @ w2 + b2) @ w3 + b3 + std * noise


def fail(message, code=2):
    """Ends the program with one line on standard error."""
    print("error:", *message.split(), file=sys.stderr)
    sys.exit(code)


class DropInfo(gym.Wrapper):
    """Nothing here reads info, and SyncVectorEnv's copying of it is a tenth of the time of a step."""

    def step(self, action):
        return *self.env.step(action)[:4], {}


def make_env(args, video_folder=None):
    """One environment with vectors as observations; into video_folder, if given, go videos of some episodes."""
    env = gym.make(args.env_id, **({"render_mode": "rgb_array"} if video_folder else {}))
    if video_folder:
        env = gym.wrappers.RecordVideo(env, video_folder, disable_logger=True)
    return DropInfo(env if len(env.observation_space.shape) == 1 else gym.wrappers.FlattenObservation(env))


def make_envs(args, video_folder):
    """The environments, reset within the step that ends an episode; the first records videos if there is a folder."""
    if video_folder and sys.platform == "linux" and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        warnings.filterwarnings("ignore", module="glfw")
    try:
        env = gym.make(args.env_id, **({"render_mode": "rgb_array"} if video_folder else {}))
        if video_folder:
            env.reset()
            env.render()
    except Exception as error:  # noqa: BLE001 (every environment and renderer has errors of its own)
        sys.unraisablehook = lambda _: None  # and complains again when it is collected
        remedy = "; if it cannot render, set MUJOCO_GL to egl or leave --capture-video out" if video_folder else ""
        fail(f"--env-id {args.env_id}: {error or repr(error)}{remedy}")
    env.close()
    if not isinstance(env.observation_space, gym.spaces.Box) or len(env.observation_space.shape) > 2:
        fail(f"--env-id {args.env_id}: observations must be vectors (a Box); these are {env.observation_space}")
    if not isinstance(env.action_space, gym.spaces.Box):
        fail(f"--env-id {args.env_id}: actions must be a Box, not {env.action_space}; try ppo_*_cartpole.py")
    makers = [lambda i=i: make_env(args, None if i else video_folder) for i in range(args.num_envs)]
    return gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)


@dataclass
class RunningStats:
    """Mean and sum of squared deviations (m2) of all that was seen, pooled over the environments (Welford 1962)."""

    mean: np.ndarray
    m2: np.ndarray
    count: int = 0

    def update(self, x):
        """Takes in x (n, *shape of mean)."""
        self.count += len(x)
        delta = x - self.mean
        self.mean = self.mean + delta.sum(0) / self.count
        self.m2 = self.m2 + (delta * (x - self.mean)).sum(0)

    def normalise(self, x):
        """x (n, *shape of mean), in standard deviations from the mean, within ±10."""
        std = np.sqrt(np.maximum(self.m2 / self.count, 1e-8))
        return np.minimum(np.maximum((x - self.mean) / std, -10.0), 10.0)


def scale_rewards(stats, rewards, dones, discounted, gamma):
    """rewards (T, n), each over the standard deviation of the discounted return up to its step, within ±10.

    discounted (n,) carries each environment's discounted return, and stats what was seen of it, across rollouts.
    """
    history = np.empty_like(rewards)
    for t in range(len(rewards)):
        history[t] = discounted[:] = gamma * discounted + rewards[t]
        discounted[dones[t]] = 0.0
    # RunningStats.update after each step, unrolled into cumulative sums: in a loop it would take as long as the policy.
    delta, count = history - stats.mean, stats.count + rewards.shape[1] * np.arange(1, len(rewards) + 1)
    total, squares = delta.sum(1).cumsum(), (delta**2).sum(1).cumsum()
    m2 = stats.m2 + squares - total**2 / count
    stats.mean, stats.m2, stats.count = stats.mean + total[-1] / count[-1], m2[-1], int(count[-1])
    return np.clip(rewards / np.sqrt(np.maximum(m2 / count, 1e-8))[:, None], -10.0, 10.0)


def gae(rewards, values, next_values, terminations, dones, gamma, gae_lambda):
    """Generalised advantage estimation (Schulman et al. 2016); every array is (T, n), the result too.

    next_values holds the value of the state that a step led to: where an episode ended, of its final observation.
    It counts unless that state is terminal; the recursion stops at both kinds of end.
    """
    delta = rewards + gamma * next_values * ~terminations - values
    decay = gamma * gae_lambda * ~dones
    advantages, running = np.empty_like(delta), 0.0
    for t in reversed(range(len(rewards))):
        advantages[t] = running = delta[t] + decay[t] * running
    return advantages


def update(agent, adam, learning_rate, args, minibatch):
    """One step of Adam on one minibatch. Returns log w (N,) and the policy loss, value loss and entropy (3,)."""
    obs, actions, old_logprob, advantages, returns, old_values = minibatch
    new_logprob, entropy, values = agent(obs, actions)
    # In float64, because in float32 w Â = clip(w) Â also where w is one rounding step outside the band. On such a tie
    # min halves the gradient and the three forms part: a few samples in 10^9, and a run of 10^6 steps sees 10^7.
    objective = surrogate(new_logprob.double(), old_logprob.double(), advantages.double(), args.clip_coef)
    policy_loss = -objective.mean().float()
    value_error = (values - returns) ** 2
    if args.clip_vloss:
        clipped_values = old_values + (values - old_values).clamp(-args.clip_coef, args.clip_coef)
        value_error = torch.max(value_error, (clipped_values - returns) ** 2)
    value_loss = 0.5 * value_error.mean()
    loss = policy_loss - args.ent_coef * entropy.mean() + args.vf_coef * value_loss

    # Gradient clipping and Adam are written out so that they compile into the same graph as the loss: with
    # torch.optim.Adam beside it, an update takes a third longer.
    params = list(agent.parameters())
    grads = torch.autograd.grad(loss, params)
    with torch.no_grad():
        scale = (args.max_grad_norm / (torch.sqrt(sum((g**2).sum() for g in grads)) + 1e-6)).clamp(max=1.0)
        exp_avgs, exp_avg_sqs, step = adam
        step += 1
        step_size, correction = learning_rate / (1 - 0.9**step), torch.sqrt(1 - 0.999**step)
        for param, grad, exp_avg, exp_avg_sq in zip(params, grads, exp_avgs, exp_avg_sqs):
            grad = grad * scale
            exp_avg.lerp_(grad, 0.1)
            exp_avg_sq.mul_(0.999).addcmul_(grad, grad, value=0.001)
            param.sub_(step_size * exp_avg / (exp_avg_sq.sqrt() / correction + 1e-5))
    return (new_logprob - old_logprob).detach(), torch.stack([policy_loss, value_loss, entropy.mean()]).detach()


def compiled(update, agent, adam, learning_rate, args, *inputs):
    """update as one compiled graph, tried out on copies; update itself, with a line that says so, if that fails."""
    torch._dynamo.config.trace_autograd_ops = True
    cpp_extension.TORCH_LIB_PATH = shlex.quote(cpp_extension.TORCH_LIB_PATH)  # torch 2.13 forgets it: a path with spaces
    # Of what the graph depends on, only numbers (say, an annealed clip_coef) can change within a run: the other guards are
    # left out. With them, and with Python instead of C++ between the kernels, an update takes 1.4 times as long.
    options = {"cpp_wrapper": not args.cuda, "guard_filter_fn": lambda gs: [g.guard_type == "CONSTANT_MATCH" for g in gs]}
    graph, pressed = torch.compile(update, fullgraph=True, dynamic=False, options=options), []
    on_interrupt = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))  # the compiler may hang or abort at Ctrl-C
    try:
        graph(copy.deepcopy(agent), copy.deepcopy(adam), learning_rate, args, *inputs)
    except torch._dynamo.exc.TorchDynamoException as error:  # no C++ compiler, or say an .item() in the surrogate
        graph, args.compile = update, False
        if not pressed:
            print(f"--compile: no C++ compiler, or not one graph ({type(error).__name__}); going on without", file=sys.stderr)
    signal.signal(signal.SIGINT, on_interrupt)
    if pressed:
        raise KeyboardInterrupt
    return graph


def diagnostics(log_ratio, advantages, losses, clip_coef, num_minibatches):
    """Tags and values of an iteration; log_ratio and advantages (updates, N), losses (updates, 3), all float64.

    Losses and Schulman's KL estimators (k1, k3) are means over the last epoch; the rest is over all updates.
    """
    ratio, last_epoch = np.exp(log_ratio), slice(-num_minibatches, None)
    above, below = ratio > 1 + clip_coef, ratio < 1 - clip_coef
    kill = (above & (advantages > 0)) | (below & (advantages < 0))
    pass_ = (above & (advantages < 0)) | (below & (advantages > 0))
    percentiles = (1, 10, 50, 90, 99)
    beta = np.percentile(np.where(kill, -ratio * advantages, 0.0), percentiles)
    return {
        **dict(zip(("losses/policy_loss", "losses/value_loss", "losses/entropy"), losses[last_epoch].mean(0))),
        "losses/old_approx_kl": -log_ratio[last_epoch].mean(),
        "losses/approx_kl": (ratio - 1 - log_ratio)[last_epoch].mean(),
        "losses/clipfrac": (above | below).mean(),
        "partition/in": 1 - kill.mean() - pass_.mean(),
        "partition/kill": kill.mean(),
        "partition/pass": pass_.mean(),
        **{f"beta/p{p:02}": value for p, value in zip(percentiles, beta)},
    }


def check(args):
    """Exits with one line if an argument is out of range; returns the run's folder, which is not there yet."""
    batch_size = args.num_envs * args.num_steps
    positive = "learning_rate num_envs num_steps num_minibatches update_epochs max_grad_norm target_kl"
    for names, holds, remedy in (
        (positive, lambda x: 0 < x < math.inf, "positive and finite"),
        ("seed", lambda x: 0 <= x < 2**32, "at least 0 and below 2^32"),
        ("ent_coef vf_coef", lambda x: 0 <= x < math.inf, "at least 0 and finite"),
        ("gamma gae_lambda", lambda x: 0 <= x <= 1, "within [0, 1]"),
        ("clip_coef", lambda x: 0 < x < 1, "within (0, 1)"),
        ("total_timesteps", lambda x: x >= batch_size, f"at least num_envs * num_steps = {batch_size}, one rollout"),
        ("cuda", lambda x: not x or torch.cuda.is_available(), "left out where torch finds no GPU"),
    ):
        for name in names.split():
            value = getattr(args, name)
            if value is not None and not holds(value):
                fail(f"--{name.replace('_', '-')} must be {remedy}, not {value}")
    if batch_size % args.num_minibatches:
        fail(f"--num-minibatches must divide num_envs * num_steps = {batch_size}, as {args.num_minibatches} does not")
    run_name = f"{args.env_id}__{args.exp_name}__{args.seed}__{int(time.time())}"
    folder = Path("runs", run_name if args.run_name is None else args.run_name)
    if Path("runs").resolve() not in folder.resolve().parents:
        fail(f"--run-name must name a folder inside runs/, not {folder}")
    for there in (folder, Path("videos", folder.relative_to("runs"))) if args.capture_video else (folder,):
        if there.exists():
            fail(f"--run-name: {there} exists; choose another name, or move that folder away")
    disk = os.statvfs("runs" if Path("runs").exists() else ".")
    if disk.f_bavail == 0 < disk.f_blocks:
        fail(f"--run-name: no room for {folder}, the disk is full; make room or start in another folder")
    return folder


def write(path, content):
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def evaluate(path, episodes=10):
    """Undiscounted returns (episodes,) of a saved agent's most likely actions, its normalisation frozen."""
    checkpoint = torch.load(path, weights_only=True)
    args = Args(**checkpoint["args"])
    env = make_env(args)
    agent = Agent(env.observation_space.shape[0], math.prod(env.action_space.shape))
    agent.load_state_dict(checkpoint["agent"])
    policy, low, high = numpy_policy(agent), env.action_space.low, env.action_space.high
    stats = RunningStats(**{name: value.numpy() for name, value in checkpoint["obs_stats"].items()})
    returns = np.zeros(episodes)
    for episode in range(episodes):
        (obs, _), over = env.reset(seed=(args.seed + 1 + episode) % 2**32), (False, False)
        while not any(over):
            actions = policy(stats.normalise(obs[None]).astype(np.float32), 0.0)
            obs, reward, *over, _ = env.step(np.clip(actions.reshape(low.shape), low, high))
            returns[episode] += reward
    env.close()
    return returns


def train(args):
    start_time = time.time()
    folder = check(args)
    torch.set_num_threads(1)
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.deterministic = args.torch_deterministic
    rng = np.random.default_rng(args.seed)
    device = torch.device("cuda" if args.cuda else "cpu")
    envs = make_envs(args, Path("videos", folder.relative_to("runs")) if args.capture_video else None)
    low, high = envs.action_space.low, envs.action_space.high
    if args.track:
        import wandb

        where = {"project": args.wandb_project_name, "entity": args.wandb_entity, "name": str(folder.relative_to("runs"))}
        what = {"config": asdict(args), "sync_tensorboard": True, "save_code": True}
        try:
            wandb.init(**where, group=args.exp_name, job_type=args.env_id, **what)
        except wandb.Error as error:
            fail(f"--track: {error} (to track offline, set WANDB_MODE=offline)")
    folder.mkdir(parents=True)
    writer = SummaryWriter(folder)
    table = "\n".join(f"|{name}|{value}|" for name, value in asdict(args).items())
    writer.add_text("hyperparameters", f"|argument|value|\n|-|-|\n{table}")

    batch_size, num_actions = args.num_envs * args.num_steps, math.prod(envs.single_action_space.shape)
    num_iterations = args.total_timesteps // batch_size
    agent = Agent(envs.single_observation_space.shape[0], num_actions).to(device)
    exp_avgs, exp_avg_sqs = ([torch.zeros_like(param) for param in agent.parameters()] for _ in range(2))
    adam = (exp_avgs, exp_avg_sqs, torch.zeros((), dtype=torch.float64, device=device))
    learning_rate = torch.tensor(args.learning_rate, dtype=torch.float64, device=device)
    step_minibatch = update

    obs = np.zeros((args.num_steps, *envs.observation_space.shape), np.float32)
    actions = np.zeros((args.num_steps, args.num_envs, num_actions), np.float32)
    rewards = np.zeros((args.num_steps, args.num_envs))
    terminations, dones = np.zeros((2, args.num_steps, args.num_envs), bool)
    raw_obs, _ = envs.reset(seed=args.seed)
    obs_stats = RunningStats(np.zeros(obs.shape[2:]), np.zeros(obs.shape[2:]))
    obs_stats.update(raw_obs)
    next_obs = obs_stats.normalise(raw_obs)
    return_stats, discounted = RunningStats(np.zeros(()), np.zeros(())), np.zeros(args.num_envs)
    episode_return, episode_length = np.zeros((2, args.num_envs))
    recent_returns, latest = [], "no episode has ended"
    progress = tqdm(total=num_iterations * batch_size, unit=" steps", disable=not sys.stderr.isatty())

    for iteration in range(1, num_iterations + 1):
        global_step = iteration * batch_size
        if args.anneal_lr:
            learning_rate.fill_(args.learning_rate * (1 - (iteration - 1) / num_iterations))

        # Collect a rollout. Where an episode ends, raw_obs is the first observation of the next one already.
        policy, noise = numpy_policy(agent), rng.standard_normal(actions.shape, np.float32)
        final_at, final_obs, returns, lengths = [], [], [], []
        for t in range(args.num_steps):
            obs[t] = next_obs
            actions[t] = policy(obs[t], noise[t])
            clipped_actions = np.minimum(np.maximum(actions[t].reshape(low.shape), low), high)
            raw_obs, rewards[t], terminations[t], truncations, infos = envs.step(clipped_actions)
            dones[t] = terminations[t] | truncations
            episode_return += rewards[t]
            episode_length += 1
            if "final_obs" in infos:
                for i in np.flatnonzero(dones[t]):
                    final_at.append((t, i))
                    final_obs.append(obs_stats.normalise(infos["final_obs"][i][None]))
                    returns.append(episode_return[i])
                    lengths.append(episode_length[i])
                episode_return[dones[t]] = episode_length[dones[t]] = 0
            obs_stats.update(raw_obs)
            next_obs = obs_stats.normalise(raw_obs)

        # Values, log-probabilities, advantages and returns, each in one batch.
        batch_obs = torch.as_tensor(obs.reshape(batch_size, -1), device=device)
        batch_actions = torch.as_tensor(actions.reshape(batch_size, -1), device=device)
        ahead = torch.as_tensor(np.concatenate([next_obs, *final_obs]), dtype=torch.float32, device=device)
        with torch.no_grad():
            logprobs, _, batch_values = agent(batch_obs, batch_actions)
            ahead_values = agent.critic(ahead).squeeze(-1).cpu().numpy()
        values = batch_values.cpu().numpy().reshape(rewards.shape)
        next_values = np.concatenate([values[1:], ahead_values[None, : args.num_envs]])
        for at, value in zip(final_at, ahead_values[args.num_envs :]):
            next_values[at] = value
        scaled = scale_rewards(return_stats, rewards, dones, discounted, args.gamma)
        advantages = gae(scaled, values, next_values, terminations, dones, args.gamma, args.gae_lambda)
        batch_returns = torch.as_tensor((advantages + values).reshape(-1), dtype=torch.float32, device=device)
        if args.norm_adv == "rollout":
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        batch_advantages = torch.as_tensor(advantages.reshape(-1), dtype=torch.float32, device=device)
        batch = (batch_obs, batch_actions, logprobs, batch_advantages, batch_returns, batch_values)

        # Update the networks.
        log_ratios, used_advantages, losses = [], [], []
        for _ in range(args.update_epochs):
            order = torch.randperm(batch_size).to(device)
            shuffled = [x[order].chunk(args.num_minibatches) for x in batch]
            if args.norm_adv == "minibatch":
                shuffled[3] = [(x - x.mean()) / (x.std(correction=0) + 1e-8) for x in shuffled[3]]
            for minibatch in zip(*shuffled):
                if args.compile and iteration == 1 and not log_ratios:
                    step_minibatch = compiled(update, agent, adam, learning_rate, args, minibatch)
                log_ratio, loss = step_minibatch(agent, adam, learning_rate, args, minibatch)
                log_ratios.append(log_ratio)
                losses.append(loss)
            used_advantages += shuffled[3]
            if args.target_kl is not None:
                log_ratio = torch.cat(log_ratios[-args.num_minibatches :])
                if (log_ratio.exp() - 1 - log_ratio).mean() > args.target_kl:
                    break

        # Diagnose and log.
        record = [torch.stack(x).double().cpu().numpy() for x in (log_ratios, used_advantages, losses)]
        if not (np.isfinite(record[2]).all() and all(param.isfinite().all() for param in agent.parameters())):
            fail(f"a loss or a parameter is not finite after step {global_step}: try a smaller --learning-rate", code=1)
        tags = diagnostics(*record, args.clip_coef, args.num_minibatches)
        residual = batch_returns - batch_values
        tags["losses/explained_variance"] = (1 - residual.var() / batch_returns.var()).item()
        tags["charts/learning_rate"] = learning_rate.item()
        tags["charts/SPS"] = global_step / (time.time() - start_time)
        if returns:
            tags["charts/episodic_return"], tags["charts/episodic_length"] = np.mean(returns), np.mean(lengths)
            latest = f"return {tags['charts/episodic_return']:.1f}"
            if global_step > 0.9 * num_iterations * batch_size:
                recent_returns.append(tags["charts/episodic_return"])
        for tag, value in tags.items():
            writer.add_scalar(tag, value, global_step)
        progress.set_postfix_str(latest, refresh=False)
        progress.update(batch_size)
        if progress.disable and iteration * 10 // num_iterations > (iteration - 1) * 10 // num_iterations:
            print(f"step {global_step}, {tags['charts/SPS']:.0f} steps/s, {latest}", flush=True)
    progress.close()
    envs.close()

    # Save, evaluate, close. result.json comes last: where it is, the run is complete.
    wall_time = time.time() - start_time
    parameters = b"".join(param.detach().cpu().numpy().tobytes() for _, param in agent.named_parameters())
    result = {name: getattr(args, name) for name in ("env_id", "exp_name", "seed")} | {
        "args": asdict(args),
        "global_step": global_step,
        "final_return": float(np.mean(recent_returns)) if recent_returns else None,
        "wall_time_s": wall_time,
        "sps": global_step / wall_time,
        "params_sha256": hashlib.sha256(parameters).hexdigest(),
        "versions": {name: version(name) for name in ("torch", "gymnasium", "mujoco", "numpy")},
    }
    if args.save_model:
        stats = {name: torch.as_tensor(value) for name, value in asdict(obs_stats).items()}
        checkpoint = io.BytesIO()
        torch.save({"agent": agent.cpu().state_dict(), "obs_stats": stats, "args": asdict(args)}, checkpoint)
        write(folder / "agent.pt", checkpoint.getvalue())
        result["eval_returns"] = evaluate(folder / "agent.pt").tolist()
        for episode, value in enumerate(result["eval_returns"]):
            writer.add_scalar("eval/episodic_return", value, episode)
    writer.close()
    if args.track:
        wandb.summary.update(result)
        wandb.finish()
    write(folder / "result.json", json.dumps(result, indent=2).encode())
    print(f"{folder}: final return {result['final_return']}, params_sha256 {result['params_sha256']}")


if __name__ == "__main__":
    # TensorBoard's thread must not print a traceback beside our line about a full disk.
    threading.excepthook = lambda hook: isinstance(hook.exc_value, OSError) or threading.__excepthook__(hook)
    try:
        train(tyro.cli(Args))
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except OSError as error:
        fail(f"{error}: if the disk is full or read-only, make room or start in another folder")
