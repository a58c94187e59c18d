// SPDX-License-Identifier: GPL-2.0-or-later
/// A model of the driver, to the letter of SPEC.md chapter 5, and the rig that puts it before a board.
#pragma once

#include "fake_guest.hpp"
#include "fake_port.hpp"

namespace svio::test {

/// The full fence of the driver: mb().
inline void mb() {
    std::atomic_thread_fence(std::memory_order_seq_cst);
}

struct Ring {
    FakeRam *ram = nullptr;
    uint64_t base = 0;
    uint64_t event = 0;
    uint32_t size = 0;
    uint64_t buffers = 0;
    uint32_t buffer_size = 0;
    uint32_t next = 0;  ///< position to post
    uint32_t clean = 0; ///< position to reap

    uint64_t entry_at(uint32_t position) const {
        return base + uint64_t{position & (size - 1)} * sizeof(svio_entry);
    }
    uint64_t buffer_at(uint32_t position) const {
        return buffers + uint64_t{position & (size - 1)} * buffer_size;
    }
    svio_entry entry(uint32_t position) const {
        svio_entry entry;
        std::memcpy(&entry, ram->at(entry_at(position), sizeof(entry)), sizeof(entry));
        return entry;
    }
    uint32_t lap_flag(uint32_t position, uint32_t flag) const { return svio_lap(position, size) ? flag : 0; }
    uint32_t flags(uint32_t position) const {
        return ram->word(entry_at(position) + offsetof(svio_entry, flags));
    }
    void set_flags(uint32_t position, uint32_t flags) {
        ram->set_word(entry_at(position) + offsetof(svio_entry, flags), flags);
    }
    /// Everything but the flags.
    void fill(uint32_t position, uint64_t address, uint32_t length, const Offload &offload = {}) {
        svio_entry entry{};
        entry.addr = address;
        entry.len = length;
        entry.csum_start = offload.csum_start;
        entry.csum_offset = offload.csum_offset;
        entry.seg_size = offload.seg_size;
        entry.seg_header = offload.seg_header;
        entry.vlan_tci = offload.vlan_tci;
        entry.seg_type = offload.seg_type;
        ram->put(entry_at(position), &entry, offsetof(svio_entry, flags));
    }
    void set_signal_at(uint32_t position) {
        ram->set_word(event + offsetof(svio_queue_event, signal_at), position);
    }
    uint32_t bell_at() const { return ram->word(event + offsetof(svio_queue_event, bell_at)); }
    uint32_t done() const { return ram->word(event + offsetof(svio_queue_event, done)); }
    /// After posting [from, next): must the driver ring?
    bool must_ring(uint32_t from) const {
        mb();
        return svio_crossed(bell_at(), from, next);
    }
};

/// Calls the cores of a board without threads, and `more`, until none of them finds anything.
template <typename More> void work_until_idle(Board &board, More more) {
    for (unsigned rounds = 0; rounds < 100'000; rounds++) {
        bool found = more();
        for (unsigned n = 0; n < board.cores(); n++)
            found |= board.core(n).round();
        if (!found)
            return;
    }
    FAIL() << "there is work for ever";
}
inline void work_until_idle(Board &board) {
    work_until_idle(board, [] { return false; });
}

/// Runs a mailbox command; it becomes its answer. `read(offset)` and `write(offset, value)` are the
/// function's.
template <typename Read, typename Write> void run_mailbox(svio_command &command, Read read, Write write) {
    uint32_t words[16];
    static_assert(sizeof(words) == sizeof(command));
    std::memcpy(words, &command, sizeof(words));
    for (uint32_t i = 0; i < 16; i++)
        write(SVIO_REG_MAILBOX + 4 * i, words[i]);
    write(SVIO_REG_MAILBOX_BELL, 1);
    for (uint32_t i = 0; i < 16; i++)
        words[i] = read(SVIO_REG_MAILBOX + 4 * i);
    std::memcpy(&command, words, sizeof(words));
}

/// Writes a queue's registers and enables it. `device` has set_queue(direction, register, value).
template <typename Device>
void program_queue(Device &device, unsigned direction, const Ring &ring, unsigned vector) {
    device.set_queue(direction, SVIO_QUEUE_BASE_LO, static_cast<uint32_t>(ring.base));
    device.set_queue(direction, SVIO_QUEUE_BASE_HI, static_cast<uint32_t>(ring.base >> 32));
    device.set_queue(direction, SVIO_QUEUE_EVENT_LO, static_cast<uint32_t>(ring.event));
    device.set_queue(direction, SVIO_QUEUE_EVENT_HI, static_cast<uint32_t>(ring.event >> 32));
    device.set_queue(direction, SVIO_QUEUE_SIZE, ring.size);
    device.set_queue(direction, SVIO_QUEUE_VECTOR, vector);
    device.set_queue(direction, SVIO_QUEUE_CONTROL, SVIO_QUEUE_ENABLE);
}

struct SendRing : Ring {
    uint32_t room() {
        clean = done();
        return size - (next - clean);
    }
    /// One entry with flags of the caller's choice beside POSTED, which is made right.
    void post_raw(uint64_t address, uint32_t length, uint32_t extra = 0) {
        fill(next, address, length);
        set_flags(next, lap_flag(next, SVIO_ENTRY_POSTED) | extra);
        next++;
    }
    /// A message in pieces of the given lengths (the last one takes the rest); head published last.
    void post(const Frame &frame, const std::vector<uint32_t> &lengths = {}, const Offload &offload = {}) {
        uint32_t head = next;
        size_t at = 0;
        std::vector<uint32_t> flags;
        for (size_t i = 0; i <= lengths.size(); i++) {
            size_t rest = frame.size() - at;
            auto length = static_cast<uint32_t>(i < lengths.size() ? lengths[i] : rest);
            ASSERT_LE(length, rest);
            if (length == 0 && i == lengths.size() && i > 0)
                break; // the pieces were all of it
            ASSERT_LE(length, buffer_size);
            ram->put(buffer_at(next), frame.data() + at, length);
            fill(next, buffer_at(next), length, next == head ? offload : Offload{});
            flags.push_back((next == head ? offload.flags : 0) | lap_flag(next, SVIO_ENTRY_POSTED) |
                            (at + length < frame.size() ? SVIO_ENTRY_MORE : 0));
            at += length;
            next++;
        }
        for (size_t i = flags.size(); i-- > 0;)
            set_flags(head + static_cast<uint32_t>(i), flags[i]);
    }
};

struct ReceiveRing : Ring {
    void post_one(uint32_t length) {
        fill(next, buffer_at(next), length);
        uint32_t lap = svio_lap(next, size);
        set_flags(next, lap ? SVIO_ENTRY_POSTED : SVIO_ENTRY_DONE);
        next++;
    }
    void post(uint32_t n, uint32_t length = 0) {
        for (; n > 0; n--)
            post_one(length ? length : buffer_size);
    }
    /// All that may be: slots whose last use is reaped.
    void post_all() { post(size - (next - clean)); }
    bool completed(uint32_t position) const {
        return (flags(position) & SVIO_ENTRY_DONE) == lap_flag(position, SVIO_ENTRY_DONE);
    }
    bool ready() const { return clean != next && completed(clean); }
    /// The next message, empty if there is none. Checks every entry of it against the spec.
    Frame take(uint32_t allowed = 0) {
        Frame frame;
        if (!ready())
            return frame;
        for (bool more = true; more; clean++) {
            EXPECT_TRUE(completed(clean)) << "the head was published before its chain, position " << clean;
            svio_entry e = entry(clean);
            EXPECT_EQ(e.flags & SVIO_ENTRY_POSTED, lap_flag(clean, SVIO_ENTRY_POSTED));
            EXPECT_EQ(e.addr, buffer_at(clean));
            EXPECT_EQ(e.flags & ~(SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE | SVIO_ENTRY_MORE | allowed), 0u);
            EXPECT_EQ(e.csum_start | e.csum_offset | e.seg_size | e.seg_header | e.vlan_tci | e.seg_type, 0);
            EXPECT_LE(e.len, buffer_size);
            const uint8_t *data = ram->at(e.addr, e.len);
            frame.insert(frame.end(), data, data + e.len);
            more = e.flags & SVIO_ENTRY_MORE;
        }
        return frame;
    }
    std::vector<Frame> take_all() {
        std::vector<Frame> frames;
        while (ready())
            frames.push_back(take());
        return frames;
    }
    /// The same where frames have a hash.
    std::vector<Frame> take_all_hashed() {
        std::vector<Frame> frames;
        while (ready())
            frames.push_back(take(SVIO_ENTRY_HASH));
        return frames;
    }
};

struct RigOptions {
    unsigned cores = 1;
    uint32_t poll_us = 0;
    bool threads = false;
    bool direct = true;
    bool wants_lock = false;
    bool manual_clock = true;
    Mac mac = vif_mac;
    size_t ram = size_t{4} << 20;
    FunctionConfig vif{};
    bool shared_signals = false;
    uint32_t port_mbps = 0;
    bool stage_times = false;
};

/// Guest, board and port.
class Rig {
  public:
    static constexpr unsigned send_vector = 1, receive_vector = 2, event_vector = 0;

