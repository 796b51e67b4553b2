"""Reads the runs of a sweep for benchmark.sh, which writes the list of runs to the standard input, a line a run:

    sweep.py train    checks the arguments of every run and prints the lines of those that are to be trained
    sweep.py slurm    the same, without those that are queued in Slurm
    sweep.py status   prints the table, whether the three forms ended with the same bits, and the states
    sweep.py end      the same, once the pictures are drawn

What it says of a run comes from the run's result.json, its log, and the lock on that.
"""

import argparse
import importlib
import json
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FORMS = ("clip", "klip", "phi")  # three forms of one update: trained with one seed, they end with the same bits
COMPLETE = ("done", "diverged")
TO_TRAIN = ("missing", "failed", "running")  # what another sweep is at may be left to this one
NUMBER = (int, float, type(None))
FIELDS = {"args": dict, "final_return": NUMBER, "diverged_at": NUMBER, "versions": dict}
FIELDS |= {"params_sha256": str, "script_sha256": str}
# Arguments that do not change the training, and those that in addition only say what is kept of it.
NOT_TRAINING = ("run_name", "track", "wandb_project_name", "wandb_entity")
NOT_COMPARED = (*NOT_TRAINING, "capture_video", "save_model", "env_id", "seed")


class Run(NamedTuple):
    """A line of the list of runs."""

    name: str
    task: str
    variant: str
    seed: str
    script: str
    arguments: tuple


class State(NamedTuple):
    """What has become of a run: a word, a remark on it, and its result if that is the one asked for."""

    word: str
    remark: str = ""
    result: dict | None = None


def parse(line):
    """A line of the list of runs as a Run."""
    name, task, variant, seed, script, *arguments = line.split("\t")
    return Run(name, task, variant, seed, script, tuple(arguments))


def fail(message):
    """Ends the program with one line on standard error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def untried():
    """The installed packages whose versions are not those of requirements.txt, with which everything was tried."""
    from packaging.requirements import Requirement  # tensorboard's; a Python without the requirements is named later

    found = []
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        requirement = Requirement(text) if text else None
        if requirement is None or (requirement.marker and not requirement.marker.evaluate()):
            continue
        try:
            installed = version(requirement.name).partition("+")[0]  # without the +cpu of a build
        except PackageNotFoundError:
            continue
        if not requirement.specifier.contains(installed):
            found.append(f"{requirement.name} {installed} ({requirement.specifier})")
    return found


class Unusable(Exception):
    """A script that nothing can be trained with. The message names it and says why, in one line."""


@cache
def parsed(run):
    """The arguments with which a run is to be trained, and the files that say what is trained: the script, or for a
    file of betas/ the script whose loop it uses and the file. Ends the program if the script refuses the arguments."""
    if not (ROOT / run.script).is_file():
        fail(f"variant {run.variant}: there is no script {run.script}")
    if {"--help", "-h"} & set(run.arguments):
        fail("--script-args: --help trains nothing")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    try:
        import tyro
    except ImportError as error:
        fail(f"{error}, in {sys.executable}: install requirements.txt there, or leave PYTHON unset")
    try:
        if run.script.startswith("betas/"):
            loop = importlib.import_module("betas.loop")
            args, script, _ = loop.parse(ROOT / run.script, run.arguments, prog=run.script)
            sources = (Path(script.__file__), ROOT / run.script)
        else:
            script = importlib.import_module(run.script.removesuffix(".py"))
            args = tyro.cli(script.Args, prog=run.script, args=run.arguments)
            script.check(args)
            sources = (ROOT / run.script,)
    except Exception as error:  # the script may be the user's, and unfinished
        first_line, _, _ = str(error).partition("\n")
        raise Unusable(f"{run.script}: {type(error).__name__}: {first_line}") from None
    name = f"{args.env_id}__{args.exp_name}__{args.seed}"
    if not f"/{run.name}".endswith(f"/{name}"):
        fail(f"{run.name} would be {name}: tasks, seeds (as 0,1) and names have flags of their own; see --help")
    return args, sources


def asked(run):
    """The arguments with which a run is to be trained."""
    return parsed(run)[0]


def unusable_scripts(runs):
    """The scripts of runs that nothing can be trained with, and why, {script: line}."""
    found = {}
    with redirect_stdout(sys.stderr):  # what a file or a task prints is no line of the plan
        for run in runs:
            if run.script in found:
                continue
            try:
                asked(run)
            except Unusable as error:
                found[run.script] = str(error)
    return found


def changed(run, folder):
    """The files that say what a run trains of which its folder has no copy, or another one."""
    _, sources = parsed(run)
    found = []
    for source in sources:
        copy = folder / source.name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            found.append(source.relative_to(ROOT).as_posix())
    return found


def differences(have, want, ignored):
    """In what the arguments of a run, a dict, are not those that asked returns."""
    want = json.loads(json.dumps(vars(want), default=str))  # as in the run's result.json
    if have.get("compile") is False:
        want = want | {"compile": False}  # without a C++ compiler a run goes on uncompiled
    return [f"{k} {have.get(k)}, not {v}" for k, v in want.items() if k not in ignored and have.get(k) != v]


def read_result(path):
    """The content of a result.json, or a line that says why it is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return str(error)
    if not isinstance(result, dict):
        return f"it holds {json.dumps(result)[:20]}"
    wrong = [field for field, kind in FIELDS.items() if not isinstance(result.get(field, ...), kind)]
    return f"{', '.join(wrong)} not there, or not as it should be" if wrong else result


