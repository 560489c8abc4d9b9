#!/usr/bin/env bash
# Trains on two "hosts", network namespaces with a cable between them, pulls the cable in the middle of it, and resumes.
#
#   bash tests/helpers/two_hosts.sh FOLDER PYTHON WORDS...     as root; WORDS are those of main_single_gpu.py
#
# FOLDER gets the run, and what the hosts printed. Exit code 0: both hosts ended with a clear error within 45 s of the
# cut, and the run then went on to its end; 1: they did not; 77: this machine does not allow network namespaces.
set -euo pipefail

folder=$1 python=$2
shift 2
mkdir -p "$folder"
tag=cait$$
hosts=("${tag}a" "${tag}b")
addresses=(10.213.77.1 10.213.77.2)

# Ends what this script started, and takes the hosts away.
cleanup() {
    local host pid
    for host in "${hosts[@]}"; do
        for pid in $(ip netns pids "$host" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
        ip netns delete "$host" 2>/dev/null || true
    done
}
trap cleanup EXIT

if ! { command -v ip && ip netns add "${hosts[0]}" && ip netns add "${hosts[1]}" &&
    ip link add cable netns "${hosts[0]}" type veth peer name cable netns "${hosts[1]}"; } >"$folder/setup.log" 2>&1; then
    echo "skipped: network namespaces are not allowed here: $(tail -1 "$folder/setup.log")"
    exit 77
fi
for i in 0 1; do
    ip -n "${hosts[i]}" addr add "${addresses[i]}/24" dev cable
    ip -n "${hosts[i]}" link set lo up
    ip -n "${hosts[i]}" link set cable up
done

# launch NAME WORDS...: starts the run on both hosts; sets `jobs` to the launchers' process ids.
launch() {
    local name=$1 i
    shift
    jobs=()
    for i in 0 1; do
        ip netns exec "${hosts[i]}" env POD_IP="${addresses[i]}" GLOO_SOCKET_IFNAME=cable OMP_NUM_THREADS=1 \
            "$python" -m paddle.distributed.launch --rank "$i" --nnodes 2 --master "${addresses[0]}:29571" \
            --nproc_per_node 1 --log_dir "$folder/$name$i" "$main" "$@" >"$folder/$name$i.log" 2>&1 &
        jobs+=($!)
    done
}

# die WORDS: says what went wrong, with the last lines of all logs.
die() {
    echo "failed: $*"
    tail -n 25 "$folder"/*/workerlog.0
    exit 1
}

main=$1
shift
launch first "$@" "-output_dir=$folder/run"
for _ in $(seq 1200); do
    [ "$({ cat "$folder/run/metrics.jsonl" 2>/dev/null || true; } | wc -l)" -lt 2 ] || break
    kill -0 "${jobs[0]}" 2>/dev/null || die "the run ended before its second epoch"
    sleep 0.1
done

ip -n "${hosts[1]}" link set cable down
cut=$SECONDS
for i in 0 1; do
    until grep -q "^error: " "$folder/first$i/workerlog.0"; do
        [ $((SECONDS - cut)) -le 45 ] || die "host $i did not end within 45 s"
        sleep 0.2
    done
    echo "host $i, $((SECONDS - cut)) s after the cut: $(grep "^error: " "$folder/first$i/workerlog.0")"
done
for job in "${jobs[@]}"; do # a launcher may wait for the other one, which it cannot reach
    kill "$job" 2>/dev/null || true
    wait "$job" && die "a launcher ended with exit code 0"
done
for host in "${hosts[@]}"; do
    for pid in $(ip netns pids "$host"); do kill -9 "$pid" 2>/dev/null || true; done
done

ip -n "${hosts[1]}" link set cable up
launch second "$@" "-output_dir=$folder/run" "-resume=$folder/run"
for job in "${jobs[@]}"; do wait "$job" || die "the resumed run failed"; done
grep -h "starting from" "$folder/run/log_train.txt" | tail -1
