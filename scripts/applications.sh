#!/usr/bin/env bash
# Shows that ordinary programs move over the network unchanged: what announces itself on a link, prints and shares files between two bridged
# sites; shells, databases and other tunnels between members; a browser that goes out by an exit.
#
#   scripts/applications.sh [all|sites|members|exit]
#
# As root it does everything; as a user it builds as the user and calls sudo. P2PLUS_BIN names a program built before,
# APPLICATIONS_KEEP a folder for the picture that the browser takes.
# It installs the Debian packages that it needs, starts no system service, and removes what it made, also on Ctrl-C.
set -Eeuo pipefail
LIBRARY=$(cd "$(dirname "$0")" && pwd)/lib
for part in common net nodes run servers by_name apps/place apps/sites apps/discovery apps/files apps/shell apps/database apps/websocket \
  apps/nested apps/exit; do
  # shellcheck source=/dev/null
  source "$LIBRARY/$part.sh"
done

# shellcheck disable=SC2034  # run.sh reads them
PACKAGES=(applications) KEPT=(P2PLUS_BIN APPLICATIONS_KEEP) ENDS=(forget_resolv_conf forget_site_settings)
PART=${1:-all}
case $PART in all | sites | members | exit) ;; *) sed -n '5s/^# *//p' "$0" >&2; exit 2 ;; esac

# wanted PART: is it asked for?
wanted() { [ "$PART" = all ] || [ "$PART" = "$1" ]; }

step_network() {
  local node
  # shellcheck disable=SC2034  # nodes.sh writes it
  NODE_CONFIG=$'[dns]\nbackend = "file"\n[routes]\nmasquerade = true'
  lan_resolver
  start_founder
  for node in ada ben; do
    join_by_ticket $node
    make_place $node
  done
  meet ada ben
  # shellcheck disable=SC2034  # the steps use them
  ADA4=$(overlay ada 4) ADA6=$(overlay ada 6) BEN4=$(overlay ben 4) BEN6=$(overlay ben 6)
  wait_until 10 "ben finds ada by name" in_ns ben getent hosts ada.demo.internal >/dev/null
  note "$("$P2PLUS_BIN" version | head -n 1); ada $ADA4 and $ADA6, ben $BEN4 and $BEN6, MTU $(mtu_of ben "$DEVICE")"
}

# Steps of a part follow from one another; parts do not, but for the exit, which ends with ada's daemon.
show_sites() {
  step step_sites "sites: a LAN behind ada and a LAN behind ben become one Ethernet"
  step step_dhcp "DHCP and router advertisements: from ada's site to ben's, once ada is a gateway"
  step step_mdns "mDNS: avahi at both sites"
  step step_printer "printing: an IPP printer at ada's site, found and used from ben's"
  step step_smb "SMB: a file server at ada's site, found and used from ben's"
}

show_members() {
  step step_ssh "ssh: ben runs a command at ada"
  step step_rsync "rsync over ssh: a tree of files from ben to ada"
  step step_database "PostgreSQL: ben fills and reads a table at ada"
  step step_websocket "WebSocket: ada sends back what ben says"
  step step_vxlan "VXLAN between ada and ben, within the overlay"
  step step_wireguard "WireGuard between ada and ben, within the overlay"
}

show_exit() {
  step step_internet "a web server on the internet, that ben reaches on its own"
  step step_exit "exit: ada becomes one, ben uses it"
  step step_browser "a browser at ben, by the exit"
  step step_exit_gone "the exit stops"
}

begin APPLICATIONS apps "$@"
doing "three namespaces joined by a router"
net_up
step step_network "a founder, ada and ben, with names"
if wanted sites; then show_sites; fi
if wanted members; then show_members; fi
if wanted exit; then show_exit; fi
