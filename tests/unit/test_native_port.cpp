// SPDX-License-Identifier: GPL-2.0-or-later
/// Ports that a core polls itself: unix datagram sockets and tap interfaces.
#include "driver.hpp"
#include "native_port.hpp"
#include "temp_folder.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

using namespace svio;
using namespace svio::test;

namespace {

std::unique_ptr<Port> open_port(const std::string &spec) {
    std::string error;
    auto port = open_native_port(spec, error);
    EXPECT_NE(port, nullptr) << error;
    EXPECT_EQ(error, "");
    return port;
}

std::string error_of(const std::string &spec) {
    std::string error;
    EXPECT_EQ(open_native_port(spec, error), nullptr) << spec;
    return error;
}

Verdict send_one(Port &port, const Frame &frame) {
    Frame whole(port.carries_offloads() ? vnet_header_size : 0);
    whole.insert(whole.end(), frame.begin(), frame.end());
    iovec iov = {whole.data(), whole.size()};
    Verdict verdict = Verdict::Pending;
    port.send({&iov, 1}, {&verdict, 1});
    return verdict;
}

std::vector<Frame> receive_all(Port &port) {
    std::vector<Frame> frames;
    for (; port.fill(); port.pop())
        frames.emplace_back(port.front().begin(), port.front().end());
    return frames;
}

bool readable(int fd) {
    pollfd wait = {fd, POLLIN, 0};
    return poll(&wait, 1, 0) == 1;
}

bool writable(int fd) {
    pollfd wait = {fd, POLLOUT, 0};
    return poll(&wait, 1, 0) == 1;
}

class Dgram : public testing::Test {
  protected:
    std::unique_ptr<Port> a() { return open_port("dgram:" + (folder / "a") + "," + (folder / "b")); }
    std::unique_ptr<Port> b() { return open_port("dgram:" + (folder / "b") + "," + (folder / "a")); }
    TempFolder folder;
};

} // namespace

TEST(NativePortParser, SaysWhatItWants) {
    for (const char *spec : {"", "dgram", "dgram:", "dgram:/a", "dgram:/a,", "dgram:,/b", "dgram:,", "tap",
                             "tap:", "udp:1,2", ":", "TAP:x", "dgram /a,/b"}) {
        std::string error = error_of(spec);
        EXPECT_NE(error.find("dgram:LOCAL,REMOTE"), std::string::npos) << error;
        EXPECT_NE(error.find("tap:IFNAME"), std::string::npos) << error;
        EXPECT_NE(error.find(std::string("port=") + spec), std::string::npos) << error;
    }
}

TEST(NativePortParser, InterfaceNameTooLong) {
    EXPECT_NE(error_of("tap:a234567890123456").find("too long"), std::string::npos);
}

