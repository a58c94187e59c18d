/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which CPU a vCPU waits on, where CPUs are few. While a vCPU polls for an answer and a core polls on another
 * CPU, the scheduler takes both for equally busy, and whoever works on the answer (the wire's peer) may come
 * to run on the vCPU's CPU each time: it finds its caches filled by the emulated guest, is slower by a
 * multiple, and stays there, as Linux wakes a thread where it was. So a vCPU that notices it changes places
 * with the core, whose work is small.
 *
 * On two CPUs the median of a round trip was 62 us with the peer beside the core, and 105 us beside the vCPU.
 *
 * Threads are only moved, not bound: their affinities are as before in the end, and are respected. Cores of
 * another process (svio-board) are not moved.
 */
#include "svio_halt.h"

#include <sched.h>

#include "qemu/atomic.h"
#include "qemu/timer.h"

/* A yield that took as long was another's turn; one of a thread that is alone takes a tenth of that. In a
 * crowd it is no answer, and another place no better. */
#define PLACES_TURN_NS 4000
/* So many more halts with such a turn than without one. */
#define PLACES_SHARED 48
/* Between two changes; twice as long after each that did not help, which is to have so many halts without
 * such a turn, of which one with a turn takes some away. */
#define PLACES_PAUSE_NS (20LL * SCALE_MS)
#define PLACES_PAUSE_MAX_NS (5000LL * SCALE_MS)
#define PLACES_CALM 512
#define PLACES_CALM_LOST 16

/* A core that polls: the last one that began. */
static pid_t polling_core;
static bool may_move;

/* Of this vCPU. */
static __thread struct {
    unsigned shared, calm;
    int64_t next_ns, pause_ns;
} places;

/* A sandbox may refuse such system calls, or end the process for one. */
static bool is_confined(void) {
    g_autofree char *status = NULL;
    const char *line;

    if (!g_file_get_contents("/proc/self/status", &status, NULL, NULL)) {
        return true;
    }
    line = strstr(status, "\nSeccomp:");
    return line && atoi(line + strlen("\nSeccomp:")) != 0;
}

void svio_places_install(void) {
    may_move = !is_confined();
}

void svio_places_polling(bool polling) {
    pid_t self = qemu_get_thread_id();

    if (polling) {
        qatomic_set(&polling_core, self);
    } else {
        qatomic_cmpxchg(&polling_core, self, 0);
    }
}

bool svio_places_turn(int64_t yield_ns) {
    return yield_ns >= PLACES_TURN_NS && yield_ns < HALT_POLL_CROWD_NS;
}

void svio_places_note(bool shared) {
    if (shared) {
        places.shared++;
        places.calm -= MIN(places.calm, PLACES_CALM_LOST);
        return;
    }
    places.shared -= places.shared != 0;
    if (++places.calm >= PLACES_CALM) {
        places.calm = 0;
        places.pause_ns = 0;
    }
}

/* Where a thread of ours runs, or ran last; -1: it has ended. */
static int cpu_of(pid_t thread) {
    g_autofree char *path = g_strdup_printf("/proc/self/task/%d/stat", (int)thread);
    g_autofree char *stat = NULL;
    g_auto(GStrv) words = NULL;
    const char *after;

    /* After the name, which may have anything in it: from "state", the third field, to "processor", the 39th.
     */
    if (!g_file_get_contents(path, &stat, NULL, NULL) || !(after = strrchr(stat, ')'))) {
        return -1;
    }
    words = g_strsplit(after + 2, " ", 38);
    return g_strv_length(words) > 36 ? atoi(words[36]) : -1;
}

static void move(pid_t thread, int cpu) {
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(thread, sizeof(one), &one);
}

static void change_places(pid_t core) {
    cpu_set_t mine, its;
    int here = sched_getcpu(), there = cpu_of(core);

    if (here < 0 || there < 0 || here == there || here >= CPU_SETSIZE || there >= CPU_SETSIZE ||
        sched_getaffinity(0, sizeof(mine), &mine) < 0 || sched_getaffinity(core, sizeof(its), &its) < 0 ||
        !CPU_ISSET(there, &mine) || !CPU_ISSET(here, &its)) {
        return;
    }
    move(core, here);
    move(0, there);
    sched_setaffinity(core, sizeof(its), &its);
    sched_setaffinity(0, sizeof(mine), &mine);
}

void svio_places_change(int64_t now) {
    pid_t core = qatomic_read(&polling_core);

    if (places.shared < PLACES_SHARED || now < places.next_ns || !may_move || core == 0) {
        return;
    }
    places.pause_ns = MIN(MAX(PLACES_PAUSE_NS, places.pause_ns * 2), PLACES_PAUSE_MAX_NS);
    places.next_ns = now + places.pause_ns;
    places.shared = places.calm = 0;
    change_places(core);
}
