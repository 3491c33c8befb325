# Sourced by run.sh: fetches the suites and builds them, once, under $cache.
# shellcheck shell=bash disable=SC2154 # cache, bin, root_dir come from run.sh

# The release of asyncpg whose suite is run.
readonly asyncpg_version=0.32.0

build_suites() {
  local postgres_version package
  package=postgresql-$("$bin/pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
  postgres_version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null) ||
    die "PostgreSQL in $bin is not Debian's package $package" \
      'its suite comes from the source package of the same version'
  source_dir=$cache/postgresql-$postgres_version
  asyncpg_dir=$cache/asyncpg-$asyncpg_version
  if [[ ! -f $source_dir/.built ]]; then build_postgres "$package" "$postgres_version"; fi
  if [[ ! -f $asyncpg_dir/.built ]]; then build_asyncpg; fi
  printf '%s\t%s\n' regress "PostgreSQL ${postgres_version%%-*}" \
    libpq_pipeline "PostgreSQL ${postgres_version%%-*}" \
    asyncpg "asyncpg $asyncpg_version" >"$cache/versions.tsv"
}

build_postgres() {
  local package=$1 version=$2
  rm -rf "$source_dir" "$cache/fetch"
  mkdir -p "$cache/fetch"
  say "Fetching the sources of $package $version"
  (cd "$cache/fetch" && fetch_source "$package" "$version") ||
    die "no source package $package $version" "see $cache/fetch/apt.log"
  mv "$cache/fetch/$package-${version%%-*}" "$source_dir"
  say 'Building pg_regress and libpq_pipeline'
  (cd "$source_dir" && compile_tests) >"$cache/build.log" 2>&1 ||
    die 'the suite did not build' "see $cache/build.log"
  rm -rf "$cache/fetch"
  touch "$source_dir/.built"
}

# Source packages by a configuration of our own: where the system gets its packages, for sources.
fetch_source() {
  local package=$1 version=$2 list
  mkdir -p lists/partial archives/partial sources
  for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    case $list in
      *.sources) sed 's/^Types:.*/Types: deb-src/' "$list" >"sources/${list##*/}" ;;
      *.list) [[ ! -f $list ]] || sed -n 's/^deb /deb-src /p' "$list" >"sources/${list##*/}" ;;
    esac
  done
  cat >apt.conf <<CONF
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$PWD/sources";
Dir::State::Lists "$PWD/lists";
Dir::Cache "$PWD/archives";
APT::Sandbox::User "";
CONF
  export APT_CONFIG=$PWD/apt.conf
  # A place of others that has no sources is no reason to give up.
  apt-get update >apt.log 2>&1 || true
  apt-get source -q "$package=$version" >>apt.log 2>&1
}

# Only what the suites need; the server and psql are the installed ones.
compile_tests() {
  ./configure --without-readline --without-zlib --prefix="$(dirname "$bin")" &&
    make -s -j"$(nproc)" -C src/test/regress all &&
    make -s -C contrib/spi all &&
    cc -O1 -w -o libpq_pipeline src/test/modules/libpq_pipeline/libpq_pipeline.c \
      -Isrc/include -Isrc/interfaces/libpq -Lsrc/common -Lsrc/port \
      "$(installed_libpq)" -lpgcommon -lpgport
}

# psql's own libpq: with TLS, which the one just built has not.
installed_libpq() { ldd "$bin/psql" | awk '$1 ~ /^libpq\.so/ { print $3 }'; }

# Debian's own Python before any other: the server's account can run it.
system_python() { if [[ -x /usr/bin/python3 ]]; then echo /usr/bin/python3; else command -v python3; fi; }

build_asyncpg() {
  say "Building asyncpg $asyncpg_version"
  rm -rf "$asyncpg_dir" "$cache/venv"
  (
    cd "$cache" && "$(system_python)" -m venv venv &&
      venv/bin/pip install -q pip setuptools wheel 'Cython>=3.2.1,<4' &&
      venv/bin/pip download -q --no-deps --no-binary asyncpg \
        "asyncpg==$asyncpg_version" &&
      tar -xzf "asyncpg-$asyncpg_version.tar.gz" &&
      venv/bin/pip install -q "./asyncpg-$asyncpg_version" pytest==8.4.2 distro==1.9.0
  ) >"$cache/asyncpg.log" 2>&1 || die 'asyncpg did not build' "see $cache/asyncpg.log"
  touch "$asyncpg_dir/.built"
}