TEST_F(Dgram, PathTooLong) {
    std::string longest = folder / std::string(107 - (folder / "").size(), 'x'), too_long = longest + "x";
    ASSERT_EQ(longest.size(), 107u);
    EXPECT_NE(error_of("dgram:" + too_long + "," + (folder / "b")).find("107"), std::string::npos);
    EXPECT_NE(error_of("dgram:" + (folder / "a") + "," + too_long).find("107"), std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
    open_port("dgram:" + longest + "," + (folder / "b"));
}

TEST_F(Dgram, FolderMissing) {
    std::string error = error_of("dgram:" + (folder / "no/a") + "," + (folder / "b"));
    EXPECT_NE(error.find("cannot bind"), std::string::npos) << error;
    EXPECT_NE(error.find("No such file"), std::string::npos) << error;
}

TEST_F(Dgram, FramesOfAllLengthsBothWays) {
    auto pa = a(), pb = b();
    EXPECT_TRUE(pa->native());
    EXPECT_FALSE(pa->wants_guest_lock());
    for (size_t length : {size_t{14}, size_t{60}, size_t{1514}, size_t{9014}, size_t{SVIO_MESSAGE_MAX}}) {
        Frame there = make_frame(length, length), back = make_frame(length, length + 1);
        EXPECT_EQ(send_one(*pa, there), Verdict::Sent);
        EXPECT_TRUE(readable(pb->receive_fd()));
        EXPECT_EQ(receive_all(*pb), std::vector<Frame>{there});
        EXPECT_EQ(send_one(*pb, back), Verdict::Sent);
        EXPECT_EQ(receive_all(*pa), std::vector<Frame>{back});
    }
    EXPECT_FALSE(pa->fill());
    EXPECT_FALSE(readable(pa->receive_fd()));
}

TEST_F(Dgram, FrontStaysUntilItIsPopped) {
    auto pa = a(), pb = b();
    for (uint64_t n = 0; n < 5; n++)
        ASSERT_EQ(send_one(*pa, make_frame(60, n)), Verdict::Sent);
    for (uint64_t n = 0; n < 5; n++) {
        for (int again = 0; again < 3; again++) {
            ASSERT_TRUE(pb->fill());
            auto front = pb->front();
            ASSERT_EQ(Frame(front.begin(), front.end()), make_frame(60, n));
        }
        pb->pop();
    }
    EXPECT_FALSE(pb->fill());
}

TEST_F(Dgram, PeerAbsentIsAFailureOfEachFrameAndNothingElse) {
    auto pa = a();
    for (int n = 0; n < 100; n++)
        ASSERT_EQ(send_one(*pa, make_frame(60, 1)), Verdict::Failed);
    EXPECT_FALSE(pa->blocked());
    auto pb = b(); // it comes later
    EXPECT_EQ(send_one(*pa, make_frame(60, 2)), Verdict::Sent);
    EXPECT_EQ(receive_all(*pb), std::vector<Frame>{make_frame(60, 2)});
}

TEST_F(Dgram, PeerStartedAnewAtTheSamePath) {
    auto pa = a();
    for (uint64_t n = 0; n < 10; n++) {
        auto pb = b();
        ASSERT_EQ(send_one(*pa, make_frame(60, n)), Verdict::Sent)
            << "the first frame already reaches the new one";
        ASSERT_EQ(receive_all(*pb), std::vector<Frame>{make_frame(60, n)});
        ASSERT_EQ(send_one(*pb, make_frame(60, n)), Verdict::Sent);
        ASSERT_EQ(receive_all(*pa), std::vector<Frame>{make_frame(60, n)});
        pb.reset();
        if (n % 2) {
            ASSERT_EQ(send_one(*pa, make_frame(60, n)), Verdict::Failed);
        }
    }
}

TEST_F(Dgram, AFullQueueBlocksAndLaterAllArrive) {
    auto pa = a(), pb = b();
    constexpr uint64_t total = 5000;
    std::vector<Frame> frames;
    for (uint64_t n = 0; n < total; n++)
        frames.push_back(make_frame(60 + n % 1400, n));
    std::vector<Frame> got;
    size_t next = 0, blocks = 0;
    while (got.size() < total) {
        ASSERT_TRUE(next < total || readable(pb->receive_fd())) << "lost after " << got.size();
        while (next < total) {
            std::vector<iovec> iov;
            for (size_t i = next; i < std::min<size_t>(next + 64, total); i++)
                iov.push_back({frames[i].data(), frames[i].size()});
            std::vector<Verdict> verdicts(iov.size(), Verdict::Pending);
            pa->send(iov, verdicts);
            size_t sent = 0;
            while (sent < verdicts.size() && verdicts[sent] == Verdict::Sent)
                sent++;
            for (size_t i = sent; i < verdicts.size(); i++)
                ASSERT_EQ(verdicts[i], Verdict::Pending) << "a full queue is no failure";
            next += sent;
            ASSERT_EQ(pa->blocked(), sent < verdicts.size());
            if (pa->blocked()) {
                blocks++;
                ASSERT_FALSE(writable(pa->send_fd()));
                break;
            }
        }
        for (Frame &frame : receive_all(*pb))
            got.push_back(std::move(frame));
        if (next < total) {
            EXPECT_TRUE(writable(pa->send_fd())) << "poll() tells of room again";
        }
    }
    EXPECT_EQ(got, frames);
    EXPECT_GT(blocks, 0u);
}

TEST_F(Dgram, APeerThatDiesWhileItsQueueIsFullUnblocks) {
    auto pa = a(), pb = b();
    while (send_one(*pa, make_frame(60, 1)) == Verdict::Sent) {
    }
    ASSERT_TRUE(pa->blocked());
    pb.reset();
    EXPECT_TRUE(writable(pa->send_fd()));
    EXPECT_EQ(send_one(*pa, make_frame(60, 2)), Verdict::Failed);
    EXPECT_FALSE(pa->blocked());
}

TEST_F(Dgram, AStaleSocketFileIsReplaced) {
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (folder / "a").copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
    close(fd); // as a killed process leaves it
    ASSERT_TRUE(std::filesystem::exists(folder / "a"));
    auto pa = a(), pb = b();
    ASSERT_EQ(send_one(*pb, make_frame(60, 3)), Verdict::Sent);
    EXPECT_EQ(receive_all(*pa), std::vector<Frame>{make_frame(60, 3)});
}

TEST_F(Dgram, AnotherFileAtThePathIsNotRemoved) {
    std::ofstream(folder / "a") << "precious";
    std::string error = error_of("dgram:" + (folder / "a") + "," + (folder / "b"));
    EXPECT_NE(error.find("Address already in use"), std::string::npos) << error;
    std::string content;
    std::ifstream(folder / "a") >> content;
    EXPECT_EQ(content, "precious");
}

TEST_F(Dgram, TheSocketFileGoesWithThePortAndNoDescriptorStays) {
    size_t before = descriptors_now();
    a();
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
    std::string error;
    open_native_port("dgram:" + (folder / "no/a") + ",/b", error);
    EXPECT_EQ(descriptors_now(), before);
}

TEST_F(Dgram, ABoardCountsFramesToAnAbsentPeer) {
    Rig rig({}, a());
    rig.bring_up();
    for (uint64_t n = 0; n < 10; n++)
        rig.tx.post(make_frame(60, n));
    rig.work();
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_TX_PORT_ERROR), 10u);
    EXPECT_EQ(rig.stat(SVIO_STAT_TX_FRAMES), 0u);
    EXPECT_EQ(rig.tx.done(), 10u);
}

