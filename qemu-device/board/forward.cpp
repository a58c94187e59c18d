// SPDX-License-Identifier: GPL-2.0-or-later
/// A core's work where VIFs share the board: deficit round robin over the VIFs that it serves, rates, and
/// messages through the switch (SPEC.md chapters 13 and 14).
///
/// Messages wait in the guests' queues. One is taken when it can go on at once: to the port if that has room
/// and tokens, and to other VIFs always, as who has no buffer there loses it. So who waits for the port does
/// not hold up the messages from VIF to VIF of others.
#include "board.hpp"
#include "core.hpp"

#include <algorithm>

namespace svio {

namespace {

/// Deficits are kept in parts of a byte, so that a small weight beside a large one is exact as well.
constexpr int64_t parts = 1024;
/// What the VIF of the largest weight may send in one turn.
constexpr int64_t quantum_bytes = 16384;
/// A round ends after so much: who pauses the board, or what else the core has to do, waits for it.
constexpr int64_t round_bytes = 16 * quantum_bytes;
/// The least that a message costs: a flood of tiny ones is no cheaper than frames of a wire.
constexpr uint64_t least_cost = 64;

int64_t cost_of(const Chain &chain) {
    return static_cast<int64_t>(std::max<uint64_t>(chain.length, least_cost));
}

} // namespace

// ---- whose turn it is ----

bool Core::serve_switched() {
    now_ = board_.timed() ? board_.clock().now() : 0;
    tokens_at_ = 0;
    forwarded_ = replies_ = 0;
    spent_ = 0;
    look_for_work();
    bool any = serve_guarantees();
    any |= serve_turns();
    publish();
    if (forwarded_ != 0) {
        counters.add(CorePickedUp, forwarded_);
        pace_.sent(forwarded_, board_.clock().now());
        pace_.received(replies_);
    }
    return any;
}

void Core::look_for_work() {
    uint64_t weights = 0, guaranteed = 0;
    for (Client &client : clients_) {
        client.backlogged = false;
        for (Client::Part &part : client.parts) {
            SendQueue &queue = client.vif->pair(part.pair).send;
            // What came from another core is ahead of all that its queue has.
            part.waits = std::any_of(loaded_.begin(), loaded_.end(), [&](const Moving::Sent &sent) {
                return sent.vif == client.vif && sent.pair == part.pair;
            });
            bool posted = client.vif->active() && queue.running() && queue.posted();
            client.backlogged |= posted;
            if (!posted)
                times_.empty(queue);
        }
        if (!client.backlogged)
            continue;
        // Who may not send now has no share of the port meanwhile.
        if (uint64_t due; client.vif->rate.any() && !client.vif->rate.may(now_, due))
            continue;
        weights += client.vif->settings().weight;
        guaranteed += client.vif->settings().min_mbps;
    }
    if (!board_.port_rate().limited() || (weights == 0 && !claims_))
        return;
    board_.port_rate().claim(index_, weights, guaranteed, now_);
    claims_ = weights != 0;
}

// First what VIFs are guaranteed.
bool Core::serve_guarantees() {
    bool any = false;
    for (size_t i = 0; i < clients_.size(); i++) {
        Client &client = clients_[(first_client_ + i) % clients_.size()];
        if (!client.backlogged || !client.vif->rate.guarantees())
            continue;
        uint64_t before = forwarded_;
        for (int64_t left = quantum_bytes; left > 0 && spent_ < round_bytes && client.vif->rate.owed(now_);) {
            if (forward_next(client, true) != Outcome::Sent)
                break;
            left -= cost_;
        }
        any |= forwarded_ != before;
    }
    return any;
}

// Then the rest by weight.
bool Core::serve_turns() {
    uint32_t top = 1;
    for (const Client &client : clients_) {
        if (client.backlogged)
            top = std::max(top, client.vif->settings().weight);
    }
    size_t n = clients_.size(), waiting = n;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (spent_ >= round_bytes) {
            waiting = i;
            break;
        }
        Client &client = clients_[(first_client_ + i) % n];
        if (!client.backlogged) {
            client.open = false;
            client.deficit = std::min<int64_t>(client.deficit, 0);
            continue;
        }
        Outcome outcome = serve_turn(client, quantum_bytes * parts * client.vif->settings().weight / top);
        any |= outcome == Outcome::Sent;
        if (outcome == Outcome::Waits) {
            waiting = i;
            bypass_ = true;
            break;
        }
    }
    // Another one begins each time, as the round may end before the last one's turn.
    for (size_t i = 0; bypass_ && i < n && spent_ < round_bytes; i++) {
        Client &client = clients_[(counters.get(CorePolls) + i) % n];
        if (client.backlogged)
            any |= serve_local(client);
    }
    bypass_ = false;
    // Who waits for the port goes on with its turn, and those behind it have theirs before anyone has
    // another.
    if (n != 0)
        first_client_ = (first_client_ + waiting) % n;
    return any || spent_ != 0;
}

