// SPDX-License-Identifier: GPL-2.0-or-later
/// A board of several functions with management, each function with memory and interrupts of its own, and the
/// PF driver's half of the admin queue.
#pragma once

#include "driver.hpp"
#include "management_core.hpp"

#include <nlohmann/json.hpp>

namespace svio::test {

using Json = nlohmann::json;

struct ManagedOptions {
    unsigned vfs = 4;
    unsigned cores = 2;
    unsigned pairs = 2;
    bool threads = false;
    bool direct = true;
    bool auto_vif = true;
    uint32_t port_mbps = 0;
    uint32_t admin_size = 64;
    bool shared_signals = false;
    std::string socket{};
};

class ManagedBoard {
  public:
    struct Function {
        Function(BigLock &lock, bool direct) : ram(size_t{256} << 10, direct), signals(lock) {}
        FakeRam ram;
        SignalLog signals;
        Vif *vif = nullptr;
    };

    explicit ManagedBoard(const ManagedOptions &options = {}) {
        auto own = std::make_unique<PushPort>(lock);
        port = own.get();
        board = std::make_unique<Board>(
            BoardConfig{.cores = options.cores, .poll_us = 0, .threads = options.threads}, lock, clock, hooks,
            std::move(own));
        port->board = board.get();
        for (unsigned slot = 0; slot <= options.vfs; slot++) {
            functions.push_back(std::make_unique<Function>(lock, options.direct));
            FunctionConfig config;
            config.mac = vif_mac;
            config.slot = slot;
            config.physical = slot == 0;
            config.queue_pairs = options.pairs;
            Function &function = *functions.back();
            function.vif = slot == 0 ? &board->add_vif(config, function.ram, function.signals)
                                     : &board->add_function(config, function.ram, function.signals);
            set_dma(slot, true);
        }
        core = std::make_unique<ManagementCore>(
            *board, ManagementCoreConfig{.management = {.auto_vif = options.auto_vif,
                                                        .port_mbps = options.port_mbps,
                                                        .shared_signals = options.shared_signals},
                                         .admin_size_max = options.admin_size,
                                         .socket = options.socket});
        board->start();
        if (options.threads)
            core->start();
    }
    ~ManagedBoard() {
        core->stop();
        board->stop();
    }

    Vif &vif(unsigned slot) { return *functions[slot]->vif; }
    uint32_t read(unsigned slot, uint32_t offset) {
        std::lock_guard guard(lock);
        return vif(slot).read_register(offset);
    }
    void write(unsigned slot, uint32_t offset, uint32_t value) {
        std::lock_guard guard(lock);
        vif(slot).write_register(offset, value);
    }
    void set_dma(unsigned slot, bool on) {
        std::lock_guard guard(lock);
        Pause pause(*board);
        vif(slot).set_dma(on);
    }
    void enable(unsigned slot, bool on) {
        std::lock_guard guard(lock);
        core->management().enable(slot, on);
    }
    /// VFs 1 to n are there, as after NumVFs = n.
    void enable_all(unsigned n) {
        for (unsigned slot = 1; slot <= n; slot++)
            enable(slot, true);
    }
    uint64_t id(unsigned slot) {
        return read(slot, SVIO_REG_VIF_ID_LO) | uint64_t{read(slot, SVIO_REG_VIF_ID_HI)} << 32;
    }
    Mac permanent_mac(unsigned slot) {
        uint32_t low = read(slot, SVIO_REG_MAC_LO), high = read(slot, SVIO_REG_MAC_HI);
        Mac mac;
        for (unsigned i = 0; i < 6; i++)
            mac[i] = static_cast<uint8_t>(i < 4 ? low >> (8 * i) : high >> (8 * (i - 4)));
        return mac;
    }
    uint32_t take_events(unsigned slot) {
        uint32_t events = read(slot, SVIO_REG_EVENT);
        write(slot, SVIO_REG_EVENT, events);
        return events;
    }

    // ---- doors ----
    Json ask(const std::string &line) {
        std::string text = core->answer(line);
        EXPECT_EQ(text.find('\n'), std::string::npos);
        Json answer = Json::parse(text);
        // Whatever is asked: a status by its name, and a sentence if it is a refusal.
        std::string status = answer.at("status");
        bool good = status == "OK" || status == "TRIMMED";
        EXPECT_EQ(answer.contains("error"), !good) << text;
        EXPECT_NE(std::find(status_names.begin(), status_names.end(), status), status_names.end()) << text;
        return answer;
    }
    std::string status(const std::string &line) { return ask(line).at("status"); }

    /// A command of the guest in that slot.
    uint16_t mailbox(unsigned slot, svio_command &command) {
        command.slot = SVIO_SLOT_SELF;
        run_mailbox(
            command, [&](uint32_t offset) { return read(slot, offset); },
            [&](uint32_t offset, uint32_t value) { write(slot, offset, value); });
        return command.status;
    }
    uint16_t guest_sets_mac(unsigned slot, const Mac &mac) {
        svio_command command{};
        command.opcode = SVIO_OP_SET_MAC;
        std::copy(mac.begin(), mac.end(), command.u.set_mac.mac);
        return mailbox(slot, command);
    }

