// Groups of requests agree on their passes.
#include "engine/pass_board.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "base/queue.h"

namespace fathom::engine {
namespace {

using Passes = std::vector<PassBoard::Pass>;

PassBoard::Want random_want(std::mt19937& random) {
  PassBoard::Want want;
  const auto below = [&](unsigned end) { return static_cast<int64_t>(random() % end); };
  want.going_on = below(40);
  want.sampling = want.going_on;
  if (random() % 3 == 0) {
    want.named = 1 + below(100);
  } else {
    want.going_on = want.sampling = want.going_on + 1;
    if (random() % 4 != 0) want.graph_rows = want.sampling + below(8);
  }
  if (random() % 2 == 0) want.width = 4;
  return want;
}

void expect_room(const PassBoard::Pass& pass, const PassBoard::Want& want) {
  EXPECT_GE(pass.width, want.width);
  EXPECT_GE(pass.rows, want.sampling);
  EXPECT_GE(pass.places, want.named + want.going_on * pass.width);
  if (pass.graph_rows == 0) return;
  EXPECT_GE(pass.graph_rows, want.graph_rows);
  EXPECT_GT(want.graph_rows, 0);
  EXPECT_EQ(pass.places, pass.graph_rows * pass.width);
}

// Every member of every group has every pass, in the same order and of the same size, whether its group
// wanted it or not; and no pass is smaller than what any group wanted of it.
TEST(PassBoard, EveryRankHasTheSamePasses) {
  for (const auto& [groups, members] : {std::pair{1, 1}, {2, 1}, {4, 1}, {2, 2}, {3, 3}}) {
    PassBoard board(groups, members);
    const auto ranks = static_cast<size_t>(groups * members);
    std::vector<Passes> seen(ranks);
    std::vector<Queue<int>> wakes(ranks);
    const auto index = [members](int g, int m) { return static_cast<size_t>(g * members + m); };
    for (int g = 0; g < groups; ++g) {
      for (int m = 0; m < members; ++m) board.join(g, m, [&wakes, at = index(g, m)] { wakes[at].push(0); });
    }
    std::vector<std::thread> threads;
    for (int g = 0; g < groups; ++g) {
      for (int m = 0; m < members; ++m) {
        threads.emplace_back([&, g, m] {
          std::mt19937 random(static_cast<unsigned>(g));  // the same plans on all members
          Passes& mine = seen[index(g, m)];
          const auto note = [&mine](const PassBoard::Pass& pass) { mine.push_back(pass); };
          for (int step = 0; step < 200; ++step) {
            const PassBoard::Want want = random_want(random);
            if (m == 0) board.given(g);
            const PassBoard::Pass pass = board.agree(g, m, want, note);
            note(pass);
            expect_room(pass, want);
            if (m == 0) board.answered(g);
            const bool rest = random() % 10 == 0;
            const auto length = std::chrono::milliseconds(random() % 6);
            if (!rest) continue;
            // Without requests for a while.
            const auto until = std::chrono::steady_clock::now() + length;
            while (std::chrono::steady_clock::now() < until) {
              if (!wakes[index(g, m)].pop_for(std::chrono::milliseconds(1))) continue;
              while (const auto idle = board.take_idle(g, m)) note(*idle);
            }
          }
        });
      }
    }
    for (auto& thread : threads) thread.join();
    for (int g = 0; g < groups; ++g) {
      for (int m = 0; m < members; ++m) {
        while (const auto idle = board.take_idle(g, m)) seen[index(g, m)].push_back(*idle);
        EXPECT_EQ(seen[index(g, m)], seen[0]) << "group " << g << " member " << m;
      }
    }
    EXPECT_GE(seen[0].size(), 200U);
  }
}

// Groups 0 and 1 on node 0, group 2 led by node 1, where group 1 has a member too: all have the same passes.
TEST(PassBoard, EveryNodeHasTheSamePasses) {
  constexpr int kGroups = 3, kSteps = 150;
  PassBoard host(kGroups, 2), guest(kGroups, 2);
  host.tell([&](const PassBoard::Pass& pass, const std::vector<bool>& idle) { guest.begun(pass, idle); });
  Queue<PassBoard::Want> wants;  // of group 2, on their way
  guest.ask([&](int group, const PassBoard::Want& want) {
    EXPECT_EQ(group, 2);
    wants.push(want);
  });
  std::thread far([&] {
    while (const auto want = wants.pop()) host.want_of(2, *want);
  });
  struct Rank {
    PassBoard& board;
    int group, member;
  };
  const std::vector<Rank> ranks{{host, 0, 0}, {host, 1, 0}, {guest, 1, 1}, {guest, 2, 0}};
  std::vector<Passes> seen(ranks.size());
  std::vector<Queue<int>> wakes(ranks.size());
  for (size_t r = 0; r < ranks.size(); ++r)
    ranks[r].board.join(ranks[r].group, ranks[r].member, [&wakes, r] { wakes[r].push(0); });
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] {
      const auto& [board, group, member] = ranks[r];
      std::mt19937 random(static_cast<unsigned>(group));
      const auto note = [&mine = seen[r]](const PassBoard::Pass& pass) { mine.push_back(pass); };
      for (int step = 0; step < kSteps; ++step) {
        const PassBoard::Want want = random_want(random);
        if (member == 0) host.given(group);  // node 0 has the schedulers
        const PassBoard::Pass pass = board.agree(group, member, want, note);
        note(pass);
        expect_room(pass, want);
        if (member == 0) host.answered(group);
        const auto length = std::chrono::milliseconds(random() % 10 == 0 ? random() % 6 : 0);
        const auto until = std::chrono::steady_clock::now() + length;
        while (std::chrono::steady_clock::now() < until) {
          if (!wakes[r].pop_for(std::chrono::milliseconds(1))) continue;
          while (const auto idle = board.take_idle(group, member)) note(*idle);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  wants.close();
  far.join();
  for (size_t r = 0; r < ranks.size(); ++r) {
    while (const auto idle = ranks[r].board.take_idle(ranks[r].group, ranks[r].member))
      seen[r].push_back(*idle);
    EXPECT_EQ(seen[r], seen[0]) << "rank " << r;
  }
  EXPECT_GE(seen[0].size(), static_cast<size_t>(kSteps));
}

// One that leaves holds nobody up.
TEST(PassBoard, NobodyWaitsForAGroupThatLeft) {
  PassBoard board(2, 2);
  board.given(0);
  board.given(1);  // and never comes
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    board.leave(1);
  });
  PassBoard::Want want;
  want.named = 7;
  const auto nothing = [](const PassBoard::Pass&) {};
  std::thread member([&] { EXPECT_EQ(board.agree(0, 1, want, nothing).places, 7); });
  EXPECT_EQ(board.agree(0, 0, want, nothing).places, 7);
  other.join();
  member.join();
}

}  // namespace
}  // namespace fathom::engine
