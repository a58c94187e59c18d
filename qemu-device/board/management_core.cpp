// SPDX-License-Identifier: GPL-2.0-or-later
#include "management_core.hpp"

#include "management_json.hpp"
#include "virtual_executor.hpp"

#include <cerrno>
#include <mutex>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <system_error>
#include <unistd.h>

namespace svio {

ManagementCore::ManagementCore(Board &board, const ManagementCoreConfig &config)
    : board_(board), management_(board, config.management), admin_(management_, config.admin_size_max) {
    if (!config.socket.empty()) {
        ControlSocket::Refusals refusals{
            refusal_json(SVIO_ST_NO_SPACE, "there are too many connections"),
            refusal_json(SVIO_ST_INVALID,
                         "the line is longer than " + std::to_string(ControlSocket::line_max) + " bytes")};
        socket_ = std::make_unique<ControlSocket>(config.socket, std::move(refusals));
    }
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0)
        throw std::system_error(errno, std::generic_category(), "eventfd");
    board_.set_supervisor(this);
}

ManagementCore::~ManagementCore() {
    stop();
    board_.set_supervisor(nullptr);
    close(wake_fd_);
}

// ---- the thread ----

void ManagementCore::start() {
    stopping_ = false;
    thread_ = std::thread([this] { run(); });
}

void ManagementCore::start(VirtualExecutor &executor) {
    executor_ = &executor;
    executor.employ([this] {
        if (step_admin() && admin_waits_)
            wake();
    });
}

void ManagementCore::stop() {
    if (!thread_.joinable())
        return;
    stopping_ = true;
    wake();
    thread_.join();
}

void ManagementCore::run() {
    pthread_setname_np(pthread_self(), "svio-mgmt");
    board_.hooks().begin(thread_number);
    while (!stopping_) {
        if (!step())
            wait();
    }
    board_.hooks().end(thread_number);
}

bool ManagementCore::step() {
    bool found = step_admin();
    if (socket_)
        found |= socket_->step([this](std::string_view line) { return answer(line); });
    return found;
}

bool ManagementCore::step_admin() {
    if (!admin_waits_.exchange(false))
        return false;
    std::lock_guard guard(board_.lock());
    // A board that is paused while nobody works on it is a machine that stands still: no access to its
    // memory. resumed() calls us again.
    if (board_.paused())
        return false;
    bool found = admin_.step();
    if (found && admin_.pending())
        admin_waits_ = true;
    return found;
}

void ManagementCore::wait() {
    std::vector<pollfd> descriptors{{wake_fd_, POLLIN, 0}};
    int timeout = socket_ ? socket_->watch(descriptors) : -1;
    poll(descriptors.data(), descriptors.size(), timeout);
    uint64_t drained;
    // Before the next step() looks: a wake-up after this is not lost.
    [[maybe_unused]] ssize_t n = read(wake_fd_, &drained, sizeof(drained));
}

void ManagementCore::wake() {
    if (executor_)
        return executor_->command_waits();
    uint64_t one = 1;
    // A full counter (EAGAIN) wakes as well.
    [[maybe_unused]] ssize_t n = write(wake_fd_, &one, sizeof(one));
}

// ---- doors ----

std::string ManagementCore::answer(std::string_view line) {
    JsonCommand command(line);
    {
        std::lock_guard guard(board_.lock());
        command.run(management_);
    }
    return command.answer();
}

std::string ManagementCore::query(std::string_view what) const {
    return query_json(management_, what);
}

// ---- Supervisor ----

void ManagementCore::was_reset(Vif &vif) {
    if (vif.config().slot == 0)
        admin_.reset();
    management_.was_reset(vif);
}

bool ManagementCore::write_admin(uint32_t offset, uint32_t value) {
    bool known = admin_.write(offset, value);
    resumed();
    return known;
}

void ManagementCore::resumed() {
    if (!admin_.pending())
        return;
    admin_waits_ = true;
    wake();
}

} // namespace svio
