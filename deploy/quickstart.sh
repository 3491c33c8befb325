#!/usr/bin/env bash
# Shows what Portcullis does, on this machine, in a few minutes: a private PostgreSQL and a private
# Redis with sample data, Portcullis in front of both with the demo rules, and what three users see
# through it.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/quickstart.sh [--keep] [--no-build]

Installs what is missing (PostgreSQL, Redis, libclang, a C compiler; by apt, as root or with sudo),
builds Portcullis, starts a private PostgreSQL and a private Redis with sample data and Portcullis
in front of both on free loopback ports, and shows side by side what the users app, support and
analyst see.
Leaves nothing running and nothing behind but the build.

  --keep      leave all running and print how to connect and how to stop
  --no-build  use the release binary that is already built
  --help      this text

Environment: CARGO_TARGET_DIR (where to build), NO_COLOR, TMPDIR.
TEXT
}

keep='' build=yes
for argument in "$@"; do
  case $argument in
    --keep) keep=yes ;;
    --no-build) build='' ;;
    -h | --help)
      usage
      exit 0
      ;;
    *)
      usage >&2
      exit 2
      ;;
  esac
done

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$root_dir/deploy/lib.sh"

readonly users=(app support analyst)
# Three columns and a margin of three stay below 100 characters.
readonly cell=30
work='' pg_pid='' redis_pid='' proxy_pid=''

clean_up() {
  local status=$?
  trap - EXIT INT TERM HUP
  if [[ -z $keep || $status -ne 0 ]]; then
    stop_process "$proxy_pid" TERM
    stop_process "$pg_pid" INT
    stop_process "$redis_pid" TERM
    [[ -z $work ]] || rm -rf "$work"
  fi
  exit "$status"
}

main() {
  require setpriv postgresql redis-server libclang compiler
  build_binary
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  work=$(mktemp -d "${TMPDIR:-/tmp}/portcullis-demo.XXXXXX")
  start_server
  start_cache
  start_proxy
  show_statements
  show_commands
  show_audit
  if [[ -n $keep ]]; then describe_kept; else describe_next; fi
}

build_binary() {
  binary=$(target_dir release)/portcullis
  if [[ -n $build ]]; then
    require_cargo
    say "Building Portcullis (the first time takes some minutes)"
    (cd "$root_dir" && cargo build --release --locked --bin portcullis) ||
      die "the build failed" "the compiler's own messages above say why"
  fi
  [[ -x $binary ]] || die "$binary does not exist" "run without --no-build"
}

start_server() {
  pg_port=$(free_port)
  say "Starting a private PostgreSQL on 127.0.0.1:$pg_port"
  umask 077
  random_password >"$work/password"
  PGPASSWORD=$(<"$work/password")
  export PGPASSWORD
  start_postgres "$work" "$pg_port" "$work/password" fsync=off
  local user
  declare -gA passwords
  for user in "${users[@]}"; do
    passwords[$user]=$(random_password)
    superuser postgres -c "CREATE ROLE $user LOGIN PASSWORD '${passwords[$user]}'"
  done
  superuser postgres -c 'CREATE DATABASE demo'
  superuser demo -f "$root_dir/rules/demo/schema.sql" -f "$root_dir/deploy/demo/sample.sql"
  # PostgreSQL itself lets all three do everything: whatever is refused, Portcullis refuses.
  superuser demo -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO app, support, analyst'
}

# The same three accounts in Redis, and the customers as an application caches them.
start_cache() {
  local user lines=("user default off")
  cache_port=$(free_port)
  say "Starting a private Redis on 127.0.0.1:$cache_port"
  for user in "${users[@]}"; do
    lines+=("user $user on >${passwords[$user]} ~* &* +@all")
  done
  start_redis "$work" "$cache_port" "${lines[@]}"
  superuser demo -A -t -c \
    "SELECT format('HSET customer:%s name \"%s\" email \"%s\" card_no \"%s\"',
            id, name, email, card_no) FROM customers" |
    redis_as app "$cache_port" >"$work/cached"
  if grep -q ERR "$work/cached"; then die "the cache was not filled" "$(head -n 3 "$work/cached")"; fi
}

