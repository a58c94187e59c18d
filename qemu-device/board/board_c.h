/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The board behind a C interface, for QEMU's headers do not compile as C++.
 *
 * The host (the adapter) implements struct SvioHost; the board calls it from its cores and from whatever
 * thread calls the functions below. "Locked" means: with the lock of lock()/unlock() held.
 */
#ifndef SVIO_BOARD_C_H
#define SVIO_BOARD_C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct SvioBoard SvioBoard;

/* See svio::Window. The host embeds it in its own structure. */
typedef struct SvioWindow {
    uint8_t *direct; /* changed only while the board is paused */
} SvioWindow;

typedef struct SvioHost {
    void *opaque; /* first argument of all */

    void (*lock)(void *opaque);
    void (*unlock)(void *opaque);
    void (*thread_begin)(void *opaque, unsigned core);
    void (*thread_end)(void *opaque, unsigned core);
    void (*thread_polling)(void *opaque, bool polling);

    /* Guest memory, RAM only. */
    bool (*read)(void *opaque, uint64_t address, void *to, size_t length);
    bool (*write)(void *opaque, uint64_t address, const void *from, size_t length);
    SvioWindow *(*window_open)(void *opaque, uint64_t address, size_t length);
    void (*window_close)(void *opaque, SvioWindow *window);
    bool (*window_load)(void *opaque, SvioWindow *window, size_t offset, void *to, size_t length);
    bool (*window_store)(void *opaque, SvioWindow *window, size_t offset, const void *from, size_t length);
    void (*window_written)(void *opaque, SvioWindow *window, size_t offset, size_t length);

    void (*signal)(void *opaque, unsigned vector); /* locked */

    /* The wire, unless port is given: locked. send: > 0 taken, 0 taken and no more until
     * svio_board_port_ready(), < 0 failed. */
    int (*port_send)(void *opaque, const uint8_t *frame, size_t length);
    void (*port_flush_receive)(void *opaque);
    void (*port_purge)(void *opaque);
} SvioHost;

typedef struct SvioBoardConfig {
    uint8_t mac[6];
    unsigned cores;
    uint32_t poll_us;
    uint32_t stall_ms; /* see svio::BoardConfig */
    uint32_t queue_size;
    const char *port; /* a native port, or NULL */
} SvioBoardConfig;

/* On failure NULL and one sentence in *error, to be freed with free(). */
SvioBoard *svio_board_new(const SvioHost *host, const SvioBoardConfig *config, char **error);
/* Ends the cores. The lock must not be held: a core may be waiting for it. */
void svio_board_stop(SvioBoard *board);
void svio_board_free(SvioBoard *board);

/* All locked. */
uint32_t svio_board_read(SvioBoard *board, unsigned vif, uint32_t offset);
void svio_board_write(SvioBoard *board, unsigned vif, uint32_t offset, uint32_t value);
void svio_board_bad_access(SvioBoard *board, unsigned vif);
void svio_board_reset(SvioBoard *board, unsigned vif);
void svio_board_pause(SvioBoard *board);
void svio_board_resume(SvioBoard *board);
/* Paused. wants_lock: translation itself needs the lock (a virtual IOMMU). */
void svio_board_set_dma(SvioBoard *board, unsigned vif, bool enabled, bool wants_lock);
void svio_board_set_link(SvioBoard *board, unsigned vif, bool up);
void svio_board_port_ready(SvioBoard *board);
void svio_board_receive_ready(SvioBoard *board);
/* False: held back, until port_flush_receive(). */
bool svio_board_receive(SvioBoard *board, const uint8_t *frame, size_t length);

/* path: "vifs/0/queues/0/send/posted" */
typedef void SvioVisitor(void *opaque, const char *path, uint64_t value);
void svio_board_visit_counters(SvioBoard *board, SvioVisitor *visit, void *opaque);

#ifdef __cplusplus
}
#endif

#endif /* SVIO_BOARD_C_H */
