// SPDX-License-Identifier: GPL-2.0-or-later
/// The port of a QEMU netdev, through the C interface that the adapter uses.
#include "board_c.h"
#include "fake_guest.hpp"

using namespace svio;
using namespace svio::test;

namespace {

/// What the adapter is to the board: RAM, the big lock, a netdev.
struct FakeHost {
    struct OwnWindow {
        SvioWindow window;
    };

    FakeHost() {
        host.opaque = function.opaque = this;
        host.lock = [](void *o) { self(o).lock.lock(); };
        host.unlock = [](void *o) { self(o).lock.unlock(); };
        host.thread_begin = [](void *, unsigned) {};
        host.thread_end = [](void *, unsigned) {};
        host.thread_polling = [](void *, bool) {};
        function.read = [](void *o, uint64_t a, void *to, size_t n) { return self(o).ram.read(a, to, n); };
        function.write = [](void *o, uint64_t a, const void *from, size_t n) {
            return self(o).ram.write(a, from, n);
        };
        function.window_open = [](void *o, uint64_t a, size_t n, bool) {
            return &(new OwnWindow{{self(o).ram.at(a, n)}})->window;
        };
        function.window_close = [](void *, SvioWindow *w) { delete reinterpret_cast<OwnWindow *>(w); };
        function.window_written = [](void *, SvioWindow *, size_t, size_t) {};
        function.signal = [](void *, unsigned) {};
        host.port_send = [](void *o, const uint8_t *data, size_t n) { return self(o).port_send(data, n); };
        host.port_flush_receive = [](void *) {};
        host.port_purge = [](void *o) { self(o).purges++; };
        SvioBoardConfig config{};
        config.cores = 1;
        config.stall_ms = SVIO_PORT_STALL_MS;
        SvioFunctionConfig physical{};
        std::copy(vif_mac.begin(), vif_mac.end(), physical.mac);
        physical.queue_size = 64;
        char *error = nullptr;
        board = svio_board_new(&host, &config, &error);
        EXPECT_TRUE(svio_board_add_function(board, &function, &physical, &error));
        EXPECT_TRUE(svio_board_start(board, &error));
        std::lock_guard guard(lock);
        svio_board_pause(board);
        svio_board_set_dma(board, 0, true, false);
        svio_board_resume(board);
    }
    ~FakeHost() {
        svio_board_stop(board);
        svio_board_free(board);
    }
    static FakeHost &self(void *opaque) { return *static_cast<FakeHost *>(opaque); }

    int port_send(const uint8_t *data, size_t length) {
        EXPECT_TRUE(lock.mine());
        sent.emplace_back(data, data + length);
        if (sent.size() == reset_at)
            svio_board_write(board, 0, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
        sends++;
        return static_cast<int>(length);
    }
    void write(uint32_t offset, uint32_t value) {
        std::lock_guard guard(lock);
        svio_board_write(board, 0, offset, value);
    }
    uint32_t read(uint32_t offset) {
        std::lock_guard guard(lock);
        return svio_board_read(board, 0, offset);
    }
    /// The send queue with `count` frames in it, not yet started.
    void lay_out(uint32_t count) {
        std::memset(ram.at(entries), 0, 64 * sizeof(svio_entry));
        std::memset(ram.at(event), 0, sizeof(svio_queue_event));
        for (uint32_t i = 0; i < count; i++) {
            Frame frame = make_frame(100, i);
            ram.put(buffers + 128 * i, frame.data(), frame.size());
            svio_entry entry{};
            entry.addr = buffers + 128 * i;
            entry.len = 100;
            entry.flags = SVIO_ENTRY_POSTED;
            ram.put(entries + i * sizeof(entry), &entry, sizeof(entry));
        }
    }
    void start() {
        write(SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
        auto queue = [this](uint32_t reg, uint64_t value) {
            write(SVIO_QUEUE_REG(0, SVIO_SEND, reg), static_cast<uint32_t>(value));
        };
        queue(SVIO_QUEUE_BASE_LO, entries);
        queue(SVIO_QUEUE_BASE_HI, entries >> 32);
        queue(SVIO_QUEUE_EVENT_LO, event);
        queue(SVIO_QUEUE_EVENT_HI, event >> 32);
        queue(SVIO_QUEUE_SIZE, 64);
        queue(SVIO_QUEUE_CONTROL, SVIO_QUEUE_ENABLE);
        write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    }
    uint64_t counter(const std::string &path) {
        struct Wanted {
            const std::string &path;
            uint64_t value;
        } wanted{path, UINT64_MAX};
        svio_board_visit_counters(
            board,
            [](void *opaque, const char *name, uint64_t value) {
                auto &w = *static_cast<Wanted *>(opaque);
                if (w.path == name)
                    w.value = value;
            },
            &wanted);
        return wanted.value;
    }

    static constexpr uint64_t entries = FakeRam::base, event = entries + 4096, buffers = event + 4096;
    BigLock lock;
    FakeRam ram{size_t{1} << 20};
    SvioHost host{};
    SvioFunctionHost function{};
    SvioBoard *board = nullptr;
    std::vector<Frame> sent;
    size_t reset_at = 0;
    int purges = 0;
    std::atomic<int> sends{0};
};

} // namespace

TEST(NetdevPort, AResetFromInsideOfSendEndsTheBatch) {
    FakeHost host;
    host.reset_at = 2;
    host.lay_out(5);
    host.start();
    ASSERT_TRUE(eventually([&] { return host.sends == 2; }));
    // The core asks for the lock for each batch; once it had it again the old one is over.
    uint64_t taken = host.counter("cores/0/lock_taken");
    host.lay_out(1);
    host.start();
    ASSERT_TRUE(eventually([&] { return host.counter("cores/0/lock_taken") > taken; }));
    ASSERT_TRUE(eventually([&] { return host.sends >= 3; }));
    std::lock_guard guard(host.lock);
    EXPECT_EQ(host.purges, 1);
    ASSERT_EQ(host.sent.size(), 3u);
    EXPECT_EQ(sequence_of(host.sent[0]), 0u);
    EXPECT_EQ(sequence_of(host.sent[1]), 1u);
    EXPECT_EQ(sequence_of(host.sent[2]), 0u); // of the new life, and no third frame of the old one
    EXPECT_EQ(host.counter("vifs/0/drop_tx_reset"), 5u);
}
