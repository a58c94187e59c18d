/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Migration and snapshots, SPEC.md chapter 12: the board's state is one blob in the device's section, behind
 * configuration space and MSI-X, so that bus mastering is what it was when the board takes its state over.
 * The machine is stopped all the while, and the board paused: svio_vm_state().
 */
#include "svio_nic.h"

#include "hw/pci/msix.h"
#include "migration/blocker.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"
#include "qemu/error-report.h"

/* ---- the blob: a length, and so many bytes ---- */

static int svio_put_state(QEMUFile *f, void *pv, size_t size, const VMStateField *field, JSONWriter *desc) {
    SvioNic *nic = container_of(pv, SvioNic, state);

    if (!nic->state) {
        error_report("svio-nic: out of memory for the state of the board");
        return -ENOMEM;
    }
    qemu_put_be32(f, nic->state_length);
    qemu_put_buffer(f, nic->state, nic->state_length);
    return 0;
}

/* Memory is taken as bytes come, not as the stream says that they will. */
static int svio_get_state(QEMUFile *f, void *pv, size_t size, const VMStateField *field) {
    SvioNic *nic = container_of(pv, SvioNic, state);
    uint32_t length = qemu_get_be32(f);
    g_autoptr(GByteArray) state = g_byte_array_new();

    if (length > SVIO_STATE_MAX) {
        error_report("svio-nic: a state of %u bytes is more than any device has", length);
        return -EINVAL;
    }
    while (state->len < length) {
        uint8_t part[4096];
        size_t wanted = MIN(sizeof(part), length - state->len);

        if (qemu_get_buffer(f, part, wanted) != wanted) {
            error_report("svio-nic: the state is truncated");
            return -EIO;
        }
        g_byte_array_append(state, part, wanted);
    }
    g_clear_pointer(&nic->state, free);
    nic->state_length = length;
    nic->state = g_byte_array_free(g_steal_pointer(&state), FALSE); /* free() and g_free() are one */
    return 0;
}

static const VMStateInfo svio_state_info = {
    .name = "svio-board",
    .get = svio_get_state,
    .put = svio_put_state,
};

static int svio_pre_save(void *opaque) {
    SvioNic *nic = opaque;
    size_t length = 0;

    g_clear_pointer(&nic->state, free);
    nic->state = svio_board_save(nic->board, &length);
    nic->state_length = length;
    return 0;
}

static int svio_post_save(void *opaque) {
    SvioNic *nic = opaque;

    g_clear_pointer(&nic->state, free);
    return 0;
}

static int svio_post_load(void *opaque, int version_id) {
    SvioNic *nic = opaque;
    g_autofree char *why = NULL;
    bool loaded;

    if (nic->vifs) {
        error_report("svio-nic: a card with vifs=%u takes no state over", nic->vifs);
        return -EINVAL;
    }
    svio_board_pause(nic->board);
    svio_function_update(SVIO_FUNCTION(nic));
    loaded = svio_board_load(nic->board, nic->state, nic->state_length, &why);
    svio_board_resume(nic->board);
    g_clear_pointer(&nic->state, free);
    if (!loaded) {
        error_report("svio-nic: %s", why ? why : "out of memory");
        return -EINVAL;
    }
    svio_net_link_loaded(nic);
    return 0;
}

static const VMStateDescription svio_vmstate = {
    .name = TYPE_SVIO_NIC,
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = svio_pre_save,
    .post_save = svio_post_save,
    .post_load = svio_post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_PCI_DEVICE(parent_obj.parent_obj, SvioNic),
            VMSTATE_MSIX(parent_obj.parent_obj, SvioNic),
            {
                .name = "board",
                .info = &svio_state_info,
                .size = sizeof(uint8_t *),
                .offset = offsetof(SvioNic, state),
                .flags = VMS_SINGLE,
            },
            VMSTATE_END_OF_LIST(),
        },
};

/* ---- who has the wire ---- */

/*
 * The machine runs elsewhere. A wire that a core polls is let go, so that whoever sends to it finds the new
 * owner; should this machine be continued after all, svio_vm_prepare() takes it again.
 */
static int svio_migrated(NotifierWithReturn *notify, MigrationEvent *e, Error **errp) {
    SvioNic *nic = container_of(notify, SvioNic, migration);

    if (e->type == MIG_EVENT_PRECOPY_DONE && nic->stopped) {
        svio_board_port_release(nic->board);
    }
    return 0;
}

bool svio_migration_check(SvioNic *nic, Error **errp) {
    if (svio_virtual(nic)) {
        error_setg(&nic->migration_blocker,
                   "svio-nic: a card with executor=virtual can be neither migrated nor saved");
        return migrate_add_blocker(&nic->migration_blocker, errp) == 0;
    }
    if (nic->vifs == 0) {
        return true;
    }
    error_setg(&nic->migration_blocker,
               "svio-nic: a card with vifs=%u can be neither migrated nor saved; one with vifs=0 can",
               nic->vifs);
    return migrate_add_blocker(&nic->migration_blocker, errp) == 0;
}

void svio_migration_start(SvioNic *nic) {
    migration_add_notifier(&nic->migration, svio_migrated);
}

void svio_migration_stop(SvioNic *nic) {
    migration_remove_notifier(&nic->migration);
    migrate_del_blocker(&nic->migration_blocker);
}

void svio_migration_class_init(DeviceClass *dc) {
    dc->vmsd = &svio_vmstate;
}
