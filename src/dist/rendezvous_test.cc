#include "dist/rendezvous.h"

#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "dist/doorman.h"
#include "dist/handshake.h"
#include "dist/socket_group.h"
#include "dist/wire.h"

namespace fathom::dist {
namespace {

using std::chrono::milliseconds;

const std::string kSecret = "a secret of the tests";

Deadline soon() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(10);
}

// An address of this machine where nobody listens.
std::string free_address(const std::string& host = "127.0.0.1") {
  const Socket socket = listen_at(resolve(host + ":0").value()).value();
  return local_address(socket).text();
}

RendezvousOptions options_of(int node, int nodes, const std::string& address) {
  RendezvousOptions options;
  options.node = node;
  options.nodes = nodes;
  options.address = address;
  options.secret = kSecret;
  options.timeout = milliseconds(20'000);
  options.facts = {{"Fathom", "0.1.0"}, {"--tp", "4"}};
  return options;
}

// Each node's outcome; `wrong` changes the options of one.
std::vector<Result<Wiring>> meet(int nodes, const std::function<void(RendezvousOptions&)>& change = {},
                                 const std::string& host = "127.0.0.1") {
  const std::string address = free_address(host);
  std::vector<std::optional<Result<Wiring>>> results(static_cast<size_t>(nodes));
  std::vector<std::thread> threads;
  for (int node = 0; node < nodes; ++node) {
    threads.emplace_back([&, node] {
      auto options = options_of(node, nodes, address);
      if (change) change(options);
      results[static_cast<size_t>(node)] = meet_nodes(options);
    });
  }
  for (auto& thread : threads) thread.join();
  std::vector<Result<Wiring>> all;
  for (auto& result : results) all.push_back(std::move(*result));
  return all;
}

TEST(Rendezvous, AllRanksReachEachOther) {
  for (const char* host : {"127.0.0.1", "[::1]", "localhost"}) {
    auto wirings = meet(
        4, [](RendezvousOptions& options) { options.ranks = 1 + options.node % 3; }, host);
    std::vector<std::thread> ranks;
    std::atomic<int> done{0};
    std::vector<std::shared_ptr<NodeWorld>> worlds;
    for (auto& wiring : wirings) {
      ASSERT_TRUE(wiring.ok()) << wiring.error().message;
      EXPECT_EQ(wiring->ranks, (std::vector<int>{1, 2, 3, 1}));
      auto groups = make_socket_groups(*wiring, milliseconds(20'000));
      for (auto& group : groups.ranks) {
        ranks.emplace_back([&done, mine = std::move(group)] {
          std::vector<float> data(100'000, static_cast<float>(1 << mine->rank()));
          ASSERT_TRUE(mine->all_reduce(data.data(), 100'000, device::DType::kF32).ok());
          EXPECT_EQ(data.front(), 127.0F);
          EXPECT_EQ(data.back(), 127.0F);
          ++done;
        });
      }
    }
    for (auto& rank : ranks) rank.join();
    EXPECT_EQ(done, 7);
  }
}

TEST(Rendezvous, NobodyListensAfterwards) {
  const auto listening = [] {
    int count = 0;
    std::ifstream file("/proc/self/net/tcp");
    std::string line;
    while (std::getline(file, line)) count += line.find(" 0A ") != std::string::npos ? 1 : 0;
    return count;
  };
  const int before = listening();
  const auto wirings = meet(3);
  for (const auto& wiring : wirings) ASSERT_TRUE(wiring.ok()) << wiring.error().message;
  EXPECT_LE(listening(), before);
}

TEST(Rendezvous, WhatDiffersIsNamedOnAllNodes) {
  const auto wirings = meet(3, [](RendezvousOptions& options) {
    if (options.node == 1) options.timeout = milliseconds(2000);
    if (options.node != 2) return;
    options.facts = {{"Fathom", "0.1.0"}, {"--tp", "2"}, {"--dp", "3"}};
    std::this_thread::sleep_for(milliseconds(500));
  });
  for (size_t n = 0; n < wirings.size(); ++n) {
    ASSERT_FALSE(wirings[n].ok());
    const Error& error = wirings[n].error();
    // Node 1 may have come too late to be told.
    if (n == 1 && error.code == ErrorCode::kDeadlineExceeded) continue;
    EXPECT_NE(error.message.find("--tp: 4 on node 0, 2 on node 2; --dp: nothing on node 0, 3 on node 2"),
              std::string::npos)
        << error.message;
  }
}

TEST(Rendezvous, TheNumberOfNodesMustAgree) {
  const auto wirings = meet(2, [](RendezvousOptions& options) {
    if (options.node == 1) options.nodes = 3;
  });
  for (const auto& wiring : wirings) {
    ASSERT_FALSE(wiring.ok());
    EXPECT_NE(wiring.error().message.find("--nnodes: 2 on node 0, 3 on node 1"), std::string::npos)
        << wiring.error().message;
  }
}

TEST(Rendezvous, AnotherSecretIsRefusedAndTheHostWaitsOn) {
  const std::string address = free_address();
  std::optional<Result<Wiring>> host;
  std::thread node0([&] { host = meet_nodes(options_of(0, 2, address)); });
  auto options = options_of(1, 2, address);
  options.secret = "another secret than theirs";
  const auto refused = meet_nodes(options);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnauthorized);
  EXPECT_NE(refused.error().message.find("another secret"), std::string::npos) << refused.error().message;
  const auto right = meet_nodes(options_of(1, 2, address));
  node0.join();
  EXPECT_TRUE(right.ok());
  EXPECT_TRUE(host->ok());
}

TEST(Rendezvous, AHostWithAnotherSecretIsNotJoined) {
  // One that lets everyone in.
  const Socket listener = listen_at(resolve("127.0.0.1:0").value()).value();
  std::thread host([&] {
    ASSERT_TRUE(readable(listener, soon()));
    const Socket guest(::accept(listener.fd(), nullptr, nullptr));
    char bytes[HostHandshake::kHelloBytes];
    ASSERT_TRUE(receive_all(guest, bytes, sizeof(bytes), soon()).ok());
    ASSERT_TRUE(send_all(guest, {bytes, sizeof(bytes)}, soon()).ok());
    ASSERT_TRUE(receive_all(guest, bytes, 32, soon()).ok());
    ASSERT_TRUE(send_all(guest, '\1' + std::string(bytes, 32), soon()).ok());  // its own proof, given back
    char more = 0;
    EXPECT_FALSE(receive_all(guest, &more, 1, soon()).ok());
  });
  const auto joined = meet_nodes(options_of(1, 2, local_address(listener).text()));
  host.join();
  ASSERT_FALSE(joined.ok());
  EXPECT_EQ(joined.error().code, ErrorCode::kUnauthorized);
}

TEST(Rendezvous, ANodeMayComeBeforeTheHost) {
  const std::string address = free_address();
  std::optional<Result<Wiring>> guest;
  std::thread node1([&] { guest = meet_nodes(options_of(1, 2, address)); });
  std::this_thread::sleep_for(milliseconds(700));
  const auto host = meet_nodes(options_of(0, 2, address));
  node1.join();
  EXPECT_TRUE(host.ok());
  EXPECT_TRUE(guest->ok());
}

TEST(Rendezvous, WhoDoesNotComeIsNamed) {
  const std::string address = free_address();
  std::optional<Result<Wiring>> guest;
  std::thread node1([&] { guest = meet_nodes(options_of(1, 3, address)); });
  auto options = options_of(0, 3, address);
  options.timeout = milliseconds(1500);
  const auto host = meet_nodes(options);
  node1.join();
  ASSERT_FALSE(host.ok());
  EXPECT_EQ(host.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(host.error().message.find("node 2 of 3 did not come to 127.0.0.1"), std::string::npos)
      << host.error().message;
  ASSERT_FALSE(guest->ok());
  EXPECT_EQ(guest->error().message, host.error().message);

  options = options_of(1, 2, free_address());
  options.timeout = milliseconds(500);
  const auto alone = meet_nodes(options);
  ASSERT_FALSE(alone.ok());
  EXPECT_NE(alone.error().message.find("did not answer"), std::string::npos) << alone.error().message;
}

TEST(Rendezvous, ANodeThatDiedMayComeAgain) {
  const std::string address = free_address();
  std::optional<Result<Wiring>> host;
  std::optional<Result<Wiring>> second;
  std::thread node0([&] { host = meet_nodes(options_of(0, 3, address)); });
  {
    Socket first;
    while (!first.open()) {
      auto socket = connect_to(resolve(address).value(), soon());
      if (socket.ok()) first = std::move(*socket);
    }
    ASSERT_TRUE(prove_as_guest(first, kSecret, soon()).ok());
    const auto options = options_of(2, 3, address);
    const Join join{.node = 2, .nodes = 3, .ranks = 1, .port = 0, .facts = options.facts};
    ASSERT_TRUE(send_message(first, encode(Greeting{.join = join}), soon()).ok());
  }
  std::thread node2([&] { second = meet_nodes(options_of(2, 3, address)); });
  const auto node1 = meet_nodes(options_of(1, 3, address));
  node0.join();
  node2.join();
  EXPECT_TRUE(host->ok()) << host->error().message;
  EXPECT_TRUE(node1.ok()) << node1.error().message;
  EXPECT_TRUE(second->ok()) << second->error().message;
}

TEST(Rendezvous, StrangersHoldNobodyUp) {
  const std::string address = free_address();
  std::optional<Result<Wiring>> host;
  std::thread node0([&] { host = meet_nodes(options_of(0, 2, address)); });
  std::vector<Socket> strangers;
  const int64_t start = steady_clock().now_ns();
  while (strangers.size() < 80 && seconds_since(start) < 10) {
    auto socket = connect_to(resolve(address).value(), soon());
    if (!socket.ok()) continue;
    if (strangers.size() % 3 == 1)
      (void)send_all(*socket, "GET / HTTP/1.1\r\nHost: fathom\r\n\r\nand much more than that", soon());
    if (strangers.size() % 3 == 2) (void)send_all(*socket, std::string("fathom\0d", 8), soon());
    strangers.push_back(std::move(*socket));
  }
  const auto guest = meet_nodes(options_of(1, 2, address));
  node0.join();
  EXPECT_TRUE(guest.ok());
  EXPECT_TRUE(host->ok());
  EXPECT_LT(seconds_since(start), 5.0);
}

TEST(Rendezvous, ANetworkNeedsASecret) {
  for (const char* secret : {"", "short"}) {
    auto options = options_of(0, 2, "0.0.0.0:0");
    options.secret = secret;
    const auto result = meet_nodes(options);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.error().message.find("--dist-secret-file"), std::string::npos) << result.error().message;
  }
  const auto wirings = meet(2, [](RendezvousOptions& options) { options.secret.clear(); });
  for (const auto& wiring : wirings) EXPECT_TRUE(wiring.ok()) << wiring.error().message;
}

TEST(Address, WhatIsNoneIsSaid) {
  for (const char* text : {"", "host", "host:", ":5000", "::1:5000", "host:70000", "host:-1", "host:5x"}) {
    const auto address = resolve(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.error().code, ErrorCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(resolve("[::1]:80").value().text(), "[::1]:80");
  EXPECT_TRUE(resolve("127.1.2.3:80").value().loopback());
  EXPECT_FALSE(resolve("10.0.0.1:80").value().loopback());
}

TEST(Wire, WhatIsEncodedIsParsed) {
  const Greeting join{.join = Join{1, 2, 3, 4, {{"--tp", "4"}, {"", ""}}}};
  EXPECT_EQ(parse_greeting(encode(join)).value(), join);
  const Greeting link{.link = LinkHello{5, 1, LinkHello::Kind::kRanks, 7, 9}};
  EXPECT_EQ(parse_greeting(encode(link)).value(), link);
  const Table table{.session = 9, .nodes = {{"", 0, 2}, {"10.0.0.2", 4000, 2}}, .refusal = "no"};
  EXPECT_EQ(parse_table(encode(table)).value(), table);
  NodeMessage beat{.waits = {{1, {2, 3}}, {2, {}}}};
  EXPECT_EQ(parse_node_message(encode(beat)).value(), beat);
  NodeMessage fail{.kind = NodeMessage::Kind::kFail, .error = {ErrorCode::kDataLoss, "broken"}};
  EXPECT_EQ(parse_node_message(encode(fail)).value(), fail);
  NodeMessage left{.kind = NodeMessage::Kind::kLeft, .group = 1ULL << 40, .calls = 3, .rank = 2};
  EXPECT_EQ(parse_node_message(encode(left)).value(), left);
  const FrameHeader frame{1, 2, 1, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(parse_frame(encode(frame)), frame);
  // Cut short, or with more behind.
  for (const std::string& whole : {encode(join), encode(link)}) {
    for (size_t size = 0; size < whole.size(); ++size)
      EXPECT_FALSE(parse_greeting(whole.substr(0, size)).ok());
    EXPECT_FALSE(parse_greeting(whole + "x").ok());
  }
}

}  // namespace
}  // namespace fathom::dist
