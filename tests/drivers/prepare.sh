#!/usr/bin/env bash
# Installs the drivers under test, at their pinned versions, into target/drivers; prints the folder.
# Cheap when nothing changed. Called by the integration tests; safe to call side by side.
set -euo pipefail

root_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root_dir/tests/drivers
# shellcheck source=deploy/lib.sh
. "$root_dir/deploy/lib.sh"

main() {
  local folder wanted
  folder=$(target_dir drivers)
  mkdir -p "$folder"
  exec 9>"$folder/lock"
  flock 9
  wanted=$(cat "$here/requirements.txt" "$here/package-lock.json" | sha256sum)
  if [[ $(cat "$folder/installed" 2>/dev/null) != "$wanted" ]]; then
    require python3-venv nodejs >&2
    install_drivers "$folder" >&2
    printf '%s\n' "$wanted" >"$folder/installed"
  fi
  printf '%s\n' "$folder"
}

install_drivers() {
  local folder=$1
  rm -rf "$folder/venv" "$folder/node_modules"
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
    --requirement "$here/requirements.txt"
  cp "$here/package.json" "$here/package-lock.json" "$folder"
  (cd "$folder" && npm ci --no-audit --no-fund --ignore-scripts --silent)
}

main "$@"
