#!/usr/bin/env bash
# Makes .venv with the pinned software stack and the `avar` command, and checks them. Called by every recipe and by
# `make`; done already, it takes about a second. Use .venv/bin/avar and .venv/bin/python afterwards.
#
#   AVAR_PROFILE=cpu|gpu   which requirements/ to install       (default: gpu where nvidia-smi works, else cpu)
#   AVAR_VENV=DIR          where the virtual environment lives  (default: .venv beside this repository's README)
#   AVAR_PYTHON=PATH       the Python 3.11 to make it with      (default: python3.11, else python3, from PATH)
#   AVAR_NEED_GB=N         free disk space to ask for           (default: 8 for cpu, 30 for gpu)
#   AVAR_FLASH_ATTN=1      compile flash-attn as well           (gpu profile; needs nvcc, takes hours)
#   AVAR_TORCH_INDEX=URL   a mirror of PyTorch's CPU index, used where pip's own indexes lack the CPU build
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${AVAR_VENV:-$ROOT/.venv}
TORCH_CPU_INDEX=${AVAR_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

say() { echo "set-up: $*"; }
die() { echo "set-up: $*" >&2; exit 1; }

pick_profile() {
  local profile=${AVAR_PROFILE:-}
  if [ -z "$profile" ]; then
    if nvidia-smi >/dev/null 2>&1; then profile=gpu; else profile=cpu; fi
  fi
  case $profile in cpu | gpu) echo "$profile" ;; *) die "AVAR_PROFILE is '$profile'; it must be cpu or gpu." ;; esac
}

is_python_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; }

pick_python() {
  local candidate found=""
  for candidate in ${AVAR_PYTHON:-python3.11 python3}; do
    if is_python_311 "$candidate"; then echo "$candidate"; return; fi
    if command -v "$candidate" >/dev/null; then found+=" $candidate = $("$candidate" --version 2>&1);"; fi
  done
  die "needs Python 3.11, but found:${found:- none at ${AVAR_PYTHON:-python3.11, python3};} install it, or name one in AVAR_PYTHON."
}

# What the environment depends on. The root is part of it, since our package is installed from there.
stamp() {
  { echo "$PROFILE ${AVAR_FLASH_ATTN:-0} $ROOT"; cat "$ROOT"/requirements/"$PROFILE"* "$ROOT"/recipes/{setup.sh,torchvision_repair.py} "$ROOT/pyproject.toml"; } |
    sha256sum | cut -d' ' -f1
}

done_already() { [ -f "$VENV/.avar-stamp" ] && [ "$(cat "$VENV/.avar-stamp")" = "$(stamp)" ] && is_python_311 "$VENV/bin/python"; }

check_disk() {
  local need free
  need=${AVAR_NEED_GB:-$([ "$PROFILE" = gpu ] && echo 30 || echo 8)}
  free=$(df -Pk "$(dirname "$VENV")" | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$free" -ge "$need" ] || die "no disk space: $free GB free at $(dirname "$VENV"), $need GB needed."
}

# run_pip ARGS...: pip install, logged. Ends the set-up with the likely cause where it fails.
try_pip() { "$VENV/bin/python" -m pip install --progress-bar off "$@" >>"$LOG" 2>&1; }
run_pip() {
  try_pip "$@" && return
  tail -n 3 "$LOG" >&2
  if grep -qE "No space left on device" "$LOG"; then die "no disk space left while installing (log: $LOG)."; fi
  if tail -n 20 "$LOG" | grep -qE "connection broken|ConnectionError|ConnectTimeout|ProxyError|Read timed out|from versions: none"; then
    die "no network: pip could not reach its package index, or the index does not offer the package (log: $LOG)."
  fi
  die "pip could not install the requirements (log: $LOG)."
}

install_cpu() {
  local torch lock=$ROOT/requirements/cpu.lock index=() parts=3 part
  torch=$(grep '^torch==' "$lock")
  if ! try_pip --dry-run --no-deps "$torch"; then
    say "the configured package indexes do not offer $torch; adding $TORCH_CPU_INDEX"
    index=(--extra-index-url "$TORCH_CPU_INDEX")
    run_pip --dry-run --no-deps "${index[@]}" "$torch"
  fi
  # The lock is complete, so its lines are independent: several pips side by side halve the time. The last one, over the
  # whole lock, finds all satisfied or installs what failed, and reports.
  for part in $(seq 0 $((parts - 1))); do
    grep -v '^#' "$lock" | awk "NR % $parts == $part" >"$VENV/lock.$part"
    try_pip --no-deps --no-compile "${index[@]}" -r "$VENV/lock.$part" &
  done
  wait
  run_pip --no-deps --no-compile "${index[@]}" -r "$lock"
  repair_torchvision
}

install_gpu() {
  run_pip -r "$ROOT/requirements/gpu.txt"
  if [ "${AVAR_FLASH_ATTN:-0}" = 1 ]; then
    run_pip --no-build-isolation -r "$ROOT/requirements/gpu-build.txt"
  fi
}

repair_torchvision() {
  "$VENV/bin/python" -c 'import torchvision' >/dev/null 2>&1 && return
  "$VENV/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' || return 0 # not a CPU torch
  local site
  site=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  cp "$ROOT/recipes/torchvision_repair.py" "$site/avar_torchvision_repair.py"
  echo 'import avar_torchvision_repair' >"$site/avar_torchvision_repair.pth"
  say "torchvision is not a CPU build and did not import: repaired (recipes/torchvision_repair.py)"
}

install() {
  local python
  rm -f "$VENV/.avar-stamp"
  check_disk
  if ! is_python_311 "$VENV/bin/python"; then
    python=$(pick_python)
    say "making $VENV"
    "$python" -m venv --clear "$VENV" || die "could not make a virtual environment at $VENV with $python."
  fi
  LOG=$VENV/setup.log
  : >"$LOG"
  say "installing the $PROFILE profile (some minutes the first time; log: $LOG)"
  "install_$PROFILE"
  run_pip --no-deps --no-build-isolation -e "$ROOT"
  say "checking that the stack imports"
  # avar_rl is imported from where it was installed, not from the current directory
  (cd "$VENV" && HF_HUB_OFFLINE=1 ./bin/python -m avar_rl.runtime.versions && ./bin/avar --help >/dev/null) 2>>"$LOG" || { tail -n 15 "$LOG" >&2; die "the stack does not import (log: $LOG)."; }
  stamp >"$VENV/.avar-stamp"
}

PROFILE=$(pick_profile)
mkdir -p "$(dirname "$VENV")" || die "cannot write to $(dirname "$VENV")."
exec 9>"$VENV.lock"
flock 9 # a second set-up waits for the first, then finds everything done
if done_already; then
  say "done already ($PROFILE profile, $VENV)"
else
  install
  say "done ($PROFILE profile, $VENV)"
fi
