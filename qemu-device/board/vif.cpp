// SPDX-License-Identifier: GPL-2.0-or-later
#include "vif.hpp"

#include "shared_signals.hpp"
#include "supervisor.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace svio {

Vif::Vif(const FunctionConfig &config, GuestMemory &memory, Signals &signals, Clock &clock, VifHost &host)
    : config_(config), memory_(memory), signals_(signals), clock_(clock), host_(host) {
    for (uint32_t n = 0; n < pairs_.size(); n++)
        pairs_[n].send.index = pairs_[n].receive.index = n;
}

// ---- life ----

uint32_t Vif::status() const {
    return SVIO_STATUS_READY | (features_ok_ ? SVIO_STATUS_FEATURES_OK : 0) |
           (running_ ? SVIO_STATUS_RUNNING : 0) | (link_up() ? SVIO_STATUS_LINK_UP : 0);
}

void Vif::reset() {
    stop_queues();
    counters.add(SVIO_STAT_RESETS);
    if (pairs() != settings_.queue_pairs && present_) {
        Pause pause(host_);
        pairs_in_force_ = settings_.queue_pairs;
        host_.settings_changed(*this);
    }
    features_ok_ = false;
    driver_features_ = 0;
    events_ = 0;
    event_vector_ = SVIO_NO_VECTOR;
    mailbox_.fill(0);
    mailbox_state_ = SVIO_MAILBOX_IDLE;
    life_++;
    if (Supervisor *supervisor = host_.supervisor())
        supervisor->was_reset(*this);
    // A frame that was held back for want of buffers is now dropped rather than held for ever.
    host_.receive_ready(*this);
}

void Vif::stop_queues() {
    Pause pause(host_);
    report_errors(); // of a queue that failed in the round that we interrupted
    running_ = false;
    mac_ = settings_.mac;
    rx_mode_ = 0;
    group_count_ = 0;
    vlans_.reset();
    host_.filters_changed();
    rss_.reset();
    rx_offloads_ = SVIO_F_RX_OFFLOADS;
    for (Pair &pair : pairs_) {
        pair.full_since = 0;
        for (Queue *queue : {static_cast<Queue *>(&pair.send), static_cast<Queue *>(&pair.receive)}) {
            queue->stop();
            queue->regs = QueueRegisters{};
            queue->features = 0;
        }
    }
    counters.add(SVIO_STAT_DROP_TX_RESET, host_.purge(*this));
}

void Vif::control(uint32_t value) {
    if (value & SVIO_CONTROL_RESET) {
        reset();
        return;
    }
    if ((value & SVIO_CONTROL_FEATURES_OK) && !features_ok_)
        accept_features();
    bool run = value & SVIO_CONTROL_RUN;
    if (run && (!features_ok_ || !present_)) {
        bad_access();
        return;
    }
    if (run != running_) {
        {
            Pause pause(host_);
            running_ = run;
        }
        host_.receive_ready(*this);
    }
    for (unsigned n = 0; n < pairs(); n++)
        host_.wake(*this, n);
}

void Vif::accept_features() {
    if (driver_features_ & ~features)
        return;
    features_ok_ = true;
    Pause pause(host_); // a queue may have been enabled already
    for (Pair &pair : pairs_)
        pair.send.features = driver_features_;
    use_rx_offloads(rx_offloads_);
}

void Vif::set_link(bool up) {
    port_up_ = up;
    update_link();
}

void Vif::update_link() {
    bool up = present_ && (settings_.link == SVIO_LINK_AUTO ? port_up() : settings_.link == SVIO_LINK_UP);
    if (link_up_.exchange(up) != up)
        post_event(SVIO_EVENT_LINK);
}

// ---- the VIF comes, changes and goes ----

// Within what the function can do.
VifSettings Vif::fitted(VifSettings settings) const {
    settings.queue_pairs = std::clamp<uint32_t>(settings.queue_pairs, 1, config_.queue_pairs);
    if (!std::has_single_bit(settings.queue_size) || settings.queue_size < SVIO_QUEUE_MIN ||
        settings.queue_size > config_.queue_size_max)
        settings.queue_size = config_.queue_size_hint;
    settings.weight = std::max<uint32_t>(settings.weight, 1);
    return settings;
}

