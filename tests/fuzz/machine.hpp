// SPDX-License-Identifier: GPL-2.0-or-later
/// A whole board before a hostile guest, stepped without threads, and what must hold whatever the guest does:
/// the device writes only into what the guest gave it, sends the very messages that were posted and
/// delivers the very frames that came, its counters add up, and a reset brings a working VIF back.
#pragma once

#include "../unit/driver.hpp"
#include "guarded_ram.hpp"
#include "offload_model.hpp"

namespace svio::fuzz {

using namespace svio::test;

class Machine {
  public:
    /// One for each way to reach memory and each kind of port; they live as long as the process, as what an
    /// input leaves behind must not matter after the reset.
    static Machine &of(unsigned kind);

    Machine(bool direct, bool native);
    ~Machine() { board_->stop(); }

    // ---- before and after an input ----
    /// Features, rings of 2^log2_size entries, RUN.
    void begin(uint64_t features, unsigned log2_size);
    /// A reset, and a message each way with its bytes.
    void end();

    // ---- the guest ----
    uint32_t read(uint32_t offset);
    void write(uint32_t offset, uint32_t value);
    /// An access of any size and alignment, as the adapter takes it.
    void access(uint32_t offset, unsigned size, uint64_t value, bool is_write);
    void set_queue(unsigned direction, uint32_t reg, uint32_t value) {
        write(SVIO_QUEUE_REG(0, direction, reg), value);
    }
    void enable(unsigned direction, const Ring &ring, unsigned vector);
    void command(const svio_command &command);
    uint64_t offered_features() { return features(SVIO_REG_DEVICE_FEATURES_LO); }

    // ---- the outside ----
    void offer(const Frame &frame);
    void work();
    void sleep();
    void set_link(bool up);
    void set_dma(bool on);
    std::vector<uint8_t> save();
    /// Whatever comes: it is taken, or refused and nothing has changed.
    void load(std::span<const uint8_t> state);
    /// Its own state: nothing changes.
    void reload();

    SendQueue &send_queue() { return vif_->pair(0).send; }
    ReceiveQueue &receive_queue() { return vif_->pair(0).receive; }
    FakePort &port() { return *port_; }
    bool reachable(const Range &range) const { return guarded_.reaches(range); }

    BigLock lock;
    ManualClock clock;
    CountedHooks hooks;
    SignalLog signals{lock};

  private:
    GuardedRam guarded_;

  public:
    FakeRam &ram{guarded_.ram};
    SendRing tx;
    ReceiveRing rx;

  private:
    struct Message {
        Frame bytes;
        uint32_t end = 0;    ///< position after it
        bool looped = false; ///< back to the VIF itself
        svio_entry head{};
        std::vector<Frame> frames{}; ///< on the wire
    };
    struct Expected {
        std::vector<Message> messages;
        std::vector<Range> read; ///< what they were made of
        uint32_t error = SVIO_QERR_NONE;
    };

    struct Tally {
        uint64_t frames, drops;
    };

    void lay_out(Ring &ring, uint32_t size, uint32_t buffer_size, size_t &used);
    void check_write(const Range &range);
    void check_store(const Range &window, size_t offset, size_t length);
    void note_buffers();
    void rounds();
    Expected expect() const;
    uint32_t expect_message(uint32_t at, Message &message, Expected &expected) const;
    uint32_t expect_offload(Message &message) const;
    void check_sent(const Expected &expected, uint32_t from);
    Tally begin_round();
    void match_sent(Tally before);
    bool disturbed(const std::vector<Range> &ranges) const;
    void check_received(const Frame &frame, uint32_t from);
    void check_sums();
    void check_reset();
    void check_alive();
    uint64_t stat(unsigned which) const { return vif_->counters.get(which); }
    uint64_t dropped(unsigned first, unsigned last) const;
    uint64_t dropped_sending() const;
    uint64_t dropped_receiving() const;
    uint64_t features(uint32_t low_register);
    size_t held() const { return push_ ? push_->held.size() : polled_->incoming.size(); }

    Vif *vif_ = nullptr;
    FakePort *port_ = nullptr;
    PushPort *push_ = nullptr;
    PolledPort *polled_ = nullptr;
    std::unique_ptr<Board> board_;

    uint64_t offered_ = 0;      ///< frames that the wire had
    uint64_t features_ = 0;     ///< in force
    std::deque<Frame> pending_; ///< taken from the send queue, not yet sent or dropped
    bool lost_track_ = false;   ///< of pending_, until the next reset
    bool in_pieces_ = false;    ///< some of them are segments
    std::vector<Range> buffers_;
    const Range *command_data_ = nullptr;
    bool tampered_ = false;  ///< counters came from a state that somebody changed,
    uint64_t sent_base_ = 0; ///< and their sums are off by so much
    uint64_t offered_base_ = 0;
    uint64_t errors_base_ = 0;
    uint64_t signals_base_ = 0;
};

} // namespace svio::fuzz
