// SPDX-License-Identifier: GPL-2.0-or-later
/// Segmentation, VLAN tags and received offloads (SPEC.md chapter 6): each produced byte against a
/// computation of its own.
#include "packets.hpp"
#include "state.hpp"

using namespace svio;
using namespace svio::test;

namespace {

constexpr uint32_t large_buffer = 70000;

std::vector<Packet> kinds() {
    return {Packet{.tcp_flags = 0xd9},
            Packet{.options4 = 40, .options_tcp = 40, .tcp_flags = 0x99},
            Packet{.ip6 = true, .tcp_flags = 0x19},
            Packet{.ip6 = true, .extension6 = 24, .options_tcp = 12, .tcp_flags = 0x91},
            Packet{.vlan = {5}, .tcp_flags = 0x11},
            Packet{.vlan = {5, 4095}, .options_tcp = 4, .tcp_flags = 0x18},
            Packet{.udp = true},
            Packet{.udp = true, .options4 = 4},
            Packet{.ip6 = true, .udp = true},
            Packet{.ip6 = true, .udp = true, .vlan = {9}, .extension6 = 8}};
}

Frame with_tag(Frame frame, unsigned tci) {
    uint8_t tag[4] = {0x81, 0, static_cast<uint8_t>(tci >> 8), static_cast<uint8_t>(tci)};
    frame.insert(frame.begin() + 12, tag, tag + 4);
    return frame;
}

/// To our VIF, so that it may be received there.
Frame to_vif(Frame frame) {
    std::copy(vif_mac.begin(), vif_mac.end(), frame.begin());
    return frame;
}
std::vector<Frame> to_vif(std::vector<Frame> frames) {
    for (Frame &frame : frames)
        frame = to_vif(frame);
    return frames;
}

struct Taken {
    Frame frame;
    svio_entry head{};
    uint32_t entries = 0;
    uint32_t flags() const { return head.flags & ~(SVIO_ENTRY_POSTED | SVIO_ENTRY_DONE | SVIO_ENTRY_MORE); }
};

Taken take(ReceiveRing &rx) {
    Taken taken;
    if (!rx.ready())
        return taken;
    taken.head = rx.entry(rx.clean);
    for (bool more = true; more; rx.clean++, taken.entries++) {
        EXPECT_TRUE(rx.completed(rx.clean));
        svio_entry e = rx.entry(rx.clean);
        const uint8_t *data = rx.ram->at(e.addr, e.len);
        taken.frame.insert(taken.frame.end(), data, data + e.len);
        more = e.flags & SVIO_ENTRY_MORE;
    }
    return taken;
}

class Segments : public testing::Test {
  protected:
    Rig rig{{.ram = size_t{16} << 20}};
    void bring_up(uint64_t features = Vif::features, uint32_t size = 64, uint32_t buffer = large_buffer) {
        rig.reset();
        rig.bring_up(size, buffer, features);
    }
    void SetUp() override { bring_up(); }
    uint32_t error() {
        rig.work();
        return SVIO_QUEUE_ERROR_OF(rig.queue(SVIO_SEND, SVIO_QUEUE_STATE));
    }
    std::vector<Frame> news() {
        std::vector<Frame> all = rig.sent();
        std::vector<Frame> fresh(all.begin() + static_cast<ptrdiff_t>(seen_), all.end());
        seen_ = all.size();
        return fresh;
    }
    void arrive(const Frame &frame, const Offload &offload) {
        rig.rx.post_all();
        std::lock_guard guard(rig.lock);
        taken_ = rig.board->receive(frame, offload);
    }
    uint16_t use(uint64_t features) {
        svio_command command{};
        command.opcode = SVIO_OP_RX_OFFLOADS;
        command.slot = SVIO_SLOT_SELF;
        command.u.rx_offloads.features = features;
        return rig.command(command);
    }
    size_t seen_ = 0;
    bool taken_ = false;
};

} // namespace

