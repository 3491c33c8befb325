# Sourced by deploy/quickstart.sh, tests/run.sh and benches/run.sh: finding and installing what is
# missing, and a private PostgreSQL under an unprivileged account. Not a program of its own.
# shellcheck shell=bash disable=SC2034 # what is set here is used by those who source it

# --- talking ---------------------------------------------------------------------------------

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
  bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
  bold='' dim='' green='' red='' plain=''
fi

say() { printf '%s\n' "${bold}==>${plain} $*"; }
# Says what is wrong, then, one per line, the way out.
die() {
  printf '%s\n' "${red}error:${plain} $1" >&2
  shift
  (($#)) && printf '       %s\n' "$@" >&2
  exit 1
}

# --- what a machine needs --------------------------------------------------------------------

# Folder with PostgreSQL's server programs: the newest version Debian has installed, else the path.
pg_bin() {
  local newest
  newest=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 2>/dev/null | sort -V | tail -n 1)
  if [[ -x $newest/bin/initdb ]]; then
    printf '%s\n' "$newest/bin"
  elif command -v initdb >/dev/null; then
    dirname "$(readlink -f "$(command -v initdb)")"
  else
    return 1
  fi
}

# Not `libclang*`: libclang-cpp is another library, and does not serve.
has_libclang() {
  [[ -n ${LIBCLANG_PATH:-} ]] || compgen -G '/usr/lib/llvm-*/lib/libclang[.-][0-9s]*' >/dev/null ||
    compgen -G '/usr/lib/*/libclang[.-][0-9s]*' >/dev/null
}

# A Python that can make virtual environments with pip in them: Debian packs ensurepip apart.
has_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

has_python_headers() {
  python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null
}

# Prints the Debian package of each need that is not met.
missing_packages() {
  local need
  for need in "$@"; do
    case $need in
      postgresql)
        if ! pg_bin >/dev/null || ! command -v psql >/dev/null; then echo postgresql; fi
        ;;
      libclang) has_libclang || echo libclang-dev ;;
      compiler) command -v cc >/dev/null || echo gcc libc6-dev ;;
      redis-server | pgbouncer | nutcracker)
        command -v "$need" >/dev/null || [[ -x /usr/sbin/$need ]] || echo "$need" ;;
      make) command -v make >/dev/null || echo make ;;
      xz) command -v xz >/dev/null || echo xz-utils ;;
      tcl) command -v tclsh >/dev/null || echo tcl ;;
      tcl-tls) echo 'exit [catch {package require tls}]' | tclsh >/dev/null 2>&1 || echo tcl-tls ;;
      openssl) command -v openssl >/dev/null || echo openssl ;;
      python3-venv) has_venv || echo python3-venv ;;
      python3-dev) has_python_headers || echo python3-dev ;;
      nodejs) command -v node >/dev/null && command -v npm >/dev/null || echo nodejs npm ;;
      setpriv) command -v setpriv >/dev/null || echo util-linux ;;
      *) die "internal: unknown need $need" ;;
    esac
  done
}

