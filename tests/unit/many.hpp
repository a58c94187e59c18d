// SPDX-License-Identifier: GPL-2.0-or-later
/// A board with several VIFs, each with a model of its driver; they share one guest memory.
#pragma once

#include "driver.hpp"

namespace svio::test {

inline Mac mac_of(unsigned slot) {
    return {0x52, 0x54, 0x00, 0x00, 0x01, static_cast<uint8_t>(slot)};
}

/// A driver's rings on one function.
struct Station {
    Vif *vif = nullptr;
    SendRing tx;
    ReceiveRing rx;
    SignalLog *signals = nullptr;
};

class ManyRig {
  public:
    struct Options {
        unsigned vifs = 2; ///< VFs; the PF comes on top
        BoardConfig board{.cores = 1, .poll_us = 0, .threads = false};
        bool manual_clock = true;
        uint32_t ring = 64;
        uint32_t buffer = 2048;
        bool native = false;
        bool up = true; ///< bring all functions up
        bool direct = true;
    };

    explicit ManyRig(const Options &options) : options_(options), ram(ram_size(options), options.direct) {
        std::unique_ptr<Port> port;
        if (options.native) {
            auto own = std::make_unique<PolledPort>();
            polled = own.get();
            port = std::move(own);
        } else {
            auto own = std::make_unique<PushPort>(lock);
            push = own.get();
            port = std::move(own);
        }
        wire = push ? static_cast<FakePort *>(push) : polled;
        Clock &source = options.manual_clock ? static_cast<Clock &>(clock) : real_clock;
        board = std::make_unique<Board>(options.board, lock, source, hooks, std::move(port));
        if (push)
            push->board = board.get();
        stations.resize(options.vifs + 1);
        for (unsigned slot = 0; slot <= options.vifs; slot++) {
            std::lock_guard guard(lock);
            logs.push_back(std::make_unique<SignalLog>(lock));
            Station &station = stations[slot];
            station.signals = logs.back().get();
            station.vif =
                &board->add_function({.slot = slot, .physical = slot == 0, .queue_size_max = SVIO_QUEUE_MAX},
                                     ram, *station.signals);
            VifSettings settings = slot == 0 ? VifSettings::of_physical() : VifSettings{};
            settings.id = slot + 1;
            settings.mac = mac_of(slot);
            station.vif->create(settings);
            Pause pause(*board);
            station.vif->set_dma(true);
        }
        board->start();
        for (unsigned slot = 0; options.up && slot <= options.vifs; slot++)
            bring_up(slot);
    }
    ~ManyRig() { board->stop(); }

