#!/usr/bin/env bash
# Trains every variant on every task with every seed, on this machine or on a Slurm cluster, and compares the results.
# ./benchmark.sh --help says how. Any bash from 3.2 (macOS) on will do.
[ -n "${BASH_VERSION:-}" ] || { echo "error: run it with bash, as ./benchmark.sh" >&2; exit 2; }
set -euf -o pipefail

# The list of runs: tasks x variants of their family x seeds. To add a task or a variant of your own, add a line.
# task            family      steps
TASKS="
HalfCheetah-v4    continuous  1000000
Hopper-v4         continuous  1000000
Walker2d-v4       continuous  1000000
Ant-v4            continuous  1000000
Humanoid-v4       continuous  1000000
CartPole-v1       cartpole    100000
"
QUICK_TASKS="
Hopper-v4         continuous  102400
CartPole-v1       cartpole    30720
"
# variant         family      script and its flags (the second variant of a script needs an --exp-name of its own)
VARIANTS="
clip              continuous  ppo_clip_continuous.py
klip              continuous  ppo_klip_continuous.py
phi               continuous  ppo_phi_continuous.py
kl_fixed          continuous  ppo_kl_scalar_continuous.py --exp-name ppo_kl_fixed_continuous
kl_adaptive       continuous  ppo_kl_scalar_continuous.py --exp-name ppo_kl_adaptive_continuous --adaptive-beta
clip              cartpole    ppo_clip_cartpole.py
klip              cartpole    ppo_klip_cartpole.py
"
SEEDS=0,1,2,3,4
QUICK_SEEDS=0,1
SLURM_OPTIONS=(--ntasks=1 --cpus-per-task=1 --time=02:00:00 --mem=2G --requeue --open-mode=append)

usage() {
  cat << 'EOF'
usage: ./benchmark.sh [quick] [flags] [-- sbatch options]

  quick               all variants on Hopper-v4 and CartPole-v1, 2 seeds, short: minutes; into runs/quick/
  (without quick)     the whole grid: 6 tasks, up to 5 variants, 5 seeds; into runs/
The same command again resumes: complete runs are kept, the others start over. The first call installs into .venv.

  --tasks A,B         only these tasks (all: those in the table at the top of this file)
  --variants A,B      only these variants: clip, klip, phi, kl_fixed, kl_adaptive
  --seeds 0,1         these seeds
  --total-timesteps N steps of every run
  --script-args "..." more arguments for the scripts, e.g. --script-args "--save-model --clip-coef 0.1"
  --into NAME         into runs/NAME/ instead of runs/, for example for runs with other --script-args
  --workers N         runs at once (one a core; with --slurm as many as the cluster gives)
  --track             log to W&B, too; --wandb-project-name NAME and --wandb-entity NAME say where
  --status            what is done, running, queued, failed and missing, and the table so far
  --dry-run           print the commands of the runs that are missing
  --slurm             submit the missing runs as one Slurm job array and return; sbatch options follow after --

Logs are in logs/ beside the runs, folders of interrupted runs in incomplete/. PYTHON=... replaces .venv/bin/python.
Exit code: 0 if all runs are complete, and identical where they must be; 1 if not; 2 for a wrong argument.
EOF
}

die() {
  echo "error: $*" >&2
  exit 2
}

