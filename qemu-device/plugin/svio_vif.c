/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * svio-vif: a function whose VIF lives on a board that is another process (SPEC.md chapter 15). The board has
 * the registers, the machine's memory and eventfds both ways; here is what PCI wants.
 *
 * While the board is away the function answers from what it knew: its identity is what it was, its link is
 * down. When the board is back the function attaches anew, and the driver, told so by an event, resets it:
 * another VIF ID says that all is forgotten.
 */
#include "qemu/osdep.h"

#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "exec/ramblock.h"
#include "exec/replay-core.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties-system.h"
#include "hw/qdev-properties.h"
#include "migration/blocker.h"
#include "net/net.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/range.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "system/system.h"

#include "svio_attach.h"
#include "svio_pci.h"
#include "svio_vif.h"

#include <sys/socket.h>
#include <sys/un.h>

/* A board that does not answer for so long is dead to us. */
#define SVIO_VIF_PATIENCE_S 5
#define SVIO_VIF_RETRY_MS 200

#define TYPE_SVIO_VIF "svio-vif"
OBJECT_DECLARE_SIMPLE_TYPE(SvioVif, SVIO_VIF)

typedef struct SvioVector {
    EventNotifier event;
    SvioVif *vif;
    unsigned number;
} SvioVector;

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

    MemoryRegion registers;
    MemoryRegion msix;
    SvioVector vectors[SVIO_VECTORS];
    EventNotifier bells[2 * SVIO_MAX_QUEUE_PAIRS];
    bool bells_by_kvm;

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

/* ---- the connection ---- */

static void svio_vif_lost(SvioVif *vif, const char *why);

static bool svio_vif_send(int fd, const struct svio_attach_header *header, const void *payload,
                          const int *fds, unsigned count) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(SVIO_ATTACH_REGIONS_MAX * sizeof(int))];
    } control = {};
    struct iovec parts[2] = {{(void *)header, sizeof(*header)}, {(void *)payload, header->length}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = header->length ? 2 : 1};

    if (count > 0) {
        struct cmsghdr *rights;

        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof(*header) + header->length);
}

/* SVIO_ST_*, or -1: the board is away. answer: so many bytes, if the status is OK. */
static int svio_vif_ask(SvioVif *vif, uint32_t request, const void *payload, uint32_t length, const int *fds,
                        unsigned count, void *answer, uint32_t answer_length) {
    struct svio_attach_header header = {.request = request, .tag = ++vif->tag, .length = length};
    struct {
        struct svio_attach_header header;
        uint8_t payload[64];
    } back;
    ssize_t got;

    if (vif->fd < 0) {
        return -1;
    }
    if (!svio_vif_send(vif->fd, &header, payload, fds, count)) {
        svio_vif_lost(vif, "the connection ended");
        return -1;
    }
    do {
        got = recv(vif->fd, &back, sizeof(back), 0);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        svio_vif_lost(vif, got == 0 ? "the connection ended" : "it does not answer");
        return -1;
    }
    /* No trust in it either. */
    if ((size_t)got < sizeof(back.header) || back.header.request != (request | SVIO_ATTACH_ANSWER) ||
        back.header.tag != header.tag || back.header.length != got - sizeof(back.header) ||
        back.header.status >= SVIO_ST_COUNT ||
        back.header.length != (back.header.status == SVIO_ST_OK ? answer_length : 0)) {
        svio_vif_lost(vif, "its answer makes no sense");
        return -1;
    }
    if (back.header.length > 0) {
        memcpy(answer, back.payload, back.header.length);
    }
    return back.header.status;
}

static int svio_vif_count(SvioVif *vif, uint32_t request, uint32_t value, const int *fds) {
    struct svio_attach_count count = {.count = value};

    return svio_vif_ask(vif, request, &count, sizeof(count), fds, fds ? value : 0, NULL, 0);
}

static uint32_t svio_vif_get(SvioVif *vif, uint32_t offset) {
    struct svio_attach_register access = {.offset = offset};

    if (svio_vif_ask(vif, SVIO_ATTACH_READ, &access, sizeof(access), NULL, 0, &access, sizeof(access)) !=
        SVIO_ST_OK) {
        return 0;
    }
    return access.value;
}

