/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Halt polling: see svio_halt.c. */
#ifndef SVIO_HALT_H
#define SVIO_HALT_H

#include "qemu/osdep.h"

#include "qemu/queue.h"
#include "qemu/rcu.h"

#include "svio_attach.h"

/* A yield that took so long let somebody else work: there are more who want to than CPUs. */
#define HALT_POLL_CROWD_NS 100000

/* A board in another process. What its pages say is believed as far as a vCPU's budget goes. */
typedef struct SvioHaltBoard {
    struct rcu_head rcu; /* first */
    const struct svio_attach_polling *polling;
    struct svio_attach_raised *raised;
    void (*take)(void *opaque); /* what is in `raised`; with the BQL */
    void *opaque;
    QLIST_ENTRY(SvioHaltBoard) next;
} SvioHaltBoard;

/* Has the vCPUs poll while cores of a device with `halt-poll` do. False: not with this accelerator. */
bool svio_halt_install(void);
/* The same of a board, with the BQL, with whose pages it begins and ends: two descriptors, which are closed.
 * NULL: they are not what the protocol says. */
SvioHaltBoard *svio_halt_watch(const int *fds, void (*take)(void *opaque), void *opaque);
void svio_halt_forget(SvioHaltBoard *board);

/* Places of vCPUs and cores: see svio_places.c. By the core: it begins to poll, or ends. */
void svio_places_install(void);
void svio_places_polling(bool polling);
/* By a vCPU that polls: was a yield another's turn; had this halt such turns; change places if it is time. */
bool svio_places_turn(int64_t yield_ns);
void svio_places_note(bool shared);
void svio_places_change(int64_t now);

#endif
