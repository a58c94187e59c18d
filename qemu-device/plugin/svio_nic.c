/* SPDX-License-Identifier: GPL-2.0-or-later */
/* svio-nic: the device and its physical function; properties, birth and death, stop and continue. */
#include "svio_nic.h"
#include "svio_pci.h"
#include "svio_vif.h"

#include "exec/replay-core.h"
#include "hw/qdev-properties.h"
#include "net/net.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "system/runstate.h"
#include "system/system.h"

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

/* ---- stop and continue ---- */

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
        svio_board_receive_ready(nic->board, 0);
    } else {
        svio_bell_settle_all(nic);
        svio_board_pause(nic->board);
    }
}

/* ---- birth and death ---- */

/* QEMU ends without unrealizing its devices. */
static void svio_process_exit(Notifier *notifier, void *data) {
    svio_board_remove_files(container_of(notifier, SvioNic, process_exit)->board);
}

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
    } else if (nic->signals && strcmp(nic->signals, "msix") && strcmp(nic->signals, "shared")) {
        error_setg(errp, "svio-nic: signals=%s is neither msix nor shared", nic->signals);
    } else if (!svio_virtual_check(nic, errp) || !svio_sriov_check(nic, errp)) {
        return false;
    } else if (nic->port && nic->conf.peers.ncs[0]) {
        error_setg(errp, "svio-nic: netdev= and port= exclude each other, the board has one wire");
    } else {
        return true;
    }
    return false;
}

static bool svio_make_board(SvioNic *nic, Error **errp) {
    SvioHost host = {
        .opaque = nic,
        .lock = svio_bql_lock,
        .unlock = svio_bql_unlock,
        .thread_begin = svio_thread_begin,
        .thread_end = svio_thread_end,
        .thread_polling = svio_halt_polling,
        .attend = svio_atc_attend,
    };
    SvioBoardConfig config = {
        .cores = nic->cores,
        .poll_us = nic->poll_us,
        .stall_ms = nic->stall_ms,
        .port = nic->port,
        .auto_vif = nic->auto_vif,
        .port_mbps = nic->port_mbps,
        .mgmt = nic->mgmt,
        .shared_signals = g_strcmp0(nic->signals, "shared") == 0,
        .stage_times = nic->stage_times,
        .incoming = runstate_check(RUN_STATE_INMIGRATE),
    };
    g_autofree char *why = NULL;

    svio_atc_init(nic);
    svio_net_fill_host(&host);
    svio_virtual_fill(nic, &host, &config);
    nic->board = svio_board_new(&host, &config, &why);
    if (!nic->board) {
        svio_virtual_exit(nic);
        svio_atc_exit(nic);
        error_setg(errp, "svio-nic: %s", why ? why : "out of memory");
        return false;
    }
    if (!runstate_is_running()) {
        nic->stopped = true;
        svio_board_pause(nic->board);
    }
    return true;
}

static bool svio_start_board(SvioNic *nic, Error **errp) {
    g_autofree char *why = NULL;

    if (!svio_board_start(nic->board, &why)) {
        error_setg(errp, "svio-nic: %s", why ? why : "out of memory");
        return false;
    }
    return true;
}

static bool svio_init_physical(SvioNic *nic, Error **errp) {
    SvioFunction *function = SVIO_FUNCTION(nic);
    PCIDevice *pci = PCI_DEVICE(nic);
    uint8_t type = PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64;

    if (!svio_function_add(function, nic, 0, errp)) {
        return false;
    }
    pci_register_bar(pci, SVIO_BAR_REGS, type, &function->registers);
    pci_register_bar(pci, SVIO_BAR_MSIX, type, &function->msix);
    return svio_function_init_pci(function, errp);
}

/* Ends the board, with whatever of the functions is there. */
static void svio_end(SvioNic *nic) {
    /*
     * A core may be waiting for the BQL and ends only after it got it. The board is paused, the BARs are
     * unmapped and frames of the netdev are refused, so nothing of ours happens in between.
     */
    bql_unlock();
    svio_board_stop(nic->board);
    bql_lock();
    svio_net_stop(nic);
    svio_sriov_exit(nic);
    svio_function_exit(SVIO_FUNCTION(nic));
    g_clear_pointer(&nic->board, svio_board_free);
    svio_virtual_exit(nic);
    svio_atc_exit(nic);
}