static void svio_vif_put(SvioVif *vif, uint32_t offset, uint32_t value) {
    struct svio_attach_register access = {.offset = offset, .value = value};

    svio_vif_ask(vif, SVIO_ATTACH_WRITE, &access, sizeof(access), NULL, 0, NULL, 0);
}

/* ---- memory ---- */

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

static int svio_vif_share(SvioVif *vif) {
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
    return svio_vif_ask(vif, SVIO_ATTACH_MEMORY, payload->data, payload->len, fds, head.count, NULL, 0);
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

static bool svio_vif_check_memory(Error **errp) {
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

/* ---- signals and doorbells ---- */

static void svio_vif_signalled(EventNotifier *event) {
    SvioVector *vector = container_of(event, SvioVector, event);
    PCIDevice *pci = PCI_DEVICE(vector->vif);

    if (event_notifier_test_and_clear(event) && msix_enabled(pci)) {
        msix_notify(pci, vector->number);
    }
}

static void svio_vif_raise_event(SvioVif *vif) {
    if (vif->known.event_vector < SVIO_VECTORS && msix_enabled(PCI_DEVICE(vif))) {
        msix_notify(PCI_DEVICE(vif), vif->known.event_vector);
    }
}

/* -1: no doorbell that there is. */
static int svio_vif_bell(SvioVif *vif, uint32_t offset) {
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        if (offset == SVIO_BELL(n / 2, n % 2)) {
            return n;
        }
    }
    return -1;
}

/* ---- attaching ---- */

/* On failure one sentence. */
static int svio_vif_connect(SvioVif *vif, Error **errp) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = SVIO_VIF_PATIENCE_S};
    int fd;

    if (strlen(vif->board) >= sizeof(address.sun_path)) {
        error_setg(errp, "svio-vif: board=%s is too long for a socket's path", vif->board);
        return -1;
    }
    strcpy(address.sun_path, vif->board);
    fd = qemu_socket(AF_UNIX, SOCK_SEQPACKET, 0);
    /* One that accepts nobody must not hold the machine up. */
    if (fd < 0 || !g_unix_set_fd_nonblocking(fd, true, NULL) ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        error_setg_errno(errp, errno, "svio-vif: no board at %s (svio-board --socket %s makes one)",
                         vif->board, vif->board);
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    g_unix_set_fd_nonblocking(fd, false, NULL);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    return fd;
}

static void svio_vif_readable(void *opaque) {
    SvioVif *vif = opaque;
    uint8_t byte;

    /* Answers are waited for: what comes unasked is the end. But the main loop looks without the BQL, and may
     * have seen an answer that a vCPU has taken meanwhile. */
    if (recv(vif->fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN) {
        svio_vif_lost(vif, "the connection ended");
    }
}

/* Into a field that is zero, cut to its size. */
static void svio_vif_text(uint8_t *field, size_t size, const char *text) {
    if (text) {
        memcpy(field, text, MIN(strlen(text), size));
    }
}

/* The handshake; the name of what went wrong, or NULL. */
static const char *svio_vif_greet(SvioVif *vif, int *status) {
    struct svio_attach_hello hello = {.version = SVIO_ATTACH_VERSION};
    struct svio_attach_vif wanted = {.queue_pairs = vif->pairs, .queue_size = vif->queue_size};
    struct svio_attach_place place;
    int signals[SVIO_VECTORS], bells[2 * SVIO_MAX_QUEUE_PAIRS];

    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        signals[n] = event_notifier_get_fd(&vif->vectors[n].event);
    }
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        bells[n] = event_notifier_get_fd(&vif->bells[n]);
    }
    memcpy(wanted.mac, vif->mac.a, sizeof(wanted.mac));
    svio_vif_text(wanted.name, sizeof(wanted.name), vif->name);
    svio_vif_text(wanted.machine, sizeof(wanted.machine), qemu_name);
    *status = svio_vif_ask(vif, SVIO_ATTACH_HELLO, &hello, sizeof(hello), NULL, 0, &hello, sizeof(hello));
    if (*status != SVIO_ST_OK || hello.version != SVIO_ATTACH_VERSION || hello.vectors != SVIO_VECTORS) {
        return "the version of the protocol";
    }
    *status = svio_vif_ask(vif, SVIO_ATTACH_ATTACH, &wanted, sizeof(wanted), NULL, 0, &place, sizeof(place));
    if (*status != SVIO_ST_OK) {
        return "a VIF of this name and MAC address";
    }
    *status = svio_vif_share(vif);
    if (*status != SVIO_ST_OK) {
        return "the machine's memory";
    }
    *status = svio_vif_count(vif, SVIO_ATTACH_SIGNALS, SVIO_VECTORS, signals);
    if (*status == SVIO_ST_OK) {
        *status = svio_vif_count(vif, SVIO_ATTACH_BELLS, 2 * vif->pairs, bells);
    }
    return *status == SVIO_ST_OK ? NULL : "signals and doorbells";
}

