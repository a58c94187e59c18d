// SPDX-License-Identifier: GPL-2.0-or-later
#include "client_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace svio {

/// A region in our address space.
class ClientMemory::Mapping {
  public:
    Mapping(const RegionConfig &region, void *at) : region_(region), at_(static_cast<uint8_t *>(at)) {}
    Mapping(Mapping &&other) noexcept : region_(other.region_), at_(std::exchange(other.at_, nullptr)) {}
    Mapping &operator=(Mapping &&other) noexcept {
        std::swap(region_, other.region_);
        std::swap(at_, other.at_);
        return *this;
    }
    ~Mapping() {
        if (at_)
            munmap(at_, region_.size);
    }
    uint64_t begin() const { return region_.address; }
    /// Of the last byte: the end itself may not fit.
    uint64_t last() const { return region_.address + (region_.size - 1); }
    uint8_t *host(uint64_t address) const { return at_ + (address - region_.address); }

  private:
    RegionConfig region_;
    uint8_t *at_;
};

/// A ring or event block. While no region holds it whole it is out of reach, as with bus mastering off.
class ClientMemory::View final : public Window {
  public:
    View(ClientMemory &memory, uint64_t address, size_t length)
        : memory_(memory), address_(address), length_(length) {
        memory_.views_.push_back(this);
        look();
    }
    ~View() override { std::erase(memory_.views_, this); }
    void look() { at_ = memory_.find(address_, length_); }
    bool load(size_t, void *, size_t) override { return false; }
    bool store(size_t, const void *, size_t) override { return false; }
    void written(size_t, size_t) override {}
    uint8_t *direct() const override { return at_; }

  private:
    ClientMemory &memory_;
    const uint64_t address_;
    const size_t length_;
    uint8_t *at_ = nullptr;
};

ClientMemory::ClientMemory() = default;
ClientMemory::~ClientMemory() = default;

// ---- the table ----

namespace {

std::string region_text(const RegionConfig &region) {
    char text[64];
    snprintf(text, sizeof(text), "the region at 0x%llx", static_cast<unsigned long long>(region.address));
    return text;
}

/// What is wrong with it, or nothing.
std::string check(const RegionConfig &region, int file) {
    const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    if (region.size == 0 || (region.address | region.size | region.offset) % page != 0)
        return region_text(region) + " is empty or not aligned to pages";
    if (region.address + (region.size - 1) < region.address || region.offset + region.size < region.offset)
        return region_text(region) + " goes beyond the end of all addresses";
    int seals = fcntl(file, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return region_text(region) + " is in a file that may shrink: it wants memory-backend-memfd,seal=on";
    struct stat status;
    if (fstat(file, &status) < 0 || status.st_size < 0 ||
        region.offset + region.size > static_cast<uint64_t>(status.st_size))
        return region_text(region) + " goes beyond the end of its file";
    return "";
}

} // namespace

std::string ClientMemory::replace(std::span<const RegionConfig> regions, std::span<const Descriptor> files) {
    std::vector<Mapping> made;
    made.reserve(regions.size());
    for (size_t n = 0; n < regions.size(); n++) {
        const RegionConfig &region = regions[n];
        if (std::string why = check(region, files[n].get()); !why.empty())
            return why;
        void *at = mmap(nullptr, region.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        files[n].get(), static_cast<off_t>(region.offset));
        if (at == MAP_FAILED)
            return region_text(region) + " cannot be mapped: " + std::generic_category().message(errno);
        made.emplace_back(region, at);
    }
    std::sort(made.begin(), made.end(), [](auto &one, auto &other) { return one.begin() < other.begin(); });
    for (size_t n = 1; n < made.size(); n++) {
        if (made[n].begin() <= made[n - 1].last())
            return "two regions overlap";
    }
    mappings_.swap(made);
    for (View *view : views_)
        view->look();
    return "";
}

void ClientMemory::clear() {
    mappings_.clear();
    for (View *view : views_)
        view->look();
}

// ---- access ----

template <typename Piece> bool ClientMemory::walk(uint64_t address, size_t length, Piece piece) const {
    // The last region that begins at or before the address.
    auto at = std::upper_bound(mappings_.begin(), mappings_.end(), address,
                               [](uint64_t where, const Mapping &m) { return where < m.begin(); });
    if (at != mappings_.begin())
        --at;
    for (; length > 0; ++at) {
        if (at == mappings_.end() || address < at->begin() || address > at->last())
            return false;
        size_t here = static_cast<size_t>(std::min<uint64_t>(length - 1, at->last() - address)) + 1;
        if (!piece(at->host(address), here))
            return false;
        length -= here;
        address += here;
    }
    return true;
}

uint8_t *ClientMemory::find(uint64_t address, size_t length) const {
    uint8_t *found = nullptr;
    bool whole = walk(address, length, [&](uint8_t *piece, size_t here) {
        found = piece;
        return here == length;
    });
    return whole ? found : nullptr;
}

bool ClientMemory::read(uint64_t address, void *to, size_t length) {
    auto *next = static_cast<uint8_t *>(to);
    return walk(address, length, [&](const uint8_t *piece, size_t here) {
        memcpy(next, piece, here);
        next += here;
        return true;
    });
}

bool ClientMemory::write(uint64_t address, const void *from, size_t length) {
    auto *next = static_cast<const uint8_t *>(from);
    return walk(address, length, [&](uint8_t *piece, size_t here) {
        memcpy(piece, next, here);
        next += here;
        return true;
    });
}

bool ClientMemory::show(uint64_t address, size_t length, Taker &taker) {
    return walk(address, length, [&](const uint8_t *piece, size_t here) {
        return taker.take({piece, here});
    });
}

std::unique_ptr<Window> ClientMemory::open(uint64_t address, size_t length) {
    if (!find(address, length))
        return nullptr;
    return std::make_unique<View>(*this, address, length);
}

} // namespace svio
