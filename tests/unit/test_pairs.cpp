// SPDX-License-Identifier: GPL-2.0-or-later
/// Several queue pairs: which pair a frame goes to, fairness, pairs that stand still, and hostile set-ups.
#include "driver.hpp"
#include "native_port.hpp"
#include "temp_folder.hpp"

#include <map>
#include <set>

using namespace svio;
using namespace svio::test;

namespace {

constexpr unsigned pair_count = 4;

/// A UDP datagram over IPv4; `flow` is its source port.
Frame datagram(uint16_t flow, uint64_t sequence, size_t length = 80) {
    Frame frame = make_frame(length, sequence);
    const uint8_t header[] = {0x08,
                              0,
                              0x45,
                              0,
                              0,
                              static_cast<uint8_t>(length - 14),
                              0,
                              0,
                              0,
                              0,
                              64,
                              17,
                              0,
                              0,
                              10,
                              0,
                              0,
                              2,
                              10,
                              0,
                              0,
                              1,
                              static_cast<uint8_t>(flow >> 8),
                              static_cast<uint8_t>(flow),
                              0,
                              9};
    std::copy(std::begin(header), std::end(header), frame.begin() + 12);
    for (size_t i = 0; i < 8; i++)
        frame[40 + i] = static_cast<uint8_t>(sequence >> (8 * i));
    return frame;
}

uint64_t number_of(const Frame &frame) {
    uint64_t sequence = 0;
    std::memcpy(&sequence, frame.data() + 40, 8);
    return sequence;
}

RigOptions with_pairs(unsigned cores = 1) {
    RigOptions options{.cores = cores, .ram = size_t{8} << 20};
    options.vif.queue_pairs = pair_count;
    return options;
}

/// The rig with all pairs set up: pair n signals by vector n + 1.
class PairsRig : public Rig {
  public:
    explicit PairsRig(const RigOptions &options = with_pairs(), std::unique_ptr<Port> port = nullptr)
        : Rig(options, std::move(port)) {}

    void start(unsigned n, uint32_t size = 16, uint32_t buffer_size = 512) {
        lay_out(send[n], size, buffer_size);
        lay_out(receive[n], size, buffer_size);
        program_pair(n, SVIO_SEND, send[n]);
        program_pair(n, SVIO_RECEIVE, receive[n]);
        send[n].set_signal_at(send[n].next - 1);
        receive[n].set_signal_at(receive[n].next - 1);
    }
    void program_pair(unsigned n, unsigned direction, const Ring &ring) {
        auto set = [&](uint32_t reg, uint64_t value) {
            write(SVIO_QUEUE_REG(n, direction, reg), static_cast<uint32_t>(value));
        };
        set(SVIO_QUEUE_BASE_LO, ring.base);
        set(SVIO_QUEUE_BASE_HI, ring.base >> 32);
        set(SVIO_QUEUE_EVENT_LO, ring.event);
        set(SVIO_QUEUE_EVENT_HI, ring.event >> 32);
        set(SVIO_QUEUE_SIZE, ring.size);
        set(SVIO_QUEUE_VECTOR, n + 1);
        set(SVIO_QUEUE_CONTROL, SVIO_QUEUE_ENABLE);
    }
    void stop_receive(unsigned n) { write(SVIO_QUEUE_REG(n, SVIO_RECEIVE, SVIO_QUEUE_CONTROL), 0); }
    uint32_t state(unsigned n, unsigned direction) {
        return read(SVIO_QUEUE_REG(n, direction, SVIO_QUEUE_STATE));
    }
    void bring_up_all(uint64_t features = Vif::features) {
        negotiate(features);
        data = allocate(4096);
        write(SVIO_REG_EVENT_VECTOR, event_vector);
        for (unsigned n = 0; n < pair_count; n++) {
            start(n);
            receive[n].post_all();
        }
        write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
        EXPECT_EQ(use(pair_count), SVIO_ST_OK);
    }
    uint16_t run(svio_command command) {
        command.slot = SVIO_SLOT_SELF;
        run_mailbox(
            command, [this](uint32_t offset) { return read(offset); },
            [this](uint32_t offset, uint32_t value) { write(offset, value); });
        return command.status;
    }
    uint16_t use(uint32_t count) {
        svio_command command{};
        command.opcode = SVIO_OP_QUEUE_PAIRS;
        command.u.queue_pairs.count = count;
        return run(command);
    }
    uint16_t set_rss(const std::vector<uint8_t> &table, const std::vector<uint8_t> &key = {},
                     uint32_t types = SVIO_RSS_TYPES) {
        std::vector<uint8_t> bytes = key;
        bytes.insert(bytes.end(), table.begin(), table.end());
        ram.put(data, bytes.data(), bytes.size());
        svio_command command{};
        command.opcode = SVIO_OP_RSS;
        command.data_addr = data;
        command.data_len = static_cast<uint32_t>(bytes.size());
        command.u.rss.hash_types = types;
        command.u.rss.key_len = static_cast<uint32_t>(key.size());
        command.u.rss.table_len = static_cast<uint32_t>(table.size());
        return run(command);
    }
    unsigned pair_of(const Frame &frame) { return vif->route(frame).pair; }
    /// A flow that goes to this pair.
    uint16_t flow_of(unsigned pair, uint16_t first = 1000) {
        for (uint16_t flow = first;; flow++) {
            if (pair_of(datagram(flow, 0)) == pair)
                return flow;
        }
    }
    /// A frame comes in by whatever wire there is.
    void arrive(const Frame &frame) {
        if (polled)
            polled->incoming.push_back(frame);
        else
            offer(frame);
    }
    size_t held() const { return polled ? polled->incoming.size() : push->held.size(); }

