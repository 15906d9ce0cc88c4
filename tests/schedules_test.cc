// Random schedules on the demo model: whatever arrives together, is cut, cached, preempted or cancelled, a
// request's tokens are those it gets alone, where no token is guessed.
#include "demo_server.h"

namespace fathom {
namespace {

constexpr auto kLpm = sched::SchedulePolicy::kLpm;
constexpr Config kConfigs[] = {
    {.name = "plain", .total_tokens = 8192, .chunk = 512, .running = 16},
    {.name = "no cache, no overlap",
     .total_tokens = 8192,
     .chunk = 512,
     .running = 16,
     .radix = false,
     .overlap = false},
    {.name = "tiny pool", .page_size = 4, .total_tokens = 240, .chunk = 32},
    {.name = "tiny pool, no cache", .page_size = 8, .total_tokens = 256, .chunk = 16, .radix = false},
    {.name = "small chunks, lpm",
     .page_size = 1,
     .total_tokens = 512,
     .chunk = 7,
     .running = 6,
     .policy = kLpm},
    {.name = "separate batches", .chunk = 24, .mixed = false},
    {.name = "plain cache", .chunk = 24, .mla = false, .policy = kLpm},
    {.name = "bfloat16", .total_tokens = 512, .dtype = "bfloat16"},
    {.name = "draft layer",
     .total_tokens = 8192,
     .chunk = 512,
     .running = 16,
     .speculation = "EAGLE",
     .drafts = 3},
    {.name = "draft layer, tiny pool",
     .page_size = 4,
     .total_tokens = 240,
     .chunk = 32,
     .speculation = "EAGLE",
     .drafts = 1},
    {.name = "draft layer, small chunks",
     .page_size = 1,
     .total_tokens = 512,
     .chunk = 7,
     .running = 6,
     .policy = kLpm,
     .dtype = "bfloat16",
     .speculation = "NEXTN",
     .drafts = 5},
    {.name = "draft layer, separate batches, plain cache",
     .chunk = 24,
     .mixed = false,
     .mla = false,
     .speculation = "EAGLE",
     .drafts = 2},
    {.name = "look-up", .total_tokens = 512, .dtype = "bfloat16", .speculation = "NGRAM", .drafts = 4},
    {.name = "look-up, no cache, tiny pool",
     .page_size = 8,
     .total_tokens = 256,
     .chunk = 16,
     .radix = false,
     .speculation = "NGRAM",
     .drafts = 7},
    {.name = "trees",
     .total_tokens = 8192,
     .chunk = 512,
     .running = 16,
     .speculation = "EAGLE",
     .drafts = 3,
     .branches = 4,
     .guesses = 15},
    {.name = "trees, tiny pool",
     .page_size = 4,
     .total_tokens = 320,
     .chunk = 32,
     .dtype = "bfloat16",
     .speculation = "EAGLE",
     .drafts = 2,
     .branches = 3,
     .guesses = 6},
    {.name = "trees, small chunks, plain cache",
     .page_size = 1,
     .total_tokens = 512,
     .chunk = 7,
     .running = 6,
     .mixed = false,
     .mla = false,
     .policy = kLpm,
     .speculation = "NEXTN",
     .drafts = 4,
     .branches = 2,
     .guesses = 9},
    {.name = "trees, two ranks",
     .page_size = 8,
     .total_tokens = 512,
     .speculation = "EAGLE",
     .drafts = 3,
     .split = {.tp = 2},
     .branches = 2,
     .guesses = 7},
    {.name = "two ranks", .split = {.tp = 2}},
    {.name = "two ranks, tiny pool",
     .page_size = 4,
     .total_tokens = 240,
     .chunk = 32,
     .policy = kLpm,
     .dtype = "bfloat16",
     .split = {.tp = 2}},
    {.name = "two ranks, plain cache",
     .page_size = 8,
     .total_tokens = 512,
     .chunk = 24,
     .mixed = false,
     .mla = false,
     .split = {.tp = 2}},
    {.name = "two ranks, draft layer",
     .page_size = 4,
     .total_tokens = 480,
     .chunk = 32,
     .speculation = "EAGLE",
     .drafts = 2,
     .split = {.tp = 2}},
    {.name = "four ranks, look-up",
     .total_tokens = 512,
     .speculation = "NGRAM",
     .drafts = 4,
     .split = {.tp = 4}},
    {.name = "experts apart",
     .total_tokens = 512,
     .chunk = 24,
     .dtype = "bfloat16",
     .split = {.tp = 2, .ep = 2}},
    {.name = "two groups",
     .page_size = 4,
     .total_tokens = 240,
     .chunk = 32,
     .policy = kLpm,
     .split = {.tp = 2, .dp = 2}},
    {.name = "two groups, experts apart, draft layer",
     .page_size = 4,
     .total_tokens = 480,
     .chunk = 24,
     .running = 6,
     .speculation = "EAGLE",
     .drafts = 2,
     .split = {.tp = 4, .dp = 2, .ep = 4}},
    {.name = "two groups, look-up",
     .running = 4,
     .speculation = "NGRAM",
     .drafts = 3,
     .split = {.tp = 2, .dp = 2}},
    {.name = "four groups, plain cache, look-up",
     .page_size = 8,
     .total_tokens = 512,
     .chunk = 24,
     .running = 4,
     .overlap = false,
     .mixed = false,
     .mla = false,
     .dtype = "bfloat16",
     .speculation = "NGRAM",
     .drafts = 3,
     .split = {.tp = 4, .dp = 4, .ep = 2}},
    {.name = "two groups, trees",
     .page_size = 8,
     .total_tokens = 512,
     .chunk = 32,
     .speculation = "EAGLE",
     .drafts = 3,
     .split = {.tp = 2, .dp = 2, .ep = 2},
     .branches = 2,
     .guesses = 7},
    {.name = "two stages, trees",
     .page_size = 4,
     .total_tokens = 320,
     .chunk = 24,
     .speculation = "EAGLE",
     .drafts = 3,
     .split = {.tp = 1, .pp = 2},
     .branches = 3,
     .guesses = 6},
    {.name = "three stages, draft layer",
     .page_size = 8,
     .total_tokens = 512,
     .chunk = 32,
     .speculation = "EAGLE",
     .drafts = 3,
     .split = {.tp = 1, .pp = 3}},
    {.name = "two stages of two groups",
     .page_size = 8,
     .total_tokens = 256,
     .chunk = 16,
     .radix = false,
     .split = {.tp = 2, .dp = 2, .ep = 2, .pp = 2}},
    {.name = "two nodes, draft layer",
     .page_size = 8,
     .total_tokens = 512,
     .chunk = 32,
     .speculation = "EAGLE",
     .drafts = 2,
     .split = {.tp = 2, .ep = 2},
     .nodes = 2},
    {.name = "two nodes, a stage each",
     .page_size = 4,
     .total_tokens = 320,
     .chunk = 24,
     .policy = kLpm,
     .split = {.tp = 1, .pp = 2},
     .nodes = 2},
    {.name = "two nodes, a group each, tiny pool",
     .page_size = 4,
     .total_tokens = 240,
     .chunk = 32,
     .policy = kLpm,
     .split = {.tp = 4, .dp = 2, .ep = 2},
     .nodes = 2},
    {.name = "two nodes, two groups, look-up",
     .page_size = 8,
     .total_tokens = 512,
     .chunk = 24,
     .policy = kLpm,
     .speculation = "NGRAM",
     .drafts = 3,
     .split = {.tp = 2, .dp = 2},
     .nodes = 2},
    {.name = "two nodes, two groups, experts apart, draft layer, tiny pool",
     .page_size = 4,
     .total_tokens = 480,
     .chunk = 24,
     .running = 6,
     .speculation = "EAGLE",
     .drafts = 2,
     .split = {.tp = 2, .dp = 2, .ep = 2},
     .nodes = 2},
    {.name = "three nodes, stages, draft layer, tiny pool",
     .page_size = 4,
     .total_tokens = 320,
     .chunk = 32,
     .speculation = "EAGLE",
     .drafts = 2,
     .split = {.tp = 1, .pp = 3},
     .nodes = 3},
};

std::string key_of(const GenerateRequest& request) {
  std::string key;
  for (const int32_t token : request.prompt) key += std::to_string(token) + ' ';
  const auto& s = request.sampling;
  return key + fmt::format("| {} {} {} {} {} {} {}", s.max_new_tokens, s.temperature, s.top_p, s.seed,
                           s.frequency_penalty, s.thinking.tokens, request.mask != nullptr);
}

// Whether the thoughts end when they must: a line break and the tag after so many tokens.
bool keeps_budget(const ThinkingBudget& budget, const std::vector<int32_t>& tokens) {
  ThinkingState state;
  state.thought = budget.begun;
  for (const int32_t token : tokens) {
    state.accept(budget, token);
    if (budget.tokens >= 0 && state.thought > budget.tokens + 1) return false;
  }
  return true;
}

class Schedules : public testing::TestWithParam<Config> {
 protected:
  static void SetUpTestSuite() { set_log_level(LogLevel::kWarning); }
};

TEST_P(Schedules, GiveEachRequestItsOwnTokens) {
  const Config& config = GetParam();
  if (config.nodes > 1 && on_gpus() && config.split.world() > engine::gpu_count())
    GTEST_SKIP() << "a GPU for each rank";
  // While one rank's kernel waits for another rank, those queued behind it may hold all of the GPU already.
  if (on_gpus() && config.split.world() > engine::gpu_count() && std::string_view(config.dtype) == "bfloat16")
    GTEST_SKIP() << "ranks that share a GPU with kernels that take all of it";
  // Fewer where a sanitizer makes each step many times slower.
  const char* wish = std::getenv("FATHOM_DEMO_SCHEDULES");
  const int schedules = wish != nullptr            ? std::atoi(wish)
                        : config.split.world() > 1 ? 10
                        : config.drafts > 0        ? 20
                                                   : 40;
  ASSERT_GT(schedules, 0);
  auto tokenizer = text::Tokenizer::load(kModel).value();
  // Alone: one slot, no cache, no chunks, no overlap; the same arithmetic, and so as many ranks.
  Server alone = Server::start({.total_tokens = 4096,
                                .chunk = 512,
                                .running = 1,
                                .radix = false,
                                .overlap = false,
                                .mla = config.mla,
                                .dtype = config.dtype,
                                .split = config.split});
  Server server = Server::start(config);
  std::map<std::string, std::vector<int32_t>> expected;
  int64_t tokens_seen = 0;
  for (int s = 0; s < schedules; ++s) {
    std::mt19937 random(static_cast<unsigned>(s) * 977 + 13);
    const size_t count = random() % 10 + 2;
    std::vector<GenerateRequest> requests;
    std::vector<std::shared_ptr<TokenStream>> streams;
    std::vector<bool> cancelled(count, false);
    for (size_t i = 0; i < count; ++i) {
      auto request = make_request(random, *tokenizer);
      request.id = fmt::format("{}-{}", s, i);
      requests.push_back(request);
      auto stream = server.router->submit(request);
      ASSERT_TRUE(stream.ok()) << stream.error().message;
      streams.push_back(*stream);
      if (random() % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 4000));
      if (random() % 8 == 0) {
        const size_t victim = random() % (i + 1);
        server.router->cancel(requests[victim].id);
        cancelled[victim] = true;
      }
    }
    // All of them before one runs alone: two models on the same GPUs, whose ranks wait for each other in
    // their kernels, may hold each other up.
    std::vector<FinishReason::Kind> kinds(count);
    std::vector<std::vector<int32_t>> outputs;
    for (size_t i = 0; i < count; ++i) outputs.push_back(collect(*streams[i], &kinds[i]));
    for (size_t i = 0; i < count; ++i) {
      const FinishReason::Kind kind = kinds[i];
      const auto& tokens = outputs[i];
      tokens_seen += static_cast<int64_t>(tokens.size());
      ASSERT_TRUE(keeps_budget(requests[i].sampling.thinking, tokens))
          << "schedule " << s << " request " << i;
      auto& wanted = expected[key_of(requests[i])];
      if (wanted.empty()) {
        FinishReason::Kind alone_kind;
        requests[i].id += "-alone";
        wanted = collect(**alone.router->submit(requests[i]), &alone_kind);
        ASSERT_NE(alone_kind, FinishReason::Kind::kAbort);
      }
      if (kind == FinishReason::Kind::kAbort) {
        ASSERT_TRUE(cancelled[i]) << "request " << i << " of schedule " << s << " was aborted by nobody";
        ASSERT_LE(tokens.size(), wanted.size());
        ASSERT_TRUE(std::equal(tokens.begin(), tokens.end(), wanted.begin()))
            << "schedule " << s << " request " << i;
      } else {
        ASSERT_EQ(tokens, wanted) << "schedule " << s << " request " << i;
      }
    }
  }
  EXPECT_GT(tokens_seen, schedules * 10);
  // Nothing runs: every page is free or only cached, and a flush gives all of them back.
  ASSERT_TRUE(server.drain());
  auto stats = server.router->stats();
  EXPECT_EQ(stats.running_requests, 0);
  EXPECT_EQ(stats.waiting_requests, 0);
  EXPECT_EQ(stats.used_tokens, 0);
  if (config.drafts > 0) {
    const SpeculationCounts& guesses = stats.speculation;
    // How many depends on what was preempted, cancelled or ran without guesses, and so on the machine.
    EXPECT_GT(guesses.accepted_tokens, 0);
    EXPECT_LT(guesses.accepted_tokens, guesses.draft_tokens) << "no guess was wrong";
    fmt::print("{}: {:.2f} tokens a verify step, {:.0f} % of the guesses right\n", config.name,
               guesses.accept_length(), 100.0 * guesses.accept_rate());
  }
  if (!config.radix) {
    EXPECT_EQ(stats.cached_tokens, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Demo, Schedules, testing::ValuesIn(kConfigs), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
});

}  // namespace
}  // namespace fathom
