// SPDX-License-Identifier: GPL-2.0-or-later
/// What the board sees of the outside: guest memory, signals, the wire, the clock, and the lock that
/// the outside may want around some of them. Nothing here knows QEMU.
#pragma once

#include "offload.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <sys/uio.h>
#include <vector>

namespace svio {

/// A piece of guest memory that is used over and over: a ring or an event block.
class Window {
  public:
    virtual ~Window() = default;
    /// Slow path of a load, used while `direct` is null. False: not reachable.
    virtual bool load(size_t offset, void *to, size_t length) = 0;
    virtual bool store(size_t offset, const void *from, size_t length) = 0;
    /// Must follow each store through `direct`: dirty log and translated code.
    virtual void written(size_t offset, size_t length) = 0;
    /// Host address of its first byte, or null when each access must be translated anew. The owner changes it
    /// only while the board is paused.
    virtual uint8_t *direct() const = 0;
};

/// Takes a run of bytes piece by piece.
class Taker {
  public:
    virtual ~Taker() = default;
    /// `piece` is valid during the call, and a guest may change it meanwhile. False: enough.
    virtual bool take(std::span<const uint8_t> piece) = 0;
};

/// Memory as one PCI function reaches it (bus master, IOMMU). RAM only: an access to anything else fails.
class GuestMemory {
  public:
    virtual ~GuestMemory() = default;
    virtual bool read(uint64_t address, void *to, size_t length) = 0;
    virtual bool write(uint64_t address, const void *from, size_t length) = 0;
    /// Shows what is there, in place if that can be, so that it is copied once. False: not all of it is
    /// reachable, or `taker` had enough.
    virtual bool show(uint64_t address, size_t length, Taker &taker);
    /// Null unless [address, address + length) is RAM in one piece.
    virtual std::unique_ptr<Window> open(uint64_t address, size_t length) = 0;
    /// For a queue that comes with a loaded state: it was RAM, and may be out of reach for now (bus master
    /// off). Null only if it never could be RAM.
    virtual std::unique_ptr<Window> reopen(uint64_t address, size_t length) { return open(address, length); }
};

/// Interrupts of one PCI function. Called with the guest lock held.
class Signals {
  public:
    virtual ~Signals() = default;
    virtual void raise(unsigned vector) = 0;
    /// From an active core, without the guest lock and without re-entering the board. False: use raise().
    virtual bool raise_unlocked(unsigned /*vector*/) { return false; }
};

/// QEMU's big lock, or nothing.
class GuestLock {
  public:
    virtual ~GuestLock() = default;
    virtual void lock() {}
    virtual void unlock() {}
    /// For what can wait. False: somebody has it.
    virtual bool try_lock() {
        lock();
        return true;
    }
};

/// The only source of time, in nanoseconds of any monotonic epoch.
class Clock {
  public:
    virtual ~Clock() = default;
    virtual uint64_t now() = 0;
};

class MonotonicClock final : public Clock {
  public:
    uint64_t now() override;
};

/// Called on the thread of a core.
class ThreadHooks {
  public:
    virtual ~ThreadHooks() = default;
    virtual void begin(unsigned /*core*/) {}
    virtual void end(unsigned /*core*/) {}
    /// Whether the core looks for work all the time: who waits for it had better not go to sleep.
    virtual void polling(bool /*polls*/) {}
    /// Board::pause() waits for a core that waits for what takes the guest lock (Core::this_one_waits()).
    virtual void attend() {}
};

enum class Verdict : uint8_t { Pending, Sent, Failed };

/// A frame that a port has for itself.
struct PortFrame {
    std::vector<uint8_t> frame;
    Offload offload{};
};

/// The wire.
class Port {
  public:
    virtual ~Port() = default;

    /// Sends frames in order and writes a verdict for each that it has dealt with. Frames that it leaves
    /// Pending are offered again; it then says so by blocked().
    virtual void send(std::span<const iovec> frames, std::span<Verdict> verdicts) = 0;
    virtual bool blocked() const = 0;
    /// Frames that are sent begin with a virtio_net_hdr, see offload.hpp: checksums and segments are others'
    /// work.
    virtual bool carries_offloads() const { return false; }
    /// Guest lock around send() and flush_receive().
    virtual bool wants_guest_lock() const { return false; }
    /// A frame that was Sent, and yet has not left: empty if there is none. It came back: send() sends it
    /// first.
    virtual PortFrame kept() const { return {}; }
    virtual bool wants_again() const { return false; }
    /// The VIF takes frames again after it refused one.
    virtual void flush_receive() {}
    /// A VIF is reset: a send() that is under way ends with the frame that it is at. shared: frames that wait
    /// in the port may be another VIF's; else they are to be forgotten.
    virtual void purge(bool /*shared*/) {}

    /// A port that a core polls itself. fill() reads frames if none is pending, and tells if any is.
    virtual bool native() const { return false; }
    virtual bool fill() { return false; }
    virtual std::span<const uint8_t> front() { return {}; }
    virtual Offload front_offload() const { return {}; }
    virtual void pop() {}
    /// When fill() will have something, on the board's clock; 0: unknown, or nothing is on its way.
    virtual uint64_t due() const { return 0; }
    /// The frames from front() on, which nobody has popped.
    virtual std::vector<PortFrame> pending() const { return {}; }
    /// The machine is about to run here: take the wire, if another process had it meanwhile. On failure false
    /// and one sentence. The board is paused, as it is for release(): the machine has left for another
    /// process.
    virtual bool activate(std::string & /*error*/) { return true; }
    virtual void release() {}
    /// The process ends without taking anything apart: removes what would stay behind in the file system.
    virtual void remove_files() const {}
    /// Descriptors to wait for: readable, and writable while blocked. -1: none.
    virtual int receive_fd() const { return -1; }
    virtual int send_fd() const { return -1; }

    /// What only this kind of port counts. By any thread.
    using Visitor = std::function<void(const char *name, uint64_t value)>;
    virtual void visit_counters(const Visitor & /*visit*/) const {}

    virtual size_t max_frame() const = 0;
    virtual uint32_t speed_mbps() const { return 0; }
};

} // namespace svio
