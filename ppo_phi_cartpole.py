"""PPO-Clip, the Φ form, for discrete actions, in the manner of CleanRL (Huang et al. 2022).

Maximises, per sample, with the ratio w = π_new(a|s) / π_old(a|s) and the advantage Â,

    w Â - Φ,   Φ = (w - (1+ε)) Â  if w > 1+ε, Â > 0;   (w - (1-ε)) Â  if w < 1-ε, Â < 0;   0 elsewhere

Theorem 2 (Colletti & Holzinger 2026, arXiv 2606.23932): it equals PPO-Clip's objective, min(w Â, clip(w) Â). With one
seed, ppo_clip, ppo_phi and ppo_klip end with the same parameters, bit for bit (params_sha256).

    python ppo_phi_cartpole.py --env-id CartPole-v1 --seed 0
    diff ppo_clip_cartpole.py ppo_phi_cartpole.py
"""

import ast
import copy
import hashlib
import json
import math
import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

os.environ["OMP_NUM_THREADS"] = "1"  # networks this small are slower on more threads; read when torch is imported

import gymnasium as gym
import numpy as np
import torch
import tyro
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

warnings.filterwarnings("ignore", message=".*out of date")  # the paper's tasks are v4


@dataclass(config={"allow_inf_nan": False})
class Args:
    exp_name: str = Path(__file__).stem  # the name of this experiment
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # seed of the experiment
    torch_deterministic: bool = True  # CleanRL's flag; without effect, nothing here has a faster random variant
    cuda: bool = False  # update the networks on the GPU (networks this small are faster on a CPU)
    compile: bool = False  # compile the minibatch update as one graph (pays in runs of minutes)
    track: bool = False  # track the run with Weights & Biases (offline with WANDB_MODE=offline)
    wandb_project_name: str = "klip-ppo"  # the W&B project
    wandb_entity: str | None = None  # the W&B entity (team)
    capture_video: bool = False  # record videos of the agent (in `videos/{run_name}`)
    save_model: bool = False  # save `agent.pt` in the run's folder and evaluate it for 10 episodes
    run_name: str | None = None  # folder in `runs/`; `{env_id}__{exp_name}__{seed}__{unix time}` if not given

    env_id: str = "CartPole-v1"  # the id of the environment
    total_timesteps: PositiveInt = 100_000  # total environment steps, rounded down to whole rollouts
    learning_rate: PositiveFloat = 3e-4  # the learning rate of Adam
    num_envs: PositiveInt = 4  # the number of environments stepped side by side
    num_steps: PositiveInt = 128  # the number of steps in each environment per rollout
    anneal_lr: bool = True  # anneal the learning rate linearly to 0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.99  # the discount factor γ
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95  # the λ of generalised advantage estimation
    num_minibatches: PositiveInt = 8  # minibatches per epoch (2^k samples in each make the bit identity certain)
    update_epochs: PositiveInt = 10  # the number of epochs per rollout
    norm_adv: Literal["rollout", "minibatch", "none"] = "rollout"  # over what to normalise advantages
    clip_coef: Annotated[float, Field(gt=0, lt=1)] = 0.2  # ε, the half width of the band [1-ε, 1+ε]
    clip_vloss: bool = True  # clip the value loss, also at ε
    ent_coef: NonNegativeFloat = 0.0  # the weight of the entropy bonus
    vf_coef: NonNegativeFloat = 0.5  # the weight of the value loss
    max_grad_norm: PositiveFloat = 0.5  # the maximum norm of the gradient
    target_kl: PositiveFloat | None = None  # stop a rollout's epochs once an epoch's mean approximate KL is above this

    def __post_init__(self):
        batch_size = self.num_envs * self.num_steps
        if batch_size % self.num_minibatches:
            raise ValueError(f"--num-minibatches must divide num_envs * num_steps = {batch_size}")
        if self.total_timesteps < batch_size:
            raise ValueError(f"--total-timesteps must be at least one rollout, num_envs * num_steps = {batch_size}")