    std::array<SendRing, pair_count> send;
    std::array<ReceiveRing, pair_count> receive;
    uint64_t data = 0;
};

std::unique_ptr<PairsRig> pairs_rig(bool native, const RigOptions &options = with_pairs()) {
    return std::make_unique<PairsRig>(options, native ? std::make_unique<PolledPort>() : nullptr);
}

/// On both kinds of port.
class Pairs : public testing::TestWithParam<bool> {
  protected:
    void SetUp() override { rig->bring_up_all(); }
    std::unique_ptr<PairsRig> rig = pairs_rig(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Port, Pairs, testing::Values(false, true),
                         [](const auto &info) { return info.param ? "native" : "netdev"; });

} // namespace

TEST_P(Pairs, FlowsAreSpreadAndKeepTheirOrder) {
    std::map<uint16_t, std::vector<uint64_t>> by_flow;
    std::array<std::set<uint16_t>, pair_count> flows;
    for (uint64_t n = 0; n < 400; n++) {
        auto flow = static_cast<uint16_t>(5000 + n % 40);
        rig->arrive(datagram(flow, n));
        rig->work();
        for (unsigned p = 0; p < pair_count; p++) {
            while (rig->receive[p].ready()) {
                uint32_t at = rig->receive[p].clean;
                svio_entry entry = rig->receive[p].entry(at);
                Frame frame(rig->ram.at(entry.addr), rig->ram.at(entry.addr) + entry.len);
                EXPECT_EQ(frame, datagram(flow, n));
                EXPECT_TRUE(entry.flags & SVIO_ENTRY_HASH);
                EXPECT_EQ(entry.hash_type, SVIO_HASH_UDP4);
                EXPECT_EQ(entry.hash, rig->vif->rss().hash(frame).value);
                EXPECT_EQ(entry.hash % SVIO_RSS_TABLE_MAX % pair_count, p);
                by_flow[flow].push_back(number_of(frame));
                flows[p].insert(flow);
                rig->receive[p].clean++;
                rig->receive[p].post_one(512);
            }
        }
    }
    EXPECT_EQ(rig->held(), 0u);
    ASSERT_EQ(by_flow.size(), 40u);
    for (auto &[flow, numbers] : by_flow) {
        EXPECT_EQ(numbers.size(), 10u) << flow;
        EXPECT_TRUE(std::is_sorted(numbers.begin(), numbers.end())) << flow;
    }
    size_t sum = 0;
    for (auto &on_pair : flows) {
        EXPECT_GE(on_pair.size(), 1u);
        sum += on_pair.size();
    }
    EXPECT_EQ(sum, 40u) << "a flow was seen on two pairs";
}

TEST_P(Pairs, WithoutAHashToPairZero) {
    Frame frame = make_frame(60, 7);
    rig->arrive(frame);
    rig->work();
    EXPECT_EQ(rig->receive[0].take(), frame); // take() allows no offload flag
}

TEST_P(Pairs, SignalsOfTheirOwn) {
    for (unsigned p = 0; p < pair_count; p++) {
        rig->receive[p].set_signal_at(0);
        uint64_t before = rig->signals.count(p + 1), all = rig->signals.total();
        rig->arrive(datagram(rig->flow_of(p), p));
        rig->work();
        EXPECT_EQ(rig->signals.count(p + 1), before + 1);
        EXPECT_EQ(rig->signals.total(), all + 1);
    }
}

TEST_P(Pairs, AFullPairIsWaitedForAWhile) {
    uint16_t slow = rig->flow_of(1), other = rig->flow_of(2);
    for (uint64_t n = 0; n < 17; n++)
        rig->arrive(datagram(slow, n));
    rig->arrive(datagram(other, 99));
    rig->work();
    EXPECT_TRUE(rig->sleep());
    // The 17th finds no buffer, and what is behind it waits.
    EXPECT_EQ(rig->held(), 2u);
    EXPECT_FALSE(rig->receive[2].ready());
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NO_BUFFER), 0u);
    // Refilled in time nothing is lost.
    std::vector<Frame> got = rig->receive[1].take_all_hashed();
    uint32_t from = rig->receive[1].next;
    rig->receive[1].post_all();
    EXPECT_TRUE(rig->receive[1].must_ring(from));
    rig->write(SVIO_BELL(1, SVIO_RECEIVE), 1);
    rig->work();
    for (Frame &frame : rig->receive[1].take_all_hashed())
        got.push_back(frame);
    ASSERT_EQ(got.size(), 17u);
    for (uint64_t n = 0; n < got.size(); n++)
        EXPECT_EQ(got[n], datagram(slow, n));
    EXPECT_EQ(rig->receive[2].take_all_hashed(), std::vector<Frame>{datagram(other, 99)});
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NO_BUFFER), 0u);
}