// A message may take more than what is left: the debt is paid in the turns that follow. Sent: it did
// something, or will do so in its next turn.
Core::Outcome Core::serve_turn(Client &client, int64_t quantum) {
    if (!client.open) {
        client.deficit += quantum;
        client.open = true;
    }
    while (client.deficit > 0) {
        Outcome outcome = forward_next(client, false);
        if (outcome == Outcome::Sent) {
            client.deficit -= cost_ * parts;
            continue;
        }
        if (outcome != Outcome::Waits) {
            client.open = false;
            client.deficit = 0;
        }
        return outcome;
    }
    client.open = false;
    return Outcome::Sent;
}

// Somebody's turn waits for the port, and no other may begin for it until that is over. What goes to VIFs
// alone passes by.
bool Core::serve_local(Client &client) {
    bool any = false;
    for (int64_t left = quantum_bytes; left > 0 && forward_next(client, false) == Outcome::Sent; any = true)
        left -= cost_;
    return any;
}

// The next message of a VIF: of its queues one after the other.
Core::Outcome Core::forward_next(Client &client, bool guaranteed) {
    Vif &vif = *client.vif;
    if (!vif.active())
        return Outcome::Empty;
    if (uint64_t due; vif.rate.any() && !vif.rate.may(now_, due)) {
        note_due(due);
        for (Client::Part &part : client.parts)
            part.waits = true;
        return Outcome::Throttled;
    }
    Outcome result = Outcome::Empty;
    for (size_t i = 0; i < client.parts.size(); i++) {
        size_t n = (client.next + i) % client.parts.size();
        Client::Part &part = client.parts[n];
        SendQueue &queue = vif.pair(part.pair).send;
        if (part.waits)
            result = Outcome::Waits;
        if (part.waits || !queue.running())
            continue;
        if (!queue.peek(chain_)) {
            times_.empty(queue);
            continue;
        }
        Outcome outcome = forward(client, part, queue);
        if (outcome == Outcome::Sent) {
            times_.picked_up(queue, 1);
            client.next = (n + 1) % client.parts.size();
            vif.pair(part.pair).add_work(1, chain_.length);
            if (vif.rate.any())
                vif.rate.spend(static_cast<uint64_t>(cost_of(chain_)), now_, guaranteed);
            forwarded_++;
            spent_ += cost_;
            return outcome;
        }
        part.waits = outcome == Outcome::Waits;
        if (part.waits)
            result = outcome;
    }
    return result;
}

void Core::note_due(uint64_t time) {
    if (tokens_at_ == 0 || time < tokens_at_)
        tokens_at_ = std::max<uint64_t>(time, 1);
}

// ---- a message ----

// Foreign addresses are heard behind those alone that get what nobody claims; else it is only sure that they
// are not where they were.
void Core::note_source(unsigned slot, std::span<const uint8_t> head, const Switch::Way &way) const {
    const uint8_t *source = head.data() + 6;
    unsigned vid = way.tci & Switch::vid_mask;
    if (!board_.table().is_own(slot, source) && board_.table().promiscuous(slot))
        board_.heard().learn(source, vid, Heard::behind(slot), board_.clock().now());
    else
        board_.heard().forget(source, vid);
}

