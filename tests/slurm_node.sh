#!/usr/bin/env bash
# A SLURM of two nodes of two CPUs on this machine, without accounting, for the tests marked slurm. Debian or Ubuntu; as root.
#   slurm_node.sh start|stop|status|can     start installs slurm-wlm and munge where they are missing; can: whether it could
set -u
HERE=/run/cl-repro-slurm
CONF=/etc/slurm/slurm.conf
OURS=ClusterName=cl_repro
HOST=$(hostname -s)

can() {
    why=
    [ "$(id -u)" = 0 ] || why="this needs root"
    { command -v dpkg && command -v apt-get; } >/dev/null || why="this needs apt, of Debian or Ubuntu"
    [ ! -e "$CONF" ] || grep -qx "$OURS" "$CONF" || why="$CONF is of another cluster, and would be replaced"
    [ -z "$why" ] || { echo "test-slurm cannot run on this machine: $why" >&2 && exit 1; }
}

start() {
    can
    dpkg -s slurm-wlm munge >/dev/null 2>&1 || {
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null || exit 1
    }
    grep -qw "$HOST" /etc/hosts || echo "127.0.0.1 $HOST" >>/etc/hosts
    [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
    mkdir -p "$HERE"/{state,n1,n2} /run/munge /etc/slurm
    chown -R munge:munge /etc/munge /run/munge /var/lib/munge /var/log/munge
    chmod 700 /etc/munge && chmod 400 /etc/munge/munge.key && chmod 755 /run/munge
    munge -n >/dev/null 2>&1 || runuser -u munge -- /usr/sbin/munged
    until munge -n 2>/dev/null | unmunge >/dev/null 2>&1; do sleep 0.2; done
    cat >"$CONF" <<END
$OURS
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
StateSaveLocation=$HERE/state
SlurmdSpoolDir=$HERE/%n
SlurmctldPidFile=$HERE/slurmctld.pid
SlurmdPidFile=$HERE/slurmd.%n.pid
SlurmctldLogFile=$HERE/slurmctld.log
SlurmdLogFile=$HERE/slurmd.%n.log
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
OverTimeLimit=0
MpiDefault=none
AccountingStorageType=accounting_storage/none
NodeName=n[1-2] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=2 RealMemory=8000
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
END
    slurmctld && slurmd -N n1 && slurmd -N n2
    for _ in $(seq 60); do
        [ "$(sinfo -h -o %T)" = idle ] && exec sinfo -N
        sleep 0.5
    done
    echo "the nodes are not idle: $(sinfo -h -N -o '%N %T' | tr '\n' ' ')" >&2
    exit 1
}

stop() {
    grep -qsx "$OURS" "$CONF" || exit 0
    for file in "$HERE"/slurmd.n1.pid "$HERE"/slurmd.n2.pid "$HERE"/slurmctld.pid; do
        [ -s "$file" ] && kill "$(cat "$file")"
    done
    sleep 1
    rm -rf "$HERE" "$CONF"
    [ -s /run/munge/munged.pid ] && kill "$(cat /run/munge/munged.pid)"
    true
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    can) can ;;
    status) sinfo -N && squeue ;;
    *) sed -n '2,3s/^# //p' "$0" && exit 2 ;;
esac
