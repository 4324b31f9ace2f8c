# Sourced by the recipes: runs named stages in order, skips finished ones, resumes interrupted ones.
#
#   FRESH=1            start over: everything under $OUT is removed first
#   DRY_RUN=1          print every command, the resolved, checked configuration of the training stages and the estimate of
#                      memory and disk; run nothing
#   DRY_RUN=plan       print the stages for a program (avar_rl/runtime/recipe_plan.py reads them); run and check nothing
#   UNTIL=sft_model    end after this stage
#   STAGE_LIMIT=90m    wall-clock limit of one stage (long runs hang more often than they crash)
#   NOTICE=30          seconds from SIGTERM to the end of this machine, where it is preempted: a step of GRPO that would not
#                      be saved by then is given up for the one before it; after NOTICE everything ends, finished or not
#                      (default: a stage takes the time that it needs)
#   PROFILE=cpu|gpu    hardware profile (default: gpu where nvidia-smi works, else cpu)
#
# A recipe puts its `stage` lines into a function, recipe_stages, and ends with `run_recipe "$@"`: the lines are read once
# for the check of the whole recipe (avar_rl.verl_plugin.recipe_check.py), before the first of them is run.

: "${OUT:?a recipe sets OUT before it sources stages.sh}"
PLAN_ONLY=0
if [ "${DRY_RUN:-0}" = plan ]; then DRY_RUN=1 PLAN_ONLY=1; fi
PROFILE=${PROFILE:-$(if nvidia-smi >/dev/null 2>&1; then echo gpu; else echo cpu; fi)}
PYTHON=${AVAR_VENV:-$PWD/.venv}/bin/python
if [ "${DRY_RUN:-0}" != 1 ] || [ ! -f "${AVAR_VENV:-$PWD/.venv}/.avar-stamp" ]; then
  AVAR_PROFILE=$PROFILE recipes/setup.sh # a dry run takes any environment: a laptop's will do for a GPU recipe
fi
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} WANDB_MODE=${WANDB_MODE:-offline} PYTHONUNBUFFERED=1
OUT=$(realpath -m "$OUT")
export AVAR_NOTICE_SECONDS=${NOTICE:-0} # recipes/config/grpo.yaml
export AVAR_RUN=$OUT # the training stages keep their logs there (avar_rl/verl_plugin/config/paths.py)

# One recipe at a time in $OUT. Descriptor 8 holds the lock as long as this shell lives, or what attends to its stage; no
# stage inherits it, so none can hold it on. Where a file system does not carry locks from node to node, the holder's sign of
# life does: the file is touched every 20 seconds (avar_rl/runtime/attend.py).
SIGN_OF_LIFE=90 # seconds without one after which a holder on another node is taken for dead

lock_out() {
  mkdir -p "$OUT" && : >>"$OUT/.lock" || { echo "cannot write to $OUT: choose another OUT" >&2; exit 2; }
  exec 8<>"$OUT/.lock"
  local holder
  holder=$(cat "$OUT/.lock")
  if ! flock -n 8 || held_elsewhere "$holder"; then
    echo "another recipe ($holder) is at work in $OUT: wait for it, or choose another NAME. If it died on another node, \
this is possible $SIGN_OF_LIFE s after its death." >&2
    exit 2
  fi
  echo "process $$ on $(hostname)" >"$OUT/.lock"
  trap unlock_out EXIT
}

unlock_out() { : >"$OUT/.lock"; }

# Both times are those of the file system: clocks of nodes differ.
held_elsewhere() {
  [ -n "$1" ] && [ "${1##* on }" != "$(hostname)" ] || return 1
  local probe=$OUT/.now.$$ now
  : >"$probe"
  now=$(stat -c %Y "$probe")
  rm -f "$probe"
  [ $((now - $(stat -c %Y "$OUT/.lock"))) -lt $SIGN_OF_LIFE ]
}

# A signal to this shell is passed on to the stage, which finishes in good order; then the recipe ends. A second one, two
# seconds later or more, ends everything at once.
ATTENDANT=
STOPPED=
stop() {
  STOPPED=1
  [ -z "$ATTENDANT" ] || kill -s TERM "$ATTENDANT" 2>/dev/null || true
}
if [ "${DRY_RUN:-0}" != 1 ]; then trap stop TERM INT HUP; fi

