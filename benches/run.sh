#!/usr/bin/env bash
# CPU of the proxy per transaction or command, throughput and latency of Portcullis beside PgBouncer,
# nutcracker and a plain copy proxy, interleaved on one machine. Writes results, tables and a plot into
# bench-out.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: benches/run.sh [--no-build] [--only postgresql|redis]

Installs what is missing (PostgreSQL, PgBouncer, Redis, nutcracker, libclang, a C compiler; by apt, as
root or with sudo), builds Portcullis and the copy proxy, starts all of them on free loopback ports and
runs

  prepared  pgbench -S -M prepared
  simple    pgbench -S -M simple: the literal differs every time
  repeated  the same look-up with the same text every time
  wide      1000 rows, the same text every time

directly and through each proxy, the proxies taking turns. Portcullis runs with parsing, a mask and
a row filter on the table read, and the audit trail on.

Then redis-benchmark, GET and SET with 50 clients and pipelines of 1, 16 and 64, directly and through
the copy proxy, nutcracker (twemproxy) and Portcullis, which judges each command by name and key and
has the audit trail on; then the same with another key each time (get-any, set-any).

Environment:
  DUR=4                  seconds a run; below 4 the clock ticks of /proc show
  REPS=3                 rounds; tables show the median
  CLIENTS="1 16 64"      client counts; WIDE_CLIENTS="16" for wide
  WORKLOADS="prepared simple repeated wide"
  REDIS_DEPTHS="1:200000 16:1000000 64:2000000"  pipeline depths, with the commands a run
  SCALE=10               pgbench scale (100,000 rows each)
  OUT=bench-out          where results*.csv, summary*.txt and plot.svg go
  CARGO_TARGET_DIR       where to build
TEXT
}

DUR=${DUR:-4} REPS=${REPS:-3} SCALE=${SCALE:-10}
read -ra clients_list <<<"${CLIENTS:-1 16 64}"
read -ra wide_clients_list <<<"${WIDE_CLIENTS:-16}"
read -ra workloads <<<"${WORKLOADS:-prepared simple repeated wide}"
readonly targets=(direct pgbouncer copy_proxy portcullis)

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/lib.sh
. "$root_dir/deploy/lib.sh"
# shellcheck source=benches/redis.sh
. "$root_dir/benches/redis.sh"
out=${OUT:-$root_dir/bench-out}
work='' pg_pid='' redis_pid=''
declare -A port=() pid=()

clean_up() {
  local status=$?
  trap - EXIT INT TERM HUP
  stop_all
  [[ -z $work ]] || rm -rf "$work"
  exit "$status"
}

# Ends every target and its server.
stop_all() {
  local target
  for target in "${!pid[@]}"; do
    stop_process "${pid[$target]}" TERM
  done
  stop_process "$pg_pid" INT
  stop_process "$redis_pid" TERM
  pg_pid='' redis_pid='' pid=()
}

main() {
  local build=yes only=''
  while (($#)); do
    case $1 in
      --no-build) build='' ;;
      --only)
        only=${2:-}
        [[ $only == postgresql || $only == redis ]] || die "--only takes postgresql or redis"
        shift
        ;;
      -h | --help)
        usage
        return
        ;;
      *)
        usage >&2
        exit 2
        ;;
    esac
    shift
  done
  require setpriv libclang compiler
  [[ $only == redis ]] || require postgresql pgbouncer
  [[ $only == postgresql ]] || require redis-server nutcracker
  build_programs "$build"
  mkdir -p "$out"
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  work=$(mktemp -d "${TMPDIR:-/tmp}/portcullis-bench.XXXXXX")
  if [[ $only != redis ]]; then
    start_server
    start_pgbouncer
    start_copy_proxy
    start_portcullis
    run_all
    summarise | tee "$out/summary.txt"
    plot >"$out/plot.svg"
    stop_all
  fi
  if [[ $only != postgresql ]]; then
    run_redis
    summarise_redis | tee "$out/summary.redis.txt"
  fi
  say "Wrote $out"
}

build_programs() {
  release=$(target_dir release)
  if [[ -n $1 ]]; then
    require_cargo
    say 'Building (release)'
    (cd "$root_dir" && cargo build --release --locked --bin portcullis --example copy_proxy)
  fi
  [[ -x $release/portcullis && -x $release/examples/copy_proxy ]] ||
    die "no release build in $release" 'run without --no-build'
}