def locked(path):
    """Whether a process holds the lock on a run's log."""
    import fcntl  # not on Windows, where the plots work

    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:  # of another kind where a file system has no locks
            return isinstance(error, BlockingIOError)
    return False


def inspect(run, base, queued=(), failed=()):
    """The State of a run below the folder base. queued: names of runs; failed: what was said of those that failed, by
    name."""
    folder, log = base / run.name, base / "logs" / f"{run.name}.log"
    if (folder / "result.json").exists():
        result = read_result(folder / "result.json")
        if isinstance(result, str):
            return State("damaged", f"its result.json is none ({result}): move {folder} away")
        try:
            wrong = differences(result["args"], asked(run), NOT_TRAINING)
        except Unusable as error:
            return State("failed", str(error))
        if not wrong:
            wrong = [f"{name} has changed since" for name in changed(run, folder)]
        if wrong:
            return State("differs", "; ".join(wrong) + f": move {folder} away, or use --into NAME")
        if result["diverged_at"] is not None:
            return State("diverged", f"at step {result['diverged_at']}, log {log}", result)
        no_return = "no return, because no episode ended in the last tenth of its steps"
        return State("done", no_return if result["final_return"] is None else "", result)
    lines = (log.read_text(encoding="utf-8", errors="replace").splitlines() or [""]) if log.is_file() else []
    if lines and locked(log):
        return State("running", "starting" if lines[-1].startswith("===") else lines[-1])
    if run.name in queued:
        return State("queued")
    ended = lines and lines[-1].startswith("=== exit code")
    if run.name not in failed and not ended:
        return State("missing")
    start = max((i for i, line in enumerate(lines) if line.startswith("=== 20")), default=-1)
    said = [line for line in lines[start + 1 :] if line.strip() and not line.startswith("===")]
    reason = ([line for line in said if "error" in line.lower()] or said)[-1:]
    head = failed[run.name].removeprefix("failed: ") if run.name in failed else lines[-1].removeprefix("=== ")
    return State("failed", "\n  ".join([f"{head}, log {log}", *reason]))


def in_slurm(base, required):
    """The names of the runs that wait or run in Slurm: lines of the list with which a job array was submitted."""
    if not (base / "slurm").is_dir():
        return set()
    command = ["squeue", "--me", "--noheader", "--array", "--format", "%j %K"]
    try:
        jobs = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        if required:
            fail(f"--slurm: what is queued already is unknown ({error}); try again later")
        return set()
    found = set()
    for line in jobs:
        job, _, index = line.rpartition(" ")
        path = base / "slurm" / f"{job}.list"
        if path.is_file():
            found.add(path.read_text(encoding="utf-8").splitlines()[int(index)].split("\t")[0])
    return found


