#!/usr/bin/env bash
# Every check and every test of the project: format, lints, docs, unit tests, and integration tests
# against real PostgreSQL and Redis servers. Installs what is missing; what cannot be installed is an
# error, because a check that did not run is not a check that passed.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/run.sh

Installs what is missing (PostgreSQL, Redis, libclang, a C compiler, Python, Node.js; by apt, as root or
with sudo; the drivers under test from PyPI and npm), then runs every check and test, and ends with one line: N passed, N failed. A check that is no test
(format, lints, documentation, scripts) counts as one.

Environment: CARGO_TARGET_DIR (where to build), NO_COLOR.
TEXT
}

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$root_dir/deploy/lib.sh"

passed=0 failed=0 failures=()

main() {
  case ${1:-} in
    '') ;;
    -h | --help)
      usage
      return
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
  cd "$root_dir"
  require setpriv postgresql redis-server libclang compiler python3-venv nodejs
  require_cargo
  work=$(mktemp -d "${TMPDIR:-/tmp}/portcullis-tests.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # The integration tests keep their template database here; its account must get through.
  chmod 711 "$work"
  export PORTCULLIS_IT_DIR=$work/it

  check 'format' cargo fmt --check
  check 'lints' cargo clippy --locked --all-targets -- -D warnings
  check 'lints of the core alone' \
    cargo clippy --locked --lib --no-default-features -- -D warnings
  check 'the core alone' cargo check --locked --no-default-features
  check 'the core needs no runtime' core_needs_no_runtime
  check 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
  check 'scripts' check_scripts
  if command -v cargo-deny >/dev/null; then
    # tests/licences.rs enforces the same file without the tool.
    check 'licences and bans' cargo deny --offline check licenses bans sources
  fi
  run_tests
  report
}

# Runs one check and notes how it went.
check() {
  local name=$1 began=$SECONDS
  shift
  say "$name"
  if "$@"; then
    passed=$((passed + 1))
    printf '    %sok%s in %d s\n' "$green" "$plain" $((SECONDS - began))
  else
    failed=$((failed + 1)) failures+=("$name")
    printf '    %sFAILED%s in %d s\n' "$red" "$plain" $((SECONDS - began))
  fi
}

core_needs_no_runtime() {
  local tree
  tree=$(cargo tree --locked --no-default-features --edges normal --prefix none) || return 1
  ! grep -E '^(tokio|mio|rustls|axum) ' <<<"$tree"
}

check_scripts() {
  local scripts=(deploy/*.sh tests/*.sh tests/*/*.sh benches/*.sh .ci/run) script
  for script in "${scripts[@]}"; do
    bash -n "$script" || return 1
  done
  if command -v shellcheck >/dev/null; then
    shellcheck --external-sources --severity=warning "${scripts[@]}"
  else
    echo "    shellcheck is not installed: only the syntax was checked"
  fi
}

run_tests() {
  local began=$SECONDS status=0 log=$work/tests.log
  say 'tests'
  if command -v cargo-nextest >/dev/null; then
    cargo nextest run --locked --no-fail-fast 2>&1 | tee "$log" || status=1
    # nextest does not run documentation tests.
    cargo test --locked --doc 2>&1 | tee -a "$log" || status=1
  else
    cargo test --locked --no-fail-fast 2>&1 | tee "$log" || status=1
  fi
  count_tests "$log" "$status"
  printf '    tests took %d s\n' $((SECONDS - began))
}

# Adds up the summaries of nextest (`12 tests run: 10 passed (1 slow), 1 failed, 1 timed out`) and
# of cargo test (`test result: ok. 10 passed; 1 failed; …`).
count_tests() {
  local log=$1 status=$2 good bad
  read -r good bad < <(
    sed -E 's/\x1b\[[0-9;]*m//g' "$log" | awk '
      /^ *Summary \[/ || /^test result:/ {
        for (i = 2; i <= NF; i++) {
          if ($i ~ /^passed/) good += $(i - 1)
          if ($i ~ /^failed/) bad += $(i - 1)
          if ($i == "timed" && $(i + 1) ~ /^out/) bad += $(i - 1)
        }
      }
      END { print good + 0, bad + 0 }')
  # A build that failed, or no test at all, is a failure that no summary mentions.
  if ((status != 0 && bad == 0)) || ((good + bad == 0)); then bad=$((bad + 1)); fi
  passed=$((passed + good)) failed=$((failed + bad))
  ((bad == 0)) || failures+=("tests ($bad)")
}

report() {
  local failure
  printf '\n'
  for failure in ${failures[@]+"${failures[@]}"}; do
    printf '%sfailed:%s %s\n' "$red" "$plain" "$failure"
  done
  printf '%d passed, %d failed in %d s\n' "$passed" "$failed" "$SECONDS"
  ((failed == 0))
}

main "$@"
