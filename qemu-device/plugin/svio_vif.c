/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * svio-vif: a function whose VIF lives on a board that is another process (SPEC.md chapter 15). The board has
 * the registers, the machine's memory and eventfds both ways; here is what PCI wants.
 *
 * While the board is away the function answers from what it knew: its identity is what it was, its link is
 * down. When the board is back the function attaches anew, and the driver, told so by an event, resets it:
 * another VIF ID says that all is forgotten.
 */
#include "svio_vif.h"

#include "exec/address-spaces.h"
#include "exec/replay-core.h"
#include "hw/pci/msix.h"
#include "hw/pci/pci_bus.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties-system.h"
#include "hw/qdev-properties.h"
#include "migration/blocker.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/range.h"
#include "qemu/sockets.h"
#include "qemu/timer.h"
#include "system/kvm.h"
#include "system/runstate.h"
#include "system/system.h"

#include "svio_pci.h"

#include <sys/socket.h>
#include <sys/un.h>

/* A board that does not answer for so long is dead to us. */
#define SVIO_VIF_PATIENCE_S 5
#define SVIO_VIF_RETRY_MS 200

/* ---- the connection ---- */

static void svio_vif_lost(SvioVif *vif, const char *why);

static void svio_vif_disconnect(SvioVif *vif) {
    if (vif->fd >= 0) {
        qemu_set_fd_handler(vif->fd, NULL, NULL, NULL);
        close(vif->fd);
        vif->fd = -1;
    }
    svio_vif_forget_pages(vif);
}

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

/* As recv(), with the two descriptors that are to come along: fds. Of others none stays open. */
static ssize_t svio_vif_receive(int fd, void *to, size_t size, int *fds) {
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec place = {to, size};
    struct msghdr message = {.msg_iov = &place, .msg_iovlen = 1};
    struct cmsghdr *rights;
    ssize_t got;

    if (fds) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        fds[0] = fds[1] = -1;
    }
    do {
        got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    rights = got >= 0 && fds ? CMSG_FIRSTHDR(&message) : NULL;
    if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        memcpy(fds, CMSG_DATA(rights), MIN(rights->cmsg_len - CMSG_LEN(0), 2 * sizeof(int)));
    }
    return got;
}

int svio_vif_ask(SvioVif *vif, uint32_t request, const void *payload, uint32_t length, const int *fds,
                 unsigned count, void *answer, uint32_t answer_length, int *answer_fds) {
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
    got = svio_vif_receive(vif->fd, &back, sizeof(back), answer_fds);
    if (got <= 0) {
        svio_vif_lost(vif, got == 0 ? "the connection ended" : "it does not answer");
        return -1;
    }
    /* No trust in it either. */
    if ((size_t)got < sizeof(back.header) || back.header.request != (request | SVIO_ATTACH_ANSWER) ||
        back.header.tag != header.tag || back.header.length != got - sizeof(back.header) ||
        back.header.status >= SVIO_ST_COUNT ||
        back.header.length != (back.header.status == SVIO_ST_OK ? answer_length : 0) ||
        (answer_fds && (back.header.status == SVIO_ST_OK) != (answer_fds[1] >= 0))) {
        for (int n = 0; answer_fds && n < 2; n++) {
            if (answer_fds[n] >= 0) {
                close(answer_fds[n]);
            }
        }
        svio_vif_lost(vif, "its answer makes no sense");
        return -1;
    }
    if (back.header.length > 0) {
        memcpy(answer, back.payload, back.header.length);
    }
    return back.header.status;
}

int svio_vif_count(SvioVif *vif, uint32_t request, uint32_t value, const int *fds) {
    struct svio_attach_count count = {.count = value};

    return svio_vif_ask(vif, request, &count, sizeof(count), fds, fds ? value : 0, NULL, 0, NULL);
}

static uint32_t svio_vif_get(SvioVif *vif, uint32_t offset) {
    struct svio_attach_register access = {.offset = offset};

    if (svio_vif_ask(vif, SVIO_ATTACH_READ, &access, sizeof(access), NULL, 0, &access, sizeof(access),
                     NULL) != SVIO_ST_OK) {
        return 0;
    }
    return access.value;
}

static void svio_vif_put(SvioVif *vif, uint32_t offset, uint32_t value) {
    struct svio_attach_register access = {.offset = offset, .value = value};

    svio_vif_ask(vif, SVIO_ATTACH_WRITE, &access, sizeof(access), NULL, 0, NULL, 0, NULL);
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
    struct svio_attach_hello hello = {
        .version = SVIO_ATTACH_VERSION,
        /* With irqfd no signal comes by QEMU. */
        .features =
            vif->halt_poll && !kvm_msi_via_irqfd_enabled() && svio_halt_install() ? SVIO_ATTACH_F_PAGES : 0,
    };
    struct svio_attach_vif wanted = {.queue_pairs = vif->pairs, .queue_size = vif->queue_size};
    struct svio_attach_place place;
    uint64_t offered = hello.features;

    memcpy(wanted.mac, vif->mac.a, sizeof(wanted.mac));
    svio_vif_text(wanted.name, sizeof(wanted.name), vif->name);
    svio_vif_text(wanted.machine, sizeof(wanted.machine), qemu_name);
    *status =
        svio_vif_ask(vif, SVIO_ATTACH_HELLO, &hello, sizeof(hello), NULL, 0, &hello, sizeof(hello), NULL);
    if (*status != SVIO_ST_OK || hello.version != SVIO_ATTACH_VERSION || hello.vectors != SVIO_VECTORS ||
        hello.features & ~offered) {
        return "the version of the protocol";
    }
    *status =
        svio_vif_ask(vif, SVIO_ATTACH_ATTACH, &wanted, sizeof(wanted), NULL, 0, &place, sizeof(place), NULL);
    if (*status != SVIO_ST_OK) {
        return "a VIF of this name and MAC address";
    }
    *status = svio_vif_share(vif);
    if (*status != SVIO_ST_OK) {
        return "the machine's memory";
    }
    *status = svio_vif_give_events(vif, hello.features & SVIO_ATTACH_F_PAGES);
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
        svio_vif_disconnect(vif);
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
    svio_vif_disconnect(vif);
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
        svio_vif_ask(vif, SVIO_ATTACH_BAD_ACCESS, NULL, 0, NULL, 0, NULL, 0, NULL);
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
        svio_vif_ask(vif, SVIO_ATTACH_BAD_ACCESS, NULL, 0, NULL, 0, NULL, 0, NULL);
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
    svio_irqfd_update(pci, msix_enabled(pci));
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
    svio_irqfd_update(PCI_DEVICE(vif), false); /* PCI disables MSI-X next */
    svio_vif_ask(vif, SVIO_ATTACH_RESET, NULL, 0, NULL, 0, NULL, 0, NULL);
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
    svio_irqfd_update(PCI_DEVICE(vif), false);
    svio_vif_memory_stop(vif);
    svio_vif_disconnect(vif);
    svio_vif_free_events(vif);
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
    /* The table is there before the board is asked. */
    svio_vif_memory_start(vif);
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
    DEFINE_PROP_BOOL("halt-poll", SvioVif, halt_poll, true),
    DEFINE_PROP_BOOL("ioeventfd", SvioVif, ioeventfd, true),
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