TEST_P(Pairs, APairThatIsNeverRefilledLosesItsFramesAlone) {
    uint16_t dead = rig->flow_of(3);
    for (uint64_t n = 0; n < 20; n++)
        rig->arrive(datagram(dead, n));
    rig->work();
    EXPECT_TRUE(rig->sleep());
    EXPECT_EQ(rig->held(), 4u);
    rig->clock.forward(Vif::patience_ns);
    rig->work();
    EXPECT_EQ(rig->held(), 0u);
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NO_BUFFER), 4u);
    // From now on the others are not held up at all, though no time passes.
    for (unsigned p = 0; p < 3; p++) {
        for (uint64_t n = 0; n < 8; n++) {
            rig->arrive(datagram(dead, 100 + n));
            rig->arrive(datagram(rig->flow_of(p), n));
        }
        rig->work();
        EXPECT_EQ(rig->held(), 0u);
        EXPECT_EQ(rig->receive[p].take_all_hashed().size(), 8u);
    }
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NO_BUFFER), 28u);
    // It is taken in again with its first buffer, and has the same patience as before.
    EXPECT_EQ(rig->receive[3].take_all_hashed().size(), 16u);
    rig->receive[3].post(1);
    rig->arrive(datagram(dead, 200));
    rig->arrive(datagram(dead, 201));
    rig->work();
    EXPECT_EQ(rig->receive[3].take_all_hashed(), std::vector<Frame>{datagram(dead, 200)});
    EXPECT_EQ(rig->held(), 1u);
}

TEST_P(Pairs, AStoppedPairDropsAtOnce) {
    rig->stop_receive(2);
    for (uint64_t n = 0; n < 40; n++)
        rig->arrive(datagram(rig->flow_of(2), n));
    rig->arrive(datagram(rig->flow_of(1), 1));
    rig->work();
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NOT_RUNNING), 40u);
    EXPECT_EQ(rig->receive[1].take_all_hashed().size(), 1u);
    // Stopped while the wire is held back for it.
    uint16_t full = rig->flow_of(3);
    for (uint64_t n = 0; n < 18; n++)
        rig->arrive(datagram(full, n));
    rig->work();
    EXPECT_EQ(rig->held(), 2u);
    rig->stop_receive(3);
    rig->work();
    EXPECT_EQ(rig->held(), 0u);
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NOT_RUNNING), 42u);
}

