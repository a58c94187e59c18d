// SPDX-License-Identifier: GPL-2.0-or-later
/// Management's commands and what it lets guests do (SPEC.md 8.1, 8.2), through the JSON door, which has all
/// of them, and the registers that show what came of it.
#include "managed_board.hpp"

#include <set>

using namespace svio;
using namespace svio::test;

namespace {

struct Figures {
    uint32_t min, max, weight;
    bool operator==(const Figures &) const = default;
};

uint16_t request(ManagedBoard &board, unsigned slot, Figures &figures) {
    svio_command command{};
    command.opcode = SVIO_OP_QOS_REQUEST;
    command.u.qos.min_mbps = figures.min;
    command.u.qos.max_mbps = figures.max;
    command.u.qos.weight = figures.weight;
    uint16_t status = board.mailbox(slot, command);
    figures = {command.u.qos.min_mbps, command.u.qos.max_mbps, command.u.qos.weight};
    return status;
}

Figures in_force(ManagedBoard &board, unsigned slot) {
    const VifSettings &settings = board.vif(slot).settings();
    return {settings.min_mbps, settings.max_mbps, settings.weight};
}

uint16_t rx_mode(ManagedBoard &board, unsigned slot, uint32_t flags) {
    svio_command command{};
    command.opcode = SVIO_OP_RX_MODE;
    command.u.rx_mode.flags = flags;
    return board.mailbox(slot, command);
}

uint16_t add_group(ManagedBoard &board, unsigned slot, uint8_t op = SVIO_MC_ADD) {
    svio_command command{};
    command.opcode = SVIO_OP_MULTICAST;
    command.u.multicast.op = op;
    command.u.multicast.count = 1;
    command.u.multicast.mac[0][0] = 0x33;
    return board.mailbox(slot, command);
}

uint16_t vlan_filter(ManagedBoard &board, unsigned slot, uint16_t vid, uint8_t add = 1) {
    svio_command command{};
    command.opcode = SVIO_OP_VLAN_FILTER;
    command.u.vlan_filter.vid = vid;
    command.u.vlan_filter.add = add;
    return board.mailbox(slot, command);
}

std::string set(unsigned slot, const std::string &what) {
    return R"({"op":"vif-set","slot":)" + std::to_string(slot) + R"(,"set":)" + what + "}";
}

} // namespace

TEST(Management, AtFirstThereIsThePhysicalFunctionsVifAlone) {
    ManagedBoard board;
    Json vifs = board.ask(R"({"op":"vif-list"})").at("vifs");
    ASSERT_EQ(vifs.size(), 1u);
    EXPECT_EQ(vifs[0].at("id"), 1);
    EXPECT_EQ(vifs[0].at("slot"), 0);
    EXPECT_EQ(vifs[0].at("mac"), "52:54:00:12:34:56");
    EXPECT_EQ(vifs[0].at("trust"), true);
    EXPECT_EQ(vifs[0].at("spoof_check"), false);
    EXPECT_EQ(vifs[0].at("automatic"), false);
    for (unsigned slot = 1; slot <= 4; slot++) {
        EXPECT_EQ(board.read(slot, SVIO_REG_VIF_KIND), uint32_t{SVIO_KIND_NONE});
        EXPECT_EQ(board.id(slot), 0u);
        EXPECT_EQ(board.permanent_mac(slot), Mac{});
    }
}

TEST(Management, CreateFillsTheSlotWithDefaults) {
    ManagedBoard board;
    Json answer = board.ask(R"({"op":"vif-create","slot":2,"tag":"a"})");
    EXPECT_EQ(answer.at("status"), "OK");
    EXPECT_EQ(answer.at("tag"), "a");
    EXPECT_EQ(answer.at("id"), 2);
    const Json &vif = answer.at("vif");
    EXPECT_EQ(vif.at("slot"), 2);
    EXPECT_EQ(vif.at("mac"), "52:56:00:12:34:56") << "derived: the second byte changed by the slot";
    EXPECT_EQ(vif.at("permanent_mac"), vif.at("mac"));
    EXPECT_EQ(vif.at("vlan"), 0);
    EXPECT_EQ(vif.at("trust"), false);
    EXPECT_EQ(vif.at("spoof_check"), true);
    EXPECT_EQ(vif.at("allow_promisc"), false);
    EXPECT_EQ(vif.at("allow_multicast"), true);
    EXPECT_EQ(vif.at("guest_tagging"), true);
    EXPECT_EQ(vif.at("link"), "auto");
    EXPECT_EQ(vif.at("queue_pairs"), 2);
    EXPECT_EQ(vif.at("queue_size"), 256);
    EXPECT_EQ(vif.at("max_mbps"), 0);
    EXPECT_EQ(vif.at("weight"), 1);
    EXPECT_EQ(vif.at("core"), "auto");
    EXPECT_EQ(vif.at("qos_limit").at("weight"), 0);
    EXPECT_EQ(vif.at("running"), false);
    EXPECT_EQ(board.id(2), 2u);
    EXPECT_EQ(board.read(2, SVIO_REG_VIF_KIND), uint32_t{SVIO_KIND_NET});
    EXPECT_EQ(board.permanent_mac(2), (Mac{0x52, 0x56, 0, 0x12, 0x34, 0x56}));
    EXPECT_EQ(board.ask(R"({"op":"vif-show","slot":2})").at("vif"), vif);
}

