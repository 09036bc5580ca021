# shellcheck shell=bash
# Two sites, each a LAN behind a member, that become one Ethernet. The hosts there know nothing of P2Plus: behind ada is everything that
# has an address, behind ben is a host that has none and asks for one. Needs place.sh.

SITES=(lan-ada lan-ben)
SITE_PREFIX=fd99:1:2:3

step_sites() {
  local node site
  cli founder segment add lab --tag lan >/dev/null
  for node in ada ben; do
    site=lan-$node
    cli founder tag "$node" +lan >/dev/null
    add_namespace "$site"
    make_place "$site"
    site_settings "$site"
    ip link add lan0 netns "$(ns "$node")" type veth peer name eth0 netns "$(ns "$site")"
    ip -n "$(ns "$node")" link set lan0 up
    ip -n "$(ns "$site")" link set eth0 up
    # The node itself has no key that could approve it.
    cli "$node" bridge add lan0 lab >/dev/null || true
    cli founder bridge approve lab "$node" >/dev/null
  done
  ip -n "$(ns lan-ada)" addr add 192.168.77.1/24 dev eth0
  ip -n "$(ns lan-ada)" addr add $SITE_PREFIX::1/64 dev eth0
  wait_until 20 "a host at ben's site reaches one at ada's by its link-local address" sites_meet
  in_ns lan-ben ping -q -c 3 -i 0.2 -W 2 -M "do" -s 1452 "$(link_local lan-ada)%eth0" >"$WORK/ping"
  note "one Ethernet: $(link_local lan-ben) at ben's site has $(link_local lan-ada) at ada's, and no other address yet; packets of 1500 bytes pass"
}

# site_settings SITE: what `ip netns exec` shows there as files of /etc: names are asked of avahi, and nobody else.
site_settings() {
  mkdir -p "/etc/netns/$(ns "$1")"
  printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files mdns4_minimal\n' >"/etc/netns/$(ns "$1")/nsswitch.conf"
  : >"/etc/netns/$(ns "$1")/resolv.conf"
}

forget_site_settings() {
  local site
  for site in "${SITES[@]}"; do rm -rf "/etc/netns/$(ns "$site")"; done
}

link_local() { ip -n "$(ns "$1")" -6 -o addr show dev eth0 scope link | awk '{ sub("/.*", "", $4); print $4 }'; }
sites_meet() { in_ns lan-ben ping -c 1 -W 1 "$(link_local lan-ada)%eth0" >/dev/null; }

step_dhcp() {
  local rogue router
  serve_at lan-ada dnsmasq-site dnsmasq --keep-in-foreground --port=0 --conf-file=/dev/null --bind-interfaces --interface=eth0 --pid-file= \
    --dhcp-leasefile="$WORK/leases" --user=root --log-facility=- --log-dhcp --no-ping --dhcp-range=192.168.77.100,192.168.77.150,1h \
    --enable-ra --dhcp-range=::,constructor:eth0,ra-only,64,1h --ra-param=eth0,4,600
  wait_until 10 "dnsmasq serves" grep -qs 'IPv6 router advertisement enabled' "$WORK/dnsmasq-site.log"
  lease_script
  if ask_for_address 3 >"$WORK/udhcpc" 2>&1; then note "ada is no gateway, and the lease came all the same"; return 1; fi
  wait_until 10 "ada's daemon drops the server's offers" has_dropped ada rogue_dhcp
  wait_until 20 "ada's daemon drops the router's words" has_dropped ada rogue_router
  rogue=$(dropped ada rogue_dhcp) router=$(dropped ada rogue_router)
  same "the address of a host that no router may speak to" "$(given_address 6)" ""
  note "ada is no gateway of the segment: no lease, no prefix; dropped $rogue rogue_dhcp, $router rogue_router"

  cli founder segment add lab --gateway ada >/dev/null
  wait_until 20 "a lease" ask_for_address 3 >"$WORK/udhcpc" 2>&1
  # A host whose link comes up asks for routers.
  ip -n "$(ns lan-ben)" link set eth0 down
  ip -n "$(ns lan-ben)" link set eth0 up
  wait_until 30 "a prefix for lan-ben" has_prefix
  in_ns lan-ben ping -q -c 2 -i 0.2 -W 2 $SITE_PREFIX::1 >"$WORK/ping"
  BEN_SITE4=$(given_address 4)
  # The link was down, and with it went what the lease brought along with the address.
  in_ns lan-ben ping -q -c 2 -i 0.2 -W 2 192.168.77.1 >"$WORK/ping"
  note "ada is a gateway: udhcpc has $BEN_SITE4 of dnsmasq ($(awk '{ print $2 }' "$WORK/leases") in its leases), SLAAC gave $(given_address 6)"
  with dnsmasq-base busybox
}

has_dropped() { [ "$(dropped "$1" "$2")" -gt 0 ]; }
has_prefix() { [ -n "$(given_address 6)" ]; }

# given_address 4|6 → what the host at ben's site was given
given_address() {
  ip -n "$(ns lan-ben)" "-$1" -o addr show dev eth0 scope global | awk '{ sub("/.*", "", $4); print $4 }' | grep -E '^(192\.168\.77|fd99:)' || true
}

# What udhcpc calls with what it heard.
lease_script() {
  cat >"$WORK/lease" <<'SCRIPT'
#!/bin/sh
if [ "$1" = bound ]; then ip addr replace "$ip/$mask" dev "$interface"; fi
SCRIPT
  chmod 755 "$WORK/lease"
}

# ask_for_address TRIES: a second each.
ask_for_address() { at lan-ben busybox udhcpc -i eth0 -f -n -q -t "$1" -T 1 -s "$WORK/lease" -x hostname:lan-ben; }
