/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The board's counters and what management knows, as the QOM properties "stats" and "management":
 * qom-get path=/machine/peripheral/ID property=stats. */
#include "svio_nic.h"

#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"

static QDict *svio_stats_child(QDict *parent, const char *name) {
    QDict *child = qobject_to(QDict, qdict_get(parent, name));

    if (!child) {
        child = qdict_new();
        qdict_put(parent, name, child);
    }
    return child;
}

static void svio_stats_visit(void *opaque, const char *path, uint64_t value) {
    QDict *dict = opaque;
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    guint last = g_strv_length(parts) - 1;

    for (guint i = 0; i < last; i++) {
        dict = svio_stats_child(dict, parts[i]);
    }
    qdict_put_int(dict, parts[last], (int64_t)value);
}

static void svio_get_stats(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp) {
    SvioNic *nic = SVIO_NIC(obj);
    QObject *stats = QOBJECT(qdict_new());

    if (nic->board) {
        svio_bell_settle_all(nic);
        svio_board_visit_counters(nic->board, svio_stats_visit, qobject_to(QDict, stats));
    }
    visit_type_any(v, name, &stats, errp);
    qobject_unref(stats);
}

static void svio_get_management(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp) {
    SvioNic *nic = SVIO_NIC(obj);
    g_autofree char *text = nic->board ? svio_board_query(nic->board, "all") : NULL;
    QObject *known = text ? qobject_from_json(text, errp) : QOBJECT(qdict_new());

    if (known) {
        visit_type_any(v, name, &known, errp);
        qobject_unref(known);
    }
}

void svio_qom_class_init(ObjectClass *klass) {
    object_class_property_add(klass, "stats", "dict", svio_get_stats, NULL, NULL, NULL);
    object_class_property_set_description(klass, "stats",
                                          "counters of the board, its cores, VIFs and queues");
    object_class_property_add(klass, "management", "dict", svio_get_management, NULL, NULL, NULL);
    object_class_property_set_description(
        klass, "management", "VIFs, on-board cores and the device, as the socket of mgmt= tells");
    object_class_property_set_description(
        klass, "mgmt", "path of the management socket, for svioctl; it is made with mode 0600");
    object_class_property_set_description(klass, "ioeventfd", "doorbells through the kernel, with KVM");
    object_class_property_set_description(klass, "cores",
                                          "on-board cores, threads of this process (1 to 16)");
    object_class_property_set_description(klass, "queues", "queue pairs (1 to 8)");
    object_class_property_set_description(
        klass, "queue-size", "entries of a queue that the device suggests (power of two, 16 to 4096)");
    object_class_property_set_description(
        klass, "poll-us", "longest time without work before an on-board core sleeps, microseconds");
    object_class_property_set_description(
        klass, "port-stall-ms",
        "longest time that frames wait for a wire which takes none, milliseconds; 0 is for ever");
    object_class_property_set_description(
        klass, "port", "in place of netdev: dgram:LOCAL,REMOTE or tap:IFNAME, polled by a core");
    object_class_property_set_description(
        klass, "vifs", "virtual functions that the card can have, on a PCI Express port (0 to 64)");
    object_class_property_set_description(klass, "auto-vif",
                                          "a VF that the guest enables gets a VIF by itself");
    object_class_property_set_description(klass, "port-mbps",
                                          "limit of what is sent to the wire, Mb/s; 0 is none");
    object_class_property_set_description(
        klass, "signals", "msix: each VIF has its own; shared: every eighth slot is signalled as well");
    object_class_property_set_description(
        klass, "stage-times", "histograms of how long messages take from stage to stage, in stats");
}