TEST_P(Pairs, OnePairInUseIsWaitedForAsLongAsItTakes) {
    ASSERT_EQ(rig->use(1), SVIO_ST_OK);
    for (uint64_t n = 0; n < 17; n++)
        rig->arrive(datagram(static_cast<uint16_t>(100 + n), n));
    rig->work();
    EXPECT_EQ(rig->held(), 1u);
    rig->clock.forward(100 * Vif::patience_ns);
    rig->work();
    EXPECT_EQ(rig->held(), 1u);
    EXPECT_EQ(rig->receive[0].take_all_hashed().size(), 16u);
}

TEST_P(Pairs, FewerPairsWhileTheWireIsHeldBack) {
    uint16_t full = rig->flow_of(3);
    for (uint64_t n = 0; n < 18; n++)
        rig->arrive(datagram(full, n));
    rig->work();
    EXPECT_EQ(rig->held(), 2u);
    ASSERT_EQ(rig->use(1), SVIO_ST_OK);
    rig->work();
    EXPECT_EQ(rig->held(), 0u);
    EXPECT_EQ(rig->receive[0].take_all_hashed().size(), 2u);
}

TEST_P(Pairs, AnErrorStaysWithItsPair) {
    uint32_t at = rig->receive[1].clean;
    rig->receive[1].fill(at, 0x10, 512); // no RAM
    rig->arrive(datagram(rig->flow_of(1), 1));
    rig->arrive(datagram(rig->flow_of(2), 2));
    rig->work();
    EXPECT_EQ(rig->state(1, SVIO_RECEIVE), uint32_t{SVIO_QUEUE_ERROR | SVIO_QERR_DMA << 8});
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_QUEUE_ERROR), 1u);
    EXPECT_EQ(rig->receive[2].take_all_hashed().size(), 1u);
    rig->send[1].post(make_frame(60, 3));
    rig->work();
    EXPECT_EQ(rig->sent().back(), make_frame(60, 3));
}

TEST(PairsBoard, WithoutTheFeatureAllGoesToPairZero) {
    auto rig = pairs_rig(false);
    rig->bring_up_all(Vif::features & ~SVIO_F_RX_HASH);
    for (uint16_t flow = 0; flow < 10; flow++)
        rig->arrive(datagram(flow, flow));
    rig->work();
    EXPECT_EQ(rig->receive[0].take_all().size(), 10u); // without hash flags
    // Nothing waits behind a frame for another pair, so it may wait for ever.
    for (uint64_t n = 0; n < 17; n++)
        rig->arrive(datagram(1, n));
    rig->clock.forward(100 * Vif::patience_ns);
    rig->work();
    EXPECT_EQ(rig->held(), 11u);
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NO_BUFFER), 0u);
}

// Where a core delivers; a netdev's frames are signalled as they come.
TEST(PairsBoard, ModerationHoldsEachPairBack) {
    auto rig = pairs_rig(true);
    rig->bring_up_all();
    for (unsigned p : {1u, 2u})
        rig->write(SVIO_QUEUE_REG(p, SVIO_RECEIVE, SVIO_QUEUE_MODERATION), 2u << 16 | 0xffff);
    for (unsigned p : {1u, 2u}) {
        rig->receive[p].set_signal_at(0);
        rig->arrive(datagram(rig->flow_of(p), 0));
    }
    rig->work();
    EXPECT_EQ(rig->signals.total(), 0u);
    // What comes for another pair does not make the core forget these.
    rig->arrive(datagram(rig->flow_of(0), 0));
    rig->work();
    rig->arrive(datagram(rig->flow_of(2), 1));
    rig->work();
    EXPECT_EQ(rig->signals.count(3), 1u);
    EXPECT_EQ(rig->signals.count(2), 0u);
    rig->clock.forward(70'000'000);
    rig->work();
    EXPECT_EQ(rig->signals.count(2), 1u);
}

