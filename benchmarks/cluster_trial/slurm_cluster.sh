# Sourced by the trials: a real Slurm (Debian's slurmctld, slurmd, munge) whose nodes are simulated (nodes.sh).

start_slurm() { # start_slurm NODE…
  local folder=$NODES_FOLDER/slurm name
  mkdir -p "$folder/state" "$folder/spool" /run/munge /var/log/munge
  export SLURM_CONF=$folder/slurm.conf
  pgrep -x munged >/dev/null || { munged --force && touch "$folder/munge_is_ours"; }
  cat >"$SLURM_CONF" <<END
ClusterName=trial
MailProg=/bin/true
SlurmctldHost=$(hostname -s)($HOST_ADDRESS)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
SlurmdTimeout=30
KillWait=30
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=bf_interval=5,sched_min_interval=1000000
$(for name in "$@"; do echo "NodeName=$name NodeAddr=$(address_of "$name") CPUs=2 RealMemory=8000 State=UNKNOWN"; done)
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=90 OverSubscribe=NO
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
END
  echo "CgroupPlugin=cgroup/v1" >"$folder/cgroup.conf" # named, since a simulated node has none to be detected; none is used
  slurmctld -D >"$folder/slurmctld.out" 2>&1 &
  echo $! >"$folder/controller"
  for name in "$@"; do start_slurmd "$name"; done
  local left=60
  until [ "$(sinfo -h -N -p low -t idle -o %N | wc -l)" = $# ]; do
    sleep 1
    [ $((left -= 1)) -gt 0 ] || { sinfo -N >&2; tail -n 5 "$folder"/slurmd.*.log >&2; return 1; }
  done
}

start_slurmd() {
  mkdir -p "$NODES_FOLDER/slurm/spool/$1"
  on "$1" slurmd -D -N "$1" >"$NODES_FOLDER/slurm/slurmd.$1.out" 2>&1 &
}

stop_slurm() {
  local folder=$NODES_FOLDER/slurm
  [ ! -f "$folder/controller" ] || kill "$(cat "$folder/controller")" 2>/dev/null || true
  [ ! -f "$folder/munge_is_ours" ] || { munged --stop || true; rm -f "$folder/munge_is_ours"; }
}
