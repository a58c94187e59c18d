/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The board behind a C interface, for QEMU's headers do not compile as C++.
 *
 * The host (the adapter) implements struct SvioHost for the device and a struct SvioFunctionHost for each of
 * its PCI functions; the board calls them from its cores and from whatever thread calls the functions below.
 * "Locked" means: with the lock of lock()/unlock() held. A function is named by its slot: 0 is the PF.
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

/* The device: its lock, threads and wire. */
typedef struct SvioHost {
    void *opaque; /* first argument of all */

    void (*lock)(void *opaque);
    void (*unlock)(void *opaque);
    void (*thread_begin)(void *opaque, unsigned core);
    void (*thread_end)(void *opaque, unsigned core);
    void (*thread_polling)(void *opaque, bool polling);
    /* Somebody pauses the board, and a core that is active waits for what takes the lock:
     * svio_board_core_waits(). May be NULL. */
    void (*attend)(void *opaque);

    /* The wire, unless port is given: locked. send: > 0 taken, 0 kept and no more until
     * svio_board_port_done(), < 0 failed. */
    int (*port_send)(void *opaque, const uint8_t *frame, size_t length);
    void (*port_flush_receive)(void *opaque);
    void (*port_purge)(void *opaque);

    /* With virtual_time: locked, as all is then. alarm: svio_board_alarm() at this time, and not from within;
     * UINT64_MAX: never. */
    uint64_t (*now)(void *opaque);
    void (*alarm)(void *opaque, uint64_t at);
} SvioHost;

/* A PCI function: guest memory as it reaches it, and its interrupts. */
typedef struct SvioFunctionHost {
    void *opaque; /* first argument of all */

    /* Guest memory, RAM only. */
    bool (*read)(void *opaque, uint64_t address, void *to, size_t length);
    bool (*write)(void *opaque, uint64_t address, const void *from, size_t length);
    /* Hands what is there to take(), in place and piece by piece; a piece is valid during the call only.
     * False: not all of it is reachable, or take() said so. */
    bool (*show)(void *opaque, uint64_t address, size_t length,
                 bool (*take)(void *taker, const uint8_t *piece, size_t length), void *taker);
    /* now: NULL unless it is RAM in one piece at this moment; else it may come within reach later. */
    SvioWindow *(*window_open)(void *opaque, uint64_t address, size_t length, bool now);
    void (*window_close)(void *opaque, SvioWindow *window);
    bool (*window_load)(void *opaque, SvioWindow *window, size_t offset, void *to, size_t length);
    bool (*window_store)(void *opaque, SvioWindow *window, size_t offset, const void *from, size_t length);
    void (*window_written)(void *opaque, SvioWindow *window, size_t offset, size_t length);

    void (*signal)(void *opaque, unsigned vector); /* locked */
    /* The same without the lock, from a core that is active. False: it must be done locked. */
    bool (*signal_unlocked)(void *opaque, unsigned vector);
} SvioFunctionHost;

typedef struct SvioBoardConfig {
    unsigned cores;
    uint32_t poll_us;
    uint32_t stall_ms;   /* see svio::BoardConfig */
    const char *port;    /* a native port, or NULL */
    bool incoming;       /* another process may have the wire until svio_board_port_activate() */
    bool auto_vif;       /* a VF comes into being with a VIF in it */
    uint32_t port_mbps;  /* limit of the port, 0: none */
    bool shared_signals; /* functions share interrupts */
    bool stage_times;    /* histograms of how long messages take from stage to stage */
    bool virtual_time;   /* no threads: an alarm steps the cores, see virtual_executor.hpp */
    uint32_t poll_cost_ns, message_cost_ns;
    const char *mgmt; /* path of the management socket, or NULL */
} SvioBoardConfig;

typedef struct SvioFunctionConfig {
    unsigned slot;  /* 0: the PF, with a VIF in it from the start */
    uint8_t mac[6]; /* of that VIF */
    uint32_t queue_size;
    uint32_t queue_pairs; /* 0: 1 */
} SvioFunctionConfig;

