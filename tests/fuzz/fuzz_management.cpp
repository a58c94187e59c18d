// SPDX-License-Identifier: GPL-2.0-or-later
/// Management before a hostile PF, hostile guests and garbage on its socket: the admin queue, lines of JSON,
/// and what guests ask for, in any order. Whatever comes, VIFs and slots agree, no ID and no MAC is there
/// twice, each command that was posted is answered once, and in the end all can be put in order again.
#include "../unit/managed_board.hpp"
#include "input.hpp"

#include <set>

namespace svio::fuzz {

using namespace svio::test;

namespace {

constexpr unsigned vfs = 3;
constexpr uint32_t ring_size = 16;

class ManagementMachine {
  public:
    explicit ManagementMachine(bool direct) : board_({.vfs = vfs, .direct = direct, .port_mbps = 1000}) {
        GTEST_FLAG_SET(throw_on_failure, true); // a failed expectation of the helpers is a finding too
    }
    int play(Input &in);

  private:
    void begin();
    void move(Input &in);
    void admin_command(Input &in);
    void admin_raw(Input &in);
    void admin_register(Input &in);
    void json_garbage(Input &in);
    void json_request(Input &in);
    void mailbox(Input &in);
    void settle();
    void check();
    void end();
    uint64_t address(Input &in);

