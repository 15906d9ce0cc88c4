// Every combination of how the demo model is split and what is switched on: the greedy tokens of one rank.
#include "demo_server.h"

namespace fathom {
namespace {

class Combinations : public testing::Test {
 protected:
  static void SetUpTestSuite() { set_log_level(LogLevel::kWarning); }

  void SetUp() override {
    auto tokenizer = text::Tokenizer::load(kModel).value();
    std::mt19937 random(2026);
    while (requests_.size() < 12) {
      auto request = make_request(random, *tokenizer);
      if (request.sampling.temperature > 0.0F) continue;
      request.id = std::to_string(requests_.size());
      // Twice, so that the cache has something to find.
      requests_.push_back(request);
      request.id += "-again";
      requests_.push_back(request);
    }
    Server one = Server::start({.limits = {.total_tokens = 4096}});
    expected_ = answers(one);
  }

  std::vector<std::vector<int32_t>> answers(Server& server) const {
    std::vector<std::vector<int32_t>> all;
    std::vector<std::shared_ptr<TokenStream>> streams;
    for (const auto& request : requests_) streams.push_back(server.router->submit(request).value());
    FinishReason::Kind kind;
    for (auto& stream : streams) all.push_back(collect(*stream, &kind));
    return all;
  }

  // Said beforehand: a server that fails ends the test's process.
  static void announce(const std::string& what) {
    fmt::print("{}\n", what);
    std::fflush(stdout);
  }

  std::vector<GenerateRequest> requests_;
  std::vector<std::vector<int32_t>> expected_;
};

// The table of the reference's README: combinations of a prefix cache, absorbed attention, a draft layer,
// experts apart and groups of requests, of which many crash there. Here each runs, and gives the greedy
// tokens of one rank.
TEST_F(Combinations, GiveTheTokensOfOneRank) {
  int combinations = 0;
  for (const model::Split split : {model::Split{},
                                   {.tp = 2},
                                   {.tp = 2, .ep = 2},
                                   {.tp = 2, .dp = 2},
                                   {.tp = 2, .dp = 2, .ep = 2},
                                   {.tp = 4, .dp = 2, .ep = 2},
                                   {.tp = 1, .pp = 2}}) {
    for (const bool radix : {true, false}) {
      for (const bool mla : {true, false}) {
        for (const int32_t drafts : {0, 2}) {
          const std::string what = fmt::format("tp {} dp {} ep {} pp {}, radix cache {}, MLA {}, {} guesses",
                                               split.tp, split.dp, split.ep, split.pp, radix, mla, drafts);
          announce(what);
          Server server = Server::start(
              {.radix = radix, .mla = mla, .guessing = {drafts > 0 ? "NEXTN" : "", drafts}, .split = split});
          EXPECT_EQ(answers(server), expected_) << what;
          ASSERT_TRUE(server.drain());
          EXPECT_EQ(server.router->stats().used_tokens, 0);
          EXPECT_EQ(server.router->stats().leaked_pages, 0);
          ++combinations;
        }
      }
    }
  }
  EXPECT_EQ(combinations, 56);
}

// Experts in several places, and moved while requests run.
TEST_F(Combinations, GiveThemWhileExpertsMove) {
  int64_t moved = 0;
  for (const model::Split split : {model::Split{.tp = 2, .ep = 2, .redundant = 6},
                                   {.tp = 2, .dp = 2, .ep = 2},
                                   {.tp = 4, .ep = 2, .redundant = 3},
                                   {.tp = 4, .dp = 2, .ep = 2, .pp = 2, .redundant = 3}}) {
    // The streams of eight ranks share a GPU's queues, where one rank's kernel stands behind another's that
    // waits for it.
    if (on_gpus() && split.world() > 4 * engine::gpu_count()) continue;
    for (const int32_t drafts : {0, 2}) {
      const Config config{.guessing = {drafts > 0 ? "NEXTN" : "", drafts}, .split = split, .rebalance = 4};
      const std::string what = fmt::format("tp {} dp {} ep {} pp {} redundant {}, {} guesses", split.tp,
                                           split.dp, split.ep, split.pp, split.redundant, drafts);
      announce(what);
      Server server = Server::start(config);
      EXPECT_EQ(answers(server), expected_) << what;
      ASSERT_TRUE(server.drain());
      const auto report = server.engines.front()->experts();
      ASSERT_TRUE(report.has_value());
      EXPECT_GT(report->balancings, 0) << what;
      moved += report->moved;
      EXPECT_LE(report->imbalance, report->imbalance_before) << what;
    }
  }
  // Not in each: which requests meet in a pass, and so how uneven a few passes are, is a matter of time.
  EXPECT_GT(moved, 0);
}

}  // namespace
}  // namespace fathom
