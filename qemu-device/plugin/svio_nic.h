/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The adapter between QEMU and the board. Thin: no policy and no queue is looked at here. */
#ifndef SVIO_NIC_H
#define SVIO_NIC_H

#include "qemu/osdep.h"

#include "hw/pci/pci_device.h"
#include "migration/misc.h"
#include "net/net.h"
#include "qemu/event_notifier.h"
#include "qom/object.h"

#include "board_c.h"
#include "svio_abi.h"
#include "svio_halt.h"
#include "svio_irqfd.h"

/* What PF and VF have in common; abstract. */
#define TYPE_SVIO_FUNCTION "svio-function"
OBJECT_DECLARE_SIMPLE_TYPE(SvioFunction, SVIO_FUNCTION)

/* The device, and its PF. */
#define TYPE_SVIO_NIC "svio-nic"
OBJECT_DECLARE_SIMPLE_TYPE(SvioNic, SVIO_NIC)

/* A ring or event block of the guest, mapped as long as the board uses it. */
typedef struct SvioNicWindow {
    SvioWindow board; /* first: the board knows only this */
    SvioFunction *function;
    MemoryRegionCache cache; /* unless the function caches translations: */
    MemoryRegion *mr;        /* of board.direct */
    bool tried;              /* to have that */
    bool withdrawn;          /* see svio_atc_withdraw() */
    hwaddr address;
    hwaddr length;
    QLIST_ENTRY(SvioNicWindow) next;
} SvioNicWindow;

typedef struct SvioTranslation SvioTranslation;

/* A doorbell under KVM, see svio_bell.c. */
typedef struct SvioBell {
    EventNotifier event;
    SvioFunction *function;
    uint32_t offset;
} SvioBell;

struct SvioFunction {
    PCIDevice parent_obj;

    SvioNic *nic; /* whose function this is */
    unsigned slot;
    bool shown; /* a VF: the guest has enabled it */

    MemoryRegion registers;
    MemoryRegion msix;

    SvioIrqfd irqfd;

    SvioBell bells[2 * SVIO_MAX_QUEUE_PAIRS];
    unsigned bells_made;
    QLIST_ENTRY(SvioFunction) next_with_bells;

    AddressSpace *dma; /* where the board reads and writes, and the listener listens */
    MemoryListener listener;
    bool remap;            /* the map has changed, and its commit is to come */
    SvioTranslation **atc; /* behind an IOMMU, see svio_atc.c; NULL: none */
    bool atc_deaf;         /* that IOMMU would not tell what is not true any more */
    QLIST_HEAD(, SvioIommuSection) iommu_sections;
    /* Changed with the BQL and a paused board. */
    QLIST_HEAD(, SvioNicWindow) windows;
};

struct SvioNic {
    SvioFunction parent_obj;

    /* properties */
    NICConf conf;
    uint32_t cores;
    uint32_t queue_pairs;
    uint32_t queue_size;
    uint32_t poll_us;
    uint32_t stall_ms;
    bool halt_poll;
    char *mgmt; /* path of the management socket */
    bool ioeventfd;
    char *port;
    uint32_t vifs;
    bool auto_vif;
    char *signals; /* NULL: msix */
    bool stage_times;
    uint32_t port_mbps;
    char *executor; /* NULL: threads */
    uint32_t poll_cost_ns;
    uint32_t message_cost_ns;

    QEMUTimer *alarm; /* executor=virtual, see svio_virtual.c */
    bool sriov;       /* the capability and the VFs are there */
    NICState *nic;    /* NULL with a native port */
    SvioBoard *board;
    VMChangeStateEntry *vm_state;
    Notifier process_exit;
    bool stopped; /* the machine is, and we have paused the board for it */

    QLIST_HEAD(, SvioFunction) with_bells;

    /* Translations that cores wait for. */
    QemuMutex miss_mutex;
    QSIMPLEQ_HEAD(, SvioMiss) misses;
    QEMUBH *miss_bh;

    NotifierWithReturn migration;
    Error *migration_blocker;
    uint8_t *state; /* the board's, while it is written to or read from a migration stream */
    uint32_t state_length;
};

