"""The documents: their links lead somewhere, and their commands that train are accepted."""

import importlib
import re
import shlex
import subprocess

import cmarkgfm
import pytest
import tyro
from cmarkgfm.cmark import Options
from helpers import ROOT, run_in_turn
from PIL import Image

from betas.loop import parse

README = ROOT / "README.md"
OTHERS = ("CONTRIBUTING.md", "betas/README.md", "study/v5/README.md")
FOLDERS = [path for folder in ("docs", "study") for path in sorted((ROOT / folder).glob("*.md"))]
DOCUMENTS = [README, *(ROOT / name for name in OTHERS), *FOLDERS]
# What is said in other words: "switched off", "differs significantly", "step size (KL)".
AVOIDED = r"silen(?:t|ce)\w*|can(?:not)? be told from"
# Words of the protocol of one contest.
PROTOCOL = r"finalists?|controls?|knobs?|distance"
TRAINS = re.compile(
    r"^ *(?:\S*python )?"
    r"(betas/\w+\.py|ppo_\w+\.py|\./benchmark\.sh)(?= |$)",
    re.MULTILINE,
)


def names(path):
    return path.relative_to(ROOT).as_posix()


def anchor(heading):
    """The fragment by which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_nothing_strays_to_the_top_level():
    """A clone's top level is what the README says is where, and what git, GitHub and the linters ask for."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a clone")
    top = {line.partition("/")[0] for line in listed.stdout.splitlines()}
    section = README.read_text(encoding="utf-8").partition("## What is where")[2].partition("\n## ")[0]
    told = {name.strip("/") for name in re.findall(r"^\| `([^`*]+)` \|", section, re.MULTILINE)}
    others = {".ci", ".gitattributes", ".github", ".gitignore", "CITATION.cff", "CONTRIBUTING.md", "LICENSE"}
    others |= {"README.md", "requirements.txt", "ruff.toml"}
    assert {name for name in top if not re.fullmatch(r"ppo_\w+\.py", name)} == told | others


def commands():
    """Of the lines of all documents those that call a script at the top or benchmark.sh, from there on, as words.

    Those that begin with the checkout of a commit are for the scripts of that commit.
    """
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", "")
        text = re.sub(r"^```\ngit checkout .*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for match in TRAINS.finditer(text):
            words = shlex.split(text[match.start(1) :].partition("\n")[0], comments=True)
            yield pytest.param(words, id=f"{names(path)}: {' '.join(words)}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=names)
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\((?!\w+://)([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, fragment = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if fragment:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in map(anchor, headings), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=names)
def test_no_markup_is_left_in_the_text(path):
    """As GitHub renders it: a line that begins with a comment ends its paragraph and shows the rest as it is typed."""
    source = path.read_text(encoding="utf-8")
    assert re.findall(r"^<!--[^>]*-->.*\w.*", source, re.MULTILINE) == []
    page = cmarkgfm.github_flavored_markdown_to_html(source, Options.CMARK_OPT_UNSAFE)
    page = re.sub(r"<(pre|code)\b.*?</\1>", "", page, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->|<[^>]+>", "", page, flags=re.DOTALL)
    assert re.findall(r".*(?:`|\*\*|\]\(|^#+ |^\|).*", text, re.MULTILINE) == []


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "study" / "page.html"], ids=names)
def test_words(path):
    """In running text, not in code. A protocol may define words of its own; they stay there."""
    of_protocol = names(path) in ("docs/protocol.md", "study/v5/README.md")
    avoided = AVOIDED if of_protocol else f"{AVOIDED}|{PROTOCOL}"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)|<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    assert re.findall(rf"\b(?:{avoided})\b", text, re.IGNORECASE) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=names)
def test_quoted_commands_fit_the_page(path):
    """96 columns are what GitHub shows without a scroll bar. Patches of other people's code are as wide as that."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks if not block.startswith(("$ diff", "--- a/")) for line in block.splitlines()]
    assert [line for line in lines if len(line) > 96] == []


@pytest.mark.parametrize("words", list(commands()))
def test_commands_are_accepted(words):
    """Parsed, not run. mine stands for a file of the reader's own, and Slurm is not asked."""
    program, *arguments = words
    if program.startswith("betas/"):
        parse(ROOT / program.replace("mine", "spo"), arguments)
        return
    if program != "./benchmark.sh":
        script = importlib.import_module(program.removesuffix(".py"))
        script.check(tyro.cli(script.Args, args=arguments))
        return
    if "--slurm" in arguments:
        arguments = arguments[: arguments.index("--")]
    arguments = [argument.replace("mine", "spo") for argument in arguments if argument not in ("--slurm", "--status")]
    command = [f"{ROOT}/benchmark.sh", *arguments, "--dry-run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def without_code(text):
    """The words of a document: without code, tables, pictures and comments."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.sub(r"<!--.*?-->|^\|.*$|^!\[.*$", "", text, flags=re.MULTILINE).split()


def test_the_readme_is_one_screen():
    """Whoever opens it finds something to run at once."""
    text = README.read_text(encoding="utf-8").partition("## Citation")[0]
    assert len(without_code(text)) <= 900
    assert len(without_code(text.partition("git clone")[0])) <= 250


def test_the_coefficients_and_the_answer_are_told_in_500_words():
    """The protocol and all that was found stand in a document of their own."""
    text = (ROOT / "docs" / "betas.md").read_text(encoding="utf-8")
    assert len(without_code(text)) <= 500


def test_the_three_commands_of_the_readme_print_two_equal_hashes_and_another(tmp_path):
    """As they stand there."""
    text = README.read_text(encoding="utf-8")
    lines = re.findall(r"^\.venv/bin/python (\S+)\.py (--total-timesteps .*?) *#", text, re.MULTILINE)
    runs = run_in_turn(tmp_path, {script.replace("/", " "): (script, *words.split()) for script, words in lines})
    clip, klip, other = (run.result["params_sha256"] for run in runs.values())
    assert clip == klip != other


def test_the_moving_picture():
    """Each frame of the update, the last one held."""
    path = ROOT / "docs" / "update.gif"
    assert path.stat().st_size < 1_500_000
    with Image.open(path) as film:
        assert (film.n_frames, film.width) == (31, 800)
        durations = []
        for frame in range(film.n_frames):
            film.seek(frame)
            durations.append(film.info["duration"])
    assert durations[-1] == 2000 and max(durations[:-1]) < 200
