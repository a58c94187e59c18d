/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSI-X by irqfd, under KVM: a core raises a vector by writing an eventfd, without QEMU's big lock, and the
 * kernel injects it. Only vectors that are enabled and not masked are bound; for all else, and where KVM has
 * no route left, the core takes the lock and msix_notify() does what it always does (it sets pending bits).
 *
 * With TCG there is nobody behind an eventfd but QEMU's main loop, one more thread to wake: not used there.
 */
#include "svio_nic.h"

#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "qemu/atomic.h"
#include "system/kvm.h"

static bool svio_irqfd_make_route(SvioVector *v, PCIDevice *pci, unsigned vector, MSIMessage msg) {
    KVMRouteChange change = kvm_irqchip_begin_route_changes(kvm_state);

    if (v->virq >= 0) {
        /* Kept while the vector was masked; the guest may have moved it to another CPU meanwhile. */
        if (kvm_irqchip_update_msi_route(kvm_state, v->virq, msg, pci) < 0) {
            return false;
        }
        kvm_irqchip_commit_routes(kvm_state);
        return true;
    }
    v->virq = kvm_irqchip_add_msi_route(&change, vector, pci);
    if (v->virq < 0) {
        return false;
    }
    kvm_irqchip_commit_route_changes(&change);
    return true;
}

/* From now on cores signal by the eventfd. What one has left in it while it was not bound comes now. */
static int svio_irqfd_use(PCIDevice *pci, unsigned vector, MSIMessage msg) {
    SvioVector *v = &SVIO_FUNCTION(pci)->vectors[vector];

    if (v->open) {
        return 0;
    }
    if (!v->made) {
        if (event_notifier_init(&v->event, 0) < 0) {
            return 0; /* not an error that msix.c could take: this vector goes by the lock */
        }
        v->made = true;
    }
    if (!svio_irqfd_make_route(v, pci, vector, msg) ||
        kvm_irqchip_add_irqfd_notifier_gsi(kvm_state, &v->event, NULL, v->virq) < 0) {
        return 0; /* likewise */
    }
    qatomic_store_release(&v->open, true);
    return 0;
}

static void svio_irqfd_unbind(SvioVector *v) {
    if (v->open) {
        qatomic_set(&v->open, false);
        kvm_irqchip_remove_irqfd_notifier_gsi(kvm_state, &v->event, v->virq);
    }
}

/* A core may have seen the vector open before we closed it: what it wrote becomes a pending bit. */
static void svio_irqfd_poll(PCIDevice *pci, unsigned first, unsigned end) {
    SvioFunction *function = SVIO_FUNCTION(pci);

    for (unsigned n = first; n < MIN(end, SVIO_VECTORS); n++) {
        SvioVector *v = &function->vectors[n];

        if (v->made && !v->open && event_notifier_test_and_clear(&v->event)) {
            msix_set_pending(pci, n);
        }
    }
}

static void svio_irqfd_release(PCIDevice *pci, unsigned vector) {
    svio_irqfd_unbind(&SVIO_FUNCTION(pci)->vectors[vector]);
    svio_irqfd_poll(pci, vector, vector + 1);
}

static void svio_irqfd_off(SvioFunction *function) {
    msix_unset_vector_notifiers(PCI_DEVICE(function));
    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        SvioVector *v = &function->vectors[n];

        /* If MSI-X is off already, none was released above. */
        svio_irqfd_unbind(v);
        if (v->virq >= 0) {
            kvm_irqchip_release_virq(kvm_state, v->virq);
            v->virq = -1;
        }
        if (v->made) {
            event_notifier_cleanup(&v->event);
            v->made = false;
        }
    }
    function->irqfd = false;
}

void svio_irqfd_update(SvioFunction *function, bool enabled) {
    PCIDevice *pci = PCI_DEVICE(function);

    if (function->irqfd == enabled || !kvm_msi_via_irqfd_enabled()) {
        return;
    }
    if (!enabled) {
        svio_irqfd_off(function);
        return;
    }
    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        function->vectors[n].virq = -1;
    }
    function->irqfd = true;
    /* Calls svio_irqfd_use(), which does not fail, for what is unmasked. */
    msix_set_vector_notifiers(pci, svio_irqfd_use, svio_irqfd_release, svio_irqfd_poll);
}

/* From a core that is active, without the BQL. */
bool svio_irqfd_signal(void *opaque, unsigned vector) {
    SvioFunction *function = opaque;

    if (vector >= SVIO_VECTORS || !qatomic_load_acquire(&function->vectors[vector].open)) {
        return false;
    }
    event_notifier_set(&function->vectors[vector].event);
    return true;
}