TEST(Management, EverySettingIsTakenAndShown) {
    ManagedBoard board;
    Json set = Json::parse(R"({"mac":"02:00:00:00:00:09","vlan":7,"priority":3,"trust":true,
        "spoof_check":false,"allow_promisc":false,"allow_multicast":false,"guest_tagging":false,"link":"down",
        "queue_pairs":1,"queue_size":64,"min_mbps":10,"max_mbps":100,"weight":5,"core":1,"neighbours":12,"name":"f\u00fcr Gast",
        "qos_limit":{"min_mbps":1,"max_mbps":2,"weight":3}})");
    Json request = {{"op", "vif-create"}, {"slot", 1}, {"set", set}};
    Json created = board.ask(request.dump()).at("vif");
    // Not at birth, but one by one, to another VIF: the same.
    ASSERT_EQ(board.status(R"({"op":"vif-create","slot":2})"), "OK");
    for (auto &[key, value] : set.items()) {
        if (key == "mac" || key == "name" || key == "priority" || key == "max_mbps")
            continue;
        Json one = {{key, value}};
        if (key == "vlan")
            one["priority"] = 3;
        if (key == "min_mbps")
            one["max_mbps"] = 100;
        EXPECT_EQ(board.status(Json{{"op", "vif-set"}, {"slot", 2}, {"set", one}}.dump()), "OK") << key;
    }
    Json changed = board.ask(R"({"op":"vif-show","slot":2})").at("vif");
    for (auto &[key, value] : set.items()) {
        EXPECT_EQ(created.at(key), value) << key;
        if (key != "mac" && key != "name") {
            EXPECT_EQ(changed.at(key), value) << key;
        }
    }
    EXPECT_EQ(
        board.ask(R"({"op":"vif-set","slot":2,"set":{"neighbours":"none"}})").at("vif").at("neighbours"),
        "none");
    EXPECT_EQ(board.vif(2).settings().neighbours, uint32_t{SVIO_NEIGHBOURS_NONE});
    EXPECT_EQ(created.at("link_up"), false);
    EXPECT_EQ(board.vif(1).settings().vlan, 7 | 3 << 13);
    EXPECT_EQ(board.vif(1).settings().name, "für Gast");
    EXPECT_EQ(board.ask(R"({"op":"vif-show","name":"für Gast"})").at("vif").at("id"), 2);
}

