#!/usr/bin/env bash
# Trains every variant on every task with every seed, on this machine or on a Slurm cluster, and compares the results.
# ./benchmark.sh --help and docs/run.md say how. Any bash from 3.2 (macOS) on will do.
[ -n "${BASH_VERSION:-}" ] || { echo "error: run it with bash, as ./benchmark.sh" >&2; exit 2; }
set -euf -o pipefail

# The list of runs: tasks x variants of their family x seeds. To add a task or a variant of your own, add a line.
# Pictures and tables show both in this order, which a sweep keeps in plan.tsv beside its runs.
# task            family      steps    flags
TASKS="
HalfCheetah-v4    continuous  1000000
Hopper-v4         continuous  1000000
Walker2d-v4       continuous  1000000
Ant-v4            continuous  1000000
Humanoid-v4       continuous  1000000
CartPole-v1       cartpole    100000
LunarLander-v3    cartpole    1000000  --compile --num-envs 16 --num-steps 1024 --num-minibatches 256 --gamma 0.999 --gae-lambda 0.98 --ent-coef 0.01
"
QUICK_TASKS="
Hopper-v4         continuous  81920
CartPole-v1       cartpole    20480
"
# variant         family      script and flags (the second variant of a script needs an --exp-name of its own)
VARIANTS="
clip              continuous  ppo_clip_continuous.py
klip              continuous  ppo_klip_continuous.py
phi               continuous  ppo_phi_continuous.py
kl_fixed          continuous  ppo_kl_scalar_continuous.py --exp-name ppo_kl_fixed_continuous
kl_adaptive       continuous  ppo_kl_scalar_continuous.py --exp-name ppo_kl_adaptive_continuous --adaptive-beta
clip              cartpole    ppo_clip_cartpole.py
klip              cartpole    ppo_klip_cartpole.py
phi               cartpole    ppo_phi_cartpole.py
kl_fixed          cartpole    ppo_kl_scalar_cartpole.py --exp-name ppo_kl_fixed_cartpole
kl_adaptive       cartpole    ppo_kl_scalar_cartpole.py --exp-name ppo_kl_adaptive_cartpole --adaptive-beta
"
SEEDS=0,1,2,3,4
QUICK_SEEDS=0,1
SLURM_OPTIONS=(--ntasks=1 --cpus-per-task=1 --time=02:00:00 --mem=2G --requeue --open-mode=append)

usage() {
  cat << 'EOF'
usage: ./benchmark.sh [quick] [flags] [-- sbatch options]

  (neither)           the whole grid: 7 tasks, 5 variants, 5 seeds; into runs/
  quick               all variants on Hopper-v4 and CartPole-v1, 2 seeds, short: minutes; into runs/quick/
The same command again resumes: complete runs are kept, the others start over. The first call installs into .venv.
  --tasks A,B         only these tasks (the tables at the top of this file have them)
  --variants A,B      only these: clip, klip, phi, kl_fixed, kl_adaptive; or NAME, for any script betas/NAME.py
  --seeds 0,1         these seeds (or "0 1": in all three a blank separates as a comma does)
  --total-timesteps N steps of every run
  --script-args "..." more arguments for the scripts, e.g. --script-args "--save-model --clip-coef 0.1"
  --into NAME         into runs/NAME/, for example for runs with other --script-args
  --workers N         runs at once (one a core; with --slurm as many as the cluster gives)
  --track             log to W&B, too; --wandb-project-name NAME and --wandb-entity NAME say where
  --status            what is done, diverged, running, queued, failed and missing, and the table so far
  --dry-run           print the commands of the runs that are not complete
  --slurm             submit the missing runs as one Slurm job array and return; sbatch options follow after --
Logs are in logs/ beside the runs, folders of interrupted runs in incomplete/. PYTHON=... replaces .venv/bin/python.
Exit code: 0 if all runs are complete, and identical where they must be; 1 if not, or if the pictures failed; 2 for a
wrong argument. With --slurm 0 once the runs are submitted.
EOF
}

# Whether the list $2 (a,b,c) holds the word $1; an empty list holds every word.
listed() {
  [ -n "$1" ] || return 1 # the blank first line of a table
  [ -n "$2" ] || return 0
  case ",$2," in *",$1,"*) return 0 ;; *) return 1 ;; esac
}