TEST_F(Segments, OfEveryKindAndLength) {
    uint32_t seed = 0;
    for (Packet packet : kinds()) {
        for (size_t size : {size_t{1}, size_t{99}, size_t{100}, size_t{536}, size_t{1448}}) {
            for (size_t payload : {size_t{1}, size - 1, size, size + 1, 3 * size, 7 * size + 1}) {
                packet.payload = std::max<size_t>(payload, 1);
                seed++;
                rig.tx.post(packet.make(seed), {}, packet.seg(size));
                ASSERT_EQ(error(), uint32_t{SVIO_QERR_NONE}) << seed;
                ASSERT_EQ(news(), packet.segments(size, seed)) << seed << " " << size << " " << payload;
            }
        }
    }
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_TX_OFFLOAD), 0u);
}

TEST_F(Segments, OfTheLongestMessages) {
    for (Packet packet : kinds()) {
        packet.payload = 65535 - packet.header();
        rig.tx.post(packet.make(), {}, packet.seg(1000));
        ASSERT_EQ(error(), uint32_t{SVIO_QERR_NONE});
        ASSERT_EQ(news(), packet.segments(1000));
        // One segment that is all of it.
        rig.tx.post(packet.make(), {}, packet.seg(65000));
        ASSERT_EQ(error(), uint32_t{SVIO_QERR_NONE});
        ASSERT_EQ(news(), packet.segments(65000));
    }
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_TX_OFFLOAD), 0u);
}

TEST_F(Segments, SplitAtEveryBoundary) {
    for (Packet packet : {Packet{.options4 = 8, .options_tcp = 12, .tcp_flags = 0x99, .payload = 301},
                          Packet{.ip6 = true, .udp = true, .payload = 301}}) {
        Frame frame = packet.make();
        for (uint32_t at = 1; at < frame.size(); at++) {
            rig.tx.post(frame, {at}, packet.seg(101));
            ASSERT_EQ(error(), uint32_t{SVIO_QERR_NONE});
            ASSERT_EQ(news(), packet.segments(101)) << at;
        }
    }
}

TEST_F(Segments, FieldsThatDoNotFitStopTheQueue) {
    Packet packet{.payload = 600};
    auto tries = [&](uint32_t code, auto change, uint64_t features = Vif::features) {
        bring_up(features);
        Offload offload = packet.seg(100);
        change(offload);
        rig.tx.post(packet.make(), {}, offload);
        EXPECT_EQ(error(), code);
        EXPECT_EQ(news().empty(), code != SVIO_QERR_NONE);
    };
    auto length = static_cast<uint16_t>(packet.make().size());
    tries(SVIO_QERR_NONE, [](Offload &) {});
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_size = 0; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.flags = SVIO_ENTRY_SEG; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_type = SVIO_SEG_NONE; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_type = SVIO_SEG_UDP + 1; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_type = 255; });
    tries(SVIO_QERR_OFFLOAD, [&](Offload &o) { o.seg_header = length; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_header = 0xffff; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_header = 0; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_header = 51; }); // the checksum is not in it
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.csum_start = 0xffff; });
    tries(SVIO_QERR_OFFLOAD, [](Offload &o) { o.seg_size = 1; }); // 600 segments
    packet.payload = SVIO_SEGMENTS_MAX;
    tries(SVIO_QERR_NONE, [](Offload &o) { o.seg_size = 1; });
    for (uint64_t one : {SVIO_F_SEG_TCP4, SVIO_F_SEG_TCP6, SVIO_F_SEG_UDP}) {
        for (Packet other : {Packet{}, Packet{.ip6 = true}, Packet{.udp = true}}) {
            bring_up(SVIO_F_CSUM_TX | one);
            rig.tx.post(other.make(), {}, other.seg(50));
            bool accepted = offload_needs(other.seg(50)) == (SVIO_F_CSUM_TX | one);
            EXPECT_EQ(error(), uint32_t{accepted ? 0u : SVIO_QERR_FLAGS});
            EXPECT_EQ(news().empty(), !accepted);
        }
    }
}