TEST(PairsBoard, RssCommand) {
    auto rig = pairs_rig(false);
    rig->bring_up_all();
    const std::vector<uint8_t> key(SVIO_RSS_KEY_LEN, 0x37);
    // One flow under the default key, the table all on pair 2.
    EXPECT_EQ(rig->set_rss({2, 2, 2, 2}), SVIO_ST_OK);
    EXPECT_EQ(rig->pair_of(datagram(1, 1)), 2u);
    uint32_t before = rig->vif->rss().hash(datagram(1, 1)).value;
    EXPECT_EQ(rig->set_rss({}, key), SVIO_ST_OK);
    EXPECT_NE(rig->vif->rss().hash(datagram(1, 1)).value, before);
    EXPECT_EQ(rig->vif->rss().table().size(), 4u) << "a key leaves the table alone";
    EXPECT_EQ(rig->set_rss({}, {}, 1u << SVIO_HASH_TCP4), SVIO_ST_OK);
    EXPECT_EQ(rig->pair_of(datagram(1, 1)), 0u) << "no hash for UDP now";
    // Refused, and nothing of it done.
    EXPECT_EQ(rig->set_rss({0, 1, 2}), SVIO_ST_INVALID);
    EXPECT_EQ(rig->set_rss({0, pair_count}), SVIO_ST_INVALID);
    EXPECT_EQ(rig->set_rss({0, 0xff}, key), SVIO_ST_INVALID);
    EXPECT_EQ(rig->set_rss(std::vector<uint8_t>(256, 0)), SVIO_ST_INVALID);
    EXPECT_EQ(rig->set_rss({0}, std::vector<uint8_t>(39, 1)), SVIO_ST_INVALID);
    EXPECT_EQ(rig->set_rss({0}, std::vector<uint8_t>(41, 1)), SVIO_ST_INVALID);
    EXPECT_EQ(rig->set_rss({0}, {}, 1), SVIO_ST_INVALID);
    EXPECT_EQ(rig->set_rss({0}, {}, 0x80), SVIO_ST_INVALID);
    EXPECT_EQ(rig->vif->rss().types(), 1u << SVIO_HASH_TCP4);
    EXPECT_EQ(rig->vif->rss().table().size(), 4u);
    svio_command command{};
    command.opcode = SVIO_OP_RSS;
    command.u.rss.table_len = 8;
    command.data_addr = rig->data;
    command.data_len = 7;
    EXPECT_EQ(rig->run(command), SVIO_ST_NO_SPACE);
    command.data_len = 8;
    command.data_addr = 0x40;
    EXPECT_EQ(rig->run(command), SVIO_ST_DMA);
    command.u.rss.table_len = 0x80000000;
    command.u.rss.key_len = 0x80000000;
    EXPECT_EQ(rig->run(command), SVIO_ST_INVALID);
    EXPECT_EQ(rig->vif->rss().table().size(), 4u);
}

TEST(PairsBoard, QueuePairsCommand) {
    auto rig = pairs_rig(false);
    EXPECT_EQ(rig->read(SVIO_REG_QUEUE_PAIRS), pair_count);
    EXPECT_EQ(rig->vif->rss().pairs(), 1u) << "a driver that asks for nothing has one";
    rig->bring_up_all();
    for (uint32_t count : {0u, pair_count + 1, 0xffffffffu})
        EXPECT_EQ(rig->use(count), SVIO_ST_INVALID);
    EXPECT_EQ(rig->vif->rss().pairs(), pair_count);
    // The table is spread anew, so no entry points at a pair that is not in use.
    EXPECT_EQ(rig->set_rss({3, 3}), SVIO_ST_OK);
    EXPECT_EQ(rig->use(2), SVIO_ST_OK);
    for (uint16_t flow = 0; flow < 100; flow++)
        EXPECT_LT(rig->pair_of(datagram(flow, 0)), 2u);
    EXPECT_EQ(rig->set_rss({1, 2}), SVIO_ST_INVALID);
    rig->reset();
    EXPECT_EQ(rig->vif->rss().pairs(), 1u);
    EXPECT_EQ(rig->vif->rss().types(), uint32_t{SVIO_RSS_TYPES});
}

