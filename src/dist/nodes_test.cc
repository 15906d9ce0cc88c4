// Worlds of several nodes: the same bits as on one, and what becomes of a node that dies or is cut off.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "dist/control.h"
#include "dist/socket_group.h"
#include "dist/testing.h"
#include "dist/thread_group.h"

namespace fathom::dist {
namespace {

using device::DType;
using std::chrono::milliseconds;

constexpr milliseconds kPatient{20'000};

// All that a rank of a random program received, as bytes. The program is the same on every rank of a group:
// it is drawn from `random`, whose state all members share.
void run_program(Group& group, std::mt19937_64 random, int calls, int depth, std::string& seen) {
  const int size = group.size();
  const auto values = [&](int64_t count, uint64_t stream, DType dtype) {
    std::string bytes(static_cast<size_t>(count * device::size_of(dtype)), '\0');
    for (int64_t i = 0; i < count; ++i) {
      const float value =
          (random_uniform(stream, static_cast<uint64_t>(group.rank()), static_cast<uint64_t>(i)) - 0.5F) *
          static_cast<float>(1 << (i % 17));
      const device::bf16 half = device::f32_to_bf16(value);
      std::memcpy(bytes.data() + i * device::size_of(dtype),
                  dtype == DType::kF32 ? static_cast<const void*>(&value) : &half,
                  static_cast<size_t>(device::size_of(dtype)));
    }
    return bytes;
  };
  const auto amount = [&] {
    return static_cast<int64_t>(random() % 5 == 0 ? random() % 90'000 : random() % 60);
  };
  for (int call = 0; call < calls; ++call) {
    const uint64_t stream = random();
    const DType dtype = random() % 2 == 0 ? DType::kF32 : DType::kBF16;
    std::vector<int64_t> parts;
    for (int r = 0; r < size; ++r) parts.push_back(amount());
    const int64_t total = std::accumulate(parts.begin(), parts.end(), int64_t{0});
    const int64_t mine = parts[static_cast<size_t>(group.rank())];
    const auto root = static_cast<int>(random() % static_cast<uint64_t>(size));
    std::string got;
    switch (random() % 7) {
      case 0:
        got = values(total, stream, dtype);
        ASSERT_TRUE(group.all_reduce(got.data(), total, dtype).ok());
        break;
      case 1:
        got.resize(static_cast<size_t>(total));
        ASSERT_TRUE(group.all_gather(values(mine, stream, DType::kF32).data(), parts, got.data()).ok());
        break;
      case 2:
        got.resize(static_cast<size_t>(mine * device::size_of(dtype)));
        ASSERT_TRUE(group.reduce_scatter(values(total, stream, dtype).data(), parts, dtype, got.data()).ok());
        break;
      case 3:
        got = values(total, stream, DType::kF32);
        ASSERT_TRUE(group.broadcast(got.data(), static_cast<int64_t>(got.size()), root).ok());
        break;
      case 4: {
        // Rank a sends rank b parts[(a + b) % size] bytes.
        const auto bytes = [&](int a, int b) { return parts[static_cast<size_t>((a + b) % size)]; };
        const std::string out = values(total, stream, DType::kF32);
        std::vector<Outgoing> send;
        std::vector<Incoming> receive;
        got.resize(static_cast<size_t>(total));
        int64_t offset = 0;
        for (int r = 0; r < size; ++r) {
          send.push_back({out.data() + r, bytes(group.rank(), r)});
          receive.push_back({got.data() + offset, bytes(r, group.rank())});
          offset += bytes(r, group.rank());
        }
        ASSERT_TRUE(group.all_to_all(send, receive).ok());
        break;
      }
      case 5:
        ASSERT_TRUE(group.barrier().ok());
        break;
      default: {
        if (depth == 0) break;
        const auto colours = 1 + random() % 3;
        const auto colour =
            static_cast<int>(random_bits(stream, 1, static_cast<uint64_t>(group.rank())) % colours);
        auto part = group.split(colour, fmt::format("part {}", colour));
        ASSERT_TRUE(part.ok());
        got = fmt::format("{} of {}", (*part)->rank(), (*part)->size());
        run_program(**part, std::mt19937_64(stream + static_cast<uint64_t>(colour)), 4, depth - 1, got);
      }
    }
    seen += got;
    if (::testing::Test::HasFatalFailure()) return;
  }
}

std::map<int, std::string> run_everywhere(std::vector<std::unique_ptr<Group>> groups, uint64_t seed) {
  std::mutex mutex;
  std::map<int, std::string> results;
  run_ranks(std::move(groups), [&](Group& group) {
    std::string seen;
    run_program(group, std::mt19937_64(seed), 12, 2, seen);
    std::lock_guard lock(mutex);
    results[group.rank()] = std::move(seen);
  });
  return results;
}

TEST(Nodes, ResultsDoNotDependOnWhereRanksAre) {
  for (uint64_t seed = 0; seed < 40 && !::testing::Test::HasFailure(); ++seed) {
    std::mt19937_64 random(seed);
    std::vector<int> ranks;
    for (auto nodes = 1 + random() % 4; nodes > 0; --nodes)
      ranks.push_back(static_cast<int>(1 + random() % 3));
    const int size = std::accumulate(ranks.begin(), ranks.end(), 0);
    std::vector<std::unique_ptr<Group>> groups;
    for (Wiring& wiring : connect_wirings(ranks)) {
      for (auto& group : make_socket_groups(wiring, kPatient).ranks) groups.push_back(std::move(group));
    }
    const auto here = run_everywhere(make_thread_groups(size, kPatient), seed);
    const auto spread = run_everywhere(std::move(groups), seed);
    ASSERT_EQ(here.size(), static_cast<size_t>(size));
    for (const auto& [rank, result] : here)
      EXPECT_TRUE(spread.at(rank) == result) << "seed " << seed << ", rank " << rank << " of " << size;
  }
}

// Node 0's rank waits for node 1, to which `fate` happens; its error, and the seconds until it came.
std::pair<Error, double> error_when(milliseconds timeout, const std::function<void(Wiring&)>& fate) {
  auto wirings = connect_wirings({1, 2});
  auto groups = make_socket_groups(wirings[0], timeout);
  const int64_t start = steady_clock().now_ns();
  fate(wirings[1]);
  const auto result = groups.ranks[0]->barrier();
  EXPECT_FALSE(result.ok());
  EXPECT_FALSE(groups.ranks[0]->state().ok());
  return {result.ok() ? Error{} : result.error(), seconds_since(start)};
}

TEST(Nodes, ANodeThatDiesIsNoticedAtOnce) {
  const auto [error, seconds] = error_when(kPatient, [](Wiring& node1) { node1 = {}; });
  EXPECT_NE(error.message.find("node 1 (ranks 1 to 2) has died"), std::string::npos) << error.message;
  EXPECT_LT(seconds, 5.0);
}

TEST(Nodes, ANodeThatIsSilentIsNoticedInTime) {
  const auto [error, seconds] = error_when(milliseconds(400), [](Wiring&) {});
  EXPECT_NE(error.message.find("node 1 (ranks 1 to 2) has not been heard of for 0.3 s: it is stopped"),
            std::string::npos)
      << error.message;
  EXPECT_LT(seconds, 5.0);
}

TEST(Nodes, ANodeThatSpeaksNonsenseEndsTheWorld) {
  for (const std::string& words : {std::string("\xff\xff\xff\xff"), std::string("\x01\0\0\0\x77", 5)}) {
    const auto [error, seconds] = error_when(kPatient, [&](Wiring& node1) {
      ASSERT_TRUE(send_all(node1.nodes[0], words, std::chrono::steady_clock::now() + kPatient).ok());
    });
    EXPECT_NE(error.message.find("node 1 (ranks 1 to 2) sent a m"), std::string::npos) << error.message;
  }
}

// The words of a node that fails come before its end, however soon that is.
TEST(Nodes, TheReasonOfAFailureIsToldEverywhere) {
  for (int i = 0; i < 50; ++i) {
    auto wirings = connect_wirings({1, 1, 1});
    std::vector<std::thread> nodes;
    std::atomic<int> told{0};
    for (Wiring& wiring : wirings) {
      nodes.emplace_back([&] {
        auto groups = make_socket_groups(wiring, kPatient);
        Group& group = *groups.ranks[0];
        // A failure may overtake what makes the call before it whole.
        auto result = group.barrier();
        if (group.rank() == 1) return group.abort({ErrorCode::kDataLoss, "the disk of node 1 is broken"});
        if (result.ok()) result = group.barrier();
        ASSERT_FALSE(result.ok());
        EXPECT_EQ(result.error().message, "the disk of node 1 is broken");
        EXPECT_EQ(result.error().code, ErrorCode::kDataLoss);
        ++told;
      });
    }
    for (auto& node : nodes) node.join();
    EXPECT_EQ(told, 2);
  }
}

TEST(Nodes, GoodByesAreNoFailure) {
  auto wirings = connect_wirings({1, 1});
  auto host = make_socket_groups(wirings[0], milliseconds(400));
  { auto guest = make_socket_groups(wirings[1], milliseconds(400)); }
  std::this_thread::sleep_for(milliseconds(700));
  EXPECT_TRUE(host.ranks[0]->state().ok());
  const auto result = host.ranks[0]->barrier();
  ASSERT_FALSE(result.ok());
  EXPECT_NE(
      result.error().message.find("rank 1 (node 1) has left: rank 0 (node 0) waits for it in barrier 1"),
      std::string::npos)
      << result.error().message;
}

TEST(Control, MessagesComeInOrderToAllNodes) {
  auto wirings = connect_wirings({1, 1, 1});
  std::vector<std::string> sent;
  for (int i = 0; i < 200; ++i) sent.push_back(fmt::format("message {}", i));
  sent.emplace_back();
  sent.emplace_back(9 << 20, 'x');  // more than a socket takes at once
  sent.emplace_back("last");
  std::vector<std::thread> nodes;
  for (Wiring& wiring : wirings) {
    nodes.emplace_back([&] {
      auto groups = make_socket_groups(wiring, kPatient);
      if (wiring.node == 0) {
        ControlHost host(wiring, groups.world);
        for (const auto& message : sent) ASSERT_TRUE(host.send(message).ok());
        host.end();
        EXPECT_TRUE(host.send("nobody reads this").ok());
        return;
      }
      ControlGuest guest(wiring, groups.world);
      for (const auto& message : sent) {
        const auto got = guest.receive();
        ASSERT_TRUE(got.ok());
        ASSERT_TRUE(got->has_value());
        ASSERT_TRUE(**got == message);
      }
      const auto end = guest.receive();
      ASSERT_TRUE(end.ok());
      EXPECT_FALSE(end->has_value());
    });
  }
  for (auto& node : nodes) node.join();
}

TEST(Control, AFailureEndsIt) {
  auto wirings = connect_wirings({1, 1});
  auto host_groups = make_socket_groups(wirings[0], kPatient);
  auto guest_groups = make_socket_groups(wirings[1], kPatient);
  ControlHost host(wirings[0], host_groups.world);
  ControlGuest guest(wirings[1], guest_groups.world);
  std::thread waiting([&] {
    const auto got = guest.receive();
    ASSERT_FALSE(got.ok());
    EXPECT_EQ(got.error().message, "enough");
  });
  host_groups.ranks[0]->abort({ErrorCode::kCancelled, "enough"});
  waiting.join();
  EXPECT_EQ(host.send("more").error().message, "enough");
}

TEST(Control, AGuestAsksForTheEnd) {
  auto wirings = connect_wirings({1, 1, 1});
  std::vector<SocketGroups> groups;
  for (Wiring& wiring : wirings) groups.push_back(make_socket_groups(wiring, kPatient));
  ControlHost host(wirings[0], groups[0].world);
  ControlGuest guest(wirings[2], groups[2].world);
  EXPECT_FALSE(host.asked_to_end().has_value());
  guest.ask_to_end();
  const int64_t start = steady_clock().now_ns();
  while (!host.asked_to_end() && seconds_since(start) < 10) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(host.asked_to_end(), 2);
}

}  // namespace
}  // namespace fathom::dist