TEST_F(Segments, HeadersThatAreNotWhatTheFieldsSayAreDropped) {
    Packet packet{.payload = 600}, six{.ip6 = true, .payload = 600}, udp{.udp = true, .payload = 600};
    uint64_t dropped = 0;
    auto drops = [&](const Packet &of, auto change) {
        Frame frame = of.make();
        Offload offload = of.seg(100);
        change(frame, offload);
        rig.tx.post(frame, {}, offload);
        EXPECT_EQ(error(), uint32_t{SVIO_QERR_NONE});
        EXPECT_TRUE(news().empty());
        EXPECT_EQ(rig.stat(SVIO_STAT_DROP_TX_OFFLOAD), ++dropped);
    };
    drops(packet, [](Frame &f, Offload &) { f[12] = 0x88; });
    drops(packet, [](Frame &f, Offload &) { f[14] = 0x65; });
    drops(packet, [](Frame &f, Offload &) { f[14] = 0x46; });
    drops(packet, [](Frame &f, Offload &) { f[14] = 0x44; });
    drops(packet, [](Frame &f, Offload &) { f[23] = 17; });
    drops(packet, [](Frame &f, Offload &) { f[20] = 0x20; }); // more fragments
    drops(packet, [](Frame &f, Offload &) { f[21] = 1; });
    drops(packet, [](Frame &f, Offload &) { f[46] = 0x40; });
    drops(packet, [](Frame &f, Offload &) { f[46] = 0xf0; });
    drops(packet, [](Frame &, Offload &o) { o.seg_header += 4; });
    drops(packet, [](Frame &, Offload &o) { o.csum_offset = 6; });
    drops(packet, [](Frame &, Offload &o) { o.csum_start = 30; });
    drops(packet, [](Frame &, Offload &o) { o.csum_start = 0; });
    drops(packet, [](Frame &, Offload &o) { o.seg_type = SVIO_SEG_TCP6; });
    drops(packet, [](Frame &, Offload &o) { o.seg_type = SVIO_SEG_UDP; });
    drops(six, [](Frame &, Offload &o) { o.seg_type = SVIO_SEG_TCP4; });
    drops(six, [](Frame &f, Offload &) { f[20] = 17; });
    drops(six, [](Frame &f, Offload &) { f[14] = 0x45; });
    drops(udp, [](Frame &, Offload &o) { o.seg_header++; });
    drops(udp, [](Frame &, Offload &o) { o.csum_offset = 4; });
    drops(Packet{.vlan = {1, 2, 3}, .payload = 600}, [](Frame &, Offload &) {});
    rig.tx.post(packet.make(), {}, packet.seg(100));
    EXPECT_EQ(error(), uint32_t{SVIO_QERR_NONE});
    EXPECT_EQ(news(), packet.segments(100));
}

TEST_F(Segments, APortThatTakesFewAtATime) {
    Packet packet{.tcp_flags = 0x99, .payload = 5000};
    std::vector<Frame> wanted;
    for (uint32_t n = 0; n < 3; n++) {
        rig.tx.post(packet.make(n), {}, packet.seg(100));
        for (const Frame &frame : packet.segments(100, n))
            wanted.push_back(frame);
    }
    rig.push->unblock(0);
    rig.work();
    for (unsigned n = 0; n < 200 && rig.sent().size() < wanted.size(); n++) {
        rig.push->unblock(n % 5);
        rig.work();
    }
    EXPECT_EQ(rig.sent(), wanted);
    EXPECT_EQ(rig.stat(SVIO_STAT_TX_FRAMES), wanted.size());
    size_t bytes = 0;
    for (const Frame &frame : wanted)
        bytes += frame.size();
    EXPECT_EQ(rig.stat(SVIO_STAT_TX_BYTES), bytes);
}

