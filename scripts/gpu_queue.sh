#!/usr/bin/env bash
# Fill the tables that need a GPU, in calls of a few minutes; repeat the call until it says that nothing is left.
#
#   scripts/gpu_queue.sh RESULTS [SECONDS]     default: 540 seconds
#   QUEUE=FILE                                 another queue: a line of words of `run.py -m` each; # begins a comment
#
# A line may hold hydra.launcher.workers=N: N runs at a time on the GPU, which a small model does not fill by itself.
#
# The queue is ordered by cells of the paper's tables filled per minute. A run that the time ends keeps its checkpoint
# under RESULTS and goes on in the next call; finished rows are left alone. So keep RESULTS between calls.
set -euo pipefail
results=${1:?usage: scripts/gpu_queue.sh RESULTS [SECONDS]}
end=$((SECONDS + ${2:-540}))
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python)

queue() {
    if [[ -n ${QUEUE:-} ]]; then cat "$QUEUE"; return; fi
    cat <<'LINES'
model=distilbert data=imdb mode=scaffold rank=4 seed=43                                                     # Table 21, 13 minutes beside six more
model=gin data=molhiv mode=baseline,scaffold rank=8,16,32 seed=42 hydra.launcher.workers=4                  # Table 18
sweeps=table3                                    # MNIST, 22 families, ranks 2, 4, 8
model=resnet data=cifar10 mode=baseline,scaffold rank=1,8,16 seed=42 trainer.precision=bf16-mixed          # Table 22
model=vit_random model.size=tiny data=flowers102 mode=baseline,scaffold rank=16 seed=42                     # Table 20, a smaller ViT
model=gpt data=wikitext103 model.size=3M mode=baseline,scaffold rank=1,2,4,8 seed=42                        # Table 12
model=vit_random model.size=base data=flowers102 mode=baseline,scaffold rank=16 seed=42                     # Table 20
model=gpt data=wikitext103 model.size=30M mode=baseline,scaffold rank=1,8 seed=42                           # Table 12
LINES
}

left() {  # runs of these words that wait or failed
    "$python" -m lottalora plan --json "$@" "paths.results=$results" \
        | "$python" -c 'import json, sys; found = json.load(sys.stdin); print(found["waiting"] + found["failed"])'
}

failed=0
while read -r line; do
    read -ra words <<<"${line%%#*}"
    ((${#words[@]})) || continue
    [[ $(left "${words[@]}") == 0 ]] && continue
    seconds=$((end - SECONDS))
    ((seconds > 0)) || { echo "time is over; call again"; exit 0; }
    echo "== ${words[*]}"
    code=0  # INT is what Ctrl-C sends: runs keep their checkpoints
    timeout --signal=INT --kill-after=60 "$seconds" \
        "$python" run.py -m "${words[@]}" "paths.results=$results" </dev/null || code=$?
    if ((code == 124 || code == 137)); then echo "time is over; call again"; exit 0; fi
    ((code == 0)) || failed=1
done < <(queue)
((failed)) && { echo "some runs failed: python -m lottalora status --results $results"; exit 1; }
echo "nothing is left"
