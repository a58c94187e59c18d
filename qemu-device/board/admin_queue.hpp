// SPDX-License-Identifier: GPL-2.0-or-later
/// The PF's admin queue (SPEC.md 8.3): a ring of commands in guest memory, its registers, and the translation
/// of its commands. Everything runs with the guest lock held.
#pragma once

#include "management.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace svio {

class AdminQueue {
  public:
    /// `size_max`: entries, 0: none is offered.
    AdminQueue(Management &management, uint32_t size_max);

    bool read(uint32_t offset, uint32_t &value) const;
    bool write(uint32_t offset, uint32_t value);
    /// The PF was reset.
    void reset();
    /// One command. False: there is none, or it cannot be looked for now.
    bool step();
    /// A command may be there that nobody has looked for.
    bool pending() const { return pending_; }
    void look() { pending_ = state_ == SVIO_QUEUE_RUNNING; }

  private:
    void enable(bool on);
    void stop();
    void fail(uint32_t code);
    bool load_word(uint32_t &word);
    bool load_command(svio_command &command);
    bool store_command(const svio_command &command);
    bool complete(svio_command &command, uint16_t flags);

    uint16_t execute(svio_command &command);
    uint16_t run_for_vif(svio_command &command);
    uint16_t describe_options(svio_command &command);
    uint16_t accept_options(const svio_command &command);
    uint16_t create(svio_command &command);
    uint16_t reconfigure(const svio_command &command);
    uint16_t query(svio_command &command);
    uint16_t list_vifs(svio_command &command);
    uint16_t list_cores(svio_command &command);
    template <typename Record> uint16_t reply_list(svio_command &command, const std::vector<Record> &records);
    uint16_t fetch_config(const svio_command &command, svio_vif_config &config);
    uint16_t reply(const svio_command &command, const void *data, size_t length);
    Target target_of(const svio_command &command) const;
    bool accepted(uint32_t option) const { return accepted_ & 1u << option; }
    uint32_t offered() const;

    size_t offset_of(uint32_t position) const {
        return size_t{position & (size_ - 1)} * sizeof(svio_command);
    }

    Management &management_;
    Vif &physical_;
    const uint32_t size_max_;

    uint64_t base_ = 0;
    uint32_t size_ = 0;
    uint32_t vector_ = SVIO_NO_VECTOR;
    uint32_t state_ = SVIO_QUEUE_DISABLED; ///< as the register shows it
    uint32_t position_ = 0;
    uint32_t accepted_ = 0; ///< bits of SVIO_OPTION_*
    uint32_t written_ = 0;  ///< by the command that runs, to its data buffer
    uint32_t life_ = 0;     ///< counts starts and stops
    bool pending_ = false;
    std::unique_ptr<Window> ring_;
};

} // namespace svio