TEST_F(Segments, AResetInTheMiddleAndAMigrationInTheMiddle) {
    Packet packet{.payload = 1000};
    std::vector<Frame> wanted = packet.segments(100);
    rig.push->unblock(3);
    rig.tx.post(packet.make(), {}, packet.seg(100));
    rig.work();
    EXPECT_EQ(news(), std::vector<Frame>(wanted.begin(), wanted.begin() + 3));
    Rig there;
    there.take_over(rig);
    there.work();
    EXPECT_EQ(there.sent(), std::vector<Frame>(wanted.begin() + 3, wanted.end()));
    rig.reset();
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_TX_RESET), 1u);
    rig.push->unblock(SIZE_MAX);
    rig.work();
    EXPECT_TRUE(news().empty());
}

TEST_F(Segments, TagsArePutIn) {
    for (Packet packet : kinds()) {
        if (packet.vlan.size() == 2)
            continue; // three would be too many for segments
        packet.payload = 500;
        Offload plain{.flags = SVIO_ENTRY_VLAN, .vlan_tci = 0xa123};
        rig.tx.post(packet.make(), {1}, plain);
        Offload csum = packet.csum();
        csum.flags |= SVIO_ENTRY_VLAN;
        csum.vlan_tci = 0xffff;
        rig.tx.post(packet.make(), {}, csum);
        Offload seg = packet.seg(200);
        seg.flags |= SVIO_ENTRY_VLAN;
        seg.vlan_tci = 7;
        rig.tx.post(packet.make(), {30}, seg);
        ASSERT_EQ(error(), uint32_t{SVIO_QERR_NONE});
        std::vector<Frame> wanted = {with_tag(packet.make(), 0xa123), with_tag(packet.finished(), 0xffff)};
        for (const Frame &frame : packet.segments(200))
            wanted.push_back(with_tag(frame, 7));
        ASSERT_EQ(news(), wanted);
    }
    // Not negotiated; and offsets that could not move on.
    bring_up(Vif::features & ~SVIO_F_VLAN_TX);
    rig.tx.post(Packet{}.make(), {}, {.flags = SVIO_ENTRY_VLAN});
    EXPECT_EQ(error(), uint32_t{SVIO_QERR_FLAGS});
}

// ---- receiving ----

TEST_F(Segments, AMessageIsReceivedAsItIsWhereTheDriverTakesIt) {
    for (Packet packet : kinds()) {
        packet.payload = 20000;
        bool tagged = packet.vlan.size() == 1;
        Frame frame = to_vif(packet.make());
        bring_up(Vif::features & ~SVIO_F_VLAN_RX, 64, 1000);
        rig.rx.post_all();
        arrive(frame, packet.seg(1000));
        EXPECT_TRUE(taken_);
        Taken taken = take(rig.rx);
        EXPECT_EQ(taken.frame, frame);
        EXPECT_EQ(taken.entries, (frame.size() + 999) / 1000);
        EXPECT_EQ(taken.flags() & ~SVIO_ENTRY_HASH, uint32_t{SVIO_ENTRY_CSUM | SVIO_ENTRY_SEG});
        EXPECT_EQ(taken.head.csum_start, packet.l4());
        EXPECT_EQ(taken.head.csum_offset, packet.udp ? 6 : 16);
        EXPECT_EQ(taken.head.seg_size, 1000);
        EXPECT_EQ(taken.head.seg_header, packet.header());
        EXPECT_EQ(taken.head.seg_type, packet.seg(1).seg_type);
        if (!tagged)
            continue;
        bring_up();
        rig.rx.post_all();
        arrive(frame, packet.seg(1000));
        taken = take(rig.rx);
        Packet bare = packet;
        bare.vlan.clear();
        EXPECT_EQ(with_tag(taken.frame, packet.vlan[0]), frame);
        EXPECT_EQ(taken.head.vlan_tci, packet.vlan[0]);
        EXPECT_EQ(taken.head.csum_start, bare.l4());
        EXPECT_EQ(taken.head.seg_header, bare.header());
    }
}