static bool svio_vif_attach(SvioVif *vif, Error **errp) {
    static const char *const names[] = {SVIO_ST_NAMES};
    const char *what;
    int status;

    vif->fd = svio_vif_connect(vif, errp);
    if (vif->fd < 0) {
        return false;
    }
    what = svio_vif_greet(vif, &status);
    if (what) {
        error_setg(errp, "svio-vif: the board at %s does not take %s: %s", vif->board, what,
                   status > SVIO_ST_OK ? names[status] : "no sensible answer");
        if (vif->fd >= 0) {
            close(vif->fd);
            vif->fd = -1;
        }
        return false;
    }
    qemu_set_fd_handler(vif->fd, svio_vif_readable, NULL, vif);
    for (uint32_t offset = 0; offset < sizeof(vif->known.identity); offset += 4) {
        vif->known.identity[offset / 4] = svio_vif_get(vif, offset);
    }
    vif->dma = false;
    vif->attached = vif->fd >= 0;
    return vif->attached;
}

static void svio_vif_update_dma(SvioVif *vif) {
    bool wanted =
        runstate_is_running() && pci_get_word(PCI_DEVICE(vif)->config + PCI_COMMAND) & PCI_COMMAND_MASTER;

    if (vif->fd >= 0 && wanted != vif->dma) {
        vif->dma = wanted;
        svio_vif_count(vif, SVIO_ATTACH_DMA, wanted, NULL);
    }
}

/* The board is away: the link is down. Of an attempt that fails the guest knows nothing, nor need people be
 * told five times a second. */
static void svio_vif_lost(SvioVif *vif, const char *why) {
    if (vif->fd < 0) {
        return;
    }
    qemu_set_fd_handler(vif->fd, NULL, NULL, NULL);
    close(vif->fd);
    vif->fd = -1;
    if (!vif->attached) {
        return;
    }
    vif->attached = false;
    warn_report("svio-vif: the board at %s is away (%s): the link is down until it is back", vif->board, why);
    vif->known.events |= SVIO_EVENT_LINK;
    svio_vif_raise_event(vif);
    timer_mod(vif->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + SVIO_VIF_RETRY_MS);
}

static void svio_vif_retry(void *opaque) {
    SvioVif *vif = opaque;
    Error *why = NULL;

    if (!svio_vif_attach(vif, &why)) {
        error_free(why);
        timer_mod(vif->retry, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + SVIO_VIF_RETRY_MS);
        return;
    }
    info_report("svio-vif: the board at %s is back", vif->board);
    vif->known.events = 0;
    if (vif->known.event_vector < SVIO_VECTORS) {
        svio_vif_put(vif, SVIO_REG_EVENT_VECTOR, vif->known.event_vector);
    }
    svio_vif_update_dma(vif);
    /* The board has set SVIO_EVENT_CONFIG when it made the VIF, before it knew the vector. */
    svio_vif_raise_event(vif);
}

/* ---- BAR 0 ---- */

