# Sourced by the recipes: runs named stages in order, skips finished ones, resumes interrupted ones.
#
#   FRESH=1            start over: everything under $OUT is removed first
#   DRY_RUN=1          print every command, and the resolved, checked configuration of the training stages; run nothing
#   STAGE_LIMIT=90m    wall-clock limit of one stage (long runs hang more often than they crash)
#   PROFILE=cpu|gpu    hardware profile (default: gpu where nvidia-smi works, else cpu)

: "${OUT:?a recipe sets OUT before it sources stages.sh}"
PROFILE=${PROFILE:-$(if nvidia-smi >/dev/null 2>&1; then echo gpu; else echo cpu; fi)}
AVAR_PROFILE=$PROFILE recipes/setup.sh
PYTHON=${AVAR_VENV:-$PWD/.venv}/bin/python
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} WANDB_MODE=${WANDB_MODE:-offline} PYTHONUNBUFFERED=1
OUT=$(realpath -m "$OUT")
export AVAR_RUN=$OUT # the training stages keep their logs there (avar_rl/verl_plugin/config/paths.py)

if [ "${FRESH:-0}" = 1 ] && [ "${DRY_RUN:-0}" != 1 ] && [ -e "$OUT" ]; then
  [ -d "$OUT/stages" ] || { echo "FRESH=1: $OUT was not made by a recipe; remove it yourself" >&2; exit 1; }
  rm -rf "$OUT"
fi

# stage NAME COMMAND…: runs COMMAND unless it has finished before. A stage's seconds are kept for the summary.
stage() {
  local name=$1 done_file=$OUT/stages/$1 started=$SECONDS status=0
  shift
  if [ "${DRY_RUN:-0}" = 1 ]; then
    echo "# stage $name: $*"
    case "$*" in *avar_rl.verl_plugin.*) "$@" --dry-run ;; esac
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
  timeout --foreground -k 60 "${STAGE_LIMIT:-90m}" "$@" 2>&1 | tee -ia "$OUT/logs/$name.log" || status=${PIPESTATUS[0]}
  if [ "$status" != 0 ]; then
    [ "$status" = 124 ] && echo "stage $name reached its limit of ${STAGE_LIMIT:-90m} (STAGE_LIMIT)" >&2
    echo "stage $name stopped with status $status; log: $OUT/logs/$name.log. The same command resumes it." >&2
    exit "$status"
  fi
  printf '%s\n%s\n' $((SECONDS - started)) "$*" >"$done_file.new" && mv "$done_file.new" "$done_file"
}
