/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory for the board: always through the function's own address space, and RAM alone.
 *
 * Nothing here may wait for the BQL: cores call it while they are active, and whoever pauses the board holds
 * it. So an access is made only where QEMU would copy directly; address_space_rw() would take the BQL for ROM
 * and for the BARs of assigned devices.
 */
#include "svio_nic.h"

#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/pci/pci_bus.h"

static const MemTxAttrs ram_only = {.memory = 1};

static bool svio_dma_copy(SvioFunction *function, uint64_t address, void *host, size_t length,
                          bool is_write) {
    AddressSpace *as = function->dma;
    uint8_t *at = host;

    if (function->atc) {
        return svio_atc_copy(function, address, host, length, is_write);
    }
    RCU_READ_LOCK_GUARD();
    while (length > 0) {
        hwaddr piece = length, offset;
        MemoryRegion *mr = address_space_translate(as, address, &offset, &piece, is_write, ram_only);
        void *ram;

        /* Asked as for a write: ROM could be read, but it is no RAM either. */
        if (!memory_access_is_direct(mr, true, ram_only)) {
            return false;
        }
        ram = qemu_map_ram_ptr(mr->ram_block, offset);
        if (is_write) {
            /* From another function's memory, perhaps, which may be the same. */
            memmove(ram, at, piece);
            /* As after address_space_map(): dirty log, and code that TCG has translated from here. */
            memory_region_ref(mr);
            address_space_unmap(as, ram, piece, true, piece);
        } else {
            memcpy(at, ram, piece);
        }
        address += piece;
        at += piece;
        length -= piece;
    }
    return true;
}

static bool svio_dma_read(void *opaque, uint64_t address, void *to, size_t length) {
    return svio_dma_copy(opaque, address, to, length, false);
}

static bool svio_dma_write(void *opaque, uint64_t address, const void *from, size_t length) {
    return svio_dma_copy(opaque, address, (void *)from, length, true);
}

/* Within the RCU read section what is taken stays mapped; taking it may write to another function's memory.
 */
static bool svio_dma_show(void *opaque, uint64_t address, size_t length, SvioTake *take, void *taker) {
    SvioFunction *function = opaque;
    AddressSpace *as = function->dma;

    if (function->atc) {
        return svio_atc_show(function, address, length, take, taker);
    }
    RCU_READ_LOCK_GUARD();
    while (length > 0) {
        hwaddr piece = length, offset;
        MemoryRegion *mr = address_space_translate(as, address, &offset, &piece, false, ram_only);

        if (!memory_access_is_direct(mr, true, ram_only) ||
            !take(taker, qemu_map_ram_ptr(mr->ram_block, offset), piece)) {
            return false;
        }
        address += piece;
        length -= piece;
    }
    return true;
}

/* ---- windows ---- */

/* With a virtual IOMMU the cache has no pointer, and each access is translated; or, where the function caches
 * translations, it has one once it is used. */
static bool svio_window_map(SvioFunction *function, SvioNicWindow *window) {
    AddressSpace *as = function->dma;
    MemoryRegion *mr;
    int64_t got;

    window->tried = false;
    if (function->atc) {
        return true;
    }
    got = address_space_cache_init(&window->cache, as, window->address, window->length, true);
    mr = window->cache.mrs.mr;
    window->board.direct = got >= (int64_t)window->length ? window->cache.ptr : NULL;
    return window->board.direct || (got >= (int64_t)window->length && memory_region_get_iommu(mr));
}

static void svio_window_unmap(SvioNicWindow *window) {
    window->board.direct = NULL;
    window->mr = NULL;
    address_space_cache_destroy(&window->cache); /* of what was never made: nothing */
    address_space_cache_init_empty(&window->cache);
}

static SvioWindow *svio_window_open(void *opaque, uint64_t address, size_t length, bool now) {
    SvioFunction *function = opaque;
    SvioNicWindow *window;

    if (address + length < address) {
        return NULL;
    }
    window = g_new0(SvioNicWindow, 1);
    window->function = function;
    address_space_cache_init_empty(&window->cache);
    window->address = address;
    window->length = length;
    /* What is out of reach for now is mapped when the memory map changes: see svio_dma_commit(). */
    if (!svio_window_map(function, window) && now) {
        svio_window_unmap(window);
        g_free(window);
        return NULL;
    }
    QLIST_INSERT_HEAD(&function->windows, window, next);
    return &window->board;
}

static void svio_window_close(void *opaque, SvioWindow *board) {
    SvioNicWindow *window = container_of(board, SvioNicWindow, board);

    QLIST_REMOVE(window, next);
    svio_window_unmap(window);
    g_free(window);
}

