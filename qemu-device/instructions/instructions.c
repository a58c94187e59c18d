/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * svio-instructions.so: counts the instructions that a guest executes, through QEMU's plugin interface (TCG).
 *
 *     -plugin svio-instructions.so,socket=PATH[,asleep=on]
 *
 * Whoever connects to the socket gets one line with the count of each vCPU, and is closed. A block of
 * instructions counts when it begins: one that ends early (a fault) counts whole. With "asleep" the code that
 * QEMU makes has no counting in it, and is as fast as without the plugin, until somebody connects: after that
 * all of it is made anew, and counts, as soon as a vCPU has been idle once.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <qemu/qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

static qemu_plugin_u64 executed;
static struct sockaddr_un place = {.sun_family = AF_UNIX};
static int listener = -1;
static atomic_bool asleep, wanted;

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, executed,
                                                      qemu_plugin_tb_n_insns(tb));
}

static void answer(int fd) {
    char line[1024];
    size_t used = 0;

    for (int cpu = 0; cpu < qemu_plugin_num_vcpus() && used < sizeof(line) - 32; cpu++) {
        used += (size_t)snprintf(line + used, sizeof(line) - used, "%s%" PRIu64, cpu ? " " : "",
                                 qemu_plugin_u64_get(executed, (unsigned)cpu));
    }
    line[used++] = '\n';
    /* Who does not read has its loss: a line always fits a new socket's buffer. */
    (void)!send(fd, line, used, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void *serve(void *unused) {
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd >= 0) {
            answer(fd);
            close(fd);
            atomic_store_explicit(&wanted, true, memory_order_relaxed);
        } else if (errno != EINTR && errno != ECONNABORTED) {
            return unused; /* it was closed, or the process is out of descriptors */
        }
    }
}

static void on_exit_of_qemu(qemu_plugin_id_t id, void *unused) {
    (void)id;
    (void)unused;
    unlink(place.sun_path);
}

static void count_from_now(qemu_plugin_id_t id) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
}

/* QEMU throws its code away on behalf of a vCPU only, so the thread of the socket cannot ask for it. */
static void on_idle(qemu_plugin_id_t id, unsigned cpu) {
    (void)cpu;
    if (atomic_load_explicit(&wanted, memory_order_relaxed) &&
        atomic_exchange_explicit(&asleep, false, memory_order_relaxed)) {
        qemu_plugin_reset(id, count_from_now);
    }
}

static bool open_socket(const char *path) {
    if (strlen(path) >= sizeof(place.sun_path)) {
        errno = ENAMETOOLONG;
        return false;
    }
    strcpy(place.sun_path, path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return listener >= 0 && bind(listener, (struct sockaddr *)&place, sizeof(place)) == 0 &&
           listen(listener, 4) == 0;
}

static bool take_options(int argc, char **argv, const char **path) {
    const char key[] = "socket=";

    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], key, strlen(key)) == 0) {
            *path = argv[i] + strlen(key);
        } else if (strcmp(argv[i], "asleep=on") == 0) {
            asleep = true;
        } else {
            return false;
        }
    }
    return *path != NULL;
}

/* QEMU's own threads take its signals. */
static int start_thread(void) {
    pthread_t thread;
    sigset_t all, kept;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    error = pthread_create(&thread, NULL, serve, NULL);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    return error;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                           char **argv) {
    const char *path = NULL;

    if (!info->system_emulation || !take_options(argc, argv, &path)) {
        fprintf(stderr,
                "svio-instructions: wants socket=PATH, and a whole machine; besides it knows asleep=on "
                "only\n");
        return -1;
    }
    if (!open_socket(path)) {
        fprintf(stderr, "svio-instructions: no socket at %s: %s\n", path, strerror(errno));
        return -1;
    }
    executed = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    if (asleep) {
        qemu_plugin_register_vcpu_idle_cb(id, on_idle);
        qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
    } else {
        count_from_now(id);
    }
    if (start_thread() != 0) {
        fprintf(stderr, "svio-instructions: no thread for its socket\n");
        return -1;
    }
    return 0;
}
