/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What PF and VF have in common: BARs, MSI-X, configuration space, resets. SPEC.md chapters 2 to 4. */
#include "svio_nic.h"
#include "svio_pci.h"

#include "hw/pci/msix.h"
#include "hw/pci/pcie.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qemu/range.h"

static void svio_signal(void *opaque, unsigned vector) {
    PCIDevice *pci = opaque;

    if (msix_enabled(pci)) {
        msix_notify(pci, vector);
    }
}

/* ---- BAR 0 ---- */

/* NULL: a vCPU had found the BAR and waited for the BQL while the card was pulled out. */
static SvioBoard *svio_function_board(SvioFunction *function) {
    return function->nic ? function->nic->board : NULL;
}

static uint64_t svio_read(void *opaque, hwaddr offset, unsigned size) {
    SvioFunction *function = opaque;
    SvioBoard *board = svio_function_board(function);

    if (!board) {
        return UINT64_MAX;
    }
    svio_bell_settle(function);
    if (offset % size == 0 && size == 4) {
        return svio_board_read(board, function->slot, offset);
    }
    if (offset % size == 0 && size == 8) {
        uint64_t low = svio_board_read(board, function->slot, offset);

        return low | (uint64_t)svio_board_read(board, function->slot, offset + 4) << 32;
    }
    svio_board_bad_access(board, function->slot);
    return 0;
}

static void svio_write(void *opaque, hwaddr offset, uint64_t value, unsigned size) {
    SvioFunction *function = opaque;
    SvioBoard *board = svio_function_board(function);

    if (!board) {
        return;
    }
    svio_bell_settle(function);
    if (offset % size == 0 && size == 4) {
        svio_board_write(board, function->slot, offset, value);
    } else if (offset % size == 0 && size == 8) {
        svio_board_write(board, function->slot, offset, value);
        svio_board_write(board, function->slot, offset + 4, value >> 32);
    } else {
        svio_board_bad_access(board, function->slot);
    }
}

/* All sizes and alignments are let through: the board counts those that it does not like. */
static const MemoryRegionOps svio_register_ops = {
    .read = svio_read,
    .write = svio_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

/* ---- bus master, resets ---- */

void svio_function_update(SvioFunction *function) {
    PCIDevice *pci = PCI_DEVICE(function);

    svio_irqfd_update(pci, msix_enabled(pci));
    svio_dma_update(function, pci_get_word(pci->config + PCI_COMMAND) & PCI_COMMAND_MASTER);
}

static void svio_write_config(PCIDevice *pci, uint32_t address, uint32_t value, int length) {
    SvioFunction *function = SVIO_FUNCTION(pci);
    SvioBoard *board = function->nic->board;

    svio_bell_settle_all(function->nic);
    if (range_covers_byte(address, length, PCI_COMMAND) ||
        ranges_overlap(address, length, pci->msix_cap + PCI_MSIX_FLAGS, 2) ||
        svio_sriov_concerns(pci, address, length)) {
        /* No access to memory happens after the write that took bus mastering or a VF away, and no signal
         * after the one that took MSI-X away. The memory map changes once, for all VFs and BARs. */
        svio_board_pause(board);
        memory_region_transaction_begin();
        pci_default_write_config(pci, address, svio_sriov_filter(pci, address, value), length);
        memory_region_transaction_commit();
        svio_function_update(function);
        svio_board_resume(board);
        svio_board_receive_ready(board, function->slot);
    } else {
        pci_default_write_config(pci, address, value, length);
    }
    if (pci_is_express(pci)) {
        pcie_cap_flr_write_config(pci, address, value, length);
    }
}

/* Machine and bus resets as well as function-level reset. */
static void svio_reset_hold(Object *obj, ResetType type) {
    SvioFunction *function = SVIO_FUNCTION(obj);
    SvioBoard *board = function->nic->board;

    svio_bell_settle(function);
    svio_board_pause(board);
    svio_dma_update(function, false);
    svio_irqfd_update(PCI_DEVICE(function), false); /* PCI disables MSI-X next */
    svio_board_reset(board, function->slot);
    svio_board_resume(board);
    /* What was held back for want of buffers is dropped now, rather than when bus mastering comes on again.
     */
    svio_board_receive_ready(board, function->slot);
}

/* ---- birth and death ---- */

bool svio_function_add(SvioFunction *function, SvioNic *nic, unsigned slot, Error **errp) {
    SvioFunctionHost host = {
        .opaque = function,
        .signal = svio_signal,
        .signal_unlocked = svio_irqfd_signal,
    };
    SvioFunctionConfig config = {
        .slot = slot,
        .queue_size = nic->queue_size,
        .queue_pairs = nic->queue_pairs,
    };
    g_autofree char *why = NULL;

    function->nic = nic;
    function->slot = slot;
    QLIST_INIT(&function->windows);
    svio_dma_fill_host(&host);
    memcpy(config.mac, nic->conf.macaddr.a, sizeof(config.mac));
    if (!svio_board_add_function(nic->board, &host, &config, &why)) {
        error_setg(errp, "svio-nic: %s", why ? why : "out of memory");
        return false;
    }
    memory_region_init_io(&function->registers, OBJECT(function), &svio_register_ops, function,
                          "svio-registers", SVIO_BAR_REGS_SIZE);
    memory_region_init(&function->msix, OBJECT(function), "svio-msix", SVIO_BAR_MSIX_SIZE);
    return true;
}

bool svio_function_init_pci(SvioFunction *function, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(function);

    if (!svio_pci_init(pci, &function->msix, "svio-nic", errp)) {
        return false;
    }
    svio_dma_start(function);
    svio_bell_start(function);
    return true;
}

void svio_function_exit(SvioFunction *function) {
    PCIDevice *pci = PCI_DEVICE(function);

    svio_bell_stop(function);
    svio_dma_stop(function);
    svio_irqfd_update(pci, false);
    svio_pci_exit(pci, &function->msix);
    function->nic = NULL;
}

static void svio_function_class_init(ObjectClass *klass, void *data) {
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->config_write = svio_write_config;
    pc->vendor_id = SVIO_PCI_VENDOR;
    pc->revision = SVIO_PCI_REVISION;
    pc->class_id = PCI_CLASS_NETWORK_ETHERNET;
    rc->phases.hold = svio_reset_hold;
    set_bit(DEVICE_CATEGORY_NETWORK, DEVICE_CLASS(klass)->categories);
}

static const TypeInfo svio_function_info = {
    .name = TYPE_SVIO_FUNCTION,
    .parent = TYPE_PCI_DEVICE,
    .abstract = true,
    .instance_size = sizeof(SvioFunction),
    .class_init = svio_function_class_init,
};

void svio_function_register(void) {
    type_register_static(&svio_function_info);
}