/* svio_function.c */
/* Adds the function to the board, which has not started, and initializes what the BARs map. */
bool svio_function_add(SvioFunction *function, SvioNic *nic, unsigned slot, Error **errp);
/* Capabilities, MSI-X; after the BARs are registered. */
bool svio_function_init_pci(SvioFunction *function, Error **errp);
/* The board is paused, and its cores have ended. */
void svio_function_exit(SvioFunction *function);
/* Bus master on or off, as the command register says now. The board is paused. */
void svio_function_update(SvioFunction *function);
void svio_function_register(void);

/* svio_sriov.c */
bool svio_sriov_check(SvioNic *nic, Error **errp);
/* Adds the virtual functions to the board, which has not started. */
bool svio_sriov_init(SvioNic *nic, Error **errp);
/* As if the guest had cleared VF Enable. */
void svio_sriov_disable(SvioNic *nic);
/* The cores have ended. */
void svio_sriov_exit(SvioNic *nic);
/* Whether a write to the PF's configuration space touches the capability; what of it QEMU may see. */
bool svio_sriov_concerns(PCIDevice *pci, uint32_t address, int length);
uint32_t svio_sriov_filter(PCIDevice *pci, uint32_t address, uint32_t value);
void svio_sriov_register(void);

/* svio_dma.c */
void svio_dma_fill_host(SvioFunctionHost *host);
void svio_dma_start(SvioFunction *function);
void svio_dma_stop(SvioFunction *function);
/* Bus mastering is on or off now. The board is paused. */
void svio_dma_update(SvioFunction *function, bool enabled);

/* svio_atc.c */
typedef bool SvioTake(void *taker, const uint8_t *piece, size_t length);
void svio_atc_init(SvioNic *nic);
void svio_atc_exit(SvioNic *nic);
void svio_atc_attend(void *opaque);
/* Whether there is an IOMMU before the function that tells of each invalidation. */
bool svio_atc_possible(PCIDevice *pci);
/* The listener is not registered. */
void svio_atc_start(SvioFunction *function);
void svio_atc_stop(SvioFunction *function);
void svio_atc_section_added(SvioFunction *function, MemoryRegionSection *section);
void svio_atc_section_removed(SvioFunction *function, MemoryRegionSection *section);
void svio_atc_flush(SvioFunction *function);
bool svio_atc_copy(SvioFunction *function, hwaddr address, void *data, size_t length, bool write);
bool svio_atc_show(SvioFunction *function, hwaddr address, size_t length, SvioTake *take, void *taker);
void svio_atc_use_window(SvioNicWindow *window);
void svio_atc_window_written(SvioNicWindow *window, size_t offset, size_t length);

/* svio_migration.c */
void svio_migration_class_init(DeviceClass *dc);
/* First of all: a machine with this card may have to stay where it is. */
bool svio_migration_check(SvioNic *nic, Error **errp);
void svio_migration_start(SvioNic *nic);
void svio_migration_stop(SvioNic *nic);

/* svio_net.c */
void svio_net_fill_host(SvioHost *host);
void svio_net_start(SvioNic *nic);
void svio_net_stop(SvioNic *nic);
void svio_net_link_loaded(SvioNic *nic);

/* svio_virtual.c */
bool svio_virtual(const SvioNic *nic);
bool svio_virtual_check(SvioNic *nic, Error **errp);
void svio_virtual_fill(SvioNic *nic, SvioHost *host, SvioBoardConfig *config);
void svio_virtual_exit(SvioNic *nic);

/* svio_bell.c */
void svio_bell_start(SvioFunction *function);
void svio_bell_stop(SvioFunction *function);
/* Ring what waits: before anything else that the guest does, or that the machine does to it. */
void svio_bell_settle(SvioFunction *function);
void svio_bell_settle_all(SvioNic *nic);

/* svio_halt.c */
void svio_halt_polling(void *opaque, bool polling);

/* svio_qom.c */
void svio_qom_class_init(ObjectClass *klass);

#endif
