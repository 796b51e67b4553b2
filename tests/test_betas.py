"""betas/: each file's gradient against the published objective, written out here as its paper has it; and its runs."""

import dataclasses
import importlib
import inspect
import json
import math
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
import tyro
from helpers import ROOT, SHORT, environment, run, run_in_turn, without
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ppo_klip_continuous

sys.path[:0] = [str(ROOT / "betas"), str(ROOT / "plots")]
import design_axis
import matplotlib.pyplot as plt

NAMES = ("clip_higher", "dual_clip", "rollback", "spo", "sapo", "cispo", "soft", "none")
MODULES = {name: importlib.import_module(name) for name in NAMES}
BASE = {field.name for field in dataclasses.fields(ppo_klip_continuous.Args)}
README = (ROOT / "betas/README.md").read_text()


def own(name):
    """A file's own arguments and their defaults."""
    return {field.name: field.default for field in dataclasses.fields(MODULES[name].Args) if field.name not in BASE}


# The published objectives of (w, Â, log π_new), ε and the methods' own constants.


def ppo_clip(w, advantages, low, high):
    return torch.min(w * advantages, torch.clamp(w, 1 - low, 1 + high) * advantages)


def clip_higher(w, advantages, _, eps, eps_low=0.2, eps_high=0.28):
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


def cispo(w, advantages, new_logprob, eps, eps_low=1.0, eps_high=0.2):
    return torch.clamp(w, 1 - eps_low, 1 + eps_high).detach() * advantages * new_logprob


def none(w, advantages, _, eps):
    return w * advantages


PUBLISHED = {f.__name__: f for f in (clip_higher, dual_clip, rollback, spo, sapo, cispo, none)}


def softmin(w, advantages, _, eps, width):
    """The log-sum-exp minimum of the two branches over |Â|, times |Â|, so that its gradient far inside is w Â."""
    sign = advantages.sign()
    branches = torch.stack([w * sign, torch.clamp(w, 1 - eps, 1 + eps) * sign])
    return advantages.abs() * -width * torch.logsumexp(-branches / width, 0)


def gradients(objective, log_ratio, advantages, eps, old_logprob=0.0, **arguments):
    """An objective's derivative in log π_new, and w, where log π_old is old_logprob; in numpy."""
    old = torch.full((len(log_ratio),), old_logprob, dtype=torch.float64)
    new = (torch.as_tensor(log_ratio, dtype=torch.float64) + old).requires_grad_()
    advantages = torch.as_tensor(advantages, dtype=torch.float64)
    if objective in MODULES:
        values = MODULES[objective].surrogate(new, old, advantages, eps, **arguments)
    else:
        values = objective((new - old).exp(), advantages, new, eps, **arguments)
    assert values.shape == new.shape
    assert values.dtype == torch.float64
    return torch.autograd.grad(values.sum(), new)[0].numpy(), (new - old).detach().exp().numpy()


def tolerance(w, advantages, eps, width=1.0):
    """Rounding of w Â + β_t: some steps of the largest term, which is spo's |Â| w (w - 1) / ε or a gate's d / width."""
    return 16 * np.finfo(float).eps * w * np.abs(advantages) * (1 + (1 + w) / eps + 1 / width)


def edges(name, eps, arguments):
    if name in ("clip_higher", "cispo"):
        return [1 - arguments["eps_low"], 1 + arguments["eps_high"]]
    return [1 - eps, 1 + eps, arguments.get("c", 1 + eps)]


def away(w, kinks):
    """Where w is not within some rounding steps of a kink: there w Â and clip(w) Â may round to a tie, which min halves.
    test_the_edges_belong_to_the_band is about the kinks."""
    return np.all([np.abs(w - kink) > 1e-12 * kink for kink in kinks], axis=0)


