// SPDX-License-Identifier: GPL-2.0-or-later
/// The switch: where frames go between VIFs and the port, what is dropped and on whose account, and what
/// becomes of a VIF that is taken away.
#include "many.hpp"

using namespace svio;
using namespace svio::test;

namespace {

const Mac group = {0x01, 0x00, 0x5e, 0x00, 0x00, 0x17};
const Mac stranger = {0x52, 0x54, 0x00, 0x77, 0x77, 0x77};

using Frames = std::vector<Frame>;

class Switching : public testing::Test {
  protected:
    Frame frame(unsigned from, const Mac &to, size_t length = 100) {
        return make_frame(length, ++sequence, to, mac_of(from));
    }
    /// Sends it and tells which slots received it as it is; the port is `port_bit`.
    static constexpr unsigned port_bit = 31;
    uint32_t reach(ManyRig &rig, unsigned from, const Frame &f) {
        rig.send(from, f);
        rig.work();
        return collect(rig, f);
    }
    uint32_t reach_from_port(ManyRig &rig, const Frame &f) {
        rig.offer(f);
        rig.work();
        return collect(rig, f);
    }
    uint32_t collect(ManyRig &rig, const Frame &f) {
        uint32_t who = 0;
        for (unsigned slot = 0; slot < rig.stations.size(); slot++) {
            Frames got = rig.take(slot);
            EXPECT_LE(got.size(), 1u) << "slot " << slot;
            for (const Frame &g : got)
                EXPECT_EQ(g, f) << "slot " << slot;
            who |= got.empty() ? 0 : 1u << slot;
            rig.stations[slot].rx.post_all();
        }
        Frames out = rig.sent();
        EXPECT_LE(out.size(), 1u);
        for (const Frame &g : out)
            EXPECT_EQ(g, f) << "port";
        return who | (out.empty() ? 0 : 1u << port_bit);
    }
    static constexpr uint32_t port = 1u << port_bit;
    uint64_t sequence = 0;
};

} // namespace

TEST_F(Switching, UnicastGoesWhereItsAddressIs) {
    for (bool native : {false, true}) {
        ManyRig rig({.vifs = 3, .native = native});
        EXPECT_EQ(reach(rig, 1, frame(1, mac_of(2))), 1u << 2);
        EXPECT_EQ(reach(rig, 2, frame(2, mac_of(0))), 1u << 0);
        EXPECT_EQ(reach(rig, 0, frame(0, mac_of(3))), 1u << 3);
        EXPECT_EQ(reach(rig, 1, frame(1, stranger)), port) << "unknown: the port alone";
        EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, mac_of(3))), 1u << 3);
        EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, stranger)), 0u);
        EXPECT_EQ(rig.counter("port/unclaimed"), 1u);
        EXPECT_EQ(rig.stat(1, SVIO_STAT_TX_FRAMES), 2u);
        EXPECT_EQ(rig.stat(1, SVIO_STAT_SWITCHED_TX), 1u);
        EXPECT_EQ(rig.stat(2, SVIO_STAT_RX_FRAMES), 1u);
        EXPECT_EQ(rig.stat(2, SVIO_STAT_SWITCHED_RX), 1u);
        EXPECT_EQ(rig.stat(3, SVIO_STAT_RX_FRAMES), 2u);
        EXPECT_EQ(rig.stat(3, SVIO_STAT_SWITCHED_RX), 1u);
    }
}

TEST_F(Switching, BroadcastGoesToAllButItsSource) {
    ManyRig rig({.vifs = 5});
    EXPECT_EQ(reach(rig, 2, frame(2, broadcast_mac)), port | 0b111011u);
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, broadcast_mac)), 0b111111u);
    EXPECT_EQ(rig.stat(2, SVIO_STAT_TX_FRAMES), 1u) << "once, however many get it";
    EXPECT_EQ(rig.stat(3, SVIO_STAT_RX_BROADCAST), 2u);
    EXPECT_EQ(rig.stat(2, SVIO_STAT_RX_BROADCAST), 1u);
}