# redis-cli as a user, on this port; commands from its arguments or its input.
redis_as() {
  local user=$1 port=$2
  shift 2
  REDISCLI_AUTH=${passwords[$user]} redis-cli --no-raw -h 127.0.0.1 -p "$port" --user "$user" "$@"
}

superuser() {
  local database=$1
  shift
  psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$pg_port" -U postgres -d "$database" "$@"
}

start_proxy() {
  local admin_port
  proxy_port=$(free_port) cache_proxy_port=$(free_port) admin_port=$(free_port)
  say "Starting Portcullis on 127.0.0.1:$proxy_port and :$cache_proxy_port with the rules of rules/demo"
  cp -r "$root_dir/rules/demo" "$work/rules"
  cat >"$work/portcullis.yaml" <<YAML
version: 1
datasources:
  - name: demo
    protocol: postgresql
    listen: "127.0.0.1:$proxy_port"
    upstream: "127.0.0.1:$pg_port"
    default: allow
  - name: cache
    protocol: redis
    listen: "127.0.0.1:$cache_proxy_port"
    upstream: "127.0.0.1:$cache_port"
    default: allow
rules: {directory: rules}
audit: {file: audit.jsonl}
admin: {listen: "127.0.0.1:$admin_port"}
YAML
  setsid "$binary" run --config "$work/portcullis.yaml" >"$work/portcullis.log" 2>&1 </dev/null &
  proxy_pid=$!
  if ! wait_for 20 proxy_ready_or_gone "$admin_port" || process_gone "$proxy_pid"; then
    die "Portcullis did not become ready" "$(tail -n 15 "$work/portcullis.log")"
  fi
}

proxy_ready_or_gone() { [[ $(http_status "$1" /readyz) == 200 ]] || process_gone "$proxy_pid"; }

# --- what the users see ------------------------------------------------------------------------

show_statements() {
  show 'a masked column' \
    'SELECT email, card_no, birth_date FROM customers WHERE id = 2'
  show 'a filtered table' \
    "SELECT tenant_id || ': ' || count(*) FROM orders GROUP BY tenant_id ORDER BY 1"
  show 'a refused DELETE without WHERE' \
    'DELETE FROM orders'
  show 'a prepared statement' \
    'PREPARE one(int) AS SELECT name, email FROM customers WHERE id = $1; EXECUTE one(4)'
  show 'a statement PostgreSQL itself refuses' \
    'UPDATE orders SET customer_id = 4711 WHERE id = 5'
  show_rate_limit
}

# One statement as each user: a heading, the statement, and three cells side by side.
show() {
  local user
  number=$((${number:-0} + 1))
  printf '\n%s\n' "${bold}$number. $1${plain}"
  printf '   %s\n' "${dim}$2;${plain}"
  for user in "${users[@]}"; do
    run_as "$user" -c "${2}" >"$work/cell.$user"
  done
  side_by_side
}

show_rate_limit() {
  local attempts=40 attempt user answered
  number=$((number + 1))
  printf '\n%s\n' "${bold}$number. a rate limit: $attempts times in a row${plain}"
  printf '   %s\n' "${dim}SELECT count(*) FROM orders;${plain}"
  for ((attempt = 0; attempt < attempts; attempt++)); do
    echo 'SELECT count(*) FROM orders;'
  done >"$work/many.sql"
  for user in "${users[@]}"; do
    run_as "$user" -v ON_ERROR_STOP=0 -f "$work/many.sql" >"$work/many.out"
    answered=$(grep -c '^[0-9]*$' "$work/many.out" || true)
    {
      echo "$answered of $attempts answered"
      grep -m 1 -v '^[0-9]*$' "$work/many.out" || true
    } >"$work/cell.$user"
  done
  side_by_side
}

show_commands() {
  show_command 'the same rule in Redis: masked values of a hash' HMGET customer:2 name email card_no
  show_command 'a command nobody needs every day' FLUSHALL
  show_command 'which is still there' EXISTS customer:2
}

# One command as each user, like a statement.
show_command() {
  local user title=$1
  shift
  number=$((number + 1))
  printf '\n%s\n' "${bold}$number. $title${plain}"
  printf '   %s\n' "${dim}$*${plain}"
  for user in "${users[@]}"; do
    redis_as "$user" "$cache_proxy_port" "$@" 2>&1 |
      sed -E 's/^ *[0-9]+\) //; s/^\(error\) /refused: /' >"$work/cell.$user" || true
  done
  side_by_side
}

