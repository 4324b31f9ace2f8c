# Sourced by the recipes: runs named stages in order, skips finished ones, resumes interrupted ones.
#
#   FRESH=1            start over: everything under $OUT is removed first
#   DRY_RUN=1          print every command, the resolved, checked configuration of the training stages and the estimate of
#                      memory and disk; run nothing
#   STAGE_LIMIT=90m    wall-clock limit of one stage (long runs hang more often than they crash)
#   PROFILE=cpu|gpu    hardware profile (default: gpu where nvidia-smi works, else cpu)
#
# A recipe puts its `stage` lines into a function, recipe_stages, and ends with `run_recipe "$@"`: the lines are read once
# for the check of the whole recipe (avar_rl.verl_plugin.recipe_check.py), before the first of them is run.

: "${OUT:?a recipe sets OUT before it sources stages.sh}"
PROFILE=${PROFILE:-$(if nvidia-smi >/dev/null 2>&1; then echo gpu; else echo cpu; fi)}
PYTHON=${AVAR_VENV:-$PWD/.venv}/bin/python
if [ "${DRY_RUN:-0}" != 1 ] || [ ! -f "${AVAR_VENV:-$PWD/.venv}/.avar-stamp" ]; then
  AVAR_PROFILE=$PROFILE recipes/setup.sh # a dry run takes any environment: a laptop's will do for a GPU recipe
fi
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} WANDB_MODE=${WANDB_MODE:-offline} PYTHONUNBUFFERED=1
OUT=$(realpath -m "$OUT")
export AVAR_RUN=$OUT # the training stages keep their logs there (avar_rl/verl_plugin/config/paths.py)

# One recipe at a time in $OUT. Descriptor 8 holds the lock as long as this shell lives; what it starts must not inherit it
# (8>&-), else an orphan would hold it on.
lock_out() {
  mkdir -p "$OUT" && : >>"$OUT/.lock" || { echo "cannot write to $OUT: choose another OUT" >&2; exit 2; }
  exec 8<>"$OUT/.lock"
  if ! flock -n 8; then
    echo "another recipe ($(cat "$OUT/.lock")) is at work in $OUT: wait for it, or choose another NAME" >&2
    exit 2
  fi
  echo "process $$ on $(hostname)" >"$OUT/.lock"
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
  local check=("$PYTHON" -m avar_rl.verl_plugin.recipe_check --profile "$PROFILE" --out "$OUT")
  if [ "${DRY_RUN:-0}" = 1 ]; then
    PLAN=1 recipe_stages "$@" | "${check[@]}" --print
    return
  fi
  PLAN=1 recipe_stages "$@" | "${check[@]}" 8>&-
  recipe_stages "$@"
}

# stage NAME COMMAND…: runs COMMAND unless it has finished before. A stage's seconds are kept for the summary.
stage() {
  local name=$1 done_file=$OUT/stages/$1 started=$SECONDS status=0
  shift
  if [ "${PLAN:-0}" = 1 ]; then # its name, the number of its words, its words
    [ -f "$done_file" ] && [ "${DRY_RUN:-0}" != 1 ] || printf '%s\0' "$name" $# "$@"
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
    return
  fi
  mkdir -p "$OUT/stages" "$OUT/logs"
  echo "== $name"
  # tee ignores Ctrl-C, so that what the stage says on its way out is still seen
  timeout --foreground -k 60 "${STAGE_LIMIT:-90m}" "$@" 2>&1 8>&- | tee -ia "$OUT/logs/$name.log" 8>&- || status=${PIPESTATUS[0]}
  if [ "$status" != 0 ]; then
    [ "$status" = 124 ] && echo "stage $name reached its limit of ${STAGE_LIMIT:-90m} (STAGE_LIMIT)" >&2
    echo "stage $name stopped with status $status; log: $OUT/logs/$name.log. The same command resumes it." >&2
    exit "$status"
  fi
  printf '%s\n%s\n' $((SECONDS - started)) "$*" >"$done_file.new" && mv "$done_file.new" "$done_file"
}
