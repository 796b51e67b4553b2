"""Trains the scripts as they were at a commit and as they are now, side by side, and compares the bits.

    .venv/bin/python tools/same_bits.py OLD_COMMIT

This trains every script and file of betas/ that has changed, in many short runs, and compares `params_sha256`
and every logged scalar except the rates. Exits with 1 if a run with one environment differs; several environments are
a group of their own.
"""

import argparse
import ast
import fnmatch
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import report

ROOT = Path(__file__).resolve().parent.parent
RATES = ("charts/SPS",)  # scalars that depend on how fast the machine is
SOURCES = ("ppo_*.py", "betas/*.py")
RESULT_FIELDS = ("params_sha256", "global_step", "final_return", "diverged_at")

# Arguments of the runs, by name. Rollouts of 256 steps at a high learning rate: episodes end, samples leave the band.
HOPPER = "--env-id Hopper-v4 --num-steps 256 --num-minibatches 4 --learning-rate 1e-3 --total-timesteps 2048"
HOPPER_3 = "--env-id Hopper-v4 --num-envs 3 --num-steps 128 --num-minibatches 6 --total-timesteps 3072"
CARTPOLE = "--num-envs 1 --num-steps 256 --num-minibatches 4 --learning-rate 3e-3 --total-timesteps 2048"
CARTPOLE_3 = "--num-envs 3 --num-minibatches 6 --learning-rate 3e-3 --total-timesteps 3072"
OTHER_PATHS = "--no-clip-vloss --no-anneal-lr --ent-coef 0.01 --seed 1"
CONTINUOUS = {
    "eager": f"{HOPPER} --no-compile --save-model",
    "minibatch advantages": f"{HOPPER} --no-compile --norm-adv minibatch",
    "raw advantages, target KL": f"{HOPPER} --no-compile --norm-adv none --target-kl 0.01",
    "other paths": f"{HOPPER} --no-compile {OTHER_PATHS}",
    "wide observations": "--env-id Humanoid-v4 --num-steps 256 --num-minibatches 4 --total-timesteps 1024 --no-compile",
    "compiled": HOPPER,
    "compiled, other paths": f"{HOPPER} {OTHER_PATHS} --norm-adv minibatch --target-kl 0.02",
    "compiled, the protocol": "--env-id HalfCheetah-v4 --total-timesteps 4096",
    "3 environments": f"{HOPPER_3} --no-compile --save-model",
    "3 environments, other paths": f"{HOPPER_3} --no-compile {OTHER_PATHS} --norm-adv minibatch --target-kl 0.02",
    "3 environments, compiled": HOPPER_3,
}
DISCRETE = {
    "eager": f"{CARTPOLE} --save-model",
    "minibatch advantages": f"{CARTPOLE} --norm-adv minibatch",
    "raw advantages, target KL": f"{CARTPOLE} --norm-adv none --target-kl 0.002",
    "other paths": f"{CARTPOLE} {OTHER_PATHS}",
    "LunarLander": f"{CARTPOLE} --env-id LunarLander-v3 --gamma 0.999 --gae-lambda 0.98 --ent-coef 0.01",
    "compiled": f"{CARTPOLE} --compile",
    "3 environments": f"{CARTPOLE_3} --save-model",
    "3 environments, other paths": f"{CARTPOLE_3} {OTHER_PATHS} --norm-adv minibatch --target-kl 0.002",
    "3 environments, compiled": f"{CARTPOLE_3} --compile",
    "the protocol": "--total-timesteps 2560",
}
CONTINUOUS_KL = {
    "sampled KL": f"{HOPPER} --no-compile --kl-penalty sample",
    "k3": f"{HOPPER} --no-compile --kl-penalty k3 --beta 3",
    "adaptive": f"{HOPPER} --no-compile --adaptive-beta",
    "adaptive, low target": f"{HOPPER} --no-compile --adaptive-beta --kl-target 0.001 --beta 0.5",
    "compiled, sampled KL": f"{HOPPER} --kl-penalty sample --adaptive-beta",
    "compiled, k3": f"{HOPPER} --kl-penalty k3",
    "3 environments, adaptive": f"{HOPPER_3} --no-compile --adaptive-beta",
}
DISCRETE_KL = {
    "sampled KL": f"{CARTPOLE} --kl-penalty sample",
    "k3": f"{CARTPOLE} --kl-penalty k3 --beta 3",
    "adaptive": f"{CARTPOLE} --adaptive-beta",
    "adaptive, low target": f"{CARTPOLE} --adaptive-beta --kl-target 0.001 --beta 0.5",
    "compiled, sampled KL": f"{CARTPOLE} --compile --kl-penalty sample --adaptive-beta",
    "3 environments, adaptive": f"{CARTPOLE_3} --adaptive-beta",
}
# The loop of betas/ is ppo_klip's, which has its own runs.
BETAS_CONTINUOUS = ("eager", "compiled", "3 environments")
BETAS_DISCRETE = ("eager", "3 environments")


