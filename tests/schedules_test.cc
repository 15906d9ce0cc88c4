// Random schedules on the demo model: whatever arrives together, is cut, cached, preempted or cancelled, a
// request's tokens are those it gets alone, where no token is guessed.
#include <gtest/gtest.h>

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
#include "engine/gpu.h"
#include "engine/masks_testing.h"
#include "engine/settings.h"
#include "model/shard.h"
#include "sched/router.h"
#include "sched/scheduler.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom {
namespace {

const std::string kModel = std::string(FATHOM_SOURCE_DIR) + "/models/demo";

struct Config {
  const char* name;
  int32_t page_size;
  int64_t total_tokens;  // of the pool
  int32_t chunk;
  int32_t running;
  bool radix, overlap, mixed, mla;
  sched::SchedulePolicy policy;
  const char* dtype;
  const char* speculation = "";  // --speculative-algorithm
  int32_t drafts = 0;
  model::Split split = {};
  int32_t branches = 0, guesses = 0;  // of a tree
};

constexpr Config kConfigs[] = {
    {"plain", 16, 8192, 512, 16, true, true, true, true, sched::SchedulePolicy::kFcfs, "float32"},
    {"no cache, no overlap", 16, 8192, 512, 16, false, false, true, true, sched::SchedulePolicy::kFcfs,
     "float32"},
    {"tiny pool", 4, 240, 32, 8, true, true, true, true, sched::SchedulePolicy::kFcfs, "float32"},
    {"tiny pool, no cache", 8, 256, 16, 8, false, true, true, true, sched::SchedulePolicy::kFcfs, "float32"},
    {"small chunks, lpm", 1, 512, 7, 6, true, true, true, true, sched::SchedulePolicy::kLpm, "float32"},
    {"separate batches", 16, 1024, 24, 8, true, true, false, true, sched::SchedulePolicy::kFcfs, "float32"},
    {"plain cache", 16, 1024, 24, 8, true, true, true, false, sched::SchedulePolicy::kLpm, "float32"},
    {"bfloat16", 16, 512, 48, 8, true, true, true, true, sched::SchedulePolicy::kFcfs, "bfloat16"},
    {"draft layer", 16, 8192, 512, 16, true, true, true, true, sched::SchedulePolicy::kFcfs, "float32",
     "EAGLE", 3},
    {"draft layer, tiny pool", 4, 240, 32, 8, true, true, true, true, sched::SchedulePolicy::kFcfs, "float32",
     "EAGLE", 1},
    {"draft layer, small chunks", 1, 512, 7, 6, true, true, true, true, sched::SchedulePolicy::kLpm,
     "bfloat16", "NEXTN", 5},
    {"draft layer, separate batches, plain cache", 16, 1024, 24, 8, true, true, false, false,
     sched::SchedulePolicy::kFcfs, "float32", "EAGLE", 2},
    {"look-up", 16, 512, 48, 8, true, true, true, true, sched::SchedulePolicy::kFcfs, "bfloat16", "NGRAM", 4},
    {"look-up, no cache, tiny pool", 8, 256, 16, 8, false, true, true, true, sched::SchedulePolicy::kFcfs,
     "float32", "NGRAM", 7},
    {"trees",
     16,
     8192,
     512,
     16,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "EAGLE",
     3,
     {},
     4,
     15},
    {"trees, tiny pool",
     4,
     320,
     32,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "bfloat16",
     "EAGLE",
     2,
     {},
     3,
     6},
    {"trees, small chunks, plain cache",
     1,
     512,
     7,
     6,
     true,
     true,
     false,
     false,
     sched::SchedulePolicy::kLpm,
     "float32",
     "NEXTN",
     4,
     {},
     2,
     9},
    {"trees, two ranks",
     8,
     512,
     48,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "EAGLE",
     3,
     {.tp = 2},
     2,
     7},
    {"two ranks",
     16,
     1024,
     48,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "",
     0,
     {.tp = 2}},
    {"two ranks, tiny pool",
     4,
     240,
     32,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kLpm,
     "bfloat16",
     "",
     0,
     {.tp = 2}},
    {"two ranks, plain cache",
     8,
     512,
     24,
     8,
     true,
     true,
     false,
     false,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "",
     0,
     {.tp = 2}},
    {"two ranks, draft layer",
     4,
     480,
     32,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "EAGLE",
     2,
     {.tp = 2}},
    {"four ranks, look-up",
     16,
     512,
     48,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "NGRAM",
     4,
     {.tp = 4}},
    {"experts apart",
     16,
     512,
     24,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "bfloat16",
     "",
     0,
     {.tp = 2, .ep = 2}},
    {"two groups",
     4,
     240,
     32,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kLpm,
     "float32",
     "",
     0,
     {.tp = 2, .dp = 2}},
    {"two groups, experts apart, draft layer",
     4,
     480,
     24,
     6,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "EAGLE",
     2,
     {.tp = 4, .dp = 2, .ep = 4}},
    {"four groups, plain cache, look-up",
     8,
     512,
     24,
     4,
     true,
     false,
     false,
     false,
     sched::SchedulePolicy::kFcfs,
     "bfloat16",
     "NGRAM",
     3,
     {.tp = 4, .dp = 4, .ep = 2}},
    {"three stages, draft layer",
     8,
     512,
     32,
     8,
     true,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "EAGLE",
     3,
     {.tp = 1, .pp = 3}},
    {"two stages of two groups",
     8,
     256,
     16,
     8,
     false,
     true,
     true,
     true,
     sched::SchedulePolicy::kFcfs,
     "float32",
     "",
     0,
     {.tp = 2, .dp = 2, .ep = 2, .pp = 2}},
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

struct Server {
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
    settings.page_size = config.page_size;
    settings.max_total_tokens = config.total_tokens;
    settings.chunked_prefill_size = config.chunk;
    settings.max_running_requests = config.running;
    settings.disable_mla = !config.mla;
    // On a GPU the server replays graphs, and a request alone runs without them.
    const char* device = std::getenv("FATHOM_TEST_DEVICE");
    settings.device = device != nullptr ? device : "cpu";
    settings.disable_cuda_graph = config.running == 1;
    const char* fp8 = std::getenv("FATHOM_TEST_FP8_ACTIVATIONS");
    if (fp8 != nullptr && settings.dtype != "float32") settings.fp8_activations = fp8;
    settings.speculation.algorithm = config.speculation;
    settings.speculation.num_steps = config.drafts;
    settings.speculation.eagle_topk = config.branches;
    settings.speculation.num_draft_tokens = config.guesses > 0 ? config.guesses + 1 : 0;
    engine::ModelFacts facts;
    Server server;
    server.engines = engine::start_engines(settings, &facts).value();
    sched::SchedulerOptions options;
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

// Empty, or why the test's device does not take a split.
std::string refusal(const model::Split& split, int32_t drafts) {
  const char* device = std::getenv("FATHOM_TEST_DEVICE");
  if (device == nullptr || std::string_view(device) != "cuda") return {};
  if (split.pp > 1) return "one stage on GPUs";
  if (split.dp > 1 && (split.attention_ranks() > 1 || drafts > 0))
    return "one GPU for a group of requests, and no guesses";
  return split.tp > engine::gpu_count() ? "fewer GPUs than ranks" : "";
}

class Schedules : public testing::TestWithParam<Config> {
 protected:
  static void SetUpTestSuite() { set_log_level(LogLevel::kWarning); }
};

TEST_P(Schedules, GiveEachRequestItsOwnTokens) {
  const Config& config = GetParam();
  if (const std::string why = refusal(config.split, config.drafts); !why.empty()) GTEST_SKIP() << why;
  // Fewer where a sanitizer makes each step many times slower.
  const char* wish = std::getenv("FATHOM_DEMO_SCHEDULES");
  const int schedules = wish != nullptr            ? std::atoi(wish)
                        : config.split.world() > 1 ? 10
                        : config.drafts > 0        ? 20
                                                   : 40;
  ASSERT_GT(schedules, 0);
  auto tokenizer = text::Tokenizer::load(kModel).value();
  // Alone: one slot, no cache, no chunks, no overlap; the same arithmetic, and so as many ranks.
  Server alone = Server::start({"alone", 16, 4096, 512, 1, false, false, true, config.mla,
                                sched::SchedulePolicy::kFcfs, config.dtype, "", 0, config.split});
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

// The table of the reference's README: combinations of a prefix cache, absorbed attention, a draft layer,
// experts apart and groups of requests, of which many crash there. Here each runs, and gives the greedy
// tokens of one rank.
TEST(Combinations, GiveTheTokensOfOneRank) {
  set_log_level(LogLevel::kWarning);
  auto tokenizer = text::Tokenizer::load(kModel).value();
  std::mt19937 random(2026);
  std::vector<GenerateRequest> requests;
  while (requests.size() < 12) {
    auto request = make_request(random, *tokenizer);
    if (request.sampling.temperature > 0.0F) continue;
    request.id = std::to_string(requests.size());
    // Twice, so that the cache has something to find.
    requests.push_back(request);
    request.id += "-again";
    requests.push_back(request);
  }
  const auto answers = [&](Server& server) {
    std::vector<std::vector<int32_t>> all;
    std::vector<std::shared_ptr<TokenStream>> streams;
    for (const auto& request : requests) streams.push_back(server.router->submit(request).value());
    FinishReason::Kind kind;
    for (auto& stream : streams) all.push_back(collect(*stream, &kind));
    return all;
  };
  Server one = Server::start(
      {"one rank", 16, 4096, 48, 8, true, true, true, true, sched::SchedulePolicy::kFcfs, "float32"});
  const auto expected = answers(one);
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
          if (!refusal(split, drafts).empty()) continue;
          Server server =
              Server::start({"", 16, 1024, 48, 8, radix, true, true, mla, sched::SchedulePolicy::kFcfs,
                             "float32", drafts > 0 ? "NEXTN" : "", drafts, split});
          EXPECT_EQ(answers(server), expected)
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
  EXPECT_GE(combinations, std::getenv("FATHOM_TEST_DEVICE") != nullptr ? 8 : 56);
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