def columns(rows):
    """Rows of text as lines in which the columns are below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def summary(states):
    """The table of {Run: State} as lines: final return, number and first digits of the hashes per task and variant."""
    cells = defaultdict(dict)
    for run, state in states.items():
        cells[run.task, " ".join([run.variant, *run.name.split("/")[:-1]])][run.name] = state
    rows = [("task", "variant", "return", "runs", "params_sha256 by seed")]
    for (task, variant), cell in cells.items():
        words = Counter(state.word for state in cell.values())
        results = [state.result for state in cell.values()]
        returns = [result["final_return"] for result in results if result and result["final_return"] is not None]
        text = f"{statistics.mean(returns):.1f}" if returns else "-"
        text += f" ± {statistics.pstdev(returns):.1f}" if len(returns) > 1 else ""
        count = f"{words['done']} of {len(cell)}"
        count += f", {words['diverged']} diverged" if words["diverged"] else ""
        hashes = " ".join(result["params_sha256"][:4] if result else "----" for result in results)
        rows.append((task, variant, text, count, hashes))
    return columns(rows)


def identity(states):
    """How many of the triples (or pairs) of {Run: State} ended with the same bits, and lines on those that did not."""
    twins, same, compared, parted = defaultdict(dict), Counter(), Counter(), []
    for run, state in states.items():
        if run.variant in FORMS:
            twins[run.task, run.seed, run.name.rpartition("/")[0]][run.variant] = state.result
    for (task, seed, _), forms in twins.items():
        if len(forms) == 1 or not all(forms.values()):
            continue
        hashes = {form: result["params_sha256"] for form, result in forms.items()}
        compared[tuple(forms)] += 1
        same[tuple(forms)] += len(set(hashes.values())) == 1
        if len(set(hashes.values())) == 1:
            continue
        parted.append(f"{task} seed {seed}: " + ", ".join(f"{form} {sha[:8]}" for form, sha in hashes.items()))
        args = next(iter(forms.values()))["args"]
        minibatch = args["num_envs"] * args["num_steps"] // args["num_minibatches"]
        if minibatch & (minibatch - 1):
            parted.append(f"    a minibatch of {minibatch} is not a power of two: klip may drift by rounding")
        if len({result["args"]["compile"] for result in forms.values()}) > 1:
            parted.append("    some were compiled and some were not")
        versions = {json.dumps(result["versions"]) for result in forms.values()}
        if len(versions) > 1:
            parted.append("    trained with different libraries: " + " and ".join(versions))
    counts = []
    for forms, number in compared.items():
        groups = "triples" if len(forms) == 3 else "pairs"
        counts.append(f"{same[forms]} of {number} {groups} identical to the bit ({' = '.join(forms)})")
    if parted:
        counts.append(
            "NOT IDENTICAL. Likely reasons: different machines, different versions of torch, a minibatch that"
        )
        counts.append("is not a power of two, a script changed in between.")
    return counts, ["  " + line for line in parted]


def remarks(states, words):
    """A line for each run in one of these states that has a remark, failures last."""
    found = [(run.name, state) for run, state in states.items() if state.word in words and state.remark]
    found.sort(key=lambda item: item[1].word == "failed")
    return [f"{state.word}: {name}: {state.remark}" for name, state in found]


def draw(states, base):
    """Draws the pictures of the runs below base; whether that worked."""
    make = ROOT / "plots" / "make.py"
    if not make.exists() or not any(state.result for state in states.values()):
        return True
    print("drawing", flush=True)
    command = [sys.executable, make, base]
    drawn = subprocess.run(command, check=False).returncode == 0
    if not drawn:
        print("no pictures: plots/make.py failed, see above")
    page = ROOT / "study" / "page.py"
    if drawn and page.exists():
        drawn = subprocess.run([sys.executable, page, base], check=False).returncode == 0
    return drawn


def main(args, lines):
    """Does what benchmark.sh asks for; returns the exit code."""
    sys.stdout.reconfigure(errors="replace")  # a terminal may have no sign for ±
    runs = [parse(line) for line in lines]
    for name, count in Counter(run.name for run in runs).items():
        if count > 1:
            fail(f"two runs are called {name}: give a variant an --exp-name of its own, or a seed once")
    queued = in_slurm(args.base, required=args.mode == "slurm") if args.mode in ("slurm", "status") else ()
    failed = dict(line.split("\t") for line in args.failed.splitlines())
    unusable = unusable_scripts(runs) if args.mode != "status" else {}
    states = {run: inspect(run, args.base, queued, failed) for run in runs}
    for run in runs:
        if run.script in unusable:
            states[run] = State("failed", unusable[run.script])
    if args.mode in ("train", "slurm"):
        for line in unusable.values():
            print(f"error: {line}", file=sys.stderr)
        for line in remarks(states, ("damaged", "differs")):
            print(line, file=sys.stderr)
        if all(run.script in unusable for run in runs):
            return 2
        if others := untried():
            print(f"not tried with these versions, so the bits may be others: {', '.join(others)}", file=sys.stderr)
        for line, (run, state) in zip(lines, states.items(), strict=True):
            if state.word in TO_TRAIN and run.name not in queued and run.script not in unusable:
                print(line)
        return 0

    drawn = args.mode != "end" or draw(states, args.base)
    counts, parted = identity(states)
    words = Counter(state.word for state in states.values())
    print(*summary(states), "", *counts, *parted, sep="\n")
    print(f"{len(runs)} runs:", ", ".join(f"{number} {word}" for word, number in sorted(words.items())))
    for line in remarks(states, words):
        print(line)
    return int(bool(parted) or not drawn or any(state.word not in COMPLETE for state in states.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("train", "slurm", "status", "end"))
    parser.add_argument("base", type=Path, help="the folder with the runs")
    parser.add_argument("--failed", default="", help="lines of a run that failed, a tab, and what was said of it")
    sys.exit(main(parser.parse_args(), sys.stdin.read().splitlines()))
