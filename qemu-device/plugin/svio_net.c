/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A QEMU netdev as the board's port. Everything here runs with the BQL held. */
#include "svio_nic.h"

#include "net/queue.h"

static void svio_net_sent(NetClientState *nc, ssize_t result) {
    SvioNic *nic = qemu_get_nic_opaque(nc);

    svio_board_port_done(nic->board, result < 0 ? -1 : result > 0);
}

static int svio_net_send(void *opaque, const uint8_t *frame, size_t length) {
    SvioNic *nic = opaque;
    ssize_t sent = qemu_send_packet_async(qemu_get_queue(nic->nic), frame, length, svio_net_sent);

    return sent > 0 ? 1 : sent;
}

static void svio_net_flush_receive(void *opaque) {
    SvioNic *nic = opaque;

    /* While the machine is stopped nothing may change; the frames are offered again when it goes on. */
    if (!nic->stopped) {
        qemu_flush_queued_packets(qemu_get_queue(nic->nic));
    }
}

static void svio_net_purge(void *opaque) {
    SvioNic *nic = opaque;

    qemu_purge_queued_packets(qemu_get_queue(nic->nic));
}

static ssize_t svio_net_receive(NetClientState *nc, const uint8_t *frame, size_t length) {
    SvioNic *nic = qemu_get_nic_opaque(nc);

    return svio_board_receive(nic->board, frame, length) ? length : 0;
}

static void svio_net_link_changed(NetClientState *nc) {
    SvioNic *nic = qemu_get_nic_opaque(nc);

    svio_board_set_link(nic->board, !nc->link_down);
}

/* The link goes with the machine, as that of QEMU's own cards does. */
void svio_net_link_loaded(SvioNic *nic) {
    if (nic->nic) {
        qemu_get_queue(nic->nic)->link_down = !svio_board_link_up(nic->board, 0);
    }
}

static NetClientInfo svio_net_info = {
    .type = NET_CLIENT_DRIVER_NIC,
    .size = sizeof(NICState),
    .receive = svio_net_receive,
    .link_status_changed = svio_net_link_changed,
};

void svio_net_fill_host(SvioHost *host) {
    host->port_send = svio_net_send;
    host->port_flush_receive = svio_net_flush_receive;
    host->port_purge = svio_net_purge;
}

void svio_net_start(SvioNic *nic) {
    DeviceState *dev = DEVICE(nic);

    nic->nic = qemu_new_nic(&svio_net_info, &nic->conf, object_get_typename(OBJECT(nic)), dev->id,
                            &dev->mem_reentrancy_guard, nic);
    qemu_format_nic_info_str(qemu_get_queue(nic->nic), nic->conf.macaddr.a);
}

void svio_net_stop(SvioNic *nic) {
    if (nic->nic) {
        qemu_del_nic(nic->nic);
        nic->nic = NULL;
    }
}
