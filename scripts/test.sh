#!/usr/bin/env bash
# Runs all tests: unit, binary, documentation, and every suite under tests/.
#
#   scripts/test.sh          everything but the slow matrices
#   scripts/test.sh --all    those too, the demo, and real programs that find each other by name and stay connected while a member roams
#
# As root it does everything; as a user it builds as the user and runs the test programs by sudo, because devices and network
# namespaces take root. It installs the Debian packages that it needs and removes what it made, also on Ctrl-C. With
# P2PLUS_REQUIRE_ROOT=1, which it sets, a test that would skip itself fails.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
# shellcheck source=scripts/lib/common.sh
source "$LIBRARY/common.sh"

ALL=false
case ${1:-} in
  '') ;;
  --all) ALL=true ;;
  *) sed -n '4,5s/^# *//p' "$0" >&2; exit 2 ;;
esac

WORK=$(mktemp -d /tmp/p2plus-test.XXXXXX)
# Where the tests make their folders: some play other users there.
SCRATCH=$WORK/scratch
mkdir "$SCRATCH"
chmod 755 "$WORK"
chmod 1777 "$SCRATCH"
PASSED=0
FAILED=()

# Whatever ends the script comes here: clean first, so that the verdict is the last line.
finish() {
  local status=$?
  begin_end
  end_tests
  remove_abandoned_namespaces
  remove_work
  if [ $status = 0 ] && [ ${#FAILED[@]} = 0 ]; then
    echo "TESTS PASSED: $PASSED tests in $(elapsed) s"
  else
    echo "TESTS FAILED: ${FAILED[*]:-stopped early}"
    exit 1
  fi
}

# Whatever was started for the tests has our TMPDIR: test programs, daemons, commands.
end_tests() {
  local pids
  unset TMPDIR
  while pids=$(as_root grep -lzxF "TMPDIR=$SCRATCH" /proc/[0-9]*/environ 2>/dev/null | cut -d / -f 3); [ -n "$pids" ]; do
    # shellcheck disable=SC2086  # one word each
    as_root kill -KILL $pids 2>/dev/null
    sleep 0.1
  done
}

# lives PID START: from the moment on at which a killed process does nothing more, it has no command line.
lives() {
  [ "$(sed 's/.*) //' "/proc/$1/stat" | cut -d ' ' -f 20)" = "$2" ] && [ -n "$(tr -d '\0' <"/proc/$1/cmdline")" ]
} 2>/dev/null

# The tests name their namespaces p2pt-PID-START-…, after a process and the tick at which it started (proc(5), field 22 of
# stat); one whose process is gone was left by a killed test.
remove_abandoned_namespaces() {
  local name pid start
  for name in $(ip netns list | awk '/^p2pt-[0-9]+-[0-9]+-/ { print $1 }'); do
    IFS=- read -r _ pid start _ <<<"$name"
    if lives "$pid" "$start"; then continue; fi
    for pid in $(as_root ip netns pids "$name"); do as_root kill -KILL "$pid"; done
    as_root ip netns del "$name"
  done
}

# Killed tests leave folders of root's, with file systems mounted in them.
remove_work() {
  local mounts mounted
  # At once, because the file changes with every one that goes.
  mounts=$(</proc/mounts)
  while read -r _ mounted _; do
    case $mounted in "$WORK"/*) as_root umount --lazy "$mounted" </dev/null ;; esac
  done <<<"$mounts"
  rm -rf "$WORK" 2>/dev/null || as_root rm -rf "$WORK"
}

# Cargo starts test programs through its runner; a user's runner is sudo, which keeps our variables but TMPDIR.
run_tests_as_root() {
  local host
  export P2PLUS_REQUIRE_ROOT=1 TMPDIR=$SCRATCH
  if [ "$EUID" = 0 ]; then return; fi
  host=$(cargo -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
  export "CARGO_TARGET_${host}_RUNNER=sudo -E env TMPDIR=$SCRATCH"
}

# suites → one line each: name, and what selects it in cargo. What is promised under a flood is promised of a machine that does nothing
# else: those tests run one by one. The others mostly wait: four at a time take half as long as two.
suites() {
  cargo metadata --no-deps --format-version 1 | jq -r '.packages[0].targets[]
    | if .kind == ["lib"] then "unit --lib --", "doc --doc --"
      elif .kind == ["bin"] then "binary --bin \(.name) --"
      elif .name == "netns" then "netns --test netns -- --test-threads=4 --skip flood::", "floods --test netns -- --test-threads=1 flood::"
      elif .kind == ["test"] then "\(.name) --test \(.name) --"
      else empty end'
}

# run_suite NAME SELECTION…
run_suite() {
  local log=$WORK/$1.log started arguments=() status=0 counts
  started=$(now_ms)
  if $ALL; then arguments=(--include-ignored); fi
  # shellcheck disable=SC2094  # cargo writes the log, awk reads it afterwards
  cargo test "${@:2}" "${arguments[@]}" >"$log" 2>&1 </dev/null || status=$?
  counts=$(awk '/^test result:/ { passed += $4; failed += $6; slow += $8 } END { print passed + 0, failed + 0, slow + 0 }' "$log")
  read -r passed failed slow <<<"$counts"
  printf '%-14s %5d passed %4d failed %4d left for --all %8s s\n' "$1" "$passed" "$failed" "$slow" \
    "$(seconds $(($(now_ms) - started)))"
  PASSED=$((PASSED + passed))
  if [ $status != 0 ] || [ "$failed" != 0 ]; then
    FAILED+=("$1")
    cat "$log"
  fi
}

run_demo() {
  if ! "$LIBRARY/../demo.sh"; then FAILED+=("demo"); fi
  if ! "$LIBRARY/../names.sh"; then FAILED+=("names"); fi
  if ! "$LIBRARY/../roaming.sh"; then FAILED+=("roaming"); fi
}

trap finish EXIT
trap 'FAILED+=("interrupted"); exit 130' INT TERM HUP
need_root_or_sudo
if $ALL; then packages=(build test demo names roaming); else packages=(build test); fi
as_root "$LIBRARY/packages.sh" "${packages[@]}"
need_kernel
run_tests_as_root
echo "building"
cargo test --no-run --quiet || { FAILED+=("build"); exit 1; }
suites >"$WORK/suites"
while read -r suite selection <&3; do
  # shellcheck disable=SC2086  # an option and its value
  run_suite "$suite" $selection
done 3<"$WORK/suites"
if $ALL; then run_demo; fi
