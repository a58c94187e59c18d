/* SPDX-License-Identifier: GPL-2.0-or-later */
/* svio-nic: the PCI function, its BARs, MSI-X, resets and life cycle. SPEC.md chapters 2 to 4. */
#include "svio_nic.h"

#include "exec/replay-core.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "net/net.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/range.h"
#include "qemu/rcu.h"
#include "system/runstate.h"

static void svio_bql_lock(void *opaque) {
    bql_lock();
}

static void svio_bql_unlock(void *opaque) {
    bql_unlock();
}

static void svio_thread_begin(void *opaque, unsigned core) {
    rcu_register_thread();
}

static void svio_thread_end(void *opaque, unsigned core) {
    rcu_unregister_thread();
}

static void svio_signal(void *opaque, unsigned vector) {
    PCIDevice *pci = opaque;

    if (msix_enabled(pci)) {
        msix_notify(pci, vector);
    }
}

/* ---- BAR 0 ---- */

static uint64_t svio_read(void *opaque, hwaddr offset, unsigned size) {
    SvioNic *nic = opaque;

    if (offset % size == 0 && size == 4) {
        return svio_board_read(nic->board, 0, offset);
    }
    if (offset % size == 0 && size == 8) {
        uint64_t low = svio_board_read(nic->board, 0, offset);

        return low | (uint64_t)svio_board_read(nic->board, 0, offset + 4) << 32;
    }
    svio_board_bad_access(nic->board, 0);
    return 0;
}

