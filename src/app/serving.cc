#include "app/serving.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <fstream>
#include <sstream>

#include "app/version.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

namespace fathom::app {
namespace {

// Seconds. A CPU's steps end, however long a prompt takes there.
constexpr int32_t kGpuWatchdog = 300;
// The watchdog's patience with ranks that look after each other.
constexpr std::chrono::seconds kAfterRanks{15};
constexpr uint64_t kSeedStream = 0x5eed;

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) return error(ErrorCode::kNotFound, "cannot read {}", path);
  return text.str();
}

std::optional<float> as_float(const std::optional<double>& value) {
  if (!value) return std::nullopt;
  return static_cast<float>(*value);
}

api::ModelCard make_card(const ModelArgs& args, const engine::ModelFacts& facts,
                         const std::vector<std::string>& served_names) {
  api::ModelCard card;
  card.served_model_name = served_names.empty() ? args.model_path : served_names.front();
  if (served_names.size() > 1) card.other_names.assign(served_names.begin() + 1, served_names.end());
  card.model_path = args.model_path;
  card.tokenizer_path = args.tokenizer_path.empty() ? args.model_path : args.tokenizer_path;
  card.load_format = args.load_format;
  card.model_type = facts.model_type;
  card.architectures = {facts.architecture};
  card.vocab_size = static_cast<int32_t>(facts.vocab_size);
  card.eos_token_ids = facts.eos_token_ids;
  card.bos_token_id = facts.bos_token_id;
  if (args.sampling_defaults == "model") {
    card.defaults = {as_float(facts.temperature), as_float(facts.top_p), facts.top_k, as_float(facts.min_p),
                     as_float(facts.repetition_penalty)};
  }
  card.created = static_cast<int64_t>(std::time(nullptr));
  return card;
}

Result<api::ReasoningField> parse_reasoning_field(const std::string& name) {
  if (name == "both") return api::ReasoningField::kBoth;
  if (name == "reasoning_content") return api::ReasoningField::kReasoningContent;
  if (name == "reasoning") return api::ReasoningField::kReasoning;
  return error(ErrorCode::kInvalidArgument,
               "--reasoning-field: got '{}', expected both, reasoning_content or reasoning", name);
}

api::CacheExplanations parse_cache_explanations(const std::string& name) {
  if (name == "off") return api::CacheExplanations::kOff;
  if (name == "reasons") return api::CacheExplanations::kReasons;
  return name == "all" ? api::CacheExplanations::kAll : api::CacheExplanations::kText;
}

std::string or_none(const std::string& name) {
  return name.empty() ? "none" : name;
}

// Requests without a seed get these in the order in which they come.
std::function<uint64_t()> numbered_seeds(uint64_t seed) {
  return [seed, count = std::make_shared<std::atomic<uint64_t>>(0)] {
    return random_bits(seed, kSeedStream, count->fetch_add(1));
  };
}

bool on_gpu(const engine::Engine& engine) {
  return engine.device_clock().has_value();
}

// On the CPU a step's time is more uneven by itself, and prompts take a larger part of it.
double prefill_step_ratio(const ModelArgs& args, const engine::Engine& engine) {
  if (args.prefill_step_ratio >= 0.0) return args.prefill_step_ratio;
  return on_gpu(engine) ? 2.0 : 1.5;
}

}  // namespace

Result<sched::SchedulerOptions> scheduler_options(const ModelArgs& args, const engine::Engine& engine) {
  const ExecutorLimits& limits = engine.limits();
  sched::SchedulerOptions options;
  options.stages = engine.steps_at_once();
  FATHOM_ASSIGN(options.schedule_policy, sched::parse_schedule_policy(args.schedule_policy));
  options.max_queued_requests = args.max_queued_requests > 0 ? args.max_queued_requests : -1;
  options.chunked_prefill_size =
      args.chunked_prefill_size != 0 ? args.chunked_prefill_size : limits.max_prompt_tokens();
  options.enable_mixed_chunk = !args.disable_mixed_chunk;
  options.disable_overlap_schedule = args.disable_overlap_schedule;
  options.disable_radix_cache = args.disable_radix_cache;
  options.speculative_adaptive = args.speculative_adaptive;
  options.schedule_conservativeness = args.schedule_conservativeness;
  options.prefill_step_ratio = prefill_step_ratio(args, engine);
  options.enable_priority_scheduling = args.enable_priority_scheduling;
  return options;
}

