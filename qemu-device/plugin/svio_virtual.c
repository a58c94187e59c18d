/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * executor=virtual: a timer of QEMU's virtual clock steps the on-board cores, under the BQL, in place of
 * threads. With -icount that clock counts the guest's instructions, and a run is the same each time.
 */
#include "svio_nic.h"

#include "qapi/error.h"
#include "qemu/timer.h"
#include "system/cpu-timers.h"

#define COST_MAX_NS 1000000000

bool svio_virtual(const SvioNic *nic) {
    return g_strcmp0(nic->executor, "virtual") == 0;
}

static bool svio_virtual_port(const char *port) {
    return !port || g_str_equal(port, "echo") || g_str_has_prefix(port, "echo:");
}

bool svio_virtual_check(SvioNic *nic, Error **errp) {
    if (nic->executor && !svio_virtual(nic) && strcmp(nic->executor, "threads")) {
        error_setg(errp, "svio-nic: executor=%s is neither threads nor virtual", nic->executor);
    } else if (nic->poll_cost_ns < 1 || nic->poll_cost_ns > COST_MAX_NS) {
        error_setg(errp, "svio-nic: poll-cost-ns=%u is not between 1 and %d (one second)", nic->poll_cost_ns,
                   COST_MAX_NS);
    } else if (nic->message_cost_ns > COST_MAX_NS) {
        error_setg(errp, "svio-nic: message-cost-ns=%u is more than %d (one second)", nic->message_cost_ns,
                   COST_MAX_NS);
    } else if (!svio_virtual(nic)) {
        return true;
    } else if (icount_enabled() != ICOUNT_PRECISE) {
        error_setg(errp, "svio-nic: executor=virtual needs QEMU's option -icount with a number, such as "
                         "-icount shift=0,sleep=off");
    } else if (!svio_virtual_port(nic->port)) {
        error_setg(errp,
                   "svio-nic: executor=virtual and port=%s exclude each other, a peer outside of the process "
                   "has a time of its own; port=echo and netdev= are possible",
                   nic->port);
    } else if (nic->mgmt) {
        error_setg(errp,
                   "svio-nic: executor=virtual and mgmt= exclude each other, whoever connects to it has "
                   "a time of its own; the PF's driver manages VFs by the admin queue");
    } else {
        return true;
    }
    return false;
}

static void svio_virtual_fire(void *opaque) {
    SvioNic *nic = opaque;

    svio_board_alarm(nic->board);
}

static uint64_t svio_virtual_now(void *opaque) {
    return qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
}

static void svio_virtual_alarm(void *opaque, uint64_t at) {
    SvioNic *nic = opaque;

    if (at > INT64_MAX) {
        timer_del(nic->alarm);
    } else {
        timer_mod_ns(nic->alarm, at);
    }
}

void svio_virtual_fill(SvioNic *nic, SvioHost *host, SvioBoardConfig *config) {
    if (!svio_virtual(nic)) {
        return;
    }
    nic->alarm = timer_new_ns(QEMU_CLOCK_VIRTUAL, svio_virtual_fire, nic);
    host->now = svio_virtual_now;
    host->alarm = svio_virtual_alarm;
    config->virtual_time = true;
    config->poll_cost_ns = nic->poll_cost_ns;
    config->message_cost_ns = nic->message_cost_ns;
}

void svio_virtual_exit(SvioNic *nic) {
    if (nic->alarm) {
        timer_free(nic->alarm);
        nic->alarm = NULL;
    }
}