TEST_F(Switching, ToSixtyFourVifs) {
    ManyRig rig({.vifs = SVIO_MAX_VIFS, .ring = 16, .buffer = 256});
    rig.send(64, frame(64, broadcast_mac));
    rig.send(1, frame(1, mac_of(64)));
    rig.work();
    for (unsigned slot = 0; slot < 64; slot++)
        EXPECT_EQ(rig.take(slot).size(), 1u) << slot;
    EXPECT_EQ(rig.take(64).size(), 1u);
    EXPECT_EQ(rig.sent().size(), 1u);
}

TEST_F(Switching, MulticastGoesByFilter) {
    ManyRig rig({.vifs = 4});
    EXPECT_EQ(reach(rig, 1, frame(1, group)), port) << "nobody has joined";
    rig.join(2, group);
    rig.rx_mode(3, SVIO_RX_ALL_MULTICAST);
    EXPECT_EQ(reach(rig, 1, frame(1, group)), port | 1u << 2 | 1u << 3);
    EXPECT_EQ(reach(rig, 2, frame(2, group)), port | 1u << 3) << "not back to its source";
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, group)), 1u << 2 | 1u << 3);
    rig.set(3, [](VifSettings &s) { s.allow_multicast = false; });
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, group)), 1u << 2);
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, broadcast_mac)), 0b11111u);
    rig.write(2, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, group)), 0u) << "a reset empties the filter";
}

TEST_F(Switching, OnlyATrustedVifGetsWhatNobodyClaims) {
    ManyRig rig({.vifs = 3});
    for (unsigned slot : {0u, 1u, 2u}) {
        rig.set(slot, [](VifSettings &s) { s.allow_promisc = true; });
        rig.rx_mode(slot, SVIO_RX_PROMISC);
    }
    rig.set(1, [](VifSettings &s) { s.allow_promisc = false; });
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, stranger)), 1u << 0);
    rig.set(2, [](VifSettings &s) { s.trust = true; });
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 9, stranger)), 1u << 0 | 1u << 2);
    // To a bridge behind the PF, and to the port, for who knows where it is.
    EXPECT_EQ(reach(rig, 3, frame(3, stranger)), port | 1u << 0 | 1u << 2);
    EXPECT_EQ(reach(rig, 3, frame(3, mac_of(1))), 1u << 1) << "what has an owner is nobody else's";
}

TEST_F(Switching, ForeignAddressesBehindATrustedVifAreCarried) {
    ManyRig rig({.vifs = 2});
    rig.rx_mode(0, SVIO_RX_PROMISC); // a bridge on the PF
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), port | 1u << 0);
    Frame out = make_frame(90, 1, mac_of(1), stranger);
    EXPECT_EQ(reach(rig, 0, out), 1u << 1);
    EXPECT_EQ(reach(rig, 0, make_frame(90, 2, peer_mac, stranger)), port);
    EXPECT_EQ(reach_from_port(rig, make_frame(90, 3, stranger, peer_mac)), 1u << 0);
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), 1u << 0) << "it was heard there";
}

// So dom0 does not work for a conversation of another guest with the wire.
TEST_F(Switching, WhoWasHeardAtThePortIsThereAndNowhereElse) {
    ManyRig rig({.vifs = 2});
    rig.rx_mode(0, SVIO_RX_PROMISC); // a bridge on the PF
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), port | 1u << 0) << "not heard yet";
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 1, mac_of(1), stranger)), 1u << 1);
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), port + 0u);
    EXPECT_EQ(reach(rig, 1, frame(1, peer_mac)), port | 1u << 0) << "another one";
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 2, stranger, peer_mac)), 1u << 0)
        << "the port says who moved";
    // It has moved behind the bridge.
    EXPECT_EQ(reach(rig, 0, make_frame(90, 3, mac_of(2), stranger)), 1u << 2);
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), 1u << 0);
    rig.rx_mode(0, 0); // and the bridge is gone
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), port + 0u);
    rig.rx_mode(0, SVIO_RX_PROMISC);
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), port | 1u << 0) << "nothing is remembered of it";
}

TEST_F(Switching, WhoSendsForOthersWithoutTrustMovesNobody) {
    ManyRig rig({.vifs = 2});
    rig.rx_mode(0, SVIO_RX_PROMISC);
    rig.set(2, [](VifSettings &s) { s.spoof_check = false; });
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 1, mac_of(1), stranger)), 1u << 1);
    EXPECT_EQ(reach(rig, 2, make_frame(90, 2, mac_of(1), stranger)), 1u << 1);
    EXPECT_EQ(reach(rig, 1, frame(1, stranger)), port | 1u << 0) << "not to the one that pretends";
}

