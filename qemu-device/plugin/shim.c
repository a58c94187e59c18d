/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * svio.so: what `-plugin` opens. QEMU resolves all symbols of a plugin at once, so code built for another
 * version would die with "undefined symbol". This shim needs none of QEMU's symbols: it finds the version,
 * refuses another one with a sentence, and then opens svio-adapter.so, which lies beside it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qemu/qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* As in QEMU's qapi/misc.json, VersionInfo; the layout has been this since QEMU 2.3. */
struct version_triple {
    int64_t major, minor, micro;
};
struct version_info {
    struct version_triple *qemu;
    char *package;
};
typedef struct version_info *query_version_fn(void **errp);

static const char *why_not;

/*
 * When the file is opened, and not only in qemu_plugin_install(): a QEMU whose plugin interface has another
 * version than ours ends before it calls that, with a message that says nothing of svio.
 */
__attribute__((constructor)) static void check_version(void) {
    query_version_fn *query = (query_version_fn *)dlsym(RTLD_DEFAULT, "qmp_query_version");
    struct version_info *found = query ? query(NULL) : NULL;

    if (!found) {
        why_not =
            "this QEMU does not export its functions to modules (it must be built with --enable-modules, "
            "as Debian's is)";
        fprintf(stderr, "svio: %s\n", why_not);
        return;
    }
    if (found->qemu->major == SVIO_QEMU_MAJOR && found->qemu->minor == SVIO_QEMU_MINOR &&
        found->qemu->micro == SVIO_QEMU_MICRO)
        return;
    why_not = "wrong version";
    fprintf(stderr,
            "svio: this plugin was built for QEMU %d.%d.%d and cannot be used with QEMU %d.%d.%d (%s); "
            "run \"scripts/svio setup\" to build it for the QEMU that is installed\n",
            SVIO_QEMU_MAJOR, SVIO_QEMU_MINOR, SVIO_QEMU_MICRO, (int)found->qemu->major,
            (int)found->qemu->minor, (int)found->qemu->micro,
            found->package && *found->package ? found->package : "no package");
}

static void *open_adapter(void) {
    Dl_info self;
    char path[PATH_MAX];
    const char *slash;

    if (!dladdr(&qemu_plugin_version, &self))
        return NULL;
    slash = strrchr(self.dli_fname, '/');
    snprintf(path, sizeof(path), "%.*s" SVIO_ADAPTER ".so", slash ? (int)(slash - self.dli_fname + 1) : 0,
             self.dli_fname);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv) {
    void (*install)(void);
    void *adapter;

    (void)id;
    (void)info;
    if (why_not)
        return -1;
    if (argc > 0) {
        fprintf(stderr,
                "svio: the plugin takes no arguments (\"%s\"); the device does: -device svio-nic,...\n",
                argv[0]);
        return -1;
    }
    adapter = open_adapter();
    install = adapter ? (void (*)(void))dlsym(adapter, "svio_adapter_install") : NULL;
    if (!install) {
        fprintf(stderr, "svio: cannot open " SVIO_ADAPTER ".so beside the plugin: %s\n", dlerror());
        return -1;
    }
    install();
    return 0;
}
