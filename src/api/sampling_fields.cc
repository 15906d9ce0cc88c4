#include "api/sampling_fields.h"

#include <algorithm>
#include <charconv>

#include "api/prompts.h"
#include "base/random.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

void read_logit_bias(const ServiceContext& context, Fields& fields, SamplingParams* params) {
  const ordered_json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  const size_t most = context.options.limits.logit_bias;
  if (bias->size() > most) {
    return fields.fail("logit_bias", fmt::format("got {} entries, expected at most {}", bias->size(), most));
  }
  for (const auto& [key, value] : bias->items()) {
    int32_t id = -1;
    const auto [end, status] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (status != std::errc() || end != key.data() + key.size() || id < 0 || id >= context.card.vocab_size) {
      return fields.fail("logit_bias", fmt::format("got the key {}, expected a token id from 0 to {}",
                                                   describe(key), context.card.vocab_size - 1));
    }
    const double amount = value.is_number() ? value.get<double>() : 1e9;
    if (!(amount >= -100.0 && amount <= 100.0)) {
      return fields.fail_type("logit_bias." + key, "a number from -100 to 100", value);
    }
    // "7" and "07" are one token.
    for (const auto& [other, unused] : params->logit_bias) {
      if (other == id) return fields.fail("logit_bias", fmt::format("token {} comes twice", id));
    }
    params->logit_bias.emplace_back(id, static_cast<float>(amount));
  }
}

void read_seed(std::string_view name, Fields& fields, SamplingRequest* out) {
  const ordered_json* seed = fields.any(name);
  if (seed == nullptr) return;
  if (seed->is_number_unsigned()) {
    out->seed = seed->get<uint64_t>();
  } else if (seed->is_number_integer()) {
    out->seed = static_cast<uint64_t>(seed->get<int64_t>());
  } else {
    fields.fail_type(name, "an integer", *seed);
  }
}

}  // namespace

void start_sampling(const ServiceContext& context, SamplingRequest* out) {
  const GenerationDefaults& defaults = context.card.defaults;
  if (context.options.next_seed) out->seeds = &context.options.next_seed;
  SamplingParams& params = out->params;
  params.temperature = defaults.temperature.value_or(1.0F);
  params.top_p = defaults.top_p.value_or(1.0F);
  params.top_k = defaults.top_k.value_or(-1);
  params.min_p = defaults.min_p.value_or(0.0F);
  params.repetition_penalty = defaults.repetition_penalty.value_or(1.0F);
}

void read_stops(std::string_view name, const Limits& limits, Fields& fields, SamplingRequest* out) {
  std::vector<std::string> stops;
  fields.strings(name, limits.stops, limits.stop_bytes, &stops);
  if (!stops.empty()) out->stop = std::make_shared<const text::StopStrings>(std::move(stops));
}

void read_distribution(Fields& fields, SamplingParams* out) {
  fields.number("temperature", {0.0, 1e4}, &out->temperature);
  fields.number("top_p", {0.0, 1.0, true}, &out->top_p);
  if (fields.int32("top_k", -1, INT32_MAX, &out->top_k) && out->top_k == 0) {
    fields.fail("top_k", "got 0, expected -1 (all tokens) or at least 1");
  }
}