TEST(Heard, IsKnownByVlanForAWhile) {
    constexpr uint64_t epoch = uint64_t{1} << Heard::epoch_shift;
    Heard heard;
    heard.learn(stranger.data(), 0, Heard::at_port, 5 * epoch);
    heard.learn(stranger.data(), 8, Heard::behind(64), 5 * epoch);
    EXPECT_EQ(heard.find(stranger.data(), 0, 5 * epoch), Heard::at_port);
    EXPECT_EQ(heard.find(stranger.data(), 8, 5 * epoch), Heard::behind(64));
    EXPECT_EQ(heard.find(stranger.data(), 7, 5 * epoch), Heard::nowhere);
    EXPECT_EQ(heard.find(peer_mac.data(), 0, 5 * epoch), Heard::nowhere);
    EXPECT_EQ(heard.find(stranger.data(), 0, (5 + Heard::epochs) * epoch), Heard::at_port);
    EXPECT_EQ(heard.find(stranger.data(), 0, (6 + Heard::epochs) * epoch), Heard::nowhere);
    heard.forget(stranger.data(), 7);
    EXPECT_EQ(heard.find(stranger.data(), 0, 5 * epoch), Heard::at_port) << "that was in another VLAN";
    heard.forget(stranger.data(), 0);
    EXPECT_EQ(heard.find(stranger.data(), 0, 5 * epoch), Heard::nowhere);
    heard.forget_if([](Heard::Where where) { return where == Heard::behind(64); });
    EXPECT_EQ(heard.find(stranger.data(), 8, 5 * epoch), Heard::nowhere);
    heard.learn(broadcast_mac.data(), 0, Heard::at_port, 5 * epoch);
    EXPECT_EQ(heard.find(broadcast_mac.data(), 0, 5 * epoch), Heard::nowhere) << "nobody sends from there";
}

TEST(Heard, WhatIsOldStaysOldWhenTheirClockHasGoneAround) {
    constexpr uint64_t epoch = uint64_t{1} << Heard::epoch_shift;
    Heard heard;
    heard.learn(stranger.data(), 0, Heard::at_port, epoch);
    heard.learn(peer_mac.data(), 0, Heard::at_port, 10 * epoch); // somebody is heard meanwhile
    EXPECT_EQ(heard.find(stranger.data(), 0, 17 * epoch), Heard::nowhere);
    EXPECT_EQ(heard.find(peer_mac.data(), 0, 10 * epoch), Heard::at_port);
}

TEST(Heard, StationsDoNotAnswerForEachOther) {
    Heard heard;
    Mac one = stranger;
    for (unsigned n = 0; n < 5000; n++) {
        one[4] = static_cast<uint8_t>(n >> 8);
        one[5] = static_cast<uint8_t>(n);
        ASSERT_EQ(heard.find(one.data(), n % 3, 0), Heard::nowhere) << n;
        heard.learn(one.data(), n % 3, Heard::behind(n % 65), 0);
        ASSERT_EQ(heard.find(one.data(), n % 3, 0), Heard::behind(n % 65)) << n;
    }
}

TEST_F(Switching, ASpoofedSourceIsDroppedAndCounted) {
    ManyRig rig({.vifs = 2});
    EXPECT_EQ(reach(rig, 1, make_frame(90, 1, mac_of(2), mac_of(2))), 0u);
    EXPECT_EQ(reach(rig, 1, make_frame(90, 1, peer_mac, mac_of(0))), 0u);
    EXPECT_EQ(reach(rig, 1, make_frame(90, 1, broadcast_mac, stranger)), 0u);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_SPOOF), 3u);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_TX_FRAMES), 0u);
    rig.set(1, [](VifSettings &s) { s.spoof_check = false; });
    EXPECT_EQ(reach(rig, 1, make_frame(90, 1, mac_of(2), stranger)), 1u << 2);
    EXPECT_EQ(rig.stations[1].tx.done(), rig.stations[1].tx.next) << "dropped is completed";
}

