// What the server says of its model and of its load.
#include <ctime>

#include "api/endpoints.h"
#include "api/meta_info.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

ordered_json model_json(const ModelCard& card, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", card.created},
          {"owned_by", "fathom"},
          {"root", card.served_model_name},
          {"parent", nullptr},
          {"max_model_len", card.context_length}};
}

ordered_json name_or_null(const std::string& name) {
  return name.empty() ? ordered_json() : ordered_json(name);
}

double ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

ordered_json by_reason(const std::array<int64_t, kMissReasons>& counts) {
  ordered_json out = ordered_json::object();
  for (size_t i = 0; i < kMissReasons; ++i) out[std::string(kMissReasonNames[i])] = counts[i];
  return out;
}

ordered_json load_json(const SchedulerStats& stats, size_t dp_rank) {
  return {{"dp_rank", dp_rank},
          {"num_running_reqs", stats.running_requests},
          {"num_waiting_reqs", stats.waiting_requests},
          {"num_total_reqs", stats.running_requests + stats.waiting_requests},
          {"num_used_tokens", stats.used_tokens},
          {"num_cached_tokens", stats.cached_tokens},
          {"max_total_num_tokens", stats.total_tokens},
          {"token_usage", ratio(stats.used_tokens, stats.total_tokens)},
          {"gen_throughput", stats.generation_rate},
          {"cache_hit_rate", ratio(stats.prompt_cached_tokens, stats.prompt_tokens)},
          {"cache_miss_requests", by_reason(stats.cache_misses.requests)},
          {"cache_miss_tokens", by_reason(stats.cache_misses.tokens)}};
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return std::string(text, length);
}

}  // namespace

void handle_models(const ServiceContext& context, const http::Request& request,
                   http::ResponseWriter& writer) {
  static constexpr std::string_view kList = "/v1/models";
  if (request.path == kList || request.path == "/models") {
    ordered_json models = ordered_json::array({model_json(context.card, context.card.served_model_name)});
    for (const std::string& name : context.card.other_names) {
      if (name != "*") models.push_back(model_json(context.card, name));
    }
    return writer.send(json_response({{"object", "list"}, {"data", std::move(models)}}));
  }
  const std::string id = request.path.substr(kList.size() + 1);
  if (Refusal refusal = check_model(context, id)) return writer.send(error_response(*refusal));
  writer.send(json_response(model_json(context.card, context.card.served_model_name)));
}

void handle_model_info(const ServiceContext& context, const http::Request& /*request*/,
                       http::ResponseWriter& writer) {
  const ModelCard& card = context.card;
  writer.send(json_response({{"model_path", card.model_path},
                             {"served_model_name", card.served_model_name},
                             {"tokenizer_path", card.tokenizer_path},
                             {"is_generation", true},
                             {"preferred_sampling_params", nullptr},
                             {"weight_version", kWeightVersion},
                             {"load_format", card.load_format},
                             {"reasoning_parser", name_or_null(context.options.parsers.reasoning_name)},
                             {"tool_call_parser", name_or_null(context.options.parsers.tools_name)},
                             {"has_image_understanding", false},
                             {"has_audio_understanding", false},
                             {"model_type", card.model_type},
                             {"architectures", card.architectures},
                             {"context_length", card.context_length},
                             {"vocab_size", card.vocab_size}}));
}

namespace {

ordered_json state_json(const SchedulerStats& stats, size_t dp_rank) {
  ordered_json state = load_json(stats, dp_rank);
  state["steps"] = stats.steps;
  state["finished_requests"] = stats.finished_requests;
  state["aborted_requests"] = stats.aborted_requests;
  state["retractions"] = stats.retractions;
  state["prompt_tokens"] = stats.prompt_tokens;
  state["prompt_cached_tokens"] = stats.prompt_cached_tokens;
  state["generated_tokens"] = stats.generated_tokens;
  state["last_gen_throughput"] = stats.generation_rate;
  if (stats.speculates) {
    state["spec_verify_ct"] = stats.speculation.verify_steps;
    state["spec_draft_token_num"] = stats.speculation.draft_tokens;
    state["spec_accept_token_num"] = stats.speculation.accepted_tokens;
    state["spec_accept_length"] = stats.speculation.accept_length();
    state["spec_accept_rate"] = stats.speculation.accept_rate();
    state["spec_off_steps"] = stats.unguessed_steps;
  }
  return state;
}

}  // namespace

void handle_server_info(const ServiceContext& context, const http::Request& /*request*/,
                        http::ResponseWriter& writer) {
  const SchedulerStats stats = context.sink.stats();
  ordered_json info = context.options.server_info ? context.options.server_info() : ordered_json::object();
  info["model_path"] = context.card.model_path;
  info["served_model_name"] = context.card.served_model_name;
  info["context_length"] = context.card.context_length;
  info["max_total_num_tokens"] = stats.total_tokens;
  info["max_req_input_len"] = context.card.context_length - 1;
  info["requests_in_work"] = context.active.size();
  auto& states = info["internal_states"] = ordered_json::array();
  for (const SchedulerStats& group : context.sink.group_stats())
    states.push_back(state_json(group, states.size()));
  writer.send(json_response(info));
}

void handle_loads(const ServiceContext& context, const http::Request& /*request*/,
                  http::ResponseWriter& writer) {
  ordered_json loads = ordered_json::array();
  for (const SchedulerStats& group : context.sink.group_stats())
    loads.push_back(load_json(group, loads.size()));
  const size_t count = loads.size();
  writer.send(
      json_response({{"timestamp", utc_now()}, {"dp_rank_count", count}, {"loads", std::move(loads)}}));
}

}  // namespace fathom::api
