/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine's memory, for the board of svio-vif: what is in files that others may map. */
#include "svio_vif.h"

#include "exec/address-spaces.h"
#include "exec/ramblock.h"
#include "qapi/error.h"
#include "qemu/error-report.h"

static void svio_vif_begin(MemoryListener *listener) {
    SvioVif *vif = container_of(listener, SvioVif, listener);

    g_array_set_size(vif->building, 0);
}

static bool svio_vif_follows(const SvioRegion *last, const SvioRegion *next) {
    return last->fd == next->fd && last->region.address + last->region.size == next->region.address &&
           last->region.offset + last->region.size == next->region.offset;
}

/* RAM that has a file which others may map. Anything else is out of the board's reach. */
static void svio_vif_region(MemoryListener *listener, MemoryRegionSection *section) {
    SvioVif *vif = container_of(listener, SvioVif, listener);
    MemoryRegion *mr = section->mr;
    uint64_t page = qemu_real_host_page_size(), skip, size = int128_get64(section->size);
    SvioRegion made = {};

    if (!memory_region_is_ram(mr) || memory_region_is_rom(mr) || memory_region_is_ram_device(mr) ||
        section->readonly || memory_region_get_fd(mr) < 0 || !qemu_ram_is_shared(mr->ram_block)) {
        return;
    }
    skip = -section->offset_within_address_space & (page - 1);
    if (size < skip + page) {
        return;
    }
    made.fd = memory_region_get_fd(mr);
    made.region.address = section->offset_within_address_space + skip;
    made.region.size = (size - skip) & -page;
    made.region.offset = mr->ram_block->fd_offset + section->offset_within_region + skip;
    if (made.region.offset & (page - 1)) {
        return;
    }
    if (vif->building->len > 0) {
        SvioRegion *last = &g_array_index(vif->building, SvioRegion, vif->building->len - 1);

        if (svio_vif_follows(last, &made)) {
            last->region.size += made.region.size;
            return;
        }
    }
    g_array_append_val(vif->building, made);
}

int svio_vif_share(SvioVif *vif) {
    g_autoptr(GByteArray) payload = g_byte_array_new();
    struct svio_attach_memory head = {.count = MIN(vif->regions->len, SVIO_ATTACH_REGIONS_MAX)};
    int fds[SVIO_ATTACH_REGIONS_MAX];

    if (head.count < vif->regions->len) {
        warn_report_once("svio-vif: the machine's memory is in more than %d pieces; the board cannot reach "
                         "the others",
                         SVIO_ATTACH_REGIONS_MAX);
    }
    g_byte_array_append(payload, (const uint8_t *)&head, sizeof(head));
    for (unsigned n = 0; n < head.count; n++) {
        SvioRegion *region = &g_array_index(vif->regions, SvioRegion, n);

        fds[n] = region->fd;
        g_byte_array_append(payload, (const uint8_t *)&region->region, sizeof(region->region));
    }
    return svio_vif_ask(vif, SVIO_ATTACH_MEMORY, payload->data, payload->len, fds, head.count, NULL, 0, NULL);
}

/* Answered before QEMU goes on: what has left the table is not used any more. */
static void svio_vif_commit(MemoryListener *listener) {
    SvioVif *vif = container_of(listener, SvioVif, listener);
    GArray *former = vif->regions;

    if (former->len == vif->building->len &&
        !memcmp(former->data, vif->building->data, former->len * sizeof(SvioRegion))) {
        return;
    }
    vif->regions = vif->building;
    vif->building = former;
    if (svio_vif_share(vif) > SVIO_ST_OK) {
        error_report("svio-vif: the board refuses the machine's memory (its log says why)");
    }
}

bool svio_vif_check_memory(Error **errp) {
    MemoryRegionSection low = memory_region_find(get_system_memory(), 0, qemu_real_host_page_size());
    bool good = low.mr && memory_region_is_ram(low.mr) && memory_region_get_fd(low.mr) >= 0 &&
                qemu_ram_is_shared(low.mr->ram_block);

    if (low.mr) {
        memory_region_unref(low.mr);
    }
    if (!good) {
        error_setg(errp, "svio-vif: the machine's memory cannot be shared with the board: add -object "
                         "memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram");
    }
    return good;
}

void svio_vif_memory_start(SvioVif *vif) {
    vif->regions = g_array_new(FALSE, TRUE, sizeof(SvioRegion));
    vif->building = g_array_new(FALSE, TRUE, sizeof(SvioRegion));
    vif->listener = (MemoryListener){
        .name = "svio-vif",
        .begin = svio_vif_begin,
        .region_add = svio_vif_region,
        .region_nop = svio_vif_region,
        .commit = svio_vif_commit,
    };
    memory_listener_register(&vif->listener, &address_space_memory);
}

void svio_vif_memory_stop(SvioVif *vif) {
    memory_listener_unregister(&vif->listener);
    g_array_free(vif->regions, TRUE);
    g_array_free(vif->building, TRUE);
}