TEST_F(Switching, NothingComesBackToItsSource) {
    ManyRig rig({.vifs = 2});
    EXPECT_EQ(reach(rig, 1, frame(1, mac_of(1))), 0u);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_HAIRPIN), 1u);
    rig.rx_mode(0, SVIO_RX_PROMISC);
    EXPECT_EQ(reach(rig, 0, frame(0, stranger)), port);
    EXPECT_EQ(rig.stat(0, SVIO_STAT_DROP_TX_HAIRPIN), 0u);
}

TEST_F(Switching, NeighboursAreOfOneGroup) {
    ManyRig rig({.vifs = 5});
    auto group = [&](unsigned slot, uint32_t value) {
        rig.set(slot, [value](VifSettings &s) { s.neighbours = value; });
    };
    group(1, 7);
    group(2, 7);
    group(3, 8);
    group(4, SVIO_NEIGHBOURS_NONE);
    group(5, SVIO_NEIGHBOURS_NONE);
    // Unicast: within the group; to a VIF of another neither there nor to the port.
    EXPECT_EQ(reach(rig, 1, frame(1, mac_of(2))), 1u << 2);
    for (unsigned to : {0u, 3u, 4u})
        EXPECT_EQ(reach(rig, 1, frame(1, mac_of(to))), 0u) << to;
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_NEIGHBOUR), 3u);
    for (unsigned to : {0u, 1u, 3u, 5u})
        EXPECT_EQ(reach(rig, 4, frame(4, mac_of(to))), 0u) << to;
    EXPECT_EQ(rig.stat(4, SVIO_STAT_DROP_TX_NEIGHBOUR), 4u);
    EXPECT_EQ(reach(rig, 4, frame(4, mac_of(4))), 0u);
    EXPECT_EQ(rig.stat(4, SVIO_STAT_DROP_TX_HAIRPIN), 1u);
    // Broadcast and multicast: the group and the port. From the port: everybody.
    EXPECT_EQ(reach(rig, 1, frame(1, broadcast_mac)), 1u << 2 | port);
    EXPECT_EQ(reach(rig, 0, frame(0, broadcast_mac)), port);
    EXPECT_EQ(reach(rig, 4, frame(4, broadcast_mac)), port);
    EXPECT_EQ(reach(rig, 4, frame(4, stranger)), port);
    // Who gets what nobody claims gets nothing of strangers to it.
    rig.rx_mode(0, SVIO_RX_PROMISC);
    EXPECT_EQ(reach(rig, 4, frame(4, stranger)), port);
    // Live, and back to the default.
    for (unsigned slot = 1; slot <= 5; slot++)
        group(slot, 0);
    EXPECT_EQ(reach(rig, 4, frame(4, mac_of(1))), 1u << 1);
    EXPECT_EQ(reach(rig, 3, frame(3, broadcast_mac)), (0x3fu & ~(1u << 3)) | port);
}

TEST_F(Switching, ThePortReachesWhoHasNoNeighbours) {
    ManyRig rig({.vifs = 2});
    rig.set(1, [](VifSettings &s) { s.neighbours = SVIO_NEIGHBOURS_NONE; });
    rig.set(2, [](VifSettings &s) { s.neighbours = 3; });
    EXPECT_EQ(reach_from_port(rig, make_frame(90, 1, mac_of(1))), 1u << 1);
    EXPECT_EQ(reach_from_port(rig, make_frame(90, 1, broadcast_mac)), 0x7u);
}

