// Random schedules on the demo model: whatever arrives together, is cut, cached, preempted or cancelled, a
// request's tokens are those it gets alone, where no token is guessed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/log.h"
#include "base/math.h"
#include "engine/gpu.h"
#include "engine/masks_testing.h"
#include "engine/node.h"
#include "engine/settings.h"
#include "model/shard.h"
#include "sched/router.h"
#include "sched/scheduler.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom {
namespace {

const std::string kModel = std::string(FATHOM_SOURCE_DIR) + "/models/demo";

struct Config {
  const char* name = "";
  int32_t page_size = 16;
  int64_t total_tokens = 1024;  // of the pool
  int32_t chunk = 48;
  int32_t running = 8;
  bool radix = true, overlap = true, mixed = true, mla = true;
  sched::SchedulePolicy policy = sched::SchedulePolicy::kFcfs;
  const char* dtype = "float32";
  const char* speculation = "";  // --speculative-algorithm
  int32_t drafts = 0;
  model::Split split = {};
  int32_t branches = 0, guesses = 0;  // of a tree
  int32_t nodes = 1;                  // that talk through sockets, here of one process
  int32_t rebalance = 0;              // passes from one balancing of experts to the next; 0: none
};

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
    {.name = "three nodes, stages, draft layer, tiny pool",
     .page_size = 4,
     .total_tokens = 320,
     .chunk = 32,
     .speculation = "EAGLE",
     .drafts = 2,
     .split = {.tp = 1, .pp = 3},
     .nodes = 3},
};

std::string question(std::mt19937& random) {
  const auto number = [&](int below) { return std::to_string(random() % static_cast<unsigned>(below)); };
  static const char* const kCountries[] = {"France", "Norway", "Japan", "Kenya", "Peru", "Cuba"};
  static const char* const kWords[] = {"apple", "tiger", "ocean", "violin", "ladder", "marble"};
  switch (random() % 4) {
    case 0:
      return "What is " + number(1000) + " + " + number(1000) + "?";
    case 1:
      return "Calculate " + number(90) + " - " + number(10) + ".";
    case 2:
      return std::string("What is the capital of ") + kCountries[random() % 6] + "?";
    default:
      return std::string("Sort these words alphabetically: ") + kWords[random() % 6] + ", " +
             kWords[random() % 6];
  }
}

GenerateRequest make_request(std::mt19937& random, const text::Tokenizer& tokenizer) {
  GenerateRequest request;
  // Few systems, so that prefixes are shared; sometimes a long one, so that prompts are cut and pools fill.
  static const char* const kSystems[] = {"", "You are a helpful assistant.", "Answer briefly."};
  std::string prompt = std::string("<｜begin▁of▁sentence｜>") + kSystems[random() % 3];
  for (unsigned turns = random() % 3; turns > 0; --turns) {
    prompt += "<｜User｜>" + question(random) + "<｜Assistant｜></think>Hello!<｜end▁of▁sentence｜>";
  }
  prompt +=
      "<｜User｜>" + question(random) + "<｜Assistant｜>" + (random() % 2 == 0 ? "<think>" : "</think>");
  request.prompt = tokenizer.encode(prompt, false);
  request.sampling.max_new_tokens = static_cast<int32_t>(random() % 24) + 1;
  request.sampling.stop_token_ids = {1};
  request.sampling.temperature = 0.0F;
  if (random() % 2 == 0) {
    ThinkingBudget& budget = request.sampling.thinking;
    budget.tokens = static_cast<int32_t>(random() % 12);
    budget.start = *tokenizer.token_to_id("<think>");
    budget.end = *tokenizer.token_to_id("</think>");
    budget.line_break = tokenizer.encode("\n", false).at(0);
    budget.begun = request.prompt.back() == budget.start ? 0 : -1;
  }
  if (random() % 4 == 0) {
    request.sampling.temperature = 0.8F;
    request.sampling.top_p = 0.9F;
    request.sampling.seed = random() % 5;
    request.sampling.frequency_penalty = random() % 2 == 0 ? 0.0F : 0.3F;
  }
  if (random() % 4 == 0) request.mask = std::make_shared<engine::SumMask>(-1, 2);
  return request;
}

// Ranks that share a GPU wait for each other's kernels. One that was not loaded yet waits for all of them, as
// does one whose stream shares a hardware queue with theirs: there are eight unless more are asked for.
const int kLoadsKernelsFirst = setenv("CUDA_MODULE_LOADING", "EAGER", 1);
const int kQueuesForAll = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);

bool on_gpus() {
  const char* device = std::getenv("FATHOM_TEST_DEVICE");
  return kLoadsKernelsFirst == 0 && kQueuesForAll == 0 && device != nullptr &&
         std::string_view(device) == "cuda";
}

struct Server {
  std::vector<std::jthread> nodes;  // but the first, until that one ends
  std::vector<std::unique_ptr<engine::Engine>> engines;
  std::vector<std::unique_ptr<sched::Scheduler>> schedulers;
  std::unique_ptr<sched::Router> router;

