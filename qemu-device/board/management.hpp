// SPDX-License-Identifier: GPL-2.0-or-later
/// Management (SPEC.md chapter 8): the VIFs that there are, and all that may be done with them. Its doors
/// (admin queue, socket, QOM) translate; what is allowed is decided here.
///
/// Everything runs with the guest lock held.
#pragma once

#include "board.hpp"
#include "supervisor.hpp"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace svio {

/// A status, and for people why it is not OK.
struct Answer {
    uint16_t status = SVIO_ST_OK;
    std::string why;
    bool ok() const { return status == SVIO_ST_OK; }
};

/// Which VIF is meant. Exactly one of them holds.
struct Target {
    std::optional<uint32_t> slot;
    std::optional<uint64_t> id;
    std::optional<std::string> name;
};

/// A VIF, bound to a slot or not.
struct VifRecord {
    VifSettings settings;           ///< in force, what a guest was granted included
    uint32_t slot = SVIO_SLOT_SELF; ///< this: none
    bool automatic = false;         ///< made by auto-vif
    bool mac_assigned = false;      ///< by management, not derived
    Qos own;                        ///< what management set
    Qos limit{.weight = 0};         ///< what the guest may ask for; weight 0: nothing
    bool bound() const { return slot != SVIO_SLOT_SELF; }
};

struct ManagementConfig {
    bool auto_vif = true;
    uint32_t port_mbps = 0;      ///< limit of the port, 0: none
    bool shared_signals = false; ///< functions share interrupts: the admin queue says so
};

/// UTF-8 without control characters.
bool printable_utf8(std::string_view text);

class Management {
  public:
    static constexpr size_t unbound_max = SVIO_MAX_VIFS;

    /// All functions of the board are there, the PF first, with its VIF.
    Management(Board &board, const ManagementConfig &config);

    // ---- commands ----
    Answer create(std::optional<uint32_t> slot, const svio_vif_config &config, uint64_t &id);
    Answer destroy(const Target &target);
    Answer reconfigure(const Target &target, const svio_vif_config &config);
    Answer bind(const Target &target, uint32_t slot);
    Answer unbind(const Target &target);
    Answer map_core(const Target &target, uint32_t core);
    /// Null: no such VIF.
    const VifRecord *find(const Target &target) const;
    /// By slot, then the unbound by ID.
    std::vector<const VifRecord *> list() const;
    svio_vif_config config_of(const VifRecord &record) const;
    svio_vif_info info_of(const VifRecord &record) const;
    svio_core_info core_info(unsigned core) const;
    /// A VIF as create() would make it without a word: for doors whose settings are finer than the mask.
    VifRecord fresh(std::optional<uint32_t> slot) const;

    // ---- what happens to the board ----
    /// The function of a slot comes or goes (NumVFs).
    void enable(uint32_t slot, bool enabled);
    uint16_t may_use_mac(const Vif &vif, const Mac &mac) const;
    uint16_t request_qos(Vif &vif, Qos &figures);
    void was_reset(Vif &vif);

    Board &board() const { return board_; }
    uint32_t slots() const { return board_.vifs() - 1; }
    const ManagementConfig &config() const { return config_; }
    /// The function that a VIF is bound to, or null.
    Vif *function_of(const VifRecord &record) const;

  private:
    VifRecord *find_mutable(const Target &target);
    const VifRecord *in_slot(uint32_t slot) const;
    Mac derived_mac(uint64_t number) const;
    bool mac_in_use(const Mac &mac, uint16_t vlan, uint64_t except) const;
    uint64_t minima_of_others(uint64_t except) const;
    Answer merge(VifRecord &record, const svio_vif_config &config) const;
    Answer merge_flags(VifSettings &settings, const svio_vif_config &config) const;
    Answer merge_queues(const VifRecord &record, VifSettings &settings, const svio_vif_config &config) const;
    Answer merge_qos(VifRecord &record, const svio_vif_config &config) const;
    Answer merge_name(const VifRecord &record, VifSettings &settings, const svio_vif_config &config) const;
    void put_into_slot(VifRecord &record, uint32_t slot);
    void apply(VifRecord &record, const VifSettings &before);

    Board &board_;
    const ManagementConfig config_;
    std::map<uint64_t, VifRecord> records_;
    uint64_t next_id_ = 1;
};

extern const std::array<const char *, SVIO_ST_COUNT> status_names;

} // namespace svio