# Whether a line of the table $2 begins with the word $1.
in_table() {
  local first rest
  while read -r first rest; do
    [ "$first" != "$1" ] || return 0
  done <<< "$2"
  return 1
}

# The experiment's name: what the flags say, or the script's own.
exp_name() { # script, flags...
  local name previous="" word
  name=$(basename -- "$1" .py)
  for word in "$@"; do
    [ "$previous" != --exp-name ] || name=$word
    previous=$word
  done
  echo "$name"
}

plan() { # a line a run, its fields separated by tabs: name, task, variant, seed, script, arguments...
  local seed task family steps task_flags variant of script flags name
  for seed in ${seeds//,/ }; do # outermost: all variants come early, and later seeds find the update compiled
    while read -r task family steps task_flags; do
      listed "$task" "$tasks" || continue
      while read -r variant of script flags; do
        [ "$of" = "$family" ] || continue
        listed "$variant" "$variants" || continue
        # shellcheck disable=SC2086 # flags are words
        name=$folder${task}__$(exp_name "$script" $flags)__$seed
        # shellcheck disable=SC2086
        printf '%s\t' "$name" "$task" "$variant" "$seed" "$script" $flags $task_flags ${track[@]+"${track[@]}"} \
          --env-id "$task" --seed "$seed" --total-timesteps "${total_timesteps:-$steps}" $script_args --run-name
        echo "$prefix$name"
      done <<< "$VARIANTS"
    done <<< "$task_table"
  done
}

save_plan() { # adds the runs to plan.tsv beside them; the pictures take the order of tasks and variants from there
  local new
  new=$(cut -f 1-4 <<< "$plan" | grep -vxF -f <(cat "$base/plan.tsv" 2> /dev/null)) || return 0 # nothing new
  echo "$new" >> "$base/plan.tsv" # name, task, variant, seed
}

read_runs() { "$PYTHON" tools/sweep.py "$@" "$base" <<< "$plan"; }

use_python() { # the user's own Python, or .venv with requirements.txt installed
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" > /dev/null || die "PYTHON=$PYTHON: no such program"
    return
  fi
  export PYTHON=.venv/bin/python
  install requirements.txt
}

# Whether the run $name has ended; of one that diverged result.json says so.
ended() { [ -e "$base/$name/result.json" ]; }

launch() { # becomes the training of $name, which holds the lock on its log until it ends, however it ends
  local number=1 aside=$base/incomplete/$name
  mkdir -p "${log%/*}" || exit
  exec 9>> "$log" || exit
  if command -v flock > /dev/null; then
    flock "$1" 9 2>> "$log" || [ $? != 1 ] || exit 75 # another code: this file system has no locks
  fi
  ! ended || exit 0
  if [ -e "$base/$name" ]; then
    while [ -e "$aside.$number" ]; do
      number=$((number + 1))
    done
    mkdir -p "${aside%/*}" || exit
    mv "$base/$name" "$aside.$number" || exit
  fi
  echo "=== $(date '+%Y-%m-%d %H:%M:%S') $(printf '%q ' "$PYTHON" "${command[@]}")" >&9 || exit
  # Not to 9: what outlives the training must not hold the lock.
  exec "$PYTHON" "${command[@]}" < /dev/null >> "$log" 2>&1
}

run_one() { # trains the run of the line $3 of a plan in $2, unless it is complete; $1 is an option of flock
  local fields command name log said state=complete code=0 base=$2
  IFS=$'\t' read -r -a fields <<< "$3"
  name=${fields[0]}
  command=("${fields[@]:4}") # the script and its arguments
  log=$base/logs/$name.log
  said=$(launch "$1" 2>&1) || code=$?
  [ "$code" != 75 ] || exit 0 # another process is at it
  if [ "$code" != 0 ] && ! ended; then # a run that diverged has ended, too
    state="failed: exit code $code"
    said=$said$({ echo "=== exit code $code" >> "$log"; } 2>&1) || true # the disk may be full
  fi
  said=${said#"$self: line "*: }
  # Where the sweep was killed nobody reads this: that ends this worker, and with 255 or a signal xargs.
  printf '%s\t%s\n' "$state${said:+: ${said//[[:space:]]/ }}" "$3" || exit 255
  [ "$state" = complete ]
}

cores() { OMP_NUM_THREADS="" OMP_THREAD_LIMIT="" nproc 2> /dev/null || getconf _NPROCESSORS_ONLN; }

train() { # trains the runs of $todo, $workers at once; $failed gets a line for each that failed
  local pending=$todo total ended=0 state line name left
  total=$(grep -c . <<< "$todo")
  workers=${workers:-$(cores)}
  mkdir -p "$base/logs" 2> /dev/null || die "cannot make $base/logs: runs must be a folder to write to, or a link to one"
  save_plan
  command -v flock > /dev/null || echo "without flock (util-linux), two sweeps in one folder are not kept apart" >&2
  echo "$total runs to train, $workers at once"
  trap 'echo "stopped: nothing more is started, what is being trained goes on unless it was stopped, too (--status); the same command resumes" >&2; exit 130' INT TERM HUP
  SECONDS=0
  while [ -n "$pending" ]; do # what another sweep is at is tried again until that ends it, or leaves it to this one
    while IFS=$'\t' read -r state line; do # run_one's lines
      name=${line%%$'\t'*}
      pending=$(grep -vxF -e "$line" <<< "$pending") || true
      [ "$state" = complete ] || failed=$failed$name$'\t'$state$'\n'
      ended=$((ended + 1))
      left=$((SECONDS * (total - ended) / ended / 60))
      echo "$ended/$total, about $((left / 60)) h $((left % 60)) min left: $name $state"
    done < <(tr '\n' '\0' <<< "$pending" | xargs -0 -n 1 -P "$workers" "$BASH" "$self" --run -n "$base")
    [ -z "$pending" ] || sleep 2
  done
}

submit() { # one job array of the runs of $todo
  local job list said script count id watch
  [ -n "$todo" ] || { echo "nothing to submit: every run is complete or queued, or named above"; return; }
  job=klip-ppo-$(date +%Y%m%d-%H%M%S)-$$
  list=$PWD/$base/slurm/$job.list
  count=$(grep -c . <<< "$todo")
  if [[ $(scontrol show config 2> /dev/null) =~ MaxArraySize\ *=\ *([0-9]+) ]] && [ "$count" -gt "${BASH_REMATCH[1]}" ]; then
    die "--slurm: $count runs, but an array may have ${BASH_REMATCH[1]} here (MaxArraySize): submit them in parts, by --seeds or --tasks"
  fi
  if ! said=$({ mkdir -p "${list%/*}" && echo "$todo" > "$list"; } 2>&1); then
    rm -f "$list"
    die "--slurm: ${said#*: line *: }"
  fi
  save_plan
  script="#!/usr/bin/env bash
export PYTHON=$(printf %q "$PYTHON")
exec bash $(printf '%q ' "$self" --run -x "$base") \"\$(sed -n \$((SLURM_ARRAY_TASK_ID + 1))p $(printf %q "$list"))\""
  id=$(sbatch --parsable --job-name="$job" --array="0-$((count - 1))${workers:+%$workers}" --chdir="$PWD" \
    --output="$PWD/$base/slurm/%A_%a.out" "${SLURM_OPTIONS[@]}" ${sbatch_options[@]+"${sbatch_options[@]}"} <<< "$script") ||
    { rm "$list"; die "--slurm: sbatch refused, see above"; }
  watch=$(printf '%q ' "$called" ${asked[@]+"${asked[@]}"})
  echo "submitted job array ${id%%;*}: $count runs"
  echo "  watch:  squeue --job ${id%%;*}    ${watch//\\,/,}--status    stop: scancel ${id%%;*}"
}

main() {
  local mode=train sweep="" seeds="" tasks="" variants="" total_timesteps="" script_args="" workers="" into=""
  local task_table=$TASKS slurm="" track=() sbatch_options=() asked=()
  local word folder="" prefix base plan todo fields name failed=""
  while [ $# -gt 0 ]; do
    case "$1" in --?*=*) word=$1; shift; set -- "${word%%=*}" "${word#*=}" "$@" ;; esac # --flag=value
    case "$1" in --slurm | --) ;; *) asked+=("$1") ;; esac
    case "$1" in
      quick) sweep=$1 ;;
      --status | --dry-run) mode=$1 ;;
      --slurm) slurm=yes; [ "$mode" != train ] || mode=$1 ;;
      --track) track+=(--track) ;;
      --help | -h) usage; exit ;;
      --) shift; sbatch_options=("$@"); break ;;
      --wandb-project-name | --wandb-entity)
        [ -n "${2:-}" ] || die "$1 needs a value"
        asked+=("$2")
        track+=("$1" "$2")
        shift ;;
      --tasks | --variants | --seeds | --total-timesteps | --script-args | --workers | --into)
        [ -n "${2:-}" ] || die "$1 needs a value"
        asked+=("$2")
        word=${1#--}
        printf -v "${word//-/_}" %s "$2"
        shift ;;
      *) die "there is no $1; see ./benchmark.sh --help" ;;
    esac
    shift
  done
  [ -z "$sweep" ] || { task_table=$QUICK_TASKS; seeds=${seeds:-$QUICK_SEEDS}; }
  for word in tasks variants seeds; do # a,b and "a b" and "a, b" are the same two words
    printf -v "$word" %s "${!word//[[:space:]]/,}"
    case "${!word}" in "" | *[!,]*) ;; *) die "--$word needs a value" ;; esac
  done
  seeds=${seeds:-$SEEDS}
  case "${into:+/$into/}" in
    *//* | */../* | */./*) die "--into $into: not a folder within runs/; a name such as mine or mine/first" ;;
  esac
  prefix=${into:-$sweep}
  base=runs${prefix:+/$prefix}
  prefix=${prefix:+$prefix/}
  [ "${workers:-1}" -ge 1 ] 2> /dev/null || die "--workers must be a whole number of at least 1, not $workers"
  for word in ${seeds//,/ }; do
    case "$word" in
      *[!0-9]* | 0?*) die "--seeds $word: no seed; seeds are whole numbers, written as 0,1,2" ;;
    esac
  done
  for word in ${tasks//,/ }; do
    in_table "$word" "$task_table" || die "--tasks $word: not in the table of tasks${sweep:+ of $sweep} in benchmark.sh; add a line for it"
  done
  for word in ${variants//,/ }; do
    ! in_table "$word" "$VARIANTS" || continue
    case "$word" in */* | loop) die "--variants $word: no file of betas/ that is a variant" ;; esac
    [ -f "betas/$word.py" ] || die "--variants $word: neither in the table of variants in benchmark.sh nor betas/$word.py"
    VARIANTS="$VARIANTS$word continuous betas/$word.py"$'\n'"$word cartpole betas/$word.py"$'\n'
  done
  [ -n "$slurm" ] || [ ${#sbatch_options[@]} = 0 ] || die "what follows -- goes to sbatch: add --slurm, or leave it out"
  plan=$(plan)
  [ -n "$plan" ] || die "no variant asked for is of the family of a task asked for"

  if [ "$mode" = --dry-run ]; then
    while IFS=$'\t' read -r -a fields; do
      name=${fields[0]}
      ! ended || continue
      printf '%q ' "${PYTHON:-.venv/bin/python}" "${fields[@]:4}"
      echo
    done <<< "$plan"
    exit
  fi
  [ "$mode" != --slurm ] || command -v sbatch > /dev/null || die "--slurm: no sbatch here; call it where jobs are submitted"
  use_python
  [ "$mode" != --status ] || { read_runs status; exit; }
  todo=$(read_runs "${mode#--}") || exit 2
  if [ "$mode" = --slurm ]; then submit; exit; fi
  [ -z "$todo" ] || train
  read_runs end --failed "$failed"
}

case "${PYTHON:-}" in [!/]*/*) export PYTHON=$PWD/$PYTHON ;; esac
called=$0
self=$(realpath -- "${BASH_SOURCE[0]}") # it may have been called by a link
CDPATH="" cd -- "$(dirname -- "$self")"
# shellcheck disable=SC1091 # it is followed with --external-sources
. tools/install.sh # install, die
if [ "${1:-}" = --run ]; then run_one "${@:2}"; else main "$@"; fi