/* As long as the board is away. */
static uint32_t svio_vif_read_known(SvioVif *vif, uint32_t offset) {
    switch (offset) {
    case SVIO_REG_STATUS:
        return SVIO_STATUS_READY;
    case SVIO_REG_CONTROL:
    case SVIO_REG_DRIVER_FEATURES_LO:
    case SVIO_REG_DRIVER_FEATURES_HI:
        return 0;
    case SVIO_REG_EVENT:
        return vif->known.events;
    case SVIO_REG_EVENT_VECTOR:
        return vif->known.event_vector;
    default:
        return offset < sizeof(vif->known.identity) ? vif->known.identity[offset / 4] : 0;
    }
}

static uint32_t svio_vif_read_word(SvioVif *vif, uint32_t offset) {
    uint32_t value = vif->fd >= 0 ? svio_vif_get(vif, offset) : 0;

    /* It may have gone just now. */
    return vif->fd >= 0 ? value : svio_vif_read_known(vif, offset);
}

static void svio_vif_write_word(SvioVif *vif, uint32_t offset, uint32_t value) {
    int bell = svio_vif_bell(vif, offset);

    if (bell >= 0) {
        event_notifier_set(&vif->bells[bell]);
        return;
    }
    if (offset == SVIO_REG_EVENT_VECTOR) {
        vif->known.event_vector = value;
    } else if (offset == SVIO_REG_CONTROL && value & SVIO_CONTROL_RESET) {
        vif->known.event_vector = SVIO_NO_VECTOR;
        vif->known.events = 0;
    } else if (offset == SVIO_REG_EVENT) {
        vif->known.events &= ~value;
    }
    svio_vif_put(vif, offset, value);
}

static uint64_t svio_vif_read(void *opaque, hwaddr offset, unsigned size) {
    SvioVif *vif = opaque;

    if (offset % size != 0 || size < 4) {
        svio_vif_ask(vif, SVIO_ATTACH_BAD_ACCESS, NULL, 0, NULL, 0, NULL, 0);
        return 0;
    }
    if (size == 4) {
        return svio_vif_read_word(vif, offset);
    }
    return svio_vif_read_word(vif, offset) | (uint64_t)svio_vif_read_word(vif, offset + 4) << 32;
}

static void svio_vif_write(void *opaque, hwaddr offset, uint64_t value, unsigned size) {
    SvioVif *vif = opaque;

    if (offset % size != 0 || size < 4) {
        svio_vif_ask(vif, SVIO_ATTACH_BAD_ACCESS, NULL, 0, NULL, 0, NULL, 0);
        return;
    }
    svio_vif_write_word(vif, offset, value);
    if (size == 8) {
        svio_vif_write_word(vif, offset + 4, value >> 32);
    }
}

static const MemoryRegionOps svio_vif_ops = {
    .read = svio_vif_read,
    .write = svio_vif_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
    .impl = {.min_access_size = 1, .max_access_size = 8, .unaligned = true},
};

/* ---- PCI ---- */

static void svio_vif_write_config(PCIDevice *pci, uint32_t address, uint32_t value, int length) {
    SvioVif *vif = SVIO_VIF(pci);

    pci_default_write_config(pci, address, value, length);
    if (range_covers_byte(address, length, PCI_COMMAND)) {
        svio_vif_update_dma(vif);
    }
    if (pci_is_express(pci)) {
        pcie_cap_flr_write_config(pci, address, value, length);
    }
}

static void svio_vif_vm_state(void *opaque, bool running, RunState state) {
    svio_vif_update_dma(opaque);
}

static void svio_vif_reset_hold(Object *obj, ResetType type) {
    SvioVif *vif = SVIO_VIF(obj);

    /* PCI clears bus mastering next. */
    if (vif->fd >= 0 && vif->dma) {
        vif->dma = false;
        svio_vif_count(vif, SVIO_ATTACH_DMA, 0, NULL);
    }
    svio_vif_ask(vif, SVIO_ATTACH_RESET, NULL, 0, NULL, 0, NULL, 0);
    vif->known.event_vector = SVIO_NO_VECTOR;
    vif->known.events = 0;
}

