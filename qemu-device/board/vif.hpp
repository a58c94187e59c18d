// SPDX-License-Identifier: GPL-2.0-or-later
/// A function (PF or VF) and the virtual interface in its slot, if there is one: registers (SPEC.md chapter
/// 4), life (3), mailbox (7), filters and queue pairs.
///
/// Threads: read_register(), write_register(), reset(), create(), apply(), destroy() and the set_*()
/// functions run with the guest lock held, one at a time; they pause the board while they change what cores
/// look at. receive() and the queues belong to cores and to holders of the guest lock, see queue.hpp.
#pragma once

#include "counters.hpp"
#include "descriptor.hpp"
#include "host.hpp"
#include "queue.hpp"
#include "rate.hpp"
#include "rss.hpp"
#include "switch.hpp"

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace svio {

/// A slot: what is there whether it holds a VIF or not.
struct FunctionConfig {
    Mac mac{};       ///< of the VIF that Board::add_vif() puts there
    uint64_t id = 1; ///< the same
    uint32_t slot = 0;
    bool physical = true;
    uint32_t queue_pairs = 1; ///< at most
    uint32_t queue_size_max = 1024;
    uint32_t queue_size_hint = 256;
    uint32_t mtu_max = SVIO_MTU_MAX;
};

/// What management decides about a VIF: see struct svio_vif_config.
struct VifSettings {
    uint64_t id = 0;
    uint32_t kind = SVIO_KIND_NET;
    Mac mac{};         ///< the permanent one; a guest's own choice goes by until the next reset
    uint16_t vlan = 0; ///< VID | priority << 13: the VIF is in this VLAN and does not see it; 0: none
    bool trust = false;
    bool spoof_check = true;
    bool allow_promisc = false; ///< and trust
    bool allow_multicast = true;
    bool guest_tagging = true; ///< without a VLAN of management: its own tags pass
    uint8_t link = SVIO_LINK_AUTO;
    uint32_t queue_pairs = 1;
    uint32_t queue_size = 0; ///< what the function suggests to its driver, 0: the device's own hint
    uint32_t min_mbps = 0;
    uint32_t max_mbps = 0; ///< 0: no limit
    uint32_t weight = 1;
    uint32_t core = SVIO_CORE_AUTO;
    uint32_t neighbours = 0; ///< a group, or SVIO_NEIGHBOURS_NONE
    std::string name{};

    bool operator==(const VifSettings &) const = default;
    /// Nothing of it needs the switch or the scheduler, as long as the VIF is alone.
    bool plain() const {
        return trust && !spoof_check && allow_promisc && allow_multicast && guest_tagging && vlan == 0 &&
               max_mbps == 0;
    }
    /// The defaults of the PF's own VIF: it may do what an administrator may.
    static VifSettings of_physical() {
        VifSettings settings;
        settings.trust = true;
        settings.spoof_check = false;
        settings.allow_promisc = true;
        return settings;
    }
};

/// What a state holds of a VIF, but for its queues and counters.
struct VifState {
    // What the driver was told: the same on both sides, or the state is refused.
    uint64_t id = 0;
    uint32_t slot = 0;
    bool physical = false;
    Mac permanent_mac{};
    uint32_t queue_pairs = 0;
    uint32_t queue_size_max = 0;
    uint32_t queue_size_hint = 0;
    uint32_t mtu_max = 0;
    uint64_t device_features = 0; ///< here alone the loading side may offer more
    // What it has made of it.
    bool features_ok = false;
    bool running = false;
    bool link_up = false;
    uint64_t driver_features = 0;
    uint32_t events = 0;
    uint32_t event_vector = SVIO_NO_VECTOR;
    std::array<uint32_t, sizeof(svio_command) / 4> mailbox{};
    uint32_t mailbox_state = SVIO_MAILBOX_IDLE;
    Mac mac{};
    uint32_t rx_mode = 0;
    std::vector<Mac> groups;

    template <typename Archive> void fields(Archive &archive) {
        archive(id);
        archive(slot);
        archive(physical);
        archive(permanent_mac);
        archive(queue_pairs);
        archive(queue_size_max);
        archive(queue_size_hint);
        archive(mtu_max);
        archive(device_features);
        archive(features_ok);
        archive(running);
        archive(link_up);
        archive(driver_features);
        archive(events);
        archive(event_vector);
        archive(mailbox);
        archive(mailbox_state);
        archive(mac);
        archive(rx_mode);
        archive.list(groups, SVIO_MULTICAST_MAX);
    }
};

/// Whose a function is, where several machines have functions of one board.
struct Machine {
    std::string name{}; ///< printable
    int pid = 0;        ///< of its process; 0: unknown
};

/// What a VIF needs of the board that it sits on.
class VifHost {
  public:
    virtual ~VifHost() = default;
    /// Stops all cores, and returns when none of them touches guest memory any more. Nests.
    virtual void pause() = 0;
    virtual void resume() = 0;
    /// A send queue has something, or something was configured: have a look.
    virtual void wake(class Vif &vif, unsigned pair) = 0;
    /// The receive queues may take frames again.
    virtual void receive_ready(class Vif &vif) = 0;
    /// Forget what is on its way from or to this VIF. Returns frames of its send queues that were dropped.
    /// Paused.
    virtual size_t purge(class Vif &vif) = 0;
    /// A VIF came, went, or has other settings: who serves it may be another. Paused.
    virtual void settings_changed(class Vif &vif) = 0;
    /// What the switch knows of a VIF has changed. Paused.
    virtual void filters_changed() = 0;
    virtual uint32_t speed_mbps() const = 0;
    /// Management, or null.
    virtual class Supervisor *supervisor() const { return nullptr; }
    /// Null: each VIF has its own.
    virtual class SharedSignals *shared_signals() = 0;
};

/// Holds the board still for as long as it lives.
class Pause {
  public:
    explicit Pause(VifHost &host) : host_(host) { host_.pause(); }
    ~Pause() { host_.resume(); }
    Pause(const Pause &) = delete;
    Pause &operator=(const Pause &) = delete;

  private:
    VifHost &host_;
};

class Vif {
  public:
    static constexpr uint64_t features = SVIO_F_CSUM_TX | SVIO_F_CSUM_RX | SVIO_F_SEG_TCP4 | SVIO_F_SEG_TCP6 |
                                         SVIO_F_SEG_UDP | SVIO_F_RX_SEG | SVIO_F_RX_CHAIN | SVIO_F_VLAN_TX |
                                         SVIO_F_VLAN_RX | SVIO_F_MODERATION | SVIO_F_MULTICAST |
                                         SVIO_F_RX_HASH | SVIO_F_QOS_REQUEST | SVIO_F_LOOPBACK;
    /// How long a frame may wait for a buffer of its pair, where other pairs' frames wait behind it.
    static constexpr uint64_t patience_ns = 20'000'000;

    /// Broken: the sender's memory is out of reach.
    enum class Delivery { Delivered, Dropped, Full, Busy, Broken };
    /// How a message comes to be received.
    struct Terms {
        bool filtered = true; ///< by the VIF; else the switch has done it
        bool patient = true;  ///< may wait for a buffer; else it is dropped
        bool linked = true;   ///< needs the link
        bool from_vif = false;
        uint32_t flags = 0; ///< of the head entry
    };

    struct Pair {
        SendQueue send;
        ReceiveQueue receive;
        std::vector<uint8_t> scratch; ///< where a frame is made into what the driver takes; receive.mutex
        unsigned core = 0;            ///< that serves it; changed while the board is paused
        /// By direction: eventfds that are written in place of the doorbells' registers, see
        /// Board::set_bells().
        std::array<Descriptor, 2> bells;
        /// What there was to do for it, in bytes and a part for each message; since the last take_work().
        std::atomic<uint64_t> work{0};

        void add_work(size_t messages, size_t bytes) {
            work.fetch_add(messages * 1024 + bytes, std::memory_order_relaxed);
        }
        uint64_t take_work() { return work.exchange(0, std::memory_order_relaxed); }
        uint64_t full_since = 0; ///< when a frame first found no buffer, 0: the last one did; receive.mutex
    };
    /// Where a received frame goes.
    struct Route {
        unsigned pair = 0;
        FlowHash hash;
    };
    /// What became of it.
    struct Arrival {
        unsigned pair = 0;
        uint32_t missing = 0; ///< Full: as in ReceiveQueue::deliver()
        uint64_t until = 0;   ///< Full: offered again at this time it is dropped, 0: never
        /// Of a message that the driver gets in pieces, the next: given back when it is offered again.
        uint32_t segment = 0;
        uint32_t delivered = 0; ///< so many frames, now
    };

    Vif(const FunctionConfig &config, GuestMemory &memory, Signals &signals, Clock &clock, VifHost &host);

    // ---- control, with the guest lock ----
    uint32_t read_register(uint32_t offset);
    void write_register(uint32_t offset, uint32_t value);
    /// An access that no register allows: counted, nothing else.
    void bad_access() { counters.add(SVIO_STAT_BAD_REGISTER); }
    void reset();
    /// Of the port. What the VIF's link is depends on its settings as well.
    void set_link(bool up);
    /// Puts a VIF into an empty slot. Its driver, if there is one, gets SVIO_EVENT_CONFIG.
    void create(const VifSettings &settings);
    /// Takes it out again. On return no access to its memory happens any more, and nothing of it can be seen.
    void destroy();
    /// Changes it, while it works: nothing is lost or reordered. `id` and `kind` stay. Another number of
    /// queue pairs holds from its next reset on.
    void apply(const VifSettings &settings);
    bool present() const { return present_; }
    /// Tell the driver: SVIO_EVENT_*.
    void notify(uint32_t events) { post_event(events); }
    /// What IDENTIFY tells.
    svio_vif_info info() const;
    /// A command of SPEC.md chapter 7 that the PF gives for this function: data in the PF's memory. What was
    /// written there is counted in `written`.
    uint16_t execute(svio_command &command, Vif &physical, uint32_t &written);
    const VifSettings &settings() const { return settings_; }
    /// Bus master. The caller has paused the board.
    void set_dma(bool enabled) { dma_ = enabled; }
    /// For migration, while the board is paused. load() believes what check() has let through.
    VifState save() const;
    void load(const VifState &from);
    /// Throws StateError.
    void check(const VifState &state) const;
    /// Tell the driver of queues that failed. Called with the guest lock after cores reported news.
    void report_errors();

    // ---- data path ----
    /// May queues be worked at all?
    bool active() const { return running_ && dma_; }
    bool dma() const { return dma_; }
    bool link_up() const { return link_up_.load(std::memory_order_relaxed); }
    /// Which pair a frame goes to; for a core that is active, or with the guest lock.
    Route route(std::span<const uint8_t> frame) const {
        if (!hashes())
            return {};
        FlowHash hash = rss_.hash(frame);
        return {rss_.pair_of(hash), hash};
    }
    /// Filters a frame from the port and writes it into a receive queue, for an on-board core. On Full the
    /// core arms the bell when it sleeps; it asks for signals itself.
    Delivery receive(const Message &message, Arrival &arrival, const Terms &terms);
    Delivery receive(std::span<const uint8_t> frame, Arrival &arrival) {
        return receive(Message(frame), arrival, Terms{});
    }
    /// The same for a holder of the guest lock: never waits (Busy), has armed the bell on Full, and signals.
    Delivery receive_locked(const Message &message, const Route &route, Arrival &arrival, const Terms &terms);
    Delivery receive_locked(std::span<const uint8_t> frame, const Route &route, Arrival &arrival) {
        return receive_locked(Message(frame), route, arrival, Terms{});
    }
    /// A frame that the driver sends to its own VIF, on the core that picked it up: to the pair that it was
    /// sent by. Never held back, and link or not.
    void loop(std::span<const uint8_t> frame, const Offload &offload, unsigned pair);
    ReceiveQueue &receive_queue(unsigned pair = 0) { return pairs_[pair].receive; }
    uint64_t rx_offloads() const { return rx_offloads_; }
    /// Paused.
    void use_rx_offloads(uint64_t features);
    const Rss &rss() const { return rss_; }
    void load_rss(const RssState &state) { rss_.load(state); }
    Pair &pair(unsigned n) { return pairs_[n]; }
    /// In an empty slot none.
    unsigned pairs() const { return pairs_in_force_.load(std::memory_order_relaxed); }
    bool has_error_news() const;

    GuestMemory &memory() { return memory_; }
    Signals &signals() { return signals_; }
    const FunctionConfig &config() const { return config_; }
    const Mac &mac() const { return mac_; }
    /// Of the guest lock's holder; for people.
    const std::optional<Machine> &machine() const { return machine_; }
    void set_machine(std::optional<Machine> machine) { machine_ = std::move(machine); }
    /// For the switch.
    Switch::Edge edge() const;
    /// The port's link, whatever the VIF's own is.
    bool port_up() const { return port_up_.load(std::memory_order_relaxed); }

    VifCounters counters;
    VifRate rate;

  private:
    static constexpr uint32_t mailbox_words = sizeof(svio_command) / 4;

    uint32_t status() const;
    bool read_function(uint32_t offset, uint32_t &value) const;
    bool write_function(uint32_t offset, uint32_t value);
    bool read_admin(uint32_t offset, uint32_t &value) const;
    bool read_queue(uint32_t offset, uint32_t &value);
    bool write_queue(uint32_t offset, uint32_t value);
    bool write_queue_setup(Queue &queue, uint32_t reg, uint32_t value);
    void write_queue_control(Queue &queue, bool is_receive, unsigned pair, bool enable);
    bool bell(uint32_t offset);
    void control(uint32_t value);
    void accept_features();
    VifSettings fitted(VifSettings settings) const;
    void update_link();
    void clear_counters();
    void stop_queues();
    void post_event(uint32_t bits);

    /// Who has given a command: whose memory its data is in, and how much of it was written.
    struct Caller {
        Vif &function;
        uint32_t &written;
    };
    bool run_mailbox();
    uint16_t execute(svio_command &command, const Caller &caller);
    uint16_t identify(svio_command &command, const Caller &caller);
    uint16_t set_mac(const svio_command &command);
    uint16_t set_rx_mode(const svio_command &command);
    uint16_t multicast(const svio_command &command);
    uint16_t set_vlan_filter(const svio_command &command);
    uint16_t request_qos(svio_command &command);
    uint16_t stats(svio_command &command, const Caller &caller);
    uint16_t set_queue_pairs(const svio_command &command);
    uint16_t set_rss(const svio_command &command, const Caller &caller);
    uint16_t set_rx_offloads(const svio_command &command);
    uint16_t test_signal(const svio_command &command);
    static uint16_t reply(const Caller &caller, const svio_command &command, const void *data, size_t length);

    bool accepts(std::span<const uint8_t> frame) const;
    bool admits(const Message &message, const Route &route, const Terms &terms);
    /// Puts an admitted message into a queue, in the form that its driver takes: vif_offload.cpp. The pair's
    /// mutex is held. What was delivered is counted; what else became of it conclude() tells.
    ReceiveQueue::Result put(const Message &message, Arrival &arrival, const FlowHash &hash,
                             const Terms &terms);
    ReceiveQueue::Result put_changed(const Message &message, Arrival &arrival, const FlowHash &hash,
                                     const Terms &terms);
    ReceiveQueue::Result put_pieces(const Message &message, Arrival &arrival, const FlowHash &hash,
                                    const Terms &terms);
    ReceiveQueue::Result put_frame(const Message &message, Arrival &arrival, const FlowHash &hash,
                                   const Terms &terms);
    bool may_wait(Pair &pair, uint64_t &until);
    Delivery conclude(ReceiveQueue::Result result, Arrival &arrival, const Terms &terms);
    /// Features in force, which change while the board is paused.
    bool hashes() const { return pairs_[0].receive.features & SVIO_F_RX_HASH; }
    bool chains() const { return driver_features_ & SVIO_F_RX_CHAIN; }

    const FunctionConfig config_;
    GuestMemory &memory_;
    Signals &signals_;
    Clock &clock_;
    VifHost &host_;

    std::array<Pair, SVIO_MAX_QUEUE_PAIRS> pairs_;
    bool present_ = false;
    std::optional<Machine> machine_;
    VifSettings settings_;
    std::atomic<unsigned> pairs_in_force_{0}; // a core that is not active asks for news of errors
    bool features_ok_ = false;
    bool running_ = false;
    bool dma_ = false;
    std::atomic<bool> port_up_{true};
    std::atomic<bool> link_up_{false};
    uint64_t driver_features_ = 0;
    uint64_t rx_offloads_ = SVIO_F_RX_OFFLOADS; // those in use, if accepted
    uint32_t events_ = 0;
    uint32_t event_vector_ = SVIO_NO_VECTOR;
    std::array<uint32_t, mailbox_words> mailbox_{};
    uint32_t mailbox_state_ = SVIO_MAILBOX_IDLE;
    uint32_t life_ = 0; // counts resets

    Mac mac_;
    uint32_t rx_mode_ = 0;
    std::array<Mac, SVIO_MULTICAST_MAX> groups_{};
    size_t group_count_ = 0;
    std::bitset<4096> vlans_; ///< VIDs that the guest wants; none: all that it may have
    Rss rss_;
};

} // namespace svio
