#!/usr/bin/env bash
# What an idle session costs in memory, and what thousands of them do to the latency of active ones.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: benches/standing.sh [--no-build]

Builds Portcullis in release mode and holds idle sessions against a server in the test process
(it trusts everybody and answers at once), beside active ones. Prints resident memory per idle
session and the active sessions' latency with and without idle ones.

Environment: IDLE=9700, ACTIVE=100, STATEMENTS=200 (by each active session); CARGO_TARGET_DIR.
A session needs two file descriptors of the proxy: `ulimit -Hn` bounds IDLE + ACTIVE.
TEXT
}

case ${1:-} in
  '' | --no-build) ;;
  -h | --help)
    usage
    exit
    ;;
  *)
    usage >&2
    exit 2
    ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
[[ ${1:-} == --no-build ]] || cargo build --locked --release
PORTCULLIS_BINARY=$(realpath "$target/release/portcullis") \
  cargo test --locked --test it standing::figures -- --ignored --exact --nocapture