def surrogate(new_logprob, old_logprob, advantages, clip_coef):
    """Per-sample objective, to be maximised. All tensors (N,), ε a scalar; Theorem 2."""
    ratio = (new_logprob - old_logprob).exp()
    above = torch.where((ratio > 1 + clip_coef) & (advantages > 0), ratio - (1 + clip_coef), 0.0)
    below = torch.where((ratio < 1 - clip_coef) & (advantages < 0), ratio - (1 - clip_coef), 0.0)
    phi = (above + below) * advantages
    return ratio * advantages - phi


class Agent(nn.Module):
    """Separate 64-64 tanh actor and critic; a categorical policy."""

    def __init__(self, obs_dim, num_actions):
        super().__init__()
        self.critic = mlp(obs_dim, 1, head_std=1.0)
        self.actor = mlp(obs_dim, num_actions, head_std=0.01)

    def forward(self, obs, actions):
        """obs (N, obs_dim), actions (N,) -> log π(a|s) (N,), entropy (N,), value (N,)."""
        logprobs = self.actor(obs).log_softmax(-1)
        logprob = logprobs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        return logprob, entropy, self.critic(obs).squeeze(-1)


def mlp(inputs, outputs, head_std):
    """Two hidden layers of 64 tanh units, orthogonal weights of gain √2 (the head: head_std), zero biases."""
    layers = [nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)]
    for layer, gain in zip(layers[::2], (math.sqrt(2), math.sqrt(2), head_std)):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def numpy_policy(agent):
    """The policy of obs (n, obs_dim) and Gumbel noise (n, num_actions; 0: most likely actions) in numpy: faster."""
    w1, b1, w2, b2, w3, b3 = [p.detach().cpu().numpy().T.copy() for p in agent.actor.parameters()]
    return lambda obs, noise: (np.tanh(np.tanh(obs @ w1 + b1) @ w2 + b2) @ w3 + b3 + noise).argmax(-1)


def fail(message):
    """Ends the program with a line on standard error and exit code 2: wrong arguments."""
    print("error:", message, file=sys.stderr)
    sys.exit(2)


class DropInfo(gym.Wrapper):
    """Nothing here reads info, and SyncVectorEnv's copying of it is a tenth of the time of a step."""

    def step(self, action):
        return *self.env.step(action)[:4], {}


def make_env(env_id, video_folder=None):
    """One environment with vectors as observations; into video_folder, if given, go videos of some episodes."""
    try:
        env = gym.make(env_id, **({"render_mode": "rgb_array"} if video_folder else {}))
    except (gym.error.Error, ImportError) as error:
        fail(f"--env-id {env_id}: {error}")
    if not isinstance(env.observation_space, gym.spaces.Box):
        fail(f"--env-id {env_id}: observations must be a Box, not {env.observation_space}")
    if not isinstance(env.action_space, gym.spaces.Discrete):
        fail(f"--env-id {env_id}: actions must be Discrete, not {env.action_space}; try ppo_*_continuous.py")
    if video_folder:
        env.reset()
        try:
            env.render()
        except Exception as error:
            fail(f"--capture-video: cannot render ({error!r}); set MUJOCO_GL=egl, or leave it out")
        env = gym.wrappers.RecordVideo(env, video_folder, disable_logger=True)
    return DropInfo(env if len(env.observation_space.shape) == 1 else gym.wrappers.FlattenObservation(env))


def gae(rewards, values, next_values, terminations, dones, gamma, gae_lambda):
    """Generalised advantage estimation (Schulman et al. 2016); all (T, n). next_values are those of the states that the
    steps led to: they count unless that state is terminal; the recursion stops at every end of an episode."""
    delta = rewards + gamma * next_values * ~terminations - values
    decay = gamma * gae_lambda * ~dones
    advantages, running = np.empty_like(delta), 0.0
    for t in reversed(range(len(rewards))):
        advantages[t] = running = delta[t] + decay[t] * running
    return advantages


def update(args, agent, adam, learning_rate, clip_coef, minibatch):
    """One step of Adam on one minibatch. Returns log w (N,) and the policy loss, value loss and entropy (3,)."""
    obs, actions, old_logprob, advantages, returns, old_values = minibatch
    new_logprob, entropy, values = agent(obs, actions)
    # In float64, because in float32 w Â = clip(w) Â also where w is one rounding step outside the band. On such a tie
    # min halves the gradient and the three forms part: a few samples in 10^9, and a run of 10^6 steps sees 10^7.
    objective = surrogate(new_logprob.double(), old_logprob.double(), advantages.double(), clip_coef)
    policy_loss = -objective.mean().float()
    value_error = (values - returns) ** 2
    if args.clip_vloss:
        clipped_values = old_values + (values - old_values).clamp(-clip_coef, clip_coef)
        value_error = torch.max(value_error, (clipped_values - returns) ** 2)
    value_loss = 0.5 * value_error.mean()
    loss = policy_loss - args.ent_coef * entropy.mean() + args.vf_coef * value_loss
    # Clipping and Adam in the same graph as the loss: with torch.optim.Adam beside it 1.6 times as long.
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


