#!/usr/bin/env bash
# The smallest IRC client: irc.sh hear ADDRESS NICK prints the first line said in #demo, irc.sh say ADDRESS NICK TEXT says one.
set -euo pipefail

send() { printf '%s\r\n' "$1" >&3; }

# await TEXT: reads up to the line that contains TEXT, leaves it in LINE, and answers pings on the way.
await() {
  while IFS= read -r LINE <&3; do
    LINE=${LINE%$'\r'}
    case $LINE in
      PING*) send "PONG${LINE#PING}" ;;
      *"$1"*) return 0 ;;
    esac
  done
  echo "the server closed the connection while waiting for $1" >&2
  return 1
}

exec 3<>"/dev/tcp/$2/6667"
send "NICK $3"
send "USER $3 0 * :$3"
await " 001 "
send "JOIN #demo"
await " 366 "
case $1 in
  hear)
    echo "joined"
    await " PRIVMSG #demo :"
    echo "${LINE#* PRIVMSG \#demo :}"
    ;;
  say)
    send "PRIVMSG #demo :$4"
    send "QUIT"
    await "ERROR"
    ;;
esac