/* Those that can fail: NULL or false, and one sentence in *error, to be freed with free(). */
SvioBoard *svio_board_new(const SvioHost *host, const SvioBoardConfig *config, char **error);
/* Before the start, in the order of slots. */
bool svio_board_add_function(SvioBoard *board, const SvioFunctionHost *host, const SvioFunctionConfig *config,
                             char **error);
bool svio_board_start(SvioBoard *board, char **error);
/* Ends the cores. The lock must not be held: a core may be waiting for it. */
void svio_board_stop(SvioBoard *board);
/* The process ends, and nothing else is called: removes the sockets' paths. */
void svio_board_remove_files(const SvioBoard *board);
/* Closes what windows are left, so the functions' hosts must still be there. */
void svio_board_free(SvioBoard *board);

/* All locked. */
uint32_t svio_board_read(SvioBoard *board, unsigned slot, uint32_t offset);
void svio_board_write(SvioBoard *board, unsigned slot, uint32_t offset, uint32_t value);
void svio_board_bad_access(SvioBoard *board, unsigned slot);
void svio_board_reset(SvioBoard *board, unsigned slot);
/* A VF comes into being or ceases to be; it is reset before. After the start. */
void svio_board_enable(SvioBoard *board, unsigned slot, bool enabled);
void svio_board_pause(SvioBoard *board);
void svio_board_resume(SvioBoard *board);
/* From a core that is active, around a wait for what somebody does who has the lock, in attend() or
 * elsewhere. From other threads: nothing. */
void svio_board_core_waits(SvioBoard *board, bool waits);
/* Paused. wants_lock: translation itself needs the lock (a virtual IOMMU). */
void svio_board_set_dma(SvioBoard *board, unsigned slot, bool enabled, bool wants_lock);
/* The alarm of virtual_time. */
void svio_board_alarm(SvioBoard *board);
void svio_board_set_link(SvioBoard *board, bool up); /* the port's */
/* The frame for which port_send() said 0: sent > 0, failed < 0, or 0: the host has it no more, and it is to
 * be offered again. */
void svio_board_port_done(SvioBoard *board, int result);
/* The receive queues of a function may take frames again. */
void svio_board_receive_ready(SvioBoard *board, unsigned slot);
/* Paused, before the first frame: frames of the netdev begin with a virtio_net_hdr of 12 bytes, both ways. */
void svio_board_port_carries_offloads(SvioBoard *board);
/* False: held back, until port_flush_receive(). */
bool svio_board_receive(SvioBoard *board, const uint8_t *frame, size_t length);

/* Migration (SPEC.md chapter 12), paused. The state is to be freed with free(); NULL: out of memory. load:
 * what svio_board_set_dma() sets comes first; false and one sentence in *error (to be freed): nothing was
 * changed. */
uint8_t *svio_board_save(SvioBoard *board, size_t *length);
bool svio_board_load(SvioBoard *board, const uint8_t *state, size_t length, char **error);
#define SVIO_STATE_MAX (512u << 20) /* bytes of a state, at most */
bool svio_board_link_up(SvioBoard *board, unsigned slot);
/* Paused. The machine is about to run here, and takes a native port's wire; or it runs elsewhere now. */
bool svio_board_port_activate(SvioBoard *board, char **error);
void svio_board_port_release(SvioBoard *board);

/* What management knows, as JSON (SPEC.md 8.4): "vifs", "cores", "info" or "all". To be freed with free();
 * NULL: out of memory, or before the start. */
char *svio_board_query(SvioBoard *board, const char *what);

/* path: "vifs/0/queues/0/send/posted" */
typedef void SvioVisitor(void *opaque, const char *path, uint64_t value);
void svio_board_visit_counters(SvioBoard *board, SvioVisitor *visit, void *opaque);

#ifdef __cplusplus
}
#endif

#endif /* SVIO_BOARD_C_H */
