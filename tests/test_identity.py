"""clip, phi and klip with one seed end training with the same bytes."""

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from helpers import SHORT, SURROGATES, THREE, run_all, run_in_turn, without_torchs_warnings

HOPPER = (*SHORT, "--total-timesteps", "2048")
FOUR_ENVS = ("--num-envs", "4", "--num-steps", "64")
CARTPOLE = ("--total-timesteps", "2560", "--learning-rate", "3e-3")
CASES = {
    "eager, 1 environment": ("continuous", THREE, (*HOPPER, "--no-compile")),
    "eager, 4 environments": ("continuous", THREE, (*HOPPER, *FOUR_ENVS, "--no-compile")),
    "compiled, 1 environment": ("continuous", THREE, HOPPER),
    "cartpole, eager": ("cartpole", THREE, CARTPOLE),
    "cartpole, compiled": ("cartpole", ("clip", "klip"), (*CARTPOLE, "--compile")),
    "Acrobot": ("cartpole", THREE, (*CARTPOLE, "--env-id", "Acrobot-v1")),
    "LunarLander": (
        "cartpole",
        THREE,
        (*CARTPOLE, "--env-id", "LunarLander-v3", "--gamma", "0.999", "--ent-coef", "0.01"),
    ),
}
if importlib.util.find_spec("Box2D") is None:  # from Python 3.14 on it is not in requirements.txt
    del CASES["LunarLander"]


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """The cases that are asked for; one of them also as if started by hand, and one with another seed."""
    tests = [test for test in request.session.items if test.path == request.path]
    asked = {test.callspec.params["case"] for test in tests if "case" in test.callspec.params}
    cases = {
        f"{form} {case}": (f"ppo_{form}_{task}", *how)
        for case, (task, forms, how) in CASES.items()
        if case in asked
        for form in forms
    }
    if "cartpole, eager" in asked:
        cases["clip cartpole, eager, other seed"] = (*cases["clip cartpole, eager"], "--seed", "1")
    alone = {"clip alone": cases["clip eager, 1 environment"]} if "eager, 1 environment" in asked else {}
    folder = tmp_path_factory.mktemp("identity")
    return run_in_turn(folder, cases) | run_all(folder, alone)


@pytest.mark.parametrize("case", CASES)
def test_the_forms_end_with_the_same_bytes(runs, case):
    hashes = {form: runs[f"{form} {case}"].result["params_sha256"] for form in CASES[case][1]}
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.parametrize("case", CASES)
def test_the_forms_were_put_to_the_test(runs, case):
    """The identity is empty unless samples were killed, and easier unless episodes ended and compilation worked."""
    for form in CASES[case][1]:
        run = runs[f"{form} {case}"]
        assert without_torchs_warnings(run.stderr) == []
        assert run.result["args"]["compile"] == ("compiled" in case)
        assert np.mean(run.values("partition/kill")) > 0.01
        assert max(run.values("beta/p99") + [-beta for beta in run.values("beta/p01")]) > 0
        assert run.values("charts/episodic_return")  # the time limits see to it, whatever was learnt


@pytest.mark.parametrize("case", CASES)
def test_the_forms_see_the_same_episodes_and_partition(runs, case):
    first, *others = [runs[f"{form} {case}"].scalars for form in CASES[case][1]]
    for other in others:
        for tag in first:
            if tag.startswith(("charts/episodic", "partition/", "beta/", "losses/value")):
                assert first[tag] == other[tag], tag


@pytest.mark.parametrize("case", ["eager, 1 environment"])
def test_a_run_by_itself_ends_with_the_same_bytes(runs, case):
    """The others run in forks of a process that has imported torch."""
    assert runs[f"clip {case}"].result["params_sha256"] == runs["clip alone"].result["params_sha256"]


@pytest.mark.parametrize("case", ["cartpole, eager"])
def test_another_seed_gives_another_hash(runs, case):
    assert runs[f"clip {case}"].result["params_sha256"] != runs[f"clip {case}, other seed"].result["params_sha256"]


def float32_ties(agent, obs, actions, rng, count, edge, away):
    """(indices, old_logprob, advantages) of count samples whose float32 ratio w is the float32 next to edge, outside
    the band, and whose advantage Â makes w Â and edge Â one and the same float32."""
    with torch.no_grad():
        new_logprob = agent(obs, actions)[0].numpy()
    outside, edge = np.nextafter(np.float32(edge), np.float32(away)), np.float32(edge)
    found = []
    for i in rng.permutation(len(new_logprob)):
        near = np.float32(new_logprob[i] - np.log(np.float64(outside)))
        for old in (np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))):
            if (torch.tensor(new_logprob[i]) - torch.tensor(old)).exp().item() == outside:
                advantages = rng.normal(size=100).astype(np.float32)
                advantages = advantages[(outside * advantages == edge * advantages) & (advantages * (away - edge) > 0)]
                found += [(i, old, advantages[0])] if len(advantages) else []
                break
        if len(found) == count:
            return (np.array(x) for x in zip(*found, strict=True))
    raise AssertionError("no ties found")


@pytest.mark.parametrize("task", ["continuous", "cartpole"])
def test_the_forms_agree_where_float32_ties(task):
    """One rounding step outside the band w Â = clip(w) Â in float32: min then halves the gradient which the other forms
    set to 0. update computes the objective in float64, where this does not happen."""
    modules = [importlib.import_module(script) for script in SURROGATES if script.endswith(task)]
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    agent = modules[0].Agent(3, 2)
    obs = torch.randn(4096, 3)
    actions = torch.randn(4096, 2) if task == "continuous" else torch.randint(2, (4096,))
    above, below = (float32_ties(agent, obs, actions, rng, 32, *edge) for edge in ((1.2, 2.0), (0.8, 0.0)))
    index, old_logprob, advantages = (torch.as_tensor(np.concatenate(pair)) for pair in zip(above, below, strict=True))
    obs, actions = obs[index], actions[index]

    def gradient(module, dtype):
        """The surrogate's gradient with respect to the 64 log-probabilities."""
        new_logprob = agent(obs, actions)[0].detach().to(dtype).requires_grad_()
        objective = module.surrogate(new_logprob, old_logprob.to(dtype), advantages.to(dtype), 0.2)
        return torch.autograd.grad(objective.sum(), new_logprob)[0]

    single, double = ([gradient(module, dtype) for module in modules] for dtype in (torch.float32, torch.float64))
    assert (single[0] != single[1]).all(), "not ties: this test shows nothing"
    assert all(torch.equal(double[0], other) for other in double[1:])

    args = modules[0].Args()
    rate, eps = (torch.tensor(x, dtype=torch.float64) for x in (3e-4, 0.2))
    minibatch = modules[0].Batch(obs, actions, old_logprob, advantages, torch.randn(64), torch.randn(64))
    parameters = []
    for module in modules:
        torch.manual_seed(0)
        trained = module.Agent(3, 2)
        adam = module.Adam(list(trained.parameters()))
        for _ in range(3):
            module.update(args, module.surrogate, trained, adam, rate, eps, eps, minibatch)
        parameters.append(torch.cat([p.flatten() for p in trained.parameters()]))
    assert all(torch.equal(parameters[0], other) for other in parameters[1:])
