// SPDX-License-Identifier: GPL-2.0-or-later
/// The management core: a thread of its own that takes commands from the doors, one at a time, each with the
/// guest lock. step() does the same for tests, and a virtual executor for the admin queue alone.
#pragma once

#include "admin_queue.hpp"
#include "control_socket.hpp"
#include "management.hpp"

#include <atomic>
#include <memory>
#include <string>
#include <thread>

namespace svio {

struct ManagementCoreConfig {
    ManagementConfig management;
    uint32_t admin_size_max = 0; ///< entries of the PF's admin queue, 0: there is none
    std::string socket;          ///< path, empty: none
};

class VirtualExecutor;

class ManagementCore final : public Supervisor {
  public:
    /// What ThreadHooks are told in place of a core's number.
    static constexpr unsigned thread_number = SVIO_MAX_CORES;

    /// After all functions, before Board::start(). Throws std::runtime_error with one sentence.
    ManagementCore(Board &board, const ManagementCoreConfig &config);
    ~ManagementCore() override;
    ManagementCore(const ManagementCore &) = delete;
    ManagementCore &operator=(const ManagementCore &) = delete;

    void start();
    /// In place of a thread: the admin queue in virtual time. There must be no socket, whose clients are in
    /// the host's. Before VirtualExecutor::start(), and it must outlive all calls but the destructor.
    void start(VirtualExecutor &executor);
    /// The guest lock must not be held: a command may wait for it.
    void stop();
    /// Without a thread: one command of each door at most. False: there was none.
    bool step();

    /// The answer to one line of JSON (SPEC.md 8.4). The guest lock must not be held.
    std::string answer(std::string_view line);
    /// As JSON: "vifs", "cores", "info" or "all" of them; else an error in it. Guest lock held.
    std::string query(std::string_view what) const;

    Management &management() { return management_; }
    /// See Port::remove_files().
    void remove_files() const {
        if (socket_)
            socket_->remove_file();
    }

    // ---- Supervisor ----
    uint16_t may_use_mac(const Vif &vif, const Mac &mac) override {
        return management_.may_use_mac(vif, mac);
    }
    uint16_t request_qos(Vif &vif, Qos &figures) override { return management_.request_qos(vif, figures); }
    void was_reset(Vif &vif) override;
    bool read_admin(uint32_t offset, uint32_t &value) override { return admin_.read(offset, value); }
    bool write_admin(uint32_t offset, uint32_t value) override;
    void resumed() override;

  private:
    void run();
    bool step_admin();
    void wait();
    void wake();

    Board &board_;
    Management management_;
    AdminQueue admin_;
    std::unique_ptr<ControlSocket> socket_;
    std::atomic<bool> admin_waits_{false};
    std::atomic<bool> stopping_{false};
    int wake_fd_ = -1;
    VirtualExecutor *executor_ = nullptr;
    std::thread thread_;
};

} // namespace svio
