// The sampling fields that chat, completions and /generate share, read into core's parameters.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/context.h"
#include "api/fields.h"
#include "api/grammar_fields.h"
#include "api/logit_rules.h"
#include "api/token_text.h"
#include "core/sampling.h"

namespace fathom::api {

inline constexpr int32_t kMaxTopLogprobs = 20;      // OpenAI's limit
inline constexpr int32_t kMaxNativeLogprobs = 128;  // top_logprobs_num of /generate
inline constexpr size_t kMaxStopIds = 128;
inline constexpr size_t kMaxIdBytes = 256;  // rid, cache_salt, extra_key

// How a request wants its tokens, before the prompt's length is known.
struct SamplingRequest {
  SamplingParams params;                  // max_new_tokens and seed are set later, by for_choice
  std::optional<int32_t> max_new_tokens;  // nothing: until the context is full, or the endpoint's default
  std::optional<uint64_t> seed;
  const std::function<uint64_t()>* seeds = nullptr;  // where there is none: ServiceOptions::next_seed, if set
  int32_t n = 1;
  std::shared_ptr<const text::StopStrings> stop;  // null: none
  bool no_stop_trim = false;
  bool skip_special_tokens = true;
  OutputForm form;
  LogitRules rules;
  nlohmann::ordered_json custom_params;      // kNative: of a processor that is named elsewhere; or null
  std::vector<int32_t> kept_special_tokens;  // stay in the text, for the answer's parsers

  // The parameters of choice `index`. Choice 0 has the request's own seed, the others' follow from it, so
  // that n choices differ and the same request gives the same choices.
  SamplingParams for_choice(int index, int32_t max_new_tokens) const;
  TextOptions text_options() const { return {stop, no_stop_trim, skip_special_tokens, kept_special_tokens}; }
};

// The checkpoint's defaults, or OpenAI's.
void start_sampling(const ServiceContext& context, SamplingRequest* out);
// A list of stop strings.
void read_stops(std::string_view name, const Limits& limits, Fields& fields, SamplingRequest* out);
// temperature, top_p and top_k.
void read_distribution(Fields& fields, SamplingParams* out);
// Makes the stop tokens sorted and unique, with the model's own end tokens unless they are to be ignored.
void complete_stop_tokens(const ServiceContext& context, SamplingParams* out);

// Field names that differ between OpenAI's and the native form.
enum class Dialect { kOpenAi, kNative };

// Reads the fields and takes the checkpoint's defaults for what is absent. Errors are left in `fields`. The
// limit on output tokens is read by the caller's own field; min_tokens is checked in `resolve_length`.
void read_sampling(const ServiceContext& context, Dialect dialect, Fields& fields, SamplingRequest* out);

// The number of new tokens for a prompt of `prompt_tokens`: the asked number, or `fallback` as far as the
// context has room (nothing: all the room there is). Refuses what does not fit in the context.
struct Length {
  int32_t max_new_tokens = 0;
  Refusal refusal;
};
Length resolve_length(const ServiceContext& context, const SamplingRequest& request, size_t prompt_tokens,
                      std::optional<int32_t> fallback);

// Every id in [0, vocabulary).
Refusal check_token_ids(const ServiceContext& context, const std::vector<int32_t>& ids,
                        std::string_view field);

}  // namespace fathom::api
