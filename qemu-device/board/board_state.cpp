// SPDX-License-Identifier: GPL-2.0-or-later
/// Saving and loading a board (SPEC.md chapter 12).
///
/// Loading has two halves: everything is read and checked first, against a copy, and only then taken over. So
/// a state that is refused has changed nothing. What a newer board adds goes into new sections, or into a
/// section with a higher version; a section that others may skip has no section_mandatory.
#include "board.hpp"
#include "state.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

namespace svio {

namespace {

constexpr uint32_t vif_tag = state_tag("VIF ");
constexpr uint32_t vif_counters_tag = state_tag("VCNT");
constexpr uint32_t queue_tag = state_tag("QUEU");
constexpr uint32_t queue_counters_tag = state_tag("QCNT");
constexpr uint32_t rss_tag = state_tag("RSS ");
constexpr uint32_t offload_tag = state_tag("OFFL");
constexpr uint32_t sent_tag = state_tag("SENT");
constexpr uint32_t received_tag = state_tag("RCVD");
constexpr uint32_t signal_tag = state_tag("SIGN");

constexpr size_t sent_max = size_t{SVIO_MAX_CORES} * Outbox::max_frames;
constexpr size_t received_max = size_t{SVIO_MAX_CORES} * Core::backlog_max + 64; // and a port's batch
constexpr size_t signals_max = 4096;

void require(bool holds, const char *otherwise) {
    if (!holds)
        throw StateError(otherwise);
}

template <typename T> void require_same(const char *what, T state, T here) {
    if (state != here)
        throw StateError("the state is of a device with " + std::string(what) + " " + std::to_string(state) +
                         ", and this one has " + std::to_string(here));
}

std::string text_of(const Mac &mac) {
    constexpr const char *digits = "0123456789abcdef";
    std::string text;
    for (uint8_t byte : mac) {
        text += text.empty() ? "" : ":";
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

bool vector_ok(uint32_t vector) {
    return vector < SVIO_VECTORS || vector == SVIO_NO_VECTOR;
}

/// Counters by number: those that the sender did not know are zero, and it must not know more than we do.
template <size_t N> void write_counters(StateWriter &out, const Counters<N> &counters) {
    std::vector<uint64_t> values(N);
    for (size_t n = 0; n < N; n++)
        values[n] = counters.get(n);
    out.list(values, N);
}

template <size_t N> std::array<uint64_t, N> read_counters(StateReader &in) {
    std::vector<uint64_t> values;
    std::array<uint64_t, N> all{};
    in.list(values, N);
    std::copy(values.begin(), values.end(), all.begin());
    return all;
}

template <size_t N> void set_counters(Counters<N> &counters, const std::array<uint64_t, N> &values) {
    for (size_t n = 0; n < N; n++)
        counters.set(n, values[n]);
}

} // namespace

// ---- queues ----

QueueState Queue::save(Clock &clock) const {
    QueueState to;
    to.regs = regs;
    to.state = state_register();
    to.position = position();
    to.signal_from = signal_from_;
    to.held_messages = held_messages_;
    to.held_ns = signal_held() ? clock.now() - held_since_ : 0;
    to.error_news = has_error_news();
    return to;
}

void Queue::check(const QueueState &state, uint32_t max_size) {
    uint32_t error = state.state >> 8;
    require(vector_ok(state.regs.vector), "a queue of the state has a vector out of range");
    switch (state.state & 0xff) {
    case SVIO_QUEUE_DISABLED:
        require(error == 0 && !state.error_news && state.position == 0 && state.signal_from == 0 &&
                    state.held_messages == 0,
                "a queue of the state is disabled and yet somewhere");
        break;
    case SVIO_QUEUE_RUNNING:
        require(error == 0 && !state.error_news, "a queue of the state is running and has an error");
        require(configuration_ok(state.regs, max_size),
                "a running queue of the state has a ring out of range");
        break;
    case SVIO_QUEUE_ERROR:
        require(error > SVIO_QERR_NONE && error < SVIO_QERR_COUNT,
                "a queue of the state has an unknown error");
        break;
    default:
        throw StateError("a queue of the state is in an unknown state");
    }
}

void Queue::load(const QueueState &from, GuestMemory &memory, Clock &clock) {
    stop();
    regs = from.regs;
    position_ = from.position;
    signal_from_ = from.signal_from;
    held_messages_ = from.held_messages;
    uint64_t now = clock.now();
    held_since_ = now - std::min(now, from.held_ns);
    state_ = from.state;
    error_news_ = from.error_news;
    if (!running())
        return; // a queue in error touches its memory no more
    ring_ = memory.reopen(regs.base, size_t{regs.size} * sizeof(svio_entry));
    event_ = memory.reopen(regs.event, sizeof(svio_queue_event));
    if (!ring_ || !event_)
        fail(SVIO_QERR_DMA);
}

// ---- VIFs ----

VifState Vif::save() const {
    VifState to;
    to.id = settings_.id;
    to.slot = config_.slot;
    to.physical = config_.physical;
    to.permanent_mac = settings_.mac;
    to.queue_pairs = pairs();
    to.queue_size_max = config_.queue_size_max;
    to.queue_size_hint = settings_.queue_size;
    to.mtu_max = config_.mtu_max;
    to.device_features = features;
    to.features_ok = features_ok_;
    to.running = running_;
    to.link_up = link_up();
    to.driver_features = driver_features_;
    to.events = events_;
    to.event_vector = event_vector_;
    to.mailbox = mailbox_;
    to.mailbox_state = mailbox_state_;
    to.mac = mac_;
    to.rx_mode = rx_mode_;
    to.groups.assign(groups_.begin(), groups_.begin() + static_cast<ptrdiff_t>(group_count_));
    return to;
}

void Vif::check(const VifState &state) const {
    require_same("unique ID", state.id, settings_.id);
    require_same("slot", state.slot, config_.slot);
    require(state.physical == config_.physical, "the state is of another kind of function");
    if (state.permanent_mac != settings_.mac)
        throw StateError("the state is of a device with mac=" + text_of(state.permanent_mac) +
                         ", and this one has mac=" + text_of(settings_.mac));
    require_same("queue pairs", state.queue_pairs, pairs());
    require_same("queues of at most", state.queue_size_max, config_.queue_size_max);
    require_same("queue-size", state.queue_size_hint, settings_.queue_size);
    require_same("an MTU of at most", state.mtu_max, config_.mtu_max);
    require((state.device_features & ~features) == 0,
            "the state is of a device with features that this one does not offer");
    require(!state.features_ok || (state.driver_features & ~state.device_features) == 0,
            "the driver of the state has accepted features that were not offered");
    require(state.features_ok || !state.running, "the state runs without features");
    require((state.events & ~uint32_t{SVIO_EVENT_ALL}) == 0, "the state has unknown events");
    require(vector_ok(state.event_vector), "the event vector of the state is out of range");
    require(state.mailbox_state == SVIO_MAILBOX_IDLE || state.mailbox_state == SVIO_MAILBOX_DONE,
            "the mailbox of the state is in an unknown state");
    require(!(state.mac[0] & 1) && state.mac != Mac{}, "the MAC of the state is not that of a station");
    require((state.rx_mode & ~uint32_t{SVIO_RX_KNOWN}) == 0, "the state has unknown receive modes");
    for (const Mac &group : state.groups)
        require(group[0] & 1, "the multicast filter of the state has an address of a station");
}

void Vif::load(const VifState &from) {
    features_ok_ = from.features_ok;
    running_ = from.running;
    port_up_ = link_up_ = from.link_up;
    driver_features_ = from.driver_features;
    events_ = from.events;
    event_vector_ = from.event_vector;
    mailbox_ = from.mailbox;
    mailbox_state_ = from.mailbox_state;
    mac_ = from.mac;
    rx_mode_ = from.rx_mode;
    std::copy(from.groups.begin(), from.groups.end(), groups_.begin());
    group_count_ = from.groups.size();
    host_.filters_changed();
    for (Pair &pair : pairs_)
        pair.send.features = features_ok_ ? driver_features_ : 0;
    use_rx_offloads(SVIO_F_RX_OFFLOADS);
}

// ---- cores ----

void Core::save(Moving &to) {
    for (const Staged &frame : outbox_.frames()) {
        const uint8_t *data = outbox_.data(frame);
        to.sent.push_back({frame.vif,
                           frame.pair,
                           frame.counted,
                           {data, data + frame.length},
                           frame.offload,
                           frame.segment});
    }
    to.sent.insert(to.sent.end(), loaded_.begin(), loaded_.end());
    std::lock_guard guard(backlog_mutex_);
    to.received.insert(to.received.end(), backlog_.begin(), backlog_.end());
    to.signals.insert(to.signals.end(), signals_.begin(), signals_.end());
}

void Core::load(Moving &&from) {
    port_segment_ = 0;
    std::move(from.sent.begin(), from.sent.end(), std::back_inserter(loaded_));
    std::move(from.signals.begin(), from.signals.end(), std::back_inserter(signals_));
    std::lock_guard guard(backlog_mutex_);
    std::move(from.received.begin(), from.received.end(), std::back_inserter(backlog_));
    backlog_size_.store(backlog_.size(), std::memory_order_release);
    // A signal for what was delivered before may be due.
    for (unsigned n = 0; n < board_.vifs(); n++) {
        for (unsigned pair = 0; pair < board_.vif(n).pairs(); pair++)
            note_delivered(board_.vif(n), pair);
    }
    refill();
    note_waiting();
}

// Send queues wait until the outbox is empty, so they are behind what came with the state.
void Core::refill() {
    while (!loaded_.empty() && outbox_.has_room()) {
        const Moving::Sent &next = loaded_.front();
        std::copy(next.frame.begin(), next.frame.end(), outbox_.tail());
        outbox_.push(next.vif, next.pair, static_cast<uint32_t>(next.frame.size()), next.offload,
                     next.counted, next.segment);
        loaded_.pop_front();
    }
}

// The frame that QEMU sends for its netdevs' NICs (a request of reverse ARP): switches learn from it.
void Core::announce() {
    announce_ = false;
    for (unsigned n = 0; n < board_.vifs(); n++) {
        if (!board_.vif(n).present())
            continue;
        const Mac &mac = board_.vif(n).mac();
        std::array<uint8_t, vnet_header_size + 60> bytes{};
        uint8_t *frame = bytes.data() + vnet_header_size;
        std::fill_n(frame, mac.size(), uint8_t{0xff});
        constexpr std::array<uint8_t, 10> head = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
        std::copy(head.begin(), head.end(), frame + 12);
        for (ptrdiff_t at : {6, 22, 32})
            std::copy(mac.begin(), mac.end(), frame + at);
        size_t header = board_.port().carries_offloads() ? vnet_header_size : 0;
        iovec iov = {frame - header, header + 60};
        Verdict verdict = Verdict::Pending;
        // Once, and best effort: it is not the guest's frame, so nothing counts it.
        board_.port().send({&iov, 1}, {&verdict, 1});
    }
}

// ---- the board ----

namespace {

struct LoadedQueue {
    QueueState state;
    std::array<uint64_t, SVIO_QSTAT_COUNT> counters{};
    bool found = false;
    bool counted = false;
};

struct LoadedVif {
    VifState state;
    std::array<uint64_t, SVIO_STAT_COUNT> counters{};
    std::array<std::array<LoadedQueue, 2>, SVIO_MAX_QUEUE_PAIRS> queues;
    RssState rss = Rss().save();
    uint64_t rx_offloads = SVIO_F_RX_OFFLOADS;
    bool found = false;
    bool counted = false;
    bool spread = false;
    bool offloads = false;
};

/// Reads a whole state and checks it against a board, without changing that.
class Loader {
  public:
    explicit Loader(Board &board) : board_(board), vifs(1) {}

    void read(std::span<const uint8_t> bytes) {
        for (const StateSection &section : parse_state(bytes))
            read_section(section);
        for (size_t n = 0; n < vifs.size(); n++)
            check_complete(n);
    }

  private:
    Board &board_;
    uint16_t version_ = 0; // of the section that is being read

  public:
    std::vector<LoadedVif> vifs;
    Core::Moving moving;

  private:
    void read_section(const StateSection &section) {
        StateReader in(section.payload);
        bool known = true;
        // Of a frame on its way: 2 has its offload fields.
        bool moving_frame = section.tag == sent_tag || section.tag == received_tag;
        bool fits = section.version == 1 || (moving_frame && section.version == 2);
        version_ = section.version;
        if (fits)
            known = read_known(section.tag, in);
        else
            known = is_known(section.tag);
        if (!known) {
            require(!(section.flags & section_mandatory),
                    "the state has a part that this device does not know: it comes from a newer one");
            return;
        }
        require(fits, "a part of the state has a version that this device does not know");
        require(in.left() == 0, "a part of the state is longer than it should be");
    }

    static bool is_known(uint32_t tag) {
        constexpr std::array tags = {vif_tag,     vif_counters_tag, queue_tag,    queue_counters_tag, rss_tag,
                                     offload_tag, sent_tag,         received_tag, signal_tag};
        return std::find(tags.begin(), tags.end(), tag) != tags.end();
    }

    bool read_known(uint32_t tag, StateReader &in) {
        switch (tag) {
        case vif_tag:
            read_vif(in);
            return true;
        case vif_counters_tag:
            read_vif_counters(in);
            return true;
        case queue_tag:
            read_queue(in);
            return true;
        case queue_counters_tag:
            read_queue_counters(in);
            return true;
        case rss_tag:
            read_rss(in);
            return true;
        case offload_tag:
            read_offloads(in);
            return true;
        case sent_tag:
            read_sent(in);
            return true;
        case received_tag:
            read_received(in);
            return true;
        case signal_tag:
            read_signal(in);
            return true;
        default:
            return false;
        }
    }

    uint32_t read_index(StateReader &in) {
        uint32_t index;
        in(index);
        require(index < vifs.size(), "the state is of a device with more VIFs");
        return index;
    }

    void read_vif(StateReader &in) {
        uint32_t index = read_index(in);
        LoadedVif &vif = vifs[index];
        require(!std::exchange(vif.found, true), "a part of the state comes twice");
        vif.state.fields(in);
        board_.vif(index).check(vif.state);
    }

    // May be missing: then it is as after a reset.
    void read_rss(StateReader &in) {
        uint32_t index = read_index(in);
        LoadedVif &vif = vifs[index];
        require(!std::exchange(vif.spread, true), "a part of the state comes twice");
        vif.rss.fields(in);
        Rss::check(vif.rss, board_.vif(index).pairs());
    }

    // The same.
    void read_offloads(StateReader &in) {
        LoadedVif &vif = vifs[read_index(in)];
        require(!std::exchange(vif.offloads, true), "a part of the state comes twice");
        in(vif.rx_offloads);
        require((vif.rx_offloads & ~uint64_t{SVIO_F_RX_OFFLOADS}) == 0,
                "the state uses unknown receive offloads");
    }

    void read_vif_counters(StateReader &in) {
        LoadedVif &vif = vifs[read_index(in)];
        require(!std::exchange(vif.counted, true), "a part of the state comes twice");
        vif.counters = read_counters<SVIO_STAT_COUNT>(in);
    }

    uint32_t read_pair(StateReader &in, uint32_t index) {
        uint32_t pair;
        in(pair);
        require(pair < board_.vif(index).pairs(), "the state is of a device with more queue pairs");
        return pair;
    }

    LoadedQueue &find_queue(StateReader &in, uint32_t &index) {
        index = read_index(in);
        uint32_t pair = read_pair(in, index), direction;
        in(direction);
        require(direction <= SVIO_RECEIVE, "a queue of the state has no direction");
        return vifs[index].queues[pair][direction];
    }

    void read_queue(StateReader &in) {
        uint32_t index;
        LoadedQueue &queue = find_queue(in, index);
        require(!std::exchange(queue.found, true), "a part of the state comes twice");
        queue.state.fields(in);
        Queue::check(queue.state, board_.vif(index).config().queue_size_max);
    }

    void read_queue_counters(StateReader &in) {
        uint32_t index;
        LoadedQueue &queue = find_queue(in, index);
        require(!std::exchange(queue.counted, true), "a part of the state comes twice");
        queue.counters = read_counters<SVIO_QSTAT_COUNT>(in);
    }

    static std::vector<uint8_t> read_frame(StateReader &in) {
        std::span<const uint8_t> frame = in.raw(in.left());
        // What came from a wire may be empty, or too long by some bytes: it is dropped where all such are.
        require(frame.size() <= SVIO_MESSAGE_MAX + 64, "a frame of the state is longer than any");
        return {frame.begin(), frame.end()};
    }

    static Offload read_offload(StateReader &in, uint32_t &segment) {
        Offload offload;
        offload.fields(in);
        in(segment);
        constexpr uint32_t known = SVIO_ENTRY_CSUM | SVIO_ENTRY_CSUM_OK | SVIO_ENTRY_SEG | SVIO_ENTRY_VLAN;
        require((offload.flags & ~known) == 0, "a frame of the state has an unknown offload");
        return offload;
    }

    static void check_offload(const Offload &offload, uint32_t segment, size_t length) {
        require(offload_fits(offload, length), "offload fields of the state point outside of their frame");
        require(segment < frames_of(offload, length), "a frame of the state is cut beyond its end");
    }

    void read_sent(StateReader &in) {
        uint32_t index = read_index(in);
        uint32_t pair = read_pair(in, index);
        bool counted;
        in(counted);
        Offload offload;
        uint32_t segment = 0;
        if (version_ >= 2)
            offload = read_offload(in, segment);
        moving.sent.push_back({&board_.vif(index), pair, counted, read_frame(in), offload, segment});
        size_t length = moving.sent.back().frame.size();
        check_offload(offload, segment, length);
        require(length > 0 && length <= SVIO_MESSAGE_MAX + vlan_tag_size,
                "a frame of the state has a length out of range");
        require(moving.sent.size() <= sent_max, "the state has more frames than a device can hold");
    }

    void read_received(StateReader &in) {
        Vif &vif = board_.vif(read_index(in));
        Offload offload;
        uint32_t segment = 0;
        if (version_ >= 2)
            offload = read_offload(in, segment);
        moving.received.push_back({&vif, read_frame(in), false, offload, segment});
        check_offload(offload, segment, moving.received.back().frame.size());
        require(moving.received.size() <= received_max, "the state has more frames than a device can hold");
    }

    void read_signal(StateReader &in) {
        uint32_t index = read_index(in), vector;
        in(vector);
        require(vector < SVIO_VECTORS, "a signal of the state has a vector out of range");
        moving.signals.push_back({&board_.vif(index), vector});
        require(moving.signals.size() <= signals_max, "the state has more signals than a device can hold");
    }

    void check_complete(size_t index) {
        const LoadedVif &vif = vifs[index];
        bool whole = vif.found && vif.counted;
        for (unsigned pair = 0; pair < board_.vif(static_cast<unsigned>(index)).pairs(); pair++) {
            for (const LoadedQueue &queue : vif.queues[pair])
                whole = whole && queue.found && queue.counted;
        }
        require(whole, "a part of the state is missing");
    }
};

void add_queue(StateBuilder &out, uint32_t index, uint32_t pair, uint32_t direction, const Queue &queue,
               Clock &clock) {
    StateWriter fields, counters;
    for (StateWriter *part : {&fields, &counters}) {
        (*part)(index);
        (*part)(pair);
        (*part)(direction);
    }
    queue.save(clock).fields(fields);
    out.add(queue_tag, 1, fields.bytes);
    write_counters(counters, queue.counters);
    out.add(queue_counters_tag, 1, counters.bytes);
}

} // namespace

// What management has made is in no state yet.
void Board::require_alone() const {
    require(!vifs_.empty() && vifs_.front()->present() && !shared_,
            "a device with several VIFs cannot be saved or loaded");
}

std::vector<uint8_t> Board::save() {
    require_alone();
    Pause pause(*this);
    StateBuilder out;
    auto index_of = [this](const Vif *vif) {
        auto found = std::find_if(vifs_.begin(), vifs_.end(), [vif](auto &v) { return v.get() == vif; });
        return static_cast<uint32_t>(found - vifs_.begin());
    };
    for (uint32_t n = 0; n < 1; n++) {
        Vif &vif = *vifs_[n];
        StateWriter fields, counters;
        fields(n);
        vif.save().fields(fields);
        out.add(vif_tag, 1, fields.bytes);
        counters(n);
        write_counters(counters, vif.counters);
        out.add(vif_counters_tag, 1, counters.bytes);
        StateWriter spread;
        spread(n);
        vif.rss().save().fields(spread);
        out.add(rss_tag, 1, spread.bytes);
        StateWriter offloads;
        offloads(n);
        offloads(vif.rx_offloads());
        out.add(offload_tag, 1, offloads.bytes);
        for (uint32_t pair = 0; pair < vif.pairs(); pair++) {
            add_queue(out, n, pair, SVIO_SEND, vif.pair(pair).send, clock_);
            add_queue(out, n, pair, SVIO_RECEIVE, vif.pair(pair).receive, clock_);
        }
    }
    Core::Moving moving;
    // The oldest of all. Whose it is does not matter any more: it is counted.
    if (PortFrame kept = port_->kept(); !kept.frame.empty())
        moving.sent.push_back({vifs_.front().get(), 0, true, std::move(kept.frame), kept.offload});
    for (auto &core : cores_)
        core->save(moving);
    // Behind all backlogs: a core looks at its port last.
    uint32_t segment = cores_.back()->port_segment();
    for (PortFrame &next : port_->pending())
        moving.received.push_back(
            {vifs_.front().get(), std::move(next.frame), false, next.offload, std::exchange(segment, 0)});
    for (auto &sent : moving.sent) {
        StateWriter part;
        part(index_of(sent.vif));
        part(sent.pair);
        part(sent.counted);
        sent.offload.fields(part);
        part(sent.segment);
        part.raw(sent.frame);
        out.add(sent_tag, 2, part.bytes);
    }
    for (auto &received : moving.received) {
        StateWriter part;
        part(index_of(received.vif));
        received.offload.fields(part);
        part(received.segment);
        part.raw(received.frame);
        out.add(received_tag, 2, part.bytes);
    }
    for (const auto &signal : moving.signals) {
        StateWriter part;
        part(index_of(signal.vif));
        part(signal.vector);
        out.add(signal_tag, 1, part.bytes);
    }
    return out.finish();
}

void Board::load(std::span<const uint8_t> state) {
    require_alone();
    Loader loader(*this);
    loader.read(state);
    Pause pause(*this);
    for (unsigned n = 0; n < 1; n++) {
        Vif &vif = *vifs_[n];
        LoadedVif &from = loader.vifs[n];
        if (port_->native() && !from.state.link_up) {
            // Nobody could take down, or put up again, the link of a native port.
            from.state.link_up = true;
            from.state.events |= SVIO_EVENT_LINK;
            if (from.state.event_vector != SVIO_NO_VECTOR)
                loader.moving.signals.push_back({&vif, from.state.event_vector});
        }
        purge(vif);
        vif.load(from.state);
        vif.load_rss(from.rss);
        vif.use_rx_offloads(from.rx_offloads);
        set_counters(vif.counters, from.counters);
        for (unsigned pair = 0; pair < vif.pairs(); pair++) {
            auto take = [&](Queue &queue, const LoadedQueue &loaded) {
                set_counters(queue.counters, loaded.counters);
                queue.load(loaded.state, vif.memory(), clock_);
            };
            take(vif.pair(pair).send, from.queues[pair][SVIO_SEND]);
            take(vif.pair(pair).receive, from.queues[pair][SVIO_RECEIVE]);
        }
    }
    // A frame goes to the core that serves its queue here, in the order in which it was: so it stays ahead of
    // what that queue sends next, whatever the number of cores on either side.
    std::vector<Core::Moving> shares(cores_.size());
    for (auto &sent : loader.moving.sent)
        shares[sent.vif->pair(sent.pair).core].sent.push_back(std::move(sent));
    // Received ones to the core that a netdev's next frame of the same pair would wait behind.
    for (auto &received : loader.moving.received) {
        size_t core = received.vif->pair(received.vif->route(received.frame).pair).core;
        (port_->native() ? shares.back() : shares[core]).received.push_back(std::move(received));
    }
    shares.front().signals = std::move(loader.moving.signals);
    for (size_t n = 0; n < shares.size(); n++)
        cores_[n]->load(std::move(shares[n]));
    if (port_->native())
        cores_.back()->order_announcement();
}

} // namespace svio