  static Server start(const Config& config) {
    engine::Settings settings;
    settings.model_path = kModel;
    settings.dtype = config.dtype;
    settings.threads = 2;
    settings.tp_size = config.split.tp;
    settings.ep_size = config.split.ep;
    settings.pp_size = config.split.pp;
    settings.dp_size = config.split.dp;
    settings.enable_dp_attention = config.split.dp > 1;
    settings.redundant_experts = config.split.redundant;
    settings.enable_eplb = config.rebalance > 0;
    settings.eplb_iterations = config.rebalance;
    settings.dist_timeout = 30;
    settings.page_size = config.page_size;
    settings.max_total_tokens = config.total_tokens;
    settings.chunked_prefill_size = config.chunk;
    settings.max_running_requests = config.running;
    settings.disable_mla = !config.mla;
    // On a GPU the server replays graphs, and a request alone runs without them.
    settings.device = on_gpus() ? "cuda" : "cpu";
    // Its kernels are small: several ranks fit on a GPU where there are fewer.
    if (on_gpus()) settings.ranks_per_gpu = ceil_div(config.split.world(), engine::gpu_count());
    settings.disable_cuda_graph = config.running == 1;
    const char* fp8 = std::getenv("FATHOM_TEST_FP8_ACTIVATIONS");
    if (fp8 != nullptr && settings.dtype != "float32") settings.fp8_activations = fp8;
    settings.speculation.algorithm = config.speculation;
    settings.speculation.num_steps = config.drafts;
    settings.speculation.eagle_topk = config.branches;
    settings.speculation.num_draft_tokens = config.guesses > 0 ? config.guesses + 1 : 0;
    engine::ModelFacts facts;
    Server server;
    settings.nnodes = config.nodes;
    if (config.nodes > 1)
      settings.dist_init_addr = fmt::format("127.0.0.1:{}", 20000 + (getpid() + 7 * config.nodes) % 20000);
    for (int32_t node = 1; node < config.nodes; ++node) {
      settings.node_rank = node;
      settings.base_gpu_id = on_gpus() ? node * config.split.world() / config.nodes : 0;
      server.nodes.emplace_back([settings] {
        auto started = engine::start_node(settings);
        ASSERT_TRUE(started.ok()) << started.error().message;
        const auto ended = (*started)->run();
        EXPECT_TRUE(ended.ok()) << ended.error().message;
      });
    }
    settings.node_rank = settings.base_gpu_id = 0;
    server.engines = engine::start_engines(settings, &facts).value();
    sched::SchedulerOptions options;
    options.stages = server.engines.front()->steps_at_once();
    options.schedule_policy = config.policy;
    options.chunked_prefill_size = config.chunk;
    options.enable_mixed_chunk = config.mixed;
    options.disable_radix_cache = !config.radix;
    options.disable_overlap_schedule = !config.overlap;
    std::vector<RequestSink*> sinks;
    for (auto& engine : server.engines) {
      server.schedulers.push_back(std::make_unique<sched::Scheduler>(options, *engine));
      sinks.push_back(server.schedulers.back().get());
    }
    for (auto& scheduler : server.schedulers) scheduler->start();
    server.router = std::make_unique<sched::Router>(std::move(sinks));
    return server;
  }

  bool drain() {
    return std::all_of(schedulers.begin(), schedulers.end(),
                       [](auto& scheduler) { return scheduler->drain(std::chrono::seconds(10)); });
  }
};

// All tokens of a stream; a request that was cancelled may end early.
std::vector<int32_t> collect(TokenStream& stream, FinishReason::Kind* kind) {
  std::vector<int32_t> tokens;
  while (true) {
    auto event = stream.next(std::chrono::seconds(60));
    if (!event) {
      ADD_FAILURE() << "no event within 60 s";
      *kind = FinishReason::Kind::kAbort;
      return tokens;
    }
    for (const auto& output : event->outputs) tokens.push_back(output.token);
    if (event->finish) {
      *kind = event->finish->kind;
      return tokens;
    }
  }
}

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
  if (config.nodes > 1 && on_gpus() && (config.split.dp > 1 || config.split.world() > engine::gpu_count()))
    GTEST_SKIP() << "one group of requests, and a GPU for each of its ranks";
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
    Server one = Server::start({.total_tokens = 4096});
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
          Server server = Server::start({.radix = radix,
                                         .mla = mla,
                                         .speculation = drafts > 0 ? "NEXTN" : "",
                                         .drafts = drafts,
                                         .split = split});
          EXPECT_EQ(answers(server), expected_)
              << fmt::format("tp {} dp {} ep {} pp {}, radix cache {}, MLA {}, {} guesses", split.tp,
                             split.dp, split.ep, split.pp, radix, mla, drafts);
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
  for (const model::Split split : {model::Split{.tp = 2, .ep = 2, .redundant = 6},
                                   {.tp = 2, .dp = 2, .ep = 2},
                                   {.tp = 4, .ep = 2, .redundant = 3},
                                   {.tp = 4, .dp = 2, .ep = 2, .pp = 2, .redundant = 3}}) {
    for (const int32_t drafts : {0, 2}) {
      const Config config{
          .speculation = drafts > 0 ? "NEXTN" : "", .drafts = drafts, .split = split, .rebalance = 4};
      Server server = Server::start(config);
      const std::string what = fmt::format("tp {} dp {} ep {} pp {} redundant {}, {} guesses", split.tp,
                                           split.dp, split.ep, split.pp, split.redundant, drafts);
      EXPECT_EQ(answers(server), expected_) << what;
      ASSERT_TRUE(server.drain());
      const auto report = server.engines.front()->experts();
      ASSERT_TRUE(report.has_value());
      EXPECT_GT(report->balancings, 0) << what;
      EXPECT_GT(report->moved, 0) << what;
      EXPECT_LE(report->imbalance, report->imbalance_before) << what;
    }
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
