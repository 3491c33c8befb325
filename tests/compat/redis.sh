# Sourced by run.sh: the suites of Redis and of redis-py, their server and their proxy.
# shellcheck shell=bash disable=SC2154 # cache, work, portcullis, server_port come from run.sh

# The release of redis-py whose suite is run.
readonly redis_py_version=7.1.0

build_redis_suites() {
  local version
  version=$(dpkg-query -W -f '${Version}' redis-server 2>/dev/null) ||
    die "Redis is not Debian's package redis-server" 'its suite comes from the source package'
  redis_source_dir=$cache/redis-${version#*:}
  redis_py_dir=$cache/redis-py-$redis_py_version
  [[ -f $redis_source_dir/.built ]] || fetch_redis "$version"
  [[ -f $redis_py_dir/.built ]] || build_redis_py
  version=${version#*:}
  printf '%s\t%s\n' redis_tcl "Redis ${version%%-*}" redis_py_2 "redis-py $redis_py_version" \
    redis_py_3 "redis-py $redis_py_version" >"$cache/versions.redis.tsv"
}

# Nothing is compiled: the suite drives the programs that are installed.
fetch_redis() {
  local version=$1 upstream program
  upstream=${version#*:} upstream=${upstream%%-*}
  rm -rf "$redis_source_dir" "$cache/fetch"
  mkdir -p "$cache/fetch"
  say "Fetching the sources of redis $version"
  (cd "$cache/fetch" && fetch_source redis "$version") ||
    die "no source package redis $version" "see $cache/fetch/apt.log"
  mkdir -p "$redis_source_dir/src"
  mv "$cache/fetch/redis-$upstream/tests" "$redis_source_dir"
  for program in redis-server redis-cli redis-benchmark; do
    ln -s "$(command -v "$program")" "$redis_source_dir/src/$program"
  done
  adapt_redis_suite "$redis_source_dir/tests"
  rm -rf "$cache/fetch"
  touch "$redis_source_dir/.built"
}

# Three things the suite does not know. A password: whatever connects says it first, where there is
# one, and again after RESET. That commands on two connections may overtake each other when nobody waits for an answer: it
# relies on their order, which only the server's own sockets keep. So it pauses where it changes to
# another connection while an answer is outstanding, directly as well. And that what the server
# tells its replicas is no client's to hear: where a test looks at that, to see what a client's
# commands have done, it asks the server itself.
adapt_redis_suite() {
  local folder=$1 place='\$server \$port|\$host \$port|\[srv [^]]*\] \[srv [^]]*\]'
  cat >>"$folder/support/redis.tcl" <<'TCL'

proc compat_login {fd} {
    if {[info exists ::env(COMPAT_PASSWORD)]} {
        fconfigure $fd -translation binary
        puts -nonewline $fd "AUTH $::env(COMPAT_PASSWORD)\r\n"
        flush $fd
        gets $fd
    }
    return $fd
}

proc compat_reply {id fd method} {
    set reply [::redis::redis_read_reply $id $fd]
    if {$method eq {reset} && $reply eq {RESET}} {compat_login $fd}
    return $reply
}

set ::compat_outstanding {}
proc compat_order {id method} {
    if {$::compat_outstanding ne {} && $::compat_outstanding ne $id} {
        after 20
        set ::compat_outstanding {}
    }
    if {$method eq {read}} {
        set ::compat_outstanding {}
    } elseif {$method eq {close} || $::redis::deferred($id)} {
        set ::compat_outstanding $id
    }
}
TCL
  sed -Ei "s/\[((::tls::)?socket ($place))\]/[compat_login [\1]]/" \
    "$folder"/{support/redis.tcl,unit/protocol.tcl,unit/other.tcl}
  sed -Ei '/^proc attach_to_replication_stream/,/^}/s/(::tls::)?socket \[srv 0 "host"\] \[srv 0 "port"\]/socket 127.0.0.1 $::env(COMPAT_SERVER_PORT)/' \
    "$folder/test_helper.tcl"
  sed -i '/^proc ::redis::__dispatch__raw__/,/^}/s/::redis::redis_read_reply \$id \$fd/compat_reply $id $fd $method/' \
    "$folder/support/redis.tcl"
  sed -i '/^proc ::redis::__dispatch__raw__/a\    compat_order $id $method' "$folder/support/redis.tcl"
}

build_redis_py() {
  say "Building redis-py $redis_py_version"
  rm -rf "$redis_py_dir" "$cache/redis-venv"
  (
    cd "$cache" && "$(system_python)" -m venv redis-venv &&
      redis-venv/bin/pip install -q setuptools wheel hatchling &&
      redis-venv/bin/pip download -q --no-deps --no-binary redis "redis==$redis_py_version" &&
      tar -xzf "redis-$redis_py_version.tar.gz" && mv "redis-$redis_py_version" "$redis_py_dir" &&
      redis-venv/bin/pip install -q "$redis_py_dir" pytest==8.4.2 pytest-asyncio==1.1.0 \
        pytest-timeout==2.3.1 mock==5.1.0 packaging==24.2 numpy PyJWT requests typing_extensions \
        redis-entraid==1.0.0
  ) >"$cache/redis-py.log" 2>&1 || die 'redis-py did not build' "see $cache/redis-py.log"
  touch "$redis_py_dir/.built"
}

# A server, a proxy unless the mode is without, and what clients have to know.
begin_redis() {
  local mode=$1 password settings=()
  password=$(cat "$work/password")
  unset COMPAT_PASSWORD REDISCLI_AUTH
  redis_tls='' redis_url=redis://127.0.0.1
  server_port=$(free_port) redis_port=$server_port
  export COMPAT_SERVER_PORT=$server_port
  # DEBUG RELOAD writes the data down and reads it again.
  mkdir "$work/data"
  ((EUID != 0)) || chown "$(server_account)" "$work/data"
  settings=("dir $work/data" 'enable-debug-command yes' 'enable-module-command yes')
  # Tests change what `default` may do, so the proxy has an account of its own.
  [[ $mode != terminated ]] || settings+=("user app on >$password ~* &* +@all")
  start_redis "$work" "$server_port" "${settings[@]}"
  [[ $mode != direct ]] || return 0
  redis_port=$(free_port)
  open_doors 'commands: ["@doors"]'
  {
    datasource redis "$redis_port"
    [[ $mode != terminated ]] || terminate_redis_logins
  } >"$work/portcullis.yaml"
  run_proxy "$redis_port"
  [[ $mode == terminated ]] || return 0
  redis_tls=yes redis_url=rediss://default:$password@127.0.0.1
  export COMPAT_PASSWORD=$password REDISCLI_AUTH=$password
}

# Lines of the datasource: a password over TLS, held against a verifier of ours.
terminate_redis_logins() {
  make_certificate
  install -m 600 "$work/password" "$work/account.password"
  printf 'version: 1\nidentities:\n  - {user: default, login: {scram: "%s"}}\n' \
    "$("$portcullis" auth scram-verifier <"$work/password")" >"$work/rules/identities.yaml"
  cat <<'YAML'
    tls: {mode: required, certificate: server.crt, key: server.key}
    authentication: [{method: password}]
    upstream_login: [{user: app, password_file: account.password}]
YAML
}

# --- the suites ------------------------------------------------------------------------------

# Against a server it did not start. Left out: a test that needs the server's process and leaves it
# asleep when it does not find it, and the unit on a server's own TLS, which would run where TLS is
# the proxy's. Where logins end at the proxy, also a test that waits for ever to see them at the
# server.
suite_redis_tcl() {
  local folder=$work/redis options=()
  cp -r "$redis_source_dir" "$folder"
  mkdir -p "$folder/tests/tmp" "$folder/tests/tls"
  if [[ -n $redis_tls ]]; then
    cp "$work/server.crt" "$folder/tests/tls/ca.crt"
    cp "$work/server.crt" "$folder/tests/tls/client.crt"
    cp "$work/server.key" "$folder/tests/tls/client.key"
    options=(--tls --skiptest 'MONITOR supports redacting command arguments')
  fi
  (cd "$folder" && timeout 1800 tclsh tests/test_helper.tcl --host 127.0.0.1 --port "$redis_port" \
    --baseport "$(free_port)" --durable --no-latency "${options[@]}" \
    --skipunit unit/tls --skiptest 'SRANDMEMBER with a dict containing long chain')
}

# What needs a cluster, a module, a replica, TLS files of theirs or a service is left out. What fails
# is tried again, up to twice: some tests race, directly as well.
redis_py_tests() {
  local protocol=$1 folder=$work/redis-py url=$redis_url:$redis_port/0 try again=()
  [[ -z $redis_tls ]] || url+="?ssl_ca_certs=$work/server.crt&ssl_check_hostname=false"
  mkdir "$folder"
  cp -r "$redis_py_dir/tests" "$redis_py_dir/pyproject.toml" "$folder"
  # What a `rediss` URL says of TLS is overwritten by the suite's own choice of a class.
  sed -i 's/connection_class = Connection$/connection_class = url_options.get("connection_class", Connection)/' \
    "$folder/tests/conftest.py"
  for try in 1 2 3; do
    (cd "$folder" && timeout 900 "$cache/redis-venv/bin/python" -B -m pytest -q \
      -o filterwarnings= -o addopts= --junitxml="$try.xml" --redis-url "$url" \
      --protocol "$protocol" \
      -m 'not onlycluster and not redismod and not ssl and not replica and not cp_integration' \
      --ignore-glob '*test_scenario' --ignore-glob '*test_multidb' --ignore-glob '*test_cluster*' \
      --ignore-glob '*test_sentinel.py' \
      ${again[@]+"${again[@]}"} tests) && break
    again=(--last-failed)
  done
  cat "$folder"/*.xml
}

suite_redis_py_2() { redis_py_tests 2; }

suite_redis_py_3() { redis_py_tests 3; }