# Starts a run under a lock on its log, or exits: with 0 if it is complete, 75 if another process is at it. The training
# inherits the lock through exec; being the kernel's, it ends with the training, however that or this script may end.
LAUNCH='
import fcntl, os, shlex, sys, time
base, name, wait, *command = sys.argv[1:]
folder, log, aside = f"{base}/{name}", f"{base}/logs/{name}.log", f"{base}/incomplete/{name}"
try:
    os.makedirs(os.path.dirname(log), exist_ok=True)
    lock = open(log, "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait == "wait" else fcntl.LOCK_NB))
    except BlockingIOError:
        sys.exit(75)
    except OSError as error:
        print(f"{log}: no file locks here ({error}): start only one sweep in this folder", file=sys.stderr)
    if os.path.exists(f"{folder}/result.json"):
        sys.exit(0)
    if os.path.exists(folder):
        os.makedirs(os.path.dirname(aside), exist_ok=True)
        number = 1
        while os.path.exists(f"{aside}.{number}"):
            number += 1
        os.rename(folder, f"{aside}.{number}")
    lock.write(time.strftime("=== %Y-%m-%d %H:%M:%S ") + shlex.join(command) + "\n")
    lock.flush()
    os.set_inheritable(lock.fileno(), True)
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.execvp(command[0], command)
except OSError as error:
    sys.exit(f"error: {name}: {error}")
except KeyboardInterrupt:
    sys.exit(130)
'

# Reads the plan. check: prints the complete runs that are not those asked for, and stops at arguments that a script
# refuses. status, and sweep at the end of one: prints all there is to say.
REPORT='
import fcntl, importlib, json, statistics, sys
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from pathlib import Path

mode, base, queued = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split()
FORMS = ("clip", "klip", "phi")  # three forms of one update: trained with one seed, they end with the same bits
NOT_TRAINING = ("run_name", "track", "wandb_project_name", "wandb_entity")

def asked(script, arguments):
    try:
        import tyro
        module = importlib.import_module(script[:-3])
    except ImportError as error:
        print(f"error: {error}, in {sys.executable}: install requirements.txt there, or leave PYTHON unset", file=sys.stderr)
        sys.exit(2)
    args = tyro.cli(module.Args, prog=script, args=arguments)
    if mode == "check":
        module.check(replace(args, run_name=f"{args.run_name}/check"))  # a folder that is not there
    return json.loads(json.dumps(asdict(args)))

def locked(file):
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:  # of another kind where a file system has no locks
        return isinstance(error, BlockingIOError)
    return False

def inspect(name, script, arguments):
    """The state of a run, a remark on it, and its result if it is complete and the one asked for."""
    folder, log, lines = base / name, base / "logs" / f"{name}.log", []
    if (folder / "result.json").exists():
        try:
            result = json.loads((folder / "result.json").read_text())
        except ValueError:
            return "differs", f"its result.json is damaged: move {folder} away", None
        have, want = result["args"], asked(script, arguments)
        if have.get("compile") is False:
            want["compile"] = False  # without a C++ compiler a run goes on uncompiled
        wrong = [f"{k} {have.get(k)}, not {want[k]}" for k in want if k not in NOT_TRAINING and have.get(k) != want[k]]
        if wrong:
            return "differs", "; ".join(wrong) + f": move {folder} away, or ask for what it is", None
        return "done", "", result
    if log.exists():
        with log.open() as file:
            lines = file.read().splitlines() or [""]
            if locked(file):
                return "running", "starting" if lines[-1].startswith("===") else lines[-1], None
    if name in queued:
        return "queued", "", None
    if lines and lines[-1].startswith("=== exit code"):
        last = max((i for i, line in enumerate(lines) if line.startswith("=== 20")), default=-1)
        said = [line for line in lines[last + 1 : -1] if line.strip()]
        why = [line for line in said if "error" in line.lower()] or said
        return "failed", f"{lines[-1][4:]}, log {log}" + "".join(f"\n  {line}" for line in why[-1:]), None
    return ("failed", f"without a word, log {log}", None) if mode == "sweep" else ("missing", "", None)

states, remarks, rows, twins = Counter(), [], defaultdict(list), defaultdict(dict)
for line in sys.stdin:
    name, task, variant, seed, script, *arguments = line.rstrip("\n").split("\t")
    if mode == "check" and (task, variant) not in rows:
        asked(script, arguments)  # refuses wrong arguments before anything starts
    state, remark, result = inspect(name, script, arguments)
    states[state] += 1
    rows[task, variant].append(result)
    if variant in FORMS:
        twins[task, seed][variant] = result
    if state == "differs" or remark and mode != "check":
        remarks.append(f"{state}: {name}: {remark}")
remarks.sort(key=lambda remark: remark.startswith("failed"))
if mode == "check":
    sys.exit(print(*remarks, sep="\n", end=""))

line = "{:14}  {:11}  {:>17}  {:>5}  {}".format
print(line("task", "variant", "return", "runs", "params_sha256 by seed"))
for (task, variant), results in rows.items():
    done = [result for result in results if result]
    returns = [result["final_return"] for result in done if result["final_return"] is not None]
    text = f"{statistics.mean(returns):.1f}" if returns else "-"
    text += f" ± {statistics.stdev(returns):.1f}" if len(returns) > 1 else ""
    hashes = " ".join(result["params_sha256"][:4] if result else "----" for result in results)
    print(line(task, variant, text, f"{len(done)}/{len(results)}", hashes))

same, compared, parted = Counter(), Counter(), []
for (task, seed), forms in twins.items():
    if len(forms) == 1 or not all(forms.values()):
        continue
    hashes = {form: result["params_sha256"] for form, result in forms.items()}
    compared[tuple(forms)] += 1
    same[tuple(forms)] += len(set(hashes.values())) == 1
    if len(set(hashes.values())) > 1:
        parted.append(f"{task} seed {seed}: " + ", ".join(f"{form} {sha[:8]}" for form, sha in hashes.items()))
        args = forms["clip" if "clip" in forms else "klip"]["args"]
        minibatch = args["num_envs"] * args["num_steps"] // args["num_minibatches"]
        if minibatch & (minibatch - 1):
            parted.append(f"    a minibatch of {minibatch} is not a power of two: klip may drift from the others by rounding")
        if len({result["args"].get("compile") for result in forms.values()}) > 1:
            parted.append("    some were compiled and some were not")
        versions = {json.dumps(result["versions"]) for result in forms.values()}
        if len(versions) > 1:
            parted.append("    trained with different libraries: " + " and ".join(versions))
print()
for forms, number in compared.items():
    what = "triples" if len(forms) == 3 else "pairs"
    print(f"{same[forms]} of {number} {what} identical to the bit (" + " = ".join(forms) + ")")
if parted:
    print("NOT IDENTICAL. Likely reasons: different machines, different versions of torch, a minibatch that is not a power")
    print("of two, a script changed in between.", *parted, sep="\n  ")
print(f"{states.total()} runs:", ", ".join(f"{number} {state}" for state, number in sorted(states.items())))
print(*remarks, sep="\n", end="\n" if remarks else "")
sys.exit(bool(parted or states["done"] < states.total()))
'

listed() { # whether the word $1 is in the list $2 (a,b,c; an empty list holds every word)
  case ",${2:-$1}," in *",$1,"*) [ -n "$1" ] ;; *) false ;; esac
}