TEST_F(Switching, VlansAreApart) {
    ManyRig rig({.vifs = 5});
    rig.set(1, [](VifSettings &s) { s.vlan = 7 | 3 << 13; });
    rig.set(2, [](VifSettings &s) { s.vlan = 7; });
    rig.set(3, [](VifSettings &s) { s.vlan = 8; });
    rig.set(4, [](VifSettings &s) { s.guest_tagging = false; });
    auto send = [&](unsigned from, const Mac &to) {
        Frame f = frame(from, to);
        rig.send(from, f);
        rig.work();
        return f;
    };
    // Within a VLAN nobody sees a tag.
    Frame f = send(1, mac_of(2));
    EXPECT_EQ(rig.take(2), Frames{f});
    EXPECT_TRUE(rig.sent().empty());
    // An address in another VLAN is not there: the frame leaves with its tag and priority.
    f = send(1, mac_of(3));
    EXPECT_EQ(rig.sent(), Frames{tagged(f, 7 | 3 << 13)});
    EXPECT_TRUE(rig.take(3).empty());
    // Broadcast: the members, and as tagged frame whoever may see tags.
    f = send(1, broadcast_mac);
    EXPECT_EQ(rig.take(2), Frames{f});
    EXPECT_EQ(rig.take(0), Frames{tagged(f, 7 | 3 << 13)});
    EXPECT_EQ(rig.take(5), Frames{tagged(f, 7 | 3 << 13)});
    EXPECT_EQ(rig.sent(), Frames{tagged(f, 7 | 3 << 13)});
    EXPECT_TRUE(rig.take(3).empty() && rig.take(4).empty() && rig.take(1).empty());
    // From the port: the tag is taken away for the members.
    f = make_frame(100, 50, mac_of(2));
    rig.offer(tagged(f, 7 | 5 << 13));
    rig.offer(tagged(make_frame(100, 51, mac_of(2)), 8));
    rig.offer(make_frame(100, 52, mac_of(2)));
    rig.work();
    EXPECT_EQ(rig.take(2), Frames{f});
    EXPECT_EQ(rig.counter("port/unclaimed"), 2u);
    // A tagged frame of a guest that has a tag of its own.
    f = frame(5, mac_of(3));
    rig.send(5, tagged(f, 8));
    rig.work();
    EXPECT_EQ(rig.take(3), Frames{f});
    EXPECT_TRUE(rig.sent().empty());
}

TEST_F(Switching, ATagWhereNoneMayBeIsDropped) {
    ManyRig rig({.vifs = 3});
    rig.set(1, [](VifSettings &s) { s.vlan = 7; });
    rig.set(2, [](VifSettings &s) { s.guest_tagging = false; });
    for (uint16_t tci : {7, 8, 0}) {
        rig.send(1, tagged(frame(1, broadcast_mac), tci));
        rig.send(2, tagged(frame(2, broadcast_mac), tci));
    }
    Frame provider = tagged(frame(1, broadcast_mac), 7);
    provider[12] = 0x88, provider[13] = 0xa8;
    rig.send(1, provider);
    rig.send(3, tagged(frame(3, broadcast_mac), 0xfff));
    rig.work();
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_VLAN), 4u);
    EXPECT_EQ(rig.stat(2, SVIO_STAT_DROP_TX_VLAN), 3u);
    EXPECT_EQ(rig.stat(3, SVIO_STAT_DROP_TX_VLAN), 1u);
    EXPECT_TRUE(rig.sent().empty());
    for (unsigned slot = 0; slot <= 3; slot++)
        EXPECT_TRUE(rig.take(slot).empty());
}

TEST_F(Switching, LengthsAtTheEdge) {
    ManyRig rig({.vifs = 2, .ring = 64, .buffer = 4096});
    std::vector<uint32_t> pieces(16, 4096);
    for (size_t length :
         {size_t{14}, size_t{15}, size_t{127}, size_t{128}, size_t{129}, size_t{SVIO_MESSAGE_MAX}}) {
        Frame f = frame(1, mac_of(2), length);
        rig.send(1, f, length > 4096 ? pieces : std::vector<uint32_t>{});
        rig.work();
        EXPECT_EQ(rig.take(2), Frames{f}) << length;
        rig.stations[2].rx.post_all();
    }
    rig.send(1, Frame(13, 1));
    rig.work();
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_RUNT), 1u);
    rig.offer(Frame(13, 1));
    EXPECT_EQ(rig.counter("port/unclaimed"), 1u);
    // With the tag it is longer than any message.
    rig.set(1, [](VifSettings &s) { s.vlan = 7; });
    rig.send(1, frame(1, peer_mac, SVIO_MESSAGE_MAX), pieces);
    rig.work();
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_OVERSIZE), 1u);
    rig.send(1, frame(1, peer_mac, SVIO_MESSAGE_MAX - 4), pieces);
    rig.work();
    Frames out = rig.sent();
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].size(), size_t{SVIO_MESSAGE_MAX});
}