def compiled(args, *inputs):
    """update as one graph, tried out on copies of its inputs; update itself, and a line that says so, if that fails."""
    torch._dynamo.reset()  # or a second train() in this process would get the first one's graph, whatever its surrogate
    torch._dynamo.config.trace_autograd_ops = True
    # Guards on numbers only (what changes within a run is a tensor), C++ between the kernels: else 1.3 times as long.
    guards = {"guard_filter_fn": lambda guards: [guard.guard_type == "CONSTANT_MATCH" for guard in guards]}
    graph = torch.compile(update, fullgraph=True, dynamic=False, options={"cpp_wrapper": not args.cuda, **guards})
    try:
        graph(args, *copy.deepcopy(inputs))
        return graph
    except torch._dynamo.exc.TorchDynamoException as error:  # no C++ compiler, or say an .item() in the surrogate
        print(f"--compile is off: no C++ compiler, or not one graph ({type(error).__name__})", file=sys.stderr)
        return update


def train(args):
    """Trains one agent, from the first rollout to result.json."""
    start_time, script_hash = time.time(), script_sha256(args)  # of the file as it is now: it may be edited meanwhile
    if args.cuda and not torch.cuda.is_available():
        fail("--cuda: torch finds no GPU here; leave it out")
    run_name = args.run_name or f"{args.env_id}__{args.exp_name}__{args.seed}__{int(start_time)}"
    folder, video_folder = Path("runs", run_name), Path("videos", run_name) if args.capture_video else None
    if folder.exists() or (video_folder and any(video_folder.glob("*"))):
        fail(f"--run-name: {folder} or its videos exist; choose another name, or move them away")
    makers = [lambda i=i: make_env(args.env_id, None if i else video_folder) for i in range(args.num_envs)]
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    if args.track:
        import wandb

        run = {"project": args.wandb_project_name, "entity": args.wandb_entity, "name": run_name, "config": vars(args)}
        try:
            wandb.init(**run, group=args.exp_name, job_type=args.env_id, sync_tensorboard=True, save_code=True)
        except wandb.Error as error:
            fail(f"--track: {error} (to track offline, set WANDB_MODE=offline)")
    writer = SummaryWriter(folder)
    writer.add_text("hyperparameters", "|arg|value|\n|-|-|\n" + "\n".join(f"|{k}|{v}|" for k, v in vars(args).items()))

    # Independent of each other and of default_rng(seed), which Gymnasium gives the first environment.
    noise_rng, order_rng, _ = map(np.random.default_rng, np.random.SeedSequence(args.seed).spawn(3))  # _: evaluate's
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if args.cuda else "cpu")
    rollout_shape, batch_size = (args.num_steps, args.num_envs), args.num_steps * args.num_envs
    obs_dim, num_actions = envs.single_observation_space.shape[0], envs.single_action_space.n
    num_iterations = args.total_timesteps // batch_size
    agent = Agent(obs_dim, num_actions).to(device)
    exp_avgs, exp_avg_sqs = ([torch.zeros_like(param) for param in agent.parameters()] for _ in range(2))
    adam = (exp_avgs, exp_avg_sqs, torch.zeros((), dtype=torch.float64, device=device))
    # Tensors, so that what is annealed within a run does not compile the update anew.
    learning_rate = torch.tensor(args.learning_rate, dtype=torch.float64, device=device)
    clip_coef = torch.tensor(args.clip_coef, dtype=torch.float64, device=device)

    obs, next_obs = np.zeros((2, *rollout_shape, obs_dim), np.float32)
    actions = np.zeros(rollout_shape, np.int64)
    rewards, (terminations, dones) = np.zeros(rollout_shape), np.zeros((2, *rollout_shape), bool)
    episode_return, episode_length = np.zeros((2, args.num_envs))
    current_obs, _ = envs.reset(seed=args.seed)
    recent_returns, latest, diverged = [], "no episode has ended", None
    progress = tqdm(total=num_iterations * batch_size, unit=" steps", disable=not sys.stderr.isatty())

    for iteration in range(1, num_iterations + 1):
        global_step = iteration * batch_size
        if args.anneal_lr:
            learning_rate.fill_(args.learning_rate * (1 - (iteration - 1) / num_iterations))

        # Collect a rollout. Where an episode ends, current_obs is the first observation of the next one already.
        policy, noise = numpy_policy(agent), noise_rng.gumbel(size=(*rollout_shape, num_actions))
        episodes = []
        for t in range(args.num_steps):
            obs[t] = current_obs
            actions[t] = policy(obs[t], noise[t])
            env_actions = envs.single_action_space.start + actions[t]
            current_obs, rewards[t], terminations[t], truncations, infos = envs.step(env_actions)
            dones[t] = terminations[t] | truncations
            next_obs[t] = current_obs
            episode_return += rewards[t]
            episode_length += 1
            if "final_obs" in infos:
                next_obs[t, dones[t]] = np.stack(infos["final_obs"][dones[t]])
                episodes.extend(zip(episode_return[dones[t]], episode_length[dones[t]]))
                episode_return[dones[t]] = episode_length[dones[t]] = 0
        finite = np.isfinite(rewards).all(-1) & np.isfinite([obs, next_obs]).all((0, -2, -1))
        if not finite.all():
            diverged = "a reward or an observation of the environment"
            global_step += (int(finite.argmin()) + 1 - args.num_steps) * args.num_envs
            break

        # Values, log-probabilities, advantages and returns, each in one batch.
        batch_obs, batch_actions = (torch.as_tensor(x, device=device).flatten(0, 1) for x in (obs, actions))
        with torch.no_grad():
            logprobs, _, batch_values = agent(batch_obs, batch_actions)
            next_values = agent.critic(torch.as_tensor(next_obs, device=device)).squeeze(-1).cpu().numpy()
        values = batch_values.cpu().numpy().reshape(rollout_shape)
        advantages = gae(rewards, values, next_values, terminations, dones, args.gamma, args.gae_lambda)
        returns = advantages + values
        if args.norm_adv == "rollout":
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        targets = torch.as_tensor(np.stack([advantages, returns]), dtype=torch.float32, device=device).flatten(1)
        batch = (batch_obs, batch_actions, logprobs, *targets, batch_values)

        # Update the networks.
        if iteration == 1:
            minibatch = [x[: batch_size // args.num_minibatches] for x in batch]
            step = compiled(args, agent, adam, learning_rate, clip_coef, minibatch) if args.compile else update
            args.compile = step is not update
        outputs, used_advantages = [], []
        for _ in range(args.update_epochs):
            order = torch.as_tensor(order_rng.permutation(batch_size), device=device)
            shuffled = [x[order].chunk(args.num_minibatches) for x in batch]  # 3: the advantages
            if args.norm_adv == "minibatch":
                shuffled[3] = [(x - x.mean()) / (x.std(correction=0) + 1e-8) for x in shuffled[3]]
            for minibatch in zip(*shuffled):
                outputs.append(step(args, agent, adam, learning_rate, clip_coef, minibatch))
            used_advantages += shuffled[3]
            log_ratio = torch.cat([log_ratio for log_ratio, _ in outputs[-args.num_minibatches :]])
            if args.target_kl is not None and (log_ratio.exp() - 1 - log_ratio).mean() > args.target_kl:
                break
        record = [torch.stack(x).double().cpu().numpy() for x in (*zip(*outputs), used_advantages)]
        if not (np.isfinite(record[1]).all() and all(param.isfinite().all() for param in agent.parameters())):
            diverged = "a loss or a parameter"
            break

        # Diagnose and log.
        tags = diagnostics(*record, clip_coef.item(), args.num_minibatches)
        tags["losses/explained_variance"] = 1 - (returns - values).var() / max(returns.var(), 1e-12)
        tags |= {"charts/learning_rate": learning_rate.item(), "charts/SPS": global_step / (time.time() - start_time)}
        if episodes:
            tags["charts/episodic_return"], tags["charts/episodic_length"] = np.mean(episodes, 0)
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

    # Save, evaluate, close. result.json comes last: if it exists, the run is complete.
    wall_time = time.time() - start_time
    parameters = b"".join(param.detach().cpu().numpy().tobytes() for _, param in agent.named_parameters())
    result = {name: getattr(args, name) for name in ("env_id", "exp_name", "seed")} | {
        "args": vars(args),
        "global_step": global_step,
        "final_return": float(np.mean(recent_returns)) if recent_returns and not diverged else None,
        "diverged_at": global_step if diverged else None,
        "wall_time_s": wall_time,
        "sps": global_step / wall_time,
        "params_sha256": hashlib.sha256(parameters).hexdigest(),
        "script_sha256": script_hash,
        "versions": {"python": sys.version[:4]} | {n: version(n) for n in ("torch", "gymnasium", "mujoco", "numpy")},
    }
    if args.save_model and not diverged:
        torch.save({"agent": agent.cpu().state_dict(), "args": vars(args)}, folder / "agent.pt")
        result["eval_returns"] = evaluate(folder / "agent.pt").tolist()
        for episode, value in enumerate(result["eval_returns"]):
            writer.add_scalar("eval/episodic_return", value, episode)
    writer.close()
    if args.track:
        wandb.summary.update(result)
    (folder / "result.json.partial").write_text(json.dumps(result, indent=2))
    os.replace(folder / "result.json.partial", folder / "result.json")
    if diverged:
        sys.exit(f"error: {diverged} is not finite at step {global_step}")
    print(f"{folder}: final return {result['final_return']}, params_sha256 {result['params_sha256']}")


def diagnostics(log_ratio, losses, advantages, clip_coef, num_minibatches):
    """An iteration's tags from log w, Â (updates, N) and losses (updates, 3); losses and KL are of its last epoch."""
    ratio, last_epoch = np.exp(log_ratio), slice(-num_minibatches, None)
    above, below, good, bad = ratio > 1 + clip_coef, ratio < 1 - clip_coef, advantages > 0, advantages < 0
    sets = {"kill": (above & good) | (below & bad), "pass": (above & bad) | (below & good)}
    sets["in"] = ~(sets["kill"] | sets["pass"])
    beta = np.where(sets["kill"], -ratio * advantages, 0.0)
    return {
        **dict(zip(("losses/policy_loss", "losses/value_loss", "losses/entropy"), losses[last_epoch].mean(0))),
        "losses/old_approx_kl": -log_ratio[last_epoch].mean(),
        "losses/approx_kl": (ratio - 1 - log_ratio)[last_epoch].mean(),
        "losses/clipfrac": (above | below).mean(),
        **{f"partition/{name}": members.mean() for name, members in sets.items()},
        **{f"beta/p{p:02}": np.percentile(beta, p) for p in (1, 10, 50, 90, 99)},
    }


def script_sha256(args):
    """SHA-256 of the syntax tree of this file, and of the file that defines args if that is another one (in betas/)."""
    files = dict.fromkeys(Path(file).resolve() for file in (__file__, sys.modules[type(args).__module__].__file__))
    return hashlib.sha256("\n".join(ast.dump(ast.parse(file.read_text())) for file in files).encode()).hexdigest()


def evaluate(path, episodes=10):
    """Undiscounted returns (episodes,) of a saved agent's most likely actions."""
    checkpoint = torch.load(path, weights_only=True)
    env = make_env(checkpoint["args"]["env_id"])
    agent = Agent(env.observation_space.shape[0], env.action_space.n)
    agent.load_state_dict(checkpoint["agent"])
    policy, returns = numpy_policy(agent), np.zeros(episodes)
    env.reset(seed=int(np.random.SeedSequence(checkpoint["args"]["seed"]).spawn(3)[2].generate_state(1)[0]))
    for episode in range(episodes):
        (obs, _), over = env.reset(), (False, False)
        while not any(over):
            actions = policy(obs[None].astype(np.float32), 0.0)
            obs, reward, *over, _ = env.step(env.action_space.start + actions[0])
            returns[episode] += reward
    return returns


if __name__ == "__main__":
    train(tyro.cli(Args))