    /// Management and cores, where they have no threads, until nothing is left to do.
    void work() {
        work_until_idle(*board, [this] { return core->step(); });
    }

    BigLock lock;
    ManualClock clock;
    CountedHooks hooks;
    std::vector<std::unique_ptr<Function>> functions;
    PushPort *port = nullptr;
    std::unique_ptr<Board> board;
    std::unique_ptr<ManagementCore> core;
};

/// The PF driver's half of the admin queue.
class AdminRing {
  public:
    static constexpr unsigned vector = 3;
    static constexpr uint64_t base = FakeRam::base, data = FakeRam::base + 0x20000;

    explicit AdminRing(ManagedBoard &board, uint32_t size = 16) : board_(board), size_(size) { start(); }

    void start() {
        next_ = 0;
        std::memset(ram().at(base, size_ * sizeof(svio_command)), 0, size_ * sizeof(svio_command));
        set(SVIO_REG_ADMIN_BASE_LO, static_cast<uint32_t>(base));
        set(SVIO_REG_ADMIN_BASE_HI, static_cast<uint32_t>(base >> 32));
        set(SVIO_REG_ADMIN_SIZE, size_);
        set(SVIO_REG_ADMIN_VECTOR, vector);
        set(SVIO_REG_ADMIN_CONTROL, SVIO_QUEUE_ENABLE);
    }
    void set(uint32_t reg, uint32_t value) { board_.write(0, reg, value); }
    uint32_t state() { return board_.read(0, SVIO_REG_ADMIN_STATE); }
    void ring_bell() { set(SVIO_REG_ADMIN_BELL, 1); }

    uint64_t at(uint32_t position) const { return base + (position & (size_ - 1)) * sizeof(svio_command); }
    uint16_t lap(uint32_t position, unsigned flags) const {
        return static_cast<uint16_t>(svio_lap(position, size_) ? flags : 0);
    }
    /// Without the bell. Returns its position.
    uint32_t post(svio_command command) {
        uint32_t position = next_++;
        command.flags = static_cast<uint16_t>(lap(position, SVIO_COMMAND_POSTED) |
                                              (lap(position, 1) ? 0 : SVIO_COMMAND_DONE));
        post_raw(position, command);
        return position;
    }
    void post_raw(uint32_t position, const svio_command &command) {
        ram().put(at(position) + 4, reinterpret_cast<const uint8_t *>(&command) + 4, sizeof(command) - 4);
        ram().set_word(at(position), command.opcode | uint32_t{command.flags} << 16);
    }
    bool done(uint32_t position) {
        return (ram().word(at(position)) >> 16 & SVIO_COMMAND_DONE) == lap(position, SVIO_COMMAND_DONE);
    }
    svio_command answer(uint32_t position) {
        svio_command command;
        std::memcpy(&command, ram().at(at(position), sizeof(command)), sizeof(command));
        return command;
    }
    /// Posts, rings, and has management work. The command becomes its answer.
    uint16_t run(svio_command &command) {
        uint32_t position = post(command);
        ring_bell();
        board_.work();
        EXPECT_TRUE(done(position));
        svio_command answered = answer(position);
        EXPECT_EQ(answered.opcode, command.opcode);
        EXPECT_EQ(answered.tag, command.tag);
        EXPECT_EQ(answered.flags, lap(position, SVIO_COMMAND_DONE | SVIO_COMMAND_POSTED));
        command = answered;
        return command.status;
    }
    svio_command make(uint16_t opcode, uint32_t slot = SVIO_SLOT_SELF) const {
        svio_command command{};
        command.opcode = opcode;
        command.tag = static_cast<uint16_t>(0x4000 + next_);
        command.slot = slot;
        return command;
    }
    /// With data in place.
    template <typename T> uint16_t run_with(svio_command &command, const T &what) {
        ram().put(data, &what, sizeof(what));
        command.data_addr = data;
        command.data_len = sizeof(what);
        return run(command);
    }
    template <typename T> T back() {
        T record;
        std::memcpy(&record, ram().at(data, sizeof(record)), sizeof(record));
        return record;
    }
    uint16_t accept(const std::vector<uint16_t> &options) {
        std::vector<svio_option> list;
        for (uint16_t id : options)
            list.push_back({.id = id, .length = 0, .required = 0});
        ram().put(data, list.data(), list.size() * sizeof(svio_option));
        svio_command command = make(SVIO_OP_ACCEPT_OPTIONS);
        command.data_addr = data;
        command.data_len = static_cast<uint32_t>(list.size() * sizeof(svio_option));
        return run(command);
    }
    void accept_all() {
        ASSERT_EQ(accept({SVIO_OPTION_MANAGEMENT, SVIO_OPTION_QOS, SVIO_OPTION_CORE_MAP}), SVIO_ST_OK);
    }
    FakeRam &ram() { return board_.functions[0]->ram; }

  private:
    ManagedBoard &board_;
    const uint32_t size_;
    uint32_t next_ = 0;
};

} // namespace svio::test