static void svio_realize(PCIDevice *pci, Error **errp) {
    SvioNic *nic = SVIO_NIC(pci);

    if (!svio_check_properties(nic, errp) || !svio_migration_check(nic, errp)) {
        return;
    }
    /* Threads of our own that move frames cannot be replayed. */
    replay_add_blocker("svio-nic");
    qemu_macaddr_default_if_unset(&nic->conf.macaddr);
    if (nic->halt_poll) {
        svio_halt_install();
    }
    if (!svio_make_board(nic, errp)) {
        svio_migration_stop(nic);
        return;
    }
    if (!svio_init_physical(nic, errp) || !svio_sriov_init(nic, errp) || !svio_start_board(nic, errp)) {
        svio_end(nic);
        svio_migration_stop(nic);
        return;
    }
    if (!nic->port) {
        svio_net_start(nic);
    }
    nic->vm_state = qdev_add_vm_change_state_handler_full(DEVICE(nic), svio_vm_state, svio_vm_prepare, nic);
    nic->process_exit.notify = svio_process_exit;
    qemu_add_exit_notifier(&nic->process_exit);
    svio_migration_start(nic);
}

static void svio_exit(PCIDevice *pci) {
    SvioNic *nic = SVIO_NIC(pci);

    svio_migration_stop(nic);
    qemu_remove_exit_notifier(&nic->process_exit);
    qemu_del_vm_change_state_handler(nic->vm_state);
    svio_board_pause(nic->board);
    /*
     * No access to configuration space comes through while svio_end() gives the BQL away. Not by
     * pci_set_enabled(), which would unmap the BARs once more.
     */
    pci->enabled = false;
    svio_sriov_disable(nic);
    svio_board_reset(nic->board, 0);
    svio_end(nic);
}

static const Property svio_properties[] = {
    DEFINE_NIC_PROPERTIES(SvioNic, conf),
    DEFINE_PROP_UINT32("cores", SvioNic, cores, 1),
    DEFINE_PROP_UINT32("queues", SvioNic, queue_pairs, 1),
    DEFINE_PROP_UINT32("queue-size", SvioNic, queue_size, 256),
    DEFINE_PROP_UINT32("poll-us", SvioNic, poll_us, 500),
    DEFINE_PROP_UINT32("port-stall-ms", SvioNic, stall_ms, SVIO_PORT_STALL_MS),
    DEFINE_PROP_BOOL("halt-poll", SvioNic, halt_poll, true),
    DEFINE_PROP_BOOL("ioeventfd", SvioNic, ioeventfd, true),
    DEFINE_PROP_STRING("port", SvioNic, port),
    DEFINE_PROP_UINT32("vifs", SvioNic, vifs, 0),
    DEFINE_PROP_BOOL("auto-vif", SvioNic, auto_vif, true),
    DEFINE_PROP_STRING("signals", SvioNic, signals),
    DEFINE_PROP_BOOL("stage-times", SvioNic, stage_times, false),
    DEFINE_PROP_UINT32("port-mbps", SvioNic, port_mbps, 0),
    DEFINE_PROP_STRING("executor", SvioNic, executor),
    DEFINE_PROP_UINT32("poll-cost-ns", SvioNic, poll_cost_ns, 1000),
    DEFINE_PROP_UINT32("message-cost-ns", SvioNic, message_cost_ns, 1000),
    DEFINE_PROP_STRING("mgmt", SvioNic, mgmt),
};

static void svio_class_init(ObjectClass *klass, void *data) {
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = svio_realize;
    pc->exit = svio_exit;
    pc->device_id = SVIO_PCI_DEVICE_PF;
    dc->desc = "SV-IO self-virtualizing NIC";
    svio_pci_express_class_init(dc);
    device_class_set_props(dc, svio_properties);
    svio_qom_class_init(klass);
    svio_migration_class_init(dc);
}

static const TypeInfo svio_info = {
    .name = TYPE_SVIO_NIC,
    .parent = TYPE_SVIO_FUNCTION,
    .instance_size = sizeof(SvioNic),
    .class_init = svio_class_init,
    .interfaces = (InterfaceInfo[]){{INTERFACE_PCIE_DEVICE}, {INTERFACE_CONVENTIONAL_PCI_DEVICE}, {}},
};

__attribute__((visibility("default"))) void svio_adapter_install(void);

void svio_adapter_install(void) {
    svio_function_register();
    svio_sriov_register();
    svio_vif_register();
    type_register_static(&svio_info);
}