# psql through Portcullis; each field on a line of its own, errors as one line among them.
run_as() {
  local user=$1
  shift
  PGPASSWORD=${passwords[$user]} PGAPPNAME=quickstart psql -X -q -A -t -F $'\n' -P null='(null)' \
    -v ON_ERROR_STOP=1 -v VERBOSITY=terse \
    -h 127.0.0.1 -p "$proxy_port" -U "$user" -d demo "$@" 2>&1 |
    sed -E 's/^(psql:[^ ]* )?ERROR: +/refused: /; /^$/d' || true
}

side_by_side() {
  local user files=()
  for user in "${users[@]}"; do
    # A statement that returns no rows says nothing.
    [[ -s $work/cell.$user ]] || echo '(done)' >"$work/cell.$user"
    fold -s -w "$cell" "$work/cell.$user" | sed 's/ *$//' >"$work/folded.$user"
    files+=("$work/folded.$user")
  done
  printf "   ${bold}%-${cell}s  %-${cell}s  %s${plain}\n" "${users[@]}"
  paste -d $'\t' "${files[@]}" |
    awk -F '\t' -v w="$cell" '{ printf "   %-" w "s  %-" w "s  %s\n", $1, $2, $3 }'
}

# --- what was recorded -------------------------------------------------------------------------

show_audit() {
  printf '\n%s\n' "${bold}The audit trail of all of this${plain} (literals are never recorded)"
  wait_for 10 audit_is_complete || die "the audit file is not complete" "$work/audit.jsonl"
  # The demo's own PostgreSQL reads the JSON: nothing else needs to be installed for it.
  superuser demo -P border=0 -P footer=off <<SQL
CREATE TEMP TABLE trail (line json);
\copy trail from '$work/audit.jsonl' with (format csv, quote e'\x01', delimiter e'\x02')
SELECT to_char(to_timestamp(min((line->>'time')::bigint) / 1000.0), 'HH24:MI:SS') AS "time",
       line->'actor'->'user'->>'name' AS "user",
       sum(coalesce((line->>'count')::bigint, 1)) AS "times",
       line->'unmapped'->'portcullis'->>'decision' AS "decision",
       coalesce(line->'policy'->>'name', '-') AS "rule",
       left(regexp_replace(line->'query_info'->>'query_string', '\s+', ' ', 'g'), 48) AS "statement"
FROM trail
WHERE line->>'class_uid' = '6005' AND line->'query_info' IS NOT NULL
  AND line->'metadata'->>'original_event_uid' IS NULL
GROUP BY 2, 4, 5, 6
ORDER BY min((line->'metadata'->>'sequence')::bigint);
SQL
}

# The last command of the last user ends its session; the event of that is the last to come.
audit_is_complete() {
  local sessions
  sessions=$(grep -c '"activity_name":"Disconnect"' "$work/audit.jsonl" || true)
  ((sessions >= 3 * number))
}

describe_next() {
  cat <<TEXT

Next:  deploy/quickstart.sh --keep --no-build   leaves it running for your own psql and redis-cli
       rules/demo/                              the rules behind this; docs/RULES.md explains them
       docs/LIMITATIONS.md                      what it does not do yet
TEXT
}

describe_kept() {
  local user
  printf '\nAll are running. Connect with\n'
  for user in "${users[@]}"; do
    printf '  psql "postgresql://%s:%s@127.0.0.1:%s/demo"\n' \
      "$user" "${passwords[$user]}" "$proxy_port"
  done
  for user in "${users[@]}"; do
    printf '  redis-cli -u "redis://%s:%s@127.0.0.1:%s"\n' \
      "$user" "${passwords[$user]}" "$cache_proxy_port"
  done
  cat <<TEXT
Edit a file in   $work/rules: new statements follow within a second
Audit trail      $work/audit.jsonl
Log              $work/portcullis.log
Stop with        kill $proxy_pid $redis_pid; kill -INT $pg_pid; rm -rf $work
TEXT
}

main
