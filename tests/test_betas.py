"""betas/: each file's gradient against the published objective, written out here as its paper has it; its runs; and
what is said to one who writes a file."""

import builtins
import inspect
import math
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, SHORT, Run, complaints, environment, load, run_in_turn

import ppo_klip_cartpole
import ppo_klip_continuous
from betas import loop

NAMES = (
    *("clip_higher", "dual_clip", "rollback", "spo", "sapo", "cispo", "soft"),
    *("ano", "dpo", "bpo", "r2vpo", "dppo", "vespo", "aband", "none"),
)
BETAS = ROOT / "betas"
MODULES = {name: loop.load(BETAS / f"{name}.py") for name in NAMES}
SURROGATES = {name: module.surrogate for name, module in MODULES.items()}
README = (BETAS / "README.md").read_text(encoding="utf-8")


def own(name):
    """A file's own arguments and their defaults."""
    parameters, _ = loop.parameters_of(SURROGATES[name])
    return {key: parameter.default for key, parameter in parameters.items()}


# The published objectives of (w, Â, log π_new), ε and the methods' own constants.


def ppo_clip(w, advantages, low, high):
    return torch.min(w * advantages, torch.clamp(w, 1 - low, 1 + high) * advantages)


def clip_higher(w, advantages, _, eps_low, eps_high=0.28):
    return ppo_clip(w, advantages, eps_low, eps_high)


def dual_clip(w, advantages, _, eps, c=3.0):
    clipped = ppo_clip(w, advantages, eps, eps)
    return torch.where(advantages < 0, torch.max(clipped, c * advantages), clipped)


def rollback(w, advantages, _, eps, alpha=0.3):
    line = torch.where(w <= 1 - eps, -alpha * w + (1 + alpha) * (1 - eps), w)
    line = torch.where(w >= 1 + eps, -alpha * w + (1 + alpha) * (1 + eps), line)
    return torch.min(w * advantages, line * advantages)


def spo(w, advantages, _, eps):
    return w * advantages - advantages.abs() / (2 * eps) * (w - 1) ** 2


def sapo(w, advantages, _, eps, tau_pos=1.0, tau_neg=1.05):
    def f(tau):
        return torch.sigmoid(tau * (w - 1)) * 4 / tau

    return torch.where(advantages > 0, f(tau_pos), f(tau_neg)) * advantages


def cispo(w, advantages, new_logprob, eps_high, eps_low=1.0):
    return torch.clamp(w, 1 - eps_low, 1 + eps_high).detach() * advantages * new_logprob


def ano(w, advantages, _, eps):
    def f(w):
        """The antiderivative of the published f'."""
        x = (w - 1 - eps) * math.log(2) / eps
        return eps / math.log(2) * 45 / 16 * (-0.5 * torch.logaddexp(-2 * x, torch.zeros_like(x)) - 2 * x.sigmoid())

    return torch.where(advantages >= 0, f(w), 2 - f(2 - w)) * advantages


def dpo(w, advantages, _, eps, alpha=2.0, eta=0.6):
    u = (w - 1) * advantages
    v = w.log() * advantages
    drift = torch.where(advantages >= 0, u - alpha * (u / alpha).tanh(), v - eta * (v / eta).tanh())
    return w * advantages - drift.relu()


def bpo(w, advantages, _, eps, lam=0.001):
    target = 1 - eps + 2 * eps * torch.sigmoid(advantages / lam)
    return -advantages.abs() * (w - target).abs()


def r2vpo(w, advantages, _, eps, lam=2.5):
    return w * advantages - lam * (w - 1) ** 2


def dppo(w, advantages, new_logprob, delta):
    difference = (new_logprob.exp() - new_logprob.exp() / w).detach()
    masked = torch.where(advantages > 0, difference > delta, difference < -delta)
    return torch.where(masked, 0.0, w * advantages)


def vespo(w, advantages, new_logprob, _, k_pos=2.0, lam_pos=3.0, k_neg=3.0, lam_neg=2.0):
    def phi(k, lam):
        return (lam + k * w.log() - lam * w).exp().detach()

    return torch.where(advantages >= 0, phi(k_pos, lam_pos), phi(k_neg, lam_neg)) * advantages * new_logprob


def aband(w, advantages, _, eps):
    half_width = eps * advantages.abs().clamp(0.5, 2.0)
    return ppo_clip(w, advantages, half_width, half_width)


def none(w, advantages, _, eps):
    return w * advantages