void complete_stop_tokens(const ServiceContext& context, SamplingParams* out) {
  std::vector<int32_t>& ids = out->stop_token_ids;
  const std::vector<int32_t>& eos = context.card.eos_token_ids;
  if (!out->ignore_eos) ids.insert(ids.end(), eos.begin(), eos.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

void read_sampling(const ServiceContext& context, Dialect dialect, Fields& fields, SamplingRequest* out) {
  const bool native = dialect == Dialect::kNative;
  const Limits& limits = context.options.limits;
  SamplingParams& params = out->params;
  start_sampling(context, out);
  read_distribution(fields, &params);
  fields.number("min_p", {0.0, 1.0}, &params.min_p);
  fields.number("repetition_penalty", {0.0, 2.0, true}, &params.repetition_penalty);
  fields.number("frequency_penalty", {-2.0, 2.0}, &params.frequency_penalty);
  fields.number("presence_penalty", {-2.0, 2.0}, &params.presence_penalty);
  read_logit_bias(context, fields, &params);
  fields.int32(native ? "min_new_tokens" : "min_tokens", 0, INT32_MAX, &params.min_new_tokens);
  read_seed(native ? "sampling_seed" : "seed", fields, out);
  fields.int32("n", 1, limits.choices, &out->n);
  read_stops("stop", limits, fields, out);
  if (out->stop != nullptr && context.tokenizer == nullptr) {
    fields.fail("stop",
                "stop strings need a tokenizer, and this server runs without one; use stop_token_ids");
  }
  fields.integers("stop_token_ids", kMaxStopIds, 0, context.card.vocab_size - 1, &params.stop_token_ids);
  fields.boolean("ignore_eos", &params.ignore_eos);
  complete_stop_tokens(context, &params);
  fields.boolean("no_stop_trim", &out->no_stop_trim);
  fields.boolean("skip_special_tokens", &out->skip_special_tokens);

  if (!native) read_response_format(fields, &out->form);
  read_output_form(fields, &out->form);
  if (out->form.kind != OutputForm::Kind::kFree && params.min_new_tokens > 0) {
    fields.fail(
        native ? "min_new_tokens" : "min_tokens",
        fmt::format("cannot be kept beside {}: the output ends where its form does", out->form.field));
  }
  fields.refuse({"stop_regex"}, "is not available; use stop or stop_token_ids");
  read_thinking_budget(fields, &out->rules);
  const ordered_json* custom_params = fields.any("custom_params");
  if (custom_params != nullptr) out->custom_params = *custom_params;
  if (native) return;
  if (const ordered_json* processor = fields.any("custom_logit_processor")) {
    Refusal refusal =
        read_logit_processor(context, "custom_logit_processor", *processor, out->custom_params, &out->rules);
    if (refusal) fields.fail(*refusal);
  } else if (custom_params != nullptr) {
    fields.fail("custom_params", "belongs to custom_logit_processor, which is not there");
  }
}

SamplingParams SamplingRequest::for_choice(int index, int32_t max_new_tokens) const {
  SamplingParams choice = params;
  choice.max_new_tokens = max_new_tokens;
  const uint64_t base = seed ? *seed : seeds != nullptr ? (*seeds)() : random_seed();
  choice.seed = index == 0 ? base : random_bits(base, 0x6e, static_cast<uint64_t>(index));
  return choice;
}

Length resolve_length(const ServiceContext& context, const SamplingRequest& request, size_t prompt_tokens,
                      std::optional<int32_t> fallback) {
  const auto refuse = [](std::string message, std::string param, std::string code) {
    return Length{0, ApiError{400, std::move(message), std::move(param), std::move(code)}};
  };
  const auto limit = static_cast<int64_t>(context.card.context_length);
  const auto prompt = static_cast<int64_t>(prompt_tokens);
  if (prompt == 0) return refuse("The prompt is empty: it has no tokens.", "", "");
  if (prompt >= limit) return {0, input_too_long(context.card, std::to_string(prompt))};
  const int64_t room = limit - prompt;
  int64_t wanted = room;
  if (request.max_new_tokens) {
    wanted = *request.max_new_tokens;
  } else if (fallback) {
    wanted = std::min<int64_t>(*fallback, room);
  }
  if (wanted > room) {
    return refuse(
        fmt::format("Requested token count exceeds {}. "
                    "You requested a total of {} tokens: {} tokens from the input messages and {} "
                    "tokens for the completion. Please reduce the number of tokens in the input "
                    "messages or the completion to fit within the limit.",
                    small_pool(context.card)
                        .value_or(fmt::format("the model's maximum context length of {} tokens", limit)),
                    prompt + wanted, prompt, wanted),
        "", "context_length_exceeded");
  }
  if (request.params.min_new_tokens > wanted) {
    return refuse(fmt::format("The least number of new tokens ({}) is above the largest ({}).",
                              request.params.min_new_tokens, wanted),
                  "min_tokens", "");
  }
  return {static_cast<int32_t>(wanted), std::nullopt};
}

Refusal check_token_ids(const ServiceContext& context, const std::vector<int32_t>& ids,
                        std::string_view field) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < context.card.vocab_size) continue;
    const std::string param = fmt::format("{}[{}]", field, i);
    return ApiError{
        400,
        fmt::format("{}: got token {}, expected 0 to {}", param, ids[i], context.card.vocab_size - 1),
        param,
        {}};
  }
  return std::nullopt;
}

}  // namespace fathom::api