TEST_F(Switching, OneCopyFromSenderToReceiver) {
    ManyRig rig({.vifs = 2});
    rig.ram.shown = 0;
    Frame f = frame(1, mac_of(2), 1500);
    rig.send(1, f, {100, 700});
    rig.work();
    EXPECT_EQ(rig.take(2), Frames{f});
    EXPECT_EQ(rig.ram.shown, 1500u - head_size) << "all but the head came from the sender's memory";
}

TEST_F(Switching, AFullReceiverLosesAndPays) {
    for (bool native : {false, true}) {
        ManyRig rig({.vifs = 2, .ring = 16, .native = native});
        for (unsigned n = 0; n < 20; n++) {
            rig.send(1, frame(1, mac_of(2)));
            rig.work();
        }
        rig.send(1, frame(1, broadcast_mac));
        for (unsigned n = 0; n < 3; n++)
            rig.offer(make_frame(80, n, mac_of(2)));
        rig.offer(make_frame(80, 7, mac_of(1)));
        rig.work();
        EXPECT_EQ(rig.take(2).size(), 16u);
        EXPECT_EQ(rig.stat(2, SVIO_STAT_DROP_RX_NO_BUFFER), 8u);
        EXPECT_EQ(rig.stat(1, SVIO_STAT_TX_FRAMES), 21u);
        EXPECT_EQ(rig.stations[1].tx.done(), rig.stations[1].tx.next) << "nobody waits for it";
        EXPECT_EQ(rig.take(1).size(), 1u) << "and what is for others arrives";
        EXPECT_EQ(rig.take(0).size(), 1u);
        EXPECT_EQ(rig.sent().size(), 1u);
    }
}

// A hostile sender changes its frame after the switch has looked at it.
TEST_F(Switching, WhatWasCheckedIsWhatIsDelivered) {
    ManyRig rig({.vifs = 3});
    rig.set(1, [](VifSettings &s) { s.vlan = 7; });
    rig.set(2, [](VifSettings &s) { s.vlan = 7; });
    rig.rx_mode(0, SVIO_RX_PROMISC);
    for (const Mac &to : {mac_of(2), stranger}) {
        SendRing &tx = rig.stations[1].tx;
        Frame good = frame(1, to, 600);
        uint64_t buffer = tx.buffer_at(tx.next);
        unsigned looks = 0;
        rig.ram.on_read = [&](uint64_t address) {
            if (address < buffer || address >= buffer + 600 || looks++ == 0)
                return;
            Frame evil = tagged(make_frame(600, 666, mac_of(3), mac_of(3)), 9);
            rig.ram.put(buffer, evil.data(), head_size);
        };
        rig.send(1, good);
        rig.work();
        rig.ram.on_read = nullptr;
        EXPECT_GE(looks, 2u);
        EXPECT_TRUE(rig.take(3).empty());
        Frames got = to == stranger ? rig.sent() : rig.take(2);
        ASSERT_EQ(got.size(), 1u);
        EXPECT_EQ(got[0], to == stranger ? tagged(good, 7) : good);
    }
}

TEST_F(Switching, ASenderWhoseMemoryIsGoneFailsAlone) {
    ManyRig rig({.vifs = 2, .ring = 16});
    Station &s = rig.stations[1];
    Frame f = frame(1, mac_of(2), 1000);
    s.tx.post(f, {500});
    rig.ram.holes.push_back({s.tx.buffer_at(1), 100}); // behind the head
    rig.work();
    EXPECT_EQ(rig.read(1, SVIO_QUEUE_REG(0, SVIO_SEND, SVIO_QUEUE_STATE)),
              uint32_t{SVIO_QUEUE_ERROR | SVIO_QERR_DMA << 8});
    EXPECT_TRUE(rig.take(2).empty());
    EXPECT_EQ(rig.vif(2).receive_queue().position(), 0u) << "no buffer was taken";
    f = frame(0, mac_of(2), 1000);
    EXPECT_EQ(reach(rig, 0, f), 1u << 2);
}