TEST(Management, WhatIsRefusedHasChangedNothing) {
    ManagedBoard board({.vfs = 2, .port_mbps = 1000});
    ASSERT_EQ(board.status(R"({"op":"vif-create","slot":1,"set":{"name":"one","min_mbps":600}})"), "OK");
    ASSERT_EQ(board.status(R"({"op":"vif-create","slot":2,"set":{"name":"two"}})"), "OK");
    const Json before = board.ask(R"({"op":"vif-list"})");
    const std::pair<const char *, const char *> wrong[] = {
        {"INVALID", R"({"mac":"01:00:00:00:00:01"})"},
        {"INVALID", R"({"mac":"00:00:00:00:00:00"})"},
        {"INVALID", R"({"mac":"02:00:00:00:00"})"},
        {"INVALID", R"({"mac":"02:00:00:00:00:0g"})"},
        {"INVALID", R"({"mac":"02-00-00-00-00-01"})"},
        {"INVALID", R"({"mac":2})"},
        {"EXISTS", R"({"mac":"52:55:00:12:34:56"})"},
        {"EXISTS", R"({"mac":"52:54:00:12:34:56"})"},
        {"INVALID", R"({"vlan":4095})"},
        {"INVALID", R"({"vlan":-1})"},
        {"INVALID", R"({"vlan":1.5})"},
        {"INVALID", R"({"vlan":"7"})"},
        {"INVALID", R"({"priority":3})"},
        {"INVALID", R"({"vlan":7,"priority":8})"},
        {"INVALID", R"({"vlan":7,"guest_tagging":true})"},
        {"INVALID", R"({"trust":1})"},
        {"INVALID", R"({"spoof_check":"on"})"},
        {"INVALID", R"({"link":"sideways"})"},
        {"INVALID", R"({"link":1})"},
        {"INVALID", R"({"queue_pairs":0})"},
        {"INVALID", R"({"queue_pairs":3})"},
        {"INVALID", R"({"queue_pairs":65537})"},
        {"INVALID", R"({"queue_size":8})"},
        {"INVALID", R"({"queue_size":100})"},
        {"INVALID", R"({"queue_size":2048})"},
        {"INVALID", R"({"min_mbps":2,"max_mbps":1})"},
        {"NO_SPACE", R"({"min_mbps":401})"},
        {"INVALID", R"({"max_mbps":4294967296})"},
        {"INVALID", R"({"weight":0})"},
        {"INVALID", R"({"weight":1001})"},
        {"NOT_FOUND", R"({"core":2})"},
        {"INVALID", R"({"core":4294967295})"},
        {"INVALID", R"({"core":"first"})"},
        {"EXISTS", R"({"name":"one"})"},
        {"INVALID", R"({"name":"12345678901234567890123456789012"})"},
        {"INVALID", R"({"name":"a\nb"})"},
        {"INVALID", R"({"name":"a\u0000b"})"},
        {"INVALID", R"({"name":7})"},
        {"INVALID", R"({"qos_limit":{"weight":1001}})"},
        {"INVALID", R"({"qos_limit":{"color":1}})"},
        {"INVALID", R"({"qos_limit":5})"},
        {"INVALID", R"({"neighbours":"all"})"},
        {"INVALID", R"({"neighbours":-1})"},
        {"INVALID", R"({"neighbours":4294967295})"},
        {"INVALID", R"({"color":"red"})"},
        {"INVALID", R"([1])"},
        // A good one beside a wrong one is not taken either.
        {"INVALID", R"({"trust":true,"weight":0})"},
    };
    for (auto [status, what] : wrong) {
        EXPECT_EQ(board.status(set(2, what)), status) << what;
        EXPECT_EQ(board.ask(R"({"op":"vif-list"})"), before) << what;
        std::string create = R"({"op":"vif-create","set":)" + std::string(what) + "}";
        EXPECT_NE(board.status(create), "OK") << what;
        EXPECT_EQ(board.ask(R"({"op":"vif-list"})"), before) << what;
    }
    EXPECT_EQ(board.status(set(2, R"({"min_mbps":400})")), "OK") << "what is left";
}