void Vif::create(const VifSettings &settings) {
    if (present_)
        destroy();
    {
        Pause pause(host_);
        settings_ = fitted(settings);
        present_ = true;
        pairs_in_force_ = settings_.queue_pairs;
        mac_ = settings_.mac;
        link_up_ = settings_.link == SVIO_LINK_AUTO ? port_up() : settings_.link == SVIO_LINK_UP;
        clear_counters();
        rate.set(settings_.min_mbps, settings_.max_mbps);
        rate.fill();
        host_.settings_changed(*this);
    }
    post_event(SVIO_EVENT_CONFIG);
}

void Vif::destroy() {
    if (!present_)
        return;
    // Who drives the function now learns that its VIF has gone, by the vector that it gave for events.
    uint32_t vector = event_vector_;
    reset();
    {
        Pause pause(host_);
        present_ = false;
        settings_ = VifSettings{};
        pairs_in_force_ = 0;
        mac_ = Mac{};
        groups_.fill(Mac{});
        link_up_ = false;
        clear_counters();
        host_.settings_changed(*this);
    }
    event_vector_ = vector;
    post_event(SVIO_EVENT_CONFIG);
}

void Vif::apply(const VifSettings &settings) {
    if (!present_)
        return;
    VifSettings before = settings_;
    {
        Pause pause(host_);
        settings_ = fitted(settings);
        settings_.id = before.id;
        settings_.kind = before.kind;
        if (settings_.mac != before.mac)
            mac_ = settings_.mac;
        if (settings_.min_mbps != before.min_mbps || settings_.max_mbps != before.max_mbps)
            rate.set(settings_.min_mbps, settings_.max_mbps);
        host_.settings_changed(*this);
    }
    update_link();
    if (settings_.mac != before.mac || settings_.vlan != before.vlan ||
        settings_.queue_pairs != before.queue_pairs || settings_.queue_size != before.queue_size ||
        settings_.min_mbps != before.min_mbps || settings_.max_mbps != before.max_mbps ||
        settings_.weight != before.weight)
        post_event(SVIO_EVENT_CONFIG);
}

void Vif::clear_counters() {
    counters.clear();
    for (Pair &pair : pairs_) {
        pair.send.counters.clear();
        pair.receive.counters.clear();
    }
}

// ---- events ----

void Vif::post_event(uint32_t bits) {
    events_ |= bits;
    if (event_vector_ != SVIO_NO_VECTOR)
        signals_.raise(event_vector_);
}

bool Vif::has_error_news() const {
    for (unsigned n = 0; n < pairs(); n++) {
        if (pairs_[n].send.has_error_news() || pairs_[n].receive.has_error_news())
            return true;
    }
    return false;
}

void Vif::report_errors() {
    uint64_t news = 0;
    for (unsigned n = 0; n < pairs(); n++)
        news += uint64_t{pairs_[n].send.take_error()} + uint64_t{pairs_[n].receive.take_error()};
    if (news == 0)
        return;
    counters.add(SVIO_STAT_QUEUE_ERRORS, news);
    post_event(SVIO_EVENT_QUEUE_ERROR);
}

// ---- registers ----

uint32_t Vif::read_register(uint32_t offset) {
    uint32_t value = 0;
    bool known = false;
    if (offset % 4 == 0) {
        if (offset >= SVIO_REG_QUEUES && offset < SVIO_REG_BELLS)
            known = read_queue(offset, value);
        else
            known = read_function(offset, value);
    }
    if (!known) {
        bad_access();
        return 0;
    }
    return value;
}

void Vif::write_register(uint32_t offset, uint32_t value) {
    bool known = false;
    if (offset % 4 == 0) {
        if (offset >= SVIO_REG_BELLS)
            known = bell(offset);
        else if (offset >= SVIO_REG_QUEUES)
            known = write_queue(offset, value);
        else
            known = write_function(offset, value);
    }
    if (!known)
        bad_access();
}