beside = st.floats(1e-10, 1e-6) | st.floats(-1e-6, -1e-10)
near_an_edge = st.builds(lambda edge, by: math.log(edge) + by, st.sampled_from([0.8, 1.2, 1.28, 3.0]), beside)
log_ratios = st.floats(-300, 300) | st.floats(-1.5, 1.5) | near_an_edge
some_advantages = (st.floats(-1e6, 1e6) | st.floats(-3, 3)).map(lambda x: x if abs(x) > 1e-100 else 0.0)
samples = st.lists(st.tuples(log_ratios, some_advantages), min_size=1, max_size=20)
EDGE_CASES = [*((w, a) for w in (-300.0, 0.0, 300.0) for a in (-1e6, 0.0, 1e6)), (0.5, -1e-99)]
ARGUMENTS = {
    "clip_higher": {"eps_low": st.floats(0.01, 0.99), "eps_high": st.floats(0.01, 5)},
    "cispo": {"eps_low": st.floats(0.01, 10), "eps_high": st.floats(0.01, 5)},
    "dual_clip": {"c": st.floats(1.01, 20)},
    "rollback": {"alpha": st.floats(0, 5)},
    "sapo": {"tau_pos": st.floats(0.01, 20), "tau_neg": st.floats(0.01, 20)},
}


def check(name, pairs, eps, old_logprob, arguments):
    log_ratio, advantages = np.array(pairs).T
    ours, w = gradients(name, log_ratio, advantages, eps, old_logprob, **arguments)
    published, _ = gradients(PUBLISHED[name], log_ratio, advantages, eps, old_logprob, **arguments)
    compared = away(w, edges(name, eps, own(name) | arguments))
    # cispo's gradient can be larger than w Â, and is then as exact as itself
    rounding = tolerance(w, advantages, eps) + 16 * np.finfo(float).eps * np.abs(published)
    assert (np.abs(ours - published) <= rounding)[compared].all()
    assert (ours[advantages == 0] == 0).all()


@pytest.mark.parametrize("name", PUBLISHED)
@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([0.0, -7.5, 4.25]))
@example(EDGE_CASES, 0.0)
def test_gradient_is_the_published_one(name, pairs, old_logprob):
    check(name, pairs, 0.2, old_logprob, {})


@pytest.mark.parametrize("name", PUBLISHED)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_gradient_is_the_published_one_for_other_arguments(name, data):
    arguments = {key: data.draw(strategy, key) for key, strategy in ARGUMENTS.get(name, {}).items()}
    check(name, data.draw(samples), data.draw(st.floats(0.01, 0.9), "eps"), 0.0, arguments)


def gate(shape, w, advantages, eps, width):
    """How much of the clip's coefficient there is, from d, how far w lies beyond the edge on the side of I_kill."""
    d = np.where(advantages > 0, w - (1 + eps), (1 - eps) - w)
    return np.clip(d / width, 0, 1) if shape == "ramp" else 0.5 * (1 + np.tanh(d / width / 2))


@pytest.mark.parametrize("shape", ["ramp", "sigmoid"])
@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([0.1, 0.001, 1.0, 30.0]))
@example(EDGE_CASES, 0.1)
def test_a_soft_gate_is_its_definition(shape, pairs, width):
    log_ratio, advantages = np.array(pairs).T
    ours, w = gradients("soft", log_ratio, advantages, 0.2, shape=shape, width=width)
    expected = w * advantages * (1 - gate(shape, w, advantages, 0.2, width))
    assert (np.abs(ours - expected) <= tolerance(w, advantages, 0.2, width)).all()


@settings(max_examples=300, deadline=None)
@given(samples, st.sampled_from([0.1, 0.001, 1.0, 30.0]))
@example(EDGE_CASES, 0.1)
def test_softmin_is_the_gradient_of_a_soft_minimum(pairs, width):
    log_ratio, advantages = np.array(pairs).T
    ours, w = gradients("soft", log_ratio, advantages, 0.2, shape="softmin", width=width)
    expected, _ = gradients(softmin, log_ratio, advantages, 0.2, width=width)
    compared = away(w, [0.8, 1.2])
    assert (np.abs(ours - expected) <= tolerance(w, advantages, 0.2, width))[compared].all()


@pytest.mark.parametrize("shape", ["ramp", "sigmoid", "softmin"])
def test_a_soft_edge_becomes_the_clip_as_its_width_goes_to_0(shape):
    log_ratio, advantages = (x.ravel() for x in np.meshgrid(np.linspace(-2, 2, 1001), [-2.0, -0.1, 0.0, 0.1, 2.0]))
    distances = []
    for width in (0.3, 0.03, 3e-3, 3e-4, 1e-9, 1e-300):
        ours, w = gradients("soft", log_ratio, advantages, 0.2, shape=shape, width=width)
        kill = ((w > 1.2) & (advantages > 0)) | ((w < 0.8) & (advantages < 0))
        distances.append(np.abs(ours - np.where(kill, 0.0, w * advantages)).mean())
    assert distances[0] > 0.01
    assert (np.diff(distances) <= 0).all()
    assert distances[-1] == 0