TEST_F(Switching, AReceiverWhoseMemoryIsGoneFailsAlone) {
    ManyRig rig({.vifs = 2});
    rig.ram.holes.push_back({rig.stations[2].rx.buffer_at(0), 64});
    EXPECT_EQ(reach(rig, 1, frame(1, broadcast_mac)), port | 1u << 0);
    EXPECT_EQ(rig.stat(2, SVIO_STAT_DROP_RX_QUEUE_ERROR), 1u);
    EXPECT_EQ(rig.read(1, SVIO_QUEUE_REG(0, SVIO_SEND, SVIO_QUEUE_STATE)), uint32_t{SVIO_QUEUE_RUNNING});
}

TEST_F(Switching, LinksOfTheirOwn) {
    ManyRig rig({.vifs = 3});
    rig.set(1, [](VifSettings &s) { s.link = SVIO_LINK_DOWN; });
    EXPECT_EQ(reach(rig, 1, frame(1, mac_of(2))), 0u);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_LINK_DOWN), 1u);
    EXPECT_EQ(reach(rig, 2, frame(2, mac_of(1))), 0u);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_RX_LINK_DOWN), 1u);
    EXPECT_EQ(rig.read(1, SVIO_REG_EVENT), uint32_t{SVIO_EVENT_LINK});
    rig.set(1, [](VifSettings &s) { s.link = SVIO_LINK_UP; });
    rig.set(2, [](VifSettings &s) { s.link = SVIO_LINK_UP; });
    {
        std::lock_guard guard(rig.lock);
        rig.board->set_link(false);
    }
    EXPECT_EQ(reach(rig, 1, frame(1, mac_of(2))), 1u << 2) << "between VIFs whose links are forced up";
    EXPECT_EQ(reach(rig, 1, frame(1, peer_mac)), 0u);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_DROP_TX_LINK_DOWN), 2u);
    EXPECT_EQ(reach(rig, 3, frame(3, mac_of(2))), 0u) << "its link is the port's";
    EXPECT_EQ(rig.stat(3, SVIO_STAT_DROP_TX_LINK_DOWN), 1u);
}

TEST_F(Switching, ABlockedPortHoldsUpNoMessageBetweenVifs) {
    ManyRig rig({.vifs = 2});
    rig.wire->room = 0;
    for (unsigned n = 0; n < 10; n++)
        rig.send(0, frame(0, peer_mac));
    rig.work();
    EXPECT_TRUE(rig.wire->blocked());
    for (unsigned n = 0; n < 5; n++) {
        Frame f = frame(1, mac_of(2));
        rig.send(1, f);
        rig.work();
        EXPECT_EQ(rig.take(2), Frames{f});
    }
    rig.wire->unblock(SIZE_MAX);
    rig.work();
    EXPECT_EQ(rig.sent().size(), 10u);
}

// ---- VIFs that come and go ----