static bool svio_window_load(void *opaque, SvioWindow *board, size_t offset, void *to, size_t length) {
    SvioNicWindow *window = container_of(board, SvioNicWindow, board);

    if (window->withdrawn || !svio_dma_copy(opaque, window->address + offset, to, length, false)) {
        return false;
    }
    if (window->function->atc) {
        svio_atc_use_window(window);
    }
    return true;
}

static bool svio_window_store(void *opaque, SvioWindow *board, size_t offset, const void *from,
                              size_t length) {
    SvioNicWindow *window = container_of(board, SvioNicWindow, board);

    return !window->withdrawn && svio_dma_copy(opaque, window->address + offset, (void *)from, length, true);
}

static void svio_window_written(void *opaque, SvioWindow *board, size_t offset, size_t length) {
    SvioNicWindow *window = container_of(board, SvioNicWindow, board);

    if (window->mr) {
        svio_atc_window_written(window, offset, length);
    } else {
        address_space_cache_invalidate(&window->cache, offset, length);
    }
}

/* The memory map of some function or CPU changes; this is said for each piece that ours loses or gets. */
static void svio_dma_added(MemoryListener *listener, MemoryRegionSection *section) {
    SvioFunction *function = container_of(listener, SvioFunction, listener);

    function->remap = true;
    svio_atc_section_added(function, section);
}

static void svio_dma_removed(MemoryListener *listener, MemoryRegionSection *section) {
    SvioFunction *function = container_of(listener, SvioFunction, listener);

    function->remap = true;
    svio_atc_section_removed(function, section);
}

/* The memory map has changed: bus master, hotplug, or anything else. */
static void svio_dma_commit(MemoryListener *listener) {
    SvioFunction *function = container_of(listener, SvioFunction, listener);
    SvioNicWindow *window;

    if (!function->remap) {
        return;
    }
    function->remap = false;
    svio_atc_flush(function);
    if (QLIST_EMPTY(&function->windows)) {
        return;
    }
    svio_board_pause(function->nic->board);
    QLIST_FOREACH(window, &function->windows, next) {
        svio_window_unmap(window);
        svio_window_map(function, window);
    }
    svio_board_resume(function->nic->board);
}

static void svio_dma_listen(SvioFunction *function, AddressSpace *as) {
    function->dma = as;
    function->remap = true; /* open windows are elsewhere now */
    function->listener = (MemoryListener){
        .name = "svio-nic",
        .region_add = svio_dma_added,
        .region_del = svio_dma_removed,
        .commit = svio_dma_commit,
    };
    memory_listener_register(&function->listener, as);
}

/*
 * QEMU asks the IOMMU for a function's address space when the machine is made. That of amd-iommu (QEMU 10.0)
 * is the one of the bus number that the function has at that time, and behind a root port this is 0: the
 * function would be translated as whatever sits in its slot of bus 0, which the guest lets reach nothing. So
 * it is asked again now that the guest has numbered its buses. What the board may do without bus mastering,
 * which is nothing, does not depend on the address space.
 */
static AddressSpace *svio_dma_space(SvioFunction *function) {
    PCIDevice *pci = PCI_DEVICE(function);
    AddressSpace *iommu = pci_device_iommu_address_space(pci);

    if (iommu == &address_space_memory || iommu->root == pci->bus_master_enable_region.alias) {
        return pci_get_address_space(pci);
    }
    return iommu;
}

void svio_dma_update(SvioFunction *function, bool enabled) {
    /*
     * Behind a virtual IOMMU a translation may report a fault, which takes the BQL, and amd-iommu has no lock
     * of its own: cores hold it all the time, unless the function can cache translations (svio_atc.c). Asked
     * for now rather than when the device is realized: the IOMMU may come later on the command line.
     */
    bool iommu = pci_device_iommu_address_space(PCI_DEVICE(function)) != &address_space_memory;
    bool atc = svio_atc_possible(PCI_DEVICE(function));
    AddressSpace *as = enabled ? svio_dma_space(function) : function->dma;

    if (as != function->dma || atc != !!function->atc) {
        memory_listener_unregister(&function->listener);
        svio_atc_stop(function);
        if (atc) {
            svio_atc_start(function);
        }
        svio_dma_listen(function, as);
    }
    svio_board_set_dma(function->nic->board, function->slot, enabled, iommu && !function->atc);
}

void svio_dma_fill_host(SvioFunctionHost *host) {
    host->read = svio_dma_read;
    host->write = svio_dma_write;
    host->show = svio_dma_show;
    host->window_open = svio_window_open;
    host->window_close = svio_window_close;
    host->window_load = svio_window_load;
    host->window_store = svio_window_store;
    host->window_written = svio_window_written;
}

void svio_dma_start(SvioFunction *function) {
    svio_dma_listen(function, pci_get_address_space(PCI_DEVICE(function)));
}

void svio_dma_stop(SvioFunction *function) {
    if (function->dma) {
        memory_listener_unregister(&function->listener);
        svio_atc_stop(function);
        function->dma = NULL;
    }
}