def test_the_edges_belong_to_the_band():
    """At an edge to the bit, where min has two gradients, β_t is 0. ε is made from w, so that no rounding decides."""
    advantages = np.array([-2.0, 2.0, -0.3, 0.3])
    for log_ratio in (np.full(4, 0.18), np.full(4, -0.22), np.full(4, 1.1)):
        for name in ("clip_higher", "dual_clip", "rollback", "soft", "cispo"):
            _, w = gradients(name, log_ratio, advantages, 0.2)
            edge = float(w[0])
            eps = abs(edge - 1)
            assert (w == (1 + eps if edge > 1 else 1 - eps)).all()
            arguments = {"dual_clip": {"c": edge if edge > 1 else 3.0}}.get(name, {})
            if name in ("clip_higher", "cispo"):
                arguments = {"eps_high" if edge > 1 else "eps_low": eps}
            ours, _ = gradients(name, log_ratio, advantages, eps, **arguments)
            np.testing.assert_array_equal(ours, edge * advantages, err_msg=name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_gradient_is_lost_where_the_published_one_is_finite(name):
    """Up to e^700, near the largest float64: no infinity times 0 in a branch that is not taken."""
    log_ratio, advantages = np.meshgrid([-745.0, -700.0, -360.0, 360.0, 600.0, 700.0], [-1.0, -1e-3, 0.0, 1e-3, 1.0])
    ours, _ = gradients(name, log_ratio.ravel(), advantages.ravel(), 0.2)
    published, _ = gradients(PUBLISHED[name], log_ratio.ravel(), advantages.ravel(), 0.2)
    assert not np.isnan(ours).any()
    assert (np.isfinite(ours) >= np.isfinite(published)).all()


def test_cispo_keeps_its_gradient_however_large_the_ratio():
    """w Â + β_t is a small difference of large numbers there, and beyond e^709 of infinities."""
    log_ratio, advantages = (
        x.ravel() for x in np.meshgrid([5.0, 19.0, 21.0, 40.0, 300.0, 800.0, 1e4], [-1e3, -1.0, 0.1])
    )
    ours, _ = gradients("cispo", log_ratio, advantages, 0.2)
    published, _ = gradients(PUBLISHED["cispo"], log_ratio, advantages, 0.2)
    np.testing.assert_allclose(ours, published, rtol=1e-6)
    np.testing.assert_allclose(published, 1.2 * advantages, rtol=1e-14)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("clip_higher", {"eps_low": 0.2, "eps_high": 0.2}),
        ("dual_clip", {"c": 1e300}),
        ("rollback", {"alpha": 0.0}),
        ("soft", {"width": 1e-300}),
        ("soft", {"width": 1e-300, "shape": "softmin"}),
    ],
)
def test_the_clip_is_a_special_case(name, arguments):
    log_ratio, advantages = (x.ravel() for x in np.meshgrid(np.linspace(-3, 3, 997), [-2.0, -0.1, 0.0, 0.1, 2.0]))
    ours, _ = gradients(name, log_ratio, advantages, 0.2, **arguments)
    clip, _ = gradients(lambda w, a, _, eps: ppo_clip(w, a, eps, eps), log_ratio, advantages, 0.2)
    np.testing.assert_array_equal(ours, clip)


# The files.


def reduced(name):
    """A file without its idea: docstring, own arguments and their imports, and the lines that make β_t."""
    text = without(ROOT / f"betas/{name}.py")
    for pattern, rest in (
        (r"^from (typing|pydantic) import .*\n", ""),
        (r"(^class .*\n    exp_name: .*\n)((    \w+: .*\n)*)", r"\1"),
        (r"(^def surrogate\(.*clip_coef).*\)", r"\1)"),
        (r"^    excess = .*\n|(?<=old_logprob) - excess(?=\))", ""),  # cispo's guard against rounding
        (r"(^    ratio = .*\n)((    (?!kl = ).*\n)+)", r"\1"),
        (r"lambda \*batch: surrogate\(\*batch(, \w+=args\.\w+)+\)", "surrogate"),
    ):
        text = re.sub(pattern, rest, text, flags=re.MULTILINE)
    return text


