/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * svio-instructions.so: counts the instructions that a guest executes, through QEMU's plugin interface (TCG).
 *
 *     -plugin svio-instructions.so,socket=PATH
 *
 * Whoever connects to the socket gets one line with the count of each vCPU, and is closed. A block of
 * instructions counts when it begins: one that ends early (a fault) counts whole.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
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
    const char key[] = "socket=";

    if (!info->system_emulation || argc != 1 || strncmp(argv[0], key, strlen(key)) != 0) {
        fprintf(stderr, "svio-instructions: wants one option, socket=PATH, and a whole machine\n");
        return -1;
    }
    if (!open_socket(argv[0] + strlen(key))) {
        fprintf(stderr, "svio-instructions: no socket at %s: %s\n", argv[0] + strlen(key), strerror(errno));
        return -1;
    }
    executed = qemu_plugin_scoreboard_u64(qemu_plugin_scoreboard_new(sizeof(uint64_t)));
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_atexit_cb(id, on_exit_of_qemu, NULL);
    if (start_thread() != 0) {
        fprintf(stderr, "svio-instructions: no thread for its socket\n");
        return -1;
    }
    return 0;
}