// To where the station was heard, and to nobody else.
void Core::narrow(Switch::Way &way, std::span<const uint8_t> head) const {
    if (way.slots.empty())
        return;
    Heard::Where where = board_.heard().find(head.data(), way.tci & Switch::vid_mask, board_.clock().now());
    if (where == Heard::at_port) {
        way.slots = SlotSet{};
    } else if (where != Heard::nowhere && way.slots.has(Heard::slot_of(where))) {
        way.slots = SlotSet{};
        way.slots.add(Heard::slot_of(where));
        way.port = false;
    }
}

// Where the message in chain_ goes, by its head.
Switch::Way Core::decide(Vif &vif, std::span<const uint8_t> head) const {
    Switch::Way way;
    if (head.size() < SVIO_FRAME_MIN)
        way.drop = SVIO_STAT_DROP_TX_RUNT;
    else if (!vif.link_up())
        way.drop = SVIO_STAT_DROP_TX_LINK_DOWN;
    else
        way = board_.table().from_vif(vif.config().slot, head);
    if (way.dropped())
        return way;
    note_source(vif.config().slot, head, way);
    if (way.unclaimed)
        narrow(way, head);
    if (!way.port)
        return way;
    size_t tag = way.in_vlan() && !way.tagged ? Switch::tag_size : 0;
    if (!vif.port_up() && way.slots.empty())
        way.drop = SVIO_STAT_DROP_TX_LINK_DOWN;
    else if (chain_.length + tag > std::min<size_t>(board_.port().max_frame(), SVIO_MESSAGE_MAX) &&
             way.slots.empty())
        way.drop = SVIO_STAT_DROP_TX_OVERSIZE;
    way.port = vif.port_up() && chain_.length + tag <= SVIO_MESSAGE_MAX;
    return way;
}

// Room in the outbox and, if the port is blocked, nothing there already; and tokens.
bool Core::may_stage() {
    if (!outbox_.has_room() || (!outbox_.empty() && board_.port().blocked()))
        return false;
    if (!board_.port_rate().limited() || board_.port_rate().may(index_))
        return true;
    note_due(board_.port_rate().due(index_, now_));
    return false;
}

// The message in chain_. Empty: its queue has failed.
Core::Outcome Core::forward(Client &client, Client::Part &part, SendQueue &queue) {
    Vif &vif = *client.vif;
    if (chain_.flags & SVIO_ENTRY_LOOP)
        return loop(client, part, queue);
    std::array<uint8_t, vlan_tag_size + head_size> copy;
    const size_t skip = std::min<size_t>(chain_.length, head_size);
    std::span<const uint8_t> head = std::span(copy).subspan(vlan_tag_size, skip);
    // Once, and from here on nothing but the copy is looked at or delivered: the guest may change its own.
    if (!queue.copy(vif.memory(), chain_, 0, skip, copy.data() + vlan_tag_size))
        return Outcome::Empty;
    if (chain_.offload.has(SVIO_ENTRY_VLAN)) { // the switch goes by tags
        insert_vlan(copy.data() + vlan_tag_size, chain_.offload);
        head = std::span(copy).first(skip + vlan_tag_size);
    }
    Switch::Way way = decide(vif, head);
    cost_ = cost_of(chain_) * std::max<int64_t>(way.slots.size(), 1);
    if (way.dropped()) {
        vif.counters.add(way.drop);
        complete(part, queue);
        return Outcome::Sent;
    }
    if (way.port && (bypass_ || !may_stage()))
        return Outcome::Waits;
    std::span<const uint8_t> body; // all but the head, if the device has a copy of it
    Switch::Heads heads(way, head);
    head_length_ = head.size();
    if (way.port && !stage(client, part.pair, queue, heads.seen(true), skip, body))
        return Outcome::Empty;
    if (!way.slots.empty() && !deliver(vif, queue, way, heads, skip, body))
        return Outcome::Empty;
    complete(part, queue);
    return Outcome::Sent;
}