TEST(PairsBoard, AStateKnowsHowFramesAreSpread) {
    auto rig = pairs_rig(false);
    rig->bring_up_all();
    ASSERT_EQ(rig->set_rss({2, 2, 0, 1}, std::vector<uint8_t>(SVIO_RSS_KEY_LEN, 0x37)), SVIO_ST_OK);
    uint16_t flow = rig->flow_of(1);
    FlowHash hash = rig->vif->rss().hash(datagram(flow, 0));
    std::lock_guard guard(rig->lock);
    std::vector<uint8_t> state = rig->board->save();
    rig->vif->reset();
    EXPECT_EQ(rig->vif->rss().pairs(), 1u);
    rig->board->load(state);
    EXPECT_EQ(rig->vif->rss().pairs(), pair_count);
    EXPECT_EQ(rig->vif->rss().table().size(), 4u);
    EXPECT_EQ(rig->vif->rss().hash(datagram(flow, 0)).value, hash.value);
    EXPECT_EQ(rig->pair_of(datagram(flow, 0)), 1u);
    rig->push->offer(datagram(flow, 5));
    EXPECT_EQ(rig->receive[1].take_all_hashed(), std::vector<Frame>{datagram(flow, 5)});
}

TEST(PairsBoard, BusySendQueuesShareTheCore) {
    for (bool native : {false, true}) {
        auto rig = pairs_rig(native);
        rig->bring_up_all();
        // Every queue full all the time; each message says whose it is.
        std::array<uint64_t, pair_count> posted{};
        auto fill = [&] {
            for (unsigned p = 0; p < pair_count; p++) {
                while (rig->send[p].room() > 0)
                    rig->send[p].post(make_frame(100, p << 16 | posted[p]++));
            }
        };
        for (unsigned round = 0; round < 40; round++) {
            fill();
            rig->board->core(0).round();
        }
        std::array<uint64_t, pair_count> count{};
        for (const Frame &frame : rig->sent()) {
            uint64_t sequence = sequence_of(frame), p = sequence >> 16;
            EXPECT_EQ(sequence & 0xffff, count[p]++) << "out of order on pair " << p;
        }
        auto [least, most] = std::minmax_element(count.begin(), count.end());
        EXPECT_GT(*least, 100u);
        EXPECT_LE(*most, *least * 5 / 4);
    }
}

TEST(PairsBoard, LargeMessagesDoNotShutAnotherQueueOut) {
    RigOptions options = with_pairs();
    options.ram = size_t{64} << 20;
    auto rig = pairs_rig(true, options);
    rig->bring_up_all();
    for (unsigned p = 0; p < pair_count; p++) {
        rig->write(SVIO_QUEUE_REG(p, SVIO_SEND, SVIO_QUEUE_CONTROL), 0);
        rig->lay_out(rig->send[p], 16, 60000);
        rig->program_pair(p, SVIO_SEND, rig->send[p]);
    }
    for (unsigned round = 0; round < 40; round++) {
        for (auto &ring : rig->send) {
            while (ring.room() > 0)
                ring.post(make_frame(60000, 1));
        }
        rig->board->core(0).round();
    }
    for (unsigned p = 0; p < pair_count; p++)
        EXPECT_GE(rig->vif->pair(p).send.counters.get(SVIO_QSTAT_MESSAGES), 10u) << p;
}

