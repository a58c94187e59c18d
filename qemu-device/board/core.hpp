// SPDX-License-Identifier: GPL-2.0-or-later
/// An on-board core: step() is one round of its work, and an executor (its own thread, or a test) calls it.
///
/// A core is *active* while it may touch guest memory. Between rounds it is not, and neither is it while it
/// waits for the guest lock or sleeps, so that whoever pauses the board, usually with the guest lock held,
/// never waits for a core that waits for that lock.
#pragma once

#include "bells.hpp"
#include "counters.hpp"
#include "host.hpp"
#include "pace.hpp"
#include "queue.hpp"
#include "stage_times.hpp"
#include "vif.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace svio {

class Board;
class VirtualExecutor;

class Core {
  public:
    static constexpr size_t batch = 32;
    static constexpr size_t backlog_max = 256;

    Core(Board &board, unsigned index, uint32_t poll_us, bool stage_times = false);
    ~Core();
    Core(const Core &) = delete;
    Core &operator=(const Core &) = delete;

    // ---- set up, before start() or paused ----
    void serve(Vif &vif, unsigned pair);
    /// Serves it no more.
    void leave(Vif &vif, unsigned pair);
    /// The same, and another core goes on with what is on its way.
    void hand_over(Vif &vif, unsigned pair, Core &to);
    void serve_port() { serves_port_ = true; }
    /// The pair's doorbells, if they are descriptors: it sleeps on them from now on, or no more.
    void watch(Vif &vif, unsigned pair);
    void unwatch(Vif &vif, unsigned pair);

    // ---- executors ----
    void start();
    void stop();
    /// One round: the active part, then what needs the guest lock. True if there was anything to do.
    bool round();
    /// What a core does after `poll-us` without work, but for the wait itself. True: sleep is safe.
    bool prepare_sleep();

    /// No thread: it is told of each wake().
    void driven_by(VirtualExecutor *executor) { executor_ = executor; }
    bool driven() const { return executor_ != nullptr; }
    bool poked() const { return poked_.load(std::memory_order_seq_cst); }
    bool waits_for_tokens() const { return tokens_at_ != 0; }
    /// Taken from send queues and put into receive queues.
    uint64_t messages() const { return counters.get(CorePickedUp) + counters.get(CoreDelivered); }
    /// When a core that sleeps has to look again by itself, its port included, 0: never.
    uint64_t due() const;
    /// It found the board paused.
    void parked();
    void spent(uint64_t ns) { cpu_ns_.fetch_add(ns, std::memory_order_relaxed); }

    // ---- from other threads ----
    /// A native port alone: tell the wire where the VIFs are now.
    void order_announcement() { announce_ = true; }
    /// Have a look at once, also if asleep.
    void wake();
    /// The pauser's half: returns when the core is not active.
    void wait_inactive();
    /// Of the calling core, if it is one: it stays active, and waits for what takes the guest lock.
    static void this_one_waits(bool waits);
    /// A frame whose receive queue is busy. False: the backlog is full. Guest lock held.
    bool push_backlog(Vif &vif, std::vector<uint8_t> frame, const Offload &offload = {}, uint32_t segment = 0,
                      bool sorted = false);
    /// True: frames wait already, so this one must wait in the port; flush_receive() follows.
    bool behind_backlog();
    /// A frame that the port holds back is to be offered again at this time at the latest.
    void flush_port_at(uint64_t time);
    bool backlog_full() const { return backlog_size_.load(std::memory_order_acquire) >= backlog_max; }
    bool has_backlog() const { return backlog_size_.load(std::memory_order_acquire) != 0; }
    /// For migration, while the board is paused and with the guest lock: what is on its way, in order.
    struct Moving {
        struct Sent {
            Vif *vif;
            uint32_t pair;
            bool counted; ///< as sent
            std::vector<uint8_t> frame;
            Offload offload{};
            uint32_t segment = 0; ///< that goes next
        };
        struct Signal {
            Vif *vif;
            uint32_t vector;
            Stage stage = StageSendSignalled; ///< for the times,
            uint64_t since = 0;               ///< and what it tells has waited so long
        };
        struct Received {
            Vif *vif;
            std::vector<uint8_t> frame;
            bool sorted = false; ///< the switch has decided that it is for this VIF
            Offload offload{};
            uint32_t segment = 0; ///< that goes next
        };
        std::vector<Sent> sent;         ///< completed in their send queues, and not yet with the port
        std::vector<Received> received; ///< taken from the port, and not yet delivered
        std::vector<Signal> signals;    ///< decided, and not yet raised
    };
    void save(Moving &to);
    uint32_t port_segment() const { return port_segment_; }
    /// Before what it finds by itself.
    void load(Moving &&from);
    /// Paused: forgets a VIF's frames; returns those that its send queues had given.
    size_t purge(Vif &vif);