// For the port. Afterwards `body` is in the outbox.
bool Core::stage(Client &client, unsigned pair, SendQueue &queue, std::span<const uint8_t> head, size_t skip,
                 std::span<const uint8_t> &body) {
    uint8_t *to = outbox_.tail();
    std::copy(head.begin(), head.end(), to);
    to += head.size();
    size_t rest = chain_.length - skip;
    if (!body.empty())
        std::copy(body.begin(), body.end(), to);
    else if (!queue.copy(client.vif->memory(), chain_, skip, rest, to))
        return false;
    body = {to, rest};
    // A tag that the switch has put in or taken out moves what is behind it.
    outbox_.push(client.vif, pair, static_cast<uint32_t>(head.size() + rest),
                 moved(chain_.offload, head.size(), head_length_));
    if (board_.port_rate().limited())
        board_.port_rate().spend(index_, chain_.length);
    return true;
}

// To other VIFs, one copy each: from the sender's memory, unless the device has a copy.
bool Core::deliver(Vif &from, SendQueue &queue, const Switch::Way &way, const Switch::Heads &heads,
                   size_t skip, std::span<const uint8_t> body) {
    bool whole = true;
    size_t rest = chain_.length - skip;
    way.slots.each([&](unsigned slot) {
        std::span<const uint8_t> head = heads.seen(board_.table().sees_tags(slot));
        Vif &to = board_.vif(slot);
        Vif::Arrival arrival;
        Message message = body.size() == rest ? Message(head, body)
                                              : Message(head, from.memory(), chain_.all(), skip, rest);
        message.offload = moved(chain_.offload, head.size(), head_length_);
        // All but a message that cannot be read is counted over there.
        whole =
            whole && give(to, message, arrival, {.filtered = false, .patient = false, .from_vif = true}) !=
                         Vif::Delivery::Broken;
        // Two VIFs that talk to each other: see Pace.
        replies_ += last_to_ == from.config().slot;
        last_to_ = slot;
    });
    if (!whole) {
        queue.fail(SVIO_QERR_DMA);
        return false;
    }
    counters.add(CoreSwitched);
    from.counters.add(SVIO_STAT_SWITCHED_TX);
    if (!way.port) { // else that is counted when the port has taken it
        from.counters.add(SVIO_STAT_TX_FRAMES);
        from.counters.add(SVIO_STAT_TX_BYTES, chain_.length);
    }
    return true;
}

Core::Outcome Core::loop(Client &client, Client::Part &part, SendQueue &queue) {
    cost_ = cost_of(chain_);
    bounce_.resize(SVIO_MESSAGE_MAX);
    if (!queue.copy(client.vif->memory(), chain_, 0, chain_.length, bounce_.data()))
        return Outcome::Empty;
    client.vif->loop(std::span(bounce_).first(chain_.length), chain_.offload, part.pair);
    note_delivered(*client.vif, part.pair);
    complete(part, queue);
    return Outcome::Sent;
}

void Core::complete(Client::Part &part, SendQueue &queue) {
    if (!part.touched)
        queue.begin_batch();
    part.touched = true;
    queue.complete(chain_, board_.clock());
}

void Core::publish() {
    for (Client &client : clients_) {
        for (Client::Part &part : client.parts) {
            if (part.touched)
                client.vif->pair(part.pair).send.end_batch();
            part.touched = false;
        }
    }
}

// ---- from a native port ----

bool Core::serve_switched_port() {
    Port &port = board_.port();
    bool any = false;
    hold_port_ = false;
    for (size_t n = 0; n < batch && port.fill(); n++) {
        if (!receive_switched(port.front(), port.front_offload())) {
            hold_port_ = true;
            break;
        }
        port_segment_ = 0;
        counters.add(CoreSwitched);
        port.pop();
        pace_.received(1);
        any = true;
    }
    return any;
}

// False: to be held back, as its VIF is the only one.
bool Core::receive_switched(std::span<const uint8_t> frame, const Offload &offload) {
    return board_.each_receiver(frame, offload, [this](Vif &vif, const Message &message) {
        Vif::Arrival arrival{.segment = board_.shared() ? 0 : port_segment_};
        Vif::Delivery outcome = give(vif, message, arrival, {.filtered = false, .patient = !board_.shared()});
        if (outcome != Vif::Delivery::Full)
            return true;
        port_segment_ = arrival.segment;
        note_lack(vif, arrival);
        return false;
    });
}

} // namespace svio
