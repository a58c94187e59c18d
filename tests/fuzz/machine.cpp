// SPDX-License-Identifier: GPL-2.0-or-later
#include "machine.hpp"

#include "state.hpp"

namespace svio::fuzz {

namespace {

/// A failed expectation of the shared test helpers is a finding as well.
class AbortOnFailure final : public testing::EmptyTestEventListener {
    void OnTestPartResult(const testing::TestPartResult &result) override {
        if (!result.failed())
            return;
        fprintf(stderr, "%s:%d: %s\n", result.file_name() ? result.file_name() : "?", result.line_number(),
                result.message());
        abort();
    }
};

constexpr size_t ring_size = sizeof(svio_entry);

Range ring_of(const QueueRegisters &regs) {
    return {regs.base, size_t{regs.size} * ring_size};
}
Range event_of(const QueueRegisters &regs) {
    return {regs.event, sizeof(svio_queue_event)};
}

} // namespace

Machine &Machine::of(unsigned kind) {
    static std::array<std::unique_ptr<Machine>, 4> machines;
    if (!machines[0])
        testing::UnitTest::GetInstance()->listeners().Append(new AbortOnFailure);
    auto &machine = machines[kind % machines.size()];
    if (!machine)
        machine = std::make_unique<Machine>(kind & 1, kind & 2);
    return *machine;
}

Machine::Machine(bool direct, bool native) : guarded_(direct) {
    guarded_.may_write = [this](const Range &range) { check_write(range); };
    guarded_.may_store = [this](const Range &window, size_t offset, size_t length) {
        check_store(window, offset, length);
    };
    std::unique_ptr<Port> port;
    if (native) {
        auto own = std::make_unique<PolledPort>();
        port_ = polled_ = own.get();
        port = std::move(own);
    } else {
        auto own = std::make_unique<PushPort>(lock);
        port_ = push_ = own.get();
        port = std::move(own);
    }
    board_ = std::make_unique<Board>(BoardConfig{.cores = 1, .poll_us = 0, .threads = false}, lock, clock,
                                     hooks, std::move(port));
    if (push_)
        push_->board = board_.get();
    FunctionConfig config;
    config.mac = vif_mac;
    config.queue_size_max = SVIO_QUEUE_MAX;
    vif_ = &board_->add_vif(config, guarded_, signals);
    set_dma(true);
    board_->start();
}

// ---- life of an input ----

void Machine::begin(uint64_t features, unsigned log2_size) {
    std::memset(ram.at(FakeRam::base, GuardedRam::size), 0, GuardedRam::size);
    size_t used = 0;
    lay_out(tx, 1u << log2_size, 256, used);
    lay_out(rx, 1u << log2_size, 256, used);
    write(SVIO_REG_DRIVER_FEATURES_LO, static_cast<uint32_t>(features));
    write(SVIO_REG_DRIVER_FEATURES_HI, static_cast<uint32_t>(features >> 32));
    write(SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
    write(SVIO_REG_EVENT_VECTOR, 0);
    enable(SVIO_SEND, tx, 1);
    enable(SVIO_RECEIVE, rx, 2);
    write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
}

void Machine::lay_out(Ring &ring, uint32_t size, uint32_t buffer_size, size_t &used) {
    ring = Ring{};
    ring.ram = &ram;
    ring.size = size;
    ring.buffer_size = buffer_size;
    auto take = [&used](size_t bytes) {
        uint64_t address = FakeRam::base + used;
        used += bytes;
        return address;
    };
    ring.base = take(size * ring_size);
    ring.event = take(sizeof(svio_queue_event));
    ring.buffers = take(size_t{size} * buffer_size);
}

void Machine::enable(unsigned direction, const Ring &ring, unsigned vector) {
    test::program_queue(*this, direction, ring, vector);
}

void Machine::end() {
    port_->room = SIZE_MAX;
    port_->failing = 0;
    port_->frame_limit = SVIO_MESSAGE_MAX;
    port_->unblock(SIZE_MAX);
    set_link(true);
    set_dma(true);
    clock.forward(1'000'000'000);
    write(SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    check_reset();
    check_sums();
    check_alive();
    write(SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    check_reset();
    check_sums();
    port_->sent.clear();
}

// ---- what the device may write ----

void Machine::note_buffers() {
    for (unsigned n = 0; n < vif_->pairs(); n++) {
        const QueueRegisters &regs = vif_->pair(n).receive.regs;
        if (!vif_->pair(n).receive.running())
            continue;
        for (uint32_t i = 0; i < regs.size; i++) {
            svio_entry entry;
            std::memcpy(&entry, ram.at(regs.base + i * ring_size, ring_size), ring_size);
            buffers_.push_back({entry.addr, entry.len});
        }
    }
}

void Machine::check_write(const Range &range) {
    // A command may also let in a frame that was held back: RSS, as another queue may have room for it.
    if (command_data_ && range.within(*command_data_))
        return;
    auto given = [&] {
        return std::any_of(buffers_.begin(), buffers_.end(), [&](auto &b) { return range.within(b); });
    };
    // Each time before the write, as a buffer may lie over the ring and change what comes after it.
    bool touched = buffers_.empty();
    for (unsigned n = 0; n < vif_->pairs() && !touched; n++)
        touched = !guarded_.writes.empty() &&
                  disturbed({ring_of(vif_->pair(n).receive.regs), event_of(vif_->pair(n).receive.regs)});
    if (touched)
        note_buffers();
    MUST(given());
}

void Machine::check_store(const Range &window, size_t offset, size_t length) {
    MUST(offset <= window.length && length <= window.length - offset);
    bool fits = false;
    for (unsigned n = 0; n < vif_->pairs(); n++) {
        const QueueRegisters &send = vif_->pair(n).send.regs;
        const QueueRegisters &receive = vif_->pair(n).receive.regs;
        // Into an event block only the device's own words; no entry of a send queue at all.
        bool event = window.address == send.event || window.address == receive.event;
        fits |= event && window.length == sizeof(svio_queue_event) &&
                offset >= offsetof(svio_queue_event, bell_at) &&
                offset + length <= offsetof(svio_queue_event, device_reserved);
        fits |= window.address == receive.base && window.length == receive.size * ring_size &&
                offset % ring_size + length <= ring_size;
    }
    MUST(fits);
}

bool Machine::disturbed(const std::vector<Range> &ranges) const {
    return std::any_of(ranges.begin(), ranges.end(), [&](const Range &range) {
        return std::any_of(guarded_.writes.begin(), guarded_.writes.end(),
                           [&](const Range &write) { return write.overlaps(range); });
    });
}

// ---- the guest ----

uint32_t Machine::read(uint32_t offset) {
    std::lock_guard guard(lock);
    return vif_->read_register(offset);
}

void Machine::write(uint32_t offset, uint32_t value) {
    Range data{};
    if (offset == SVIO_REG_MAILBOX_BELL) {
        auto word = [&](size_t at) { return read(SVIO_REG_MAILBOX + static_cast<uint32_t>(at)); };
        data = {word(offsetof(svio_command, data_addr)) |
                    uint64_t{word(offsetof(svio_command, data_addr) + 4)} << 32,
                word(offsetof(svio_command, data_len))};
        command_data_ = &data;
    }
    bool reset = offset == SVIO_REG_CONTROL && (value & SVIO_CONTROL_RESET);
    buffers_.clear();
    guarded_.writes.clear();
    {
        std::lock_guard guard(lock);
        vif_->write_register(offset, value);
    }
    command_data_ = nullptr;
    // In force from FEATURES_OK until a reset.
    bool accepted = read(SVIO_REG_STATUS) & SVIO_STATUS_FEATURES_OK;
    features_ = accepted ? features(SVIO_REG_DRIVER_FEATURES_LO) : 0;
    if (reset) {
        pending_.clear();
        lost_track_ = in_pieces_ = false;
    }
}

uint64_t Machine::features(uint32_t low_register) {
    return read(low_register) | uint64_t{read(low_register + 4)} << 32;
}

void Machine::access(uint32_t offset, unsigned size, uint64_t value, bool is_write) {
    if (offset % size || (size != 4 && size != 8)) {
        std::lock_guard guard(lock);
        vif_->bad_access();
        return;
    }
    for (unsigned at = 0; at < size; at += 4) {
        if (is_write)
            write(offset + at, static_cast<uint32_t>(value >> (8 * at)));
        else
            read(offset + at);
    }
}

void Machine::command(const svio_command &command) {
    for (uint32_t i = 0; i < sizeof(command); i += 4) {
        uint32_t word;
        std::memcpy(&word, reinterpret_cast<const uint8_t *>(&command) + i, 4);
        write(SVIO_REG_MAILBOX + i, word);
    }
    uint64_t before = stat(SVIO_STAT_COMMANDS), refused = stat(SVIO_STAT_COMMANDS_REFUSED);
    write(SVIO_REG_MAILBOX_BELL, 1);
    MUST_EQ(stat(SVIO_STAT_COMMANDS), before + 1);
    MUST_EQ(read(SVIO_REG_MAILBOX_STATE), SVIO_MAILBOX_DONE);
    uint32_t words[2];
    for (uint32_t i = 0; i < 2; i++)
        words[i] = read(SVIO_REG_MAILBOX + 4 * i);
    MUST_EQ(words[0] & 0xffff, command.opcode);
    MUST_EQ(words[1] & 0xffff, command.tag);
    MUST(words[1] >> 16 < SVIO_ST_COUNT);
    MUST_EQ(stat(SVIO_STAT_COMMANDS_REFUSED), refused + (words[1] >> 16 != SVIO_ST_OK));
    MUST(read(SVIO_REG_MAILBOX + offsetof(svio_command, data_len)) <= command.data_len);
}

void Machine::set_link(bool up) {
    std::lock_guard guard(lock);
    vif_->set_link(up);
}

void Machine::set_dma(bool on) {
    std::lock_guard guard(lock);
    Pause pause(*board_);
    vif_->set_dma(on);
}

// ---- states ----

std::vector<uint8_t> Machine::save() {
    std::lock_guard guard(lock);
    return board_->save();
}

void Machine::load(std::span<const uint8_t> state) {
    std::vector<uint8_t> before = save();
    begin_round();
    std::lock_guard guard(lock);
    try {
        board_->load(state);
        lost_track_ = tampered_ = true;
    } catch (const StateError &) {
        MUST(board_->save() == before);
    }
}

void Machine::reload() {
    if (port_->native())
        return; // it announces itself anew, with a frame of its own
    std::vector<uint8_t> state = save();
    begin_round();
    {
        std::lock_guard guard(lock);
        board_->load(state);
    }
    MUST(save() == state);
}

// ---- sending ----

/// What SPEC 5.3 makes of the chain at `at`: an error, or the message.
uint32_t Machine::expect_message(uint32_t at, Message &message, Expected &expected) const {
    const QueueRegisters &regs = vif_->pair(0).send.regs;
    for (uint32_t n = 0;; n++) {
        uint64_t address = regs.base + ((at + n) & (regs.size - 1)) * ring_size;
        svio_entry entry;
        std::memcpy(&entry, ram.at(address, ring_size), ring_size);
        if ((entry.flags >> 31) != svio_lap(at + n, regs.size))
            return SVIO_QERR_TORN;
        if (n == SVIO_CHAIN_MAX || n == regs.size)
            return SVIO_QERR_CHAIN;
        uint32_t allowed = SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE | SVIO_ENTRY_MORE;
        if (n == 0 && (features_ & SVIO_F_LOOPBACK))
            allowed |= SVIO_ENTRY_LOOP;
        if (n == 0 && (features_ & SVIO_F_CSUM_TX))
            allowed |= SVIO_ENTRY_CSUM;
        if (n == 0 && (features_ & (SVIO_F_SEG_TCP4 | SVIO_F_SEG_TCP6 | SVIO_F_SEG_UDP)))
            allowed |= SVIO_ENTRY_SEG;
        if (n == 0 && (features_ & SVIO_F_VLAN_TX))
            allowed |= SVIO_ENTRY_VLAN;
        if (n == 0) {
            message.looped = entry.flags & SVIO_ENTRY_LOOP;
            message.head = entry;
        }
        if (entry.flags & ~allowed)
            return SVIO_QERR_FLAGS;
        if (entry.len == 0)
            return SVIO_QERR_EMPTY;
        if (entry.len > SVIO_MESSAGE_MAX - message.bytes.size())
            return SVIO_QERR_LENGTH;
        if (!guarded_.reaches({entry.addr, entry.len}))
            return SVIO_QERR_DMA;
        expected.read.push_back({entry.addr, entry.len});
        const uint8_t *data = ram.at(entry.addr, entry.len);
        message.bytes.insert(message.bytes.end(), data, data + entry.len);
        message.end = at + n + 1;
        if (!(entry.flags & SVIO_ENTRY_MORE))
            return expect_offload(message);
    }
}

uint32_t Machine::expect_offload(Message &message) const {
    Resolved resolved = resolve(std::move(message.bytes), message.head, features_);
    message.frames = std::move(resolved.frames);
    return resolved.error;
}

Machine::Expected Machine::expect() const {
    Expected expected;
    const SendQueue &queue = vif_->pair(0).send;
    if (!queue.running() || !vif_->active())
        return expected;
    expected.read = {ring_of(queue.regs), event_of(queue.regs)};
    uint32_t at = queue.position();
    // One lap: what is posted for two laps at once is looked at by the next work().
    for (uint32_t n = 0; n < queue.regs.size; n++) {
        uint64_t flags_at = queue.regs.base + (at & (queue.regs.size - 1)) * ring_size + 28;
        if ((ram.word(flags_at) >> 31) != svio_lap(at, queue.regs.size))
            break;
        Message message;
        expected.error = expect_message(at, message, expected);
        if (expected.error != SVIO_QERR_NONE)
            break;
        at = message.end;
        expected.messages.push_back(std::move(message));
    }
    return expected;
}

void Machine::check_sent(const Expected &expected, uint32_t from) {
    const SendQueue &queue = vif_->pair(0).send;
    if (disturbed(expected.read))
        lost_track_ = true;
    if (lost_track_)
        return;
    uint32_t at = from;
    for (const Message &message : expected.messages) {
        if (queue.position() - from < message.end - from)
            break;
        at = message.end;
        if (message.looped)
            continue;
        // One drop may stand for several frames then, and which they are nobody tells.
        in_pieces_ |= message.frames.size() > 1;
        pending_.insert(pending_.end(), message.frames.begin(), message.frames.end());
    }
    MUST_EQ(queue.position(), at);
    if (queue.running() && at != from)
        MUST_EQ(ram.word(queue.regs.event + offsetof(svio_queue_event, done)), at);
    if (!port_->blocked() && port_->room != 0 && vif_->active() && !expected.read.empty()) {
        if (!expected.messages.empty())
            MUST_EQ(at, expected.messages.back().end);
        MUST_EQ(SVIO_QUEUE_ERROR_OF(queue.state_register()), expected.error);
    }
}

void Machine::rounds() {
    for (unsigned n = 0; n < 100'000; n++) {
        if (!board_->core(0).round())
            return;
    }
    MUST(!"the core comes to an end");
}

void Machine::work() {
    Tally before = begin_round();
    SendQueue &queue = vif_->pair(0).send;
    Expected expected = expect();
    uint32_t from = queue.position();
    uint64_t posted = queue.counters.get(SVIO_QSTAT_POSTED);
    rounds();
    MUST_EQ(queue.counters.get(SVIO_QSTAT_POSTED) - posted, queue.position() - from);
    check_sent(expected, from);
    match_sent(before);
}

Machine::Tally Machine::begin_round() {
    buffers_.clear();
    guarded_.writes.clear();
    return {stat(SVIO_STAT_TX_FRAMES), dropped_sending()};
}

/// Each frame on the wire is a message that was taken, in order; what is missing was counted.
void Machine::match_sent(Tally before) {
    std::vector<Frame> sent = std::exchange(port_->sent, {});
    if (lost_track_)
        return;
    MUST_EQ(stat(SVIO_STAT_TX_FRAMES) - before.frames, sent.size());
    uint64_t skipped = 0;
    for (const Frame &frame : sent) {
        for (; !pending_.empty() && pending_.front() != frame; skipped++)
            pending_.pop_front();
        MUST(!pending_.empty());
        pending_.pop_front();
    }
    uint64_t drops = dropped_sending() - before.drops;
    if (in_pieces_ && (drops != 0 || skipped != 0)) {
        MUST(drops != 0);
        lost_track_ = true;
        return;
    }
    MUST(drops >= skipped && drops - skipped <= pending_.size());
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(drops - skipped));
    in_pieces_ &= !pending_.empty();
}

void Machine::sleep() {
    Tally before = begin_round();
    SendQueue &queue = vif_->pair(0).send;
    bool outbox = !pending_.empty() || lost_track_;
    bool slept = board_->core(0).prepare_sleep();
    match_sent(before);
    // Armed at its position, unless something else of the guest lies over the word.
    if (slept && vif_->active() && queue.running() && !outbox && guarded_.writes.size() == 1)
        MUST_EQ(ram.word(queue.regs.event + offsetof(svio_queue_event, bell_at)), queue.position());
}

// ---- receiving ----

void Machine::offer(const Frame &frame) {
    work();
    bool quiet_before = held() == 0;
    buffers_.clear();
    guarded_.writes.clear();
    ReceiveQueue &queue = vif_->pair(0).receive;
    uint32_t from = queue.position(), send_position = vif_->pair(0).send.position();
    uint64_t looped = stat(SVIO_STAT_LOOPED);
    uint64_t frames = stat(SVIO_STAT_RX_FRAMES), bytes = stat(SVIO_STAT_RX_BYTES);
    uint64_t drops = dropped_receiving();
    offered_++;
    if (push_) {
        std::lock_guard guard(lock);
        push_->offer(frame);
    } else {
        polled_->incoming.push_back(frame);
        rounds();
    }
    // What it wrote may have been an entry of the send queue.
    lost_track_ |= !port_->sent.empty() || vif_->pair(0).send.position() != send_position;
    port_->sent.clear();
    uint64_t delivered = stat(SVIO_STAT_RX_FRAMES) - frames;
    if (!quiet_before || stat(SVIO_STAT_LOOPED) != looped)
        return;
    MUST_EQ(delivered + dropped_receiving() - drops + held(), 1);
    MUST_EQ(stat(SVIO_STAT_RX_BYTES) - bytes, delivered * frame.size());
    if (delivered)
        check_received(frame, from);
    else
        MUST_EQ(queue.position(), from);
}

/// The entries from `from` to the position are the frame, to the letter of SPEC 5.4.
void Machine::check_received(const Frame &frame, uint32_t from) {
    const ReceiveQueue &queue = vif_->pair(0).receive;
    uint32_t size = queue.regs.size, n = queue.position() - from;
    MUST(n >= 1 && n <= SVIO_CHAIN_MAX);
    // A guest whose buffers lie over each other, or over a queue, has only itself to blame.
    const auto &writes = guarded_.writes;
    for (size_t i = 0; i < writes.size(); i++) {
        for (size_t j = 0; j < i; j++) {
            if (writes[i].overlaps(writes[j]) && !writes[i].within(ring_of(queue.regs)))
                return;
        }
        if (writes[i].overlaps(ring_of(queue.regs)) && writes[i].length > ring_size)
            return;
    }
    Frame found;
    bool own_ring = true;
    for (uint32_t i = 0; i < n; i++) {
        svio_entry entry;
        std::memcpy(&entry, ram.at(queue.regs.base + ((from + i) & (size - 1)) * ring_size, ring_size),
                    ring_size);
        uint32_t lap = svio_lap(from + i, size);
        own_ring &= !Range{entry.addr, entry.len}.overlaps(ring_of(queue.regs)) &&
                    !Range{entry.addr, entry.len}.overlaps(event_of(queue.regs));
        if (!own_ring || event_of(queue.regs).overlaps(ring_of(queue.regs)))
            return;
        MUST_EQ(entry.flags >> 31, lap);
        MUST_EQ(entry.flags >> 30 & 1, lap);
        MUST_EQ(entry.flags & SVIO_ENTRY_MORE, i + 1 < n);
        MUST(guarded_.reaches({entry.addr, entry.len}));
        const uint8_t *data = ram.at(entry.addr, entry.len);
        found.insert(found.end(), data, data + entry.len);
    }
    MUST(found == frame);
}

// ---- afterwards ----

uint64_t Machine::dropped(unsigned first, unsigned last) const {
    uint64_t sum = 0;
    for (unsigned n = first; n <= last; n++)
        sum += stat(n);
    return sum;
}

uint64_t Machine::dropped_receiving() const {
    return dropped(SVIO_STAT_DROP_RX_FILTER, SVIO_STAT_DROP_RX_BACKLOG) + stat(SVIO_STAT_DROP_RX_OFFLOAD);
}

uint64_t Machine::dropped_sending() const {
    return dropped(SVIO_STAT_DROP_TX_RUNT, SVIO_STAT_DROP_TX_PORT_ERROR) + stat(SVIO_STAT_DROP_TX_STALLED) +
           stat(SVIO_STAT_DROP_TX_OFFLOAD);
}

/// In the state RESET every frame and message of the machine's life has its place in a counter.
void Machine::check_sums() {
    uint64_t received = stat(SVIO_STAT_RX_FRAMES) + dropped_receiving() - stat(SVIO_STAT_LOOPED) - offered_;
    uint64_t messages = 0, errors = 0, signals_sent = 0;
    for (unsigned n = 0; n < vif_->pairs(); n++) {
        const QueueCounters &send = vif_->pair(n).send.counters;
        const QueueCounters &receive = vif_->pair(n).receive.counters;
        messages += send.get(SVIO_QSTAT_MESSAGES);
        errors += send.get(SVIO_QSTAT_ERRORS) + receive.get(SVIO_QSTAT_ERRORS);
        signals_sent += send.get(SVIO_QSTAT_SIGNALS) + receive.get(SVIO_QSTAT_SIGNALS);
    }
    // A message to be cut into segments leaves as many frames.
    constexpr uint64_t segments = SVIO_F_SEG_TCP4 | SVIO_F_SEG_TCP6 | SVIO_F_SEG_UDP;
    uint64_t sent = stat(SVIO_STAT_TX_FRAMES) + dropped_sending() + stat(SVIO_STAT_DROP_TX_RESET) +
                    stat(SVIO_STAT_LOOPED) - messages;
    errors -= stat(SVIO_STAT_QUEUE_ERRORS);
    if (std::exchange(tampered_, false)) {
        // From here on they must add up again.
        offered_base_ = received;
        sent_base_ = sent;
        errors_base_ = errors;
        signals_base_ = board_->core(0).counters.get(CoreSignalled) - signals_sent;
    }
    MUST_EQ(received, offered_base_);
    if (!(offered_features() & segments))
        MUST_EQ(sent, sent_base_);
    MUST_EQ(errors, errors_base_);
    MUST(static_cast<int64_t>(board_->core(0).counters.get(CoreSignalled) - signals_sent - signals_base_) <=
         0);
}

/// SPEC 3: all queues disabled, every address forgotten, no access any more.
void Machine::check_reset() {
    guarded_.quiet = true;
    MUST_EQ(ram.windows(), 0);
    rounds();
    MUST_EQ(held(), 0);
    MUST_EQ(read(SVIO_REG_STATUS), SVIO_STATUS_READY | SVIO_STATUS_LINK_UP);
    MUST_EQ(read(SVIO_REG_CONTROL) | read(SVIO_REG_EVENT) | read(SVIO_REG_MAILBOX_STATE), 0);
    MUST_EQ(read(SVIO_REG_DRIVER_FEATURES_LO) | read(SVIO_REG_DRIVER_FEATURES_HI), 0);
    MUST_EQ(read(SVIO_REG_EVENT_VECTOR), SVIO_NO_VECTOR);
    for (unsigned pair = 0; pair < vif_->pairs(); pair++) {
        for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
            for (uint32_t reg = SVIO_QUEUE_BASE_LO; reg <= SVIO_QUEUE_MODERATION; reg += 4)
                MUST_EQ(read(SVIO_QUEUE_REG(pair, direction, reg)),
                        reg == SVIO_QUEUE_VECTOR ? uint32_t{SVIO_NO_VECTOR} : 0);
        }
    }
    for (uint32_t i = 0; i < sizeof(svio_command); i += 4)
        MUST_EQ(read(SVIO_REG_MAILBOX + i), 0);
    guarded_.quiet = false;
}

void Machine::check_alive() {
    begin(offered_features(), 4);
    MUST_EQ(read(SVIO_REG_STATUS),
            SVIO_STATUS_READY | SVIO_STATUS_FEATURES_OK | SVIO_STATUS_RUNNING | SVIO_STATUS_LINK_UP);
    uint64_t tx_signals = signals.count(1), rx_signals = signals.count(2);
    Frame out = make_frame(300, offered_, peer_mac, vif_mac), in = make_frame(300, offered_ + 1);
    tx.post(out, {100});
    rx.post(2);
    buffers_.clear();
    guarded_.writes.clear();
    rounds();
    MUST_EQ(port_->sent.size(), 1);
    MUST(port_->sent.front() == out);
    MUST_EQ(tx.done(), 2);
    port_->sent.clear();
    offer(in);
    rounds();
    MUST(rx.take() == in);
    MUST_EQ(signals.count(1), tx_signals + 1);
    MUST_EQ(signals.count(2), rx_signals + 1);
}

} // namespace svio::fuzz
