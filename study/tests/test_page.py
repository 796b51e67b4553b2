"""The interactive page, in a real browser: it draws, its controls act, nothing leaves it."""

import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import collect
import dataset
import numpy as np
import page
import pandas as pd
import paper
import pytest
import sweep
from helpers import ROOT
from playwright.sync_api import expect, sync_playwright

import ppo_kl_scalar_continuous
from betas import loop

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
PATIENCE_MS = 120_000  # for a machine on which much else runs
SHOWN = ("clip", "klip", "phi", "kl_fixed")


def run_row(task, variant, seed, **changes):
    """A row as collect.load returns it."""
    defaults = ppo_kl_scalar_continuous.Args(exp_name=f"ppo_{variant}_continuous", env_id=task, total_timesteps=40_960)
    arguments = {name: value for name, value in asdict(defaults).items() if name not in sweep.NOT_COMPARED}
    row = {
        "run": f"{task}__{variant}__{seed}",
        "env_id": task,
        "variant": variant,
        "seed": str(seed),
        "final_return": "100.5",
        "diverged_at": "",
        "sps": "1",
        "wall_time_s": "1",
        "params_sha256": f"{variant}{seed}",
        "script_sha256": "1",
        "version": "1",
        "versions": "torch=2",
        "args": json.dumps(arguments),
        "ended": "",
    }
    return row | changes


def some_curves(runs):
    """Curves of 20 iterations, or up to where a run diverged, as collect.load returns them."""
    tables = []
    for row in runs.to_dict("records"):
        steps = np.arange(2048, int(row["diverged_at"] or 40_960) + 1, 2048)
        values = dict.fromkeys(collect.TAGS.values(), np.float32(0.25)) | {"episodic_return": steps / 100}
        identity = {name: row[name] for name in ("run", "env_id", "variant", "seed")}
        tables.append(pd.DataFrame({**identity, "global_step": steps, **values}))
    return pd.concat(tables, ignore_index=True)


def write(path, runs, curves):
    """A page of these runs, which are not the whole study."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.page(runs, curves), encoding="utf-8")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A page of a part of the study's runs, of two that diverged, and of one whose script is not there."""
    runs, curves = dataset.load(ROOT / "study" / "data")
    kept = runs[runs["variant"].isin(SHOWN) & runs["seed"].isin(["0", "1"]) & (runs["env_id"] == "Hopper-v4")]
    kept = kept[~kept["run"].str.contains("/") | kept["run"].str.startswith("knobs/beta=3/")]
    curves = curves[curves["run"].isin(kept["run"])]
    lost, alone = (
        run_row(task, "kl_fixed", 3, final_return="", diverged_at="20480", command="", code="")
        for task in ("Walker2d-v4", "Ant-v4")
    )
    mine = run_row("Walker2d-v4", "<b>", 0, versions="<!--<script></script>", command="", code="")
    added = pd.DataFrame([lost, alone, mine])
    path = tmp_path_factory.mktemp("published") / "page.html"
    write(path, pd.concat([kept, added]), pd.concat([curves, some_curves(added)]))
    return path, kept


def test_a_text_is_read_from_the_file_whatever_python_keeps():
    """Under python -OO modules have no docstrings, and the page shows those of the scripts."""
    assert page.docstring(ppo_kl_scalar_continuous.__file__) == inspect.cleandoc(ppo_kl_scalar_continuous.__doc__)
    assert page.docstring(__file__).startswith("The interactive page")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


MIDDLE_OF_THE_FIRST_CURVE = """() => {
    const plot = document.getElementById("curves");
    const {xaxis, yaxis} = plot._fullLayout;
    const {data: [line]} = plot;
    const box = plot.getBoundingClientRect();
    const middle = 60;
    return [
        box.left + xaxis._offset + xaxis.d2p(line.x0 + middle * line.dx),
        box.top + yaxis._offset + yaxis.d2p(line.y[middle]),
    ];
}"""


