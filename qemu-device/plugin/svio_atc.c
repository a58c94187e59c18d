/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Behind a virtual IOMMU: translations that a function keeps (an address translation cache, as PCI Express
 * devices with ATS have one), so that cores reach guest memory without the BQL.
 *
 * A translation may report a fault, which is an interrupt and needs the BQL. So what is not in the cache is
 * translated by whoever holds it: the main loop, or, as the core that asks is active and a pause waits for
 * it, whoever pauses the board. What the guest takes out of its IOMMU's tables is taken out here before the
 * invalidation completes, with the board paused, so that no core has it in its hands any more.
 *
 * Of QEMU's IOMMUs only intel-iommu tells of each invalidation; behind others cores hold the BQL instead.
 */
#include "svio_nic.h"

#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/i386/intel_iommu.h"
#include "hw/i386/x86-iommu.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"

#define SVIO_ATC_BITS 10
#define SVIO_ATC_SIZE (1u << SVIO_ATC_BITS)
#define SVIO_PAGE 4096u

static const MemTxAttrs ram_only = {.memory = 1};

struct SvioTranslation {
    struct rcu_head rcu;
    hwaddr page; /* as the device says it */
    uint8_t *host;
    MemoryRegion *mr;
    bool write; /* not only reading is allowed */
};

/* An IOMMU's region in the function's address space. */
typedef struct SvioIommuSection {
    IOMMUNotifier notifier;
    SvioFunction *function;
    MemoryRegion *mr;
    hwaddr offset; /* from the region's addresses to the device's */
    QLIST_ENTRY(SvioIommuSection) next;
} SvioIommuSection;

/* What a core waits for. On its stack. */
typedef struct SvioMiss {
    SvioFunction *function;
    SvioNicWindow *window; /* or NULL: a page */
    hwaddr page;
    bool write;
    bool found;
    bool served;
    QSIMPLEQ_ENTRY(SvioMiss) next;
} SvioMiss;

bool svio_atc_possible(PCIDevice *pci) {
    X86IOMMUState *iommu = x86_iommu_get_default();

    return iommu && object_dynamic_cast(OBJECT(iommu), TYPE_INTEL_IOMMU_DEVICE) &&
           pci_device_iommu_address_space(pci) != &address_space_memory;
}

static SvioTranslation **svio_atc_place(SvioFunction *function, hwaddr page) {
    uint64_t mixed = (page / SVIO_PAGE) * 0x9e3779b97f4a7c15ull;

    return &function->atc[mixed >> (64 - SVIO_ATC_BITS)];
}

/* ---- with the BQL ---- */

/* Asks the IOMMU, which reports a fault where the guest did not map it. */
static bool svio_atc_fill(SvioFunction *function, hwaddr page, bool write) {
    SvioTranslation **place = svio_atc_place(function, page), *old = *place, *new;
    hwaddr offset, length = SVIO_PAGE;
    MemoryRegion *mr;

    RCU_READ_LOCK_GUARD();
    mr = address_space_translate(function->dma, page, &offset, &length, write, ram_only);
    /* Asked as for a write: ROM could be read, but it is no RAM either. */
    if (length < SVIO_PAGE || !memory_access_is_direct(mr, true, ram_only)) {
        return false;
    }
    new = g_new0(SvioTranslation, 1);
    new->page = page;
    new->host = qemu_map_ram_ptr(mr->ram_block, offset);
    new->mr = mr;
    new->write = write || (old && old->page == page && old->host == new->host && old->write);
    qatomic_rcu_set(place, new);
    if (old) {
        g_free_rcu(old, rcu);
    }
    return true;
}