# --- what is measured --------------------------------------------------------------------------

start_server() {
  port[direct]=$(free_port) pid[direct]=''
  say "Starting PostgreSQL on 127.0.0.1:${port[direct]}, pgbench scale $SCALE"
  (umask 077 && random_password >"$work/password")
  PGPASSWORD=$(<"$work/password")
  export PGPASSWORD PGSSLMODE=disable PGGSSENCMODE=disable
  start_postgres "$work" "${port[direct]}" "$work/password" \
    fsync=off synchronous_commit=off max_connections=300 shared_buffers=256MB
  psql_direct -c "CREATE ROLE bench LOGIN PASSWORD '$PGPASSWORD'" -c 'CREATE DATABASE bench'
  "$(pg_bin)/pgbench" -h 127.0.0.1 -p "${port[direct]}" -U postgres -i -q -s "$SCALE" bench \
    >"$work/init.log" 2>&1 || die 'pgbench -i failed' "$(tail -n 3 "$work/init.log")"
  psql_direct -d bench -c 'GRANT ALL ON ALL TABLES IN SCHEMA public TO bench'
  echo 'SELECT abalance FROM pgbench_accounts WHERE aid = 4711;' >"$work/repeated.sql"
  echo 'SELECT * FROM pgbench_accounts WHERE aid BETWEEN 1 AND 1000;' >"$work/wide.sql"
}

psql_direct() {
  psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "${port[direct]}" -U postgres -d postgres "$@"
}

# Session pooling is the mode that keeps what clients may expect of a connection, as Portcullis does.
start_pgbouncer() {
  local folder=$work/pgbouncer program
  port[pgbouncer]=$(free_port)
  mkdir "$folder"
  printf '"bench" "%s"\n' "$PGPASSWORD" >"$folder/users"
  cat >"$folder/pgbouncer.ini" <<INI
[databases]
bench = host=127.0.0.1 port=${port[direct]}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port[pgbouncer]}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $folder/users
pool_mode = session
max_client_conn = 500
default_pool_size = 200
logfile = $folder/log
log_connections = 0
log_disconnections = 0
INI
  # It refuses to run as root too.
  ((EUID != 0)) || chown -R "$(server_account)" "$folder"
  program=$(PATH=$PATH:/usr/sbin command -v pgbouncer)
  (cd / && as_server setsid "$program" -q "$folder/pgbouncer.ini") >"$work/pgbouncer.err" 2>&1 &
  started pgbouncer $! "$work/pgbouncer.err"
}

start_copy_proxy() {
  port[copy_proxy]=$(free_port)
  "$release/examples/copy_proxy" "127.0.0.1:${port[copy_proxy]}" "127.0.0.1:${port[direct]}" \
    >"$work/copy_proxy.log" 2>&1 &
  started copy_proxy $! "$work/copy_proxy.log"
}

start_portcullis() {
  local admin
  port[portcullis]=$(free_port) admin=$(free_port)
  mkdir "$work/rules"
  cat >"$work/rules/bench.yaml" <<'YAML'
version: 1
classification:
  - {columns: [public.pgbench_accounts.filler], class: FREE_TEXT, level: confidential}
rules:
  - id: mask-filler
    match: {users: [bench], classes: [FREE_TEXT]}
    mask: {FREE_TEXT: {partial: {prefix: 2, suffix: 2, char: "*"}}}
  - id: own-accounts
    match: {users: [bench], relations: [public.pgbench_accounts]}
    filter: aid > 0
  - id: no-unbounded-dml
    match: {statements: [update, delete], without: where}
    deny: {message: "UPDATE and DELETE need a WHERE clause"}
YAML
  cat >"$work/portcullis.yaml" <<YAML
version: 1
datasources:
  - name: bench
    protocol: postgresql
    listen: "127.0.0.1:${port[portcullis]}"
    upstream: "127.0.0.1:${port[direct]}"
    default: allow
rules: {directory: rules}
audit: {file: audit.jsonl, rotate: 64MiB, keep: 2}
admin: {listen: "127.0.0.1:$admin"}
YAML
  "$release/portcullis" run --config "$work/portcullis.yaml" >"$work/portcullis.log" 2>&1 &
  started portcullis $! "$work/portcullis.log"
}