    ManagedBoard board_;
    std::unique_ptr<AdminRing> ring_;
    uint64_t last_id_ = 1;
};

void ManagementMachine::begin() {
    board_.write(0, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    ring_ = std::make_unique<AdminRing>(board_, ring_size);
    ring_->accept_all();
}

uint64_t ManagementMachine::address(Input &in) {
    switch (in.below(6)) {
    case 0:
        return in.u64();
    case 1:
        return FakeRam::base + ring_->ram().size() - in.u8();
    case 2:
        return AdminRing::base + in.u16() % 1024u; // into the ring itself
    default:
        return AdminRing::data;
    }
}

void ManagementMachine::admin_command(Input &in) {
    static constexpr uint16_t opcodes[] = {
        SVIO_OP_NOP,        SVIO_OP_IDENTIFY,         SVIO_OP_STATS,           SVIO_OP_SET_MAC,
        SVIO_OP_VIF_CREATE, SVIO_OP_VIF_DESTROY,      SVIO_OP_VIF_RECONFIGURE, SVIO_OP_VIF_QUERY,
        SVIO_OP_VIF_LIST,   SVIO_OP_VIF_BIND,         SVIO_OP_VIF_UNBIND,      SVIO_OP_CORE_LIST,
        SVIO_OP_CORE_MAP,   SVIO_OP_DESCRIBE_OPTIONS, SVIO_OP_ACCEPT_OPTIONS,  SVIO_OP_QOS_REQUEST,
        SVIO_OP_RSS,        SVIO_OP_TEST_SIGNAL};
    svio_command command{};
    command.opcode = opcodes[in.below(std::size(opcodes))];
    uint8_t how = in.u8();
    command.slot = how & 1 ? in.u8() % (vfs + 2) : how & 2 ? in.u32() : SVIO_SLOT_SELF;
    command.data_addr = how & 4 ? address(in) : AdminRing::data;
    command.data_len = how & 8 ? in.u32() : 512;
    for (size_t n = in.u8() % 41u, i = 0; i < n; i++)
        command.u.raw[i] = in.u8();
    if (how & 0x10) {
        svio_vif_config config{};
        config.mask = in.u16();
        config.kind = how & 0x20 ? in.u8() : SVIO_KIND_NET;
        auto *bytes = reinterpret_cast<uint8_t *>(&config) + offsetof(svio_vif_config, mac);
        for (size_t n = in.u8() % 84u, i = 0; i < n; i++)
            bytes[i] = in.u8();
        ring_->ram().put(AdminRing::data, &config, sizeof(config));
    }
    ring_->post(command);
    if (how & 0x40)
        ring_->ring_bell();
}

void ManagementMachine::admin_raw(Input &in) {
    svio_command command{};
    for (size_t i = 0; i < sizeof(command); i++)
        reinterpret_cast<uint8_t *>(&command)[i] = in.u8();
    ring_->post_raw(in.u8(), command);
    ring_->ring_bell();
}

void ManagementMachine::admin_register(Input &in) {
    uint8_t how = in.u8();
    uint32_t offset = SVIO_REG_ADMIN_SIZE_MAX + (how & 7) * 4;
    if (how & 8)
        board_.read(how >> 4 & 1, offset);
    else
        board_.write(how >> 4 & 1, offset, how & 0x20 ? in.u32() : in.u8());
}

void ManagementMachine::json_garbage(Input &in) {
    std::string line;
    for (size_t n = in.u8(), i = 0; i < n && !in.empty(); i++)
        line += static_cast<char>(in.u8());
    board_.ask(line);
}

void ManagementMachine::json_request(Input &in) {
    static constexpr const char *operations[] = {"info",      "vif-list",    "vif-show",  "vif-create",
                                                 "vif-set",   "vif-destroy", "vif-bind",  "vif-unbind",
                                                 "vif-stats", "port-stats",  "core-list", "core-map"};
    static constexpr const char *keys[] = {"mac",
                                           "vlan",
                                           "priority",
                                           "trust",
                                           "spoof_check",
                                           "allow_promisc",
                                           "allow_multicast",
                                           "link",
                                           "queue_size",
                                           "min_mbps",
                                           "max_mbps",
                                           "weight",
                                           "guest_tagging",
                                           "core",
                                           "queue_pairs",
                                           "name",
                                           "qos_limit",
                                           "neighbours",
                                           "id",
                                           "slot"};
    auto value = [&in](Json &to) {
        switch (in.below(10)) {
        case 0:
            to = in.u32();
            break;
        case 1:
            to = -1;
            break;
        case 2:
            to = "auto";
            break;
        case 3:
            to = true;
            break;
        case 4:
            to = "02:00:00:00:00:0" + std::to_string(in.below(4));
            break;
        case 5:
            to = {{"weight", in.u8()}, {"min_mbps", in.u8()}};
            break;
        case 6:
            to = nullptr;
            break;
        case 7:
            to = std::string(in.below(40), 'n');
            break;
        default:
            to = in.below(12);
        }
    };
    Json request;
    request["op"] = operations[in.below(std::size(operations))];
    uint8_t how = in.u8();
    if (how & 1)
        request["slot"] = how >> 4 & 3;
    if (how & 2)
        request["id"] = last_id_ + 1 - in.below(4);
    if (how & 4)
        value(request[keys[in.below(std::size(keys))]]);
    for (unsigned n = how >> 6; n > 0; n--)
        value(request["set"][keys[in.below(std::size(keys))]]);
    board_.ask(request.dump());
}

void ManagementMachine::mailbox(Input &in) {
    static constexpr uint16_t opcodes[] = {SVIO_OP_SET_MAC,     SVIO_OP_RX_MODE,     SVIO_OP_MULTICAST,
                                           SVIO_OP_VLAN_FILTER, SVIO_OP_QOS_REQUEST, SVIO_OP_VIF_DESTROY};
    svio_command command{};
    command.opcode = opcodes[in.below(std::size(opcodes))];
    unsigned slot = in.below(vfs + 1);
    for (size_t n = in.u8() % 41u, i = 0; i < n; i++)
        command.u.raw[i] = in.u8();
    board_.mailbox(slot, command);
}

void ManagementMachine::move(Input &in) {
    pieces.add();
    switch (in.below(12)) {
    case 0:
        return admin_raw(in);
    case 1:
        return admin_register(in);
    case 2:
        return json_garbage(in);
    case 3:
    case 4:
        return json_request(in);
    case 5:
    case 6:
        return mailbox(in);
    case 7:
        return board_.enable(1 + in.below(vfs), in.u8() & 1);
    case 8:
        return board_.set_dma(in.below(vfs + 1), in.u8() & 1);
    case 9:
        return board_.write(in.below(vfs + 1), SVIO_REG_CONTROL, in.u8());
    default:
        return admin_command(in);
    }
}

/// Each move, and what it set going, on its own.
void ManagementMachine::settle() {
    for (unsigned n = 0; board_.core->step(); n++)
        MUST(n < 1000);
}

void ManagementMachine::check() {
    std::lock_guard guard(board_.lock);
    Management &management = board_.core->management();
    std::set<uint64_t> ids;
    std::set<uint32_t> slots;
    std::set<std::pair<Mac, uint16_t>> macs;
    uint64_t minima = 0;
    for (const VifRecord *record : management.list()) {
        const VifSettings &settings = record->settings;
        MUST(ids.insert(settings.id).second);
        MUST(macs.insert({settings.mac, static_cast<uint16_t>(settings.vlan & SVIO_VLAN_VID)}).second);
        MUST(!(settings.mac[0] & 1) && settings.mac != Mac{});
        MUST(settings.weight >= 1 && settings.weight <= SVIO_WEIGHT_MAX);
        MUST(settings.max_mbps == 0 || settings.min_mbps <= settings.max_mbps);
        MUST(settings.vlan == 0 || !settings.guest_tagging);
        minima += settings.min_mbps;
        if (!record->bound())
            continue;
        MUST(slots.insert(record->slot).second);
        Vif &vif = board_.vif(record->slot);
        MUST(vif.present());
        MUST(vif.settings() == settings);
    }
    MUST(minima <= 1000);
    MUST(ids.contains(1));
    for (unsigned slot = 0; slot <= vfs; slot++)
        MUST_EQ(board_.vif(slot).present(), slots.contains(slot));
    last_id_ = std::max(last_id_, *ids.rbegin());
}

void ManagementMachine::end() {
    for (unsigned slot = 0; slot <= vfs; slot++) {
        board_.set_dma(slot, true);
        board_.write(slot, SVIO_REG_CONTROL, SVIO_CONTROL_RESET);
    }
    settle();
    MUST_EQ(board_.read(0, SVIO_REG_ADMIN_STATE), SVIO_QUEUE_DISABLED);
    MUST_EQ(board_.functions[0]->ram.windows(), 0);
    Json vifs = board_.ask(R"({"op":"vif-list"})").at("vifs");
    for (const Json &vif : vifs) {
        if (vif.at("slot") != 0)
            MUST(board_.status(Json{{"op", "vif-destroy"}, {"id", vif.at("id")}}.dump()) == "OK");
    }
    MUST(board_.status(R"({"op":"vif-set","slot":0,"set":{"mac":"52:54:00:12:34:56","vlan":0,"min_mbps":0,
        "max_mbps":0,"weight":1,"name":"","link":"auto","core":"auto","queue_pairs":2,"queue_size":256}})") ==
         "OK");
    Json made = board_.ask(R"({"op":"vif-create","slot":1})");
    MUST(made.at("status") == "OK");
    MUST(made.at("id").get<uint64_t>() > last_id_);
    last_id_ = made.at("id");
    MUST(board_.status(R"({"op":"vif-destroy","slot":1})") == "OK");
    check();
}

int ManagementMachine::play(Input &in) {
    begin();
    for (unsigned n = 0; n < 60 && !in.empty(); n++) {
        move(in);
        settle();
        check();
    }
    end();
    return 0;
}

} // namespace

} // namespace svio::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    // Both live as long as the process: what an input leaves behind must not matter.
    static svio::fuzz::ManagementMachine direct(true), translated(false);
    svio::fuzz::Input in(data, size);
    return (in.u8() & 1 ? direct : translated).play(in);
}