/* ---- birth and death ---- */

static bool svio_vif_check(SvioVif *vif, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(vif);

    if (!vif->board || !*vif->board) {
        error_setg(errp, "svio-vif: board=PATH is missing, the socket of an svio-board");
    } else if (vif->pairs < 1 || vif->pairs > SVIO_MAX_QUEUE_PAIRS) {
        error_setg(errp, "svio-vif: queues=%u is not between 1 and %d", vif->pairs, SVIO_MAX_QUEUE_PAIRS);
    } else if (!is_power_of_2(vif->queue_size) || vif->queue_size < SVIO_QUEUE_MIN ||
               vif->queue_size > SVIO_QUEUE_MAX) {
        error_setg(errp, "svio-vif: queue-size=%u is not a power of two between %d and %d", vif->queue_size,
                   SVIO_QUEUE_MIN, SVIO_QUEUE_MAX);
    } else if (vif->name && strlen(vif->name) > sizeof(((struct svio_attach_vif *)0)->name)) {
        error_setg(errp, "svio-vif: vif=%s is longer than 32 bytes", vif->name);
    } else if (pci_device_iommu_address_space(pci) != &address_space_memory) {
        error_setg(errp,
                   "svio-vif: a board that is another process does not see through the machine's IOMMU: "
                   "take the IOMMU away, or use -device svio-nic");
    } else {
        return svio_vif_check_memory(errp);
    }
    return false;
}

static void svio_vif_free_events(SvioVif *vif) {
    for (unsigned n = 0; n < SVIO_VECTORS; n++) {
        if (vif->vectors[n].vif) {
            event_notifier_set_handler(&vif->vectors[n].event, NULL);
            event_notifier_cleanup(&vif->vectors[n].event);
            vif->vectors[n].vif = NULL;
        }
    }
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        event_notifier_cleanup(&vif->bells[n]);
    }
}

static bool svio_vif_make_events(SvioVif *vif, Error **errp) {
    int failed = 0;

    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        failed |= event_notifier_init(&vif->bells[n], 0);
    }
    for (unsigned n = 0; n < SVIO_VECTORS && !failed; n++) {
        SvioVector *vector = &vif->vectors[n];

        failed |= event_notifier_init(&vector->event, 0);
        if (!failed) {
            vector->vif = vif;
            vector->number = n;
            event_notifier_set_handler(&vector->event, svio_vif_signalled);
        }
    }
    if (failed) {
        svio_vif_free_events(vif);
        error_setg(errp, "svio-vif: no eventfds are left for this process");
    }
    return !failed;
}

/* Under KVM a doorbell goes to the board without QEMU. */
static void svio_vif_bells_by_kvm(SvioVif *vif, bool on) {
    if (on == vif->bells_by_kvm || (on && !kvm_enabled())) {
        return;
    }
    vif->bells_by_kvm = on;
    memory_region_transaction_begin();
    for (unsigned n = 0; n < 2 * vif->pairs; n++) {
        (on ? memory_region_add_eventfd : memory_region_del_eventfd)(&vif->registers, SVIO_BELL(n / 2, n % 2),
                                                                     4, false, 0, &vif->bells[n]);
    }
    memory_region_transaction_commit();
}

static bool svio_vif_init_pci(SvioVif *vif, Error **errp) {
    PCIDevice *pci = PCI_DEVICE(vif);
    uint8_t type = PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64;

    memory_region_init_io(&vif->registers, OBJECT(vif), &svio_vif_ops, vif, "svio-registers",
                          SVIO_BAR_REGS_SIZE);
    memory_region_init(&vif->msix, OBJECT(vif), "svio-msix", SVIO_BAR_MSIX_SIZE);
    pci_register_bar(pci, SVIO_BAR_REGS, type, &vif->registers);
    pci_register_bar(pci, SVIO_BAR_MSIX, type, &vif->msix);
    return svio_pci_init(pci, &vif->msix, TYPE_SVIO_VIF, errp);
}

