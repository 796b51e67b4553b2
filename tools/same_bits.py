"""Trains the scripts as they were at a commit and as they are now, side by side, and compares the bits.

    .venv/bin/python tools/same_bits.py OLD_COMMIT

Every script and file of betas/ whose text has changed is trained in many short runs: through episode ends, with one and
three environments, compiled and not, with every argument that takes another path. Compared are params_sha256, the final
return, and all logged scalars but the rates. Prints a line for each comparison that differs, and how many agree.
Exits with 0 if all do, else with 1; with 2 for a wrong argument.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import in_turn
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("old_commit", "old_script", "old_arguments", "script", "arguments", "params_sha256", "same", "torch")

# Arguments of the runs, by the kind of actions. One run has the defaults.
DEFAULTS = {
    "continuous": "--total-timesteps 4096",  # the episodes of HalfCheetah-v4 end at a time limit
    "cartpole": "--env-id CartPole-v1 --total-timesteps 2560",
}
# The others have short rollouts and a high learning rate: episodes end, samples leave the band.
SHORT = {
    "continuous": "--env-id Hopper-v4 --num-steps 256 --num-minibatches 4 --learning-rate 1e-3 --total-timesteps 2048",
    "cartpole": "--env-id CartPole-v1 --num-envs 1 --num-steps 256 --learning-rate 3e-3 --total-timesteps 2048",
}
THREE_ENVS = "--num-envs 3 --num-steps 128 --num-minibatches 6 --total-timesteps 3072"
OTHER_PATHS = "--no-clip-vloss --no-anneal-lr --norm-adv minibatch --target-kl 0.005 --ent-coef 0.01 --seed 1"
OTHER_NUMBERS = "--clip-coef 0.1 --gamma 0.98 --gae-lambda 0.9 --vf-coef 0.7 --max-grad-norm 0.3 --update-epochs 4"
SCRIPTS = (
    "--no-compile --save-model",
    "--no-compile --norm-adv none --target-kl 0.005",
    f"--no-compile {OTHER_PATHS}",
    f"--no-compile {OTHER_NUMBERS}",
    "--compile",
    f"--compile {OTHER_PATHS}",
    f"--no-compile {THREE_ENVS}",
    f"--no-compile {THREE_ENVS} {OTHER_PATHS}",
    f"--compile {THREE_ENVS}",
)
KL_SCALAR = (
    "--no-compile --kl-penalty sample",
    "--no-compile --kl-penalty k3 --beta 3",
    "--no-compile --adaptive-beta",
    "--no-compile --adaptive-beta --kl-target 0.001 --beta 0.5",
    "--compile --adaptive-beta --kl-penalty sample",
    f"--no-compile {THREE_ENVS} --adaptive-beta",
)
# Tasks with many or with flattened observations; tasks whose episodes end at a time limit.
TASKS = {
    "continuous": ("--no-compile --env-id Humanoid-v4", f"--no-compile {THREE_ENVS} --env-id Pendulum-v1"),
    "cartpole": ("--no-compile --env-id Blackjack-v1", f"--no-compile {THREE_ENVS} --env-id MountainCar-v0"),
}
# The loop of betas/ is that of ppo_klip_*, which has all of these runs.
BETAS = ("--no-compile", f"--no-compile {THREE_ENVS}")
OWN_ARGUMENTS = {
    "betas/dpo.py": ("--no-compile --alpha 0.5 --eta 0.1 --clip-coef 0.1",),
    "betas/dual_clip.py": ("--no-compile --c 1.1 --clip-coef 0.1",),
    "betas/none.py": ("--no-compile --clip-coef 0.1",),
    "betas/rollback.py": ("--no-compile --alpha 1",),
    "betas/sapo.py": ("--no-compile --tau-pos 3 --tau-neg 2 --clip-coef 0.1",),
    "betas/soft.py": ("--no-compile --shape sigmoid --clip-coef 0.1", "--no-compile --shape softmin --width 0.2"),
}
# Some files of betas/ once had an --eps of their own, and --clip-coef was the ε of everything else.
# Now --clip-coef is the ε of the policy, too, and --vloss-clip-coef that of the value loss.
# All are 0.2 by default, so this concerns one run alone. Where clip_eps.py is gone, ppo_clip_* does that run.
HAS_EPS = "eps=args.eps"  # stands in such a file
OLD_EPS = "--no-compile --eps 0.25"
NEW_EPS = "--no-compile --clip-coef 0.25 --vloss-clip-coef 0.2"
# Rates are not compared, and neither is an evaluation with which a training once ended.
ASIDE = ("charts/SPS", "eval/")
# In the run with another ε the tags that depend on --clip-coef differ by design.
# The objective has another value, because clip_eps.py and ppo_clip_* share the gradient alone.
ASIDE_WITH_EPS = (*ASIDE, "losses/clipfrac", "partition/", "beta/p", "losses/policy_loss")


def fail(message):
    """End the program with one line on standard error and exit code 2."""
    print("error:", message, file=sys.stderr)
    sys.exit(2)


def read_texts(checkout):
    """The texts of the scripts and of the files of betas/ in a checkout, by name."""
    paths = [*checkout.glob("ppo_*.py"), *checkout.glob("betas/*.py")]
    return {path.relative_to(checkout).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def comparisons(old, new):
    """What is to be compared, (old script, old arguments, script, arguments). old and new hold all texts by name."""
    found = []
    for kind, short in SHORT.items():
        for script, text in old.items():
            in_betas = script.startswith("betas/")
            if script == "betas/loop.py" or not (in_betas or kind in script):
                continue
            sources = (script, "betas/loop.py", f"ppo_klip_{kind}.py") if in_betas else (script,)
            if all(old.get(source) == new.get(source) for source in sources):
                continue
            options = BETAS + OWN_ARGUMENTS.get(script, ()) if in_betas else SCRIPTS + TASKS[kind]
            if "kl_scalar" in script:
                options += KL_SCALAR
            if "vloss_clip_coef" in text:
                options += (NEW_EPS,)
            if script in new:
                runs = [DEFAULTS[kind], *(f"{short} {option}" for option in options)]
                found += [(script, arguments, script, arguments) for arguments in runs]
            successor = f"ppo_clip_{kind}.py" if script == "betas/clip_eps.py" else script
            if HAS_EPS in text and HAS_EPS not in new.get(script, "") and successor in new:
                found.append((script, f"{short} {OLD_EPS}", successor, f"{short} {NEW_EPS}"))
    return found


def read_bits(run):
    """What a run ended with and what it logged, as {(step, name): text}; the texts are exact."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    bits = {(result["global_step"], name): str(result[name]) for name in ("params_sha256", "final_return")}
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            bits[event.step, tag] = repr(event.value)
    return bits


