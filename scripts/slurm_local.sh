#!/usr/bin/env bash
# A real Slurm on this one machine, for tests and for trying out `python -m lottalora submit`. Debian, root, no systemd.
#   scripts/slurm_local.sh setup    install Debian's slurm-wlm and munge where they are missing, write the configuration
#   scripts/slurm_local.sh start    setup, then munged, slurmctld and slurmd
#   scripts/slurm_local.sh check    run one job
#   scripts/slurm_local.sh stop     cancel all jobs and end the three daemons
#   eval "$(scripts/slurm_local.sh env)"    what a shell needs to talk to it
# Everything it writes lies under SLURM_LOCAL_DIR. SLURM_LOCAL_MAX_ARRAY is its MaxArraySize. slurmctld listens on
# SLURM_LOCAL_PORT and slurmd on the next port; several at once, or daemons that somebody left, need different ones.
set -euo pipefail

dir=${SLURM_LOCAL_DIR:-${TMPDIR:-/tmp}/lottalora-slurm}
port=${SLURM_LOCAL_PORT:-17817}
node=$(hostname -s)
export SLURM_CONF=$dir/slurm.conf

say() { echo "slurm_local: $*" >&2; }

# Give a condition so many seconds to become true.
await() {
    local seconds=$1 end
    shift
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

running() { [[ -s $dir/$1.pid ]] && kill -0 "$(<"$dir/$1.pid")" 2>/dev/null; }

node_is_up() { sinfo --noheader --format=%T | grep -qE 'idle|mixed|allocated'; }

install_packages() {
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null && return
    say "installing slurm-wlm and munge"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >&2
}

setup() {
    install_packages
    mkdir -p "$dir/state" "$dir/spool"
    chmod 755 "$dir"
    [[ -s $dir/munge.key ]] || (umask 377 && head -c 1024 /dev/urandom >"$dir/munge.key")
    cat >"$SLURM_CONF" <<CONF
ClusterName=lottalora
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=3600
MaxArraySize=${SLURM_LOCAL_MAX_ARRAY:-1001}
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc --all) State=UNKNOWN
PartitionName=local Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
    stand_in_for_sacct
}

# Slurm's own sacct needs an accounting database, and without its answer submitit waits forever for a job that died.
# This one gives submitit what it asks for, JobID|State|NodeList of each -j ID, from slurmctld.
stand_in_for_sacct() {
    mkdir -p "$dir/bin"
    cat >"$dir/bin/sacct" <<'SACCT'
#!/usr/bin/env bash
echo 'JobID|State|NodeList'
while (($#)); do
    [[ $1 == -j ]] && scontrol show job -o "$2" 2>/dev/null | awk '{
        split("", f)
        for (i = 1; i <= NF; i++) { p = index($i, "="); if (p) f[substr($i, 1, p - 1)] = substr($i, p + 1) }
        task = f["ArrayTaskId"] ~ /[-,%]/ ? "[" f["ArrayTaskId"] "]" : f["ArrayTaskId"]
        print ("ArrayJobId" in f ? f["ArrayJobId"] "_" task : f["JobId"]) "|" f["JobState"] "|" f["NodeList"] }'
    shift
done
SACCT
    chmod 755 "$dir/bin/sacct"
}

start() {
    setup
    running munged || munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
        --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
    await 10 munge --socket="$dir/munge.socket" --no-input || fail "munged does not answer" munged
    running slurmctld || slurmctld -c
    await 20 scontrol ping || fail "slurmctld does not answer" slurmctld
    running slurmd || slurmd
    await 30 node_is_up || fail "the node does not come up" slurmd
    say "up: partition $(sinfo --noheader --format='%P, %c CPUs')"
}

fail() {
    say "$1; the end of $dir/$2.log:"
    tail -n 10 "$dir/$2.log" >&2
    return 1
}

check() { timeout 60 srun --ntasks=1 hostname; }

stop() {
    if running slurmctld; then timeout 10 scancel --user="$(id -un)" || true; fi
    local name pid
    for name in slurmd slurmctld munged; do
        if running "$name"; then
            pid=$(<"$dir/$name.pid")
            kill "$pid"
            await 10 gone "$pid" || kill -KILL "$pid"
        fi
        rm -f "$dir/$name.pid"
    done
    say stopped
}

gone() { ! kill -0 "$1" 2>/dev/null; }

env() { echo "export SLURM_CONF=$SLURM_CONF PATH=$dir/bin:\$PATH"; }

case ${1:-} in
setup | start | check | stop | env) "$1" ;;
*)
    say "type one of setup, start, check, stop, env"
    exit 2
    ;;
esac