bool Vif::read_function(uint32_t offset, uint32_t &value) const {
    if (offset >= SVIO_REG_MAILBOX && offset < SVIO_REG_MAILBOX + sizeof(svio_command)) {
        value = mailbox_[(offset - SVIO_REG_MAILBOX) / 4];
        return true;
    }
    const Mac &mac = settings_.mac;
    switch (offset) {
    case SVIO_REG_MAGIC:
        value = SVIO_MAGIC;
        break;
    case SVIO_REG_ABI_VERSION:
        value = SVIO_ABI_MAJOR << 16 | SVIO_ABI_MINOR;
        break;
    case SVIO_REG_FUNCTION:
        value = (config_.physical ? SVIO_FUNCTION_PF : 0) | config_.slot;
        break;
    case SVIO_REG_STATUS:
        value = status();
        break;
    case SVIO_REG_CONTROL:
        value = (features_ok_ ? SVIO_CONTROL_FEATURES_OK : 0) | (running_ ? SVIO_CONTROL_RUN : 0);
        break;
    case SVIO_REG_EVENT:
        value = events_;
        break;
    case SVIO_REG_EVENT_VECTOR:
        value = event_vector_;
        break;
    case SVIO_REG_DEVICE_FEATURES_LO:
        value = static_cast<uint32_t>(features);
        break;
    case SVIO_REG_DEVICE_FEATURES_HI:
        value = static_cast<uint32_t>(features >> 32);
        break;
    case SVIO_REG_DRIVER_FEATURES_LO:
        value = static_cast<uint32_t>(driver_features_);
        break;
    case SVIO_REG_DRIVER_FEATURES_HI:
        value = static_cast<uint32_t>(driver_features_ >> 32);
        break;
    case SVIO_REG_QUEUE_PAIRS:
        value = pairs();
        break;
    case SVIO_REG_QUEUE_SIZE_MAX:
        value = config_.queue_size_max;
        break;
    case SVIO_REG_QUEUE_SIZE_HINT:
        value = present_ ? settings_.queue_size : config_.queue_size_hint;
        break;
    case SVIO_REG_MTU_MAX:
        value = config_.mtu_max;
        break;
    case SVIO_REG_VIF_ID_LO:
        value = static_cast<uint32_t>(settings_.id);
        break;
    case SVIO_REG_VIF_ID_HI:
        value = static_cast<uint32_t>(settings_.id >> 32);
        break;
    case SVIO_REG_VIF_KIND:
        value = present_ ? settings_.kind : uint32_t{SVIO_KIND_NONE};
        break;
    case SVIO_REG_MAC_LO:
        value = uint32_t{mac[0]} | uint32_t{mac[1]} << 8 | uint32_t{mac[2]} << 16 | uint32_t{mac[3]} << 24;
        break;
    case SVIO_REG_MAC_HI:
        value = uint32_t{mac[4]} | uint32_t{mac[5]} << 8;
        break;
    case SVIO_REG_LINK_SPEED:
        value = host_.speed_mbps();
        break;
    case SVIO_REG_SIGNALS:
        if (!config_.physical || !host_.shared_signals())
            return false;
        value = host_.shared_signals()->identifier();
        break;
    case SVIO_REG_MAILBOX_STATE:
        value = mailbox_state_;
        break;
    default:
        return read_admin(offset, value);
    }
    return true;
}

// Without management there is no admin queue, and a register that says so.
bool Vif::read_admin(uint32_t offset, uint32_t &value) const {
    if (!config_.physical)
        return false;
    if (Supervisor *supervisor = host_.supervisor())
        return supervisor->read_admin(offset, value);
    value = 0;
    return offset == SVIO_REG_ADMIN_SIZE_MAX;
}

bool Vif::write_function(uint32_t offset, uint32_t value) {
    if (offset >= SVIO_REG_MAILBOX && offset < SVIO_REG_MAILBOX + sizeof(svio_command)) {
        if (mailbox_state_ == SVIO_MAILBOX_BUSY)
            return false;
        mailbox_[(offset - SVIO_REG_MAILBOX) / 4] = value;
        return true;
    }
    switch (offset) {
    case SVIO_REG_CONTROL:
        control(value);
        return true;
    case SVIO_REG_EVENT:
        events_ &= ~value;
        return true;
    case SVIO_REG_EVENT_VECTOR:
        if (value >= SVIO_VECTORS && value != SVIO_NO_VECTOR)
            return false;
        event_vector_ = value;
        return true;
    case SVIO_REG_DRIVER_FEATURES_LO:
        if (!features_ok_)
            driver_features_ = (driver_features_ & ~uint64_t{0xffffffff}) | value;
        return !features_ok_;
    case SVIO_REG_DRIVER_FEATURES_HI:
        if (!features_ok_)
            driver_features_ = (driver_features_ & 0xffffffff) | uint64_t{value} << 32;
        return !features_ok_;
    case SVIO_REG_SIGNALS:
        if (!config_.physical || !host_.shared_signals())
            return false;
        host_.shared_signals()->clear(value);
        return true;
    case SVIO_REG_MAILBOX_BELL:
        return run_mailbox();
    default:
        return config_.physical && host_.supervisor() && host_.supervisor()->write_admin(offset, value);
    }
}

