/* SPDX-License-Identifier: GPL-2.0-or-later */
/* MSI-X by irqfd, under KVM: see svio_irqfd.c. */
#ifndef SVIO_IRQFD_H
#define SVIO_IRQFD_H

#include "qemu/osdep.h"

#include "hw/pci/pci_device.h"
#include "qemu/event_notifier.h"

#include "svio_abi.h"

/* Changed with the BQL. */
typedef struct SvioVector {
    EventNotifier event;
    int virq;
    bool made;    /* the event, */
    bool open;    /* and the kernel takes what is written into it (read without the BQL) */
    void *opaque; /* of `otherwise` */
} SvioVector;

/* Of a function, by whom its class tells: svio_irqfd_of(). */
typedef struct SvioIrqfd {
    SvioVector vectors[SVIO_VECTORS];
    /* Events are always there, and always written; this reads one that the kernel does not take. NULL: they
     * come and go, and only those that are open are written. */
    EventNotifierHandler *otherwise;
    bool on; /* vectors are bound as the guest unmasks them */
} SvioIrqfd;

SvioIrqfd *svio_irqfd_of(PCIDevice *pci);
/* MSI-X is enabled or not now. A board of our own is paused. */
void svio_irqfd_update(PCIDevice *pci, bool enabled);
/* Of a function's opaque. */
bool svio_irqfd_signal(void *opaque, unsigned vector);

#endif
