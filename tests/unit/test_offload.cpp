// SPDX-License-Identifier: GPL-2.0-or-later
/// Checksums to be inserted (SPEC.md chapter 6), byte by byte against a computation of its own.
#include "packets.hpp"
#include "state.hpp"

using namespace svio;
using namespace svio::test;

namespace {

/// The sum in the order of memory is that of the network with its bytes exchanged.
unsigned swapped(unsigned sum) {
    return (sum >> 8 | sum << 8) & 0xffff;
}

Frame with_reference(Frame frame, size_t start, size_t field) {
    unsigned sum = reference_sum(frame.data() + start, frame.size() - start);
    put16(frame, field, sum == 0xffff ? 0xffff : ~sum & 0xffff);
    return frame;
}

Offload asks(size_t start, size_t offset) {
    return {.flags = SVIO_ENTRY_CSUM,
            .csum_start = static_cast<uint16_t>(start),
            .csum_offset = static_cast<uint16_t>(offset)};
}

class Checksum : public testing::Test {
  protected:
    Rig rig;
    void SetUp() override { rig.bring_up(); }
    void expect_state(uint32_t error) {
        rig.work();
        uint32_t state = rig.queue(SVIO_SEND, SVIO_QUEUE_STATE);
        EXPECT_EQ(SVIO_QUEUE_ERROR_OF(state), error);
        EXPECT_EQ(SVIO_QUEUE_STATE_OF(state), error ? SVIO_QUEUE_ERROR : SVIO_QUEUE_RUNNING);
    }
};

} // namespace

TEST(OnesSum, AsTheReferenceAtEveryLengthAndPlace) {
    Frame bytes = random_bytes(400, 1), full(400, 0xff), none(400, 0);
    for (const Frame *from : {&bytes, &full, &none}) {
        for (size_t at = 0; at < 17; at++) {
            for (size_t length = 0; at + length <= 300; length++) {
                unsigned expected = reference_sum(from->data() + at, length);
                unsigned found = ones_sum({from->data() + at, length});
                ASSERT_EQ(swapped(found), expected) << at << " " << length;
                ASSERT_EQ(ones_sum({from->data() + at, length}, 0xfffe0001u) % 0xffff,
                          (found + 0xfffe0001u) % 0xffff);
            }
        }
    }
    Frame longest(SVIO_MESSAGE_MAX, 0xff);
    EXPECT_EQ(ones_sum(longest), 0xffff);
    longest = random_bytes(SVIO_MESSAGE_MAX, 2);
    EXPECT_EQ(swapped(ones_sum(longest)), reference_sum(longest.data(), longest.size()));
}

TEST_F(Checksum, InsertedAtEveryPlace) {
    uint32_t seed = 0;
    for (size_t length : {14u, 15u, 61u, 64u, 100u}) {
        for (size_t start = 0; start + 2 <= length; start++) {
            size_t offset = (start * 7) % (length - start - 1);
            Frame frame = random_bytes(length, seed++);
            rig.tx.post(frame, {}, asks(start, offset));
            rig.work();
            ASSERT_EQ(rig.sent().back(), with_reference(frame, start, start + offset))
                << length << " " << start;
        }
    }
    expect_state(SVIO_QERR_NONE);
    EXPECT_EQ(rig.stat(SVIO_STAT_TX_FRAMES), seed);
}

TEST_F(Checksum, OfPacketsOfEveryKindAndSplitAtEveryBoundary) {
    for (Packet packet : {Packet{}, Packet{.udp = true}, Packet{.options4 = 40, .options_tcp = 12},
                          Packet{.ip6 = true}, Packet{.ip6 = true, .udp = true, .extension6 = 24},
                          Packet{.vlan = {7, 8}, .payload = 101}, Packet{.udp = true, .payload = 0}}) {
        Frame frame = packet.make(), wanted = packet.finished();
        for (uint32_t at = 1; at < frame.size(); at++) {
            rig.tx.post(frame, {at}, packet.csum());
            rig.work();
            ASSERT_EQ(rig.sent().back(), wanted) << at;
        }
    }
    expect_state(SVIO_QERR_NONE);
}

TEST_F(Checksum, ZeroIsStoredAsAllOnes) {
    Frame frame(64, 0);
    rig.tx.post(frame, {}, asks(20, 6)); // the sum is 0: its complement as it is
    put16(frame, 30, 0xffff);            // and of all ones it would be 0, which means none in UDP
    rig.tx.post(frame, {}, asks(20, 6));
    rig.work();
    for (const Frame &sent : rig.sent())
        EXPECT_EQ(get16(sent, 26), 0xffffu);
}

TEST_F(Checksum, FieldsAtTheLimit) {
    Frame frame = random_bytes(64, 3);
    for (auto [start, offset] : {std::pair{62, 0}, {0, 62}, {30, 32}}) {
        rig.tx.post(frame, {}, asks(static_cast<size_t>(start), static_cast<size_t>(offset)));
        expect_state(SVIO_QERR_NONE);
        EXPECT_EQ(rig.sent().back(), with_reference(frame, static_cast<size_t>(start), 62));
    }
}

