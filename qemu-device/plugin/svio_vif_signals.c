/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signals and doorbells of svio-vif: eventfds, which the kernel takes and rings under KVM. Under TCG QEMU's
 * main loop takes the signals, or a vCPU that waits for one and finds it in a page of the board
 * (svio_halt.c).
 */
#include "svio_vif.h"

#include "hw/pci/msix.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "system/kvm.h"

static void svio_vif_raise(SvioVif *vif, unsigned vector) {
    if (vector < SVIO_VECTORS && msix_enabled(PCI_DEVICE(vif))) {
        msix_notify(PCI_DEVICE(vif), vector);
    }
}

/* Whatever another process has written there. */
static void svio_vif_take_raised(void *opaque) {
    SvioVif *vif = opaque;
    uint32_t raised = qatomic_xchg(&vif->halt->raised->vectors, 0);

    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        if (raised & 1u << n) {
            svio_vif_raise(vif, n);
        }
    }
}

static void svio_vif_signalled(EventNotifier *event) {
    SvioVector *vector = container_of(event, SvioVector, event);
    SvioVif *vif = vector->opaque;

    if (!event_notifier_test_and_clear(event)) {
        return;
    }
    /* What it is for was noted in the page before, and a vCPU may have taken it from there already. */
    if (vif->halt) {
        svio_vif_take_raised(vif);
    } else {
        svio_vif_raise(vif, vector - vif->irqfd.vectors);
    }
}

void svio_vif_raise_event(SvioVif *vif) {
    svio_vif_raise(vif, vif->known.event_vector);
}

/* ---- with the board ---- */

static int svio_vif_take_pages(SvioVif *vif) {
    int fds[2];
    int status = svio_vif_ask(vif, SVIO_ATTACH_PAGES, NULL, 0, NULL, 0, NULL, 0, fds);

    if (status == SVIO_ST_OK) {
        vif->halt = svio_halt_watch(fds, svio_vif_take_raised, vif);
        if (!vif->halt) {
            warn_report_once(
                "svio-vif: the pages of the board at %s are not what they should be: waiting vCPUs "
                "do not look for its signals",
                vif->board);
        }
    }
    return status;
}

int svio_vif_give_events(SvioVif *vif, bool pages) {
    int signals[SVIO_VECTORS], bells[2 * SVIO_MAX_QUEUE_PAIRS];
    int status;

    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        signals[n] = event_notifier_get_fd(&vif->irqfd.vectors[n].event);
    }
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        bells[n] = event_notifier_get_fd(&vif->bells[n]);
    }
    status = svio_vif_count(vif, SVIO_ATTACH_SIGNALS, SVIO_VECTORS, signals);
    if (status == SVIO_ST_OK) {
        status = svio_vif_count(vif, SVIO_ATTACH_BELLS, 2 * vif->pairs, bells);
    }
    if (status == SVIO_ST_OK && pages) {
        status = svio_vif_take_pages(vif);
    }
    return status;
}

void svio_vif_forget_pages(SvioVif *vif) {
    if (vif->halt) {
        svio_vif_take_raised(vif);
        svio_halt_forget(vif->halt);
        vif->halt = NULL;
    }
}

/* ---- life ---- */

void svio_vif_free_events(SvioVif *vif) {
    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        SvioVector *vector = &vif->irqfd.vectors[n];

        if (vector->made) {
            event_notifier_set_handler(&vector->event, NULL);
            event_notifier_cleanup(&vector->event);
            vector->made = false;
        }
    }
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        event_notifier_cleanup(&vif->bells[n]);
    }
}

bool svio_vif_make_events(SvioVif *vif, Error **errp) {
    int failed = 0;

    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        failed |= event_notifier_init(&vif->bells[n], 0);
    }
    vif->irqfd.otherwise = svio_vif_signalled;
    for (unsigned n = 0; n < SVIO_VECTORS && !failed; n++) {
        SvioVector *vector = &vif->irqfd.vectors[n];

        failed |= event_notifier_init(&vector->event, 0);
        if (!failed) {
            vector->made = true;
            vector->opaque = vif;
            event_notifier_set_handler(&vector->event, svio_vif_signalled);
        }
    }
    if (failed) {
        svio_vif_free_events(vif);
        error_setg(errp, "svio-vif: no eventfds are left for this process");
    }
    return !failed;
}

/* ---- doorbells ---- */

int svio_vif_bell(SvioVif *vif, uint32_t offset) {
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        if (offset == SVIO_BELL(n / 2, n % 2)) {
            return n;
        }
    }
    return -1;
}

/* Under KVM a doorbell goes to the board without QEMU. */
void svio_vif_bells_by_kvm(SvioVif *vif, bool on) {
    if (on == vif->bells_by_kvm || (on && !(vif->ioeventfd && kvm_enabled()))) {
        return;
    }
    vif->bells_by_kvm = on;
    memory_region_transaction_begin();
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        (on ? memory_region_add_eventfd : memory_region_del_eventfd)(&vif->registers, SVIO_BELL(n / 2, n % 2),
                                                                     4, false, 0, &vif->bells[n]);
    }
    memory_region_transaction_commit();
}
