/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Halt polling: a vCPU thread that waits for an interrupt while an on-board core polls looks for it a while
 * before it sleeps, as KVM does in the kernel (halt_poll_ns). In a conversation the answer comes within
 * microseconds, and waking a sleeping thread can take longer than all the rest of a round trip.
 *
 * A board in another process (svio-vif) says so in a page that both see. What it raises meanwhile it only
 * notes in another page, where the waiting vCPU finds it: no eventfd is written, and QEMU's main loop sleeps
 * on. Whatever is in those pages, a vCPU looks no longer than its budget.
 *
 * For TCG with a thread per vCPU; with KVM a halted vCPU is in the kernel and never comes here. QEMU's
 * condition wait is a function pointer (its sync profiler replaces it too), and a wait may return at any
 * time: the caller looks again.
 */
#include "svio_nic.h"

#include <sched.h>
#include <sys/mman.h>

#include "hw/core/cpu.h"
#include "qemu/memfd.h"
#include "qemu/rcu_queue.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "system/cpus.h"
#include "system/tcg.h"

#define HALT_POLL_MAX_NS 200000
/* On a board that machines share the answer is often another guest's work, which is emulated too. */
#define HALT_POLL_SHARED_NS 600000
#define HALT_POLL_START_NS 10000
#define RELOCK_TRIES 64

static QemuCondWaitFunc wait_func;
/* Cores of all devices that have `halt-poll` on. */
static int polling_cores;
/* Changed with the BQL, read under RCU. */
static QLIST_HEAD(, SvioHaltBoard) boards = QLIST_HEAD_INITIALIZER(boards);
/* vCPUs that look into the boards' pages; with the BQL. */
static uint32_t watchers;
/* Of this vCPU. */
static __thread int64_t budget_ns = HALT_POLL_START_NS;

void svio_halt_polling(void *opaque, bool polling) {
    SvioNic *nic = opaque;

    if (nic->halt_poll) {
        qatomic_add(&polling_cores, polling ? 1 : -1);
        /* At a netdev QEMU's I/O thread takes part as well, and whose CPU it shares is a matter of chance. */
        if (nic->port) {
            svio_places_polling(polling);
        }
    }
}

static bool cores_poll(void) {
    SvioHaltBoard *board;

    if (qatomic_read(&polling_cores) > 0) {
        return true;
    }
    RCU_READ_LOCK_GUARD();
    QLIST_FOREACH_RCU(board, &boards, next) {
        if (qatomic_read(&board->polling->cores) != 0) {
            return true;
        }
    }
    return false;
}

static bool boards_raise(void) {
    SvioHaltBoard *board;

    RCU_READ_LOCK_GUARD();
    QLIST_FOREACH_RCU(board, &boards, next) {
        if (qatomic_read(&board->raised->vectors) != 0) {
            return true;
        }
    }
    return false;
}

/* With the BQL. */
static void watch(int more) {
    SvioHaltBoard *board;

    watchers += more;
    QLIST_FOREACH(board, &boards, next) {
        qatomic_set(&board->raised->watchers, watchers);
    }
    /* Against the board, which notes a vector and then looks for watchers: what it did not write an eventfd
     * for is seen by the look that follows the last watcher's leave. */
    smp_mb();
}

/* With the BQL. */
static void take_raised(void) {
    SvioHaltBoard *board, *next;

    QLIST_FOREACH_SAFE(board, &boards, next, next) {
        if (qatomic_read(&board->raised->vectors) != 0) {
            board->take(board->opaque);
        }
    }
}

/* Whoever raised the interrupt holds the lock a moment longer: to sleep for that would spoil it all. */
static void relock(QemuMutex *mutex) {
    for (int i = 0; i < RELOCK_TRIES; i++) {
        if (qemu_mutex_trylock(mutex) == 0) {
            return;
        }
        sched_yield();
    }
    qemu_mutex_lock(mutex);
}

/* Looks without the lock and decides with it, so that no wake-up is lost: true if there is work. */
static bool poll_for_work(CPUState *cpu, QemuMutex *mutex, int64_t until) {
    int64_t now = get_clock(), before;
    bool idle, shared = false;

    watch(1);
    qemu_mutex_unlock(mutex);
    svio_places_change(now);
    do {
        /* Whoever works on the answer may need this very CPU. */
        before = now;
        sched_yield();
        idle = cpu_thread_is_idle(cpu) && !boards_raise();
        now = get_clock();
        shared |= svio_places_turn(now - before);
    } while (idle && cores_poll() && now < until && now - before < HALT_POLL_CROWD_NS);
    svio_places_note(shared);
    relock(mutex);
    watch(-1);
    take_raised();
    return !cpu_thread_is_idle(cpu);
}

/* Grows after a short halt and shrinks after a long one: a vCPU that is no part of it goes to sleep at once.
 */
static void adapt(int64_t halted_ns) {
    int64_t most = QLIST_EMPTY(&boards) ? HALT_POLL_MAX_NS : HALT_POLL_SHARED_NS;

    if (halted_ns <= most) {
        budget_ns = MIN(most, MAX(HALT_POLL_START_NS, budget_ns * 2));
    } else {
        budget_ns = budget_ns / 2 < HALT_POLL_START_NS ? 0 : budget_ns / 2;
    }
}

static void svio_cond_wait(QemuCond *cond, QemuMutex *mutex, const char *file, int line) {
    CPUState *cpu = current_cpu;
    int64_t begin;

    if (!cpu || cpu->halt_cond != cond || !cores_poll()) {
        wait_func(cond, mutex, file, line);
        return;
    }
    begin = get_clock();
    if (!poll_for_work(cpu, mutex, begin + budget_ns)) {
        wait_func(cond, mutex, file, line);
    }
    adapt(get_clock() - begin);
}

bool svio_halt_install(void) {
    if (!wait_func && tcg_enabled() && qemu_tcg_mttcg_enabled()) {
        wait_func = qatomic_read(&qemu_cond_wait_func);
        qatomic_set(&qemu_cond_wait_func, svio_cond_wait);
        svio_places_install();
    }
    return wait_func != NULL;
}

/* ---- boards in other processes ---- */

/* A page of theirs; NULL: the file could become shorter than that, and end us by SIGBUS. */
static void *map_page(int fd, int protection) {
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat status;
    void *at;

    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) < 0 ||
        status.st_size < (off_t)qemu_real_host_page_size()) {
        return NULL;
    }
    at = mmap(NULL, qemu_real_host_page_size(), protection, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void svio_halt_free(SvioHaltBoard *board) {
    if (board->polling) {
        munmap((void *)board->polling, qemu_real_host_page_size());
    }
    if (board->raised) {
        munmap(board->raised, qemu_real_host_page_size());
    }
    g_free(board);
}

SvioHaltBoard *svio_halt_watch(const int *fds, void (*take)(void *opaque), void *opaque) {
    SvioHaltBoard *board = g_new0(SvioHaltBoard, 1);

    board->take = take;
    board->opaque = opaque;
    board->polling = map_page(fds[0], PROT_READ);
    board->raised = map_page(fds[1], PROT_READ | PROT_WRITE);
    close(fds[0]);
    close(fds[1]);
    if (!board->polling || !board->raised) {
        svio_halt_free(board);
        return NULL;
    }
    qatomic_set(&board->raised->watchers, watchers);
    QLIST_INSERT_HEAD_RCU(&boards, board, next);
    return board;
}

void svio_halt_forget(SvioHaltBoard *board) {
    QLIST_REMOVE_RCU(board, next);
    call_rcu(board, svio_halt_free, rcu);
}
