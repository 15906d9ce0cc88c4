#include "api/request_options.h"

#include <algorithm>

#include "api/json_body.h"
#include "api/sampling_fields.h"

namespace fathom::api {

Refusal read_body(const ServiceContext& context, const http::Request& request, nlohmann::ordered_json* out) {
  if (const std::string* type = request.header("content-type")) {
    std::string media = type->substr(0, type->find(';'));
    media.erase(media.find_last_not_of(" \t") + 1);
    std::transform(media.begin(), media.end(), media.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!media.empty() && media != "application/json") {
      return ApiError{400, fmt::format("Content-Type is '{}', expected application/json", media), {}, {}};
    }
  }
  const Limits& limits = context.options.limits;
  Result<nlohmann::ordered_json> body =
      parse_json_object(request.body, {limits.json_depth, limits.json_keys, limits.json_values});
  if (!body.ok()) return to_api_error(body.error());
  *out = std::move(body).value();
  return std::nullopt;
}

void read_scheduling_options(Fields& fields, RequestOptions* out) {
  fields.int32("priority", INT32_MIN, INT32_MAX, &out->priority);
  fields.boolean("explain_cache", &out->explain_cache);
  for (const char* name : {"data_parallel_rank", "routed_dp_rank"}) {
    int32_t rank = -1;
    fields.int32(name, 0, INT32_MAX, &rank);
    if (rank >= 0) out->data_parallel_rank = rank;
  }
  std::string salt;
  std::string extra_key;
  fields.string("cache_salt", kMaxIdBytes, &salt);
  fields.string("extra_key", kMaxIdBytes, &extra_key);
  // The length keeps ("a", "bc") and ("ab", "c") apart.
  if (!salt.empty() || !extra_key.empty()) {
    out->cache_namespace = fmt::format("{}:{}{}", salt.size(), salt, extra_key);
  }
}

void read_request_options(Fields& fields, RequestOptions* out) {
  read_scheduling_options(fields, out);
  fields.string("rid", kMaxIdBytes, &out->rid);
  if (out->rid.empty()) out->rid = random_id();
}

void read_stream_options(Fields& fields, StreamOptions* out) {
  fields.boolean("stream", &out->stream);
  const nlohmann::ordered_json* options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!out->stream) return fields.fail("stream_options", "is only allowed when stream is true");
  Fields inner(fields, *options, "stream_options");
  inner.boolean("include_usage", &out->include_usage);
  inner.boolean("continuous_usage_stats", &out->continuous_usage);
  inner.refuse({"include_obfuscation"}, "is not available");
  if (Refusal refusal = inner.finish()) fields.fail(*refusal);
}

void refuse_unavailable(Fields& fields) {
  fields.refuse({"lora_path", "lora_id"}, "LoRA adapters are not available");
  fields.refuse(
      {"image_data", "video_data", "audio_data", "images_config", "max_dynamic_patch", "use_audio_in_video"},
      "images, video and audio are not available: the model reads text only");
  fields.refuse({"session_id", "session_params"},
                "sessions are not available; the prefix cache works without");
  fields.refuse(
      {"bootstrap_host", "bootstrap_port", "bootstrap_room", "bootstrap_pair_key", "disagg_prefill_dp_rank"},
      "prefill and decode on different servers is not available");
  fields.refuse({"return_hidden_states", "return_routed_experts", "return_indexer_topk", "return_entropy",
                 "return_spec_tokens_details", "return_cached_tokens_details", "return_bytes"},
                "is not available");
  fields.refuse({"background"}, "nothing is stored: the answer comes to the request itself");
  fields.refuse({"conversation_id", "custom_labels", "external_trace_header"},
                "is not available: requests are told apart by rid");
  fields.refuse({"no_logs"}, "is the server's to say (--log-requests)");
  fields.refuse({"require_reasoning"}, "is not available; the prompt decides whether the model thinks");
}

}  // namespace fathom::api
