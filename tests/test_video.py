"""--capture-video writes real videos without a display, and says so in one line when it cannot."""

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
    videos = sorted((filmed.cwd / "videos/mine").glob("*.mp4"))
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
    assert not (plain.cwd / "videos").exists()


@pytest.mark.parametrize(("name", "variables"), [("Hopper", {}), ("CartPole", {"SDL_VIDEODRIVER": "nonsense"})])
def test_a_missing_renderer_is_named(name, variables, tmp_path):
    """The renderer's own warnings and last words may stand around the line."""
    done = run(tmp_path, *TASKS[name], "--capture-video", **variables)
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "--capture-video" in line and "MUJOCO_GL=egl" in line


def test_the_video_of_an_endless_episode_ends(tmp_path):
    """Its frames are in memory until then."""
    endless = task("cartpole", "Endless")
    arguments = ("--env-id", endless, "--num-envs", "1", "--num-steps", "1200", "--run-name", "mine")
    done = run(tmp_path, "ppo_klip_cartpole", *arguments, "--total-timesteps", "1200", "--capture-video")
    assert (done.returncode, done.stderr) == (0, "")
    (video,) = tmp_path.glob("videos/mine/*.mp4")
    assert len(iio.imread(video)) == 1000