TEST(Management, RequestsThatNobodyUnderstands) {
    ManagedBoard board;
    board.enable_all(1);
    const std::pair<const char *, const char *> wrong[] = {
        {"INVALID", ""},
        {"INVALID", "vif-list"},
        {"INVALID", "[]"},
        {"INVALID", "7"},
        {"INVALID", "{}"},
        {"INVALID", "{\"op\":\"vif-list\""},
        {"INVALID", "{\"op\":\"vif-list\"} {}"},
        {"INVALID", R"({"op":7})"},
        {"UNSUPPORTED", R"({"op":"vif-eat"})"},
        {"UNSUPPORTED", R"({"op":"VIF-LIST"})"},
        {"INVALID", R"({"op":"vif-list","slot":1})"},
        {"INVALID", R"({"op":"vif-list","tag":[1]})"},
        {"INVALID", R"({"op":"vif-list","tag":{}})"},
        {"INVALID", R"({"op":"vif-show"})"},
        {"INVALID", R"({"op":"vif-show","slot":1,"id":2})"},
        {"INVALID", R"({"op":"vif-show","slot":"1"})"},
        {"INVALID", R"({"op":"vif-show","slot":4294967295})"},
        {"INVALID", R"({"op":"vif-show","id":-1})"},
        {"INVALID", R"({"op":"vif-show","id":1e3})"},
        {"INVALID", R"({"op":"vif-show","name":1})"},
        {"NOT_FOUND", R"({"op":"vif-show","name":""})"},
        {"NOT_FOUND", R"({"op":"vif-show","slot":2})"},
        {"NOT_FOUND", R"({"op":"vif-show","slot":5})"},
        {"NOT_FOUND", R"({"op":"vif-show","slot":4294967294})"},
        {"NOT_FOUND", R"({"op":"vif-show","id":0})"},
        {"NOT_FOUND", R"({"op":"vif-show","id":18446744073709551615})"},
        {"INVALID", R"({"op":"vif-show","id":18446744073709551616})"},
        {"NOT_FOUND", R"({"op":"vif-stats","slot":3})"},
        {"NOT_FOUND", R"({"op":"vif-destroy","slot":3})"},
        {"NOT_FOUND", R"({"op":"vif-set","slot":3,"set":{}})"},
        {"INVALID", R"({"op":"vif-set","slot":1})"},
        {"NOT_FOUND", R"({"op":"vif-unbind","slot":3})"},
        {"NOT_FOUND", R"({"op":"vif-bind","id":9,"slot":3})"},
        {"INVALID", R"({"op":"vif-bind","slot":3})"},
        {"INVALID", R"({"op":"vif-bind","id":2})"},
        {"NOT_FOUND", R"({"op":"vif-create","slot":5})"},
        {"EXISTS", R"({"op":"vif-create","slot":1})"},
        {"EXISTS", R"({"op":"vif-create","slot":0})"},
        {"INVALID", R"({"op":"vif-create","slot":-1})"},
        {"INVALID", R"({"op":"vif-create","slot":2,"id":7})"},
        {"NOT_FOUND", R"({"op":"core-map","slot":1,"core":2})"},
        {"INVALID", R"({"op":"core-map","slot":1})"},
        {"NOT_FOUND", R"({"op":"core-map","slot":3,"core":0})"},
        {"DENIED", R"({"op":"vif-destroy","slot":0})"},
        {"DENIED", R"({"op":"vif-unbind","id":1})"},
        {"STATE", R"({"op":"vif-bind","id":2,"slot":3})"},
    };
    const Json before = board.ask(R"({"op":"vif-list"})");
    for (auto [status, line] : wrong) {
        EXPECT_EQ(board.status(line), status) << line;
        EXPECT_EQ(board.ask(R"({"op":"vif-list"})"), before) << line;
    }
    // What is nested without end takes neither the stack of the parser nor that of the answer.
    std::string deep(30000, '[');
    EXPECT_EQ(board.status(deep), "INVALID");
    EXPECT_EQ(board.status(R"({"op":"info","tag":)" + deep + std::string(30000, ']') + "}"), "INVALID");
    EXPECT_EQ(board.status(R"({"op":"vif-show","slot":)" + deep + std::string(30000, ']') + "}"), "INVALID");
    EXPECT_EQ(board.status("{\"op\":\"\xff\xfe\"}"), "INVALID");
    std::string unknown = R"({"op":"vif-list",")" + std::string(60000, 'k') + R"(":1})";
    EXPECT_LT(board.ask(unknown).at("error").get<std::string>().size(), 200u);
}

TEST(Management, IdsAreNeverUsedAgain) {
    ManagedBoard board;
    uint64_t last = 1;
    for (unsigned round = 0; round < 20; round++) {
        unsigned slot = 1 + round % 4;
        Json answer = board.ask(R"({"op":"vif-create","slot":)" + std::to_string(slot) + "}");
        ASSERT_EQ(answer.at("id"), last + 1);
        last++;
        EXPECT_EQ(board.id(slot), last);
        // One that was refused has none.
        EXPECT_EQ(board.status(R"({"op":"vif-create","set":{"weight":0}})"), "INVALID");
        EXPECT_EQ(board.status(R"({"op":"vif-destroy","id":)" + std::to_string(last) + "}"), "OK");
        EXPECT_EQ(board.id(slot), 0u);
        EXPECT_EQ(board.status(R"({"op":"vif-show","id":)" + std::to_string(last) + "}"), "NOT_FOUND");
    }
}

TEST(Management, AnUnboundVifKeepsItsSettingsAndNothingElse) {
    ManagedBoard board;
    Json vif = board.ask(R"({"op":"vif-create","set":{"name":"guest","vlan":5,"weight":9}})").at("vif");
    EXPECT_EQ(vif.at("slot"), nullptr);
    EXPECT_EQ(vif.at("link_up"), false);
    EXPECT_EQ(vif.at("serving_cores"), Json::array());
    EXPECT_EQ(board.status(R"({"op":"vif-stats","name":"guest"})"), "STATE");
    EXPECT_EQ(board.status(R"({"op":"vif-unbind","name":"guest"})"), "STATE");
    EXPECT_EQ(board.status(R"({"op":"vif-set","name":"guest","set":{"max_mbps":50}})"), "OK");
    EXPECT_EQ(board.status(R"({"op":"vif-bind","name":"guest","slot":9})"), "NOT_FOUND");
    EXPECT_EQ(board.status(R"({"op":"vif-bind","name":"guest","slot":0})"), "EXISTS");
    Json bound = board.ask(R"({"op":"vif-bind","name":"guest","slot":3})").at("vif");
    EXPECT_EQ(bound.at("slot"), 3);
    EXPECT_EQ(bound.at("vlan"), 5);
    EXPECT_EQ(board.id(3), 2u);
    EXPECT_EQ(board.vif(3).settings().max_mbps, 50u);
    board.vif(3).counters.add(SVIO_STAT_TX_FRAMES, 7);
    Json stats = board.ask(R"({"op":"vif-stats","slot":3})");
    EXPECT_EQ(stats.at("counters").at("tx_frames"), 7);
    EXPECT_EQ(stats.at("queues").size(), 2u);
    EXPECT_EQ(stats.at("queues")[1].at("receive").at("full"), 0);
    EXPECT_EQ(board.status(R"({"op":"vif-unbind","slot":3})"), "OK");
    EXPECT_EQ(board.id(3), 0u);
    Json again = board.ask(R"({"op":"vif-bind","name":"guest","slot":4})").at("vif");
    EXPECT_EQ(again.at("id"), 2);
    EXPECT_EQ(again.at("weight"), 9);
    EXPECT_EQ(board.ask(R"({"op":"vif-stats","slot":4})").at("counters").at("tx_frames"), 0);
}

