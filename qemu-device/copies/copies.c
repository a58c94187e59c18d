/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * svio-copies.so: counts what a process copies, for the anatomy of a message.
 *
 *     LD_PRELOAD=svio-copies.so SVIO_COPIES=FILE qemu-system-x86_64 ...
 *
 * FILE gets four numbers of 64 bits, as this machine writes them, which grow while the process runs: copies
 * in its memory (memcpy, memmove) and their bytes; then frames that system calls moved between it and the
 * kernel, and their bytes. Only those of at least LEAST bytes count, so that structures do not pass for
 * frames.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define LEAST 256

struct counts {
    _Atomic uint64_t copies, copied, frames, moved;
};

static struct counts nowhere;
static struct counts *counts = &nowhere;
static void *(*real_memcpy)(void *, const void *, size_t);
static void *(*real_memmove)(void *, const void *, size_t);

static void count(_Atomic uint64_t *number, _Atomic uint64_t *bytes, size_t length) {
    if (length >= LEAST) {
        atomic_fetch_add_explicit(number, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(bytes, length, memory_order_relaxed);
    }
}

__attribute__((constructor)) static void open_counts(void) {
    const char *path = getenv("SVIO_COPIES");
    int fd;
    void *place;

    real_memcpy = (void *(*)(void *, const void *, size_t))dlsym(RTLD_NEXT, "memcpy");
    real_memmove = (void *(*)(void *, const void *, size_t))dlsym(RTLD_NEXT, "memmove");
    if (!path) {
        return;
    }
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(nowhere)) != 0) {
        perror("svio-copies: SVIO_COPIES");
        exit(1);
    }
    place = mmap(NULL, sizeof(nowhere), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (place == MAP_FAILED) {
        perror("svio-copies: SVIO_COPIES");
        exit(1);
    }
    counts = place;
}

/* Before the constructor has run: the loader's own libraries copy, too. */
static void *copy_slowly(void *to, const void *from, size_t length) {
    volatile unsigned char *target = to;
    const unsigned char *source = from;

    if ((uintptr_t)to <= (uintptr_t)from) {
        for (size_t i = 0; i < length; i++) {
            target[i] = source[i];
        }
    } else {
        while (length--) {
            target[length] = source[length];
        }
    }
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    count(&counts->copies, &counts->copied, length);
    return real_memcpy ? real_memcpy(to, from, length) : copy_slowly(to, from, length);
}

void *memmove(void *to, const void *from, size_t length) {
    count(&counts->copies, &counts->copied, length);
    return real_memmove ? real_memmove(to, from, length) : copy_slowly(to, from, length);
}

/* What compilers make of the two where they know how long the target is. */
void *__memcpy_chk(void *restrict to, const void *restrict from, size_t length, size_t room);
void *__memmove_chk(void *to, const void *from, size_t length, size_t room);

void *__memcpy_chk(void *restrict to, const void *restrict from, size_t length, size_t room) {
    if (length > room) {
        abort();
    }
    return memcpy(to, from, length);
}

void *__memmove_chk(void *to, const void *from, size_t length, size_t room) {
    if (length > room) {
        abort();
    }
    return memmove(to, from, length);
}

static ssize_t moved(ssize_t length) {
    if (length > 0) {
        count(&counts->frames, &counts->moved, (size_t)length);
    }
    return length;
}

static int moved_messages(const struct mmsghdr *messages, int number) {
    for (int i = 0; i < number; i++) {
        moved(messages[i].msg_len);
    }
    return number;
}

#define NEXT(type, name, ...)                                                                                \
    static type (*_Atomic next)(__VA_ARGS__);                                                                \
    if (!next) {                                                                                             \
        next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);                                                \
    }

ssize_t read(int fd, void *to, size_t length) {
    NEXT(ssize_t, read, int, void *, size_t)
    return moved(next(fd, to, length));
}

ssize_t write(int fd, const void *from, size_t length) {
    NEXT(ssize_t, write, int, const void *, size_t)
    return moved(next(fd, from, length));
}

ssize_t readv(int fd, const struct iovec *parts, int number) {
    NEXT(ssize_t, readv, int, const struct iovec *, int)
    return moved(next(fd, parts, number));
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
    NEXT(ssize_t, writev, int, const struct iovec *, int)
    return moved(next(fd, parts, number));
}

ssize_t recv(int fd, void *to, size_t length, int flags) {
    NEXT(ssize_t, recv, int, void *, size_t, int)
    return moved(next(fd, to, length, flags));
}

ssize_t recvfrom(int fd, void *restrict to, size_t length, int flags, struct sockaddr *restrict address,
                 socklen_t *restrict size) {
    NEXT(ssize_t, recvfrom, int, void *, size_t, int, struct sockaddr *, socklen_t *)
    return moved(next(fd, to, length, flags, address, size));
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    NEXT(ssize_t, recvmsg, int, struct msghdr *, int)
    return moved(next(fd, message, flags));
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned number, int flags, struct timespec *patience) {
    NEXT(int, recvmmsg, int, struct mmsghdr *, unsigned, int, struct timespec *)
    return moved_messages(messages, next(fd, messages, number, flags, patience));
}

ssize_t send(int fd, const void *from, size_t length, int flags) {
    NEXT(ssize_t, send, int, const void *, size_t, int)
    return moved(next(fd, from, length, flags));
}

ssize_t sendto(int fd, const void *from, size_t length, int flags, const struct sockaddr *address,
               socklen_t size) {
    NEXT(ssize_t, sendto, int, const void *, size_t, int, const struct sockaddr *, socklen_t)
    return moved(next(fd, from, length, flags, address, size));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    NEXT(ssize_t, sendmsg, int, const struct msghdr *, int)
    return moved(next(fd, message, flags));
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned number, int flags) {
    NEXT(int, sendmmsg, int, struct mmsghdr *, unsigned, int)
    return moved_messages(messages, next(fd, messages, number, flags));
}