TEST_F(Segments, AMessageIsReceivedInPiecesWhereTheDriverDoesNotTakeIt) {
    for (Packet packet : kinds()) {
        packet.payload = 5001;
        for (uint64_t missing : {SVIO_F_RX_SEG, SVIO_F_CSUM_RX, SVIO_F_RX_CHAIN}) {
            bring_up((Vif::features & ~missing) & ~SVIO_F_VLAN_RX);
            rig.rx.post_all();
            arrive(to_vif(packet.make()), packet.seg(700));
            EXPECT_TRUE(taken_);
            for (const Frame &wanted : to_vif(packet.segments(700))) {
                Taken taken = take(rig.rx);
                ASSERT_EQ(taken.frame, wanted);
                ASSERT_EQ(taken.flags() & ~SVIO_ENTRY_HASH,
                          missing == SVIO_F_CSUM_RX ? 0u : SVIO_ENTRY_CSUM_OK);
            }
            EXPECT_FALSE(rig.rx.ready());
        }
    }
}

TEST_F(Segments, PiecesWaitForBuffersAndComeOnce) {
    Packet packet{.payload = 3000};
    std::vector<Frame> wanted = to_vif(packet.segments(100));
    for (bool netdev : {true, false}) {
        RigOptions options{.ram = size_t{16} << 20};
        std::unique_ptr<Rig> own = netdev ? std::make_unique<Rig>(options) : nullptr;
        struct Port final : FakePort {
            bool native() const override { return true; }
            bool fill() override { return !incoming.empty(); }
            std::span<const uint8_t> front() override { return incoming.front().frame; }
            Offload front_offload() const override { return incoming.front().offload; }
            void pop() override { incoming.pop_front(); }
            std::deque<PortFrame> incoming;
        };
        Port *port = nullptr;
        if (!netdev) {
            auto made = std::make_unique<Port>();
            port = made.get();
            own = std::make_unique<Rig>(options, std::move(made));
        }
        own->bring_up(64, 2048, Vif::features & ~SVIO_F_RX_SEG);
        own->rx.post(4);
        if (port) {
            port->incoming.push_back({to_vif(packet.make()), packet.seg(100)});
            port->incoming.push_back({make_frame(80, 9)});
        } else {
            std::lock_guard guard(own->lock);
            EXPECT_TRUE(own->board->receive(to_vif(packet.make()), packet.seg(100)));
        }
        std::vector<Frame> got;
        for (unsigned n = 0; n < 60; n++) {
            own->work();
            own->sleep();
            while (own->rx.ready())
                got.push_back(take(own->rx).frame);
            uint32_t from = own->rx.next;
            own->rx.post(n % 4);
            own->kick(SVIO_RECEIVE, own->rx, from);
        }
        std::vector<Frame> all = wanted;
        if (port)
            all.push_back(make_frame(80, 9));
        EXPECT_EQ(got, all) << netdev;
        EXPECT_EQ(own->stat(SVIO_STAT_RX_FRAMES), all.size());
    }
}

TEST_F(Segments, ChainsThatAreTooLongComeInPieces) {
    Packet packet{.payload = 40000};
    bring_up(Vif::features, 64, 1100);
    rig.rx.post_all();
    arrive(to_vif(packet.make()), packet.seg(1000));
    for (const Frame &wanted : to_vif(packet.segments(1000)))
        ASSERT_EQ(take(rig.rx).frame, wanted);
    EXPECT_FALSE(rig.rx.ready());
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_TOO_LONG), 0u);
}