# Installs what is missing, or says plainly what to install.
require() {
  local packages
  mapfile -t packages < <(missing_packages "$@" | tr ' ' '\n')
  ((${#packages[@]})) || return 0
  command -v apt-get >/dev/null || die "missing: ${packages[*]} (Debian's names)" \
    "this machine has no apt; install them with its package manager and run again"
  local root=()
  if ((EUID != 0)); then
    root=(sudo)
    command -v sudo >/dev/null || die "missing: ${packages[*]}, and there is no sudo" \
      "as root: apt-get install ${packages[*]}"
  fi
  say "Installing ${packages[*]}"
  install_quietly "${root[@]}" || die "could not install ${packages[*]}" \
    "the last lines above say why; by hand: ${root[*]} apt-get install ${packages[*]}"
}

# Installs the caller's `packages` without starting the services that come with them.
install_quietly() {
  local policy=/usr/sbin/policy-rc.d ours='' status=0
  if [[ ! -e $policy ]]; then
    # Debian starts a server after installing it unless this file says no (101).
    printf '#!/bin/sh\nexit 101\n' | "$@" tee "$policy" >/dev/null && "$@" chmod 755 "$policy"
    ours=yes
  fi
  "$@" apt-get update -qq &&
    "$@" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      "${packages[@]}" >/dev/null || status=$?
  [[ -z $ours ]] || "$@" rm -f "$policy"
  return "$status"
}

require_cargo() {
  command -v cargo >/dev/null || [[ ! -f $HOME/.cargo/env ]] || . "$HOME/.cargo/env"
  command -v cargo >/dev/null || die 'cargo, the Rust build tool, is missing' \
    'get it from https://rustup.rs and run again; the version is chosen by rust-toolchain.toml'
}

# Where cargo puts the programs of a profile.
target_dir() { printf '%s\n' "${CARGO_TARGET_DIR:-$root_dir/target}/$1"; }

# --- a private PostgreSQL --------------------------------------------------------------------

# Account for the server: PostgreSQL refuses to run as root.
server_account() {
  if ((EUID != 0)); then
    id -un
  elif id postgres >/dev/null 2>&1; then
    echo postgres
  else
    echo nobody
  fi
}

# Becomes the given program under the server's account; the process id stays.
as_server() {
  if ((EUID == 0)); then
    local account
    account=$(server_account)
    exec setpriv --reuid="$account" --regid="$(id -g "$account")" --clear-groups -- "$@"
  fi
  exec "$@"
}

# A loopback port nobody listens on, below the kernel's range for outgoing connections.
free_port() {
  local port
  while :; do
    port=$((12000 + RANDOM % 18000))
    port_answers "$port" || break
  done
  printf '%s\n' "$port"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Status code of GET http://127.0.0.1:PORT PATH; nothing when it cannot be reached.
http_status() {
  local line
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    read -r -t 5 line <&3 && line=${line#* } && printf '%s\n' "${line%% *}"
    exec 3>&-
  } 2>/dev/null
}

# Waits until a command succeeds: wait_for SECONDS COMMAND…
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
}

random_password() { head -c 18 /dev/urandom | base64 | tr '+/' 'Aa'; }

# Makes a cluster in $1/data and starts it on port $2: superuser `postgres` with the password in
# file $3, SCRAM for everybody. Sets `pg_pid`. Further arguments are settings NAME=VALUE.
start_postgres() {
  local folder=$1 port=$2 password_file=$3 bin data=$1/data
  shift 3
  bin=$(pg_bin)
  # The server's account must be able to pass through to its own folder, and no further.
  chmod 711 "$folder"
  mkdir "$data"
  ((EUID != 0)) || chown "$(server_account)" "$data" "$password_file"
  (cd / && as_server "$bin/initdb" -D "$data" -U postgres --pwfile="$password_file" -E UTF8 \
    --locale=C -A scram-sha-256 --no-sync --no-instructions) >"$folder/initdb.log" 2>&1 ||
    die "initdb failed" "$(tail -n 3 "$folder/initdb.log")"
  local settings=() setting
  for setting in listen_addresses=127.0.0.1 unix_socket_directories= "port=$port" "$@"; do
    settings+=(-c "$setting")
  done
  (cd / && as_server setsid "$bin/postgres" -D "$data" "${settings[@]}") \
    >"$folder/postgres.log" 2>&1 </dev/null &
  pg_pid=$!
  wait_for 30 "$bin/pg_isready" -q -h 127.0.0.1 -p "$port" ||
    die "PostgreSQL did not start" "$(tail -n 5 "$folder/postgres.log")"
}

# Starts a Redis on port $2 that keeps nothing, with its files in $1. Sets `redis_pid`. Further
# arguments are lines of its configuration.
start_redis() {
  local folder=$1 port=$2 redis
  shift 2
  redis=$(command -v redis-server || echo /usr/sbin/redis-server)
  # Passwords among the lines: readable for the server's account alone.
  printf '%s\n' "bind 127.0.0.1" "port $port" 'save ""' 'appendonly no' "$@" >"$folder/redis.conf"
  ((EUID != 0)) || chown "$(server_account)" "$folder/redis.conf"
  (cd / && as_server setsid "$redis" "$folder/redis.conf") \
    >"$folder/redis.log" 2>&1 </dev/null &
  redis_pid=$!
  wait_for 10 port_answers "$port" ||
    die "Redis did not start" "$(tail -n 5 "$folder/redis.log")"
}

# Ends a process: this signal, then after 10 seconds KILL.
stop_process() {
  local pid=${1:-} signal=$2
  if [[ -z $pid ]] || ! kill -s "$signal" "$pid" 2>/dev/null; then return 0; fi
  wait_for 10 process_gone "$pid" || kill -s KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

# A process that has ended but was not waited for yet counts as gone.
process_gone() { ! kill -0 "$1" 2>/dev/null || [[ $(ps -o stat= -p "$1") == Z* ]]; }
