// SPDX-License-Identifier: GPL-2.0-or-later
/// The board: on-board cores, VIFs and a port. Knows nothing of QEMU.
#pragma once

#include "core.hpp"
#include "heard.hpp"
#include "host.hpp"
#include "shared_signals.hpp"
#include "vif.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace svio {

struct BoardConfig {
    unsigned cores = 1;     ///< 1..SVIO_MAX_CORES
    uint32_t poll_us = 200; ///< longest time without work before a core sleeps, microseconds
    bool threads = true;    ///< false: nobody calls the cores but the owner (tests, simulated time)
    /// Longest time that frames wait for a port which takes none, milliseconds; 0: for ever. SPEC.md 5.3.
    uint32_t stall_ms = SVIO_PORT_STALL_MS;
    uint32_t port_mbps = 0;      ///< limit of what is sent to the port, 0: none
    bool shared_signals = false; ///< see shared_signals.hpp
    bool stage_times = false;    ///< see stage_times.hpp
};

class Board final : public VifHost {
  public:
    Board(const BoardConfig &config, GuestLock &lock, Clock &clock, ThreadHooks &hooks,
          std::unique_ptr<Port> port);
    ~Board() override;

    /// Before start(), slot after slot from 0 on: empty.
    Vif &add_function(const FunctionConfig &config, GuestMemory &memory, Signals &signals);
    /// The same with a VIF in it, of the MAC and ID that `config` says.
    Vif &add_vif(const FunctionConfig &config, GuestMemory &memory, Signals &signals);
    void start();
    /// Ends the cores; afterwards nothing of the board runs. The guest lock must not be held, or be one that
    /// nobody waits for: see Core::run().
    void stop();

    /// The board's state for migration and snapshots, see state.hpp. Guest lock held.
    std::vector<uint8_t> save();
    /// Takes it over, in place of the state that it has. Guest lock held; bus mastering is set already.
    /// Throws StateError, and has changed nothing then.
    void load(std::span<const uint8_t> state);

    /// A frame from a port that pushes (a netdev). Guest lock held. False: held back, offer it again after
    /// Port::flush_receive().
    bool receive(std::span<const uint8_t> frame, const Offload &offload = {});

    // ---- VifHost ----
    void pause() override;
    void resume() override;
    void wake(Vif &vif, unsigned pair) override;
    void receive_ready(Vif &vif) override;
    size_t purge(Vif &vif) override;
    void settings_changed(Vif &vif) override;
    void filters_changed() override { table_stale_ = true; }
    uint32_t speed_mbps() const override { return port_->speed_mbps(); }
    Supervisor *supervisor() const override { return supervisor_; }

    /// Guest lock held, or nothing runs.
    void set_supervisor(Supervisor *supervisor) { supervisor_ = supervisor; }
    SharedSignals *shared_signals() override { return shared_signals_.get(); }

    // ---- how VIFs share the board; changes while it is paused ----
    /// A single VIF with the port to itself: what it sends goes to the port, what comes goes to it, and a
    /// full queue holds the port back.
    bool cable() const { return cable_.load(std::memory_order_relaxed); }
    Vif &sole() { return *vifs_[sole_]; }
    /// Several VIFs are present.
    bool shared() const { return shared_.load(std::memory_order_relaxed); }
    /// Some rate is to be kept.
    bool timed() const { return timed_.load(std::memory_order_relaxed); }
    const Switch &table() const { return table_; }
    Heard &heard() { return heard_; }
    PortRate &port_rate() { return port_rate_; }
    /// Offers a frame of the port to each VIF that the switch names: `give` says whether it is done with it.
    /// False if it is not for one of them. A frame that nobody wants is counted.
    template <typename Give>
    bool each_receiver(std::span<const uint8_t> frame, const Offload &offload, Give give);
    /// Is it time to look whether cores are loaded evenly? To one caller alone.
    bool balance_due();
    /// Moves at most one queue pair to another core. Guest lock held.
    void balance();
    /// Eventfds of pair 0 send, receive, pair 1 ...: a write is a ring, and wakes the core that serves the
    /// pair without anybody between. They stay through resets. Guest lock held.
    void set_bells(Vif &vif, std::vector<Descriptor> bells);
    /// The port can send again.
    void port_ready();
    /// Its link, for all VIFs. Guest lock held.
    void set_link(bool up);