# Notes the process of a target and waits until it serves.
started() {
  local target=$1 log=$3
  pid[$target]=$2
  if ! wait_for 20 port_answers "${port[$target]}" || process_gone "$2"; then
    die "$target did not start" "$(tail -n 5 "$log")"
  fi
}

# --- measuring ---------------------------------------------------------------------------------

run_all() {
  local rep workload clients turn
  echo 'workload,clients,rep,target,tps,latency_avg_us,p50_us,p99_us,cpu_us_per_tx,transactions,failed' \
    >"$out/results.csv"
  for ((rep = 1; rep <= REPS; rep++)); do
    for workload in "${workloads[@]}"; do
      local counts=("${clients_list[@]}")
      [[ $workload != wide ]] || counts=("${wide_clients_list[@]}")
      for clients in "${counts[@]}"; do
        for ((turn = 0; turn < ${#targets[@]}; turn++)); do
          # Each round begins with another target, so that none always follows the same one.
          measure "$workload" "$clients" "$rep" "${targets[(turn + rep) % ${#targets[@]}]}"
        done
      done
    done
    say "Round $rep of $REPS done, load $(cut -d' ' -f1 /proc/loadavg)"
  done
}

measure() {
  local workload=$1 clients=$2 rep=$3 target=$4 before warm after report
  local run=("$(pg_bin)/pgbench" -h 127.0.0.1 -p "${port[$target]}" -U bench -n -j 1 -c "$clients")
  case $workload in
    prepared) run+=(-S -M prepared) ;;
    simple) run+=(-S -M simple) ;;
    repeated | wide) run+=(-M simple -f "$work/$workload.sql") ;;
    *) die "unknown workload $workload" ;;
  esac
  before=$(cpu_us "$target")
  # One transaction a client: what logging in costs, subtracted below.
  "${run[@]}" -t 1 bench >"$work/warm.log" 2>&1 || die "$target: $workload" "$(tail -n 3 "$work/warm.log")"
  warm=$(cpu_us "$target")
  rm -f "$work"/latency.*
  report=$("${run[@]}" -T "$DUR" -l --log-prefix="$work/latency" bench 2>"$work/run.log") ||
    die "$target: $workload with $clients clients" "$(tail -n 3 "$work/run.log")"
  after=$(cpu_us "$target")
  awk -v cpu=$((after - warm - (warm - before))) -v clients="$clients" \
    -v head="$workload,$clients,$rep,$target" -v quantiles="$(latency_quantiles)" '
    /actually processed/ { n = $6; sub("/.*", "", n) }
    /^tps/ { tps = $3 }
    /latency average/ { average = $4 * 1000 }
    /failed transactions/ { failed = $5 }
    END {
      printf "%s,%.1f,%.0f,%s,%.3f,%d,%d\n", head, tps, average, quantiles,
        cpu / (n - clients), n, failed
    }' <<<"$report" >>"$out/results.csv"
}

# User and system time of the target's process in microseconds, all its threads.
cpu_us() {
  local stat fields
  [[ -n ${pid[$1]} ]] || { echo 0 && return; }
  stat=$(<"/proc/${pid[$1]}/stat") || die "$1 is gone"
  read -ra fields <<<"${stat##*) }"
  echo $(((fields[11] + fields[12]) * 1000000 / $(getconf CLK_TCK)))
}

# `p50,p99` of the last run's log, microseconds.
latency_quantiles() {
  cut -d' ' -f3 "$work"/latency.* | sort -n | awk '
    { value[NR] = $1 }
    END {
      middle = int(NR * 0.50); high = int(NR * 0.99)
      print value[middle < 1 ? 1 : middle] "," value[high < 1 ? 1 : high]
    }'
}

# --- reporting ---------------------------------------------------------------------------------

# Medians over the rounds; shared by the table and the plot.
readonly medians='
  function median(key, column,   n, i, j, t, v) {
    n = count[key]
    for (i = 1; i <= n; i++) v[i] = value[key, column, i]
    for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++)
      if (v[j] < v[i]) { t = v[i]; v[i] = v[j]; v[j] = t }
    return n == 0 ? 0 : n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
  }
  NR > 1 {
    group = $1 " " $2
    if (!(group in seen)) { seen[group] = 1; groups[++ngroups] = group }
    key = group " " $4
    count[key]++
    for (column = 5; column <= 9; column++) value[key, column, count[key]] = $column + 0
    failures += $11
  }'