engine::Settings engine_settings(const ModelArgs& args) {
  engine::Settings settings;
  settings.model_path = args.model_path;
  settings.dummy = args.load_format == "dummy";
  settings.random_seed = args.random_seed.value_or(0);
  settings.dtype = args.dtype;
  settings.kv_cache_dtype = args.kv_cache_dtype;
  settings.fp8_activations = args.fp8_activations;
  settings.disable_mla = args.disable_mla;
  settings.deterministic = args.enable_deterministic_inference;
  settings.context_length = args.context_length;
  settings.cpu_isa = args.cpu_isa;
  settings.threads = args.threads;
  settings.max_running_requests = args.max_running_requests;
  settings.chunked_prefill_size = args.chunked_prefill_size;
  settings.page_size = args.page_size;
  settings.device = args.device;
  settings.tp_size = args.tp_size;
  settings.base_gpu_id = args.base_gpu_id;
  settings.dp_size = args.dp_size;
  settings.enable_dp_attention = args.enable_dp_attention;
  settings.ep_size = args.ep_size;
  settings.pp_size = args.pp_size;
  settings.redundant_experts = args.ep_num_redundant_experts;
  settings.enable_eplb = args.enable_eplb;
  settings.eplb_iterations = args.eplb_rebalance_num_iterations;
  settings.dist_timeout = args.dist_timeout;
  settings.nnodes = args.nnodes;
  settings.node_rank = args.node_rank;
  settings.dist_init_addr = args.dist_init_addr;
  settings.dist_secret = args.dist_secret;
  settings.version = kVersion;
  settings.disable_cuda_graph = args.disable_cuda_graph;
  settings.cuda_graph_bs = args.cuda_graph_bs;
  settings.cuda_graph_max_bs = args.cuda_graph_max_bs;
  settings.trace_file = args.trace_file;
  settings.mem_fraction_static = args.mem_fraction_static;
  settings.max_total_tokens = args.max_total_tokens;
  settings.speculation = {args.speculative_algorithm,
                          args.speculative_num_steps,
                          args.speculative_eagle_topk,
                          args.speculative_num_draft_tokens,
                          args.speculative_draft_model_path,
                          args.speculative_use_rejection_sampling,
                          args.speculative_accept_threshold_single,
                          args.speculative_accept_threshold_acc,
                          args.speculative_draft_vocab};
  return settings;
}

Result<void> Serving::load_text(const ModelArgs& args) {
  if (args.skip_tokenizer_init) {
    LOG_INFO("tokenizer: skipped (--skip-tokenizer-init): /generate takes input_ids and answers ids");
    return {};
  }
  const int64_t start_ns = steady_clock().now_ns();
  auto loaded = text::Tokenizer::load(args.tokenizer_path.empty() ? args.model_path : args.tokenizer_path);
  if (!loaded.ok()) {
    return Error{loaded.error().code,
                 loaded.error().message + " (--skip-tokenizer-init serves token ids without a tokenizer)"};
  }
  tokenizer_ = std::move(*loaded);
  std::string source = tokenizer_->chat_template();
  if (const auto encoding = text::parse_prompt_encoding(args.chat_template)) {
    template_.emplace(*encoding);
    source.clear();
  } else if (!args.chat_template.empty()) {
    FATHOM_ASSIGN(source, read_file(args.chat_template));
  }
  if (!source.empty()) {
    auto parsed = text::ChatTemplate::parse(source);
    if (!parsed.ok()) return parsed.error().with_context("chat template");
    template_.emplace(std::move(*parsed));
  }
  LOG_INFO("tokenizer: {} tokens, loaded in {:.3f} s", tokenizer_->vocab_size(), seconds_since(start_ns));
  return {};
}

// For checkpoints that ship an encoder in Python instead of a template; it is read, not run.
void Serving::find_encoding(const ModelArgs& args, const std::string& architecture) {
  if (tokenizer_ == nullptr) return;
  if (!template_) {
    const auto encoder = read_file(args.model_path + "/encoding/encoding_dsv4.py");
    const auto encoding = text::find_prompt_encoding(architecture, encoder.ok() ? *encoder : std::string());
    if (encoding) template_.emplace(*encoding);
  }
  if (!template_) {
    LOG_INFO("prompts: no chat template: /v1/chat/completions takes input_ids only (--chat-template)");
  } else {
    LOG_INFO("prompts: {}", template_->encoding() ? to_string(*template_->encoding()) : "a Jinja template");
  }
}