TEST(Management, UnboundVifsAreBounded) {
    ManagedBoard board;
    for (size_t n = 0; n < Management::unbound_max; n++)
        ASSERT_EQ(board.status(R"({"op":"vif-create"})"), "OK") << n;
    EXPECT_EQ(board.status(R"({"op":"vif-create"})"), "NO_SPACE");
    EXPECT_EQ(board.status(R"({"op":"vif-create","slot":1})"), "OK");
    EXPECT_EQ(board.status(R"({"op":"vif-unbind","slot":1})"), "NO_SPACE");
    // All have MACs of their own.
    std::set<std::string> macs;
    Json vifs = board.ask(R"({"op":"vif-list"})").at("vifs");
    for (const Json &vif : vifs)
        macs.insert(vif.at("mac"));
    EXPECT_EQ(macs.size(), vifs.size());
    EXPECT_EQ(vifs[1].at("slot"), 1) << "bound ones first";
    EXPECT_EQ(vifs[2].at("slot"), nullptr);
}

TEST(Management, AutomaticVifsComeAndGoWithTheirSlots) {
    ManagedBoard board;
    board.enable_all(3);
    Json vifs = board.ask(R"({"op":"vif-list"})").at("vifs");
    ASSERT_EQ(vifs.size(), 4u);
    std::set<std::string> macs;
    for (const Json &vif : vifs) {
        macs.insert(vif.at("mac"));
        EXPECT_EQ(vif.at("automatic"), vif.at("slot") != 0);
    }
    EXPECT_EQ(macs.size(), 4u);
    // What management makes of one does not make it stay.
    EXPECT_EQ(board.status(set(1, R"({"vlan":9,"mac":"02:00:00:00:00:01"})")), "OK");
    board.enable(1, true); // nothing new
    EXPECT_EQ(board.id(1), 2u);
    for (unsigned slot = 1; slot <= 3; slot++)
        board.enable(slot, false);
    EXPECT_EQ(board.ask(R"({"op":"vif-list"})").at("vifs").size(), 1u);
    board.enable(1, true);
    EXPECT_EQ(board.id(1), 5u);
    EXPECT_EQ(board.vif(1).settings().vlan, 0);

    // One that management created is there before and after.
    EXPECT_EQ(board.status(R"({"op":"vif-create","slot":4,"set":{"vlan":3}})"), "OK");
    board.enable(4, true);
    board.enable(4, false);
    EXPECT_EQ(board.vif(4).settings().vlan, 3);

    ManagedBoard other({.auto_vif = false});
    other.enable_all(4);
    EXPECT_EQ(other.ask(R"({"op":"vif-list"})").at("vifs").size(), 1u);
}

TEST(Management, ADerivedMacAvoidsThoseInUse) {
    ManagedBoard board;
    EXPECT_EQ(board.status(R"({"op":"vif-create","slot":1,"set":{"mac":"52:56:00:12:34:56"}})"), "OK");
    board.enable(2, true);
    EXPECT_EQ(board.permanent_mac(2), (Mac{0x52, 0x56, 0x01, 0x12, 0x34, 0x56}));
}

