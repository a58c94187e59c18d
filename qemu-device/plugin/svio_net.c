/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A QEMU netdev as the board's port. Everything here runs with the BQL held. */
#include "svio_nic.h"

#include "net/queue.h"

#define SVIO_VNET_HEADER 12 /* struct virtio_net_hdr_mrg_rxbuf */

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

/* A tap, mostly: it takes checksums and segments from us, and leaves them to us. */
static void svio_net_carry_offloads(SvioNic *nic) {
    NetClientState *peer = qemu_get_queue(nic->nic)->peer;
    bool uso;

    if (!peer || !qemu_has_vnet_hdr(peer) || !qemu_has_vnet_hdr_len(peer, SVIO_VNET_HEADER)) {
        return;
    }
    uso = qemu_has_uso(peer);
    qemu_set_vnet_hdr_len(peer, SVIO_VNET_HEADER);
    qemu_get_queue(nic->nic)->do_not_pad = true; /* it would take the header for a part of the frame */
    qemu_set_offload(peer, 1, 1, 1, 1, 0, uso, uso);
    svio_board_pause(nic->board);
    svio_board_port_carries_offloads(nic->board);
    svio_board_resume(nic->board);
}

void svio_net_start(SvioNic *nic) {
    DeviceState *dev = DEVICE(nic);

    nic->nic = qemu_new_nic(&svio_net_info, &nic->conf, object_get_typename(OBJECT(nic)), dev->id,
                            &dev->mem_reentrancy_guard, nic);
    qemu_format_nic_info_str(qemu_get_queue(nic->nic), nic->conf.macaddr.a);
    svio_net_carry_offloads(nic);
}

void svio_net_stop(SvioNic *nic) {
    if (nic->nic) {
        qemu_del_nic(nic->nic);
        nic->nic = NULL;
    }
}