/* A ring or event block in one piece of host memory is used as such. */
static void svio_atc_map_window(SvioNicWindow *window) {
    SvioFunction *function = window->function;
    hwaddr first = QEMU_ALIGN_DOWN(window->address, SVIO_PAGE), page;
    uint8_t *start = NULL;

    window->tried = true;
    for (page = first; page < window->address + window->length; page += SVIO_PAGE) {
        SvioTranslation *found = *svio_atc_place(function, page);

        if (!found || found->page != page || !found->write) {
            if (!svio_atc_fill(function, page, true)) {
                return;
            }
            found = *svio_atc_place(function, page);
        }
        if (page == first) {
            start = found->host;
            window->mr = found->mr;
        } else if (found->host != start + (page - first) || found->mr != window->mr) {
            return;
        }
    }
    window->board.direct = start + (window->address - first);
}

static void svio_atc_serve(SvioNic *nic) {
    SvioMiss *miss;

    for (;;) {
        WITH_QEMU_LOCK_GUARD(&nic->miss_mutex) {
            miss = QSIMPLEQ_FIRST(&nic->misses);
            if (miss) {
                QSIMPLEQ_REMOVE_HEAD(&nic->misses, next);
            }
        }
        if (!miss) {
            return;
        }
        if (miss->window) {
            svio_atc_map_window(miss->window);
        } else {
            miss->found = svio_atc_fill(miss->function, miss->page, miss->write);
        }
        WITH_QEMU_LOCK_GUARD(&nic->miss_mutex) {
            miss->served = true; /* it is the waiter's alone as soon as the mutex is free */
            qemu_cond_broadcast(&nic->miss_served);
        }
    }
}

static void svio_atc_bh(void *opaque) {
    svio_atc_serve(opaque);
}

/* Whoever pauses the board waits for a core that waits for the BQL. */
void svio_atc_attend(void *opaque) {
    if (bql_locked()) {
        svio_atc_serve(opaque);
    }
}

/* ---- from any thread ---- */

static bool svio_atc_ask(SvioFunction *function, SvioNicWindow *window, hwaddr page, bool write) {
    SvioNic *nic = function->nic;
    SvioMiss miss = {.function = function, .window = window, .page = page, .write = write};

    if (bql_locked()) {
        if (window) {
            svio_atc_map_window(window);
            return true;
        }
        return svio_atc_fill(function, page, write);
    }
    WITH_QEMU_LOCK_GUARD(&nic->miss_mutex) {
        QSIMPLEQ_INSERT_TAIL(&nic->misses, &miss, next);
    }
    qemu_bh_schedule(nic->miss_bh);
    svio_board_core_waits(nic->board, true);
    /* No QemuEvent on the stack: in QEMU 10.0 the late wake-up of a former one at the same place ends a wait
     * before its time. */
    WITH_QEMU_LOCK_GUARD(&nic->miss_mutex) {
        while (!miss.served) {
            qemu_cond_wait(&nic->miss_served, &nic->miss_mutex);
        }
    }
    svio_board_core_waits(nic->board, false);
    return window || miss.found;
}

static bool svio_atc_look(SvioFunction *function, hwaddr page, bool write, SvioTranslation *found) {
    SvioTranslation *here;

    RCU_READ_LOCK_GUARD();
    here = qatomic_rcu_read(svio_atc_place(function, page));
    if (!here || here->page != page || (write && !here->write)) {
        return false;
    }
    *found = *here;
    return true;
}

/* Where a page is in the host's memory. That stays true until the core is not active any more. */
static bool svio_atc_find(SvioFunction *function, hwaddr page, bool write, SvioTranslation *found) {
    if (!function->atc_deaf && svio_atc_look(function, page, write, found)) {
        return true;
    }
    /* More than one try is for what another core's page has displaced at once. */
    for (int tries = 0; tries < 8 && svio_atc_ask(function, NULL, page, write); tries++) {
        if (svio_atc_look(function, page, write, found)) {
            return true;
        }
    }
    return false;
}

/* Dirty log, and code that TCG has translated from here. */
static void svio_atc_written(SvioFunction *function, MemoryRegion *mr, uint8_t *host, hwaddr length) {
    memory_region_ref(mr);
    address_space_unmap(function->dma, host, length, true, length);
}