    uint64_t cpu_ns() const;
    CoreCounters counters;
    const StageTimes &times() const { return times_; }

  private:
    struct Served {
        Vif *vif;
        unsigned pair;
    };
    struct Delivered : Served {
        uint64_t since = 0; // see stage_times.hpp
    };
    /// A VIF that the core serves, and its turn in the round robin.
    struct Client {
        struct Part {
            unsigned pair;
            bool waits = false;   ///< for the port, or for tokens
            bool touched = false; ///< messages of it were completed and not yet published
        };
        Vif *vif;
        std::vector<Part> parts;
        size_t next = 0; ///< of `parts`
        int64_t deficit = 0;
        bool open = false; ///< its turn has begun
        bool backlogged = false;
    };
    /// What became of an attempt to forward a message.
    enum class Outcome { Sent, Empty, Waits, Throttled };
    using Signal = Moving::Signal;
    using Backlogged = Moving::Received;

    // ---- forward.cpp: through the switch ----
    bool serve_switched();
    void look_for_work();
    bool serve_guarantees();
    bool serve_turns();
    Outcome serve_turn(Client &client, int64_t quantum);
    bool serve_local(Client &client);
    Outcome forward_next(Client &client, bool guaranteed);
    Outcome forward(Client &client, Client::Part &part, SendQueue &queue);
    void note_source(unsigned slot, std::span<const uint8_t> head, const Switch::Way &way) const;
    void narrow(Switch::Way &way, std::span<const uint8_t> head) const;
    Switch::Way decide(Vif &vif, std::span<const uint8_t> head) const;
    bool may_stage();
    bool stage(Client &client, unsigned pair, SendQueue &queue, std::span<const uint8_t> head, size_t skip,
               std::span<const uint8_t> &body);
    bool deliver(Vif &from, SendQueue &queue, const Switch::Way &way, const Switch::Heads &heads, size_t skip,
                 std::span<const uint8_t> body);
    Outcome loop(Client &client, Client::Part &part, SendQueue &queue);
    void complete(Client::Part &part, SendQueue &queue);
    void publish();
    void note_due(uint64_t time);
    bool serve_switched_port();
    bool receive_switched(std::span<const uint8_t> frame, const Offload &offload);

    void run();
    template <typename Work> bool while_active(Work work);
    bool enter();
    void leave();
    void note_waiting();
    bool step();
    bool serve_send();
    bool collect_from(const Served &served);
    bool serve_receive_port();
    bool drain_backlog();
    void note_lack(Vif &vif, const Vif::Arrival &arrival);
    void note_delivered(Vif &vif, unsigned pair);
    Vif::Delivery give(Vif &vif, const Message &message, Vif::Arrival &arrival, const Vif::Terms &terms);
    bool drain_outbox();
    void collect_signals(bool now_or_never);
    void raise_signals();
    void raise_unlocked();
    bool flush();
    bool send_outbox();
    /// What a port is offered at once: frames as it takes them.
    struct Offer {
        std::array<iovec, Outbox::max_frames> frames;
        std::array<Staged, Outbox::max_frames> of; ///< the message that each is, or is a piece of
        std::array<bool, Outbox::max_frames> last; ///< piece of it
        size_t count = 0;
        size_t cut = 0; ///< bytes of pieces
    };
    svio_stat refusal(const Staged &frame) const;
    bool offer(Staged &frame, Offer &to);
    bool offer_pieces(Staged &frame, Offer &to);
    bool settle(const Offer &offered, std::span<const Verdict> verdicts);
    bool drop_stalled();
    uint64_t stall_time() const;
    void refill();
    void announce();
    bool arm_all();
    bool take_bells();
    uint64_t wake_time() const;
    void rest();
    void sleep();
    void say_polling(bool polls);
    void adapt(uint64_t slept_ns);

