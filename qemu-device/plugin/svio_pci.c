/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "svio_pci.h"

#include "hw/pci/msix.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pcie.h"
#include "qapi/error.h"

#include "svio_abi.h"

bool svio_pci_init(PCIDevice *pci, MemoryRegion *msix, const char *name, Error **errp) {
    if (msix_init(pci, SVIO_VECTORS, msix, SVIO_BAR_MSIX, SVIO_MSIX_TABLE_OFFSET, msix, SVIO_BAR_MSIX,
                  SVIO_MSIX_PBA_OFFSET, 0, errp)) {
        return false;
    }
    for (int v = 0; v < SVIO_VECTORS; v++) {
        msix_vector_use(pci, v);
    }
    if (pci_is_express(pci)) {
        if (pcie_endpoint_cap_init(pci, 0) < 0) {
            error_setg(errp, "%s: no room for the PCI Express capability", name);
            return false;
        }
        pcie_cap_flr_init(pci);
    }
    return true;
}

void svio_pci_exit(PCIDevice *pci, MemoryRegion *msix) {
    msix_uninit(pci, msix, msix);
    if (pci->exp.exp_cap) {
        pcie_cap_exit(pci);
    }
}

/* That of TYPE_PCI_DEVICE, for all classes. */
static DeviceRealize svio_pci_parent_realize;

/* Before the generic code lays configuration space out. */
static void svio_pci_realize(DeviceState *dev, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(dev);

    if (pci_bus_is_express(pci_get_bus(pci))) {
        pci->cap_present |= QEMU_PCI_CAP_EXPRESS;
    }
    svio_pci_parent_realize(dev, errp);
}

void svio_pci_express_class_init(DeviceClass *dc) {
    device_class_set_parent_realize(dc, svio_pci_realize, &svio_pci_parent_realize);
}
