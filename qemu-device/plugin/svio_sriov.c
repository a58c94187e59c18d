/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SR-IOV: the PF's capability, and the virtual functions (SPEC.md chapter 2). QEMU makes all VFs together
 * with the PF, and hides and shows them as the guest clears and sets VF Enable; each time it resets them.
 */
#include "svio_nic.h"

#include "hw/pci/pci_bus.h"
#include "hw/pci/pcie.h"
#include "hw/pci/pcie_sriov.h"
#include "qapi/error.h"
#include "qemu/range.h"
#include "qemu/units.h"

#define TYPE_SVIO_VF "svio-vf"

/* In extended configuration space. QEMU's reset of the SR-IOV capability, 0x40 bytes, clears four bytes
 * behind it as well: nothing may follow there. */
#define SVIO_ARI_OFFSET 0x100
#define SVIO_SRIOV_OFFSET 0x140

/* Prefetchable (no read has an effect), so that 64 of them find room in a 64-bit window. */
#define SVIO_VF_BAR_TYPE                                                                                     \
    (PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH)

/* ---- the PF's side ---- */

bool svio_sriov_check(SvioNic *nic, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(nic);
    PCIBus *bus = pci_get_bus(pci);

    if (nic->vifs > SVIO_MAX_VIFS) {
        error_setg(errp, "svio-nic: vifs=%u is more than %d", nic->vifs, SVIO_MAX_VIFS);
    } else if (nic->vifs == 0) {
        return true;
    } else if (!pci_bus_is_express(bus) || pci_bus_is_root(bus)) {
        error_setg(errp,
                   "svio-nic: vifs=%u needs SR-IOV, and that a PCI Express port; put the card behind one: "
                   "-device pcie-root-port,id=rp0,chassis=1 -device svio-nic,bus=rp0,vifs=%u,...",
                   nic->vifs, nic->vifs);
    } else if (pci->devfn + SVIO_PCI_VF_OFFSET + (nic->vifs - 1) * SVIO_PCI_VF_STRIDE >= PCI_DEVFN_MAX) {
        error_setg(errp, "svio-nic: the last of vifs=%u would not be on the bus any more; use addr=0",
                   nic->vifs);
    } else {
        return true;
    }
    return false;
}

bool svio_sriov_init(SvioNic *nic, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(nic);

    if (nic->vifs == 0) {
        return true;
    }
    /* QEMU 10.0 asks for these when it makes the VFs, before they can be set as it means them to be: without
     * this it would take all for 32-bit BARs. */
    pci->exp.sriov_pf.vf_bar_type[SVIO_BAR_REGS] = SVIO_VF_BAR_TYPE;
    pci->exp.sriov_pf.vf_bar_type[SVIO_BAR_MSIX] = SVIO_VF_BAR_TYPE;
    pcie_ari_init(pci, SVIO_ARI_OFFSET);
    if (!pcie_sriov_pf_init(pci, SVIO_SRIOV_OFFSET, TYPE_SVIO_VF, SVIO_PCI_DEVICE_VF, nic->vifs, nic->vifs,
                            SVIO_PCI_VF_OFFSET, SVIO_PCI_VF_STRIDE, errp)) {
        return false;
    }
    nic->sriov = true;
    pcie_sriov_pf_init_vf_bar(pci, SVIO_BAR_REGS, SVIO_VF_BAR_TYPE, SVIO_BAR_REGS_SIZE);
    pcie_sriov_pf_init_vf_bar(pci, SVIO_BAR_MSIX, SVIO_VF_BAR_TYPE, SVIO_BAR_MSIX_SIZE);
    return true;
}

void svio_sriov_disable(SvioNic *nic) {
    if (nic->sriov) {
        pcie_sriov_pf_reset(PCI_DEVICE(nic));
    }
}

void svio_sriov_exit(SvioNic *nic) {
    if (nic->sriov) {
        pcie_sriov_pf_exit(PCI_DEVICE(nic));
        nic->sriov = false;
    }
}

bool svio_sriov_concerns(PCIDevice *pci, uint32_t address, int length) {
    return pci->exp.sriov_cap &&
           ranges_overlap(address, length, pci->exp.sriov_cap, PCI_EXT_CAP_SRIOV_SIZEOF);
}

/*
 * QEMU 10.0 enables NumVFs VFs if VF Enable is written as 1, also if NumVFs is larger than TotalVFs, and
 * reads behind the end of its list then. So such a write loses this bit on its way.
 */
uint32_t svio_sriov_filter(PCIDevice *pci, uint32_t address, uint32_t value) {
    const uint8_t *cap = pci->config + pci->exp.sriov_cap;

    if (pci->exp.sriov_cap && address == (uint32_t)pci->exp.sriov_cap + PCI_SRIOV_CTRL &&
        pci_get_word(cap + PCI_SRIOV_NUM_VF) > pci_get_word(cap + PCI_SRIOV_TOTAL_VF)) {
        value &= ~PCI_SRIOV_CTRL_VFE;
    }
    return value;
}

/* ---- a VF ---- */

static void svio_vf_register_bar(PCIDevice *pci, int bar, MemoryRegion *region) {
#ifdef SVIO_VF_REGISTER_BAR
    pcie_sriov_vf_register_bar(pci, bar, region);
#else
    pci_register_bar(pci, bar, SVIO_VF_BAR_TYPE, region);
#endif
}

static void svio_vf_realize(PCIDevice *pci, Error **errp) {
    SvioFunction *function = SVIO_FUNCTION(pci);
    SvioNic *nic = SVIO_NIC(pcie_sriov_get_pf(pci));

    if (!svio_function_add(function, nic, pcie_sriov_vf_number(pci) + 1, errp)) {
        return;
    }
    svio_vf_register_bar(pci, SVIO_BAR_REGS, &function->registers);
    svio_vf_register_bar(pci, SVIO_BAR_MSIX, &function->msix);
    if (!svio_function_init_pci(function, errp)) {
        svio_function_exit(function);
        return;
    }
    pcie_ari_init(pci, SVIO_ARI_OFFSET);
}

static void svio_vf_exit(PCIDevice *pci) {
    svio_function_exit(SVIO_FUNCTION(pci));
}

static ResettableHoldPhase svio_vf_parent_hold;

/* When it is hidden or shown, too: PCIDevice.enabled has changed before. */
static void svio_vf_reset_hold(Object *obj, ResetType type) {
    SvioFunction *function = SVIO_FUNCTION(obj);
    PCIDevice *pci = PCI_DEVICE(obj);

    svio_vf_parent_hold(obj, type);
    if (function->shown != pci->enabled) {
        function->shown = pci->enabled;
        svio_board_enable(function->nic->board, function->slot, function->shown);
    }
}

static void svio_vf_class_init(ObjectClass *klass, void *data) {
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->realize = svio_vf_realize;
    pc->exit = svio_vf_exit;
    pc->device_id = SVIO_PCI_DEVICE_VF;
    dc->desc = "SV-IO self-virtualizing NIC, virtual function";
    dc->user_creatable = false;
    svio_vf_parent_hold = rc->phases.hold;
    rc->phases.hold = svio_vf_reset_hold;
}

static const TypeInfo svio_vf_info = {
    .name = TYPE_SVIO_VF,
    .parent = TYPE_SVIO_FUNCTION,
    .class_init = svio_vf_class_init,
    .interfaces = (InterfaceInfo[]){{INTERFACE_PCIE_DEVICE}, {}},
};

void svio_sriov_register(void) {
    type_register_static(&svio_vf_info);
}
