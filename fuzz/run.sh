#!/bin/sh
# Fuzzes one target for some seconds, with stable Rust and libFuzzer:
#
#   fuzz/run.sh onnx|event|json|registry [seconds, 300]
#
# Needs a C++ compiler. The corpus grows in fuzz/corpus/<target>; what crashes goes to
# fuzz/artifacts/<target>: run it again with `<binary> <file>`. With nightly Rust,
# `cargo +nightly fuzz run <target>` runs the same targets under the address sanitizer.
set -eu
cd "$(dirname "$0")"
target=$1
seconds=${2:-300}
triple=$(rustc -vV | sed -n 's/^host: //p')

# What cargo-fuzz asks of the compiler, as far as stable Rust takes it: coverage, no sanitizer.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
# With --target, build scripts and macros are built without coverage.
cargo build --locked --release --target "$triple" --bin "$target"
binary=${CARGO_TARGET_DIR:-target}/$triple/release/$target

mkdir -p "corpus/$target" "artifacts/$target"
./seeds.sh "$target"
# Endless memory and time are contained by the probe; here they only end one input.
exec "$binary" "corpus/$target" -artifact_prefix="artifacts/$target/" \
    -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=4096 -fork=1 \
    -ignore_ooms=1 -ignore_timeouts=1 -print_final_stats=1