// ---- queue registers and doorbells ----

bool Vif::read_queue(uint32_t offset, uint32_t &value) {
    unsigned pair = (offset - SVIO_REG_QUEUES) / SVIO_QUEUE_PAIR_STRIDE;
    if (pair >= pairs())
        return false;
    bool is_receive = offset & SVIO_QUEUE_DIR_STRIDE;
    Pair &p = pairs_[pair];
    const Queue &queue = is_receive ? static_cast<Queue &>(p.receive) : static_cast<Queue &>(p.send);
    switch (offset & (SVIO_QUEUE_DIR_STRIDE - 1)) {
    case SVIO_QUEUE_BASE_LO:
        value = static_cast<uint32_t>(queue.regs.base);
        break;
    case SVIO_QUEUE_BASE_HI:
        value = static_cast<uint32_t>(queue.regs.base >> 32);
        break;
    case SVIO_QUEUE_EVENT_LO:
        value = static_cast<uint32_t>(queue.regs.event);
        break;
    case SVIO_QUEUE_EVENT_HI:
        value = static_cast<uint32_t>(queue.regs.event >> 32);
        break;
    case SVIO_QUEUE_SIZE:
        value = queue.regs.size;
        break;
    case SVIO_QUEUE_VECTOR:
        value = queue.regs.vector;
        break;
    case SVIO_QUEUE_CONTROL:
        value = queue.state() == SVIO_QUEUE_DISABLED ? 0 : SVIO_QUEUE_ENABLE;
        break;
    case SVIO_QUEUE_STATE:
        value = queue.state_register();
        break;
    case SVIO_QUEUE_POSITION:
        value = queue.position();
        break;
    case SVIO_QUEUE_MODERATION:
        value = queue.regs.moderation;
        break;
    default:
        return false;
    }
    return true;
}

bool Vif::write_queue(uint32_t offset, uint32_t value) {
    unsigned pair = (offset - SVIO_REG_QUEUES) / SVIO_QUEUE_PAIR_STRIDE;
    if (pair >= pairs())
        return false;
    bool is_receive = offset & SVIO_QUEUE_DIR_STRIDE;
    Pair &p = pairs_[pair];
    Queue &queue = is_receive ? static_cast<Queue &>(p.receive) : static_cast<Queue &>(p.send);
    uint32_t reg = offset & (SVIO_QUEUE_DIR_STRIDE - 1);
    switch (reg) {
    case SVIO_QUEUE_CONTROL:
        write_queue_control(queue, is_receive, pair, value & SVIO_QUEUE_ENABLE);
        return true;
    case SVIO_QUEUE_VECTOR: {
        if (value >= SVIO_VECTORS && value != SVIO_NO_VECTOR)
            return false;
        Pause pause(host_);
        queue.regs.vector = value;
        return true;
    }
    case SVIO_QUEUE_MODERATION: {
        Pause pause(host_);
        queue.regs.moderation = value;
        return true;
    }
    default:
        return queue.state() == SVIO_QUEUE_DISABLED && write_queue_setup(queue, reg, value);
    }
}

bool Vif::write_queue_setup(Queue &queue, uint32_t reg, uint32_t value) {
    auto low = [value](uint64_t old) { return (old & ~uint64_t{0xffffffff}) | value; };
    auto high = [value](uint64_t old) { return (old & 0xffffffff) | uint64_t{value} << 32; };
    QueueRegisters &regs = queue.regs;
    switch (reg) {
    case SVIO_QUEUE_BASE_LO:
        regs.base = low(regs.base);
        return true;
    case SVIO_QUEUE_BASE_HI:
        regs.base = high(regs.base);
        return true;
    case SVIO_QUEUE_EVENT_LO:
        regs.event = low(regs.event);
        return true;
    case SVIO_QUEUE_EVENT_HI:
        regs.event = high(regs.event);
        return true;
    case SVIO_QUEUE_SIZE:
        regs.size = value;
        return true;
    default:
        return false;
    }
}