summarise() {
  echo "$(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
  echo "$("$(pg_bin)/postgres" --version); $(PATH=$PATH:/usr/sbin pgbouncer --version | head -n 1); $("$release/portcullis" --version)"
  echo "$REPS rounds of $DUR s; medians; differences below 20 % are no result"
  echo
  awk -F, "$medians"'
    function verdict(name, group, limit,   ours, theirs) {
      ours = median(group " portcullis", 9); theirs = median(group " pgbouncer", 9)
      if (ours == 0 || theirs == 0) return
      printf "%s %-42s %.2f times PgBouncer, target %.1f\n",
        ours <= limit * theirs ? "pass" : "MISS", name, ours / theirs, limit
    }
    END {
      printf "%-9s %7s  %-10s %13s %9s %9s %9s %9s\n", "workload", "clients", "target",
        "cpu us per tx", "tps", "of direct", "p50 us", "p99 us"
      split("direct pgbouncer copy_proxy portcullis", targets, " ")
      for (g = 1; g <= ngroups; g++) {
        split(groups[g], part, " ")
        for (t = 1; t <= 4; t++) {
          key = groups[g] " " targets[t]
          direct = median(groups[g] " direct", 5)
          printf "%-9s %7d  %-10s %13.1f %9.0f %9.2f %9.0f %9.0f\n", part[1], part[2], targets[t],
            median(key, 9), median(key, 5), direct ? median(key, 5) / direct : 0,
            median(key, 7), median(key, 8)
        }
      }
      print ""
      verdict("prepared, 16 clients, proxy CPU", "prepared 16", 1.5)
      verdict("repeated simple text, 16 clients, proxy CPU", "repeated 16", 1.7)
      if (failures) printf "%d transactions failed\n", failures
    }' "$out/results.csv"
}

# Grouped bars of proxy CPU per transaction: the point look-ups, and 1000 rows on their own scale.
plot() {
  awk -F, "$medians"'
    function bars(left, width, wide,   g, t, n, top, x, step, height, part, cpu) {
      for (g = 1; g <= ngroups; g++) if ((groups[g] ~ /^wide/) == wide) {
        n++
        for (t = 1; t <= 3; t++) { cpu = median(groups[g] " " targets[t], 9); if (cpu > top) top = cpu }
      }
      if (n == 0) return
      step = width / n
      for (g = 1; g <= ngroups; g++) if ((groups[g] ~ /^wide/) == wide) {
        split(groups[g], part, " ")
        for (t = 1; t <= 3; t++) {
          cpu = median(groups[g] " " targets[t], 9)
          height = top ? cpu / top * 220 : 0
          x = left + (t - 1) * step / 4
          printf "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n",
            x, 290 - height, step / 4 - 2, height, colour[t]
          printf "<text x=\"%.1f\" y=\"%.1f\" font-size=\"9\" text-anchor=\"middle\">%.0f</text>\n",
            x + step / 8 - 1, 286 - height, cpu
        }
        printf "<text x=\"%.1f\" y=\"306\" text-anchor=\"middle\">%s</text>\n", left + step * 3 / 8, part[1]
        printf "<text x=\"%.1f\" y=\"321\" text-anchor=\"middle\">%d</text>\n", left + step * 3 / 8, part[2]
        left += step
      }
    }
    END {
      split("pgbouncer copy_proxy portcullis", targets, " ")
      split("#8a8f98 #c9b458 #2f6fab", colour, " ")
      print "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"340\" font-family=\"sans-serif\" font-size=\"11\">"
      print "<rect width=\"960\" height=\"340\" fill=\"white\"/>"
      print "<text x=\"20\" y=\"24\" font-size=\"15\">Proxy CPU per transaction, microseconds (workload, clients)</text>"
      for (t = 1; t <= 3; t++) {
        printf "<rect x=\"%d\" y=\"36\" width=\"12\" height=\"12\" fill=\"%s\"/>", 20 + t * 110 - 110, colour[t]
        printf "<text x=\"%d\" y=\"46\">%s</text>\n", 37 + t * 110 - 110, targets[t]
      }
      bars(20, 780, 0)
      bars(840, 110, 1)
      print "<line x1=\"20\" y1=\"290\" x2=\"945\" y2=\"290\" stroke=\"black\"/>"
      print "</svg>"
    }' "$out/results.csv"
}

main "$@"