TEST_F(Segments, ReceivedChecksums) {
    for (Packet packet : kinds()) {
        if (packet.vlan.size() == 1)
            packet.vlan = {1, 2};
        uint64_t features = Vif::features & ~(SVIO_F_VLAN_RX | SVIO_F_RX_HASH);
        Frame open = to_vif(packet.make()), done = to_vif(packet.finished());
        bring_up(features);
        rig.rx.post_all();
        arrive(open, packet.csum());
        Taken taken = take(rig.rx);
        EXPECT_EQ(taken.frame, open);
        EXPECT_EQ(taken.flags(), uint32_t{SVIO_ENTRY_CSUM});
        EXPECT_EQ(taken.head.csum_start, packet.l4());
        arrive(done, {});
        taken = take(rig.rx);
        EXPECT_EQ(taken.frame, done);
        // Behind extension headers nobody looks.
        EXPECT_EQ(taken.flags(), packet.extension6 ? 0u : uint32_t{SVIO_ENTRY_CSUM_OK});
        // Padding is no part of it.
        done.insert(done.end(), 5, 0xee);
        arrive(done, {});
        EXPECT_EQ(take(rig.rx).flags(), packet.extension6 ? 0u : uint32_t{SVIO_ENTRY_CSUM_OK});
        done.resize(done.size() - 5);
        for (size_t at = packet.l4(); at < done.size(); at++) {
            Frame bad = done;
            bad[at] ^= 0x10;
            arrive(bad, {});
            taken = take(rig.rx);
            ASSERT_EQ(taken.frame, bad);
            ASSERT_EQ(taken.flags(), 0u) << at;
        }
        bring_up(features & ~SVIO_F_CSUM_RX);
        rig.rx.post_all();
        arrive(open, packet.csum());
        arrive(done, {});
        arrive(done, {.flags = SVIO_ENTRY_CSUM_OK});
        for (unsigned n = 0; n < 3; n++) {
            taken = take(rig.rx);
            EXPECT_EQ(taken.frame, done);
            EXPECT_EQ(taken.flags(), 0u);
        }
    }
}

TEST_F(Segments, NothingIsSaidOfWhatCannotBeKnown) {
    Packet packet{.udp = true};
    rig.rx.post_all();
    auto unknown = [&](Frame frame) {
        arrive(frame, {});
        Taken taken = take(rig.rx);
        EXPECT_EQ(taken.frame, frame);
        EXPECT_EQ(taken.flags() & ~SVIO_ENTRY_HASH, 0u);
    };
    Frame frame = to_vif(packet.finished());
    Frame none = frame;
    put16(none, packet.field(), 0);
    unknown(none);
    Frame fragment = frame;
    fragment[20] |= 0x20;
    unknown(fragment);
    for (size_t length = SVIO_FRAME_MIN; length < frame.size(); length++)
        unknown(Frame(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(length)));
    unknown(make_frame(60, 1));
}

TEST_F(Segments, TagsAreTakenOutAndPutIn) {
    Packet packet{.vlan = {0x6042}}, bare{};
    Frame tagged = to_vif(packet.finished()), open = to_vif(packet.make());
    rig.rx.post_all();
    arrive(tagged, {});
    Taken taken = take(rig.rx);
    EXPECT_EQ(with_tag(taken.frame, 0x6042), tagged);
    EXPECT_EQ(taken.flags() & ~SVIO_ENTRY_HASH, uint32_t{SVIO_ENTRY_VLAN | SVIO_ENTRY_CSUM_OK});
    EXPECT_EQ(taken.head.vlan_tci, 0x6042);
    arrive(open, packet.csum());
    taken = take(rig.rx);
    EXPECT_EQ(with_tag(taken.frame, 0x6042), open);
    EXPECT_EQ(taken.head.csum_start, bare.l4());
    // From another VIF, which has left it to others.
    Offload apart = bare.csum();
    apart.flags |= SVIO_ENTRY_VLAN;
    apart.vlan_tci = 0x6042;
    Frame inner = taken.frame;
    arrive(inner, apart);
    taken = take(rig.rx);
    EXPECT_EQ(taken.frame, inner);
    EXPECT_EQ(taken.head.vlan_tci, 0x6042);
    bring_up(Vif::features & ~(SVIO_F_VLAN_RX | SVIO_F_CSUM_RX));
    rig.rx.post_all();
    arrive(inner, apart);
    arrive(tagged, {});
    for (unsigned n = 0; n < 2; n++) {
        taken = take(rig.rx);
        EXPECT_EQ(taken.frame, tagged);
        EXPECT_EQ(taken.flags() & ~SVIO_ENTRY_HASH, 0u);
    }
}

