// SPDX-License-Identifier: GPL-2.0-or-later
#include "event_writer.hpp"

#include <array>
#include <cstdint>
#include <ctime>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace svio {

EventWriter::EventWriter() : null_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {
    if (null_ < 0 || syscall(SYS_io_setup, events, &context_) < 0)
        context_ = 0;
}

EventWriter::~EventWriter() {
    if (context_ != 0)
        syscall(SYS_io_destroy, context_);
    if (null_ >= 0)
        close(null_);
}

EventWriter &EventWriter::of_this_thread() {
    static thread_local EventWriter mine;
    return mine;
}

void EventWriter::add(int eventfd) {
    if (context_ != 0 && submit(eventfd))
        return;
    pollfd ready{eventfd, POLLOUT, 0};
    if (poll(&ready, 1, 0) == 1 && ready.revents == POLLOUT)
        eventfd_write(eventfd, 1);
}

bool EventWriter::submit(int eventfd) {
    if (ended_ == events)
        take_ended();
    char nothing = 0;
    iocb request{};
    request.aio_lio_opcode = IOCB_CMD_PREAD;
    request.aio_fildes = static_cast<uint32_t>(null_);
    request.aio_buf = reinterpret_cast<uintptr_t>(&nothing);
    request.aio_nbytes = sizeof(nothing);
    request.aio_flags = IOCB_FLAG_RESFD;
    request.aio_resfd = static_cast<uint32_t>(eventfd);
    iocb *requests[] = {&request};
    if (syscall(SYS_io_submit, context_, 1L, requests) != 1)
        return false;
    ended_++;
    return true;
}

void EventWriter::take_ended() {
    std::array<io_event, events> ended;
    timespec no_time{};
    syscall(SYS_io_getevents, context_, 0L, static_cast<long>(ended.size()), ended.data(), &no_time);
    ended_ = 0;
}

} // namespace svio
