#!/usr/bin/env bash
# Runs foreign test suites directly and through Portcullis, and says what differs: see usage below.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: tests/compat/run.sh [--suite NAME]... [--mode NAME]... [--write] [--help]

Runs test suites that others wrote, each against the same kind of PostgreSQL or Redis server in
several ways, and prints a table: passed directly, through Portcullis with the login relayed, and
through Portcullis with the login terminated (PostgreSQL: SCRAM-SHA-256 over TLS on the client's side,
with channel binding where the client can; Redis: a password over TLS). The proxy runs under
`default: allow` with no rule, or with one that opens all doors. A test that passes directly and fails
through the proxy must be explained in tests/compat/differences.tsv, or the script fails.

  --suite NAME   regress         PostgreSQL's regression suite, parallel_schedule
                 libpq_pipeline  its pipelining tests, wire traces compared with the recorded ones
                 asyncpg         the suite of the Python driver asyncpg
                 redis_tcl       Redis's own suite, as it runs against an external server
                 redis_py_2      the suite of the Python driver redis-py, in RESP2
                 redis_py_3      the same in RESP3
                 (default: all)
  --mode NAME    direct | relay | terminated | opened (default: all). Of the others the results
                 of the last run are shown. `opened` is `relay` with one rule, which opens what is
                 closed to everybody until a rule opens it: LOAD and function calls by message;
                 Redis's scripts, CONFIG, DEBUG and the like. Redis's suites rest on those, so
                 they have no `relay`, and their `terminated` has that rule, too.
  --write        put the table into docs/COMPATIBILITY.md

Needs Debian: what is missing is installed by apt. The suites come from the source package of the
PostgreSQL and the Redis that are installed (through a private apt configuration: the system's is not touched) and
from PyPI. Everything is kept under target/compat: sources and programs, and per mode the results
and full logs (target/compat/results). About 10 minutes the first time for PostgreSQL, 40 for Redis.

Environment: CARGO_TARGET_DIR; PORTCULLIS (a proxy that is built already).
TEXT
}

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root_dir/tests/compat
# shellcheck source=deploy/lib.sh
. "$root_dir/deploy/lib.sh"
# shellcheck source=tests/compat/build.sh
. "$here/build.sh"
# shellcheck source=tests/compat/redis.sh
. "$here/redis.sh"

readonly all_suites=(regress libpq_pipeline asyncpg redis_tcl redis_py_2 redis_py_3)
readonly all_modes=(direct relay terminated opened)
suites=() modes=() write=''
pg_pid='' redis_pid='' proxy_pid=''

main() {
  arguments "$@"
  cd "$root_dir"
  cache=$(target_dir compat)
  results=$cache/results
  mkdir -p "$results"
  require setpriv python3-venv xz openssl
  if chosen regress || chosen libpq_pipeline || chosen asyncpg; then
    require postgresql compiler make python3-dev
    bin=$(pg_bin)
    build_suites
  fi
  if chosen redis_tcl || chosen redis_py_2 || chosen redis_py_3; then
    require redis-server tcl tcl-tls
    build_redis_suites
  fi
  portcullis=${PORTCULLIS:-}
  if [[ -z $portcullis ]]; then
    require libclang
    require_cargo
    say 'Building Portcullis'
    cargo build --locked --quiet --bin portcullis
    portcullis=$(target_dir debug)/portcullis
  fi
  trap clean_up EXIT
  local mode suite
  for mode in "${modes[@]}"; do
    for suite in "${suites[@]}"; do
      [[ $suite == redis_* && $mode == relay ]] || run_one "$mode" "$suite"
    done
  done
  python3 "$here/table.py" --results "$results" --differences "$here/differences.tsv" \
    --versions "$cache" ${write:+--write "$root_dir/docs/COMPATIBILITY.md"}
}