TEST_F(Segments, ATagThatIsOneTooManyForPieces) {
    Packet packet{.vlan = {1, 2}, .payload = 1000};
    Offload offload = packet.seg(100);
    offload.flags |= SVIO_ENTRY_VLAN;
    bring_up(Vif::features & ~(SVIO_F_VLAN_RX | SVIO_F_RX_SEG));
    rig.rx.post_all();
    arrive(to_vif(packet.make()), offload);
    EXPECT_TRUE(taken_);
    EXPECT_FALSE(rig.rx.ready());
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_OFFLOAD), 1u);
    rig.tx.post(packet.make(), {}, offload);
    EXPECT_EQ(error(), uint32_t{SVIO_QERR_NONE});
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_TX_OFFLOAD), 1u);
}

TEST_F(Segments, ReceiveOffloadsAreTurnedOnAndOff) {
    Packet packet{.vlan = {3}, .payload = 2000};
    rig.rx.post_all();
    EXPECT_EQ(use(0), SVIO_ST_OK);
    arrive(to_vif(packet.make()), packet.seg(900));
    for (const Frame &wanted : to_vif(packet.segments(900))) {
        Taken taken = take(rig.rx);
        EXPECT_EQ(taken.frame, wanted);
        EXPECT_EQ(taken.flags() & ~SVIO_ENTRY_HASH, 0u);
    }
    EXPECT_EQ(use(SVIO_F_RX_OFFLOADS), SVIO_ST_OK);
    arrive(to_vif(packet.make()), packet.seg(900));
    EXPECT_EQ(take(rig.rx).flags() & ~SVIO_ENTRY_HASH,
              uint32_t{SVIO_ENTRY_CSUM | SVIO_ENTRY_SEG | SVIO_ENTRY_VLAN});
    EXPECT_EQ(use(SVIO_F_CSUM_TX), SVIO_ST_INVALID);
    EXPECT_EQ(use(SVIO_F_RX_OFFLOADS | SVIO_F_RX_CHAIN), SVIO_ST_INVALID);
    EXPECT_EQ(use(1ULL << 63), SVIO_ST_INVALID);
    // It moves along, and a reset takes it back.
    EXPECT_EQ(use(SVIO_F_VLAN_RX), SVIO_ST_OK);
    {
        std::lock_guard guard(rig.lock);
        std::vector<uint8_t> state = rig.board->save();
        EXPECT_EQ(rig.vif->rx_offloads(), SVIO_F_VLAN_RX);
        rig.vif->reset();
        EXPECT_EQ(rig.vif->rx_offloads(), SVIO_F_RX_OFFLOADS);
        rig.board->load(state);
        EXPECT_EQ(rig.vif->rx_offloads(), SVIO_F_VLAN_RX);
        EXPECT_EQ(rig.vif->receive_queue().features & SVIO_F_RX_OFFLOADS, SVIO_F_VLAN_RX);
    }
    bring_up(SVIO_F_CSUM_RX);
    EXPECT_EQ(use(SVIO_F_RX_SEG), SVIO_ST_INVALID) << "not accepted";
}

