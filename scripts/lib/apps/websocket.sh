# shellcheck shell=bash
# A WebSocket between members: Debian's python3-websockets on both sides. Needs place.sh.

WEBSOCKET_PORT=8765

step_websocket() {
  local host said
  serve_at ada websocket /usr/bin/python3 "$LIBRARY/apps/websocket.py" serve "$ADA4" "$ADA6" $WEBSOCKET_PORT
  wait_for_port ada $WEBSOCKET_PORT "$ADA4" "$ADA6"
  for host in "$ADA4" "[$ADA6]"; do
    said=$(in_ns ben timeout 60 /usr/bin/python3 "$LIBRARY/apps/websocket.py" ask "ws://$host:$WEBSOCKET_PORT/")
    note "$said"
  done
  with python3-websockets
}
