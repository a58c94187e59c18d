/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Doorbells by ioeventfd, under KVM: the kernel notes the guest's write in an eventfd, and the vCPU goes on
 * without leaving for QEMU or waiting for its big lock. The main loop rings for it, with the BQL as the write
 * itself would have done. What the guest did before is done before all that it does next with the card: every
 * other access, reset and stop takes what waits in the eventfds first.
 *
 * With TCG the vCPU is in QEMU anyway, and the main loop would be one more thread to wake: not used there.
 */
#include "svio_nic.h"

#include "exec/memory.h"
#include "system/kvm.h"

/* KVM has a thousand places for eventfds in a machine, and QEMU ends when there is none left. */
#define SVIO_BELL_SLOTS 8
/* Rings that waited together are counted up to here. */
#define SVIO_BELL_COUNTED 64

static void svio_bell_ring(SvioFunction *function, SvioBell *bell) {
    uint64_t count = 0;

    if (read(event_notifier_get_fd(&bell->event), &count, sizeof(count)) != sizeof(count)) {
        return; /* none */
    }
    for (count = MIN(count, SVIO_BELL_COUNTED); count > 0; count--) {
        svio_board_write(function->nic->board, function->slot, bell->offset, 0);
    }
}

static void svio_bell_rung(EventNotifier *event) {
    SvioBell *bell = container_of(event, SvioBell, event);

    svio_bell_ring(bell->function, bell);
}

void svio_bell_settle(SvioFunction *function) {
    for (unsigned n = 0; n < function->bells_made; n++) {
        svio_bell_ring(function, &function->bells[n]);
    }
}

void svio_bell_settle_all(SvioNic *nic) {
    SvioFunction *function;

    QLIST_FOREACH(function, &nic->with_bells, next_with_bells) {
        svio_bell_settle(function);
    }
}

void svio_bell_start(SvioFunction *function) {
    SvioNic *nic = function->nic;

    if (!nic->ioeventfd || !kvm_enabled() || function->slot >= SVIO_BELL_SLOTS) {
        return;
    }
    memory_region_transaction_begin();
    for (unsigned n = 0; n < 2 * nic->queue_pairs; n++) {
        SvioBell *bell = &function->bells[n];

        bell->function = function;
        bell->offset = SVIO_BELL(n / 2, n % 2);
        if (event_notifier_init(&bell->event, 0) < 0) {
            break; /* the others go by QEMU's ordinary path */
        }
        event_notifier_set_handler(&bell->event, svio_bell_rung);
        memory_region_add_eventfd(&function->registers, bell->offset, 4, false, 0, &bell->event);
        function->bells_made = n + 1;
    }
    memory_region_transaction_commit();
    if (function->bells_made > 0) {
        QLIST_INSERT_HEAD(&nic->with_bells, function, next_with_bells);
    }
}

void svio_bell_stop(SvioFunction *function) {
    if (function->bells_made == 0) {
        return;
    }
    memory_region_transaction_begin();
    for (unsigned n = 0; n < function->bells_made; n++) {
        SvioBell *bell = &function->bells[n];

        memory_region_del_eventfd(&function->registers, bell->offset, 4, false, 0, &bell->event);
    }
    memory_region_transaction_commit();
    /* Only now: with the transaction the kernel lets them go. */
    for (unsigned n = 0; n < function->bells_made; n++) {
        event_notifier_set_handler(&function->bells[n].event, NULL);
        event_notifier_cleanup(&function->bells[n].event);
    }
    function->bells_made = 0;
    QLIST_REMOVE(function, next_with_bells);
}