TEST_F(Segments, LoopedMessagesKeepTheirFields) {
    Packet packet{.payload = 3000};
    for (uint64_t missing : {uint64_t{0}, uint64_t{SVIO_F_RX_SEG}}) {
        uint64_t features = Vif::features & ~missing;
        bring_up(features);
        rig.rx.post_all();
        uint64_t looped = rig.stat(SVIO_STAT_LOOPED);
        Offload offload = packet.seg(1000);
        offload.flags |= SVIO_ENTRY_LOOP | SVIO_ENTRY_VLAN;
        offload.vlan_tci = 9;
        rig.tx.post(to_vif(packet.make()), {}, offload);
        EXPECT_EQ(error(), uint32_t{SVIO_QERR_NONE});
        std::vector<Frame> wanted = features & SVIO_F_RX_SEG ? std::vector<Frame>{to_vif(packet.make())}
                                                             : to_vif(packet.segments(1000));
        for (const Frame &frame : wanted) {
            Taken taken = take(rig.rx);
            EXPECT_EQ(taken.frame, frame);
            EXPECT_TRUE(taken.flags() & SVIO_ENTRY_LOOP);
            EXPECT_TRUE(taken.flags() & SVIO_ENTRY_VLAN);
            EXPECT_EQ(taken.head.vlan_tci, 9);
        }
        EXPECT_EQ(rig.stat(SVIO_STAT_LOOPED) - looped, wanted.size());
    }
}

// ---- virtio_net_hdr ----

TEST(VnetHeader, ThereAndBack) {
    for (Packet packet : kinds()) {
        packet.payload = 3000;
        Frame frame = packet.make();
        for (const Offload &offload : {packet.seg(1000), packet.csum(), Offload{}}) {
            uint8_t header[vnet_header_size];
            write_vnet_header(frame, offload, header);
            bool cwr = offload.has(SVIO_ENTRY_SEG) && !packet.udp && (packet.tcp_flags & 0x80);
            EXPECT_EQ(header[0], offload.has(SVIO_ENTRY_CSUM) ? 1 : 0);
            EXPECT_EQ(header[1] & 0x80, cwr ? 0x80 : 0);
            Offload back;
            ASSERT_TRUE(read_vnet_header(header, frame, back));
            EXPECT_EQ(back, offload);
        }
    }
}

TEST(VnetHeader, OneWithoutSenseIsRefused) {
    Packet packet{.payload = 3000};
    Frame frame = packet.make();
    uint8_t good[vnet_header_size];
    write_vnet_header(frame, packet.seg(1000), good);
    std::minstd_rand random(7);
    for (unsigned n = 0; n < 20000; n++) {
        uint8_t bad[vnet_header_size];
        std::memcpy(bad, good, sizeof(bad));
        for (unsigned k = random() % 4; k < 4; k++)
            bad[random() % sizeof(bad)] = static_cast<uint8_t>(random() >> 8);
        Offload offload;
        Frame cut(frame.begin(), frame.begin() + static_cast<ptrdiff_t>(random() % frame.size()));
        if (!read_vnet_header(bad, cut, offload))
            continue;
        EXPECT_TRUE(offload_fits(offload, cut.size()));
        if (!offload.has(SVIO_ENTRY_SEG))
            continue;
        Segmenter pieces(cut, offload);
        ASSERT_TRUE(pieces.valid());
        for (uint32_t i = 0; i < pieces.count(); i++) {
            Frame out(pieces.length(i));
            pieces.write(i, out.data());
        }
    }
    for (auto [at, value] : {std::pair{0, 0}, {1, 3}, {1, 2}, {4, 0}, {6, 0xff}}) {
        uint8_t bad[vnet_header_size];
        std::memcpy(bad, good, sizeof(bad));
        bad[at] = static_cast<uint8_t>(value);
        if (at == 4)
            bad[5] = 0;
        Offload offload;
        EXPECT_FALSE(read_vnet_header(bad, frame, offload)) << at;
    }
}