def compare(comparison, folder, name):
    """Train both sides at once, in the checkouts in folder. Returns what differs or None, and params_sha256 or None."""
    processes = {}
    for side, script, arguments in (("before", *comparison[:2]), ("now", *comparison[2:])):
        checkout = folder / side
        words = [*arguments.split(), "--run-name", name]
        processes[checkout] = in_turn.start(checkout, str(checkout / script), *words)
    for process in processes.values():
        process.join()
    for checkout, process in processes.items():
        if process.exitcode:
            said = (checkout / "stderr").read_text(encoding="utf-8").splitlines()
            return f"failed {checkout.name}: {said[-1] if said else process.exitcode}", None
    old, new = (read_bits(checkout / "runs" / name) for checkout in processes)
    aside = ASIDE if comparison[1] == comparison[3] else ASIDE_WITH_EPS
    for step, tag in sorted(old):
        value, new_value = old[step, tag], new.get((step, tag))
        if value != new_value and not tag.startswith(aside):
            return f"{tag} at step {step}: {value} before, {new_value} now", None
    last_step, _ = max(old)
    return None, old[last_step, "params_sha256"]


def compare_all(commit, only, folder):
    """Compare what has changed since a commit; returns the rows of the CSV."""
    old, new = read_texts(folder / "before"), read_texts(ROOT)
    Path(folder, "now", "betas").mkdir(parents=True)
    for name, text in new.items():  # a copy, because a file may be edited meanwhile
        Path(folder, "now", name).write_text(text, encoding="utf-8")
    for name in sorted(old.keys() ^ new.keys()):
        print(f"{name}: {'gone' if name in old else 'new'} since {commit}")
    rows = []
    for comparison in comparisons(old, new):
        label = " ".join(comparison[:2])
        if only not in label:
            continue
        difference, params_sha256 = compare(comparison, folder, name=str(len(rows)))
        if difference:
            print(f"{label}: {difference}", flush=True)
        rows.append((commit, *comparison, params_sha256, difference is None, version("torch")))
    return rows


def main(arguments=None):
    """Compare what the command line asks for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = fail
    parser.add_argument("commit", metavar="OLD_COMMIT", help="the commit with the scripts as they were")
    parser.add_argument("--only", default="", metavar="TEXT", help="only runs with this in their script and arguments")
    parser.add_argument("--out", type=Path, metavar="FILE", help="a CSV file for what was compared")
    args = parser.parse_args(arguments)
    if args.out and not args.out.parent.is_dir():
        fail(f"--out {args.out}: there is no such folder")
    with tempfile.TemporaryDirectory(prefix="same_bits.") as folder:
        old = Path(folder, "before")
        git = ["git", "-C", ROOT, "worktree"]
        done = subprocess.run([*git, "add", "--detach", old, args.commit], capture_output=True, text=True, check=False)
        if done.returncode:
            fail(done.stderr.strip().splitlines()[-1])
        try:
            rows = compare_all(args.commit, args.only, Path(folder))
        finally:
            subprocess.run([*git, "remove", "--force", old], check=True)
    if args.out:
        with args.out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    if not rows:
        print(f"no script that has changed since {args.commit} is to be compared")
        return 0
    agreeing = sum(row[COLUMNS.index("same")] for row in rows)
    print(f"{agreeing} of {len(rows)}")
    return int(agreeing < len(rows))


if __name__ == "__main__":
    sys.exit(main())