@pytest.fixture
def visit(browser):
    """Opens a file and returns its page once all is drawn. At the end nothing may have been said on the console, and
    nothing asked for but the file."""
    contexts = []
    said = []
    requested = []

    def opened(path, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: requested.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_selector("body[data-drawn]")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert len(requested) == len(contexts)
    assert all(url.startswith("file:") for url in requested)


def drawn(tab, plot, what):
    """What plotly has drawn in an element: a JavaScript expression of its `data`."""
    return tab.evaluate(f"(({{data}}) => {what})(document.getElementById('{plot}'))")


def names_drawn(tab):
    """The texts under the pointer of the curves."""
    return drawn(tab, "curves", "data.map((trace) => (trace.hovertemplate ?? '').split('<br>')[0])")


def test_an_update_is_played(published, visit):
    tab = visit(published[0])
    record = np.load(ROOT / "study" / "updates.npz")
    assert tab.locator("#epoch-text").text_content() == "1 of 10"
    tab.locator("#epoch").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#epoch-text").text_content() == "2 of 10"
    tab.keyboard.press("End")
    for side, method in (("left", "clip"), ("right", "none")):
        log_ratio = record[f"log_ratio_{method}"][9].astype(float)
        shown = drawn(tab, f"cloud-{side}", "data[0].customdata.map(([ratio]) => ratio)")
        assert np.allclose(np.log(shown), log_ratio, atol=1e-3)
        ratio, advantages = np.exp(log_ratio), record["advantages"]
        switched_off = ((ratio > 1.2) & (advantages > 0)) | ((ratio < 0.8) & (advantages < 0))
        text = tab.locator(f"#shares-{side}").text_content()
        assert f"I_in {100 * (np.abs(ratio - 1) <= 0.2).mean():.1f} %" in text
        assert f"I_kill {100 * switched_off.mean():.1f} %" in text
    # The sample that is followed: switched off by the clip, far away without it.
    number = int(tab.locator("#sample").input_value()) - 1
    ratio = np.exp(record["log_ratio_clip"][9].astype(float)[number])
    assert f"w = {ratio:.2f}, in I_kill, which the clip switches off" in tab.locator("#sample-left").text_content()
    assert drawn(tab, "cloud-right", "data[1].x.length") == 10
    tab.locator("#right").select_option("spo")
    assert tab.locator("#title-right").text_content() == "spo"
    tab.locator("#play").focus()
    tab.keyboard.press("Enter")
    assert tab.locator("#play").text_content() == "Stop"
    expect(tab.locator("#epoch-text")).to_have_text("3 of 10", timeout=PATIENCE_MS)


def test_the_coefficient_follows_method_and_epsilon(published, visit):
    tab = visit(published[0])
    column = int(np.abs(page.PLANE_RATIOS - 1.2625).argmin())
    row = int(np.abs(page.PLANE_ADVANTAGES - 1.05).argmin())
    value = f"data[0].z[{row}][{column}]"
    assert drawn(tab, "plane", value) == pytest.approx(-1.2625 * 1.05, abs=1e-3)  # in I_kill: -w Â
    other_column = int(np.abs(page.PLANE_RATIOS - 0.7375).argmin())
    other_row = int(np.abs(page.PLANE_ADVANTAGES + 1.05).argmin())
    other_value = f"data[0].z[{other_row}][{other_column}]"
    assert drawn(tab, "plane", other_value) == pytest.approx(0.7375 * 1.05, abs=1e-3)
    tab.locator("#epsilon").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#epsilon-text").text_content() == "0.3"
    assert drawn(tab, "plane", value) == 0  # inside the wider band
    tab.locator("#method").select_option("spo")
    assert drawn(tab, "plane", value) == pytest.approx(-1.05 * 1.2625 * 0.2625 / 0.3, abs=1e-3)
    assert "Simple Policy Optimization" in tab.locator("#method-text").text_content()
    tab.locator("#method").select_option("none")
    assert drawn(tab, "plane", value) == 0
    assert "has no ε" in tab.locator("#epsilon-note").text_content()


def test_runs_are_chosen(published, visit):
    path, runs = published
    tab = visit(path)
    triples = runs[~runs["run"].str.contains("/")].groupby("seed")["params_sha256"].unique()
    assert all(len(hashes) == 2 for hashes in triples)  # of clip, klip and phi one; of kl_fixed another
    names = names_drawn(tab)
    assert {"clip = klip = phi, seed 0", "clip = klip = phi, seed 1", "kl_fixed, seed 0"} <= set(names)
    assert "the paper's clip, mean of 5 seeds" in names
    boxes = tab.locator("#methods").text_content()
    assert "clip = klip = phi (2)" in boxes
    assert "kl_adaptive" not in boxes  # nobody trained it

    tab.locator("#methods input[value=clip]").focus()
    tab.keyboard.press("Space")
    assert not any("clip" in name for name in names_drawn(tab))
    tab.locator("#task").select_option("Walker2d-v4")  # has no run of clip
    tab.locator("#task").select_option("Hopper-v4")
    assert not any("clip" in name for name in names_drawn(tab))
    tab.locator("#all").click()
    tab.locator("#seed").select_option("1")
    assert "kl_fixed, seed 0" not in names_drawn(tab)
    tab.locator("#quantity").select_option("kill")
    assert drawn(tab, "curves", "Math.max(...data[0].y)") < 1
    tab.locator("#run-choice").select_option(label="clip = klip = phi, seed 1")
    text = tab.locator("#run").text_content()
    clip = runs[(runs["variant"] == "clip") & (runs["seed"] == "1")].iloc[0]
    assert clip["params_sha256"] in text
    assert "git checkout --quiet 7f6bbee && python ppo_phi_continuous.py --env-id Hopper-v4 --seed 1" in text
    tab.locator("#folder").select_option("knobs/beta=3")
    tab.locator("#run-choice").select_option(label="kl_fixed, seed 1")
    assert "--beta 3" in tab.locator("#run").text_content()

    tab.locator("#folder").select_option("")
    tab.locator("#methods input[value=clip]").uncheck()
    tab.locator("#seed").select_option("0")
    tab.locator("#curves").scroll_into_view_if_needed()
    tab.mouse.move(*tab.evaluate(MIDDLE_OF_THE_FIRST_CURVE))
    expect(tab.locator("#run")).to_contain_text("Hopper-v4, kl_fixed, seed 0", timeout=PATIENCE_MS)


def test_diverged_and_missing_runs_are_shown_as_such(published, visit):
    tab = visit(published[0])
    tab.locator("#task").select_option("Walker2d-v4")
    note = tab.locator("#curves-note").text_content()
    assert "kl_fixed, seed 3 at step 20,480" in note
    assert "No run of seeds 3: <b>." in note
    assert "kl_fixed (1), 1 diverged" in tab.locator("#methods").text_content()
    tab.locator("#run-choice").select_option(label="<b>, seed 0")
    assert "its script is not in this clone" in tab.locator("#run").text_content()
    tab.locator("#task-returns").select_option("Walker2d-v4")
    assert "1 of 1 diverged" in tab.locator("#returns").text_content()
    assert "its returns are not shown beside these" in tab.locator("#returns-note").text_content()
    assert "clip (no run)" in tab.locator("#methods").text_content()
    for method in ("kl_fixed", "<b>"):
        tab.locator(f"#methods input[value='{method}']").uncheck()
    assert "No run is chosen" in tab.locator("#curves").text_content()


def test_final_returns_stand_beside_the_papers(published, visit):
    path, runs = published
    tab = visit(path)
    main = runs[~runs["run"].str.contains("/")]
    shown = drawn(tab, "returns", "data.map((trace) => trace.x)")
    clip = main[main["variant"] == "clip"].sort_values("seed", key=lambda column: column.astype(int))
    assert sorted(shown[0]) == pytest.approx(sorted(clip["final_return"].astype(float)))
    assert [2598] in shown  # the paper's clip
    tab.locator("#folder-returns").select_option("knobs/beta=3")
    assert "The paper did not train with these arguments" in tab.locator("#returns-note").text_content()
    assert [2616] not in drawn(tab, "returns", "data.map((trace) => trace.x)")  # its kl_fixed has another β


def test_settings_stand_over_the_kl(published, visit):
    path, runs = published
    tab = visit(path)
    shown = drawn(tab, "settings", "data.map((trace) => [trace.name, trace.y, trace.customdata])")
    of_fixed = runs[runs["variant"] == "kl_fixed"].assign(folder=runs["run"].str.rpartition("/")[0])
    returns = of_fixed["final_return"].astype(float).groupby(of_fixed["folder"])
    (points,) = (dict(zip(map(tuple, names), y, strict=True)) for method, y, names in shown if method == "kl_fixed")
    for folder, setting in (("", "kl_fixed"), ("knobs/beta=3", "kl_fixed --beta 3")):
        of_setting = returns.get_group(folder)
        (mean,) = (y for (name, _, seeds), y in points.items() if (name, seeds) == (setting, 2))
        assert mean == pytest.approx(of_setting.mean())
    assert not tab.locator("#answer").is_visible()  # no setting has its runs of stage 1
    assert tab.locator("#task-settings option").all_text_contents() == ["Hopper-v4", "Walker2d-v4", "Ant-v4"]
    tab.locator("#task-settings").select_option("Ant-v4")  # its only run diverged
    assert tab.locator("#settings-note").text_content() == "No run of this task has a return and a KL."


def test_it_fits_a_narrow_screen_and_follows_the_systems_colours(published, visit):
    tab = visit(published[0], viewport={"width": 400, "height": 800}, color_scheme="light")
    assert tab.evaluate("document.scrollingElement.scrollWidth") == 400
    text = tab.locator("#plane .xtick text").first
    dark_on_light = text.evaluate("(element) => element.style.fill")
    tab.emulate_media(color_scheme="dark")
    expect(text).not_to_have_css("fill", dark_on_light, timeout=PATIENCE_MS)
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = text.evaluate("(element) => getComputedStyle(element).fill")
    ground, ink = (sum(map(int, color[4:-1].split(","))) for color in (ground, ink))
    assert ground < ink


def test_one_run_is_enough(tmp_path, visit):
    runs = pd.DataFrame([run_row("CartPole-v1", "clip", 0)])
    path = tmp_path / "folder" / "index.html"
    write(path, runs, some_curves(runs))
    tab = visit(path)
    assert tab.locator("#task").input_value() == "CartPole-v1"
    assert names_drawn(tab)[0] == "clip, seed 0"
    assert not tab.locator("#folder-label").is_visible()


def test_runs_of_two_versions_have_no_common_mean():
    rows = [
        run_row("Hopper-v4", "clip", seed, version=version, final_return=f"{10 * seed}")
        for seed, version in enumerate(["new", "new", "old", "old", "old"])
    ]
    rows[-1]["final_return"] = ""
    runs = pd.DataFrame(rows)
    lines, means = page.learning_curves(runs, some_curves(runs))
    assert len(lines) == 5
    found = {(mean["seeds"], mean["returns"], mean["final_return"]) for mean in means}
    assert found == {(2, 2, 5.0), (3, 2, 25.0)}


def test_the_command_that_trains_a_users_run_again_says_every_argument():
    """No default is asked, so it stays right when one changes."""
    path = ROOT / "betas" / "rollback.py"
    arguments = ["--env-id", "CartPole-v1", "--total-timesteps", "1000000", "--compile", "--clip-coef", "0.5"]
    args, _, _ = loop.parse(path, [*arguments, "--alpha", "0.1"])
    recorded = {name: value for name, value in vars(args).items() if name not in sweep.NOT_COMPARED}
    row = run_row("CartPole-v1", "rollback", 0, args=json.dumps(recorded))
    command = page.command(row).split()
    assert command[:2] == ["python", "betas/rollback.py"]
    again, _, _ = loop.parse(path, command[2:])
    assert again == args
    assert page.command(run_row("CartPole-v1", "mine", 0, args=json.dumps(recorded | {"exp_name": "lost"}))) == ""


def test_the_command_that_trains_a_second_variant_of_a_script_again():
    row = run_row("Hopper-v4", "kl_adaptive", 0)
    said = "python ppo_kl_scalar_continuous.py --env-id Hopper-v4 --seed 0 --exp-name ppo_kl_adaptive_continuous "
    assert page.command(row).startswith(said)


def test_a_folder_that_is_not_drawn_yet_is_one_line(tmp_path):
    command = [sys.executable, ROOT / "study" / "page.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode
    assert done.stderr.startswith(f"error: {tmp_path} has no plots/runs.csv")


def test_every_variant_has_a_look_that_the_page_can_draw():
    page.looks([*paper.VARIANTS, *(f"mine{number}" for number in range(20))])


def test_a_users_file_is_among_the_methods(tmp_path):
    """At each ε that the slider has; and those that fail are named."""
    source = (ROOT / "betas" / "spo.py").read_text(encoding="utf-8")
    wrong = {
        "unfinished": ("import torch\nbeta = ", "SyntaxError"),
        "undefined": (source.replace("ratio = ", "ratio = undefined + "), "NameError"),
        "trains": (
            source + "import ppo_klip_cartpole as c\nc.train(c.Args(), surrogate)\n",
            "it trains when it is imp",
        ),
        "ends": (source + "raise SystemExit('bye')\n", "it ends the program"),
        "sums": (source.replace("beta * kl", "beta * kl.sum()").replace(").detach()", ")"), ".detach()"),
        "empty": ("", "it has no surrogate"),
    }
    (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    for name, (text, _) in wrong.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    found = page.coefficients(*page.surrogates(tmp_path))
    assert "clip" in found["methods"] and not wrong.keys() & found["methods"].keys()
    assert len(set(found["methods"]["mine"]["planes"])) == len(page.EPSILONS)
    for name, (_, told) in wrong.items():
        (line,) = (line for line in found["failures"] if line.startswith(f"betas/{name}.py: "))
        assert told in line