# attended [OPTIONS of avar_rl.runtime.attend] -- COMMAND…: runs a command whose processes end when this shell does.
attended() {
  local status=0
  "$PYTHON" -m avar_rl.runtime.attend --parent $$ --alive "$OUT/.lock" ${NOTICE:+--notice "$NOTICE"} "$@" &
  ATTENDANT=$!
  while kill -0 "$ATTENDANT" 2>/dev/null; do wait "$ATTENDANT" || true; done # a signal ends `wait`
  wait "$ATTENDANT" || status=$?
  ATTENDANT=
  return "$status"
}

if [ "${DRY_RUN:-0}" != 1 ]; then
  if [ "${FRESH:-0}" = 1 ] && [ -e "$OUT" ] && [ ! -d "$OUT/stages" ]; then
    echo "FRESH=1: $OUT was not made by a recipe; remove it yourself" >&2
    exit 1
  fi
  lock_out
  if [ "${FRESH:-0}" = 1 ]; then find "$OUT" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +; fi
fi

# run_recipe ARGUMENTS…: checks all stages of recipe_stages that are still to be run, then runs them.
run_recipe() {
  check_until "$@"
  if [ "$PLAN_ONLY" = 1 ]; then
    PLAN=1 recipe_stages "$@"
    return
  fi
  local check=("$PYTHON" -m avar_rl.verl_plugin.recipe_check --profile "$PROFILE" --out "$OUT")
  if [ "${DRY_RUN:-0}" = 1 ]; then
    PLAN=1 recipe_stages "$@" | "${check[@]}" --print
    return
  fi
  PLAN=1 recipe_stages "$@" | "${check[@]}" 8>&-
  [ -z "$STOPPED" ] || exit 130
  recipe_stages "$@"
}

# A stage that is UNTIL ends the subshell with 0.
check_until() {
  [ -n "${UNTIL:-}" ] || return 0
  (PLAN=1 recipe_stages "$@" >/dev/null; exit 9) ||
    { echo "UNTIL=$UNTIL: this recipe has no stage of that name" >&2; exit 2; }
}

# stage NAME COMMAND…: runs COMMAND unless it has finished before. A stage's seconds are kept for the summary.
stage() {
  local name=$1 done_file=$OUT/stages/$1 started=$SECONDS
  shift
  if [ "${PLAN:-0}" = 1 ]; then
    [ -f "$done_file" ] && [ "${DRY_RUN:-0}" != 1 ] || planned "$name" "$@"
    end_where_wanted "$name"
    return
  fi
  if [ -f "$done_file" ]; then
    if [ "$(tail -n +2 "$done_file")" != "$*" ]; then
      echo "stage $name in $OUT finished with another command:" >&2
      diff <(tail -n +2 "$done_file" | tr ' ' '\n') <(printf '%s\n' "$*" | tr ' ' '\n') | grep '^[<>]' >&2 || true
      echo "start over with FRESH=1, or choose another NAME" >&2
      exit 1
    fi
    echo "== $name: done before, in $(head -n 1 "$done_file") s"
    end_where_wanted "$name"
    return
  fi
  run_stage "$name" "$@"
  printf '%s\n%s\n' $((SECONDS - started)) "$*" >"$done_file.new" && mv "$done_file.new" "$done_file"
  end_where_stopped "$name"
  end_where_wanted "$name"
}

# stage_again NAME COMMAND…: a stage whose COMMAND knows by itself what of its work is done, and is run every time.
stage_again() {
  if [ "${PLAN:-0}" = 1 ]; then planned "$@"; else run_stage "$@"; end_where_stopped "$1"; fi
  end_where_wanted "$1"
}

planned() { printf '%s\0' "$1" $(($# - 1)) "${@:2}"; } # a stage's name, the number of its words, its words

run_stage() {
  local name=$1 status=0
  shift
  mkdir -p "$OUT/stages" "$OUT/logs"
  export AVAR_STAGE=$name # the training stages name their logs after it
  echo "== $name"
  attended --limit "${STAGE_LIMIT:-90m}" --log "$OUT/logs/$name.log" \
    --used "$OUT/logs/$name.used.jsonl" -- "$@" || status=$?
  if [ "$status" != 0 ]; then
    local next="The same command resumes it."
    [ "$status" != 2 ] || next="It goes on once that is mended."
    echo "stage $name stopped with status $status; log: $OUT/logs/$name.log. $next" >&2
    exit "$status"
  fi
}

end_where_stopped() {
  if [ -n "$STOPPED" ]; then
    echo "stopped by a signal after stage $1. The same command goes on." >&2
    exit 130
  fi
}

end_where_wanted() { if [ "$1" = "${UNTIL:-}" ]; then exit 0; fi; }