arguments() {
  while (($#)); do
    case $1 in
      -h | --help)
        usage
        exit
        ;;
      --suite) suites+=("$(one_of "${2:-}" "${all_suites[@]}")") && shift ;;
      --mode) modes+=("$(one_of "${2:-}" "${all_modes[@]}")") && shift ;;
      --write) write=yes ;;
      *)
        usage >&2
        exit 2
        ;;
    esac
    shift
  done
  ((${#suites[@]})) || suites=("${all_suites[@]}")
  ((${#modes[@]})) || modes=("${all_modes[@]}")
}

# Whether a suite is among those to run.
chosen() { [[ " ${suites[*]} " == *" $1 "* ]]; }

one_of() {
  local given=$1 known
  shift
  for known in "$@"; do [[ $given != "$known" ]] || { echo "$given" && return; }; done
  die "unknown name `$given`" "known: $*"
}

# One suite in one mode: a fresh server, a fresh proxy if the mode has one, the suite, the end.
run_one() {
  local mode=$1 suite=$2 began=$SECONDS
  say "$suite, $mode"
  work=$(mktemp -d "${TMPDIR:-/tmp}/portcullis-compat.XXXXXX")
  chmod 711 "$work"
  random_password >"$work/password"
  mkdir "$work/rules"
  if [[ $suite == redis_* ]]; then
    begin_redis "$mode"
  else
    begin_postgres "$mode" "$suite"
  fi
  log=$results/$suite.$mode.log
  "suite_$suite" >"$log" 2>&1 || true
  python3 "$here/table.py" --read "$suite" --log "$log" --out "$results/$suite.$mode.tsv"
  clean_up
  printf '    %d s, log in %s\n' $((SECONDS - began)) "${log#"$root_dir/"}"
}

# A server, a proxy unless the mode is without, and an environment in which clients find it.
begin_postgres() {
  local mode=$1 suite=$2
  PGPASSWORD=$(cat "$work/password")
  unset PGSSLMODE PGSSLROOTCERT PGCHANNELBINDING
  export PGPASSWORD PGHOST=127.0.0.1 PGUSER=postgres PGDATABASE=postgres PGGSSENCMODE=disable
  server_port=$(free_port)
  start_postgres "$work" "$server_port" "$work/password" fsync=off max_connections=120 \
    max_prepared_transactions=4
  PGPORT=$server_port
  [[ $mode == direct ]] || start_proxy "$mode"
  if [[ $mode == terminated ]]; then
    export PGSSLMODE=verify-full PGSSLROOTCERT=$work/server.crt
    [[ $suite == asyncpg ]] || export PGCHANNELBINDING=require
  fi
  export PGPORT
}

clean_up() {
  stop_process "$proxy_pid" TERM
  stop_process "$pg_pid" INT
  stop_process "$redis_pid" TERM
  proxy_pid='' pg_pid='' redis_pid=''
  [[ -z ${work:-} ]] || rm -rf "$work"
  work=''
}

# Starts the proxy before PostgreSQL and points the clients' environment at it.
start_proxy() {
  local mode=$1 port
  port=$(free_port)
  if [[ $mode == opened ]]; then
    open_doors 'statements: [load, function_call]'
  else
    printf 'version: 1\nrules: []\n' >"$work/rules/none.yaml"
  fi
  {
    datasource postgresql "$port"
    [[ $mode != terminated ]] || terminate_logins
  } >"$work/portcullis.yaml"
  run_proxy "$port"
  PGPORT=$port
}

# One rule, which opens these doors to everybody.
open_doors() {
  printf 'version: 1\nrules:\n  - id: doors\n    match: {users: ["*"]}\n    allow: {%s}\n' "$1" \
    >"$work/rules/doors.yaml"
}

# The configuration up to the datasource's further lines.
datasource() {
  local protocol=$1 port=$2
  cat <<YAML
version: 1
rules: {directory: rules}
audit: {file: audit.jsonl, rotate: 64MiB, keep: 2}
admin: {listen: "127.0.0.1:$(free_port)"}
limits: {login_failures: 100000, login_failures_per_address: 100000}
datasources:
  - name: suite
    protocol: $protocol
    listen: "127.0.0.1:$port"
    upstream: "127.0.0.1:$server_port"
    default: allow
YAML
}

run_proxy() {
  "$portcullis" run --config "$work/portcullis.yaml" >"$work/proxy.log" 2>&1 &
  proxy_pid=$!
  wait_for 20 port_answers "$1" || die 'Portcullis did not start' "$(tail -n 5 "$work/proxy.log")"
}

# A certificate that clients can be told to trust: $work/server.{key,crt}.
make_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext 'subjectAltName=IP:127.0.0.1' -keyout "$work/server.key" -out "$work/server.crt" \
    2>/dev/null
  chmod 644 "$work/server.crt"
}

# Lines of the datasource; a certificate, and an environment in which clients insist on it.
terminate_logins() {
  make_certificate
  install -m 600 "$work/password" "$work/query.password"
  cat <<'YAML'
    tls: {mode: required, certificate: server.crt, key: server.key}
    authentication: [{method: scram-sha-256, verifiers: auth_query, transport: tls}]
    auth_query: {user: postgres, password_file: query.password}
YAML
}

# --- the suites ------------------------------------------------------------------------------

# As `make installcheck-parallel`: the start-up parameters and `options` of pg_regress included.
suite_regress() {
  local folder=$work/regress
  mkdir "$folder"
  cp -r "$source_dir"/src/test/regress/{sql,expected,data,parallel_schedule,resultmap} "$folder"
  cp "$source_dir"/src/test/regress/*.so "$folder"
  # The server reads and writes files here, so the suite runs under the server's account.
  ((EUID != 0)) || chown -R "$(server_account)" "$folder"
  (cd "$folder" && as_server env HOME="$folder" "$source_dir/src/test/regress/pg_regress" \
    --inputdir=. --outputdir=. --dlpath=. --bindir="$bin" --max-concurrent-tests=20 \
    --schedule=parallel_schedule --host="$PGHOST" --port="$PGPORT" --user="$PGUSER") || true
  cat "$folder/regression.diffs" 2>/dev/null || true
}

# As t/001_libpq_pipeline.pl: 700 rows, and the trace of what went over the wire where one is kept.
suite_libpq_pipeline() {
  local program=$source_dir/libpq_pipeline test trace want
  for test in $("$program" tests); do
    want=$source_dir/src/test/modules/libpq_pipeline/traces/$test.trace trace=()
    [[ ! -f $want ]] || trace=(-t "$work/$test.trace")
    if timeout 60 "$program" -r 700 "${trace[@]}" "$test" "dbname=$PGDATABASE"; then
      echo "RESULT $test ok"
    else
      echo "RESULT $test failed"
    fi
    [[ -f $want ]] || continue
    if diff "$want" "$work/$test.trace"; then
      echo "RESULT $test.trace ok"
    else
      echo "RESULT $test.trace failed"
    fi
  done
}

# The suite, under the server's account: it starts servers, too.
asyncpg_tests() {
  (cd "$work/asyncpg" && as_server env HOME="$work/asyncpg" PATH="$bin:$PATH" \
    timeout 1200 "$cache/venv/bin/python" -B -m pytest -q "$@" tests)
}

# Tests that need a server of their own are run where they can be; those that would reconfigure
# ours are skipped by the suite itself. What fails is tried again, up to three times: some tests
# race, directly as well.
suite_asyncpg() {
  local folder=$work/asyncpg
  mkdir "$folder"
  cp -r "$asyncpg_dir/tests" "$folder"
  ((EUID != 0)) || chown -R "$(server_account)" "$folder"
  local try again=()
  for try in 1 2 3 4; do
    asyncpg_tests --junitxml="$try.xml" ${again[@]+"${again[@]}"} && break
    again=(--last-failed)
  done
  cat "$folder"/*.xml
}

main "$@"
