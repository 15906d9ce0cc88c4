// The demo model as a server in this process, for tests that cross rooms: on ranks and nodes, on the CPU or,
// with FATHOM_TEST_DEVICE=cuda, on the GPUs at hand.
#pragma once

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

inline const std::string kModel = std::string(FATHOM_SOURCE_DIR) + "/models/demo";

// What requests share; small ones make them wait, be cut and be preempted.
struct Limits {
  int32_t page_size = 16;
  int64_t total_tokens = 1024;  // of the pool
  int32_t chunk = 48;
  int32_t running = 8;
};
struct Guessing {
  const char* algorithm = "";  // --speculative-algorithm
  int32_t drafts = 0;
  int32_t branches = 0, guesses = 0;  // of a tree
};
struct Config {
  const char* name = "";
  Limits limits = {};
  bool radix = true, overlap = true, mixed = true, mla = true;
  sched::SchedulePolicy policy = sched::SchedulePolicy::kFcfs;
  const char* dtype = "float32";
  Guessing guessing = {};
  model::Split split = {};
  int32_t nodes = 1;      // that talk through sockets, here of one process
  int32_t rebalance = 0;  // passes from one balancing of experts to the next; 0: none
};

inline std::string question(std::mt19937& random) {
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

inline GenerateRequest make_request(std::mt19937& random, const text::Tokenizer& tokenizer) {
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
inline const int kLoadsKernelsFirst = setenv("CUDA_MODULE_LOADING", "EAGER", 1);
inline const int kQueuesForAll = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);

inline bool on_gpus() {
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
    settings.page_size = config.limits.page_size;
    settings.max_total_tokens = config.limits.total_tokens;
    settings.chunked_prefill_size = config.limits.chunk;
    settings.max_running_requests = config.limits.running;
    settings.disable_mla = !config.mla;
    // On a GPU the server replays graphs, and a request alone runs without them.
    settings.device = on_gpus() ? "cuda" : "cpu";
    // Its kernels are small: several ranks fit on a GPU where there are fewer.
    if (on_gpus()) settings.ranks_per_gpu = ceil_div(config.split.world(), engine::gpu_count());
    settings.disable_cuda_graph = config.limits.running == 1;
    const char* fp8 = std::getenv("FATHOM_TEST_FP8_ACTIVATIONS");
    if (fp8 != nullptr && settings.dtype != "float32") settings.fp8_activations = fp8;
    settings.speculation.algorithm = config.guessing.algorithm;
    settings.speculation.num_steps = config.guessing.drafts;
    settings.speculation.eagle_topk = config.guessing.branches;
    settings.speculation.num_draft_tokens = config.guessing.guesses > 0 ? config.guessing.guesses + 1 : 0;
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
    options.chunked_prefill_size = config.limits.chunk;
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
inline std::vector<int32_t> collect(TokenStream& stream, FinishReason::Kind* kind) {
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

}  // namespace fathom
