// SPDX-License-Identifier: GPL-2.0-or-later
/// Memory of a guest in another process, as files that it has shared with us.
#pragma once

#include "descriptor.hpp"
#include "host.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace svio {

/// Where a region lies, and in which file from which byte on.
struct RegionConfig {
    uint64_t address = 0;
    uint64_t size = 0;
    uint64_t offset = 0;
};

/// What another process says of its memory is believed only where the kernel vouches for it: a file that
/// could become shorter than it was said to be would end us by SIGBUS, so it must be sealed against that.
class ClientMemory final : public GuestMemory {
  public:
    ClientMemory();
    ClientMemory(const ClientMemory &) = delete;
    ClientMemory &operator=(const ClientMemory &) = delete;
    ~ClientMemory() override;

    /// Another table in place of the present one. The board is paused. On failure one sentence, and the
    /// present one stays.
    std::string replace(std::span<const RegionConfig> regions, std::span<const Descriptor> files);
    /// None at all. The board is paused.
    void clear();

    bool read(uint64_t address, void *to, size_t length) override;
    bool write(uint64_t address, const void *from, size_t length) override;
    bool show(uint64_t address, size_t length, Taker &taker) override;
    std::unique_ptr<Window> open(uint64_t address, size_t length) override;

  private:
    class Mapping;
    class View;
    /// Null: not in one region.
    uint8_t *find(uint64_t address, size_t length) const;
    /// Calls piece(host address, length) for one region after the other. False: not all of it is there.
    template <typename Piece> bool walk(uint64_t address, size_t length, Piece piece) const;

    std::vector<Mapping> mappings_; ///< by address
    std::vector<View *> views_;
};

} // namespace svio