TEST_F(Switching, AReclaimedSlotIsClean) {
    ManyRig rig({.vifs = 2, .ring = 16});
    rig.join(1, group);
    rig.rx_mode(1, SVIO_RX_ALL_MULTICAST);
    rig.wire->room = 0;
    rig.send(0, frame(0, peer_mac)); // of another VIF, and in the port's way
    for (unsigned n = 0; n < 4; n++)
        rig.send(1, frame(1, n % 2 ? peer_mac : mac_of(2)));
    rig.work();
    {
        std::lock_guard guard(rig.lock);
        rig.vif(1).destroy();
    }
    EXPECT_FALSE(rig.vif(1).present());
    uint64_t accesses = rig.ram.accesses, written = rig.ram.written_bytes;
    rig.wire->unblock(SIZE_MAX);
    rig.work();
    EXPECT_EQ(rig.ram.accesses, accesses) << "no DMA after the acknowledgement";
    EXPECT_EQ(rig.ram.written_bytes, written);
    Frames out = rig.sent();
    ASSERT_EQ(out.size(), 1u) << "the other's message is not lost";
    EXPECT_TRUE(std::equal(out[0].begin() + 6, out[0].begin() + 12, mac_of(0).begin()));
    for (uint32_t reg :
         {SVIO_REG_VIF_ID_LO, SVIO_REG_VIF_ID_HI, SVIO_REG_VIF_KIND, SVIO_REG_MAC_LO, SVIO_REG_MAC_HI,
          SVIO_REG_QUEUE_PAIRS, SVIO_REG_DRIVER_FEATURES_LO, SVIO_REG_MAILBOX_STATE, SVIO_REG_CONTROL})
        EXPECT_EQ(rig.read(1, reg), 0u) << std::hex << reg;
    for (uint32_t i = 0; i < sizeof(svio_command); i += 4)
        EXPECT_EQ(rig.read(1, SVIO_REG_MAILBOX + i), 0u);
    for (unsigned which = 0; which < SVIO_STAT_COUNT; which++)
        EXPECT_EQ(rig.vif(1).counters.get(which), 0u) << vif_stat_names[which];
    EXPECT_EQ(rig.read(1, SVIO_REG_STATUS), uint32_t{SVIO_STATUS_READY});
    EXPECT_EQ(rig.read(1, SVIO_REG_EVENT), uint32_t{SVIO_EVENT_CONFIG}) << "its driver hears of it";
    EXPECT_EQ(rig.take(2).size(), 2u);
    // An empty slot does not run.
    rig.write(1, SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
    rig.write(1, SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK | SVIO_CONTROL_RUN);
    EXPECT_FALSE(rig.read(1, SVIO_REG_STATUS) & SVIO_STATUS_RUNNING);
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 1, mac_of(1))), 0u);
    EXPECT_EQ(reach(rig, 2, frame(2, mac_of(1))), port) << "the address is nobody's now";
    // And the next one finds nothing of the former.
    VifSettings settings;
    settings.id = 77;
    settings.mac = {0x52, 0x54, 0, 0, 9, 9};
    {
        std::lock_guard guard(rig.lock);
        rig.vif(1).create(settings);
    }
    EXPECT_EQ(rig.read(1, SVIO_REG_VIF_ID_LO), 77u);
    rig.bring_up(1);
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 2, group)), 0u) << "filters are empty";
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 3, settings.mac)), 1u << 1);
    EXPECT_EQ(rig.stat(1, SVIO_STAT_RX_FRAMES), 1u);
}

TEST_F(Switching, OneVifAloneIsACable) {
    ManyRig rig({.vifs = 1});
    EXPECT_FALSE(rig.board->cable());
    {
        std::lock_guard guard(rig.lock);
        rig.vif(1).destroy();
    }
    EXPECT_TRUE(rig.board->cable());
    EXPECT_EQ(reach(rig, 0, frame(0, mac_of(0))), port);
    // Its queue is full: the port is held back rather than robbed.
    for (unsigned n = 0; n < 70; n++)
        rig.offer(make_frame(80, n, mac_of(0)));
    rig.work();
    EXPECT_EQ(rig.push->held.size(), 6u);
    EXPECT_EQ(rig.stat(0, SVIO_STAT_DROP_RX_NO_BUFFER), 0u);
    {
        std::lock_guard guard(rig.lock);
        VifSettings settings;
        settings.id = 9;
        settings.mac = mac_of(1);
        rig.vif(1).create(settings);
    }
    EXPECT_FALSE(rig.board->cable());
}

TEST_F(Switching, NewSettingsKeepWhatIsOnItsWay) {
    ManyRig rig({.vifs = 2});
    rig.wire->room = 0;
    for (unsigned n = 0; n < 20; n++)
        rig.send(1, frame(1, peer_mac));
    rig.work();
    rig.set(1, [](VifSettings &s) {
        s.mac = {0x52, 0x54, 0, 0, 9, 9};
        s.weight = 5;
        s.name = "renamed";
    });
    EXPECT_EQ(rig.read(1, SVIO_REG_EVENT), uint32_t{SVIO_EVENT_CONFIG});
    EXPECT_EQ(rig.read(1, SVIO_REG_STATUS) & SVIO_STATUS_RUNNING, uint32_t{SVIO_STATUS_RUNNING});
    rig.wire->unblock(SIZE_MAX);
    rig.work();
    Frames out = rig.sent();
    // What was not taken yet comes under the new address's spoof check.
    EXPECT_EQ(out.size() + rig.stat(1, SVIO_STAT_DROP_TX_SPOOF), 20u);
    for (size_t n = 0; n < out.size(); n++)
        EXPECT_EQ(sequence_of(out[n]), n + 1);
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 3, {0x52, 0x54, 0, 0, 9, 9})), 1u << 1);
    EXPECT_EQ(reach_from_port(rig, make_frame(80, 3, mac_of(1))), 0u);
}
