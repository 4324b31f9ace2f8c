#!/usr/bin/env bash
#SBATCH --job-name=avar
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
# A recipe on the nodes of a Slurm allocation, as one Ray cluster that lives as long as the job (docs/cluster.md):
#
#   SFT_DATA=… RL_DATA=… OUT=/shared/run sbatch --gpus-per-node=8 recipes/cluster/slurm.sh recipes/avar_qwen7b.sh
#   sbatch --nodes=4 --time=24:00:00 --partition=… recipes/cluster/slurm.sh recipes/avar_qwen7b.sh [overrides]
#
# Submit from the repository, on a file system that all nodes share; OUT must be on one, too. Five minutes before the
# job's limit (--time), and on preemption where the cluster says so (SlurmctldParameters=preempt_send_user_signal), the recipe is
# told to stop; the job then goes back to the queue and resumes. So it does where the recipe has lost a member (status 75),
# which it notices before Slurm does. Slurm itself requeues a job whose node failed.
#
#   RAY_START=…   more arguments of `ray start` on every node, such as "--num-cpus=16 --num-gpus=1" for a CPU profile
#   RAY_PORT=…    of the head (default: 6379)
#   RESTARTS=…    of this job, after which a lost member ends it (default: 10); memory that ran out will run out again
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this file with sbatch}"
[ $# -gt 0 ] || { echo "name a recipe: sbatch recipes/cluster/slurm.sh recipes/avar_qwen7b.sh" >&2; exit 2; }

RAY=${AVAR_VENV:-$PWD/.venv}/bin/ray
ADDRESS=$(hostname -I | cut -d' ' -f1):${RAY_PORT:-6379} # the batch script runs on the allocation's first node
export NNODES=$SLURM_JOB_NUM_NODES RAY_USAGE_STATS_ENABLED=0
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # else the other nodes outlast the recipe by 30 s, for services to move away
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN # a token of this job alone; srun hands it to the other nodes
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')

told=0 status=0 recipe=
trap 'told=1; [ -z "$recipe" ] || kill -TERM "$recipe" 2>/dev/null || true' TERM INT

"$RAY" start --head --node-ip-address="${ADDRESS%:*}" --port="${RAY_PORT:-6379}" ${RAY_START:-}
if [ "$NNODES" -gt 1 ]; then
  srun --nodes=$((NNODES - 1)) --ntasks=$((NNODES - 1)) --exclude="$SLURMD_NODENAME" \
    "$RAY" start --address="$ADDRESS" --block ${RAY_START:-} &
fi

RAY_ADDRESS=$ADDRESS bash "$@" &
recipe=$!
[ "$told" = 0 ] || kill -TERM "$recipe"
wait "$recipe" || status=$?
while kill -0 "$recipe" 2>/dev/null; do status=0; wait "$recipe" || status=$?; done # a signal ends a wait early
"$RAY" stop >/dev/null || true
if { [ "$told" = 1 ] && [ "$status" != 0 ]; } || { [ "$status" = 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${RESTARTS:-10}" ]; }; then
  echo "the recipe ended with status $status; the job goes back to the queue" >&2
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
