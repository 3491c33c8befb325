# Sourced by run.sh: redis-benchmark directly, and through a copy proxy, nutcracker and Portcullis.
# shellcheck shell=bash disable=SC2154,SC2034 # work, out, release, port, pid come from run.sh

readonly redis_targets=(direct copy_proxy nutcracker portcullis)
# What redis-benchmark asks for, and the same with another key each time.
readonly redis_tests=(get set get-any set-any)
read -ra redis_depths <<<"${REDIS_DEPTHS:-1:200000 16:1000000 64:2000000}"

run_redis() {
  local rep depth test turn
  port=() pid=()
  start_redis_server
  start_copy_proxy
  start_nutcracker
  start_portcullis_for_redis
  echo 'test,depth,rep,target,rps,p50_us,p99_us,cpu_us_per_command,commands' \
    >"$out/results.redis.csv"
  for ((rep = 1; rep <= REPS; rep++)); do
    for depth in "${redis_depths[@]}"; do
      for test in "${redis_tests[@]}"; do
        for ((turn = 0; turn < ${#redis_targets[@]}; turn++)); do
          measure_redis "$test" "$depth" "$rep" \
            "${redis_targets[(turn + rep) % ${#redis_targets[@]}]}"
        done
      done
    done
    say "Round $rep of $REPS of Redis done, load $(cut -d' ' -f1 /proc/loadavg)"
  done
}

start_redis_server() {
  port[direct]=$(free_port) pid[direct]=''
  say "Starting Redis on 127.0.0.1:${port[direct]}"
  mkdir "$work/redis"
  # The account of the server must get through.
  chmod 711 "$work" "$work/redis"
  start_redis "$work/redis" "${port[direct]}"
}

# One server, no hashing to do; Debian's program is the one that is compared with.
start_nutcracker() {
  local folder=$work/nutcracker program
  port[nutcracker]=$(free_port)
  mkdir "$folder"
  cat >"$folder/nutcracker.yml" <<YAML
bench:
  listen: 127.0.0.1:${port[nutcracker]}
  redis: true
  hash: fnv1a_64
  distribution: ketama
  servers:
    - 127.0.0.1:${port[direct]}:1
YAML
  program=$(PATH=$PATH:/usr/sbin command -v nutcracker)
  "$program" -c "$folder/nutcracker.yml" -s "$(free_port)" -a 127.0.0.1 -o "$folder/log" \
    >"$folder/out" 2>&1 &
  started nutcracker $! "$folder/log"
}

# A mask, a deny, and a list of commands and keys: each command is judged by name and key.
start_portcullis_for_redis() {
  local admin
  port[portcullis]=$(free_port) admin=$(free_port)
  mkdir -p "$work/redis-rules"
  cat >"$work/redis-rules/bench.yaml" <<'YAML'
version: 1
rules:
  - id: customers-are-masked
    match: {protocol: redis, keys: ["customer:*"], fields: [email]}
    mask: partial_email
  - id: sessions-are-not-written
    match: {protocol: redis, writes: ["session:*"]}
    deny: {message: sessions belong to the shop}
  - id: bench-works-on
    match: {protocol: redis}
    allow: {commands: [get, set, "@connection"], keys: ["key:*", "customer:*"]}
YAML
  cat >"$work/redis.yaml" <<YAML
version: 1
datasources:
  - name: bench
    protocol: redis
    listen: "127.0.0.1:${port[portcullis]}"
    upstream: "127.0.0.1:${port[direct]}"
    default: deny
rules: {directory: redis-rules}
audit: {file: redis-audit.jsonl, rotate: 64MiB, keep: 2}
admin: {listen: "127.0.0.1:$admin"}
YAML
  "$release/portcullis" run --config "$work/redis.yaml" >"$work/portcullis-redis.log" 2>&1 &
  started portcullis $! "$work/portcullis-redis.log"
}

measure_redis() {
  local test=$1 depth=${2%%:*} commands=${2##*:} rep=$3 target=$4 before after report keys=()
  [[ $test != *-any ]] || keys=(-r 100000)
  before=$(cpu_us "$target")
  report=$(redis-benchmark -h 127.0.0.1 -p "${port[$target]}" -t "${test%-any}" -n "$commands" \
    -c 50 -P "$depth" -d 64 "${keys[@]}" --csv 2>"$work/redis-benchmark.log") ||
    die "$target: redis-benchmark -t $test -P $depth" "$(tail -n 3 "$work/redis-benchmark.log")"
  after=$(cpu_us "$target")
  # "test","rps","avg_latency_ms","min","p50","p95","p99","max"
  tr -d '"\r' <<<"$report" | awk -F, -v cpu=$((after - before)) -v commands="$commands" \
    -v head="$test,$depth,$rep,$target" -v name="$(tr a-z A-Z <<<"${test%-any}")" '
    $1 == name {
      found = 1
      printf "%s,%.0f,%.0f,%.0f,%.4f,%d\n", head, $2, $5 * 1000, $7 * 1000, cpu / commands, commands
    }
    END { exit !found }' >>"$out/results.redis.csv" ||
    die "$target: redis-benchmark said nothing of $test" "$report"
}

summarise_redis() {
  echo "$(redis-server --version | cut -d' ' -f1-3); $(PATH=$PATH:/usr/sbin nutcracker --version 2>&1 | head -n 1); redis-benchmark, 50 clients, 64 bytes; $REPS rounds, medians"
  echo
  awk -F, "$medians"'
    function verdict(group, limit,   ours, theirs, met, target) {
      ours = median(group " portcullis", 8); theirs = median(group " copy_proxy", 8)
      if (ours == 0 || theirs == 0) return
      split(group, part, " ")
      # A command like the one before is known by its bytes; others are judged one by one.
      met = part[1] ~ /-any$/ ? "    " : ours <= limit * theirs ? "pass" : "MISS"
      target = part[1] ~ /-any$/ ? "" : sprintf(" (target %.1f)", limit)
      printf "%s %-7s pipeline %-3d proxy CPU: %.2f times the copy proxy%s, %.2f times nutcracker\n",
        met, part[1], part[2], ours / theirs, target, ours / median(group " nutcracker", 8)
    }
    END {
      printf "%-7s %8s  %-10s %15s %9s %9s %9s %9s\n", "test", "pipeline", "target",
        "cpu us per cmd", "per s", "of direct", "p50 us", "p99 us"
      split("direct copy_proxy nutcracker portcullis", targets, " ")
      for (g = 1; g <= ngroups; g++) {
        split(groups[g], part, " ")
        for (t = 1; t <= 4; t++) {
          key = groups[g] " " targets[t]
          direct = median(groups[g] " direct", 5)
          printf "%-7s %8d  %-10s %15.3f %9.0f %9.2f %9.0f %9.0f\n", part[1], part[2], targets[t],
            median(key, 8), median(key, 5), direct ? median(key, 5) / direct : 0,
            median(key, 6), median(key, 7)
        }
      }
      print ""
      for (g = 1; g <= ngroups; g++) verdict(groups[g], 1.3)
    }' "$out/results.redis.csv"
}