METHODS = (clip_higher, dual_clip, rollback, spo, sapo, cispo, ano, dpo, bpo, r2vpo, dppo, vespo, aband, none)
PUBLISHED = {method.__name__: method for method in METHODS}


def softmin(w, advantages, _, eps, width):
    """The log-sum-exp minimum of the two branches over |Â|, times |Â|, so that its gradient far inside is w Â."""
    sign = advantages.sign()
    branches = torch.stack([w * sign, torch.clamp(w, 1 - eps, 1 + eps) * sign])
    return advantages.abs() * -width * torch.logsumexp(-branches / width, 0)


def gradients(objective, log_ratio, advantages, clip_coef, old_logprob=0.0, **arguments):
    """An objective's derivative in log π_new, and w, where log π_old is old_logprob; in numpy."""
    old = torch.full((len(log_ratio),), old_logprob, dtype=torch.float64)
    new = (torch.as_tensor(log_ratio, dtype=torch.float64) + old).requires_grad_()
    advantages = torch.as_tensor(advantages, dtype=torch.float64)
    if objective in SURROGATES:
        values = SURROGATES[objective](new, old, advantages, clip_coef, **arguments)
    else:
        values = objective((new - old).exp(), advantages, new, clip_coef, **arguments)
    assert values.shape == new.shape
    assert values.dtype == torch.float64
    return torch.autograd.grad(values.sum(), new)[0].numpy(), (new - old).detach().exp().numpy()


RNG = np.random.default_rng(0)
FAR = np.repeat([-300.0, -30.0, 30.0, 300.0], 5)
LOG_RATIO = np.concatenate([RNG.normal(0, 0.5, 4000), RNG.uniform(-3, 3, 1000), FAR])
ADVANTAGES = np.concatenate([RNG.normal(0, 2, 5000), np.tile([-1e3, -0.5, 0.0, 0.5, 1e3], 4)])
OTHER = {
    **{"eps_low": 0.13, "eps_high": 0.6, "c": 1.7, "alpha": 0.9, "eta": 1.9},
    **{"tau_pos": 3.0, "tau_neg": 0.4, "lam": 0.7, "k_pos": 1.5, "lam_pos": 0.8, "k_neg": 2.5, "lam_neg": 4.0},
}


def check_close(ours, expected, w):
    """Up to the rounding of w Â + β_t, whose largest term grows with the squares of w and Â."""
    assert (np.abs(ours - expected) <= 1e-11 * (1 + w) ** 2 * (1 + np.abs(ADVANTAGES)) ** 2).all()