static void svio_write(void *opaque, hwaddr offset, uint64_t value, unsigned size) {
    SvioNic *nic = opaque;

    if (offset % size == 0 && size == 4) {
        svio_board_write(nic->board, 0, offset, value);
    } else if (offset % size == 0 && size == 8) {
        svio_board_write(nic->board, 0, offset, value);
        svio_board_write(nic->board, 0, offset + 4, value >> 32);
    } else {
        svio_board_bad_access(nic->board, 0);
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

/* ---- resets, bus master, stop and continue ---- */

static void svio_write_config(PCIDevice *pci, uint32_t address, uint32_t value, int length) {
    SvioNic *nic = SVIO_NIC(pci);

    if (range_covers_byte(address, length, PCI_COMMAND) ||
        ranges_overlap(address, length, pci->msix_cap + PCI_MSIX_FLAGS, 2)) {
        /* No access to memory happens after the write that took bus mastering away, and no
         * signal after the one that took MSI-X away. */
        svio_board_pause(nic->board);
        pci_default_write_config(pci, address, value, length);
        svio_irqfd_update(nic, msix_enabled(pci));
        svio_dma_update(nic, pci_get_word(pci->config + PCI_COMMAND) & PCI_COMMAND_MASTER);
        svio_board_resume(nic->board);
        svio_board_receive_ready(nic->board);
    } else {
        pci_default_write_config(pci, address, value, length);
    }
    if (pci_is_express(pci)) {
        pcie_cap_flr_write_config(pci, address, value, length);
    }
}

/* Machine and bus resets as well as function-level reset. */
static void svio_reset_hold(Object *obj, ResetType type) {
    SvioNic *nic = SVIO_NIC(obj);

    svio_board_pause(nic->board);
    svio_dma_update(nic, false);
    svio_irqfd_update(nic, false); /* PCI disables MSI-X next */
    svio_board_reset(nic->board, 0);
    svio_board_resume(nic->board);
    /* What was held back for want of buffers is dropped now, rather than when bus mastering comes on again.
     */
    svio_board_receive_ready(nic->board);
}

/* Before any device goes on: one may send to another's wire at once. */
static void svio_vm_prepare(void *opaque, bool running, RunState state) {
    SvioNic *nic = opaque;
    g_autofree char *why = NULL;

    if (running && nic->stopped && !svio_board_port_activate(nic->board, &why)) {
        error_report("svio-nic: %s", why);
    }
}

static void svio_vm_state(void *opaque, bool running, RunState state) {
    SvioNic *nic = opaque;

    if (running == !nic->stopped) {
        return;
    }
    nic->stopped = !running;
    if (running) {
        svio_board_resume(nic->board);
        svio_board_receive_ready(nic->board);
    } else {
        svio_board_pause(nic->board);
    }
}

/* ---- birth and death ---- */

static bool svio_check_properties(SvioNic *nic, Error **errp) {
    if (nic->cores < 1 || nic->cores > SVIO_MAX_CORES) {
        error_setg(errp, "svio-nic: cores=%u is not between 1 and %d", nic->cores, SVIO_MAX_CORES);
    } else if (nic->queue_pairs < 1 || nic->queue_pairs > SVIO_MAX_QUEUE_PAIRS) {
        error_setg(errp, "svio-nic: queues=%u is not between 1 and %d", nic->queue_pairs,
                   SVIO_MAX_QUEUE_PAIRS);
    } else if (!is_power_of_2(nic->queue_size) || nic->queue_size < SVIO_QUEUE_MIN ||
               nic->queue_size > SVIO_QUEUE_MAX) {
        error_setg(errp, "svio-nic: queue-size=%u is not a power of two between %d and %d", nic->queue_size,
                   SVIO_QUEUE_MIN, SVIO_QUEUE_MAX);
    } else if (nic->poll_us > 1000000) {
        error_setg(errp, "svio-nic: poll-us=%u is more than 1000000 (one second)", nic->poll_us);
    } else if (nic->port && nic->conf.peers.ncs[0]) {
        error_setg(errp, "svio-nic: netdev= and port= exclude each other, the board has one wire");
    } else {
        return true;
    }
    return false;
}

static bool svio_start_board(SvioNic *nic, Error **errp) {
    SvioHost host = {
        .opaque = nic,
        .lock = svio_bql_lock,
        .unlock = svio_bql_unlock,
        .thread_begin = svio_thread_begin,
        .thread_end = svio_thread_end,
        .signal = svio_signal,
        .signal_unlocked = svio_irqfd_signal,
        .thread_polling = svio_halt_polling,
    };
    SvioBoardConfig config = {
        .cores = nic->cores,
        .poll_us = nic->poll_us,
        .stall_ms = nic->stall_ms,
        .queue_size = nic->queue_size,
        .queue_pairs = nic->queue_pairs,
        .port = nic->port,
        .incoming = runstate_check(RUN_STATE_INMIGRATE),
    };
    g_autofree char *why = NULL;

    svio_dma_fill_host(&host);
    svio_net_fill_host(&host);
    memcpy(config.mac, nic->conf.macaddr.a, sizeof(config.mac));
    nic->board = svio_board_new(&host, &config, &why);
    if (!nic->board) {
        error_setg(errp, "svio-nic: %s", why ? why : "out of memory");
        return false;
    }
    if (!runstate_is_running()) {
        nic->stopped = true;
        svio_board_pause(nic->board);
    }
    return true;
}

static bool svio_init_pci(SvioNic *nic, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(nic);

    memory_region_init_io(&nic->registers, OBJECT(nic), &svio_register_ops, nic, "svio-registers",
                          SVIO_BAR_REGS_SIZE);
    pci_register_bar(pci, SVIO_BAR_REGS, PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64,
                     &nic->registers);
    memory_region_init(&nic->msix, OBJECT(nic), "svio-msix", SVIO_BAR_MSIX_SIZE);
    pci_register_bar(pci, SVIO_BAR_MSIX, PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64,
                     &nic->msix);
    if (msix_init(pci, SVIO_VECTORS, &nic->msix, SVIO_BAR_MSIX, SVIO_MSIX_TABLE_OFFSET, &nic->msix,
                  SVIO_BAR_MSIX, SVIO_MSIX_PBA_OFFSET, 0, errp)) {
        return false;
    }
    for (int v = 0; v < SVIO_VECTORS; v++) {
        msix_vector_use(pci, v);
    }
    if (pci_is_express(pci)) {
        if (pcie_endpoint_cap_init(pci, 0) < 0) {
            error_setg(errp, "svio-nic: no room for the PCI Express capability");
            return false;
        }
        pcie_cap_flr_init(pci);
    }
    return true;
}

static void svio_realize(PCIDevice *pci, Error **errp) {
    SvioNic *nic = SVIO_NIC(pci);

    if (!svio_check_properties(nic, errp)) {
        return;
    }
    /* Threads of our own that move frames cannot be replayed. */
    replay_add_blocker("svio-nic");
    qemu_macaddr_default_if_unset(&nic->conf.macaddr);
    QLIST_INIT(&nic->windows);
    if (nic->halt_poll) {
        svio_halt_install();
    }
    if (!svio_start_board(nic, errp)) {
        return;
    }
    if (!svio_init_pci(nic, errp)) {
        bql_unlock(); /* as in svio_exit() */
        svio_board_stop(nic->board);
        bql_lock();
        g_clear_pointer(&nic->board, svio_board_free);
        return;
    }
    svio_dma_start(nic);
    if (!nic->port) {
        svio_net_start(nic);
    }
    nic->vm_state = qdev_add_vm_change_state_handler_full(DEVICE(nic), svio_vm_state, svio_vm_prepare, nic);
    svio_migration_start(nic);
}

static void svio_exit(PCIDevice *pci) {
    SvioNic *nic = SVIO_NIC(pci);

    svio_migration_stop(nic);
    qemu_del_vm_change_state_handler(nic->vm_state);
    svio_dma_stop(nic);
    svio_board_pause(nic->board);
    svio_board_reset(nic->board, 0);
    /*
     * A core may be waiting for the BQL and ends only after it got it. The board is paused, the BARs are
     * unmapped and frames of the netdev are refused, so nothing of ours happens in between.
     */
    bql_unlock();
    svio_board_stop(nic->board);
    bql_lock();
    svio_net_stop(nic);
    g_clear_pointer(&nic->board, svio_board_free);
    svio_irqfd_update(nic, false);
    msix_uninit(pci, &nic->msix, &nic->msix);
    if (pci_is_express(pci)) {
        pcie_cap_exit(pci);
    }
}

/* The bus decides whether this is a PCI Express device, before the generic code lays configuration space out.
 */
static DeviceRealize svio_parent_realize;

static void svio_dc_realize(DeviceState *dev, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(dev);

    if (pci_bus_is_express(pci_get_bus(pci))) {
        pci->cap_present |= QEMU_PCI_CAP_EXPRESS;
    }
    svio_parent_realize(dev, errp);
}

static const Property svio_properties[] = {
    DEFINE_NIC_PROPERTIES(SvioNic, conf),
    DEFINE_PROP_UINT32("cores", SvioNic, cores, 1),
    DEFINE_PROP_UINT32("queues", SvioNic, queue_pairs, 1),
    DEFINE_PROP_UINT32("queue-size", SvioNic, queue_size, 256),
    DEFINE_PROP_UINT32("poll-us", SvioNic, poll_us, 200),
    DEFINE_PROP_UINT32("port-stall-ms", SvioNic, stall_ms, SVIO_PORT_STALL_MS),
    DEFINE_PROP_BOOL("halt-poll", SvioNic, halt_poll, true),
    DEFINE_PROP_STRING("port", SvioNic, port),
};

static void svio_class_init(ObjectClass *klass, void *data) {
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->realize = svio_realize;
    pc->exit = svio_exit;
    pc->config_write = svio_write_config;
    pc->vendor_id = SVIO_PCI_VENDOR;
    pc->device_id = SVIO_PCI_DEVICE_PF;
    pc->revision = SVIO_PCI_REVISION;
    pc->class_id = PCI_CLASS_NETWORK_ETHERNET;
    rc->phases.hold = svio_reset_hold;
    dc->desc = "SV-IO self-virtualizing NIC";
    device_class_set_parent_realize(dc, svio_dc_realize, &svio_parent_realize);
    device_class_set_props(dc, svio_properties);
    set_bit(DEVICE_CATEGORY_NETWORK, dc->categories);
    svio_qom_class_init(klass);
    svio_migration_class_init(dc);
}

static const TypeInfo svio_info = {
    .name = TYPE_SVIO_NIC,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(SvioNic),
    .class_init = svio_class_init,
    .interfaces = (InterfaceInfo[]){{INTERFACE_PCIE_DEVICE}, {INTERFACE_CONVENTIONAL_PCI_DEVICE}, {}},
};

__attribute__((visibility("default"))) void svio_adapter_install(void);

void svio_adapter_install(void) {
    type_register_static(&svio_info);
}
