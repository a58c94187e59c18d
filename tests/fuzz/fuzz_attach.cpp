// SPDX-License-Identifier: GPL-2.0-or-later
/// The attach protocol before hostile peers (SPEC.md chapter 15): packets that are torn, altered or out of
/// order, with descriptors of all kinds, on several connections of one board, which works meanwhile on rings
/// that are garbage. Whatever comes, each packet has an answer in form or ends its connection, slots are
/// nobody's twice, nothing of a peer stays behind (slots, VIFs, descriptors), and two peers that behave reach
/// each other.
#include "../../hv-interface/svio_attach.h"
#include "attach.hpp"
#include "event_writer.hpp"
#include "input.hpp"
#include "no_port.hpp"

#include <array>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

namespace svio::fuzz {

namespace {

constexpr unsigned slots = 3, peers = 4; // one more than there is room for
constexpr size_t ram_size = 1 << 20;
constexpr uint32_t ring_size = 16;
constexpr uint64_t ring_at[] = {0x0000, 0x1000}, event_at[] = {0x2000, 0x3000};
constexpr uint64_t buffers_at = 0x10000, buffer_size = 0x1000;
constexpr size_t frame_size = 90;

int sealed_file(size_t size, int seals) {
    int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    MUST(fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0);
    MUST(seals == 0 || fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

size_t open_descriptors() {
    DIR *folder = opendir("/proc/self/fd");
    MUST(folder);
    size_t count = 0;
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

template <typename Struct> void append(std::vector<uint8_t> &to, const Struct &what) {
    const auto *bytes = reinterpret_cast<const uint8_t *>(&what);
    to.insert(to.end(), bytes, bytes + sizeof(what));
}

/// What descriptors a peer could send.
class Files {
  public:
    Files() {
        MUST(pipe2(pipe_.data(), O_CLOEXEC) == 0);
        full_ = eventfd(0, EFD_CLOEXEC); // a write would wait
        MUST(eventfd_write(full_, ~uint64_t{1}) == 0);
        all_ = {sealed_file(ram_size, F_SEAL_SHRINK),
                sealed_file(ram_size, 0),
                sealed_file(4096, F_SEAL_SHRINK),
                sealed_file(0, F_SEAL_SHRINK),
                open("/dev/null", O_RDWR | O_CLOEXEC),
                pipe_[0],
                pipe_[1],
                eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                full_};
        at_ = static_cast<uint8_t *>(mmap(nullptr, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED, all_[0], 0));
        MUST(at_ != MAP_FAILED);
    }
    Descriptor copy(unsigned kind) const {
        return Descriptor(fcntl(all_[kind % all_.size()], F_DUPFD_CLOEXEC, 0));
    }
    static constexpr unsigned memory = 0, event = 7;
    uint8_t *ram() const { return at_; }

  private:
    std::array<int, 2> pipe_{};
    int full_ = -1;
    std::vector<int> all_;
    uint8_t *at_ = nullptr;
};

/// A peer that keeps to the protocol.
class Peer {
  public:
    Peer(Attachments &all, const Mac &mac)
        : attached_(all, 1), mac_(mac), file_(sealed_file(ram_size, F_SEAL_SHRINK)) {
        ram_ = static_cast<uint8_t *>(
            mmap(nullptr, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0));
        MUST(ram_ != MAP_FAILED);
    }
    ~Peer() { munmap(ram_, ram_size); }

    void bring_up() {
        svio_attach_vif vif{};
        std::memcpy(vif.mac, mac_.data(), mac_.size());
        vif.queue_pairs = 1;
        ask(SVIO_ATTACH_HELLO, svio_attach_hello{SVIO_ATTACH_VERSION, 0, 0});
        ask(SVIO_ATTACH_ATTACH, vif);
        std::vector<uint8_t> table;
        append(table, svio_attach_memory{1, 0});
        append(table, svio_attach_region{0, ram_size, 0});
        std::vector<Descriptor> files;
        files.emplace_back(fcntl(file_.get(), F_DUPFD_CLOEXEC, 0));
        send(SVIO_ATTACH_MEMORY, table, std::move(files));
        ask(SVIO_ATTACH_DMA, svio_attach_count{1, 0});
        write(SVIO_REG_DRIVER_FEATURES_LO, 0);
        write(SVIO_REG_DRIVER_FEATURES_HI, 0);
        write(SVIO_REG_CONTROL, SVIO_CONTROL_FEATURES_OK);
        for (unsigned direction : {0u + SVIO_SEND, 0u + SVIO_RECEIVE})
            enable(direction);
        post(SVIO_RECEIVE, static_cast<uint32_t>(buffer_size));
        write(SVIO_REG_CONTROL, SVIO_CONTROL_RUN);
    }
    void transmit(const Peer &to, uint8_t seed) {
        uint8_t *frame = ram_ + buffer(SVIO_SEND);
        std::memcpy(frame, to.mac_.data(), 6);
        std::memcpy(frame + 6, mac_.data(), 6);
        std::memset(frame + 12, seed, frame_size - 12);
        post(SVIO_SEND, frame_size);
        write(SVIO_REG_BELLS, 0);
    }
    /// The frame that has come.
    void expect(const Peer &from, uint8_t seed) const {
        svio_entry entry;
        std::memcpy(&entry, ram_ + ring_at[SVIO_RECEIVE], sizeof(entry));
        MUST(entry.flags & SVIO_ENTRY_DONE);
        MUST_EQ(entry.len, frame_size);
        const uint8_t *frame = ram_ + buffer(SVIO_RECEIVE);
        MUST(std::memcmp(frame, mac_.data(), 6) == 0 && std::memcmp(frame + 6, from.mac_.data(), 6) == 0);
        for (size_t n = 12; n < frame_size; n++)
            MUST_EQ(frame[n], seed);
    }

  private:
    static uint64_t buffer(unsigned direction) { return buffers_at + direction * buffer_size; }
    template <typename Struct> void ask(uint32_t request, const Struct &payload) {
        std::vector<uint8_t> bytes;
        append(bytes, payload);
        send(request, bytes, {});
    }
    void send(uint32_t request, const std::vector<uint8_t> &payload, std::vector<Descriptor> files) {
        std::vector<uint8_t> packet;
        append(packet, svio_attach_header{request, 0, 0, static_cast<uint32_t>(payload.size())});
        packet.insert(packet.end(), payload.begin(), payload.end());
        svio_attach_header answer;
        std::memcpy(&answer, attached_.handle(packet, std::move(files)).data(), sizeof(answer));
        MUST_EQ(answer.status, SVIO_ST_OK);
    }
    void write(uint32_t offset, uint32_t value) {
        ask(SVIO_ATTACH_WRITE, svio_attach_register{offset, value});
    }
    void enable(unsigned direction) {
        auto set = [&](uint32_t reg, uint32_t value) { write(SVIO_QUEUE_REG(0, direction, reg), value); };
        set(SVIO_QUEUE_BASE_LO, static_cast<uint32_t>(ring_at[direction]));
        set(SVIO_QUEUE_BASE_HI, 0);
        set(SVIO_QUEUE_EVENT_LO, static_cast<uint32_t>(event_at[direction]));
        set(SVIO_QUEUE_EVENT_HI, 0);
        set(SVIO_QUEUE_SIZE, ring_size);
        set(SVIO_QUEUE_VECTOR, SVIO_NO_VECTOR);
        set(SVIO_QUEUE_CONTROL, SVIO_QUEUE_ENABLE);
    }
    void post(unsigned direction, uint32_t length) {
        svio_entry entry{};
        entry.addr = buffer(direction);
        entry.len = length;
        entry.flags = SVIO_ENTRY_POSTED; // of the first lap
        std::memcpy(ram_ + ring_at[direction], &entry, sizeof(entry));
    }

    Attached attached_;
    const Mac mac_;
    Descriptor file_;
    uint8_t *ram_ = nullptr;
};

class AttachMachine {
  public:
    AttachMachine() : all_(config(), std::make_unique<NoPort>()) {}
    int play(Input &in);

  private:
    static Attachments::Config config() {
        Attachments::Config config;
        config.board.cores = 1;
        config.board.poll_us = 0;
        config.board.threads = false;
        config.slots = slots;
        config.mac = {0x52, 0x54, 0, 1, 2, 3};
        return config;
    }
    void move(Input &in);
    std::vector<uint8_t> request(Input &in, size_t &descriptors);
    std::vector<uint8_t> payload(Input &in, uint32_t request, size_t &descriptors);
    void packet(Input &in, std::unique_ptr<Attached> &peer);
    void check_answer(std::span<const uint8_t> packet, std::span<const uint8_t> answer);
    void check();
    void work() {
        for (unsigned n = 0; n < 1000 && all_.board().core(0).round(); n++) {
        }
    }
    void end();

    Attachments all_;
    Files files_;
    std::array<std::unique_ptr<Attached>, peers> peers_;
    size_t descriptors_ = 0;
};

std::vector<uint8_t> AttachMachine::payload(Input &in, uint32_t request, size_t &descriptors) {
    std::vector<uint8_t> bytes;
    switch (request) {
    case SVIO_ATTACH_HELLO:
        append(bytes, svio_attach_hello{in.below(4) ? 1u : in.u32(), in.u8(), in.u8()});
        break;
    case SVIO_ATTACH_ATTACH: {
        svio_attach_vif vif{};
        vif.name[0] = in.below(3) ? 0 : static_cast<uint8_t>('a' + in.below(2));
        vif.mac[0] = 2;
        vif.mac[5] = static_cast<uint8_t>(in.below(4));
        vif.queue_pairs = in.below(4) ? 1 : in.u16();
        vif.queue_size = in.below(4) ? 0 : in.u32();
        for (size_t n = in.below(8); n-- > 0;)
            vif.machine[n] = in.u8();
        append(bytes, vif);
        break;
    }
    case SVIO_ATTACH_MEMORY: {
        uint32_t count = in.below(4);
        append(bytes, svio_attach_memory{in.below(8) ? count : in.u32(), 0});
        for (uint32_t n = 0; n < count; n++) {
            uint64_t size = in.below(4) ? ram_size : in.u64();
            append(bytes, svio_attach_region{in.below(4) ? n * ram_size : in.u64(), size,
                                             in.below(4) ? 0 : uint64_t{in.u16()} << 12});
        }
        descriptors = count;
        break;
    }
    case SVIO_ATTACH_READ:
    case SVIO_ATTACH_WRITE: {
        // Of the queues and the mailbox more often than of holes.
        static constexpr uint32_t places[] = {0, SVIO_REG_MAILBOX, SVIO_REG_QUEUES, SVIO_REG_BELLS};
        uint32_t offset = in.below(8) ? places[in.below(4)] + 4 * (in.u8() & 0x3fu) : in.u32();
        append(bytes, svio_attach_register{offset, in.below(2) ? in.u8() : in.u32()});
        break;
    }
    case SVIO_ATTACH_SIGNALS:
    case SVIO_ATTACH_BELLS:
        descriptors = in.below(20);
        append(bytes, svio_attach_count{in.below(8) ? static_cast<uint32_t>(descriptors) : in.u32(), 0});
        break;
    case SVIO_ATTACH_DMA:
        append(bytes, svio_attach_count{in.below(8) ? in.below(2) : in.u32(), 0});
        break;
    default:
        break;
    }
    return bytes;
}

std::vector<uint8_t> AttachMachine::request(Input &in, size_t &descriptors) {
    uint32_t number = in.below(16) ? in.below(SVIO_ATTACH_COUNT) : in.u32();
    std::vector<uint8_t> body = payload(in, number, descriptors), whole;
    append(whole, svio_attach_header{number, in.u8(), in.below(16) ? 0u : in.u32(),
                                     in.below(16) ? static_cast<uint32_t>(body.size()) : in.u32()});
    whole.insert(whole.end(), body.begin(), body.end());
    if (in.below(12) == 0)
        whole.resize(in.u8() % (whole.size() + 1)); // torn
    if (in.below(12) == 0 && !whole.empty())
        whole[in.u8() % whole.size()] = in.u8();
    if (in.below(16) == 0)
        whole.resize(whole.size() + in.u8());
    return whole;
}

void AttachMachine::check_answer(std::span<const uint8_t> packet, std::span<const uint8_t> answer) {
    svio_attach_header asked, got;
    MUST(packet.size() >= sizeof(asked) && answer.size() >= sizeof(got));
    std::memcpy(&asked, packet.data(), sizeof(asked));
    std::memcpy(&got, answer.data(), sizeof(got));
    MUST_EQ(got.request, asked.request | SVIO_ATTACH_ANSWER);
    MUST_EQ(got.tag, asked.tag);
    MUST(got.status < SVIO_ST_COUNT);
    MUST_EQ(got.length, answer.size() - sizeof(got));
    MUST(got.status == SVIO_ST_OK || got.length == 0);
}

// As the server does it: whoever breaks the form is cut off.
void AttachMachine::packet(Input &in, std::unique_ptr<Attached> &peer) {
    size_t count = 0;
    std::vector<uint8_t> bytes = request(in, count);
    if (in.below(12) == 0)
        count = in.below(70);
    std::vector<Descriptor> descriptors;
    uint8_t kinds = in.u8();
    for (size_t n = 0; n < count; n++) {
        bool memory = bytes.size() >= 4 && bytes[0] == SVIO_ATTACH_MEMORY;
        descriptors.push_back(files_.copy(kinds & 3 ? (memory ? Files::memory : Files::event) : in.u8()));
    }
    bool had = peer->slot().has_value();
    try {
        std::vector<uint8_t> answer = peer->handle(bytes, std::move(descriptors));
        check_answer(bytes, answer);
        svio_attach_header got;
        std::memcpy(&got, answer.data(), sizeof(got));
        bool attached = got.request == (SVIO_ATTACH_ATTACH | SVIO_ATTACH_ANSWER) && got.status == SVIO_ST_OK;
        MUST_EQ(peer->slot().has_value(), had || attached);
        MUST((got.status == SVIO_ST_OK) == peer->refusal().empty());
    } catch (const ProtocolError &) {
        peer.reset();
    }
}

void AttachMachine::move(Input &in) {
    auto &peer = peers_[in.below(peers)];
    if (!peer)
        peer = std::make_unique<Attached>(all_, 1);
    switch (in.below(16)) {
    case 0:
        peer.reset();
        break;
    case 1:
    case 2:
        work();
        break;
    case 3:
        pieces.add();
        for (size_t n = in.u8() % 32u, at = in.u16() * 16u; n-- > 0;)
            files_.ram()[(at + n) % ram_size] = in.u8();
        break;
    default:
        pieces.add();
        packet(in, peer);
    }
    check();
}

void AttachMachine::check() {
    uint32_t seen = 0;
    for (const auto &peer : peers_) {
        if (!peer || !peer->slot())
            continue;
        uint32_t slot = *peer->slot();
        MUST(slot >= 1 && slot <= slots);
        MUST(!(seen & 1u << slot));
        MUST(peer->vif().present());
        seen |= 1u << slot;
    }
    for (uint32_t slot = 1; slot <= slots; slot++)
        MUST_EQ(all_.board().vif(slot).present(), (seen >> slot & 1) != 0);
}

void AttachMachine::end() {
    for (auto &peer : peers_)
        peer.reset();
    check();
    MUST_EQ(all_.core().management().list().size(), 1);
    MUST_EQ(open_descriptors(), descriptors_);
    Peer one(all_, {2, 0, 0, 0, 1, 1}), other(all_, {2, 0, 0, 0, 1, 2});
    one.bring_up();
    other.bring_up();
    one.transmit(other, 0x5a);
    other.transmit(one, 0xa5);
    work();
    other.expect(one, 0x5a);
    one.expect(other, 0xa5);
}

int AttachMachine::play(Input &in) {
    EventWriter::of_this_thread(); // which keeps one
    descriptors_ = open_descriptors();
    while (!in.empty())
        move(in);
    end();
    std::memset(files_.ram(), 0, ram_size);
    return 0;
}

} // namespace

} // namespace svio::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static svio::fuzz::AttachMachine machine;
    svio::fuzz::Input in(data, size);
    return machine.play(in);
}