    explicit Rig(const RigOptions &options = {}, std::unique_ptr<Port> port = nullptr)
        : ram(options.ram, options.direct) {
        if (options.wants_lock)
            ram.translator = &lock;
        if (!port) {
            auto own = std::make_unique<PushPort>(lock);
            push = own.get();
            port = std::move(own);
        }
        polled = dynamic_cast<PolledPort *>(port.get());
        Clock &source = options.manual_clock ? static_cast<Clock &>(clock) : real_clock;
        board = std::make_unique<Board>(BoardConfig{.cores = options.cores,
                                                    .poll_us = options.poll_us,
                                                    .threads = options.threads,
                                                    .port_mbps = options.port_mbps,
                                                    .shared_signals = options.shared_signals,
                                                    .stage_times = options.stage_times},
                                        lock, source, hooks, std::move(port));
        if (push)
            push->board = board.get();
        FunctionConfig config = options.vif;
        config.mac = options.mac;
        config.queue_size_max = std::max<uint32_t>(config.queue_size_max, SVIO_QUEUE_MAX);
        for (uint32_t slot = 0; slot < config.slot; slot++)
            board->add_function({.slot = slot, .physical = slot == 0}, ram, signals);
        vif = &board->add_vif(config, ram, signals);
        {
            std::lock_guard guard(lock);
            Pause pause(*board);
            vif->set_dma(true);
            board->set_locked_rounds(options.wants_lock);
        }
        board->start();
    }
    ~Rig() { board->stop(); }

