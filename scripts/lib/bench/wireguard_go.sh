#!/usr/bin/env bash
# Fetches the newest wireguard-go that Debian has, from unstable, with a state of apt's own: FOLDER/wireguard-go is the program, and
# nothing of the system changes. Prints the program to use: Debian's installed one where the newest does not come or run.
# wireguard_go.sh FOLDER
set -euo pipefail
export LC_ALL=C
FOLDER=$(realpath -m "$1")
PROGRAM=$FOLDER/wireguard-go
# How long a program is new, in days.
KEPT_DAYS=7

runs() { [ -x "$1" ] && "$1" --version >/dev/null 2>&1; }

# The archive that this machine uses already.
archive() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' | grep -m 1 -E '/debian/?$'
}

fetch() {
  local state=$FOLDER/apt options
  mkdir -p "$state"/{lists/partial,archives/partial,parts} "$FOLDER/package"
  : >"$state/status"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(archive) sid main" >"$state/sources.list"
  options=(-o "Dir::State=$state" -o "Dir::State::lists=$state/lists" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state" -o "Dir::Etc::sourcelist=$state/sources.list" -o "Dir::Etc::sourceparts=$state/parts"
    -o "APT::Sandbox::User=root")
  apt-get "${options[@]}" update &&
    (cd "$FOLDER" && rm -f wireguard-go_*.deb && apt-get "${options[@]}" download wireguard-go) &&
    dpkg-deb -x "$FOLDER"/wireguard-go_*.deb "$FOLDER/package" &&
    runs "$FOLDER/package/usr/bin/wireguard-go" &&
    mv "$FOLDER/package/usr/bin/wireguard-go" "$PROGRAM" &&
    touch "$PROGRAM"
}

if ! runs "$PROGRAM" || [ -n "$(find "$PROGRAM" -mtime +$KEPT_DAYS)" ]; then
  mkdir -p "$FOLDER"
  fetch >"$FOLDER/log" 2>&1 || echo "the newest wireguard-go did not come ($FOLDER/log)" >&2
  rm -rf "$FOLDER/apt" "$FOLDER/package"
fi
if runs "$PROGRAM"; then echo "$PROGRAM"; else command -v wireguard-go; fi