bool svio_atc_copy(SvioFunction *function, hwaddr address, void *data, size_t length, bool write) {
    uint8_t *at = data;

    while (length > 0) {
        hwaddr page = QEMU_ALIGN_DOWN(address, SVIO_PAGE);
        size_t piece = MIN(length, SVIO_PAGE - (address - page));
        SvioTranslation found;

        if (!svio_atc_find(function, page, write, &found)) {
            return false;
        }
        found.host += address - page;
        if (write) {
            /* From another function's memory, perhaps, which may be the same. */
            memmove(found.host, at, piece);
            svio_atc_written(function, found.mr, found.host, piece);
        } else {
            memcpy(at, found.host, piece);
        }
        address += piece;
        at += piece;
        length -= piece;
    }
    return true;
}

bool svio_atc_show(SvioFunction *function, hwaddr address, size_t length, SvioTake *take, void *taker) {
    while (length > 0) {
        hwaddr page = QEMU_ALIGN_DOWN(address, SVIO_PAGE);
        size_t piece = MIN(length, SVIO_PAGE - (address - page));
        SvioTranslation found;

        if (!svio_atc_find(function, page, false, &found) ||
            !take(taker, found.host + (address - page), piece)) {
            return false;
        }
        address += piece;
        length -= piece;
    }
    return true;
}

/* One that is used: from now on without a translation for each access, if it lies in one piece. */
void svio_atc_use_window(SvioNicWindow *window) {
    if (!qatomic_read(&window->tried) && !window->function->atc_deaf) {
        svio_atc_ask(window->function, window, 0, true);
    }
}

void svio_atc_window_written(SvioNicWindow *window, size_t offset, size_t length) {
    svio_atc_written(window->function, window->mr, window->board.direct + offset, length);
}

/* ---- what is not true any more: with the BQL ---- */

static bool svio_atc_holds(SvioFunction *function, hwaddr first, hwaddr last) {
    SvioNicWindow *window;

    QLIST_FOREACH(window, &function->windows, next) {
        if (window->tried && window->address <= last && window->address + (window->length - 1) >= first) {
            return true;
        }
    }
    for (unsigned i = 0; i < SVIO_ATC_SIZE; i++) {
        if (function->atc[i] && function->atc[i]->page >= first && function->atc[i]->page <= last) {
            return true;
        }
    }
    return false;
}

static void svio_atc_drop(SvioFunction *function, hwaddr first, hwaddr last) {
    SvioNicWindow *window;

    if (!function->atc || !svio_atc_holds(function, first, last)) {
        return;
    }
    svio_board_pause(function->nic->board);
    QLIST_FOREACH(window, &function->windows, next) {
        window->board.direct = NULL;
        window->tried = false;
    }
    for (unsigned i = 0; i < SVIO_ATC_SIZE; i++) {
        SvioTranslation *here = function->atc[i];

        if (here && here->page >= first && here->page <= last) {
            qatomic_rcu_set(&function->atc[i], NULL);
            g_free_rcu(here, rcu);
        }
    }
    svio_board_resume(function->nic->board);
}

void svio_atc_flush(SvioFunction *function) {
    svio_atc_drop(function, 0, HWADDR_MAX);
}

/* Whether the IOMMU's tables say nothing of the function (VT-d specification, 9.1 and 9.3); only asked of
 * legacy mode, in which an entry is 16 bytes and its first bit says that it is there. */
static bool svio_atc_is_nobodys(SvioFunction *function) {
    IntelIOMMUState *iommu = INTEL_IOMMU_DEVICE(x86_iommu_get_default());
    PCIDevice *pci = PCI_DEVICE(function);
    uint64_t entry = 0;

    if (!iommu->dmar_enabled || iommu->root_scalable) {
        return false;
    }
    dma_memory_read(&address_space_memory, iommu->root + 16 * pci_dev_bus_num(pci), &entry, sizeof(entry),
                    ram_only);
    entry = le64_to_cpu(entry);
    if (!(entry & 1)) {
        return true;
    }
    dma_memory_read(&address_space_memory, QEMU_ALIGN_DOWN(entry, SVIO_PAGE) + 16 * pci->devfn, &entry,
                    sizeof(entry), ram_only);
    return !(le64_to_cpu(entry) & 1);
}

