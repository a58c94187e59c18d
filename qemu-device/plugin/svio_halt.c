/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Halt polling: a vCPU thread that waits for an interrupt while an on-board core polls looks for it a while
 * before it sleeps, as KVM does in the kernel (halt_poll_ns). In a conversation the answer comes within
 * microseconds, and waking a sleeping thread can take longer than all the rest of a round trip.
 *
 * For TCG with a thread per vCPU; with KVM a halted vCPU is in the kernel and never comes here. QEMU's
 * condition wait is a function pointer (its sync profiler replaces it too), and a wait may return at any
 * time: the caller looks again.
 */
#include "svio_nic.h"

#include <sched.h>

#include "hw/core/cpu.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "system/cpus.h"
#include "system/tcg.h"

#define HALT_POLL_MAX_NS 200000
#define HALT_POLL_START_NS 10000
#define RELOCK_TRIES 64

static QemuCondWaitFunc wait_func;
/* Cores of all devices that have `halt-poll` on. */
static int polling_cores;
/* Of this vCPU. */
static __thread int64_t budget_ns = HALT_POLL_START_NS;

void svio_halt_polling(void *opaque, bool polling) {
    SvioNic *nic = opaque;

    if (nic->halt_poll) {
        qatomic_add(&polling_cores, polling ? 1 : -1);
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
    bool idle;

    qemu_mutex_unlock(mutex);
    do {
        /* Whoever works on the answer may need this very CPU. */
        sched_yield();
        idle = cpu_thread_is_idle(cpu);
    } while (idle && qatomic_read(&polling_cores) > 0 && get_clock() < until);
    relock(mutex);
    return !cpu_thread_is_idle(cpu);
}

/* Grows after a short halt and shrinks after a long one: a vCPU that is no part of it goes to sleep at once.
 */
static void adapt(int64_t halted_ns) {
    if (halted_ns <= HALT_POLL_MAX_NS) {
        budget_ns = MIN(HALT_POLL_MAX_NS, MAX(HALT_POLL_START_NS, budget_ns * 2));
    } else {
        budget_ns = budget_ns / 2 < HALT_POLL_START_NS ? 0 : budget_ns / 2;
    }
}

static void svio_cond_wait(QemuCond *cond, QemuMutex *mutex, const char *file, int line) {
    CPUState *cpu = current_cpu;
    int64_t begin;

    if (!cpu || cpu->halt_cond != cond || qatomic_read(&polling_cores) <= 0) {
        wait_func(cond, mutex, file, line);
        return;
    }
    begin = get_clock();
    if (!poll_for_work(cpu, mutex, begin + budget_ns)) {
        wait_func(cond, mutex, file, line);
    }
    adapt(get_clock() - begin);
}

void svio_halt_install(void) {
    if (!wait_func && tcg_enabled() && qemu_tcg_mttcg_enabled()) {
        wait_func = qatomic_read(&qemu_cond_wait_func);
        qatomic_set(&qemu_cond_wait_func, svio_cond_wait);
    }
}
