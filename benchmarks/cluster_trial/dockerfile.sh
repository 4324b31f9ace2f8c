#!/usr/bin/env bash
# A Dockerfile without Docker: its RUN, WORKDIR, COPY and ENV lines in a root file system of their own (chroot), then the
# command behind them, in what the steps have made. Debian's base system and Python stand for FROM. As root, on Debian or
# Ubuntu, with debootstrap:
#
#   bash benchmarks/cluster_trial/dockerfile.sh recipes/cluster/Dockerfile.cpu FOLDER avar --help
#
#   MOUNTS="/opt/wheels …"   folders of this machine that the steps see, where pip is set up to look in them; with
#                            /etc/ssl/certs where the network takes certificates of its own
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FILE=${1:?a Dockerfile} FOLDER=$(realpath -m "${2:?a folder for the image}")
shift 2
IMAGE=$FOLDER/image SUITE=bookworm
[ ! -e "$IMAGE" ] || { echo "$IMAGE is there: name another folder" >&2; exit 2; }
mkdir -p "$FOLDER"

debootstrap --variant=minbase --include=ca-certificates,netbase,tzdata "$SUITE" "$IMAGE" >"$FOLDER/debootstrap.log"
cp /etc/resolv.conf "$IMAGE/etc/"
trap 'for folder in $(awk -v image="$IMAGE/" "index(\$2, image) == 1 {print \$2}" /proc/mounts | tac); do umount "$folder"; done' EXIT
mount -t proc proc "$IMAGE/proc" && mount -t tmpfs tmpfs "$IMAGE/dev/shm"
for folder in ${MOUNTS:-}; do mkdir -p "$IMAGE$folder" && mount --bind -o ro "$folder" "$IMAGE$folder"; done

WHERE=/ SETTINGS=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root)
inside() { env -i "${SETTINGS[@]}" $(env | grep -E '^PIP_[A-Z_]+=[^ ]*$') chroot "$IMAGE" bash -euc "cd $WHERE; $1"; }

inside 'apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends python3.11{,-venv,-dev}' \
  >"$FOLDER/from.log"
# Continuation lines joined, one step a line.
sed -e ':a' -e '/\\$/{N;s/\\\n//;ba' -e '}' "$FILE" | grep -E '^(RUN|WORKDIR|COPY|ENV|ENTRYPOINT|CMD|USER|ARG|ADD) ' >"$FOLDER/steps"
while IFS=' ' read -r step rest; do
  started=$SECONDS
  echo "== $step $rest"
  case $step in
    WORKDIR) WHERE=$rest && mkdir -p "$IMAGE$WHERE" ;;
    ENV) SETTINGS+=("$(inside "export $rest; echo \"${rest%%=*}=\$${rest%%=*}\"")") ;;
    COPY) [ "$rest" = ". ." ] && git ls-files -z | tar --null -T - -c | tar -x --no-same-owner -C "$IMAGE$WHERE" ;;
    RUN) inside "$rest" >>"$FOLDER/steps.log" 2>&1 </dev/null || { tail -n 20 "$FOLDER/steps.log" >&2; exit 1; } ;;
    *) echo "$step: not a step that this script knows" >&2 && exit 2 ;;
  esac
  echo "   $((SECONDS - started)) s"
done <"$FOLDER/steps"
echo "== $FILE: $(du -sxm "$IMAGE" | cut -f1) MB; in it: $*"
inside "$*"
