// SPDX-License-Identifier: GPL-2.0-or-later
/// The attach protocol (SPEC.md chapter 15) as far as it is without sockets: packets are checked, and carried
/// out on the board.
#pragma once

#include "board.hpp"
#include "client_memory.hpp"
#include "management_core.hpp"
#include "shared_page.hpp"
#include "svio_attach.h"

#include <array>
#include <deque>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace svio {

/// The peer does not keep to the protocol: it is cut off. One sentence.
class ProtocolError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A request whose form is right.
struct AttachRequest {
    uint32_t request = 0;
    uint32_t tag = 0;
    uint64_t features = 0; ///< HELLO
    uint32_t version = 0;  ///< HELLO
    svio_attach_vif vif{};
    std::vector<RegionConfig> regions;
    uint32_t count = 0; ///< SIGNALS, BELLS, DMA
    uint32_t offset = 0, value = 0;
};

/// Throws ProtocolError.
AttachRequest parse_attach(std::span<const uint8_t> packet, size_t descriptors);

/// Interrupts of a guest: eventfds that its process listens to, or its kernel (irqfd).
class ClientSignals final : public Signals {
  public:
    void raise(unsigned vector) override { raise_unlocked(vector); }
    bool raise_unlocked(unsigned vector) override;
    /// The board is paused.
    void replace(std::vector<Descriptor> eventfds) { eventfds_ = std::move(eventfds); }
    /// Where the peer looks for them as well, or null. The board is paused.
    void replace(std::unique_ptr<SharedPage> page) { page_ = std::move(page); }
    const SharedPage *page() const { return page_.get(); }

  private:
    bool seen_in_page(unsigned vector) const;

    std::vector<Descriptor> eventfds_;
    std::unique_ptr<SharedPage> page_; // struct svio_attach_raised
};

/// The functions of a board, and who has which.
class Attachments {
  public:
    struct Config {
        BoardConfig board;
        unsigned slots = SVIO_MAX_VIFS; ///< for VIFs of machines
        Mac mac{};                      ///< of slot 0, from which those of others are derived
        std::string mgmt;               ///< path of the management's socket, or empty
        uint64_t first_id = 1;          ///< of VIFs: larger than any of a board that machines had before
    };
    /// Throws std::runtime_error with one sentence.
    Attachments(const Config &config, std::unique_ptr<Port> port);
    ~Attachments();

    Board &board() { return *board_; }
    std::mutex &lock() { return lock_.mutex; }
    ManagementCore &core() { return *core_; }

  private:
    friend class Attached;
    struct Function {
        ClientMemory memory;
        ClientSignals signals;
        bool taken = false;
    };
    struct Lock final : GuestLock {
        void lock() override { mutex.lock(); }
        void unlock() override { mutex.unlock(); }
        bool try_lock() override { return mutex.try_lock(); }
        std::mutex mutex;
    };

    Lock lock_;
    MonotonicClock clock_;
    PollingPage hooks_;
    std::deque<Function> functions_; // by slot
    std::unique_ptr<Board> board_;
    std::unique_ptr<ManagementCore> core_;
};

/// One connection's part of the board. It ends with it: the VIF is reclaimed.
class Attached {
  public:
    /// pid: of the peer, by the kernel's word.
    Attached(Attachments &all, int pid) : all_(all), pid_(pid) {}
    ~Attached();
    Attached(const Attached &) = delete;
    Attached &operator=(const Attached &) = delete;

    /// Carries out a packet, and makes its answer. Throws ProtocolError.
    std::vector<uint8_t> handle(std::span<const uint8_t> packet, std::vector<Descriptor> descriptors);
    std::optional<uint32_t> slot() const { return slot_; }
    int pid() const { return pid_; }
    /// There is a slot.
    Vif &vif() { return all_.board().vif(*slot_); }
    /// That go along with the last answer.
    const std::vector<int> &answer_descriptors() const { return answer_descriptors_; }
    /// Why the last request was refused, for the log.
    const std::string &refusal() const { return refusal_; }

  private:
    uint32_t run(AttachRequest &request, std::vector<Descriptor> &descriptors, std::vector<uint8_t> &answer);
    uint32_t attach(const AttachRequest &request, std::vector<uint8_t> &answer);
    uint32_t place_vif(uint32_t slot, const svio_attach_vif &wanted);
    uint32_t replace_memory(const AttachRequest &request, const std::vector<Descriptor> &descriptors);
    uint32_t share_pages();
    uint32_t refuse(uint32_t status, std::string why);
    void detach();
    Attachments::Function &function() { return all_.functions_[*slot_]; }

    Attachments &all_;
    const int pid_;
    bool greeted_ = false;
    uint64_t features_ = 0; // in force
    std::vector<int> answer_descriptors_;
    std::optional<uint32_t> slot_;
    bool made_ = false; // the VIF, for this connection alone
    std::string refusal_;
};

} // namespace svio