TEST_F(Dgram, ABoardDropsEmptyAndTinyDatagrams) {
    Rig rig({}, a());
    auto pb = b();
    rig.bring_up();
    rig.rx.post_all();
    send_one(*pb, {});
    send_one(*pb, make_frame(13, 1));
    send_one(*pb, make_frame(60, 2));
    rig.work();
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_RUNT), 2u);
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{make_frame(60, 2)});
}

TEST_F(Dgram, ADatagramThatDoesNotFitIsNotCutIntoAFrame) {
    Rig rig({}, a());
    auto pb = b();
    rig.bring_up(64, 4096);
    rig.rx.post_all();
    ASSERT_EQ(send_one(*pb, make_frame(SVIO_MESSAGE_MAX + 1, 1)), Verdict::Sent);
    ASSERT_EQ(send_one(*pb, make_frame(60, 2)), Verdict::Sent);
    rig.work();
    EXPECT_EQ(rig.stat(SVIO_STAT_DROP_RX_TOO_LONG), 1u);
    EXPECT_EQ(rig.rx.take_all(), std::vector<Frame>{make_frame(60, 2)});
}

// ---- tap, in a network of its own ----

namespace {

constexpr uint16_t ether_type = 0x88b5; // as make_frame()

struct TapHost {
    std::string skip; ///< why it cannot run here
    std::unique_ptr<Port> port;
    int socket_fd = -1;
    ~TapHost() {
        if (socket_fd >= 0)
            close(socket_fd);
    }