TEST(PairsHostile, TheSameMemoryForTwoPairs) {
    for (bool native : {false, true}) {
        auto rig = pairs_rig(native);
        rig->bring_up_all();
        // Pair 1 is given the rings and event blocks of pair 0.
        for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE})
            rig->write(SVIO_QUEUE_REG(1, direction, SVIO_QUEUE_CONTROL), 0);
        rig->program_pair(1, SVIO_SEND, rig->send[0]);
        rig->program_pair(1, SVIO_RECEIVE, rig->receive[0]);
        for (uint64_t n = 0; n < 40; n++) {
            rig->arrive(datagram(rig->flow_of(0), n));
            rig->arrive(datagram(rig->flow_of(1), n));
            rig->send[0].post_raw(rig->send[0].buffer_at(0), 60);
            rig->work();
        }
        // Each of the two is waited for once.
        for (unsigned n = 0; n < 2; n++) {
            rig->clock.forward(Vif::patience_ns);
            rig->work();
        }
        EXPECT_EQ(rig->held(), 0u);
        // Whatever became of those, the others work, and a reset mends all.
        rig->arrive(datagram(rig->flow_of(2), 5));
        rig->work();
        EXPECT_EQ(rig->receive[2].take_all_hashed(), std::vector<Frame>{datagram(rig->flow_of(2), 5)});
        rig->reset();
        rig->bring_up_all();
        rig->arrive(datagram(rig->flow_of(1), 6));
        rig->work();
        EXPECT_EQ(rig->receive[1].take_all_hashed().size(), 1u);
    }
}

TEST(PairsHostile, HalfConfiguredPairs) {
    auto rig = pairs_rig(true);
    rig->bring_up_all();
    // Pair 1 sends only, pair 2 receives only, pair 3 was given nonsense.
    rig->stop_receive(1);
    rig->write(SVIO_QUEUE_REG(2, SVIO_SEND, SVIO_QUEUE_CONTROL), 0);
    for (unsigned direction : {SVIO_SEND, SVIO_RECEIVE}) {
        rig->write(SVIO_QUEUE_REG(3, direction, SVIO_QUEUE_CONTROL), 0);
        rig->write(SVIO_QUEUE_REG(3, direction, SVIO_QUEUE_SIZE), 17);
        rig->write(SVIO_QUEUE_REG(3, direction, SVIO_QUEUE_CONTROL), 1);
        EXPECT_EQ(rig->state(3, direction), uint32_t{SVIO_QUEUE_ERROR | SVIO_QERR_CONFIG << 8});
    }
    for (unsigned p = 0; p < pair_count; p++) {
        rig->arrive(datagram(rig->flow_of(p), p));
        rig->send[p].post(make_frame(60, p));
        rig->write(SVIO_BELL(p, SVIO_SEND), 1);
        rig->write(SVIO_BELL(p, SVIO_RECEIVE), 1);
    }
    rig->work();
    EXPECT_TRUE(rig->sleep());
    EXPECT_EQ(rig->held(), 0u);
    EXPECT_EQ(rig->receive[0].take_all_hashed().size(), 1u);
    EXPECT_EQ(rig->receive[2].take_all_hashed().size(), 1u);
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NOT_RUNNING), 1u);
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_QUEUE_ERROR), 1u);
    EXPECT_EQ(rig->sent(), (std::vector<Frame>{make_frame(60, 0), make_frame(60, 1)}));
}

// ---- with threads ----

namespace {

RigOptions two_threads() {
    RigOptions options = with_pairs(2);
    options.threads = true;
    options.manual_clock = false;
    options.poll_us = 50;
    return options;
}

/// A driver thread for each pair sends as fast as it can; `count` frames in the end.
class Senders {
  public:
    static constexpr uint64_t messages = 3000, count = messages * pair_count;

    explicit Senders(PairsRig &rig) {
        for (unsigned p = 0; p < pair_count; p++)
            threads_.emplace_back([&rig, p] { run(rig, p); });
    }
    ~Senders() {
        for (auto &thread : threads_)
            thread.join();
    }
    /// Each pair's frames are there, in order, and each core has picked up its half.
    static void check(const PairsRig &rig, const std::vector<Frame> &frames) {
        std::array<uint64_t, pair_count> next{};
        for (const Frame &frame : frames) {
            uint64_t sequence = sequence_of(frame);
            ASSERT_EQ(frame, make_frame(100, sequence));
            ASSERT_EQ(sequence & 0xffffffff, next[sequence >> 32]++);
        }
        EXPECT_EQ(frames.size(), count);
        for (unsigned core : {0u, 1u})
            EXPECT_EQ(rig.core_stat(CorePickedUp, core), count / 2);
    }