class Unit(NamedTuple):
    """What has one hash: a script, or a file of betas/ with one kind of actions."""

    script: str
    kind: str  # continuous or cartpole
    sources: tuple  # the files that its training runs through


class Case(NamedTuple):
    """One run of a unit, on both sides."""

    unit: Unit
    name: str
    arguments: tuple


class Pair(NamedTuple):
    """What came of a case: the two results (None where the run failed), and the first difference or None."""

    case: Case
    old: dict | None
    new: dict | None
    difference: str | None

    @property
    def num_envs(self):
        """How many environments the run had, 1 where there is no result to tell."""
        result = self.old or self.new
        return result["args"]["num_envs"] if result else 1


def git(root, *arguments):
    """The output of a git command as bytes. Ends the program with git's message if it fails."""
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, check=False)
    if done.returncode:
        report.fail(f"git {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def is_source(name):
    """Whether a file of the project, by its path from the root, is one of the scripts."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in SOURCES)


def snapshots(root, commit, folder):
    """Copies of the scripts at a commit and as they are now, in two folders below folder."""
    committed = git(root, "ls-tree", "-r", "--name-only", commit).decode().splitlines()
    contents = {"old": {}, "new": {}}
    for name in filter(is_source, committed):
        contents["old"][name] = git(root, "show", f"{commit}:{name}")
    for pattern in SOURCES:
        for path in root.glob(pattern):
            contents["new"][path.relative_to(root).as_posix()] = path.read_bytes()
    for side, files in contents.items():
        for name, content in files.items():
            copy = folder / side / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    return folder / "old", folder / "new"


def units(checkout):
    """The units of a checkout, in the order of their names."""
    found = []
    for path in sorted(checkout.glob("ppo_*.py")):
        kind = path.stem.rpartition("_")[2]
        found.append(Unit(path.name, kind, (path.name,)))
    loop = "betas/loop.py"
    kinds = ("continuous", "cartpole") if (checkout / loop).exists() else ("continuous",)
    for path in sorted(checkout.glob("betas/*.py")):
        script = f"betas/{path.name}"
        if script != loop:
            found += [Unit(script, kind, (script, loop, f"ppo_klip_{kind}.py")) for kind in kinds]
    return found


def read_bytes(path):
    """The content of a file, or None if there is no such file."""
    return path.read_bytes() if path.exists() else None


def has_changed(unit, old, new):
    """Whether one of the files of a unit differs between two checkouts."""
    return any(read_bytes(old / source) != read_bytes(new / source) for source in unit.sources)


def flags(path):
    """The arguments that a script knows, as --no-compile or --beta, read from the fields of its Args."""
    fields = []
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ClassDef) and node.name == "Args":
            fields += [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
    names = [field.replace("_", "-") for field in fields]
    return {f"--{name}" for name in names} | {f"--no-{name}" for name in names}


def known_to_both(arguments, unit, old, new):
    """The arguments without those that one side's script does not have."""
    script = unit.sources[-1]  # of betas/, the arguments used here are those of ppo_klip
    known = flags(old / script) & flags(new / script)
    kept, keep = [], True
    for word in arguments.split():
        if word.startswith("--"):
            keep = word in known
        if keep:
            kept.append(word)
    return tuple(kept)


def default_cases(unit):
    """The runs of a unit, {name: arguments}."""
    cases = dict(CONTINUOUS if unit.kind == "continuous" else DISCRETE)
    if unit.script.startswith("betas/"):
        kept = BETAS_CONTINUOUS if unit.kind == "continuous" else BETAS_DISCRETE
        cases = {name: cases[name] for name in kept}
        if unit.kind == "cartpole":
            cases = {name: f"--env-id CartPole-v1 {arguments}" for name, arguments in cases.items()}
    elif "kl_scalar" in unit.script:
        cases |= CONTINUOUS_KL if unit.kind == "continuous" else DISCRETE_KL
    return cases


class Side:
    """A process that trains scripts of one checkout, one after the other."""

    def __init__(self, checkout):
        self.checkout = checkout
        command = [sys.executable, Path(__file__).resolve().parent / "in_turn.py"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def train(self, case, folder):
        """Train a case in a new folder; returns its result.json, or what it said when it failed."""
        if self.process.poll() is not None:
            return "its process has ended"
        folder.mkdir(parents=True)
        script = str(self.checkout / case.unit.script)
        plan = [str(folder), script, *case.arguments, "--run-name", "run"]
        print(json.dumps(plan), file=self.process.stdin, flush=True)
        code = self.process.stdout.readline().strip()
        if code == "0":
            return json.loads((folder / "runs" / "run" / "result.json").read_text(encoding="utf-8"))
        if not code:
            self.process.wait()
            return "its process ended"
        said = (folder / "stderr").read_text(encoding="utf-8", errors="replace").splitlines()
        return said[-1] if said else f"it ended with code {code}"

    def close(self):
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait()


def scalars(folder):
    """The logged scalars of the run in a folder, {tag: [(step, value)]}, without the rates."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "runs" / "run"), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in RATES]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def first_difference(old, new):
    """The earliest logged scalar that is not the same to the bit, in words, or None. Tags that only new has are no
    difference, because a script may learn to log more."""
    found = []
    for tag, events in old.items():
        others = new.get(tag, [])
        if len(events) != len(others):
            found.append(
                (tag.startswith("eval/"), 0, f"{tag}: logged {len(events)} times before and {len(others)} times now")
            )
        for (step, value), (other_step, other) in zip(events, others, strict=False):
            if step != other_step or struct.pack("d", value) != struct.pack("d", other):
                found.append(
                    (
                        tag.startswith("eval/"),
                        step,
                        f"{tag} at step {step}: {value!r} before and {other!r} at step {other_step} now",
                    )
                )
                break
    return min(found)[-1] if found else None  # the evaluation comes last


def compare(case, old_side, new_side, folder):
    """Train a case on both sides; returns the Pair."""
    folders = folder / "before", folder / "now"
    results = [side.train(case, where) for side, where in zip((old_side, new_side), folders, strict=True)]
    failures = [
        f"failed {when}: {result}"
        for when, result in zip(("before", "now"), results, strict=True)
        if isinstance(result, str)
    ]
    old, new = [None if isinstance(result, str) else result for result in results]
    if failures:
        return Pair(case, old, new, "; ".join(failures))
    difference = first_difference(*map(scalars, folders))
    for field in RESULT_FIELDS:
        if difference is None and old[field] != new[field]:
            difference = f"{field}: {old[field]} before and {new[field]} now"
    return Pair(case, old, new, difference)


def compare_all(cases, old, new, folder, workers):
    """Yield the Pair of each case as it is done; each worker has a process for each side.

    It starts new ones for another unit: what torch compiled for one script in a process can change the last bit of the
    next one's.
    """
    local, sides = threading.local(), []

    def work(number, case):
        if getattr(local, "unit", None) != case.unit:
            for side in getattr(local, "sides", ()):
                side.close()
            local.unit = case.unit
            local.sides = Side(old), Side(new)
            sides.extend(local.sides)
        return compare(case, *local.sides, folder / str(number))

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, number, case) for number, case in enumerate(cases)]
        for future in as_completed(futures):
            yield future.result()
    for side in sides:
        side.close()


def verdict(pairs):
    """How far the pairs of a unit agree ("any", "1" or "" for not at all), and a line about it."""
    one = [pair for pair in pairs if pair.num_envs == 1]
    several = [pair for pair in pairs if pair.num_envs > 1]
    lines, agree = [], {}
    for name, group in (("1", one), ("several", several)):
        wrong = [pair for pair in group if pair.difference]
        agree[name] = bool(group) and not wrong
        label = "1 environment" if name == "1" else "several environments"
        if not group:
            lines.append(f"{label}: not tried")
        elif not wrong:
            lines.append(f"{label}: all {len(group)} runs agree")
        else:
            first = wrong[0]
            lines.append(
                f"{label}: {len(wrong)} of {len(group)} runs differ, first '{first.case.name}': {first.difference}"
            )
    width = ("any" if agree["several"] else "1") if agree["1"] else ""
    return width, "; ".join(lines)


def main(arguments, root=ROOT, cases_of=default_cases):
    """Compare as the command line asks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="the commit with the scripts as they were")
    parser.add_argument("--scripts", nargs="+", help="only these, as ppo_clip_cartpole.py or betas/spo.py")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at once (default: one a core)")
    args = parser.parse_args(arguments)
    if args.workers < 1:
        parser.error("--workers must be at least 1")

    with tempfile.TemporaryDirectory(prefix="same_bits.") as temporary:
        folder = Path(temporary)
        old, new = snapshots(root, args.commit, folder)
        here, before = units(new), units(old)
        unknown = set(args.scripts or ()) - {unit.script for unit in here}
        if unknown:
            parser.error(f"--scripts: there is no {', '.join(sorted(unknown))}")
        asked = [unit for unit in here if not args.scripts or unit.script in args.scripts]
        for unit in asked:
            if unit not in before:
                print(f"{unit.script} ({unit.kind}): new since {args.commit}, nothing to compare it with")
        changed = [unit for unit in asked if unit in before and has_changed(unit, old, new)]
        cases = []
        for unit in changed:
            for name, words in cases_of(unit).items():
                cases.append(Case(unit, name, known_to_both(words, unit, old, new)))
        print(f"{len(cases)} runs on each side, of {len(changed)} changed scripts", flush=True)

        done = {unit: [] for unit in changed}
        failed = False
        for pair in compare_all(cases, old, new, folder / "runs", args.workers):
            unit = pair.case.unit
            pairs = done[unit]
            pairs.append(pair)
            if len(pairs) < len(cases_of(unit)):
                continue
            width, line = verdict(pairs)
            print(f"{unit.script} ({unit.kind}): {line}", flush=True)
            failed |= not width
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