TEST_F(Checksum, FieldsOutsideOfTheMessageStopTheQueue) {
    for (auto [start, offset] : {std::pair{63, 0},
                                 {64, 0},
                                 {0, 63},
                                 {31, 32},
                                 {0xffff, 0},
                                 {0, 0xffff},
                                 {0xffff, 0xffff},
                                 {0xffff, 1},
                                 {1, 0xffff}}) {
        rig.reset();
        rig.bring_up();
        size_t before = rig.sent().size();
        rig.tx.post(random_bytes(64, 4), {20, 20},
                    asks(static_cast<size_t>(start), static_cast<size_t>(offset)));
        expect_state(SVIO_QERR_OFFLOAD);
        EXPECT_EQ(rig.tx.done(), 0u);
        EXPECT_EQ(rig.sent().size(), before);
    }
    EXPECT_EQ(rig.send_stat(SVIO_QSTAT_ERROR_OFFLOAD), 9u);
}

TEST_F(Checksum, IsAFlagThatMustBeNegotiatedAndOfTheHead) {
    rig.reset();
    rig.bring_up(64, 2048, Vif::features & ~SVIO_F_CSUM_TX);
    rig.tx.post(Packet{}.make(), {}, Packet{}.csum());
    expect_state(SVIO_QERR_FLAGS);
    rig.reset();
    rig.bring_up();
    rig.tx.post_raw(rig.tx.buffers, 60, SVIO_ENTRY_MORE);
    rig.tx.post_raw(rig.tx.buffers, 60, SVIO_ENTRY_CSUM);
    expect_state(SVIO_QERR_FLAGS);
    rig.reset();
    rig.bring_up();
    // Fields without their flag mean nothing.
    Frame frame = random_bytes(64, 5);
    Offload stale = asks(0xffff, 0xffff);
    stale.flags = 0;
    rig.tx.post(frame, {}, stale);
    expect_state(SVIO_QERR_NONE);
    EXPECT_EQ(rig.sent().back(), frame);
}

TEST_F(Checksum, IsInsertedOnceWhereThePortIsBlocked) {
    Packet packet;
    rig.push->unblock(1);
    for (uint32_t n = 0; n < 3; n++)
        rig.tx.post(packet.make(n), {}, packet.csum());
    for (unsigned n = 0; n < 4; n++) {
        rig.work();
        rig.push->unblock(1);
    }
    EXPECT_EQ(rig.sent(), (std::vector<Frame>{packet.finished(0), packet.finished(1), packet.finished(2)}));
}

TEST_F(Checksum, OfAFrameThatIsLoopedBack) {
    Packet packet;
    Frame frame = packet.make(), wanted = packet.finished();
    std::copy(vif_mac.begin(), vif_mac.end(), frame.begin());
    std::copy(vif_mac.begin(), vif_mac.end(), wanted.begin());
    rig.reset();
    rig.bring_up(64, 2048, Vif::features & ~SVIO_F_CSUM_RX); // a driver that wants it done
    rig.rx.post(2);
    Offload offload = packet.csum();
    offload.flags |= SVIO_ENTRY_LOOP;
    rig.tx.post(frame, {}, offload);
    rig.work();
    EXPECT_EQ(rig.rx.take(SVIO_ENTRY_LOOP), wanted);
}

TEST_F(Checksum, IsStillToBeDoneAfterAMigration) {
    Packet packet;
    rig.push->unblock(0);
    for (uint32_t n = 0; n < 3; n++)
        rig.tx.post(packet.make(n), {}, packet.csum());
    rig.work();
    EXPECT_EQ(rig.tx.done(), 3u);
    Rig there;
    std::vector<uint8_t> state = there.take_over(rig);
    there.work();
    EXPECT_EQ(there.sent(), (std::vector<Frame>{packet.finished(0), packet.finished(1), packet.finished(2)}));

    // A field that points outside of its frame is refused, as is an unknown flag.
    for (auto [at, value] : {std::pair{9, 0x40}, {9, 0x01}, {14, 0xff}, {16, 0xff}}) {
        StateBuilder out;
        for (const StateSection &section : parse_state(state)) {
            std::vector<uint8_t> payload(section.payload.begin(), section.payload.end());
            if (section.tag == state_tag("SENT")) {
                payload.at(9) |= SVIO_ENTRY_CSUM; // which a port that was offered it has had done
                payload.at(static_cast<size_t>(at)) |= static_cast<uint8_t>(value);
            }
            if (section.tag != end_tag)
                out.add(section.tag, section.version, payload, section.flags);
        }
        std::lock_guard guard(there.lock);
        EXPECT_THROW(there.board->load(out.finish()), StateError) << at;
    }
    // One of before offloads is taken.
    StateBuilder out;
    Frame plain = make_frame(80, 1, peer_mac, vif_mac);
    for (const StateSection &section : parse_state(state)) {
        if (section.tag != end_tag && section.tag != state_tag("SENT"))
            out.add(section.tag, section.version, section.payload, section.flags);
    }
    StateWriter old;
    old(uint32_t{0});
    old(uint32_t{0});
    old(false);
    old.raw(plain);
    out.add(state_tag("SENT"), 1, old.bytes);
    {
        std::lock_guard guard(there.lock);
        there.board->load(out.finish());
    }
    there.work();
    EXPECT_EQ(there.sent().back(), plain);
}
