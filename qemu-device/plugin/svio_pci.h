/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What all PCI functions of svio have in common, whoever works their queues: SPEC.md chapter 2. */
#ifndef SVIO_PCI_H
#define SVIO_PCI_H

#include "qemu/osdep.h"

#include "hw/pci/pci_device.h"

/* MSI-X in its BAR and, on PCI Express, the capability with FLR; after the BARs are registered. name: for
 * errors. On failure what was made stays, for svio_pci_exit(). */
bool svio_pci_init(PCIDevice *pci, MemoryRegion *msix, const char *name, Error **errp);
void svio_pci_exit(PCIDevice *pci, MemoryRegion *msix);
/* The bus decides whether it is a PCI Express device. */
void svio_pci_express_class_init(DeviceClass *dc);

#endif