Result<std::unique_ptr<Serving>> Serving::start(const ModelArgs& args,
                                                const std::vector<std::string>& served_names,
                                                api::ServiceOptions service_options) {
  std::unique_ptr<Serving> serving(new Serving());
  FATHOM_TRY(serving->load_text(args));
  engine::ModelFacts facts;
  FATHOM_ASSIGN(serving->engines_, engine::start_engines(engine_settings(args), &facts));
  serving->find_encoding(args, facts.architecture);
  const ExecutorLimits& limits = serving->engines_.front()->limits();
  FATHOM_ASSIGN(auto options, scheduler_options(args, *serving->engines_.front()));
  const int32_t watchdog = args.watchdog_timeout >= 0           ? args.watchdog_timeout
                           : on_gpu(*serving->engines_.front()) ? kGpuWatchdog
                                                                : 0;
  if (watchdog > 0) {
    // Ranks that wait for one another name the one that hangs: that comes first.
    const auto ranks =
        args.tp_size * args.pp_size > 1
            ? std::chrono::seconds(args.dist_timeout > 0 ? args.dist_timeout : 300) + kAfterRanks
            : std::chrono::seconds(0);
    options.watchdog_timeout = std::max(std::chrono::seconds(watchdog), ranks);
  }
  std::vector<RequestSink*> sinks;
  for (auto& engine : serving->engines_) {
    serving->schedulers_.push_back(std::make_unique<sched::Scheduler>(options, *engine));
    sinks.push_back(serving->schedulers_.back().get());
  }
  serving->router_ = std::make_unique<sched::Router>(std::move(sinks));
  LOG_INFO(
      "{}: {}, {} running requests, {} prompt tokens a step{}, radix cache {}, overlap {}, mixed "
      "batches {}",
      serving->schedulers_.size() == 1 ? "scheduler"
                                       : fmt::format("{} schedulers, each", serving->schedulers_.size()),
      args.schedule_policy, limits.max_slots, options.chunked_prefill_size,
      !options.enable_mixed_chunk || options.chunked_prefill_size < 0 || options.prefill_step_ratio <= 0.0
          ? ""
          : fmt::format(" (beside output tokens, as many as make it {:g} times as long)",
                        options.prefill_step_ratio),
      options.disable_radix_cache ? "off" : "on", options.disable_overlap_schedule ? "off" : "on",
      options.enable_mixed_chunk ? "on" : "off");

  api::ModelCard card = make_card(args, facts, served_names);
  card.context_length = serving->schedulers_.front()->max_request_tokens();
  if (card.context_length < facts.context_length) {
    LOG_WARNING(
        "context: a request may have {} tokens, not the {} of {}: the KV pool has room for no more (bound by "
        "{})",
        card.context_length, facts.context_length, args.context_length > 0 ? "--context-length" : "the model",
        serving->engines_.front()->report().pool.bound);
  }
  card.model_context = static_cast<int32_t>(facts.context_length);
  FATHOM_ASSIGN(
      service_options.parsers,
      text::choose_parsers(args.reasoning_parser, args.tool_call_parser,
                           serving->template_ ? &*serving->template_ : nullptr, facts.architecture));
  service_options.cache_explanations = parse_cache_explanations(args.cache_explanations);
  if (service_options.multi_tenant && service_options.cache_explanations == api::CacheExplanations::kAll) {
    return error(ErrorCode::kInvalidArgument,
                 "--cache-explanations all: would tell a tenant what another asked; give text, or "
                 "--multi-tenant off");
  }
  if (args.random_seed && !service_options.next_seed)
    service_options.next_seed = numbered_seeds(*args.random_seed);
  service_options.custom_logit_processors = args.enable_custom_logit_processor;
  FATHOM_ASSIGN(service_options.reasoning_field, parse_reasoning_field(args.reasoning_field));
  LOG_INFO("answers: reasoning parser {}, tool call parser {}",
           or_none(service_options.parsers.reasoning_name), or_none(service_options.parsers.tools_name));
  service_options.engine_state = [serving = serving.get()] { return serving->state(); };
  service_options.start_profile = [serving = serving.get()] {
    for (auto& engine : serving->engines_) engine->trace().start();
  };
  service_options.stop_profile = [serving = serving.get()]() -> std::optional<std::string> {
    std::vector<std::string> traces;
    for (auto& engine : serving->engines_) {
      if (auto events = engine->trace().stop(static_cast<int>(traces.size())))
        traces.push_back(std::move(*events));
    }
    if (traces.empty()) return std::nullopt;
    return engine::trace_document(traces);
  };
  service_options.server_info = [serving = serving.get(), args] { return serving->describe(args); };
  serving->service_ = std::make_unique<api::Service>(std::move(service_options), std::move(card),
                                                     *serving->router_, serving->tokenizer_.get(),
                                                     serving->template_ ? &*serving->template_ : nullptr);
  for (auto& scheduler : serving->schedulers_) scheduler->start();
  return serving;
}