def test_outside_the_idea_the_files_are_one_text():
    assert len({reduced(name) for name in NAMES}) == 1
    assert reduced("none").count("\n") > 20


def test_every_file_is_tested_and_in_the_readme():
    files = {path.stem for path in (ROOT / "betas").glob("*.py")}  # among them the user's own
    assert files >= set(NAMES)
    assert re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_one_page(name):
    text = (ROOT / f"betas/{name}.py").read_text()
    assert 20 <= len(text.splitlines()) <= 40
    (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}` |")]
    (source,) = re.findall(r"arXiv (\d{4}\.\d{5})", text)
    assert f"[{source}](https://arxiv.org/abs/{source})" in row


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_is_a_keyword_of_the_surrogate(name):
    parameters = inspect.signature(MODULES[name].surrogate).parameters
    keywords = {key: value.default for key, value in parameters.items() if value.default is not inspect.Parameter.empty}
    assert keywords == own(name)
    handed_over = re.findall(r"(\w+)=args\.(\w+)", (ROOT / f"betas/{name}.py").read_text())
    assert handed_over == [(key, key) for key in keywords]


@pytest.mark.parametrize("name", NAMES)
def test_epsilon_is_a_number_or_a_tensor(name):
    log_ratio, advantages = (x.ravel() for x in np.meshgrid(np.linspace(-2, 2, 101), [-2.0, 0.0, 0.1]))
    number, _ = gradients(name, log_ratio, advantages, 0.3)
    tensor, _ = gradients(name, log_ratio, advantages, torch.tensor(0.3, dtype=torch.float64))
    np.testing.assert_array_equal(number, tensor)


@pytest.mark.parametrize("name", [*NAMES, "soft sigmoid", "soft softmin"])
def test_the_update_is_one_graph_and_epsilon_may_change(name, monkeypatch):
    name, _, shape = name.partition(" ")
    arguments = own(name) | ({"shape": shape} if shape else {})
    monkeypatch.setattr(ppo_klip_continuous, "surrogate", partial(MODULES[name].surrogate, **arguments))
    torch._dynamo.reset()
    graph = torch.compile(ppo_klip_continuous.update, fullgraph=True, dynamic=False, backend="aot_eager")
    rng = np.random.default_rng(0)
    args, outputs = MODULES[name].Args(), []
    minibatch = [torch.as_tensor(rng.normal(size=size), dtype=torch.float32) for size in ((64, 3), (64, 2), *[64] * 4)]
    for update in (ppo_klip_continuous.update, graph):
        torch.manual_seed(0)
        agent = ppo_klip_continuous.Agent(3, 2)
        zeros = [[torch.zeros_like(param) for param in agent.parameters()] for _ in range(2)]
        adam = (*zeros, torch.zeros((), dtype=torch.float64))
        for step, eps in enumerate((0.2, 0.1)):
            inputs = (args, agent, adam, *(torch.tensor(x, dtype=torch.float64) for x in (3e-4, eps)), minibatch)
            with torch._dynamo.config.patch(trace_autograd_ops=True, error_on_recompile=step > 0):
                update(*inputs)
        outputs.append(torch.cat([param.detach().flatten() for param in agent.parameters()]))
    assert outputs[0].isfinite().all()
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-6)


BAD = {
    "clip_higher": {"--eps-low": ["0", "-1", "nan", "inf"], "--eps-high": ["0", "-1", "nan", "inf"]},
    "cispo": {"--eps-low": ["0", "-1", "nan", "inf"], "--eps-high": ["0", "-1", "nan", "inf"]},
    "dual_clip": {"--c": ["1", "0.5", "-3", "nan", "inf"]},
    "rollback": {"--alpha": ["-0.1", "nan", "inf"]},
    "sapo": {"--tau-pos": ["0", "-1", "nan", "inf"], "--tau-neg": ["0", "-1", "nan", "inf"]},
    "soft": {"--width": ["0", "-0.1", "nan", "inf"], "--shape": ["square"]},
    "spo": {"--clip-coef": ["0", "1"], "--total-timesteps": ["1"]},
    "none": {"--num-minibatches": ["3"], "--c": ["3"]},
}


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments_end_with_code_2(name, capsys):
    for argument, values in BAD[name].items():
        for value in values:
            with pytest.raises(SystemExit) as end:
                tyro.cli(MODULES[name].Args, args=[f"{argument}={value}"])
            assert end.value.code == 2, (argument, value)
            message = capsys.readouterr().err
            assert argument in message or argument[2:].replace("-", "_") in message
            assert "Traceback" not in message


def test_help_explains_inherited_and_own_arguments(capsys):
    for name in NAMES:
        with pytest.raises(SystemExit) as end:
            tyro.cli(MODULES[name].Args, args=["--help"])
        assert end.value.code == 0
        text = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "the discount factor γ (default: 0.99)" in text
        assert f"the name of this experiment (default: {name})" in text
        for argument in own(name):
            comment = re.search(rf"^    {argument}: .*  # (.*)", (ROOT / f"betas/{name}.py").read_text(), re.MULTILINE)
            assert comment[1] in text


# Trainings. --no-compile but where the clip as a β is compared: test_the_update_is_one_graph asks it of every file.

TRAINED = (*SHORT, "--total-timesteps", "1024")
CHANGED = {
    "clip_higher": ("--eps-low", 0.1, "--eps-high", 0.4),
    "dual_clip": ("--c", 2.0),
    "rollback": ("--alpha", 0.1),
    "sapo": ("--tau-pos", 2.0, "--tau-neg", 3.0),
    "cispo": ("--eps-low", 0.5, "--eps-high", 0.5),
    "soft": ("--shape", "softmin", "--width", 0.05, "--save-model"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    commands = {name: (f"betas/{name}", *TRAINED, "--no-compile", *CHANGED.get(name, ())) for name in NAMES}
    commands["rollback as published"] = ("betas/rollback", *TRAINED, "--no-compile")
    return run_in_turn(tmp_path_factory.mktemp("betas"), commands)


def test_a_run_is_one_of_klips_loop_with_arguments_of_its_own(trained):
    klip = ppo_klip_continuous.script_sha256(ppo_klip_continuous.Args())
    hashes = {klip}
    for name in NAMES:
        done = trained[name]
        assert done.stderr == ""
        assert done.folder.name.startswith(f"Hopper-v4__{name}__0__")
        result = done.result
        assert result["exp_name"] == name
        assert result["diverged_at"] is None
        assert set(result["args"]) == BASE | set(own(name))
        flags = dict(zip(CHANGED.get(name, ())[::2], CHANGED.get(name, ())[1::2]))
        for key in own(name):
            assert result["args"][key] == flags["--" + key.replace("_", "-")] != own(name)[key]
        assert result["script_sha256"] == ppo_klip_continuous.script_sha256(MODULES[name].Args())
        hashes.add(result["script_sha256"])
    assert len(hashes) == 1 + len(NAMES)
    assert len(trained["soft"].result["eval_returns"]) == 10


def test_the_arguments_reach_the_training(trained):
    """Another parameter hash for every method, and for other arguments."""
    hashes = {name: done.result["params_sha256"] for name, done in trained.items()}
    assert len(set(hashes.values())) == len(hashes), hashes


@pytest.fixture
def checkout(tmp_path):
    """What a user of betas/ has: the scripts and the folder."""
    shutil.copytree(ROOT / "betas", tmp_path / "betas", ignore=shutil.ignore_patterns("__pycache__"))
    for script in ROOT.glob("ppo_*.py"):
        shutil.copy(script, tmp_path)
    return tmp_path


CLIP = """\
    kill = ((ratio > 1 + clip_coef) & (advantages > 0)) | ((ratio < 1 - clip_coef) & (advantages < 0))
    beta = torch.where(kill, -ratio * advantages, 0.0).detach()
"""


@pytest.mark.parametrize("flags", [(), ("--no-compile",)], ids=["compiled", "eager"])
def test_the_clip_as_a_beta_is_the_clip_to_the_bit(checkout, flags):
    text, changes = re.subn(r"^    beta = .*\n", CLIP, (checkout / "betas/spo.py").read_text(), flags=re.MULTILINE)
    assert changes == 1
    (checkout / "betas/clip.py").write_text(text)
    hashes = []
    for script in ("betas/clip", "ppo_clip_continuous"):
        arguments = (*SHORT, "--total-timesteps", "2048", "--run-name", script[:5], *flags)
        command = [sys.executable, f"{script}.py", *arguments]
        done = subprocess.run(command, cwd=checkout, env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        result = json.loads((checkout / "runs" / script[:5] / "result.json").read_text())
        assert result["args"]["compile"] == (not flags)
        hashes.append(result["params_sha256"])
    assert hashes[0] == hashes[1]


def test_write_your_own_by_the_readme(checkout):
    """Steps 1 to 4 as they stand there, the training cut short; 5 and 6 are benchmark.sh's, and its tests' matter."""
    shutil.copy(ROOT / "benchmark.sh", checkout)
    shutil.copytree(ROOT / "plots", checkout / "plots", ignore=shutil.ignore_patterns("results", "*.png", "*.svg"))
    blocks = re.findall(r"```(\w+)\n(.*?)```", README[README.index("## Write your own") :], re.DOTALL)
    (_, copy), (_, diff), (_, look), (_, train), *sweeps = [
        (kind, re.sub(r"(?m)^   ", "", text)) for kind, text in blocks
    ]
    assert [kind for kind, _ in blocks] == ["bash", "diff", "bash", "bash", "bash", "bash"]

    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    shell = {"cwd": checkout, "env": environment(PATH=path), "capture_output": True, "text": True}
    subprocess.run(["bash", "-c", copy], check=True, **shell)
    ours = checkout / "betas/mine.py"
    (old,), (new,) = (re.findall(rf"^\{sign}(    .*\n)", diff, re.MULTILINE) for sign in "-+")
    text = ours.read_text()
    assert text.count(old) == 1
    ours.write_text(text.replace(old, new))
    assert subprocess.run(["bash", "-c", look], check=True, **shell).stdout == "runs/design_axis.png\n"
    assert plt.imread(checkout / "runs/design_axis.png").std() > 0.01
    short = " --total-timesteps 1024 --num-steps 256 --num-minibatches 4"
    assert subprocess.run(["bash", "-c", train.strip() + short], check=True, **shell).stderr == ""
    (result,) = checkout.glob("runs/*/result.json")
    result = json.loads(result.read_text())
    assert (result["exp_name"], result["env_id"]) == ("mine", "Hopper-v4")
    for _, sweep in sweeps:
        runs = subprocess.run(["bash", "-c", sweep.strip() + " --dry-run"], check=True, **shell).stdout.splitlines()
        assert runs and all(" --total-timesteps 1000000 " in run for run in runs)


# The picture.


def test_the_picture_shows_every_file_and_the_clip():
    assert sorted(design_axis.names()) == sorted([*NAMES, "clip"]) == sorted(design_axis.FORMULAS)
    titles = [ax.get_title(loc="left").strip() for ax in design_axis.design_axis().axes]
    assert [title for title in titles if title] == design_axis.names()
    titles = [ax.get_title(loc="left").strip() for ax in design_axis.design_axis(["clip", "soft"]).axes]
    assert [title for title in titles if title] == ["clip", "soft"]


def test_the_picture_tells_the_defaults():
    numbers = {
        "clip_higher": (1 - own("clip_higher")["eps_low"], 1 + own("clip_higher")["eps_high"]),
        "dual_clip": (own("dual_clip")["c"],),
        "rollback": (1 + own("rollback")["alpha"],),
        "soft": (own("soft")["width"],),
        "cispo": (1 + own("cispo")["eps_high"],),
    }
    for name, values in numbers.items():
        assert all(f"{value:g}" in design_axis.FORMULAS[name] for value in values)


def test_what_the_picture_draws_is_the_factor_of_the_gradient():
    ratio = np.array([0.5, 0.9, 1.0, 1.1, 1.5, 3.2])
    for sign, clip, dual in (
        (1.0, [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]),
        (-1.0, [0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0]),
    ):
        for advantages in (sign, 2.5 * sign):
            for name, kept in (("clip", clip), ("dual_clip", dual), ("none", np.ones(6))):
                drawn = design_axis.factor(name, ratio, np.full(6, advantages))
                np.testing.assert_allclose(drawn, ratio * kept, rtol=1e-14)


def test_from_the_command_line_a_bad_argument_is_one_box(tmp_path):
    done = run(tmp_path, "betas/rollback", "--alpha", "-1")
    assert done.returncode == 2
    assert "alpha" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