static void svio_vif_end(SvioVif *vif) {
    memory_listener_unregister(&vif->listener);
    if (vif->fd >= 0) {
        qemu_set_fd_handler(vif->fd, NULL, NULL, NULL);
        close(vif->fd);
        vif->fd = -1;
    }
    svio_vif_free_events(vif);
    g_array_free(vif->regions, TRUE);
    g_array_free(vif->building, TRUE);
    migrate_del_blocker(&vif->migration_blocker);
    svio_pci_exit(PCI_DEVICE(vif), &vif->msix);
}

static void svio_vif_realize(PCIDevice *pci, Error **errp) {
    SvioVif *vif = SVIO_VIF(pci);

    vif->fd = -1;
    vif->known.event_vector = SVIO_NO_VECTOR;
    if (!svio_vif_check(vif, errp)) {
        return;
    }
    error_setg(&vif->migration_blocker, "svio-vif: its VIF lives in another process and does not move along");
    if (migrate_add_blocker(&vif->migration_blocker, errp) < 0) {
        return;
    }
    replay_add_blocker("svio-vif");
    qemu_macaddr_default_if_unset(&vif->mac);
    if (!svio_vif_make_events(vif, errp)) {
        migrate_del_blocker(&vif->migration_blocker);
        return;
    }
    vif->regions = g_array_new(FALSE, TRUE, sizeof(SvioRegion));
    vif->building = g_array_new(FALSE, TRUE, sizeof(SvioRegion));
    vif->listener = (MemoryListener){
        .name = "svio-vif",
        .begin = svio_vif_begin,
        .region_add = svio_vif_region,
        .region_nop = svio_vif_region,
        .commit = svio_vif_commit,
    };
    /* The table is there before the board is asked. */
    memory_listener_register(&vif->listener, &address_space_memory);
    if (!svio_vif_attach(vif, errp) || !svio_vif_init_pci(vif, errp)) {
        svio_vif_end(vif);
        return;
    }
    svio_vif_bells_by_kvm(vif, true);
    vif->retry = timer_new_ms(QEMU_CLOCK_REALTIME, svio_vif_retry, vif);
    vif->vm_state = qdev_add_vm_change_state_handler(DEVICE(vif), svio_vif_vm_state, vif);
}

static void svio_vif_exit(PCIDevice *pci) {
    SvioVif *vif = SVIO_VIF(pci);

    qemu_del_vm_change_state_handler(vif->vm_state);
    timer_free(vif->retry);
    svio_vif_bells_by_kvm(vif, false);
    svio_vif_end(vif);
}

static const Property svio_vif_properties[] = {
    DEFINE_PROP_STRING("board", SvioVif, board),
    DEFINE_PROP_STRING("vif", SvioVif, name),
    DEFINE_PROP_MACADDR("mac", SvioVif, mac),
    DEFINE_PROP_UINT32("queues", SvioVif, pairs, 1),
    DEFINE_PROP_UINT32("queue-size", SvioVif, queue_size, 256),
};

static void svio_vif_class_init(ObjectClass *klass, void *data) {
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->realize = svio_vif_realize;
    pc->exit = svio_vif_exit;
    pc->config_write = svio_vif_write_config;
    pc->vendor_id = SVIO_PCI_VENDOR;
    pc->device_id = SVIO_PCI_DEVICE_VF;
    pc->revision = SVIO_PCI_REVISION;
    pc->class_id = PCI_CLASS_NETWORK_ETHERNET;
    rc->phases.hold = svio_vif_reset_hold;
    dc->desc = "VIF of a board that several machines share";
    set_bit(DEVICE_CATEGORY_NETWORK, dc->categories);
    svio_pci_express_class_init(dc);
    device_class_set_props(dc, svio_vif_properties);
}

static const TypeInfo svio_vif_info = {
    .name = TYPE_SVIO_VIF,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(SvioVif),
    .class_init = svio_vif_class_init,
    .interfaces = (InterfaceInfo[]){{INTERFACE_PCIE_DEVICE}, {INTERFACE_CONVENTIONAL_PCI_DEVICE}, {}},
};

void svio_vif_register(void) {
    type_register_static(&svio_vif_info);
}
