// SPDX-License-Identifier: GPL-2.0-or-later
/// Doorbells that are eventfds: the core that serves the queue wakes by them, with nobody between. Run it
/// under the thread sanitizer.
#include "many.hpp"
#include "native_port.hpp"
#include "temp_folder.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

using namespace svio;
using namespace svio::test;

namespace {

/// Our half of eventfds; the board gets descriptors of its own, as from another process.
class Handles {
  public:
    explicit Handles(size_t n) {
        for (size_t i = 0; i < n; i++)
            own_.emplace_back(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    }
    std::vector<Descriptor> copies() const {
        std::vector<Descriptor> copies;
        for (const Descriptor &own : own_)
            copies.emplace_back(fcntl(own.get(), F_DUPFD_CLOEXEC, 0));
        return copies;
    }
    void ring(size_t n, uint64_t times = 1) const { ASSERT_EQ(eventfd_write(own_[n].get(), times), 0); }
    bool pending(size_t n) const {
        pollfd look{own_[n].get(), POLLIN, 0};
        return poll(&look, 1, 0) == 1;
    }
    int fd(size_t n) const { return own_[n].get(); }

  private:
    std::vector<Descriptor> own_;
};

/// VIFs of slots 1 and 2; cores that sleep as soon as they can.
struct BellRig : ManyRig {
    explicit BellRig(unsigned cores = 2)
        : ManyRig(
              {.vifs = 2, .board = {.cores = cores, .poll_us = 0, .threads = true}, .manual_clock = false}) {
        give(1, handles);
    }
    void give(unsigned slot, const Handles &from) {
        std::lock_guard guard(lock);
        board->set_bells(vif(slot), from.copies());
    }
    /// A frame from slot 1 to slot 2; the driver rings by eventfd, if it has to.
    void post(uint64_t n) {
        SendRing &tx = stations[1].tx;
        uint32_t from = tx.next;
        tx.post(make_frame(60, n, mac_of(2), mac_of(1)));
        if (tx.must_ring(from))
            handles.ring(SVIO_SEND);
    }
    /// Until all that was posted is done, and the core has asked for a doorbell. False: never.
    bool settled() {
        SendRing &tx = stations[1].tx;
        return eventually([&] { return tx.done() == tx.next && tx.bell_at() == tx.next; });
    }
    void expect_frames(uint64_t first, uint64_t n) {
        std::vector<Frame> got = take(2);
        ASSERT_EQ(got.size(), n);
        for (uint64_t i = 0; i < n; i++)
            EXPECT_EQ(got[i], make_frame(60, first + i, mac_of(2), mac_of(1)));
        stations[2].rx.post_all();
    }
    uint64_t bells() { return vif(1).pair(0).send.counters.get(SVIO_QSTAT_BELLS); }

