// Groups of requests agree on their passes; needs no GPU.
#include "engine/cuda/pass_board.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "base/queue.h"

namespace fathom::engine::cuda {
namespace {

using Passes = std::vector<std::pair<int64_t, int64_t>>;  // graph rows, places

// Every group has every pass, in the same order and of the same size, whether it wanted it or not; and no
// pass is smaller than what any group wanted of it.
TEST(PassBoard, EveryGroupHasTheSamePasses) {
  for (const int groups : {1, 2, 4}) {
    PassBoard board(groups);
    std::vector<Passes> seen(static_cast<size_t>(groups));
    std::vector<Queue<int>> wakes(static_cast<size_t>(groups));
    for (int g = 0; g < groups; ++g) board.join(g, [&wakes, g] { wakes[static_cast<size_t>(g)].push(0); });
    std::vector<std::thread> threads;
    for (int g = 0; g < groups; ++g) {
      threads.emplace_back([&, g] {
        std::mt19937 random(static_cast<unsigned>(g));
        Passes& mine = seen[static_cast<size_t>(g)];
        const auto note = [&mine](const PassBoard::Pass& pass) {
          mine.emplace_back(pass.graph_rows, pass.places);
        };
        for (int step = 0; step < 200; ++step) {
          PassBoard::Want want;
          want.tokens = 1 + static_cast<int64_t>(random() % 100);
          want.graph_rows = random() % 3 == 0 ? 0 : want.tokens + static_cast<int64_t>(random() % 8);
          board.given(g);
          const PassBoard::Pass pass = board.agree(g, want, note);
          note(pass);
          EXPECT_GE(pass.places, want.tokens);
          if (pass.graph_rows > 0) {
            EXPECT_GE(pass.graph_rows, want.graph_rows);
            EXPECT_GT(want.graph_rows, 0);
            EXPECT_EQ(pass.places, pass.graph_rows);
          }
          board.answered(g);
          if (random() % 10 != 0) continue;
          // Without requests for a while.
          const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 6);
          while (std::chrono::steady_clock::now() < until) {
            if (!wakes[static_cast<size_t>(g)].pop_for(std::chrono::milliseconds(1))) continue;
            while (const auto idle = board.take_idle(g)) note(*idle);
          }
        }
      });
    }
    for (auto& thread : threads) thread.join();
    for (int g = 0; g < groups; ++g) {
      while (const auto idle = board.take_idle(g))
        seen[static_cast<size_t>(g)].emplace_back(idle->graph_rows, idle->places);
      EXPECT_EQ(seen[static_cast<size_t>(g)], seen[0]) << g;
      EXPECT_GE(seen[0].size(), 200U);
    }
  }
}

// One that leaves holds nobody up.
TEST(PassBoard, NobodyWaitsForAGroupThatLeft) {
  PassBoard board(2);
  board.join(0, nullptr);
  board.join(1, nullptr);
  board.given(0);
  board.given(1);  // and never comes
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    board.leave(1);
  });
  const auto pass = board.agree(0, {7, 0}, [](const PassBoard::Pass&) {});
  EXPECT_EQ(pass.places, 7);
  other.join();
}

}  // namespace
}  // namespace fathom::engine::cuda