    /// Cores take the guest lock around each round: where translating an address may need it (a virtual
    /// IOMMU). Paused.
    void set_locked_rounds(bool locked) { locked_rounds_ = locked; }
    bool locked_rounds() const { return locked_rounds_.load(std::memory_order_seq_cst); }

    bool paused() const { return pauses_.load(std::memory_order_seq_cst) != 0; }
    Core &core_of(Vif &vif, unsigned pair) { return *cores_[vif.pair(pair).core]; }
    Core &core(unsigned n) { return *cores_[n]; }
    unsigned cores() const { return static_cast<unsigned>(cores_.size()); }
    /// The function of a slot, present() or not.
    Vif &vif(unsigned slot) { return *vifs_[slot]; }
    /// Slots.
    unsigned vifs() const { return static_cast<unsigned>(vifs_.size()); }
    Port &port() { return *port_; }
    Clock &clock() { return clock_; }
    uint64_t stall_ns() const { return uint64_t{config_.stall_ms} * 1'000'000; }
    GuestLock &lock() { return lock_; }
    ThreadHooks &hooks() { return hooks_; }
    /// Changes whenever a parked core should look again.
    std::atomic<uint32_t> &park_word() { return park_word_; }
    void unpark();
    bool has_error_news() const;
    void report_errors();

    using Visitor = std::function<void(const std::string &path, uint64_t value)>;
    /// All counters, as paths like "vifs/0/queues/0/send/posted".
    void visit_counters(const Visitor &visit) const;
    void visit_port_counters(const Port::Visitor &visit) const;

  private:
    static constexpr uint64_t balance_ns = 100'000'000;
    struct Placement {
        unsigned pairs = 0; // that cores serve
        uint32_t core = SVIO_CORE_AUTO;
    };

    void require_alone() const;
    void update_mode();
    void place(Vif &vif);
    unsigned least_loaded() const;
    void move(Vif &vif, unsigned pair, unsigned core);
    void refresh_table();
    bool receive_switched(std::span<const uint8_t> frame, const Offload &offload);
    bool offer(Vif &vif, const Message &message);
    bool settle(Vif &vif, Vif::Delivery outcome, const Vif::Arrival &arrival, const Message &message,
                bool sorted);

    GuestLock &lock_;
    Clock &clock_;
    ThreadHooks &hooks_;
    const BoardConfig config_;
    std::unique_ptr<Port> port_;
    std::unique_ptr<SharedSignals> shared_signals_; // unless each VIF has its own
    std::vector<std::unique_ptr<Vif>> vifs_;
    std::vector<std::unique_ptr<Core>> cores_;
    std::array<Placement, SlotSet::slots> placements_;
    Switch table_;
    Heard heard_;
    bool table_stale_ = true;
    std::atomic<bool> cable_{false}, shared_{false}, timed_{false};
    unsigned sole_ = 0;
    PortRate port_rate_;
    std::atomic<uint64_t> unclaimed_{0};
    std::atomic<uint64_t> balance_at_{0};
    std::atomic<uint32_t> pauses_{0};
    std::atomic<uint32_t> park_word_{0};
    std::atomic<bool> locked_rounds_{false};
    bool started_ = false;
    Supervisor *supervisor_ = nullptr;
};

template <typename Give>
bool Board::each_receiver(std::span<const uint8_t> frame, const Offload &offload, Give give) {
    std::span<const uint8_t> head = frame.first(std::min(frame.size(), head_size));
    Switch::Way way;
    if (frame.size() >= SVIO_FRAME_MIN) {
        way = table_.from_port(head);
        heard_.learn(head.data() + 6, way.tci & Switch::vid_mask, Heard::at_port, clock_.now());
    }
    if (way.slots.empty()) {
        unclaimed_.fetch_add(1, std::memory_order_relaxed);
        return true;
    }
    Switch::Heads heads(way, head);
    bool done = true;
    way.slots.each([&](unsigned slot) {
        Message message(heads.seen(table_.sees_tags(slot)), frame.subspan(head.size()));
        message.offload = moved(offload, message.head.size(), head.size());
        done &= give(*vifs_[slot], message);
    });
    return done;
}

} // namespace svio
