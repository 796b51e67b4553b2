"""--capture-video writes real videos without a display, one an episode."""

import subprocess
import sys

import imageio.v3 as iio
import numpy as np
import pytest
from helpers import SHORT, environment, run, run_all, task

# Two episodes: without a graphics card a frame takes most of a second.
HOPPER = ("ppo_klip_continuous", *SHORT, "--num-steps", "64", "--total-timesteps", "64", "--no-compile")
HOPPER += ("--run-name", "mine")
CARTPOLE = ("ppo_klip_cartpole", "--total-timesteps", "512", "--run-name", "mine")
TASKS = {"Hopper": HOPPER, "CartPole": CARTPOLE}
FRAMES = {"Hopper": (480, 480), "CartPole": (400, 600)}


@pytest.fixture(scope="module")
def egl():
    context = "import mujoco; mujoco.GLContext(64, 64).make_current()"
    command = [sys.executable, "-c", context]
    done = subprocess.run(command, env=environment(MUJOCO_GL="egl"), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(
            f"EGL cannot be loaded here (Mesa's libegl1 libegl-mesa0 libgl1-mesa-dri): {done.stderr.splitlines()[-1]}"
        )


@pytest.fixture(scope="module")
def runs(egl, tmp_path_factory):
    commands = {f"{name} filmed": (*command, "--capture-video") for name, command in TASKS.items()}
    commands["CartPole"] = CARTPOLE
    headless = {"MUJOCO_GL": "egl", "SDL_VIDEODRIVER": "dummy"}
    return run_all(tmp_path_factory.mktemp("video"), commands, **headless)


@pytest.mark.parametrize("name", TASKS)
def test_the_videos_show_something_that_moves(runs, name):
    filmed = runs[f"{name} filmed"]
    videos = sorted((filmed.folder / "videos").glob("*.mp4"))
    assert len(videos) >= 2
    for video in videos:
        frames = iio.imread(video)
        assert len(frames) > 5
        assert frames.shape[1:3] == FRAMES[name]
        assert frames.std() > 10, "a blank picture"
        assert np.abs(np.diff(frames[:, ::4, ::4].astype(int), axis=0)).max() > 50, "a still picture"


def test_filming_is_quiet_and_changes_nothing(runs):
    filmed, plain = runs["CartPole filmed"], runs["CartPole"]
    assert filmed.stderr == runs["Hopper filmed"].stderr == ""
    assert filmed.result["params_sha256"] == plain.result["params_sha256"]
    assert not (plain.folder / "videos").exists()


def test_a_film_is_one_episode(tmp_path):
    """Of as many pictures as the episode has observations, however short or long it is."""
    arguments = ("--env-id", "countdown_env:Filmed-v0", "--num-envs", "1", "--num-steps", "1200")
    arguments += ("--num-minibatches", "8", "--total-timesteps", "1200", "--run-name", "mine", "--capture-video")
    done = run(tmp_path, "ppo_klip_cartpole", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lengths = {int(path.stem.split("-")[-1]): len(iio.imread(path)) for path in tmp_path.glob("runs/mine/videos/*.mp4")}
    assert lengths == {0: pytest.approx(1101, abs=1), 1: 6, 8: 6}  # a still picture may be left out


@pytest.mark.parametrize("habit", ["Film", "Countdown"])
def test_a_film_that_fails_costs_no_training(habit, tmp_path):
    """It ends with its traceback: at once where nothing can be filmed, and after the result where a film is written."""
    arguments = ("--env-id", task("cartpole", habit), "--num-envs", "1", "--num-steps", "64", "--num-minibatches", "2")
    arguments += ("--total-timesteps", "64", "--run-name", "mine", "--capture-video")
    done = run(tmp_path, "ppo_klip_cartpole", *arguments)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert (tmp_path / "runs/mine/result.json").exists() == (habit == "Film")
