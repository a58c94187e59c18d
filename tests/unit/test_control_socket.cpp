// SPDX-License-Identifier: GPL-2.0-or-later
/// The management socket (SPEC.md 8.4): who may connect, lines and answers, garbage, peers that do not read
/// or vanish, and the file itself.
#include "control_socket.hpp"
#include "managed_board.hpp"
#include "temp_folder.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

using namespace svio;
using namespace svio::test;

namespace {

class Peer {
  public:
    explicit Peer(const std::string &path) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::copy(path.begin(), path.end(), address.sun_path);
        fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        connected = connect(fd_, reinterpret_cast<sockaddr *>(&address), sizeof(address)) == 0;
        timeval patience{30, 0}; // only ends a test that hangs
        setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    }
    ~Peer() { hang_up(); }
    Peer(const Peer &) = delete;
    Peer &operator=(const Peer &) = delete;
    void hang_up() {
        if (fd_ >= 0)
            close(fd_);
        fd_ = -1;
    }
    void say(const std::string &text) {
        ASSERT_EQ(send(fd_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    }
    /// As much as goes; the other end may not be reading.
    size_t shout(const std::string &text) {
        ssize_t n = send(fd_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        return n < 0 ? 0 : static_cast<size_t>(n);
    }
    void say_no_more() { shutdown(fd_, SHUT_WR); }
    /// One line, or what there is before the end.
    std::string hear() {
        char byte;
        std::string line;
        while (recv(fd_, &byte, 1, 0) == 1 && byte != '\n')
            line += byte;
        return line;
    }
    bool over() {
        char byte;
        return recv(fd_, &byte, 1, 0) <= 0;
    }
    bool connected = false;

  private:
    int fd_ = -1;
};

std::string echo(std::string_view line) {
    return "<" + std::string(line) + ">";
}

void work(ControlSocket &socket, const ControlSocket::Answer &answer = echo) {
    for (unsigned n = 0; socket.step(answer); n++)
        ASSERT_LT(n, 100'000u);
}

class Control : public testing::Test {
  protected:
    TempFolder folder;
    std::string path = folder / "m";
    ControlSocket socket{path, {.too_many = "many", .too_long = "long"}};
};

std::string refusal(const std::string &path) {
    try {
        ControlSocket socket(path, {});
    } catch (const std::runtime_error &error) {
        return error.what();
    }
    return "";
}

} // namespace

TEST_F(Control, TheFileIsForItsOwnerAlone) {
    struct stat status;
    ASSERT_EQ(lstat(path.c_str(), &status), 0);
    EXPECT_TRUE(S_ISSOCK(status.st_mode));
    EXPECT_EQ(status.st_mode & 07777, 0600u);
}

TEST_F(Control, LinesAreAnsweredInOrder) {
    Peer peer(path);
    ASSERT_TRUE(peer.connected);
    peer.say("one\ntwo\n\n  \nthr");
    work(socket);
    EXPECT_EQ(peer.hear(), "<one>");
    EXPECT_EQ(peer.hear(), "<two>") << "and nothing for empty lines";
    peer.say("ee\n");
    work(socket);
    EXPECT_EQ(peer.hear(), "<three>");
    peer.say("last\nhalf a line");
    peer.say_no_more();
    work(socket);
    EXPECT_EQ(peer.hear(), "<last>");
    EXPECT_TRUE(peer.over());
    EXPECT_EQ(socket.connections(), 0u);
}

TEST_F(Control, PeersTakeTurns) {
    Peer greedy(path), modest(path);
    std::string many;
    for (unsigned n = 0; n < 100; n++)
        many += "greedy\n";
    greedy.say(many);
    modest.say("modest\n");
    std::vector<std::string> order;
    work(socket, [&](std::string_view line) {
        order.emplace_back(line);
        return std::string("ok");
    });
    ASSERT_EQ(order.size(), 101u);
    EXPECT_NE(std::find(order.begin(), order.begin() + 3, "modest"), order.begin() + 3);
}

TEST_F(Control, OneLineAtATime) {
    Peer peer(path);
    peer.say("a\nb\nc\n");
    unsigned answered = 0;
    auto count = [&](std::string_view) {
        answered++;
        return std::string();
    };
    while (socket.step(count)) {
        EXPECT_LE(answered, 3u);
        unsigned before = answered;
        socket.step(count);
        EXPECT_LE(answered, before + 1);
    }
    EXPECT_EQ(answered, 3u);
}

TEST_F(Control, AnEndlessLineEndsTheConnection) {
    for (bool with_end : {false, true}) {
        Peer peer(path);
        size_t said = 0;
        std::string piece(10000, 'x');
        while (said <= ControlSocket::line_max) {
            peer.say(piece);
            said += piece.size();
            if (said <= ControlSocket::line_max)
                work(socket);
        }
        if (with_end)
            peer.say("\n");
        work(socket);
        EXPECT_EQ(peer.hear(), "long");
        EXPECT_TRUE(peer.over());
        EXPECT_EQ(socket.connections(), 0u);
    }
    Peer peer(path);
    peer.say(std::string(ControlSocket::line_max, 'y') + "\n");
    work(socket);
    EXPECT_EQ(peer.hear().size(), ControlSocket::line_max + 2) << "the longest that is allowed";
}

TEST_F(Control, ConnectionsAreBounded) {
    std::vector<std::unique_ptr<Peer>> peers;
    for (size_t n = 0; n < ControlSocket::connections_max; n++) {
        peers.push_back(std::make_unique<Peer>(path));
        work(socket);
    }
    Peer late(path);
    work(socket);
    EXPECT_EQ(late.hear(), "many");
    EXPECT_TRUE(late.over());
    peers.pop_back();
    work(socket);
    Peer next(path);
    next.say("hello\n");
    work(socket);
    EXPECT_EQ(next.hear(), "<hello>");
}

TEST_F(Control, WhoDoesNotReadIsNotListenedTo) {
    Peer deaf(path), other(path);
    std::string answer(100'000, 'a');
    unsigned answered = 0;
    auto long_answer = [&](std::string_view) {
        answered++;
        return answer;
    };
    size_t said = 0;
    for (unsigned n = 0; n < 100; n++) {
        said += deaf.shout(std::string(1000, '?') + "\n");
        work(socket, long_answer);
    }
    EXPECT_LT(answered, 20u) << "what nobody reads is not kept without end";
    other.say("x\n");
    work(socket);
    EXPECT_EQ(other.hear(), "<x>");
    unsigned heard = 0;
    while (heard < answered) {
        work(socket, long_answer);
        EXPECT_EQ(deaf.hear().size(), answer.size());
        heard++;
        if (said / 1001 == heard)
            break;
    }
    EXPECT_GT(heard, 2u);
}

TEST_F(Control, PeersThatVanish) {
    for (unsigned n = 0; n < 50; n++) {
        Peer peer(path);
        peer.say("gone\nhalf");
        if (n % 2)
            work(socket);
        peer.hang_up();
        work(socket);
        EXPECT_EQ(socket.connections(), 0u);
    }
    Peer peer(path);
    peer.say("while it is answered\n");
    unsigned answered = 0;
    work(socket, [&](std::string_view) {
        peer.hang_up();
        answered++;
        return std::string(1 << 20, 'a');
    });
    EXPECT_EQ(answered, 1u) << "a command that was read whole is run";
    EXPECT_EQ(socket.connections(), 0u);
}

TEST_F(Control, WithoutDescriptorsItDoesNotSpin) {
    rlimit before;
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    Peer peer(path);
    int next = dup(0);
    close(next);
    rlimit none = before;
    none.rlim_cur = static_cast<rlim_t>(next);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    bool found = socket.step(echo);
    std::vector<pollfd> watched;
    int timeout = socket.watch(watched);
    setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_FALSE(found);
    EXPECT_TRUE(watched.empty());
    EXPECT_GT(timeout, 0);
    peer.say("now\n");
    work(socket);
    EXPECT_EQ(peer.hear(), "<now>");
}

TEST(ControlFile, WhereNoSocketCanBe) {
    TempFolder folder;
    EXPECT_NE(refusal("").find("1 to 107 bytes"), std::string::npos);
    EXPECT_NE(refusal(folder / std::string(200, 'x')).find("1 to 107 bytes"), std::string::npos);
    EXPECT_NE(refusal(folder / "none/m").find("No such file"), std::string::npos);
    std::string file = folder / "file";
    int fd = open(file.c_str(), O_CREAT | O_WRONLY, 0600);
    ASSERT_GE(fd, 0);
    close(fd);
    EXPECT_NE(refusal(file).find("there is something else"), std::string::npos);
    EXPECT_EQ(access(file.c_str(), F_OK), 0) << "not ours to remove";
    std::string path = folder / "m";
    {
        ControlSocket socket(path, {});
        EXPECT_NE(refusal(path).find("another process listens"), std::string::npos);
        EXPECT_EQ(access(path.c_str(), F_OK), 0);
    }
    EXPECT_NE(access(path.c_str(), F_OK), 0) << "removed in the end";
}

TEST(ControlFile, OneThatWasLeftBehindIsReplacedAndAStrangersStays) {
    TempFolder folder;
    std::string path = folder / "m";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::copy(path.begin(), path.end(), address.sun_path);
    int dead = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(bind(dead, reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
    close(dead);
    auto first = std::make_unique<ControlSocket>(path, ControlSocket::Refusals{});
    unlink(path.c_str());
    ControlSocket second(path, {});
    first.reset();
    EXPECT_EQ(access(path.c_str(), F_OK), 0) << "the second one's file";
}

// ---- a board behind it, with its thread ----

TEST(ControlThreads, ABoardBehindTheSocket) {
    TempFolder folder;
    size_t descriptors = descriptors_now(), threads = threads_now();
    {
        ManagedBoard board({.threads = true, .socket = folder / "m"});
        Peer peer(folder / "m");
        peer.say("{\"op\":\"vif-create\",\"slot\":1,\"tag\":1}\n\x01\x02garbage\n{\"op\":\"vif-list\"}\n");
        EXPECT_EQ(Json::parse(peer.hear()).at("id"), 2);
        EXPECT_EQ(Json::parse(peer.hear()).at("status"), "INVALID");
        EXPECT_EQ(Json::parse(peer.hear()).at("vifs").size(), 2u);
        std::vector<std::thread> clients;
        for (unsigned n = 0; n < 4; n++) {
            clients.emplace_back([&, n] {
                for (unsigned round = 0; round < 25; round++) {
                    Peer client(folder / "m");
                    if (round % 5 == 4) {
                        client.say("{\"op\":\"vif-list\"}\n{\"op\":"); // and goes
                        continue;
                    }
                    std::string id = std::to_string(n * 100 + round);
                    client.say("{\"op\":\"info\",\"tag\":\"" + id + "\"}\n");
                    EXPECT_EQ(Json::parse(client.hear()).at("tag"), id);
                }
            });
        }
        for (std::thread &client : clients)
            client.join();
        peer.say("{\"op\":\"vif-destroy\",\"id\":2}\n");
        EXPECT_EQ(Json::parse(peer.hear()).at("status"), "OK");
    }
    EXPECT_EQ(descriptors_now(), descriptors);
    EXPECT_EQ(threads_now(), threads);
    EXPECT_NE(access((folder / "m").c_str(), F_OK), 0);
}

TEST(ControlThreads, StoppedInTheMiddleOfRequests) {
    TempFolder folder;
    for (unsigned round = 0; round < 10; round++) {
        auto board = std::make_unique<ManagedBoard>(ManagedOptions{.threads = true, .socket = folder / "m"});
        Peer peer(folder / "m");
        for (unsigned n = 0; n < 200; n++)
            peer.shout("{\"op\":\"vif-create\",\"slot\":1}\n{\"op\":\"vif-destroy\",\"slot\":1}\n");
        EXPECT_EQ(Json::parse(peer.hear()).at("status"), "OK");
        board.reset();
        while (!peer.over()) {
        }
    }
}
