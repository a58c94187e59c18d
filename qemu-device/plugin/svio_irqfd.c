/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSI-X by irqfd, under KVM: a core raises a vector by writing an eventfd, without QEMU's big lock, and the
 * kernel injects it. Only vectors that are enabled and not masked are bound; for all else, and where KVM has
 * no route left, the core takes the lock and msix_notify() does what it always does (it sets pending bits).
 *
 * With TCG there is nobody behind an eventfd but QEMU's main loop, one more thread to wake: not used there.
 *
 * A board in another process (svio-vif) writes the eventfds in any case: QEMU's main loop reads those that
 * the kernel does not.
 */
#include "svio_irqfd.h"

#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "qemu/atomic.h"
#include "system/kvm.h"

#include "svio_nic.h"
#include "svio_vif.h"

SvioIrqfd *svio_irqfd_of(PCIDevice *pci) {
    return object_dynamic_cast(OBJECT(pci), TYPE_SVIO_VIF) ? &SVIO_VIF(pci)->irqfd
                                                           : &SVIO_FUNCTION(pci)->irqfd;
}

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

static void svio_irqfd_read_otherwise(SvioIrqfd *irqfd, SvioVector *v) {
    if (irqfd->otherwise) {
        event_notifier_set_handler(&v->event, irqfd->otherwise);
    }
}

/* From now on cores signal by the eventfd. What one has left in it while it was not bound comes now. */
static int svio_irqfd_use(PCIDevice *pci, unsigned vector, MSIMessage msg) {
    SvioIrqfd *irqfd = svio_irqfd_of(pci);
    SvioVector *v = &irqfd->vectors[vector];

    if (v->open) {
        return 0;
    }
    if (!v->made) {
        if (event_notifier_init(&v->event, 0) < 0) {
            return 0; /* not an error that msix.c could take: this vector goes by the lock */
        }
        v->made = true;
    }
    if (!svio_irqfd_make_route(v, pci, vector, msg)) {
        return 0; /* likewise */
    }
    if (irqfd->otherwise) {
        event_notifier_set_handler(&v->event, NULL);
    }
    if (kvm_irqchip_add_irqfd_notifier_gsi(kvm_state, &v->event, NULL, v->virq) < 0) {
        svio_irqfd_read_otherwise(irqfd, v);
        return 0;
    }
    qatomic_store_release(&v->open, true);
    return 0;
}

static void svio_irqfd_unbind(SvioIrqfd *irqfd, SvioVector *v) {
    if (v->open) {
        qatomic_set(&v->open, false);
        kvm_irqchip_remove_irqfd_notifier_gsi(kvm_state, &v->event, v->virq);
        svio_irqfd_read_otherwise(irqfd, v);
    }
}

/* A core may have seen the vector open before we closed it: what it wrote becomes a pending bit. */
static void svio_irqfd_poll(PCIDevice *pci, unsigned first, unsigned end) {
    SvioIrqfd *irqfd = svio_irqfd_of(pci);

    for (unsigned n = first; n < MIN(end, SVIO_VECTORS); n++) {
        SvioVector *v = &irqfd->vectors[n];

        if (v->made && !v->open && event_notifier_test_and_clear(&v->event)) {
            msix_set_pending(pci, n);
        }
    }
}

static void svio_irqfd_release(PCIDevice *pci, unsigned vector) {
    SvioIrqfd *irqfd = svio_irqfd_of(pci);

    svio_irqfd_unbind(irqfd, &irqfd->vectors[vector]);
    svio_irqfd_poll(pci, vector, vector + 1);
}

static void svio_irqfd_off(PCIDevice *pci) {
    SvioIrqfd *irqfd = svio_irqfd_of(pci);

    msix_unset_vector_notifiers(pci);
    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        SvioVector *v = &irqfd->vectors[n];

        /* If MSI-X is off already, none was released above. */
        svio_irqfd_unbind(irqfd, v);
        if (v->virq >= 0) {
            kvm_irqchip_release_virq(kvm_state, v->virq);
            v->virq = -1;
        }
        if (v->made && !irqfd->otherwise) {
            event_notifier_cleanup(&v->event);
            v->made = false;
        }
    }
    irqfd->on = false;
}

void svio_irqfd_update(PCIDevice *pci, bool enabled) {
    SvioIrqfd *irqfd = svio_irqfd_of(pci);

    if (irqfd->on == enabled || !kvm_msi_via_irqfd_enabled()) {
        return;
    }
    if (!enabled) {
        svio_irqfd_off(pci);
        return;
    }
    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        irqfd->vectors[n].virq = -1;
    }
    irqfd->on = true;
    /* Calls svio_irqfd_use(), which does not fail, for what is unmasked. */
    msix_set_vector_notifiers(pci, svio_irqfd_use, svio_irqfd_release, svio_irqfd_poll);
}

/* From a core that is active, without the BQL. */
bool svio_irqfd_signal(void *opaque, unsigned vector) {
    SvioFunction *function = opaque;

    if (vector >= SVIO_VECTORS || !qatomic_load_acquire(&function->irqfd.vectors[vector].open)) {
        return false;
    }
    event_notifier_set(&function->irqfd.vectors[vector].event);
    return true;
}