  private:
    static void run(PairsRig &rig, unsigned p) {
        SendRing &ring = rig.send[p];
        for (uint64_t n = 0; n < messages;) {
            if (ring.room() == 0) {
                std::this_thread::yield();
                continue;
            }
            uint32_t from = ring.next;
            ring.post(make_frame(100, uint64_t{p} << 32 | n++));
            if (ring.must_ring(from))
                rig.write(SVIO_BELL(p, SVIO_SEND), 1);
        }
    }
    std::vector<std::thread> threads_;
};

} // namespace

TEST(PairsThreads, EachPairIsSentByItsCore) {
    auto rig = pairs_rig(false, two_threads());
    rig->bring_up_all();
    { Senders senders(*rig); }
    EXPECT_TRUE(eventually([&] { return rig->push->sent_count == Senders::count; }));
    Senders::check(*rig, rig->sent());
    rig->board->stop();
}

TEST(PairsThreads, TwoCoresSendOnOneNativePort) {
    TempFolder folder;
    std::string error;
    auto peer = open_native_port("dgram:" + (folder / "b") + "," + (folder / "a"), error);
    auto port = open_native_port("dgram:" + (folder / "a") + "," + (folder / "b"), error);
    ASSERT_TRUE(peer && port) << error;
    PairsRig rig(two_threads(), std::move(port));
    rig.bring_up_all();
    std::vector<Frame> frames;
    {
        Senders senders(rig);
        EXPECT_TRUE(eventually([&] {
            for (; peer->fill(); peer->pop())
                frames.emplace_back(peer->front().begin(), peer->front().end());
            return frames.size() >= Senders::count;
        }));
    }
    Senders::check(rig, frames);
    rig.board->stop();
}

TEST(PairsBoard, AFrameInTheBacklogOfACoreWhosePairIsNoLongerInUse) {
    auto rig = pairs_rig(false, with_pairs(2));
    rig->bring_up_all();
    for (uint64_t n = 0; n < 16; n++)
        rig->arrive(datagram(rig->flow_of(0), n));
    rig->work();
    {
        std::lock_guard busy(rig->vif->receive_queue(1).mutex);
        rig->arrive(datagram(rig->flow_of(1), 99));
    }
    EXPECT_TRUE(rig->board->core(1).has_backlog());
    uint16_t flow = rig->flow_of(1);
    EXPECT_EQ(rig->use(1), SVIO_ST_OK);
    rig->work();
    EXPECT_TRUE(rig->sleep(0) && rig->sleep(1));
    EXPECT_EQ(rig->receive[0].take_all_hashed().size(), 16u);
    uint32_t from = rig->receive[0].next;
    rig->receive[0].post(1);
    EXPECT_TRUE(rig->receive[0].must_ring(from));
    // The bell is one of pair 0, which core 0 serves; core 1 has the frame.
    uint64_t polls = rig->core_stat(CoreEmptyPolls, 1);
    rig->write(SVIO_BELL(0, SVIO_RECEIVE), 1);
    EXPECT_TRUE(rig->board->core(1).round());
    EXPECT_EQ(rig->core_stat(CoreEmptyPolls, 1), polls);
    EXPECT_EQ(rig->receive[0].take_all_hashed(), std::vector<Frame>{datagram(flow, 99)});
}

TEST(PairsThreads, ADeadPairOnANetdevTimesOutThoughNothingElseHappens) {
    RigOptions options = with_pairs(2);
    options.threads = true;
    options.manual_clock = false;
    auto rig = pairs_rig(false, options);
    rig->bring_up_all();
    for (unsigned p : {1u, 2u}) {
        uint16_t dead = rig->flow_of(p);
        for (uint64_t n = 0; n < 20; n++)
            rig->arrive(datagram(dead, n));
        rig->arrive(datagram(rig->flow_of(0), p));
        auto held = [&] {
            std::lock_guard guard(rig->lock);
            return rig->push->held.size();
        };
        EXPECT_TRUE(eventually([&] { return held() == 0; }));
        EXPECT_TRUE(eventually([&] { return rig->receive[0].ready(); }));
        EXPECT_EQ(rig->receive[0].take_all_hashed(), std::vector<Frame>{datagram(rig->flow_of(0), p)});
    }
    EXPECT_EQ(rig->stat(SVIO_STAT_DROP_RX_NO_BUFFER), 8u);
    rig->board->stop();
}