void Vif::write_queue_control(Queue &queue, bool is_receive, unsigned pair, bool enable) {
    {
        Pause pause(host_);
        if (!enable) {
            report_errors(); // as in stop_queues()
            queue.stop();
        } else if (queue.state() == SVIO_QUEUE_DISABLED)
            queue.start(memory_, config_.queue_size_max);
        if (is_receive)
            pairs_[pair].full_since = 0;
    }
    report_errors();
    if (is_receive)
        host_.receive_ready(*this);
    host_.wake(*this, pair);
}

bool Vif::bell(uint32_t offset) {
    uint32_t within = offset - SVIO_REG_BELLS;
    unsigned pair = within / SVIO_BELL_PAIR_STRIDE;
    within %= SVIO_BELL_PAIR_STRIDE;
    if (pair >= pairs() || within % SVIO_BELL_DIR_STRIDE)
        return false;
    if (within == 0) {
        pairs_[pair].send.counters.add(SVIO_QSTAT_BELLS);
        pairs_[pair].send.times.rung_at.store(clock_.now(), std::memory_order_relaxed);
        host_.wake(*this, pair);
    } else {
        pairs_[pair].receive.counters.add(SVIO_QSTAT_BELLS);
        host_.receive_ready(*this);
        host_.wake(*this, pair);
    }
    return true;
}

Switch::Edge Vif::edge() const {
    return {.slot = config_.slot,
            .mac = mac_,
            .vlan = settings_.vlan,
            .spoof_check = settings_.spoof_check,
            .tagging = settings_.guest_tagging,
            .neighbours = settings_.neighbours,
            .promiscuous = (rx_mode_ & SVIO_RX_PROMISC) && settings_.trust && settings_.allow_promisc,
            .multicast = settings_.allow_multicast,
            .all_multicast = (rx_mode_ & SVIO_RX_KNOWN) != 0,
            .groups = std::span(groups_).first(group_count_),
            .vids = vlans_.any() ? &vlans_ : nullptr};
}

// ---- data path ----

namespace {

bool is_broadcast(std::span<const uint8_t> frame) {
    return std::all_of(frame.begin(), frame.begin() + 6, [](uint8_t byte) { return byte == 0xff; });
}

} // namespace

bool Vif::accepts(std::span<const uint8_t> frame) const {
    if (vlans_.any() && frame.size() >= 18 && frame[12] == 0x81 && frame[13] == 0x00 &&
        !(rx_mode_ & SVIO_RX_PROMISC)) {
        size_t vid = (frame[14] << 8 | frame[15]) & SVIO_VLAN_VID;
        if (vid != 0 && !vlans_[vid])
            return false;
    }
    if (!(frame[0] & 1))
        return (rx_mode_ & SVIO_RX_PROMISC) || std::memcmp(frame.data(), mac_.data(), mac_.size()) == 0;
    if ((rx_mode_ & SVIO_RX_KNOWN) || is_broadcast(frame))
        return true;
    return std::any_of(groups_.begin(), groups_.begin() + static_cast<ptrdiff_t>(group_count_),
                       [&](const Mac &m) { return std::memcmp(frame.data(), m.data(), m.size()) == 0; });
}

// Counts why not, if not.
bool Vif::admits(const Message &message, const Route &route, const Terms &terms) {
    svio_stat reason;
    if (message.size < SVIO_FRAME_MIN)
        reason = SVIO_STAT_DROP_RX_RUNT;
    else if (terms.linked && !link_up())
        reason = SVIO_STAT_DROP_RX_LINK_DOWN;
    else if (!active() || receive_queue(route.pair).state() == SVIO_QUEUE_DISABLED)
        reason = SVIO_STAT_DROP_RX_NOT_RUNNING;
    else if (terms.filtered && !accepts(message.head))
        reason = SVIO_STAT_DROP_RX_FILTER;
    else if (message.size > SVIO_MESSAGE_MAX)
        reason = SVIO_STAT_DROP_RX_TOO_LONG;
    else
        return true;
    counters.add(reason);
    return false;
}

