#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Called by udhcpc with what the DHCP server said.
case "$1" in
deconfig)
    ip -4 address flush dev "$interface"
    ;;
bound | renew)
    ip -4 address replace "$ip/${mask:-24}" dev "$interface"
    [ -n "$router" ] && ip route replace default via "${router%% *}" dev "$interface"
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    ;;
esac
