/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel does for irqfd, as far as a device sees it; see fake_kvm.h. Misuse ends the process. As
 * in KVM a bound eventfd belongs to the kernel: an interrupt that waits in it when it is bound comes at
 * once, and one on its way when it is unbound comes before that returns.
 */
#include "fake_kvm.h"

#include "hw/pci/msi.h"
#include "qemu/main-loop.h"

/* One less than a card has vectors: the last one that the guest unmasks finds no route. */
#define ROUTES 8

static struct Route {
    PCIDevice *pci;
    MSIMessage message;
    EventNotifier *event; /* while bound */
} routes[ROUTES];

static void deliver(EventNotifier *event) {
    if (!event_notifier_test_and_clear(event)) {
        return;
    }
    for (int n = 0; n < ROUTES; n++) {
        if (routes[n].event == event) {
            msi_send_message(routes[n].pci, routes[n].message);
        }
    }
}

int fake_add_msi_route(KVMRouteChange *change, int vector, PCIDevice *pci) {
    for (int n = 0; n < ROUTES; n++) {
        if (!routes[n].pci) {
            routes[n] = (struct Route){.pci = pci, .message = pci_get_msi_message(pci, vector)};
            change->changes++;
            return n;
        }
    }
    return -ENOSPC;
}

int fake_update_msi_route(KVMState *kvm, int virq, MSIMessage message, PCIDevice *pci) {
    g_assert(virq >= 0 && virq < ROUTES && routes[virq].pci == pci);
    routes[virq].message = message;
    return 0;
}

void fake_release_virq(KVMState *kvm, int virq) {
    g_assert(virq >= 0 && virq < ROUTES && routes[virq].pci && !routes[virq].event);
    routes[virq].pci = NULL;
}

int fake_add_irqfd(KVMState *kvm, EventNotifier *event, EventNotifier *resample, int virq) {
    g_assert(bql_locked() && virq >= 0 && virq < ROUTES && routes[virq].pci);
    for (int n = 0; n < ROUTES; n++) {
        g_assert(routes[n].event != event);
    }
    g_assert(!routes[virq].event);
    routes[virq].event = event;
    event_notifier_set_handler(event, deliver);
    return 0;
}

int fake_remove_irqfd(KVMState *kvm, EventNotifier *event, int virq) {
    g_assert(bql_locked() && virq >= 0 && virq < ROUTES && routes[virq].event == event);
    deliver(event);
    event_notifier_set_handler(event, NULL);
    routes[virq].event = NULL;
    return 0;
}