    void open() {
        if (unshare(CLONE_NEWNET) < 0) {
            skip = std::string("no network namespace of one's own: ") + std::strerror(errno);
            return;
        }
        int tun = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC);
        if (tun < 0) {
            skip = std::string("cannot open /dev/net/tun: ") + std::strerror(errno);
            return;
        }
        close(tun);
        port = open_port("tap:svio-unit");
        ASSERT_NE(port, nullptr);
        socket_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ether_type));
        ASSERT_GE(socket_fd, 0);
        set_up(true); // a packet socket bound while it is down would start with an error
        ifreq request{};
        std::strcpy(request.ifr_name, "svio-unit");
        ASSERT_EQ(ioctl(socket_fd, SIOCGIFINDEX, &request), 0);
        sockaddr_ll address{};
        address.sll_family = AF_PACKET;
        address.sll_protocol = htons(ether_type);
        address.sll_ifindex = request.ifr_ifindex;
        ASSERT_EQ(bind(socket_fd, reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
        timeval patience = {20, 0};
        setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    }
    void set_up(bool up) {
        ifreq request{};
        std::strcpy(request.ifr_name, "svio-unit");
        ASSERT_EQ(ioctl(socket_fd, SIOCGIFFLAGS, &request), 0);
        request.ifr_flags = static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
        ASSERT_EQ(ioctl(socket_fd, SIOCSIFFLAGS, &request), 0) << std::strerror(errno);
    }
    Frame receive() {
        Frame frame(2000);
        ssize_t n = recv(socket_fd, frame.data(), frame.size(), 0);
        frame.resize(n < 0 ? 0 : static_cast<size_t>(n));
        return frame;
    }
    void send(const Frame &frame) {
        ASSERT_EQ(::send(socket_fd, frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
    }
};

/// The kernel talks on a new interface too (IPv6 discovery): what is not ours is not looked at.
bool ours(const Frame &frame) {
    return frame.size() >= 14 && frame[12] == (ether_type >> 8) && frame[13] == (ether_type & 0xff);
}

/// Runs `body` on a thread that has a network of its own. Returns why it could not.
std::string with_tap(const std::function<void(TapHost &)> &body) {
    std::string skip;
    std::thread([&] {
        TapHost host;
        host.open();
        skip = host.skip;
        if (host.port)
            body(host);
    }).join();
    return skip;
}

} // namespace

TEST(Tap, ExchangesFramesWithTheHost) {
    std::string skip = with_tap([](TapHost &host) {
        for (size_t length : {size_t{60}, size_t{61}, size_t{1514}}) {
            Frame out = make_frame(length, 1), in = make_frame(length, 2);
            EXPECT_EQ(send_one(*host.port, out), Verdict::Sent);
            EXPECT_EQ(host.receive(), out);
            host.send(in);
            Frame got;
            EXPECT_TRUE(eventually([&] {
                for (Frame &frame : receive_all(*host.port)) {
                    if (ours(frame))
                        got = frame;
                }
                return !got.empty();
            }));
            EXPECT_EQ(got, in);
        }
        host.set_up(false);
        EXPECT_EQ(send_one(*host.port, make_frame(60, 3)), Verdict::Failed) << "the interface is down";
        EXPECT_FALSE(host.port->blocked());
        std::string error = error_of("tap:svio-unit");
        EXPECT_NE(error.find("cannot attach to the tap interface svio-unit"), std::string::npos) << error;
        EXPECT_NE(error.find("ip tuntap add"), std::string::npos) << error;
    });
    if (!skip.empty())
        GTEST_SKIP() << "not run: " << skip;
}

TEST(Tap, CarriesABoardsTraffic) {
    std::string skip = with_tap([](TapHost &host) {
        Rig rig({.cores = 2, .threads = true, .manual_clock = false}, std::move(host.port));
        rig.bring_up();
        rig.rx.post_all();
        rig.kick(SVIO_RECEIVE, rig.rx, 0);
        for (uint64_t n = 0; n < 300; n++) {
            Frame out = make_frame(60 + n, n, peer_mac, vif_mac), in = make_frame(70 + n, n);
            rig.send(out);
            ASSERT_EQ(host.receive(), out);
            host.send(in);
            ASSERT_TRUE(eventually([&] { return rig.rx.ready(); }));
            ASSERT_EQ(rig.rx.take(), in);
            uint32_t from = rig.rx.next;
            rig.rx.post_all();
            rig.kick(SVIO_RECEIVE, rig.rx, from);
        }
        // The core counts a frame after the other side may have seen it.
        EXPECT_TRUE(eventually([&] { return rig.stat(SVIO_STAT_TX_FRAMES) == 300; }));
        EXPECT_TRUE(eventually([&] { return rig.stat(SVIO_STAT_RX_FRAMES) == 300; }));
    });
    if (!skip.empty())
        GTEST_SKIP() << "not run: " << skip;
}