    uint32_t read(uint32_t offset) {
        std::lock_guard guard(lock);
        return vif->read_register(offset);
    }
    void write(uint32_t offset, uint32_t value) {
        std::lock_guard guard(lock);
        vif->write_register(offset, value);
    }
    void set_dma(bool on) {
        std::lock_guard guard(lock);
        Pause pause(*board);
        vif->set_dma(on);
    }
    uint32_t queue(unsigned direction, uint32_t reg) { return read(SVIO_QUEUE_REG(0, direction, reg)); }
    void set_queue(unsigned direction, uint32_t reg, uint32_t value) {
        write(SVIO_QUEUE_REG(0, direction, reg), value);
    }
    uint64_t allocate(size_t bytes) {
        uint64_t address = FakeRam::base + used_;
        used_ += (bytes + 63) & ~size_t{63};
        EXPECT_LE(used_, ram.size());
        return address;
    }

    void negotiate(uint64_t features = Vif::features) {
        write(SVIO_REG_DRIVER_FEATURES_LO, static_cast<uint32_t>(features));
        write(SVIO_REG_DRIVER_FEATURES_HI, static_cast<uint32_t>(features >> 32));
        write(SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
        ASSERT_EQ(read(SVIO_REG_STATUS) & SVIO_STATUS_FEATURES_OK, uint32_t{SVIO_STATUS_FEATURES_OK});
    }
    void lay_out(Ring &ring, uint32_t size, uint32_t buffer_size) {
        ring = Ring{};
        ring.ram = &ram;
        ring.size = size;
        ring.base = allocate(size_t{size} * sizeof(svio_entry));
        ring.event = allocate(sizeof(svio_queue_event));
        ring.buffer_size = buffer_size;
        ring.buffers = allocate(size_t{size} * buffer_size);
        std::memset(ram.at(ring.base), 0, size_t{size} * sizeof(svio_entry));
        std::memset(ram.at(ring.event), 0, sizeof(svio_queue_event));
    }
    void program(unsigned direction, const Ring &ring, unsigned vector) {
        program_queue(*this, direction, ring, vector);
    }
    /// From RESET to RUNNING with empty rings.
    void bring_up(uint32_t size = 64, uint32_t buffer_size = 2048, uint64_t features = Vif::features) {
        used_ = 0;
        negotiate(features);
        lay_out(tx, size, buffer_size);
        lay_out(rx, size, buffer_size);
        write(SVIO_REG_EVENT_VECTOR, event_vector);
        program(SVIO_SEND, tx, send_vector);
        program(SVIO_RECEIVE, rx, receive_vector);
        write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
        ASSERT_EQ(queue(SVIO_SEND, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
        ASSERT_EQ(queue(SVIO_RECEIVE, SVIO_QUEUE_STATE), uint32_t{SVIO_QUEUE_RUNNING});
        // A driver that does not wait lets its arm words lie behind.
        tx.set_signal_at(tx.next - 1);
        rx.set_signal_at(rx.next - 1);
    }
    void reset() { write(SVIO_REG_CONTROL, SVIO_CONTROL_RESET); }

    /// Calls the cores, where they have no threads, until nothing is left to do.
    void work() { work_until_idle(*board); }
    /// A command of the guest; it becomes its answer.
    uint16_t command(svio_command &command) {
        run_mailbox(
            command, [this](uint32_t offset) { return read(offset); },
            [this](uint32_t offset, uint32_t value) { write(offset, value); });
        EXPECT_EQ(read(SVIO_REG_MAILBOX_STATE), uint32_t{SVIO_MAILBOX_DONE});
        return command.status;
    }
    /// Takes the state of another board over, as after a migration, and returns it.
    std::vector<uint8_t> take_over(Rig &other) {
        std::vector<uint8_t> state;
        {
            std::lock_guard guard(other.lock);
            state = other.board->save();
        }
        std::lock_guard guard(lock);
        board->load(state);
        return state;
    }
    /// What a core without work does, short of the wait.
    bool sleep(unsigned n = 0) { return board->core(n).prepare_sleep(); }

    void offer(const Frame &frame) {
        std::lock_guard guard(lock);
        push->offer(frame);
    }
    /// Posts, and rings if the device asks for it. True: rang.
    bool send(const Frame &frame, const std::vector<uint32_t> &pieces = {}, const Offload &offload = {}) {
        uint32_t from = tx.next;
        tx.post(frame, pieces, offload);
        return kick(SVIO_SEND, tx, from);
    }
    bool kick(unsigned direction, const Ring &ring, uint32_t from) {
        if (!ring.must_ring(from))
            return false;
        write(SVIO_BELL(0, direction), 1);
        return true;
    }
    std::vector<Frame> sent() {
        std::lock_guard guard(lock);
        return push ? push->sent : polled->sent;
    }

    uint64_t stat(svio_stat which) const { return vif->counters.get(which); }
    uint64_t send_stat(svio_qstat which) const { return vif->pair(0).send.counters.get(which); }
    uint64_t receive_stat(svio_qstat which) const { return vif->pair(0).receive.counters.get(which); }
    uint64_t core_stat(CoreStat which, unsigned n = 0) const { return board->core(n).counters.get(which); }

    BigLock lock;
    ManualClock clock;
    MonotonicClock real_clock;
    CountedHooks hooks;
    FakeRam ram;
    SignalLog signals{lock};
    std::unique_ptr<Board> board;
    Vif *vif = nullptr;
    PushPort *push = nullptr;     ///< the board's port, if it is one
    PolledPort *polled = nullptr; ///< the same
    SendRing tx;
    ReceiveRing rx;

  private:
    size_t used_ = 0;
};

inline std::unique_ptr<Rig> polled_rig(const RigOptions &options = {}) {
    return std::make_unique<Rig>(options, std::make_unique<PolledPort>());
}

} // namespace svio::test