// No buffer. With one pair in use a frame may wait for one as long as it takes, the wire is held back
// meanwhile. With several, frames of the others wait behind it: a pair that is slow holds them back for a
// while, one that stands still loses its frames.
bool Vif::may_wait(Pair &pair, uint64_t &until) {
    if (rss_.pairs() == 1 || !hashes())
        return true;
    uint64_t now = clock_.now();
    if (pair.full_since == 0)
        pair.full_since = now;
    until = pair.full_since + patience_ns;
    return now < until;
}

// The pair's mutex is held.
Vif::Delivery Vif::conclude(ReceiveQueue::Result result, Arrival &arrival, const Terms &terms) {
    Pair &pair = pairs_[arrival.pair];
    switch (result) {
    case ReceiveQueue::Result::Full:
        if (terms.patient && may_wait(pair, arrival.until))
            return Delivery::Full;
        counters.add(SVIO_STAT_DROP_RX_NO_BUFFER);
        return Delivery::Dropped;
    case ReceiveQueue::Result::TooLong:
        counters.add(SVIO_STAT_DROP_RX_TOO_LONG);
        return Delivery::Dropped;
    case ReceiveQueue::Result::Failed:
        counters.add(SVIO_STAT_DROP_RX_QUEUE_ERROR);
        return Delivery::Dropped;
    case ReceiveQueue::Result::Malformed:
        counters.add(SVIO_STAT_DROP_RX_OFFLOAD);
        return Delivery::Dropped;
    case ReceiveQueue::Result::Broken:
        return Delivery::Broken;
    case ReceiveQueue::Result::Delivered:
        break;
    }
    return Delivery::Delivered;
}

Vif::Delivery Vif::receive(const Message &message, Arrival &arrival, const Terms &terms) {
    Route to = route(message.head);
    arrival = {.pair = to.pair, .segment = arrival.segment};
    if (!admits(message, to, terms))
        return Delivery::Dropped;
    std::lock_guard lock(receive_queue(to.pair).mutex);
    return conclude(put(message, arrival, to.hash, terms), arrival, terms);
}

void Vif::loop(std::span<const uint8_t> frame, const Offload &offload, unsigned pair) {
    Arrival arrival{.pair = pair};
    const Message message(frame, offload);
    const Terms terms{.patient = false, .linked = false, .flags = SVIO_ENTRY_LOOP};
    if (!admits(message, {.pair = pair, .hash = {}}, terms)) {
        counters.add(SVIO_STAT_LOOPED);
        return;
    }
    std::lock_guard lock(receive_queue(pair).mutex);
    Delivery delivery = conclude(put(message, arrival, {}, terms), arrival, terms);
    // In pieces it counts as so many: those that were delivered, and the rest as one.
    counters.add(SVIO_STAT_LOOPED, arrival.delivered + (delivery != Delivery::Delivered));
}

Vif::Delivery Vif::receive_locked(const Message &message, const Route &to, Arrival &arrival,
                                  const Terms &terms) {
    arrival = {.pair = to.pair, .segment = arrival.segment};
    if (!admits(message, to, terms))
        return Delivery::Dropped;
    ReceiveQueue &queue = receive_queue(to.pair);
    std::unique_lock lock(queue.mutex, std::try_to_lock);
    if (!lock.owns_lock())
        return Delivery::Busy;
    auto result = ReceiveQueue::Result::Failed;
    // Once more whenever the buffer that lacked was posted while we armed: nobody would ring for it. A driver
    // cannot do that more often than a chain has entries, unless it plays games.
    for (unsigned tries = 0; tries <= SVIO_CHAIN_MAX && queue.running(); tries++) {
        uint32_t segment = arrival.segment;
        result = put(message, arrival, to.hash, terms);
        if (result != ReceiveQueue::Result::Full || !terms.patient || !queue.arm_bell(arrival.missing))
            break;
        if (arrival.segment != segment)
            tries = 0; // it goes on, and comes to an end
    }
    bool signal = arrival.delivered != 0 && queue.signal_due(clock_, true);
    uint32_t vector = queue.regs.vector;
    Delivery delivery = conclude(result, arrival, terms);
    lock.unlock();
    if (signal)
        signals_.raise(vector);
    return delivery;
}

} // namespace svio
