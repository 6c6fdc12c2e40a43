#!/bin/bash
# Runs every fuzz target for an equal part of SECONDS (300 unless told).
#
# usage: fuzz/run.sh [SECONDS] [TARGET...]
#
# libFuzzer's instrumentation is a nightly option of rustc: RUSTC_BOOTSTRAP lets the stable one take it. A finding
# stays in fuzz/artifacts/TARGET, and the exit status says so. The seeds in fuzz/corpus are kept in git; what is found
# on top of them goes to the build directory.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-300}
shift || true
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "fuzz/run.sh: $seconds is not a number of seconds: expected 1 or more" >&2; exit 2; }

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is not installed: installing it from crates.io"
    CARGO_TARGET_DIR= cargo install --locked cargo-fuzz
fi

export RUSTC_BOOTSTRAP=1
target_directory=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$target_directory/fuzz
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
each=$(( seconds / ${#targets[@]} ))
[ "$each" -gt 0 ] || each=1

cargo fuzz build
for target in "${targets[@]}"; do
    found=$CARGO_TARGET_DIR/corpus/$target
    mkdir -p "$found" "corpus/$target"
    echo "== $target: $each seconds"
    log=$CARGO_TARGET_DIR/$target.log
    if ! cargo fuzz run "$target" "$found" "corpus/$target" -- \
        -max_total_time="$each" -timeout=5 -rss_limit_mb=1024 -max_len=8192 -print_final_stats=1 >"$log" 2>&1; then
        tail -40 "$log" >&2
        echo "$target: failed; what did it is in fuzz/artifacts/$target, all of the output in $log" >&2
        exit 1
    fi
    grep -E 'stat::number_of_executed_units|stat::peak_rss_mb|DONE' "$log"
done