    void bring_up(unsigned slot, uint64_t extra = 0) {
        Station &s = stations[slot];
        used_ = slot * per_vif(options_);
        uint64_t features = (Vif::features & ~SVIO_F_VLAN_RX) | extra;
        write(slot, SVIO_REG_DRIVER_FEATURES_LO, static_cast<uint32_t>(features));
        write(slot, SVIO_REG_DRIVER_FEATURES_HI, static_cast<uint32_t>(features >> 32));
        write(slot, SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
        write(slot, SVIO_REG_EVENT, SVIO_EVENT_ALL);
        write(slot, SVIO_REG_EVENT_VECTOR, 0);
        lay_out(s.tx);
        lay_out(s.rx);
        current_ = slot;
        program_queue(*this, SVIO_SEND, s.tx, 1);
        program_queue(*this, SVIO_RECEIVE, s.rx, 2);
        write(slot, SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
        s.rx.post_all();
        s.tx.set_signal_at(s.tx.next - 1);
        s.rx.set_signal_at(s.rx.clean - 1);
    }
    uint32_t read(unsigned slot, uint32_t offset) {
        std::lock_guard guard(lock);
        return stations[slot].vif->read_register(offset);
    }
    void write(unsigned slot, uint32_t offset, uint32_t value) {
        std::lock_guard guard(lock);
        stations[slot].vif->write_register(offset, value);
    }
    /// For program_queue().
    void set_queue(unsigned direction, uint32_t reg, uint32_t value) {
        write(current_, SVIO_QUEUE_REG(0, direction, reg), value);
    }
    void command(unsigned slot, svio_command command) {
        command.slot = SVIO_SLOT_SELF;
        run_mailbox(
            command, [&](uint32_t offset) { return read(slot, offset); },
            [&](uint32_t offset, uint32_t value) { write(slot, offset, value); });
        ASSERT_EQ(command.status, SVIO_ST_OK);
    }
    void rx_mode(unsigned slot, uint32_t flags) {
        svio_command c{};
        c.opcode = SVIO_OP_RX_MODE;
        c.u.rx_mode.flags = flags;
        command(slot, c);
    }
    void join(unsigned slot, const Mac &group) {
        svio_command c{};
        c.opcode = SVIO_OP_MULTICAST;
        c.u.multicast.op = SVIO_MC_ADD;
        c.u.multicast.count = 1;
        std::copy(group.begin(), group.end(), c.u.multicast.mac[0]);
        command(slot, c);
    }
    /// Changes settings as management would.
    template <typename Change> void set(unsigned slot, Change change) {
        VifSettings settings = vif(slot).settings();
        change(settings);
        std::lock_guard guard(lock);
        vif(slot).apply(settings);
    }

    void work() { work_until_idle(*board); }
    void send(unsigned slot, const Frame &frame, const std::vector<uint32_t> &pieces = {}) {
        Station &s = stations[slot];
        uint32_t from = s.tx.next;
        s.tx.post(frame, pieces);
        if (s.tx.must_ring(from)) {
            write(slot, SVIO_BELL(0, SVIO_SEND), 1);
        }
    }
    void offer(const Frame &frame) {
        if (polled) {
            polled->incoming.push_back(frame);
            return;
        }
        std::lock_guard guard(lock);
        push->offer(frame);
    }
    std::vector<Frame> sent() {
        std::lock_guard guard(lock);
        return std::exchange(wire->sent, {});
    }
    /// What a VIF has received, hashed or not.
    std::vector<Frame> take(unsigned slot) { return stations[slot].rx.take_all_hashed(); }
    Vif &vif(unsigned slot) { return *stations[slot].vif; }
    uint64_t stat(unsigned slot, svio_stat which) { return vif(slot).counters.get(which); }
    uint64_t counter(const std::string &path) {
        uint64_t found = 0;
        board->visit_counters([&](const std::string &name, uint64_t value) {
            if (name == path)
                found = value;
        });
        return found;
    }

  private:
    Options options_;
    static size_t per_vif(const Options &o) {
        return 2 * (size_t{o.ring} * (sizeof(svio_entry) + o.buffer) + sizeof(svio_queue_event)) + 4096;
    }
    static size_t ram_size(const Options &o) { return per_vif(o) * (o.vifs + 1); }
    void lay_out(Ring &ring) {
        auto allocate = [this](size_t bytes) {
            uint64_t address = FakeRam::base + used_;
            used_ += (bytes + 63) & ~size_t{63};
            return address;
        };
        ring = Ring{};
        ring.ram = &ram;
        ring.size = options_.ring;
        ring.base = allocate(size_t{ring.size} * sizeof(svio_entry));
        ring.event = allocate(sizeof(svio_queue_event));
        ring.buffer_size = options_.buffer;
        ring.buffers = allocate(size_t{ring.size} * ring.buffer_size);
        std::memset(ram.at(ring.base), 0, size_t{ring.size} * sizeof(svio_entry));
        std::memset(ram.at(ring.event), 0, sizeof(svio_queue_event));
    }
    size_t used_ = 0;
    unsigned current_ = 0;

  public:
    BigLock lock;
    ManualClock clock;
    MonotonicClock real_clock;
    CountedHooks hooks;
    FakeRam ram;
    std::vector<std::unique_ptr<SignalLog>> logs;
    std::unique_ptr<Board> board;
    std::vector<Station> stations;
    PushPort *push = nullptr;
    PolledPort *polled = nullptr;
    FakePort *wire = nullptr;
};

/// The same frame in a VLAN.
inline Frame tagged(const Frame &frame, uint16_t tci) {
    Frame with(frame.begin(), frame.begin() + 12);
    with.insert(with.end(), {0x81, 0, static_cast<uint8_t>(tci >> 8), static_cast<uint8_t>(tci)});
    with.insert(with.end(), frame.begin() + 12, frame.end());
    return with;
}

} // namespace svio::test