@pytest.mark.parametrize("arguments", [{}, OTHER], ids=["defaults", "other arguments"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_gradient_is_the_published_one(name, arguments):
    arguments = {key: value for key, value in arguments.items() if key in own(name)}
    for eps, old_logprob in ((0.2, 0.0), (0.2, -7.5), (0.6, 4.25)):
        ours, w = gradients(name, LOG_RATIO, ADVANTAGES, eps, old_logprob, **arguments)
        published, _ = gradients(PUBLISHED[name], LOG_RATIO, ADVANTAGES, eps, old_logprob, **arguments)
        check_close(ours, published, w)
        if name != "r2vpo":  # whose pull does not depend on Â
            assert (ours[ADVANTAGES == 0] == 0).all()


@pytest.mark.parametrize("width", [0.001, 0.1, 30.0])
@pytest.mark.parametrize("shape", ["ramp", "sigmoid", "softmin"])
def test_a_soft_gate_is_its_definition(shape, width):
    """How much of the clip's coefficient there is, from d, how far w lies beyond the edge on the side of I_kill."""
    ours, w = gradients("soft", LOG_RATIO, ADVANTAGES, 0.2, shape=shape, width=width)
    if shape == "softmin":
        expected, _ = gradients(softmin, LOG_RATIO, ADVANTAGES, 0.2, width=width)
    else:
        d = np.where(ADVANTAGES > 0, w - 1.2, 0.8 - w)
        gate = np.clip(d / width, 0, 1) if shape == "ramp" else 0.5 * (1 + np.tanh(d / width / 2))
        expected = w * ADVANTAGES * (1 - gate)
    check_close(ours, expected, w)


# The files.


def test_every_file_is_tested_and_in_the_readme():
    files = {path.stem for path in BETAS.glob("*.py")}  # among them the user's own
    assert files >= set(NAMES)
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_needs_torch_alone(name):
    """So that it can be loaded or copied anywhere."""

    def only_torch(module, *arguments):
        assert module in ("torch", "typing"), f"{name} imports {module}"
        return __import__(module, *arguments)

    code = compile((BETAS / f"{name}.py").read_text(encoding="utf-8"), name, "exec")
    found = {"__name__": "elsewhere", "__builtins__": vars(builtins) | {"__import__": only_torch}}
    exec(code, found)
    inputs = torch.tensor([0.3, -0.3]), torch.zeros(2), torch.ones(2), 0.2
    assert torch.equal(found["surrogate"](*inputs), SURROGATES[name](*inputs))


@pytest.mark.parametrize("name", [*NAMES, "klip"])
def test_the_value_is_that_of_a_penalty_with_a_constant_coefficient(name):
    """w Â - β_t kl with β_t = g - w Â, where g is the gradient; without .detach() it is far off."""

    def difference(surrogate):
        """The largest one, relative to w Â and β_t kl."""
        new = torch.as_tensor(LOG_RATIO[:5000]).requires_grad_()
        old = torch.zeros_like(new)
        advantages = torch.as_tensor(ADVANTAGES[:5000])
        objective = surrogate(new, old, advantages, 0.2)
        (g,) = torch.autograd.grad(objective.sum(), new)
        w_advantage = new.exp() * advantages
        penalty = (g - w_advantage) * (old - new)
        return ((objective - (w_advantage - penalty)).abs() / (w_advantage.abs() + penalty.abs())).max()

    surrogate = SURROGATES.get(name, ppo_klip_continuous.surrogate)
    assert difference(surrogate) < 1e-14
    text = inspect.getsource(sys.modules[surrogate.__module__])
    if ".detach()\n    kl =" in text:
        namespace = {"__name__": "elsewhere", "__file__": "elsewhere.py"}
        exec(text.replace(".detach()\n    kl =", "\n    kl ="), namespace)
        assert difference(namespace["surrogate"]) > 0.1


@pytest.mark.parametrize("name", [*NAMES, "soft sigmoid", "soft softmin"])
def test_the_update_is_one_graph_and_epsilon_may_change(name):
    name, _, shape = name.partition(" ")
    arguments = own(name) | ({"shape": shape} if shape else {})
    surrogate = partial(SURROGATES[name], **arguments)
    torch._dynamo.reset()
    graph = torch.compile(ppo_klip_continuous.update, fullgraph=True, dynamic=False, backend="eager")
    rng = np.random.default_rng(0)
    args, outputs = ppo_klip_continuous.Args(), []
    columns = [torch.as_tensor(rng.normal(size=size), dtype=torch.float32) for size in ((64, 3), (64, 2), *[64] * 4)]
    minibatch = ppo_klip_continuous.Batch(*columns)
    for update in (ppo_klip_continuous.update, graph):
        torch.manual_seed(0)
        agent = ppo_klip_continuous.Agent(3, 2)
        adam = ppo_klip_continuous.Adam(list(agent.parameters()))
        for step, eps in enumerate((0.2, 0.1)):
            scalars = [torch.tensor(x, dtype=torch.float64) for x in (3e-4, eps, eps)]
            with torch._dynamo.config.patch(trace_autograd_ops=True, error_on_recompile=step > 0):
                update(args, surrogate, agent, adam, *scalars, minibatch)
        outputs.append(torch.cat([param.detach().flatten() for param in agent.parameters()]))
    assert outputs[0].isfinite().all()
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-6)


# Arguments.

SURROGATE = """
def surrogate(new_logprob, old_logprob, advantages, clip_coef{own}):
    ratio = (new_logprob - old_logprob).exp()
    beta = (-advantages.abs() * ratio * (ratio - 1) / clip_coef).detach()
    kl = old_logprob - new_logprob
    return ratio * advantages - beta * kl
"""
OWN = """=0.3,
    scale: Annotated[float, "what scale does"] = 1.5,
    steps: int = 3,
    *,
    kind: Annotated[Literal["a", "b"], "which"] = "a",
    gently: Annotated[bool, "whether"] = True,
    table: Annotated[Path, "which file"] = Path("x"),
    label="none",
"""
IMPORTS = '"""What mine is.\n\nMore of it."""\nfrom pathlib import Path\nfrom typing import *\nimport torch\n'


@pytest.fixture
def write(tmp_path):
    """A function that writes a file of the user's, and returns its path."""

    def mine(text, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        return path

    return mine


def test_own_arguments_are_flags(write):
    path = write(IMPORTS + SURROGATE.format(own=OWN))
    words = ["--scale", "2", "--steps=4", "--kind", "b", "--no-gently", "--table", "y/z", "--label", "c", "--seed", "3"]
    args, script, surrogate = loop.parse(path, words)
    mine = {"scale": 2.0, "steps": 4, "kind": "b", "gently": False, "table": Path("y/z"), "label": "c"}
    defaults = vars(ppo_klip_continuous.Args(exp_name="mine", seed=3, clip_coef=0.3))
    assert script is ppo_klip_continuous
    assert vars(args) == defaults | mine
    assert surrogate.keywords == mine
    args, _, _ = loop.parse(path, ["--clip-coef", "0.1"])
    assert (args.clip_coef, args.scale, args.table) == (0.1, 1.5, Path("x"))


def test_help_tells_all_arguments(write, capsys):
    with pytest.raises(SystemExit) as end:
        loop.parse(write(IMPORTS + SURROGATE.format(own=OWN)), ["--help"], prog="mine.py")
    assert end.value.code == 0
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert text.startswith("usage: mine.py [-h] [OPTIONS] What mine is. options")
    for told in (
        "--scale FLOAT what scale does (default: 1.5)",
        "--steps INT (default: 3)",
        "--kind {a,b} which (default: a)",
        "--gently, --no-gently whether (default: True)",
        "--table PATH which file (default: x)",
        "--gamma FLOAT the discount factor γ (default: 0.99)",
        "--clip-coef FLOAT ε, the half width of the band [1-ε, 1+ε] (default: 0.3)",
        "--exp-name STR the name of this experiment (default: mine)",
    ):
        assert told in text, told


def test_a_discrete_task_is_trained_by_cartpoles_loop_and_defaults():
    args, script, _ = loop.parse(
        BETAS / "rollback.py", ["--env-id=CartPole-v1", "--alpha", "0.25", "--num-steps", "64"]
    )
    assert script is ppo_klip_cartpole
    own_values = {"exp_name": "rollback", "alpha": 0.25, "num_steps": 64}
    assert vars(args) == vars(ppo_klip_cartpole.Args()) | own_values
    for env_id in ("Pendulum-v1", "NoSuchTask-v0"):  # a task that is none is left to the training loop, which says so
        args, script, _ = loop.parse(BETAS / "spo.py", ["--env-id", env_id])
        assert script is ppo_klip_continuous
        assert vars(args) == vars(ppo_klip_continuous.Args(exp_name="spo", env_id=env_id))


def test_the_default_of_an_own_epsilon_is_that_of_the_file():
    for name, surrogate in SURROGATES.items():
        _, epsilon = loop.parameters_of(surrogate)
        assert epsilon == (0.3 if name == "bpo" else None)


# Mistakes.

GOOD = IMPORTS + SURROGATE.format(own="")


def changed(before, after):
    assert GOOD.count(before) == 1
    return GOOD.replace(before, after)


MISTAKES = {
    "a coefficient that is no constant": (changed(".detach()", ""), ".detach()"),
    "a sum": (
        changed("return ratio * advantages - beta * kl", "return (ratio - kl).sum()"),
        "(N,), here (200,), not ()",
    ),
    "a stray dimension": (changed("beta * kl", "(beta * kl)[:, None]"), "(N,), here (200,), not (200, 200)"),
    "no return": (changed("return ratio", "ratio"), "not NoneType"),
    "all detached": (
        changed("ratio * advantages - beta * kl", "(ratio * advantages).detach()"),
        "not depend on new_logprob",
    ),
    "not used": (changed("ratio * advantages - beta * kl", "0 * new_logprob"), "not depend on new_logprob"),
    "not finite": (changed("/ clip_coef", "/ 0"), "finite"),
    "no surrogate": (GOOD.replace("def surrogate", "def objective"), "it has no surrogate"),
    "three arguments": (changed(", clip_coef):", "):").replace(" / clip_coef", ""), "must take"),
    "no default": (changed(", clip_coef):", ", clip_coef, tau):"), "'tau'"),
    "a name that is taken": (changed(", clip_coef):", ", clip_coef, gamma=0.9):"), "an argument gamma already"),
    "ends": (GOOD + "raise SystemExit(0)\n", "ends the program when it is imported"),
    "trains": (GOOD + "import ppo_klip_cartpole as c\nc.train(c.Args(), surrogate)\n", "trains when it is imported"),
    "trains by main": (GOOD + "from loop import main\nmain(__file__)\n", "trains when it is imported"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_the_training(mistake, write, monkeypatch, capsys, tmp_path):
    text, told = MISTAKES[mistake]
    path = write(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "loop", loop)
    monkeypatch.setattr(sys, "argv", [str(path), "--env-id", "CartPole-v1", "--total-timesteps", "512"])
    with pytest.raises(SystemExit) as end:
        loop.main(str(path))
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("error: mine.py: ") and told in line, line
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "__pycache__"}


@pytest.mark.parametrize(
    ("before", "after"), [("ratio = ", "ratio = undefined + "), ("import torch\n", "import torc\n")]
)
def test_an_exception_in_a_file_keeps_its_traceback(before, after, write):
    with pytest.raises((NameError, ImportError), match=r"undefined|torc") as error:
        loop.parse(write(changed(before, after)), [])
    assert error.traceback[-1].path.name == "mine.py"


def test_what_a_file_prints_goes_to_standard_error_with_its_name(write, capsys):
    loop.load(write(GOOD + "print('hello')\n"))
    assert capsys.readouterr() == ("", "mine.py prints: hello\n")


def test_the_picture_names_a_file_that_fails_and_draws_the_others(monkeypatch, write, capsys, tmp_path):
    import design_axis

    monkeypatch.setattr(design_axis, "BETAS", tmp_path)
    write(GOOD, "good")
    write(IMPORTS + SURROGATE.format(own="=0.35"), "wide")
    for name, mistake in (("ends", "ends"), ("trains", "trains"), ("sums", "a sum"), ("empty", "no surrogate")):
        write(MISTAKES[mistake][0], name)
    with pytest.raises(SystemExit) as end:
        design_axis.main(("good", "ends", "trains", "wide", "sums", "empty"), tmp_path / "drawn.png")
    assert end.value.code == 1
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'drawn.png'}\n" and (tmp_path / "drawn.png").exists()
    assert re.findall(r"^not drawn: betas/(\w+)\.py: Unusable: ", said.err, re.MULTILINE) == [
        "ends", "trains", "sums", "empty",
    ]  # fmt: skip
    shown = design_axis.surrogates_of(["clip", "good", "wide"])
    assert [epsilon for _, epsilon in shown.values()] == [0.2, 0.2, 0.35]


def test_a_surrogate_with_a_memory_is_an_error_if_it_is_compiled(write):
    """It would be compiled to something else than it says."""
    text = changed("    ratio = ", "    calls.append(0)\n    clip_coef = clip_coef * 0.9 ** len(calls)\n    ratio = ")
    surrogate = loop.load(write("calls = []\n" + text)).surrogate
    torch._dynamo.reset()
    options = {"guard_filter_fn": ppo_klip_continuous.keep_cheap_guards}
    compiled = torch.compile(surrogate, fullgraph=True, dynamic=False, backend="eager", options=options)
    inputs = torch.tensor([0.3, -0.3]), torch.zeros(2), torch.ones(2)
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        for _ in range(9):
            compiled(*inputs, torch.tensor(0.2))
    assert "A surrogate has no memory" in README


# Trainings. test_the_update_is_one_graph asks of every file that it can be compiled.

EAGER = (*SHORT, "--total-timesteps", "1024", "--no-compile")
CARTPOLE = ("--env-id", "CartPole-v1", "--total-timesteps", "2048", "--learning-rate", "3e-3")
# The clip, and the script that must end with the same bytes.
PAIRS = {"continuous": ("ppo_clip_continuous", EAGER), "cartpole": ("ppo_klip_cartpole", CARTPOLE)}


def test_the_clip_as_a_beta_is_the_clip_to_the_bit(tmp_path):
    """With the ε that is not its default; and it is a run of klip's loop with an argument more."""
    commands = {}
    epsilon = ("--clip-coef", "0.3", "--vloss-clip-coef", "0.2")
    for case, (script, arguments) in PAIRS.items():
        commands[f"clip {case}"] = (script, *epsilon, *arguments)
        commands[f"beta {case}"] = ("betas/rollback", "--alpha", "0", *epsilon, *arguments)
    runs = run_in_turn(tmp_path, commands)
    for case in PAIRS:
        beta, clip = runs[f"beta {case}"], runs[f"clip {case}"]
        assert beta.stderr == ""
        assert "__rollback__0__" in beta.folder.name
        assert beta.result["args"] == clip.result["args"] | {"exp_name": "rollback", "alpha": 0.0}
        assert beta.result["script_sha256"] != clip.result["script_sha256"]
        assert max(beta.values("partition/kill")) > 0.01
        assert beta.result["params_sha256"] == clip.result["params_sha256"]
        for source in (BETAS / "rollback.py", ROOT / f"ppo_klip_{case}.py"):
            assert (beta.folder / source.name).read_bytes() == source.read_bytes()


def test_every_file_trains_with_its_defaults(tmp_path):
    """A rollout of each kind of task."""
    commands = {f"{name} cartpole": (f"betas/{name}", "--env-id", "CartPole-v1") for name in NAMES}
    commands |= {f"{name} continuous": (f"betas/{name}", "--no-compile") for name in NAMES}
    steps = {name: 512 if name.endswith("cartpole") else 2048 for name in commands}
    runs = run_in_turn(tmp_path, {name: (*words, "--total-timesteps", steps[name]) for name, words in commands.items()})
    for name, run in runs.items():
        assert complaints(run.stderr) == []
        assert run.result["global_step"] == steps[name]
        assert {key: run.result["args"][key] for key in own(name.split()[0])} == own(name.split()[0])
    for kind in ("cartpole", "continuous"):
        assert len({runs[f"{name} {kind}"].result["params_sha256"] for name in NAMES}) > 5


@pytest.fixture
def copy_of_the_scripts(tmp_path):
    """A copy of the scripts and of betas/, and a function that runs a file of that from another folder."""
    root = tmp_path / "project"
    shutil.copytree(BETAS, root / "betas", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("ppo_*.py"):
        shutil.copy(path, root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(name, *arguments):
        command = [sys.executable, root / "betas" / f"{name}.py", "--env-id", "CartPole-v1", "--total-timesteps", "512"]
        done = subprocess.run(
            [*command, *arguments], cwd=elsewhere, env=environment(), capture_output=True, text=True, check=False
        )
        return Run(elsewhere, done.returncode, done.stdout, done.stderr)

    return root, run


def test_a_file_named_like_a_module_of_python_harms_none(copy_of_the_scripts):
    root, run = copy_of_the_scripts
    for name in ("random", "re", "typing", "numpy", "pathlib"):
        shutil.copy(root / "betas" / "rollback.py", root / "betas" / f"{name}.py")
    done = run("random", "--alpha", "0.1")
    assert (done.returncode, done.stderr) == (0, "")
    assert (done.result["exp_name"], done.result["args"]["alpha"]) == ("random", 0.1)


def test_a_file_is_loaded_once_and_a_path_is_written_as_text(copy_of_the_scripts):
    """Also where the update is compiled: torch.compile looks for the module of the surrogate."""
    root, run = copy_of_the_scripts
    text = (root / "betas" / "spo.py").read_text(encoding="utf-8")
    text = text.replace("clip_coef):", 'clip_coef, table: Path = Path("some/table")):')
    text = text.replace("import torch\n", "from pathlib import Path\n\nimport torch\n\nprint('loaded')\n")
    (root / "betas" / "mine.py").write_text(text, encoding="utf-8")
    done = run("mine", "--compile")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("loaded") == 1
    assert done.result["args"]["table"] == "some/table"
    assert done.result["args"]["compile"]


def test_your_own_by_the_readme(tmp_path):
    """It changes a line of spo.py; its commands are those that test_docs.py parses."""
    diff = re.search(r"```diff\n(.*?)```", README[README.index("## Your own") :], re.DOTALL)[1]
    (old,), (new,) = (re.findall(rf"^ *\{sign}(    .*)$", diff, re.MULTILINE) for sign in "-+")
    text = (BETAS / "spo.py").read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / "mine_of_the_readme.py").write_text(text.replace(old, new), encoding="utf-8")
    mine = load(tmp_path / "mine_of_the_readme.py")
    inputs = torch.tensor([0.3, -0.3]), torch.zeros(2), torch.ones(2), 0.2
    loop.check_surrogate(mine.surrogate, 0.2)
    assert (mine.surrogate(*inputs) != SURROGATES["spo"](*inputs)).all()


def test_epsilon_can_be_annealed_by_the_readme():
    """The line that it tells to add follows one of train, and uses what there is."""
    line = re.search(r"```python\n(.*)\n```", README)[1]
    for script in (ppo_klip_continuous, ppo_klip_cartpole):
        assert line.replace("clip_coef", "learning_rate") in inspect.getsource(script.train)
