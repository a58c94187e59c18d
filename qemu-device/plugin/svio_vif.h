/* SPDX-License-Identifier: GPL-2.0-or-later */
/* svio-vif: see svio_vif.c. */
#ifndef SVIO_VIF_H
#define SVIO_VIF_H

#include "qemu/osdep.h"

#include "exec/memory.h"
#include "hw/pci/pci_device.h"
#include "net/net.h"
#include "qemu/event_notifier.h"
#include "qom/object.h"

#include "svio_attach.h"
#include "svio_halt.h"
#include "svio_irqfd.h"

#define TYPE_SVIO_VIF "svio-vif"
OBJECT_DECLARE_SIMPLE_TYPE(SvioVif, SVIO_VIF)

typedef struct SvioRegion {
    struct svio_attach_region region;
    int fd;
} SvioRegion;

/* What a guest reads while the board is away. */
typedef struct SvioKnown {
    uint32_t identity[(SVIO_REG_LINK_SPEED + 4) / 4]; /* registers from MAGIC to LINK_SPEED */
    uint32_t events;
    uint32_t event_vector;
} SvioKnown;

struct SvioVif {
    PCIDevice parent_obj;

    /* properties */
    char *board;
    char *name;
    MACAddr mac;
    uint32_t pairs;
    uint32_t queue_size;
    bool halt_poll;
    bool ioeventfd;

    MemoryRegion registers;
    MemoryRegion msix;
    SvioIrqfd irqfd;
    EventNotifier bells[2 * SVIO_MAX_QUEUE_PAIRS];
    bool bells_by_kvm;
    SvioHaltBoard *halt; /* NULL: waiting vCPUs do not look for the board's signals */

    int fd;        /* -1: the board is away */
    bool attached; /* it has taken us; what it says before that is an attempt */
    uint32_t tag;
    SvioKnown known;
    QEMUTimer *retry;

    MemoryListener listener;
    GArray *regions;  /* of SvioRegion: that the board has */
    GArray *building; /* in a transaction */

    VMChangeStateEntry *vm_state;
    bool dma; /* what the board was told */
    Error *migration_blocker;
};

/* svio_vif.c */
void svio_vif_register(void);
/* SVIO_ST_*, or -1: the board is away. answer: so many bytes, if the status is OK; answer_fds: NULL, or where
 * the two descriptors go that come with it. */
int svio_vif_ask(SvioVif *vif, uint32_t request, const void *payload, uint32_t length, const int *fds,
                 unsigned count, void *answer, uint32_t answer_length, int *answer_fds);
/* A request that is a number and, if fds is not NULL, so many descriptors. */
int svio_vif_count(SvioVif *vif, uint32_t request, uint32_t value, const int *fds);

/* svio_vif_memory.c */
/* The table is there afterwards, whether there is a board or not. */
void svio_vif_memory_start(SvioVif *vif);
void svio_vif_memory_stop(SvioVif *vif);
/* The table to the board; as svio_vif_ask(). */
int svio_vif_share(SvioVif *vif);
bool svio_vif_check_memory(Error **errp);

/* svio_vif_signals.c */
bool svio_vif_make_events(SvioVif *vif, Error **errp);
void svio_vif_free_events(SvioVif *vif);
/* Eventfds, and pages if that is agreed upon, to the board that is attached; as svio_vif_ask(). */
int svio_vif_give_events(SvioVif *vif, bool pages);
/* The board is away. */
void svio_vif_forget_pages(SvioVif *vif);
void svio_vif_raise_event(SvioVif *vif);
/* The doorbell of this register; -1: none that there is. */
int svio_vif_bell(SvioVif *vif, uint32_t offset);
void svio_vif_bells_by_kvm(SvioVif *vif, bool on);

#endif