known() { # stops unless every word of the list $2, the value of the flag $1, begins a line of the table $3
  local word words
  words=$(awk 'NF && !/^#/ && !seen[$1]++ { printf "%s%s", comma, $1; comma = "," }' <<< "$3")
  for word in ${2//,/ }; do
    listed "$word" "$words" || die "$1 $word: not in the table at the top of benchmark.sh, which has $words"
  done
}

numbers() { # stops unless the value $2 of the flag $1 is a list of whole numbers, each at least $3
  local number
  [ -n "$2" ] || die "$1 needs a value"
  for number in ${2//,/ }; do
    case "$number" in
      *[!0-9]* | 0?*) die "$1 must be a whole number, not $number" ;;
      ???????????*) die "$1 must be below 10^10, not $number" ;;
    esac
    [ "$number" -ge "$3" ] || die "$1 must be at least $3, not $number"
  done
}

plan() { # a line a run, its fields separated by tabs: name, task, variant, seed, script, arguments...
  local seed task family steps variant variant_family script flags name
  for seed in ${seeds//,/ }; do # outermost: all variants come early, and later seeds find the update compiled
    while read -r task family steps; do
      listed "$task" "$tasks" || continue
      [ -n "$steps" ] || die "the line of task $task at the top of benchmark.sh has no steps"
      while read -r variant variant_family script flags; do
        if [ "$family" != "$variant_family" ] || ! listed "$variant" "$variants"; then continue; fi
        [ -f "$script" ] || die "variant $variant: there is no script $script"
        name=${script%.py}
        case "$flags" in *--exp-name\ *) name=${flags#*--exp-name } ;; esac
        name=${task}__${name%% *}__$seed
        # shellcheck disable=SC2086 # flags are words
        printf '%s\t' "$name" "$task" "$variant" "$seed" "$script" $flags $script_args ${track[@]+"${track[@]}"} \
          --env-id "$task" --seed "$seed" --total-timesteps "${total_timesteps:-$steps}" --run-name
        echo "$prefix$name"
      done <<< "$VARIANTS"
    done <<< "$task_table"
  done
}

missing() { # the names of the runs that are not complete
  local name rest
  while IFS=$'\t' read -r name rest; do
    [ -e "$base/$name/result.json" ] || echo "$name"
  done <<< "$plan"
}

queued() { # the names of the runs that wait or run in Slurm: lines of the list that the job array was submitted with
  local job index
  [ -d "$base/slurm" ] && command -v squeue > /dev/null || return 0
  squeue --me --noheader --array --format '%j %K' | while read -r job index; do
    [ ! -f "$base/slurm/$job.list" ] || sed -n "$((index + 1))p" "$base/slurm/$job.list"
  done
}

report() { "$PYTHON" -c "$REPORT" "$1" "$base" "$(queued 2> /dev/null || true)" <<< "$plan"; }

cores() { (unset OMP_NUM_THREADS OMP_THREAD_LIMIT && nproc 2> /dev/null) || getconf _NPROCESSORS_ONLN; } # nproc heeds OMP

install() { # makes .venv and installs requirements.txt, unless that is done or the user brings his own Python
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" > /dev/null || die "PYTHON=$PYTHON: no such program"
    return
  fi
  export PYTHON=.venv/bin/python
  ! cmp -s requirements.txt .venv/installed.txt || return 0
  echo "installing requirements.txt into .venv (once; some minutes)"
  if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "python3 must be Python 3.11 or newer"
    python3 -m venv .venv || die "cannot make .venv (Debian and Ubuntu: apt install python3-venv)"
  fi
  .venv/bin/python -m pip install --quiet -r requirements.txt || die "cannot install requirements.txt into .venv (see above)"
  cp requirements.txt .venv/installed.txt
}

run_one() { # trains the run $1 unless it is complete; a sweep's worker also passes over what another process is at
  local line fields code=0
  line=$(grep -F -e "$1"$'\t' <<< "$plan") || die "--run $1: no such run"
  IFS=$'\t' read -r -a fields <<< "$line"
  [ -z "${SWEEP_PID:-}" ] || kill -0 "$SWEEP_PID" 2> /dev/null || exit 255 # the sweep was killed: xargs stops at 255
  trap 'exit 130' INT TERM
  "$PYTHON" -c "$LAUNCH" "$base" "$1" "${SWEEP_LOCK:-wait}" "$PYTHON" "${fields[@]:4}" < /dev/null || code=$?
  if [ "$code" = 0 ] || [ "$code" = 75 ]; then return 0; fi
  { echo "=== exit code $code" >> "$base/logs/$1.log"; } 2> /dev/null || true # the disk may be full
  echo "${clear_line}failed: $1, exit code $code, log $base/logs/$1.log" >&2
  [ -z "${SWEEP_FAILED:-}" ] || echo "$1" >> "$SWEEP_FAILED"
  return 1
}

progress() { # shows how far the sweep is: on a terminal in one line, else in a line whenever a run has ended
  local left failed ended text
  left=$(missing | grep -c .) || true
  failed=$(grep -c . "$SWEEP_FAILED") || true
  ended=$((before - left + failed))
  text="$((total - left - differ))/$total done, $failed failed"
  if [ "$ended" -gt 0 ]; then
    left=$((SECONDS * (left - failed) / ended))
    text="$text, about $(printf '%d:%02d:%02d' $((left / 3600)) $((left / 60 % 60)) $((left % 60))) left"
  fi
  if [ -t 1 ]; then
    printf '%s' "$clear_line$text"
  elif [ "$ended" != "$shown" ]; then
    shown=$ended
    echo "$text"
  fi
}

# shellcheck disable=SC2317 # called by traps
stop() { # at a signal: stops the trainings that this sweep started, then the sweep, with the exit code $1
  local signal
  trap '' INT TERM HUP
  for signal in INT TERM KILL; do # a sweep in the background of a script ignores INT
    kill "-$signal" -- "-$group" 2> /dev/null || break
    for _ in 1 2 3 4 5 6; do
      kill -0 -- "-$group" 2> /dev/null || break
      sleep 0.5
    done
  done
  wait "$group" 2> /dev/null || true
  echo "${clear_line}stopped; the same command resumes" >&2
  exit "$1"
}

sweep() { # trains what is missing, $workers runs at once
  local names total differ before group="" shown=0
  total=$(grep -c . <<< "$plan")
  differ=$(grep -c . <<< "$differing") || true
  before=$(missing | grep -c .) || true
  SWEEP_FAILED=$(mktemp "${TMPDIR:-/tmp}/klip-ppo.XXXXXX")
  export SWEEP_FAILED SWEEP_PID=$$
  trap 'rm -f "$SWEEP_FAILED"' EXIT
  trap 'stop 130' INT
  trap 'stop 143' TERM
  trap 'stop 129' HUP
  SECONDS=0
  # The second pass waits for the runs that another sweep was at, and takes over those it left; the third is for those
  # that a killed worker of ours left.
  for SWEEP_LOCK in pass-over wait wait; do
    export SWEEP_LOCK
    names=$(missing | grep -vxF -e "$(cat "$SWEEP_FAILED")") || break
    set -m # a process group of its own, for stop
    xargs -n 1 -P "$workers" "$BASH" "$self" ${forward[@]+"${forward[@]}"} --run <<< "$names" &
    group=$!
    set +m
    while kill -0 "$group" 2> /dev/null; do
      progress
      sleep 1
    done
    wait "$group" 2> /dev/null || true
    progress
  done
  printf '%s' "$clear_line"
}

submit() { # one job array of what is neither complete nor queued
  local names queue job list script id
  command -v sbatch > /dev/null || die "--slurm: no sbatch here; call it on a machine from which jobs are submitted"
  queue=$(queued) || die "--slurm: squeue fails, so what is queued already is unknown; try again later"
  names=$(missing | grep -vxF -e "$queue") || {
    echo "nothing to submit: every run is complete or queued"
    return
  }
  job=klip-ppo-$(date +%Y%m%d-%H%M%S)-$$
  list=$PWD/$base/slurm/$job.list
  mkdir -p "$base/slurm"
  echo "$names" > "$list"
  script="#!/usr/bin/env bash
export PYTHON=$(printf %q "$PYTHON")
exec bash $(printf '%q ' "$self" ${forward[@]+"${forward[@]}"}) --run \"\$(sed -n \$((SLURM_ARRAY_TASK_ID + 1))p $(printf %q "$list"))\""
  id=$(sbatch --parsable --job-name="$job" --array="0-$(($(grep -c . <<< "$names") - 1))${workers:+%$workers}" \
    --chdir="$PWD" --output="$PWD/$base/slurm/%A_%a.out" "${SLURM_OPTIONS[@]}" ${sbatch_options[@]+"${sbatch_options[@]}"} \
    <<< "$script") || { rm "$list"; die "--slurm: sbatch refused, see above"; }
  echo "submitted job array ${id%%;*}: $(grep -c . <<< "$names") runs"
  echo "  watch:  squeue --job ${id%%;*}    $0 --status    stop: scancel ${id%%;*}"
  echo "  the same command again submits what is then missing; without --slurm it draws and compares what there is"
}

commands() { # prints the commands of the missing runs
  local fields
  while IFS=$'\t' read -r -a fields; do
    [ -e "$base/${fields[0]}/result.json" ] || printf '%s\n' "$(printf '%q ' "${PYTHON:-.venv/bin/python}" "${fields[@]:4}")"
  done <<< "$plan"
}

main() {
  local mode=sweep prefix="" seeds=$SEEDS tasks="" variants="" task_table=$TASKS total_timesteps="" script_args=""
  local word workers="" run="" into="" track=() sbatch_options=() forward=() clear_line="" base self plan twice differing code=0
  for word in "$@"; do
    [ "$word" != -- ] || break
    forward+=("$word") # the flags, for the workers
  done
  while [ $# -gt 0 ]; do
    case "$1" in --?*=*) word=$1; shift; set -- "${word%%=*}" "${word#*=}" "$@" ;; esac # --flag=value
    case "$1" in
      quick) prefix=quick/ seeds=$QUICK_SEEDS task_table=$QUICK_TASKS ;;
      --slurm) [ "$mode" != sweep ] || mode=slurm ;;
      --status) [ "$mode" = dry-run ] || mode=status ;;
      --dry-run) mode=dry-run ;;
      --track) track+=(--track) ;;
      --help | -h) usage; exit ;;
      --) shift; sbatch_options=("$@"); break ;;
      *)
        case "$1" in
          --tasks) tasks=${2:-} ;;
          --variants) variants=${2:-} ;;
          --seeds) seeds=${2:-} ;;
          --total-timesteps) total_timesteps=${2:-} ;;
          --script-args) script_args=${2:-} ;;
          --workers) workers=${2:-} ;;
          --wandb-project-name | --wandb-entity) track+=("$1" "${2:-}") ;;
          --into) into=${2:-} ;;
          --run) mode=run run=${2:-} ;;
          *) die "there is no $1; see ./benchmark.sh --help" ;;
        esac
        [ -n "${2:-}" ] || die "$1 needs a value"
        shift ;;
    esac
    shift
  done
  tasks=${tasks// /} variants=${variants// /} seeds=${seeds// /}
  case "$into" in
    */* | .* | -* | logs | plots | slurm | incomplete) die "--into must be a name for a folder, not $into" ;;
    ?*) prefix=$into/ ;;
  esac
  known --tasks "$tasks" "$task_table"
  known --variants "$variants" "$VARIANTS"
  numbers --seeds "$seeds" 0
  numbers --total-timesteps "${total_timesteps:-1}" 1
  numbers --workers "${workers:-1}" 1
  case " ${script_args//_/-} " in
    *' --help '* | *' -h '*) die "--script-args: --help trains nothing" ;;
    *' --seed'* | *' --env-id'* | *' --total-timesteps'* | *' --run-name'* | *' --exp-name'* | *' --track'* | *' --wandb'*)
      die "--script-args: seeds, tasks, steps, names and W&B have flags of their own; see ./benchmark.sh --help" ;;
  esac
  [ "$mode" = slurm ] || [ "$mode" = dry-run ] || [ ${#sbatch_options[@]} = 0 ] || die "what follows -- goes to sbatch: add --slurm, or leave it out"

  case "${PYTHON:-}" in [!/]*/*) export PYTHON=$PWD/$PYTHON ;; esac
  CDPATH="" cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")"
  self=$PWD/$(basename -- "${BASH_SOURCE[0]}")

  base=runs/$prefix
  base=${base%/}
  plan=$(plan)
  [ -n "$plan" ] || die "none of these variants is of the family of one of these tasks"
  twice=$(cut -f 1 <<< "$plan" | sort | uniq -d)
  [ -z "$twice" ] || die "two runs are called ${twice%%$'\n'*}: give a variant an --exp-name of its own, or a seed once"

  case "$mode" in sweep) workers=${workers:-$(cores)} ;; esac
  export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 VECLIB_MAXIMUM_THREADS=1
  [ ! -t 1 ] || clear_line=$'\r\033[K'

  if [ "$mode" = dry-run ]; then
    commands
    exit
  fi
  install
  case "$mode" in
    sweep | slurm)
      differing=$(report check) || exit 2
      [ -z "$differing" ] || { code=1; echo "$differing" >&2; } ;;
  esac
  case "$mode" in
    run) run_one "$run" || code=$? ;;
    status) report status || code=$? ;;
    slurm) submit ;;
    sweep)
      sweep
      if [ -f plots/make.py ] && [ "$(missing)" != "$(cut -f 1 <<< "$plan")" ]; then
        echo "drawing"
        "$PYTHON" plots/make.py --runs-dir "$base" --out "$base/plots" || { code=1; echo "error: plots/make.py failed, see above" >&2; }
      fi
      report sweep || code=$? ;;
  esac
  exit "$code"
}
main "$@"