    Board &board_;
    const unsigned index_;
    const uint64_t poll_max_ns_;
    uint64_t poll_ns_;
    bool polling_ = false; // what was said last
    std::vector<Served> served_;
    size_t first_ = 0; // of served_, in the next round
    std::vector<Client> clients_;
    size_t first_client_ = 0;
    bool bypass_ = false; // nothing more for the port in this round
    int64_t cost_ = 0;    // of the last message, all its copies,
    int64_t spent_ = 0;   // and of all in this round
    uint64_t now_ = 0;    // of this round, where rates are to be kept
    uint64_t tokens_at_ =
        0; // when there is something to send again, which now waits for tokens; 0: nothing does
    bool claims_ = false;                // a share of the port's rate
    size_t forwarded_ = 0, replies_ = 0; // in this round
    uint32_t last_to_ = SVIO_SLOT_SELF;  // whom the last message from VIF to VIF went to
    Chain chain_;
    std::vector<uint8_t> bounce_; // a message that is looped back
    bool serves_port_ = false;
    bool hold_port_ = false;           // the frame at the port's front found no buffer,
    Served lacks_{nullptr, 0};         // nor did the one at the backlog's: of this pair,
    uint32_t missing_ = 0;             // so far ahead,
    uint64_t patience_until_ = 0;      // and so long does it wait (0: for ever)
    std::vector<Delivered> delivered_; // receive queues that are perhaps not signalled yet
    uint64_t stuck_since_ = 0;         // the port takes no frame since then; 0: it does
    bool flush_port_ = false; // the port was refused: because of the backlog, which is empty now, ...
    std::atomic<uint64_t> flush_port_at_{0}; // ... or for want of a buffer, until this time
    Pace pace_;
    StageTimes times_;
    Outbox outbox_;
    std::vector<uint8_t> pieces_;     // of messages that a port takes in segments, while it is offered them
    size_t head_length_ = 0;          // of the message in chain_, before the switch has changed its tag
    uint32_t port_segment_ = 0;       // of the frame at the port's front: the next that its VIF gets
    std::deque<Moving::Sent> loaded_; // came with a state, and go through the outbox first
    std::atomic<bool> announce_{false};
    std::vector<Signal> signals_;
    std::vector<Signal> due_;  // scratch of raise_signals()
    bool frames_wait_ = false; // see note_waiting()
    bool signals_wait_ = false;

    std::mutex backlog_mutex_;
    std::deque<Backlogged> backlog_;
    std::atomic<size_t> backlog_size_{0};
    bool backlog_waiter_ = false;

    enum : uint32_t { inactive, active, waiting };
    std::atomic<uint32_t> active_{inactive};
    std::atomic<bool> poked_{false};
    std::atomic<bool> sleeping_{false};
    std::atomic<bool> stopping_{false};
    std::atomic<uint64_t> cpu_ns_{0};
    int wake_fd_ = -1;
    Bells bells_;           // of send queues
    int bells_fd_ = -1;     // to sleep on, as it was when the core was last active,
    int lack_fd_ = -1;      // and the doorbell of the receive queue that it has armed
    bool deaf_ = false;     // see Bells::deaf()
    bool was_rung_ = false; // one of these has woken it
    VirtualExecutor *executor_ = nullptr;
    std::thread thread_;
};

} // namespace svio