TEST(Management, AMacIsUniqueInItsVlan) {
    ManagedBoard board;
    board.enable_all(3);
    EXPECT_EQ(board.status(set(1, R"({"mac":"02:00:00:00:00:01","vlan":10})")), "OK");
    EXPECT_EQ(board.status(set(2, R"({"mac":"02:00:00:00:00:01","vlan":10,"priority":1})")), "EXISTS");
    EXPECT_EQ(board.status(set(2, R"({"mac":"02:00:00:00:00:01","vlan":11})")), "OK");
    EXPECT_EQ(board.status(set(2, R"({"vlan":10})")), "EXISTS");
    // What a guest chose counts too, and goes along into another VLAN.
    EXPECT_EQ(board.guest_sets_mac(3, {2, 0, 0, 0, 0, 3}), SVIO_ST_OK);
    EXPECT_EQ(board.status(set(0, R"({"mac":"02:00:00:00:00:03"})")), "EXISTS");
    EXPECT_EQ(board.status(set(1, R"({"mac":"02:00:00:00:00:03"})")), "OK");
    EXPECT_EQ(board.status(set(3, R"({"vlan":10})")), "EXISTS");
}

// ---- guests ----

TEST(Management, AGuestMayTakeAMacThatIsNobodysUnlessManagementGaveItOne) {
    ManagedBoard board;
    board.enable_all(2);
    const Mac own = board.permanent_mac(1), wish = {2, 1, 2, 3, 4, 5};
    EXPECT_EQ(board.guest_sets_mac(1, wish), SVIO_ST_OK);
    EXPECT_EQ(board.vif(1).mac(), wish);
    EXPECT_EQ(board.guest_sets_mac(2, wish), SVIO_ST_EXISTS) << "or a guest could take another's frames";
    EXPECT_EQ(board.guest_sets_mac(2, vif_mac), SVIO_ST_EXISTS);
    EXPECT_EQ(board.guest_sets_mac(2, own), SVIO_ST_EXISTS) << "permanent, though not in force";
    EXPECT_EQ(board.guest_sets_mac(1, own), SVIO_ST_OK);

    EXPECT_EQ(board.status(set(1, R"({"mac":"02:00:00:00:00:01"})")), "OK");
    EXPECT_EQ(board.vif(1).mac(), (Mac{2, 0, 0, 0, 0, 1})) << "in force at once";
    EXPECT_EQ(board.take_events(1) & SVIO_EVENT_CONFIG, uint32_t{SVIO_EVENT_CONFIG});
    EXPECT_EQ(board.guest_sets_mac(1, wish), SVIO_ST_DENIED);
    EXPECT_EQ(board.vif(1).mac(), (Mac{2, 0, 0, 0, 0, 1}));
    EXPECT_EQ(board.guest_sets_mac(1, {2, 0, 0, 0, 0, 1}), SVIO_ST_OK);
    EXPECT_EQ(board.status(set(1, R"({"trust":true})")), "OK");
    EXPECT_EQ(board.guest_sets_mac(1, wish), SVIO_ST_OK);
    EXPECT_EQ(board.guest_sets_mac(1, {3, 0, 0, 0, 0, 1}), SVIO_ST_INVALID);
    EXPECT_EQ(board.ask(R"({"op":"vif-show","slot":1})").at("vif").at("mac"), "02:01:02:03:04:05");
    EXPECT_EQ(board.ask(R"({"op":"vif-show","slot":1})").at("vif").at("permanent_mac"), "02:00:00:00:00:01");
    board.write(1, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    EXPECT_EQ(board.vif(1).mac(), (Mac{2, 0, 0, 0, 0, 1}));
}

TEST(Management, ReceiveModesAreAllowedOrNot) {
    ManagedBoard board;
    board.enable_all(1);
    EXPECT_EQ(rx_mode(board, 1, SVIO_RX_PROMISC), SVIO_ST_DENIED) << "by default";
    EXPECT_EQ(board.status(set(1, R"({"allow_promisc":true})")), "OK");
    EXPECT_EQ(rx_mode(board, 1, SVIO_RX_PROMISC | SVIO_RX_ALL_MULTICAST), SVIO_ST_OK);
    EXPECT_EQ(add_group(board, 1), SVIO_ST_OK);
    EXPECT_EQ(board.status(set(1, R"({"allow_promisc":false})")), "OK");
    EXPECT_EQ(rx_mode(board, 1, SVIO_RX_PROMISC | SVIO_RX_ALL_MULTICAST), SVIO_ST_DENIED);
    EXPECT_EQ(rx_mode(board, 1, SVIO_RX_ALL_MULTICAST), SVIO_ST_OK);
    EXPECT_EQ(board.status(set(1, R"({"allow_multicast":false})")), "OK");
    EXPECT_EQ(rx_mode(board, 1, SVIO_RX_ALL_MULTICAST), SVIO_ST_DENIED);
    EXPECT_EQ(rx_mode(board, 1, 0), SVIO_ST_OK);
    EXPECT_EQ(rx_mode(board, 1, 4), SVIO_ST_INVALID);
    EXPECT_EQ(add_group(board, 1), SVIO_ST_DENIED);
    EXPECT_EQ(add_group(board, 1, SVIO_MC_CLEAR), SVIO_ST_DENIED);
    EXPECT_EQ(add_group(board, 1, SVIO_MC_REMOVE), SVIO_ST_OK);
}

TEST(Management, VlanFiltersAreForGuestsThatTag) {
    ManagedBoard board;
    board.enable_all(1);
    EXPECT_EQ(vlan_filter(board, 1, 1), SVIO_ST_OK);
    EXPECT_EQ(vlan_filter(board, 1, 4094), SVIO_ST_OK);
    EXPECT_EQ(vlan_filter(board, 1, 1, 0), SVIO_ST_OK);
    EXPECT_EQ(vlan_filter(board, 1, 1, 2), SVIO_ST_INVALID);
    EXPECT_EQ(vlan_filter(board, 1, 0), SVIO_ST_INVALID);
    EXPECT_EQ(vlan_filter(board, 1, 4095), SVIO_ST_INVALID);
    EXPECT_EQ(vlan_filter(board, 1, 0xffff), SVIO_ST_INVALID);
    EXPECT_EQ(board.status(set(1, R"({"vlan":5})")), "OK");
    EXPECT_EQ(vlan_filter(board, 1, 7), SVIO_ST_DENIED);
    EXPECT_EQ(board.status(set(1, R"({"vlan":0})")), "OK");
    EXPECT_EQ(vlan_filter(board, 1, 7), SVIO_ST_OK);
    EXPECT_EQ(board.status(set(1, R"({"guest_tagging":false})")), "OK");
    EXPECT_EQ(vlan_filter(board, 1, 7), SVIO_ST_DENIED);
}

TEST(Management, QosIsGrantedTrimmedAndRefused) {
    ManagedBoard board({.port_mbps = 1000});
    board.enable_all(2);
    Figures figures{1, 10, 2};
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_DENIED) << "nothing, unless management says so";
    EXPECT_EQ(in_force(board, 1), (Figures{0, 0, 1}));
    EXPECT_EQ(board.take_events(1) & SVIO_EVENT_QOS, 0u);

    EXPECT_EQ(board.status(set(1, R"({"qos_limit":{"min_mbps":300,"max_mbps":500,"weight":10}})")), "OK");
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_OK);
    EXPECT_EQ(in_force(board, 1), (Figures{1, 10, 2}));
    EXPECT_EQ(board.take_events(1) & SVIO_EVENT_QOS, uint32_t{SVIO_EVENT_QOS});
    EXPECT_EQ(board.ask(R"({"op":"vif-show","slot":1})").at("vif").at("max_mbps"), 10);

    figures = {400, 0, 1000};
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_TRIMMED);
    EXPECT_EQ(figures, (Figures{300, 500, 10}));
    EXPECT_EQ(in_force(board, 1), figures);
    EXPECT_EQ(board.vif(1).counters.get(SVIO_STAT_COMMANDS_REFUSED), 1u) << "trimmed is done";

    // What others are guaranteed is not to be had.
    EXPECT_EQ(board.status(set(2, R"({"min_mbps":700,"qos_limit":{"min_mbps":5000,"weight":1}})")), "OK");
    figures = {800, 0, 1};
    EXPECT_EQ(request(board, 2, figures), SVIO_ST_TRIMMED);
    EXPECT_EQ(figures, (Figures{700, 0, 1}));
    figures = {300, 200, 1};
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_INVALID);
    figures = {0, 0, 0};
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_INVALID);
    figures = {0, 0, SVIO_WEIGHT_MAX + 1};
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_INVALID);

    // Nor what another asked less for, and gets back with a reset.
    figures = {0, 0, 1};
    EXPECT_EQ(request(board, 2, figures), SVIO_ST_OK);
    figures = {301, 0, 1};
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_TRIMMED);
    EXPECT_EQ(figures.min, 300u);
    EXPECT_EQ(board.status(set(1, R"({"min_mbps":301})")), "NO_SPACE");

    // Until a reset, or a word of management's.
    board.write(2, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    EXPECT_EQ(in_force(board, 2), (Figures{700, 0, 1}));
    board.write(1, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    EXPECT_EQ(in_force(board, 1), (Figures{0, 0, 1}));
    figures = {100, 400, 4};
    EXPECT_EQ(request(board, 1, figures), SVIO_ST_OK);
    EXPECT_EQ(board.status(set(1, R"({"weight":7})")), "OK");
    EXPECT_EQ(in_force(board, 1), (Figures{0, 0, 7}));
    EXPECT_EQ(board.take_events(1) & SVIO_EVENT_QOS, uint32_t{SVIO_EVENT_QOS});
}

TEST(Management, AReclaimedSlotIsClean) {
    ManagedBoard board;
    for (bool unbind : {false, true}) {
        ASSERT_EQ(board.status(R"({"op":"vif-create","slot":1,"set":{"qos_limit":{"weight":9}}})"), "OK");
        EXPECT_EQ(board.guest_sets_mac(1, {2, 1, 2, 3, 4, 5}), SVIO_ST_OK);
        EXPECT_EQ(vlan_filter(board, 1, 7), SVIO_ST_OK);
        Figures figures{0, 0, 5};
        EXPECT_EQ(request(board, 1, figures), SVIO_ST_OK);
        board.write(1, SVIO_REG_DRIVER_FEATURES_LO, SVIO_F_RX_CHAIN);
        board.write(1, SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
        board.write(1, SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
        EXPECT_EQ(board.ask(R"({"op":"vif-show","slot":1})").at("vif").at("running"), true);
        EXPECT_EQ(
            board.status(unbind ? R"({"op":"vif-unbind","slot":1})" : R"({"op":"vif-destroy","slot":1})"),
            "OK");
        EXPECT_EQ(board.read(1, SVIO_REG_STATUS) & SVIO_STATUS_RUNNING, 0u);
        EXPECT_EQ(board.read(1, SVIO_REG_CONTROL), 0u);
        EXPECT_EQ(board.id(1), 0u);
        EXPECT_EQ(board.permanent_mac(1), Mac{});
        for (uint32_t i = 0; i < 16; i++)
            EXPECT_EQ(board.read(1, SVIO_REG_MAILBOX + 4 * i), 0u);
        for (size_t i = 0; i < SVIO_STAT_COUNT; i++)
            EXPECT_EQ(board.vif(1).counters.get(i), 0u) << vif_stat_names[i];
        svio_command identify{};
        identify.opcode = SVIO_OP_IDENTIFY;
        identify.data_addr = FakeRam::base;
        identify.data_len = 64;
        EXPECT_EQ(board.mailbox(1, identify), SVIO_ST_NOT_FOUND);
        if (unbind) {
            EXPECT_EQ(board.ask(R"({"op":"vif-show","id":3})").at("vif").at("weight"), 1) << "no grant stays";
        }
    }
}

TEST(Management, CoresAreListedAndMapped) {
    ManagedBoard board({.cores = 3});
    board.enable_all(4);
    Json port = board.ask(R"({"op":"port-stats"})");
    EXPECT_EQ(port.at("counters"), Json::parse(R"({"unclaimed":0})"));
    EXPECT_EQ(board.status(R"({"op":"port-stats","slot":0})"), "INVALID");
    Json cores = board.ask(R"({"op":"core-list"})").at("cores");
    ASSERT_EQ(cores.size(), 3u);
    size_t queues = 0;
    for (const Json &core : cores)
        queues += core.at("queues").get<size_t>();
    EXPECT_EQ(queues, 5u * 2);
    for (unsigned core : {2u, 0u}) {
        Json answer =
            board.ask(R"({"op":"core-map","slot":3,"core":)" + std::to_string(core) + R"(,"tag":8})");
        EXPECT_EQ(answer.at("status"), "OK");
        EXPECT_EQ(answer.at("tag"), 8);
        EXPECT_EQ(answer.at("vif").at("core"), core);
        EXPECT_EQ(board.vif(3).settings().core, core);
        EXPECT_EQ(answer.at("vif").at("serving_cores").size(), 2u);
    }
    EXPECT_EQ(board.ask(R"({"op":"core-map","slot":3,"core":"auto"})").at("vif").at("core"), "auto");
}

TEST(Management, QomGetsTheSameText) {
    ManagedBoard board({.port_mbps = 77});
    board.enable_all(2);
    std::lock_guard guard(board.lock);
    Json vifs = Json::parse(board.core->query("vifs"));
    ASSERT_EQ(vifs.size(), 3u);
    EXPECT_EQ(vifs[2].at("slot"), 2);
    EXPECT_EQ(Json::parse(board.core->query("cores")).size(), 2u);
    EXPECT_EQ(Json::parse(board.core->query("info")).at("port_mbps"), 77);
    EXPECT_EQ(Json::parse(board.core->query("info")).at("slots"), 4);
    Json all = Json::parse(board.core->query("all"));
    EXPECT_EQ(all.at("vifs"), vifs);
    EXPECT_EQ(all.at("info").at("cores"), 2);
    EXPECT_EQ(all.at("cores").size(), 2u);
    EXPECT_EQ(Json::parse(board.core->query("guests")).at("status"), "NOT_FOUND");
}