    Handles handles{2};
};

} // namespace

TEST(Bells, WakeTheCoreWithoutAnybodyBetween) {
    BellRig rig;
    ASSERT_TRUE(rig.settled());
    // Nobody else could: whoever runs the board's control would need this lock.
    std::lock_guard guard(rig.lock);
    auto taken = [&] { return rig.counter("cores/0/lock_taken") + rig.counter("cores/1/lock_taken"); };
    uint64_t before = taken();
    for (uint64_t n = 0; n < 200; n++) {
        rig.post(n);
        ASSERT_TRUE(rig.settled()) << n;
        rig.expect_frames(n, 1);
    }
    EXPECT_GT(rig.bells(), 0u);
    EXPECT_EQ(taken(), before);
}

TEST(Bells, ComeAlongWhenAVifMoves) {
    BellRig rig(3);
    std::atomic<bool> over{false};
    std::thread mover([&] {
        for (uint32_t core = 0; !over; core = (core + 1) % 3) {
            rig.set(1, [&](VifSettings &s) { s.core = core; });
            std::this_thread::yield();
        }
    });
    for (uint64_t n = 0; n < 300; n++) {
        rig.post(n);
        EXPECT_TRUE(eventually([&] { return rig.stations[1].tx.done() == rig.stations[1].tx.next; })) << n;
        rig.expect_frames(n, 1);
    }
    over = true;
    mover.join();
    ASSERT_TRUE(rig.settled());
    // Standing still, each core in turn: the one that it has left is not woken any more.
    for (uint32_t core : {0u, 1u, 2u}) {
        rig.set(1, [&](VifSettings &s) { s.core = core; });
        ASSERT_TRUE(rig.settled());
        std::string path = "cores/" + std::to_string(core) + "/picked_up";
        uint64_t before = rig.counter(path);
        rig.post(core);
        ASSERT_TRUE(rig.settled());
        EXPECT_EQ(rig.counter(path), before + 1);
        rig.expect_frames(core, 1);
    }
}

TEST(Bells, EachRingIsCountedUpToABound) {
    BellRig rig;
    for (auto [times, counted] : {std::pair<uint64_t, uint64_t>{3, 3}, {1, 1}, {uint64_t{1} << 60, 64}}) {
        uint64_t before = rig.bells();
        rig.handles.ring(SVIO_SEND, times);
        EXPECT_TRUE(eventually([&] { return rig.bells() == before + counted; }));
        EXPECT_TRUE(eventually([&] { return !rig.handles.pending(SVIO_SEND); }));
    }
}

TEST(Bells, OthersTakeTheirPlaceAndAreGivenBack) {
    size_t descriptors;
    {
        BellRig rig;
        descriptors = descriptors_now();
        Handles others(2 * SVIO_MAX_QUEUE_PAIRS);
        rig.give(1, others); // more than the VIF has queues for now
        ASSERT_TRUE(rig.settled());
        uint64_t before = rig.bells();
        rig.handles.ring(SVIO_SEND); // nobody's any more
        others.ring(SVIO_SEND);
        EXPECT_TRUE(eventually([&] { return rig.bells() == before + 1; }));
        EXPECT_TRUE(rig.handles.pending(SVIO_SEND));
        rig.give(1, Handles(0));
        EXPECT_EQ(descriptors_now(), descriptors - 2 + 2 * SVIO_MAX_QUEUE_PAIRS);
        others.ring(SVIO_SEND);
        rig.send(1, make_frame(60, 7, mac_of(2), mac_of(1))); // the register is there as ever
        ASSERT_TRUE(rig.settled());
        rig.expect_frames(7, 1);
        EXPECT_TRUE(others.pending(SVIO_SEND));
    }
    // A VIF that goes takes its place in the core's set along, and one that comes back is heard again.
    BellRig rig;
    for (unsigned n = 0; n < 10; n++) {
        VifSettings settings = rig.vif(1).settings();
        {
            std::lock_guard guard(rig.lock);
            rig.vif(1).destroy();
            rig.vif(1).create(settings);
        }
        uint64_t before = rig.bells();
        rig.handles.ring(SVIO_SEND);
        EXPECT_TRUE(eventually([&] { return rig.bells() == before + 1; }));
    }
}

// The other owner may do with them what it likes: the core neither waits nor spins.
TEST(Bells, HostileOwner) {
    BellRig rig(1);
    int flags = fcntl(rig.handles.fd(SVIO_SEND), F_GETFL);
    ASSERT_EQ(fcntl(rig.handles.fd(SVIO_SEND), F_SETFL, flags & ~O_NONBLOCK), 0);
    std::atomic<bool> over{false};
    std::thread thief([&] {
        while (!over) {
            rig.handles.ring(SVIO_SEND);
            uint64_t times;
            iovec place{&times, sizeof(times)};
            [[maybe_unused]] ssize_t n = preadv2(rig.handles.fd(SVIO_SEND), &place, 1, -1, RWF_NOWAIT);
        }
    });
    for (uint64_t n = 0; n < 200; n++) {
        rig.send(1, make_frame(60, n, mac_of(2), mac_of(1)));
        EXPECT_TRUE(eventually([&] { return rig.stations[1].tx.done() == rig.stations[1].tx.next; })) << n;
        rig.expect_frames(n, 1);
    }
    over = true;
    thief.join();
    ASSERT_TRUE(rig.settled());
    EXPECT_TRUE(
        eventually([&] { return rig.counter("cores/0/sleeps") == rig.counter("cores/0/wakes") + 1; }));
}

// A receive queue that lacks a buffer holds the wire; the core that waits for one is not the pair's own.
TEST(Bells, OfAReceiveQueueWakesWhoWaitsForABuffer) {
    TempFolder folder;
    std::string error, local = folder / "l", remote = folder / "r";
    Descriptor peer(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    auto port = open_native_port("dgram:" + local + "," + remote, error);
    ASSERT_NE(port, nullptr) << error;
    Rig rig({.cores = 2, .poll_us = 0, .threads = true, .manual_clock = false}, std::move(port));
    Handles handles(2);
    {
        std::lock_guard guard(rig.lock);
        rig.board->set_bells(*rig.vif, handles.copies());
    }
    rig.bring_up(16);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    local.copy(address.sun_path, sizeof(address.sun_path) - 1);
    for (uint64_t n = 0; n < 50; n++) {
        Frame frame = make_frame(60, n, vif_mac, peer_mac);
        ASSERT_EQ(sendto(peer.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr *>(&address),
                         sizeof(address)),
                  60);
        // The core has asked for a doorbell at the entry that is to come.
        ASSERT_TRUE(eventually([&] { return rig.rx.bell_at() == rig.rx.next; })) << n;
        uint32_t from = rig.rx.next;
        rig.rx.post(1);
        ASSERT_TRUE(rig.rx.must_ring(from));
        handles.ring(SVIO_RECEIVE);
        ASSERT_TRUE(eventually([&] { return rig.rx.ready(); })) << n;
        EXPECT_EQ(rig.rx.take(SVIO_ENTRY_HASH), frame);
    }
}