/*
 * A function that is taken from its guest (VFIO, Xen) loses its context entry before anyone stops its queues.
 * A core that goes on to poll a ring would fill the IOMMU's records with faults that are nobody's; so the
 * queue fails without asking, and works again once it is enabled anew.
 */
static void svio_atc_withdraw(SvioFunction *function) {
    SvioNicWindow *window;

    svio_board_pause(function->nic->board);
    QLIST_FOREACH(window, &function->windows, next) {
        window->withdrawn = true;
    }
    svio_board_resume(function->nic->board);
}

static void svio_atc_unmapped(IOMMUNotifier *notifier, IOMMUTLBEntry *entry) {
    SvioIommuSection *section = container_of(notifier, SvioIommuSection, notifier);
    SvioFunction *function = section->function;
    hwaddr first = (entry->iova & ~entry->addr_mask) + section->offset, last = first + entry->addr_mask;

    svio_atc_drop(function, QEMU_ALIGN_DOWN(first, SVIO_PAGE), MAX(last, first));
    /* The whole section at once: the entry may have gone. Anything less is a change of pages. */
    if (entry->addr_mask >= notifier->end - notifier->start && !QLIST_EMPTY(&function->windows) &&
        svio_atc_is_nobodys(function)) {
        svio_atc_withdraw(function);
    }
}

void svio_atc_section_added(SvioFunction *function, MemoryRegionSection *section) {
    SvioIommuSection *known;
    Error *error = NULL;
    hwaddr first = section->offset_within_region;

    if (!function->atc || !memory_region_is_iommu(section->mr)) {
        return;
    }
    known = g_new0(SvioIommuSection, 1);
    known->function = function;
    known->mr = section->mr;
    known->offset = section->offset_within_address_space - first;
    iommu_notifier_init(&known->notifier, svio_atc_unmapped, IOMMU_NOTIFIER_UNMAP, first,
                        first + int128_get64(int128_sub(section->size, int128_one())),
                        memory_region_iommu_attrs_to_index(IOMMU_MEMORY_REGION(section->mr), ram_only));
    if (memory_region_register_iommu_notifier(section->mr, &known->notifier, &error)) {
        /* Nothing may be kept then, and an address is translated for each access: slow, and right. */
        warn_report_err(error);
        function->atc_deaf = true;
        g_free(known);
        return;
    }
    QLIST_INSERT_HEAD(&function->iommu_sections, known, next);
}

void svio_atc_section_removed(SvioFunction *function, MemoryRegionSection *section) {
    SvioIommuSection *known, *next;

    QLIST_FOREACH_SAFE(known, &function->iommu_sections, next, next) {
        if (known->mr == section->mr && known->notifier.start == section->offset_within_region) {
            memory_region_unregister_iommu_notifier(known->mr, &known->notifier);
            QLIST_REMOVE(known, next);
            g_free(known);
        }
    }
}

/* ---- life ---- */

void svio_atc_start(SvioFunction *function) {
    function->atc = g_new0(SvioTranslation *, SVIO_ATC_SIZE);
}

void svio_atc_stop(SvioFunction *function) {
    if (function->atc) {
        svio_atc_flush(function);
        g_clear_pointer(&function->atc, g_free);
    }
}

void svio_atc_init(SvioNic *nic) {
    qemu_mutex_init(&nic->miss_mutex);
    qemu_cond_init(&nic->miss_served);
    QSIMPLEQ_INIT(&nic->misses);
    nic->miss_bh = qemu_bh_new(svio_atc_bh, nic);
}

/* The cores have ended. */
void svio_atc_exit(SvioNic *nic) {
    qemu_bh_delete(nic->miss_bh);
    qemu_cond_destroy(&nic->miss_served);
    qemu_mutex_destroy(&nic->miss_mutex);
}
