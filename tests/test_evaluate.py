"""tools/evaluate.py: it plays what was saved, with the network and the statistics that it was trained with."""

import re
import subprocess
import sys

import numpy as np
import pytest
from countdown_env import reward, who_of
from helpers import ONE_OF_EACH, ROOT, environment, run, task

SHORT = ("--num-envs", 1, "--num-steps", 64, "--num-minibatches", 2, "--total-timesteps", 256, "--save-model")


def evaluate(*arguments):
    command = [sys.executable, ROOT / "tools" / "evaluate.py", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def returns_of(done):
    assert done.returncode == 0, done.stderr
    return [float(value) for value in re.findall(r"^episode \d+: (\S+)$", done.stdout, re.MULTILINE)]


@pytest.mark.parametrize("script", ONE_OF_EACH)
def test_the_returns_are_those_of_the_episodes(script, tmp_path):
    """Endless never ends an episode: that is cut off. Its rewards depend on seed, episode and step alone."""
    trained = run(tmp_path, script, *SHORT, "--env-id", task(script, "Endless"), "--no-compile")
    assert trained.returncode == 0, trained.stderr
    found = returns_of(evaluate(trained.folder, "--episodes", 2))
    seed = np.random.SeedSequence(0).spawn(4)[2].generate_state(1)[0]  # of a stream that no training uses
    expected = [sum(reward(who_of(seed), episode, step) for step in range(10_000)) for episode in (0, 1)]
    assert found == pytest.approx(expected, abs=0.05)
    again = returns_of(evaluate(trained.folder, "--episodes", 2, "--seed", 5))
    assert again != found


def test_an_agent_with_another_network_is_played_with_that_network(tmp_path):
    """By the copy in its folder, whatever has become of the script since."""
    text = (ROOT / "ppo_clip_continuous.py").read_text(encoding="utf-8")
    script = tmp_path / "wide.py"
    script.write_text(
        text.replace("nn.Linear(inputs, 64)", "nn.Linear(inputs, 32)").replace("Linear(64, 64)", "Linear(32, 64)")
    )
    arguments = (*SHORT, "--env-id", "Pendulum-v1", "--no-compile", "--run-name", "mine")
    command = [sys.executable, script, *map(str, arguments)]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    script.unlink()
    assert len(returns_of(evaluate(tmp_path / "runs" / "mine", "--episodes", 3))) == 3


def test_an_evaluation_is_filmed(tmp_path):
    trained = run(tmp_path, "ppo_clip_cartpole", *SHORT)
    assert len(returns_of(evaluate(trained.folder, "--episodes", 2, "--video"))) == 2
    assert len(list((trained.folder / "evaluation").glob("*.mp4"))) == 2


def test_what_cannot_be_played_is_one_line(tmp_path):
    done = evaluate(tmp_path)
    assert (done.returncode, done.stderr) == (2, f"error: {tmp_path} has no agent.pt: train with --save-model\n")
    (tmp_path / "agent.pt").touch()
    done = evaluate(tmp_path, "--episodes", 0)
    assert done.returncode == 2 and done.stderr.startswith("error: --episodes must be at least 1")