Serving::~Serving() {
  stop();
}

void Serving::stop() {
  for (auto& scheduler : schedulers_) scheduler->stop();
}

bool Serving::drain(std::chrono::milliseconds timeout) {
  service_->set_draining();
  const auto end = std::chrono::steady_clock::now() + timeout;
  bool done = true;
  for (auto& scheduler : schedulers_) {
    const auto left = end - std::chrono::steady_clock::now();
    done = scheduler->drain(std::chrono::duration_cast<std::chrono::milliseconds>(left)) && done;
  }
  return done;
}

bool Serving::hangs() const {
  return std::ranges::any_of(schedulers_, [](const auto& scheduler) { return scheduler->hangs(); });
}

Result<void> Serving::state() const {
  for (const auto& scheduler : schedulers_) FATHOM_TRY(scheduler->state());
  return {};
}

nlohmann::ordered_json Serving::describe(const ModelArgs& args) const {
  const ExecutorLimits& limits = engines_.front()->limits();
  const auto& report = engines_.front()->report();
  nlohmann::ordered_json info;
  info["version"] = kVersion;
  info["dtype"] = args.dtype;
  info["kv_cache_dtype"] = args.kv_cache_dtype;
  info["fp8_activations"] = args.fp8_activations;
  info["device"] = report.device;
  info["tp_size"] = args.tp_size;
  info["dp_size"] = args.dp_size;
  info["enable_dp_attention"] = args.enable_dp_attention;
  info["ep_size"] = args.ep_size;
  info["pp_size"] = args.pp_size;
  if (const auto experts = engines_.front()->experts()) {
    info["eplb"] = {{"balancings", experts->balancings},
                    {"moved_experts", experts->moved},
                    {"imbalance_before", experts->imbalance_before},
                    {"imbalance", experts->imbalance}};
  }
  info["nnodes"] = args.nnodes;
  info["threads"] = engines_.front()->threads();
  info["disable_mla"] = args.disable_mla;
  info["enable_deterministic_inference"] = args.enable_deterministic_inference;
  info["page_size"] = limits.page_size;
  info["max_running_requests"] = limits.max_slots;
  info["max_total_num_tokens"] = int64_t{limits.num_pages} * limits.page_size;
  info["max_req_input_len"] = schedulers_.front()->max_request_tokens() - 1;
  info["chunked_prefill_size"] =
      args.chunked_prefill_size != 0 ? args.chunked_prefill_size : limits.max_prompt_tokens();
  info["schedule_policy"] = args.schedule_policy;
  info["schedule_conservativeness"] = args.schedule_conservativeness;
  info["prefill_step_ratio"] = prefill_step_ratio(args, *engines_.front());
  info["disable_radix_cache"] = args.disable_radix_cache;
  info["disable_overlap_schedule"] = args.disable_overlap_schedule;
  info["speculative_algorithm"] = args.speculative_algorithm.empty()
                                      ? nlohmann::ordered_json()
                                      : nlohmann::ordered_json(args.speculative_algorithm);
  if (limits.max_drafts > 0) {
    const engine::Speculation& speculation = engines_.front()->speculation();
    info["speculative_num_steps"] = speculation.steps;
    info["speculative_eagle_topk"] = speculation.branches;
    info["speculative_num_draft_tokens"] = speculation.max_guesses + 1;
    info["speculative_adaptive"] = args.speculative_adaptive;
  }
  info["skip_tokenizer_init"] = args.skip_tokenizer_init;
  info["weight_bytes"] = report.load.weight_bytes;
  info["kv_cache_bytes"] = report.pool.bytes;
  info["load_seconds"] = report.load_seconds;
  auto& kernels = info["kernels"] = nlohmann::ordered_json::object();
  for (const auto& [op, name] : report.load.implementations) kernels[op] = name;
  return info;
}

}  // namespace fathom::app
