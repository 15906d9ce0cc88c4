// POST /generate: the native request, one prompt or a batch of them.
#pragma once

#include <string>
#include <vector>

#include "api/meta_info.h"
#include "api/prompts.h"
#include "api/request_options.h"
#include "api/sampling_fields.h"

namespace fathom::api {

struct NativeSampling {
  SamplingRequest sampling;
  std::optional<int32_t> default_length;  // when the request names no max_new_tokens
};

// One prompt of the batch, for which the answer has n choices.
struct GenerateItem {
  std::vector<int32_t> prompt;
  std::string rid;
  size_t sampling = 0;  // index into GenerateBatch::sampling
  NativeLogprobs logprobs;
  std::vector<int32_t> logprob_ids;  // token_ids_logprob
  LogitRules rules;                  // of its sampling parameters, and of the request's own fields
};

struct GenerateBatch {
  std::vector<GenerateItem> items;
  std::vector<NativeSampling> sampling;  // one for all, or one an item
  bool is_list = false;                  // the answer is a list: a batch, or n > 1
  bool stream = false;
  bool return_prompt_token_ids = false;
  RequestOptions options;  // without rid
};

Refusal read_generate_request(const ServiceContext& context, const nlohmann::ordered_json& body,
                              GenerateBatch* out);

}  // namespace fathom::api
